"""Fitness: which targets can decide between mixtures, and what the others would need.

A target that isn't moved by the mixture, or by less than its noise, adds noise to the objective and nothing else. It is
fit to decide where a test says that its last values depend on the mixture: at 2 % where questions give the noise, else
at 3 %, of two tests together (Bonferroni):

    signal      Q = Σ_m n_m (ȳ_m − ȳ)² / σ² over mixtures, against χ² where questions give σ² = p̄ (1 − p̄) / N, or
                against F where σ² is that of repeats
    dependence  `dependence.depends`: values against shares, permuted; not of accuracies whose questions are known, for
                runs answer the same questions, and others would differ by their noise

A target whose spread is beyond its questions' noise, and that no law ranks although there are mixtures enough, isn't
fit either: its runs differ by something else. Few mixtures tell nothing; then all targets count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2, f

from bimix_tracking.data.observations import Observations
from bimix_tracking.data.targets import Kind
from bimix_tracking.display.card import Card, Shown
from bimix_tracking.messages import few, said
from bimix_tracking.quantities import count, signed
from bimix_tracking.selection.cross_validation import Validation
from bimix_tracking.selection.dependence import depends, rank_interval, rank_of
from bimix_tracking.selection.last_values import LastValues, held_out_last, last_values

_LEVEL = 0.03
"""Noise is called noise in 97 % of sweeps, and a target of twice the noise is still found."""
_LEVEL_OF_QUESTIONS = 0.02
"""Where their number is known, a spread of twice the noise stands out so much that fewer false alarms cost nothing."""
_LEFT = 8
"""So many more mixtures than domains show in nine of ten sweeps that a target depends on them: with fewer, and no noise
known well enough, nothing is judged."""
_RANKED = 4
_ENOUGH = 2.0
"""A target's spread should be so many times its noise."""
_MOST = 100.0
"""So many times the questions or repeats are no remedy."""
_AGREE = 0.5
"""Surrogates of one task whose mixtures rank with less disagree."""


@dataclass(frozen=True)
class Fitness:
    """Whether a target can decide between mixtures.

    Args:
        target: Its name.
        signal: Standard deviation between mixtures of its last values, in its own unit, noise taken off.
        noise: That of one run, in its own unit: of repeats of a mixture, of its questions, or of held-out predictions.
        noise_from: `repeats`, `questions` or `held-out`; empty where it is unknown.
        rank: Held-out rank correlation of this target alone; NaN where nothing was held out.
        interval: Of `rank`, 90 %.
        mixtures: How many were compared.
        p_value: Of all tests together, that it doesn't depend on the mixture; NaN where none could be made.
        fit: Whether it is fit to decide: it may count by default.
        why: Why it isn't, or why it couldn't be judged; empty where it is.
        needs: What it would need.
        surrogates: Other targets of the same task → rank correlation with them over mixtures.
        disagrees: Those of them whose mixtures rank otherwise, although both are fit.
    """

    target: str
    signal: float
    noise: float
    noise_from: str
    rank: float
    interval: tuple[float, float]
    mixtures: int
    p_value: float
    fit: bool = True
    why: str = ""
    needs: str = ""
    surrogates: Mapping[str, float] = field(default_factory=dict)
    disagrees: tuple[str, ...] = ()

    @property
    def ratio(self) -> float:
        """Signal over noise; NaN where the noise is unknown."""
        return self.signal / self.noise if self.noise > 0 else math.nan

    @property
    def judged(self) -> bool:
        """Whether it was found fit: not only kept because nothing could be told."""
        return self.fit and not self.why

    def sentence(self) -> str:
        """Return why it can't decide, and what it would need; empty where it can."""
        return "" if self.fit else said("{why}. It would need {needs}", why=self.why, needs=self.needs)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        numbers = {n: getattr(self, n) for n in ("signal", "noise", "ratio", "rank", "p_value")}
        return {
            "target": self.target,
            **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
            "noise_from": self.noise_from,
            "rank_interval": list(self.interval) if math.isfinite(self.rank) else None,
            "mixtures": self.mixtures,
            "fit": self.fit,
            "why": str(self.why),
            "needs": str(self.needs),
            "surrogates": dict(self.surrogates),
            "disagrees": list(self.disagrees),
        }


@dataclass(frozen=True, repr=False)
class FitnessTable(Shown, Mapping[str, Fitness]):
    """The fitness of every target, by name.

    Args:
        targets: In the order of the observations.
    """

    targets: Mapping[str, Fitness]

    def __getitem__(self, name: str) -> Fitness:
        return self.targets[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.targets)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def unfit(self) -> dict[str, str]:
        """Target that isn't fit to decide → why, and what it would need."""
        return {name: one.sentence() for name, one in self.targets.items() if not one.fit}

    def disagreements(self) -> list[str]:
        """Return surrogates of one task that rank mixtures otherwise, a sentence a pair."""
        return [
            said(
                "targets {one!r} and {other!r} are of one task and rank mixtures differently: correlation {rank} over "
                "{mixtures} mixtures",
                one=name,
                other=other,
                rank=signed(one.surrogates[other]),
                mixtures=one.mixtures,
            )
            for place, (name, one) in enumerate(self.targets.items())
            for other in one.disagrees
            if other in list(self.targets)[place:]
        ]

    def to_frame(self) -> pd.DataFrame:
        """Return one row a target: signal, noise (own unit), their ratio, rank and its interval, fit, why, needs."""
        rows = {
            name: {
                "signal": one.signal,
                "noise": one.noise,
                "noise_from": one.noise_from,
                "ratio": one.ratio,
                "rank_correlation": one.rank,
                "rank_low": one.interval[0],
                "rank_high": one.interval[1],
                "mixtures": one.mixtures,
                "p_value": one.p_value,
                "fit": one.fit,
                "why": str(one.why),
                "needs": str(one.needs),
            }
            for name, one in self.targets.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("target")

    def to_dict(self) -> list[dict[str, Any]]:
        """Return the table as JSON types."""
        return [one.to_dict() for one in self.targets.values()]

    def _card(self) -> Card:
        unfit = list(self.unfit)
        said_of = f"not fit: {few(unfit)}" if unfit else "all targets are fit, or couldn't be judged"
        rows = [
            [name, signed(one.ratio, 1), signed(one.rank), "✓" if one.fit else one.why]
            for name, one in self.targets.items()
        ]
        return Card(
            "Fit to decide between mixtures",
            said_of,
            "Signal between mixtures against noise, and held-out ranks, of each target alone",
            head=["target", "signal / noise", "rank correlation", "fit"],
            rows=rows,
        )


def fitness(obs: Observations, validation: Validation | None = None) -> FitnessTable:
    """Return which targets are fit to decide between mixtures; see the module.

    Args:
        obs: The sweep.
        validation: A law's held-out predictions; None: there are none, and only the values are judged.

    >>> from bimix_tracking.data.targets import Target
    >>> rng, share = np.random.default_rng(1), np.linspace(0.1, 0.9, 16)
    >>> table = pd.DataFrame({"a": share, "b": 1 - share, "tokens": 1e9, "quiz": 0.3 + 0.3 * share,
    ...                       "coin": rng.binomial(500, 0.5, 16) / 500})
    >>> targets = [Target("quiz", "accuracy", questions=500), Target("coin", "accuracy", questions=500)]
    >>> obs = Observations.from_wide(table, proportions=["a", "b"], losses=[], targets=targets, tokens="tokens")
    >>> [(name, one.fit, round(one.ratio, 1)) for name, one in fitness(obs).items()]
    [('quiz', True, 3.3), ('coin', False, 0.0)]
    """
    lasts = {target: last_values(obs, target) for target in obs.targets}
    found = {target: _judged(obs, target, lasts[target], validation) for target in obs.targets}
    return FitnessTable(_with_surrogates(obs, found, lasts))


def _judged(obs: Observations, target: str, last: LastValues, validation: Validation | None) -> Fitness:
    observed, predicted, residual = held_out_last(obs, target, validation)
    rank = rank_of(observed, predicted)
    many, free = len(last.often), max(len(last.often) - 1, 1)
    # Questions say by how much chance alone would differ, unless repeats show that runs differ by more.
    chance = last.sampling > 0 and (not last.repeats or chi2.sf(last.within / last.sampling, last.repeats) > _LEVEL)
    chances: Any = None
    if last.within > 0 and not chance:
        noise, known, chances = last.within / last.repeats, "repeats", f(free, last.repeats)
        moved = [float(chances.sf(last.between / free / noise))]
    elif chance:
        noise, known, chances = last.sampling, "questions", chi2(free, scale=1 / free)
        moved = [float(chances.sf(last.between / free / noise))]
    else:
        noise, known, moved = residual**2, "held-out" if residual > 0 else "", []
    # Whether a spread of twice the noise is found in nine of ten sweeps: of few mixtures or repeats it isn't.
    sharp = bool(moved) and chances.isf(_LEVEL / 2) <= (1 + _ENOUGH**2) * chances.ppf(0.1)
    seen = Fitness(
        target=target,
        signal=math.sqrt(max(last.between / free - np.nan_to_num(noise), 0.0) * many / len(last.value)),
        noise=math.sqrt(noise),
        noise_from=known,
        rank=rank,
        interval=rank_interval(rank, len(observed)),
        mixtures=many,
        p_value=math.nan,
    )
    if np.ptp(last.value) == 0 and many >= _RANKED:
        why, needs = said("it has the same value in every run"), said("an evaluation that distinguishes runs")
        # Of a loss the law's outcome says more: a stale value, excluded.
        return replace(seen, fit=obs.link(target).identity, why=why, needs=needs)
    domains = len(obs.domains)
    if not sharp and many < domains + _LEFT:
        seldom = {"mixtures": many, "domains": domains}
        return replace(seen, why=said("too few mixtures to judge: {mixtures} for {domains} domains", **seldom))
    own = obs.domains.index(target) if target in obs.domains else -1
    of_mixture = depends(last.means.to_numpy(float), last.mixtures, own)
    # All runs answer the same questions: what an accuracy follows by less than their noise, other questions don't show.
    tests = moved if known == "questions" else [*moved, of_mixture]
    seen = replace(seen, p_value=min(1.0, len(tests) * min(tests)))
    if seen.p_value > (_LEVEL_OF_QUESTIONS if known == "questions" else _LEVEL):
        most = last.between / float(chi2.ppf(_LEVEL, free)) - noise
        why, needs = _of_noise(obs, seen, most, last.questions)
        return replace(seen, fit=False, why=why, needs=needs)
    # What noise leaves of a rank correlation of 0.5.
    if (
        known == "questions"
        and many >= domains + _LEFT
        and of_mixture > _LEVEL
        and seen.interval[1] < _AGREE * _kept(seen)
    ):
        return replace(
            seen,
            fit=False,
            why=said(
                "its runs differ by more than its questions' noise, but not by their mixture: held-out rank "
                "correlation {rank} over {mixtures} mixtures",
                rank=signed(rank),
                mixtures=many,
            ),
            needs=said("repeats of some mixtures, which show the noise of its runs"),
        )
    return seen


def _of_noise(obs: Observations, seen: Fitness, most: float, questions: float) -> tuple[str, str]:
    """Return why a target can't be told from noise, and what it would need: `most` is what its signal² may be."""
    noise = obs.link(seen.target).shown_change(seen.noise).removeprefix("+")
    times = max(_ENOUGH**2 * seen.noise**2 / most, 2.0) if most > 0 else math.inf
    if seen.noise_from == "questions":
        needs = said("other questions: these don't move with the mixture")
        if times < _MOST:
            needs = said("at least about {questions} questions", questions=count(float(f"{times * questions:.2g}")))
        why = said(
            "mixtures differ by no more than the noise of its {questions} questions, {noise}",
            questions=count(questions),
            noise=noise,
        )
        return why, needs
    if seen.noise_from == "repeats":
        needs = said("another evaluation: this one doesn't move with the mixture")
        if times < _MOST:
            needs = said("at least about {repeats} repeats of each mixture", repeats=math.ceil(times))
        return said("mixtures differ by no more than repeats of one, {noise}", noise=noise), needs
    why = said("it shows no dependence on the mixture over {mixtures} mixtures", mixtures=seen.mixtures)
    if obs.target(seen.target).kind is Kind.ACCURACY:
        return why, said("its number of questions, or repeats of some mixtures, to know its noise")
    return why, said("repeats of some mixtures, to know its noise, or more mixtures")


def _with_surrogates(
    obs: Observations, found: Mapping[str, Fitness], lasts: Mapping[str, LastValues]
) -> dict[str, Fitness]:
    result = {}
    for name, one in found.items():
        task, ranks, apart = obs.target(name).task, {}, []
        others = [other for other in found if other != name and task is not None and obs.target(other).task == task]
        for other in others:
            rank, mixtures = _between(obs, name, other, lasts)
            if math.isnan(rank):
                continue
            ranks[other] = rank
            # Noise alone lowers the correlation of two measures of one thing.
            least = _AGREE * _kept(one) * _kept(found[other])
            if one.judged and found[other].judged and rank_interval(rank, mixtures)[1] < least:
                apart.append(other)
        needs = one.needs
        instead = [other for other in others if found[other].judged]
        if not one.fit and instead:
            needs = said("{needs}; or use {other!r} of the same task instead", needs=needs, other=instead[0])
        result[name] = replace(one, surrogates=ranks, disagrees=tuple(apart), needs=needs)
    return result


def _kept(one: Fitness) -> float:
    """Return what noise leaves of a perfect correlation."""
    return one.signal / math.hypot(one.signal, one.noise) if one.noise > 0 and one.signal > 0 else 1.0


def _between(obs: Observations, one: str, other: str, lasts: Mapping[str, LastValues]) -> tuple[float, int]:
    """Return the rank correlation of two targets' mixtures, good with good, and over how many."""
    signs = [1.0 if obs.target(name).rising else -1.0 for name in (one, other)]
    both = pd.concat([sign * lasts[n].means for sign, n in zip(signs, (one, other), strict=True)], axis=1).dropna()
    return rank_of(both.iloc[:, 0].to_numpy(float), both.iloc[:, 1].to_numpy(float)), len(both)

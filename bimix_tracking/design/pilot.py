"""Which mixtures to run first: a pilot from which the laws can be told, and what it will be able to tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from bimix_tracking.design.fisher import Information
from bimix_tracking.design.run_files import PlannedRuns
from bimix_tracking.design.space_filling import centre, filling, into_box, moderate, rounded, scattered
from bimix_tracking.errors import ConstraintError, MixtureError
from bimix_tracking.laws.protocol import Array
from bimix_tracking.laws.registry import broken
from bimix_tracking.laws.registry import law as find_law
from bimix_tracking.laws.registry import names as all_laws
from bimix_tracking.mixture import Mixture, check_domains
from bimix_tracking.recommendation.constraints import MAX_EPOCHS, Bounds, Constraints, constrain, proportional_reference

Method = Literal["informative", "space-filling"]
NOISE = 0.005
"""By how much of itself a run's loss is off by chance unless told otherwise."""
LAWS = ("bimix", "transfer")
_POOL = 256
_FOLDS = 10
_REPEAT_FROM = 6
"""With fewer runs each is worth more as a mixture of its own."""
_TIED = 0.9


@dataclass(frozen=True)
class Plan(PlannedRuns):
    """The runs of a pilot. See `plan_pilot`; the writers are those of `PlannedRuns`.

    Args:
        method: How they were chosen.
        laws: Which laws they are to tell.
        box: Which mixtures may be run, and why.
        seed: Of the choice.
        notes: What the reader should know about the choice.
    """

    method: Method
    laws: tuple[str, ...]
    box: Constraints
    seed: int
    notes: tuple[str, ...]

    @property
    def shares(self) -> Array:
        """The proportions, shape (runs, domains)."""
        return np.stack([mixture.array(self.domains) for mixture in self.mixtures])

    def identifiable(self, noise: float = NOISE) -> Identifiable:
        """Return what these runs will be able to tell, before one of them is paid for.

        Args:
            noise: Standard deviation of a run's log loss by chance: 0.005 is half a per cent of the loss.

        Raises:
            ValueError: Noise that isn't positive.
        """
        if not (math.isfinite(noise) and noise > 0):
            raise ValueError(f"the noise must be a positive part of the loss, such as 0.005, got {noise!r}")
        shares = self.shares
        distinct = np.unique(np.round(shares, 6), axis=0)
        rows = []
        for i, domain in enumerate(self.domains):
            own = shares[:, i]
            rows.append(
                {
                    "domain": domain,
                    "shares": len(np.unique(np.round(own, 6))),
                    "smallest": own.min(),
                    "largest": own.max(),
                    "alpha_error": noise * _alpha_error(own),
                }
            )
        lower, upper = moderate(self.box, shares[:1])
        expected = Information(self.laws, lower, upper, noise=noise, rng=np.random.default_rng(self.seed))
        # As `select_law` leaves mixtures out: in ten parts, or one at a time.
        left = len(distinct) - math.ceil(len(distinct) / _FOLDS)
        laws = [
            {
                "law": name,
                "mixtures_needed": find_law(name).traits.mixtures_needed,
                "mixtures": len(distinct),
                "left_in": left,
                "enough": left >= find_law(name).traits.mixtures_needed and len(distinct) > 2,
                "prediction_error": math.sqrt(expected.variance(shares, name)) if name in self.laws else math.nan,
            }
            for name in dict.fromkeys((*all_laws(), *self.laws))
            if not broken(name)
        ]
        return Identifiable(
            domains=pd.DataFrame(rows).set_index("domain"),
            laws=pd.DataFrame(laws).set_index("law"),
            tied=_tied(self.domains, shares),
            noise=noise,
            repeats=len(shares) - len(distinct),
        )


@dataclass(frozen=True)
class Identifiable:
    """What a set of mixtures can tell, and with what error.

    Args:
        domains: One row a domain: number of distinct `shares`, `smallest`, `largest`, and `alpha_error`, the expected
            standard error of BiMix's α; infinite where the share never changes.
        laws: One row a law: `mixtures_needed`, distinct `mixtures`, how many are `left_in` while some are held out,
            whether these are `enough` for it to be a candidate, and for the laws planned for `prediction_error`, the
            expected standard error of a predicted difference between mixtures, as a part of the loss.
        tied: The two domains whose shares are most correlated, and their correlation; None with two domains, where
            one is always the rest of the other.
        noise: Of a run's log loss, as assumed.
        repeats: Runs that repeat a mixture.
    """

    domains: pd.DataFrame
    laws: pd.DataFrame
    tied: tuple[str, str, float] | None
    noise: float
    repeats: int

    def sentences(self) -> tuple[str, ...]:
        """Return the same in plain words, what cannot be told among it."""
        count, varied = len(self.domains), self.domains[self.domains["shares"] > 1]
        mixtures = int(self.laws["mixtures"].iloc[0])
        said = []
        if len(varied):
            error = varied["alpha_error"]
            fewest = varied["shares"].idxmin()
            said.append(
                f"Each domain's effect (BiMix's alpha, typically 0.03 to 0.3) is told to ±{error.min():.2g} to "
                f"±{error.max():.2g} (worst: {error.idxmax()!r}), if chance moves a run's loss by "
                f"{100 * self.noise:.2g} %. {fewest!r} has the fewest distinct proportions, "
                f"{varied['shares'].min()}."
            )
        for domain, row in self.domains[self.domains["shares"] == 1].iterrows():
            said.append(
                f"The effect of {str(domain)!r} cannot be told: its proportion is {row['smallest']:.4g} in every run."
            )
        if mixtures < count + 1:
            said.append(
                f"{mixtures} distinct mixture{'s' if mixtures > 1 else ''} of {count} domains cannot tell all the "
                f"domains apart: that takes {count + 1}. What one domain teaches another will rest on the laws' "
                "priors, and where two domains' proportions moved together their effects are one."
            )
        enough = [str(name) for name in self.laws.index[self.laws["enough"]]]
        short = {str(n): int(row["mixtures_needed"]) for n, row in self.laws[~self.laws["enough"]].iterrows()}
        said.append(f"Laws with enough mixtures to be compared: {', '.join(enough) or 'none'}.")
        if short:
            left = int(self.laws["left_in"].iloc[0])
            needs = ", ".join(f"{name} ({need})" for name, need in short.items())
            said.append(f"With some held out, {left} mixtures are left, too few for {needs}.")
        errors = self.laws["prediction_error"].dropna()
        parts = ", ".join(f"{100 * value:.2g} % by {name}" for name, value in errors.items())
        said.append(f"A predicted difference between two good mixtures will be off by about {parts} of the loss.")
        if self.tied is not None and abs(self.tied[2]) > _TIED:
            one, other, r = self.tied
            said.append(
                f"{one!r} and {other!r} move together (correlation {r:.2f}): their effects are hard to tell apart."
            )
        if not self.repeats:
            said.append("No mixture is run twice, so the noise of a run won't be known, only assumed.")
        return tuple(said)


def plan_pilot(
    domains: Sequence[str],
    runs: int,
    *,
    tokens: float | None = None,
    bounds: Bounds | None = None,
    available_tokens: Mapping[str, float] | None = None,
    max_epochs: float | Mapping[str, float] = MAX_EPOCHS,
    candidates: Sequence[Mixture] = (),
    method: Method = "informative",
    repeats: int | None = None,
    laws: Sequence[str] = LAWS,
    noise: float = NOISE,
    seed: int = 0,
) -> Plan:
    """Return the mixtures to run first, so that the laws, and through them the best mixture, can be told.

    The first run is the reference: in proportion to the available tokens, or equal parts. Then come the candidates,
    as far as there are runs for them, then the runs of the method, then repeats of the reference with other seeds.
    `informative` minimises the mean expected variance of predicted differences between mixtures that may turn out
    best (`bimix_tracking.design.fisher`); `space-filling` takes the mixture farthest from all before it, in log share.

    Args:
        domains: Their names; at least two.
        runs: How many in all, repeats included; one more than there are domains tells the domains apart.
        tokens: Training tokens of one pilot run; needed with `available_tokens`.
        bounds: By domain, (lower, upper) or a pinned proportion.
        available_tokens: Distinct tokens a domain has: a run's proportion is capped at available · max_epochs / tokens.
        max_epochs: How often a token may be repeated, for all or by domain.
        candidates: Mixtures the team wants to see run: the current one, entropy mixtures (arXiv 2405.14908, Eq. 13).
        method: `informative` or `space-filling`.
        repeats: How many runs repeat the reference, so that noise can be measured; by default one, where there are at
            least six runs and two more than domains, else none.
        laws: The laws that may turn out right, for `informative`.
        noise: Standard deviation of a run's log loss by chance.
        seed: Of the choice: the same arguments and seed give the same plan.

    Raises:
        ConstraintError: Fewer than two domains or one run, constraints that are wrong or leave one mixture only, a
            candidate of other domains or one that breaks them.
        MixtureError: Names that are no domain names.
        ValueError: No such method or law.

    >>> plan = plan_pilot(["code", "web", "books"], 8, available_tokens={"code": 4e9}, tokens=20e9, max_epochs=1)
    >>> plan.names[0], plan.mixtures[0]
    ('pilot-01', Mixture({'code': 0.2, 'web': 0.4, 'books': 0.4}))
    >>> plan.identifiable().domains["shares"].to_dict()
    {'code': 7, 'web': 7, 'books': 7}
    """
    names = check_domains(domains)
    if len(names) < 2:
        raise ConstraintError(f"a pilot compares mixtures of at least two domains, got {list(names)}")
    if runs < 1:
        raise ConstraintError(f"a pilot has at least one run, got {runs}")
    if method not in get_args(Method):
        raise ValueError(f"no method {method!r}; there are {', '.join(map(repr, get_args(Method)))}")
    box = constrain(names, tokens=tokens, bounds=bounds, available_tokens=available_tokens, max_epochs=max_epochs)
    again = _repeats(repeats, runs, len(names))
    first, notes = _reference(box, proportional_reference(names, available_tokens))
    wanted = _wanted(candidates, box, first)
    if len(wanted) > runs - again - 1:
        notes.append(f"{len(wanted)} candidates for {runs - again - 1} runs beside the reference and its repeats")
    fixed = [first, *wanted][: runs - again]
    rng = np.random.default_rng(seed)
    there = np.stack([mixture.array(names) for mixture in fixed])
    lower, upper = moderate(box, there)
    expected = Information(laws, lower, upper, noise=noise, rng=rng)
    centres = np.concatenate([there, centre(lower, upper)[None], expected.optima])
    pool = scattered(centres, _POOL, lower, upper, rng)
    more = runs - again - len(fixed)
    # The repeats tell nothing of a law but noise, and the fixed ones are there either way.
    found = expected.exchange(there, pool, more) if method == "informative" else filling(there, pool, more)
    mixtures = [*fixed, *(rounded(names, row, box) for row in found), *([first] * again)]
    return Plan(
        names=tuple(f"pilot-{i + 1:0{max(2, len(str(runs)))}d}" for i in range(runs)),
        mixtures=tuple(mixtures),
        seeds=(*([0] * (runs - again)), *range(1, again + 1)),
        method=method,
        laws=tuple(laws),
        box=box,
        seed=seed,
        notes=tuple(notes),
    )


def _repeats(asked: int | None, runs: int, domains: int) -> int:
    if asked is None:
        return int(runs >= max(_REPEAT_FROM, domains + 2))
    if not 0 <= asked < runs:
        raise ConstraintError(f"{asked} of {runs} runs cannot be repeats of the first one: ask for 0 to {runs - 1}")
    return asked


def _reference(box: Constraints, mixture: Mixture) -> tuple[Mixture, list[str]]:
    """Return the reference as the first run, moved into the box where it has to be."""
    broken = box.broken_by(mixture)
    if not broken:
        return mixture, []
    nearest = into_box(mixture.array(box.domains)[None], box.lower, box.upper)[0]
    moved = Mixture.normalized(dict(zip(box.domains, nearest.tolist(), strict=True)))
    return moved, [f"the reference is the nearest mixture that the constraints allow: {broken[0]}"]


def _wanted(candidates: Sequence[Mixture], box: Constraints, first: Mixture) -> list[Mixture]:
    """Return the candidates in the order of the domains, each once."""
    found = [first]
    for mixture in candidates:
        try:
            shares = mixture.array(box.domains)
        except MixtureError as error:
            raise ConstraintError(f"a candidate doesn't fit: {error}") from error
        broken = box.broken_by(mixture)
        if broken:
            raise ConstraintError(f"a candidate breaks a constraint: {broken[0]}")
        if all(np.abs(shares - other.array(box.domains)).max() > 1e-6 for other in found):
            found.append(Mixture(dict(zip(box.domains, shares.tolist(), strict=True))))
    return found[1:]


def _alpha_error(share: Array) -> float:
    """Return BiMix's standard error of α at one data volume, for a noise of 1: [(JᵀJ)⁻¹]_αα, J = (−log r, 1)."""
    about = np.log(np.maximum(share, 1e-3))
    spread = float(((about - about.mean()) ** 2).sum())
    return 1 / math.sqrt(spread) if spread > 1e-12 else math.inf


def _tied(domains: tuple[str, ...], shares: Array) -> tuple[str, str, float] | None:
    varied = np.flatnonzero(np.ptp(shares, axis=0) > 1e-9)
    if len(varied) < 3 or len(shares) < 3:
        return None
    r = np.asarray(np.corrcoef(shares[:, varied].T)) - np.eye(len(varied))
    i, j = np.unravel_index(int(np.abs(r).argmax()), r.shape)
    return domains[varied[i]], domains[varied[j]], float(r[i, j])

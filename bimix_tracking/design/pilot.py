"""Which mixtures to run first: a pilot that identifies the laws, and which effects it will identify."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from bimix_tracking.design.fisher import Information
from bimix_tracking.design.identifiability import Identifiable, alpha_error, tied
from bimix_tracking.design.pool import Mixtures, choices
from bimix_tracking.design.practical_box import practical
from bimix_tracking.design.run_files import PlannedRuns
from bimix_tracking.design.space_filling import (
    centre,
    distances,
    distinct,
    filling,
    into_box,
    moderate,
    rounded,
    scattered,
    separation,
)
from bimix_tracking.errors import ConstraintError, MixtureError, did_you_mean
from bimix_tracking.laws.protocol import Array
from bimix_tracking.laws.registry import broken
from bimix_tracking.laws.registry import law as find_law
from bimix_tracking.laws.registry import names as all_laws
from bimix_tracking.mixture import Mixture, check_domains
from bimix_tracking.progress import Progress
from bimix_tracking.recommendation.constraints import MAX_EPOCHS, Bounds, Constraints, constrain, proportional_reference

Method = Literal["informative", "space-filling"]
NOISE = 0.005
"""Noise of a run as a part of its loss, by default."""
LAWS = ("bimix", "transfer", "additive")
"""Which of them is right, a pilot doesn't know; `additive` is what a predictor mostly follows on real sweeps."""
_POOL = 256
_FOLDS = 10
_REPEAT_FROM = 6
"""With fewer runs each is worth more as a mixture of its own."""


@dataclass(frozen=True, repr=False)
class Plan(PlannedRuns):
    """The runs of a pilot. See `plan_pilot`; the writers are those of `PlannedRuns`.

    Args:
        method: How they were chosen.
        laws: Which laws they are to identify.
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
        """Return what these runs will identify, before any is paid for.

        Args:
            noise: Standard deviation of a run's log loss by chance: 0.005 is half a per cent of the loss.

        Raises:
            ValueError: Noise that isn't positive.
        """
        if not (math.isfinite(noise) and noise > 0):
            raise ValueError(f"the noise must be a positive fraction of the loss, such as 0.005, got {noise!r}")
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
                    "alpha_error": noise * alpha_error(own),
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
            tied=tied(self.domains, shares),
            noise=noise,
            repeats=len(shares) - len(distinct),
        )


def plan_pilot(
    domains: Sequence[str],
    runs: int,
    *,
    tokens: float | None = None,
    bounds: Bounds | None = None,
    available_tokens: Mapping[str, float] | None = None,
    max_epochs: float | Mapping[str, float] = MAX_EPOCHS,
    candidates: Sequence[Mixture] = (),
    pool: Mixtures | None = None,
    method: Method = "informative",
    repeats: int | None = None,
    laws: Sequence[str] = LAWS,
    noise: float = NOISE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Plan:
    """Return the mixtures to run first, so that the laws, and through them the best mixture, are identifiable.

    The first run is the reference: in proportion to the available tokens, or equal parts. Then come the candidates,
    as far as there are runs for them, then the runs of the method, then repeats of the reference with other seeds.
    `informative` minimises the mean expected variance of predicted differences between mixtures that may turn out
    best (`bimix_tracking.design.fisher`); `space-filling` takes the mixture farthest from all before it, in log share.
    Near-twins are not planned: the second adds no information.

    Domains without bounds keep to between 2 and 70 % (`bimix_tracking.design.practical_box`); the reference and the
    candidates are run as they are. With a pool, the runs are members of it, each once, and no other limit than the
    constraints holds: the first run is the chosen one nearest to the reference.

    Args:
        domains: Their names; at least two.
        runs: How many in all, repeats included; one more than there are domains identifies all effects.
        tokens: Training tokens of one pilot run; needed with `available_tokens`.
        bounds: By domain, (lower, upper) or a pinned proportion; such a domain has no other limits.
        available_tokens: Distinct tokens a domain has: a run's proportion is capped at available · max_epochs / tokens.
        max_epochs: How often a token may be repeated, for all or by domain.
        candidates: Mixtures the team wants to see run: the current one, entropy mixtures (arXiv 2405.14908, Eq. 13).
        pool: Mixtures to choose among, instead of any: a sequence, or a table with columns `proportion/<domain>` or
            `<domain>`. Those that break a constraint are excluded and counted in `notes`.
        method: `informative` or `space-filling`.
        repeats: How many runs repeat the first, so that noise can be measured; by default one, where there are at
            least six runs and two more than domains and no pool, else none.
        laws: The laws that may turn out right, for `informative`.
        noise: Standard deviation of a run's log loss by chance.
        seed: Of the choice: the same arguments and seed give the same plan.
        progress: Called as (what, done, total).

    Raises:
        ConstraintError: Fewer than two domains or one run, constraints that are wrong or leave one mixture only, a
            candidate of other domains or one that breaks them, a pool of other domains or with fewer mixtures than
            runs.
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
        raise ValueError(f"no method {method!r}; {did_you_mean(method, get_args(Method))}")
    box = constrain(names, tokens=tokens, bounds=bounds, available_tokens=available_tokens, max_epochs=max_epochs)
    again = _repeats(repeats, runs, len(names), given=pool is not None)
    search = _Search(method, tuple(laws), noise, np.random.default_rng(seed), progress)
    reference = proportional_reference(names, available_tokens)
    if pool is None:
        mixtures, box, notes = search.anywhere(box, runs - again, reference, candidates, bounds or {})
    else:
        mixtures, box, notes = search.among(pool, box, runs - again, reference, candidates)
    return Plan(
        names=tuple(f"pilot-{i + 1:0{max(2, len(str(runs)))}d}" for i in range(runs)),
        mixtures=(*mixtures, *([mixtures[0]] * again)),
        seeds=(*([0] * (runs - again)), *range(1, again + 1)),
        method=method,
        laws=tuple(laws),
        box=box,
        seed=seed,
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class _Search:
    """How the runs of a pilot are chosen, once it is known among what."""

    method: Method
    laws: tuple[str, ...]
    noise: float
    rng: np.random.Generator
    progress: Progress | None

    def anywhere(
        self, asked: Constraints, runs: int, reference: Mixture, candidates: Sequence[Mixture], bounded: Collection[str]
    ) -> tuple[list[Mixture], Constraints, list[str]]:
        """Return mixtures within a box, the reference and the candidates first; the box; and notes."""
        first, notes = _reference(asked, reference)
        wanted = _wanted(candidates, asked, [first])
        if len(wanted) > runs - 1:
            notes.append(f"{len(wanted)} candidates for {runs - 1} runs, without the reference and its repeats")
        fixed = [first, *wanted][:runs]
        there = np.stack([mixture.array(asked.domains) for mixture in fixed])
        box = practical(asked, bounded)
        lower, upper = moderate(box, there)
        expected = Information(self.laws, lower, upper, noise=self.noise, rng=self.rng)
        centres = np.concatenate([there, centre(lower, upper)[None], expected.optima])
        pool = scattered(centres, max(_POOL, 4 * runs), lower, upper, self.rng)
        more = runs - len(fixed)
        if self.method == "informative":
            apart = separation(there, pool, more)
            reach = expected.reach(there[0])
            found = expected.exchange(there, pool, more, apart=apart, reach=reach, progress=self.progress)
        else:
            found = filling(there, pool, more)
        found = distinct(found, there, lower, upper)
        return [*fixed, *(rounded(box.domains, row, box) for row in found)], box, notes

    def among(
        self, pool: Mixtures, box: Constraints, runs: int, reference: Mixture, candidates: Sequence[Mixture]
    ) -> tuple[list[Mixture], Constraints, list[str]]:
        """Return mixtures of a pool beside the candidates, the one nearest to the reference first; and so on."""
        wanted = _wanted(candidates, box, [])
        fixed, more = wanted[:runs], max(runs - len(wanted), 0)
        there = np.array([mixture.array(box.domains) for mixture in fixed]).reshape(-1, len(box.domains))
        given = choices(pool, box, more, there)
        notes = [f"{len(wanted)} candidates for {runs} runs, without the repeats"] if len(wanted) > runs else []
        every = np.concatenate([there, given.shares])
        found = given.shares
        if 0 < more < len(found):
            box = box.narrowed(every.min(0), every.max(0), "the pool")
            if self.method == "informative":
                lower, upper = moderate(box, every)
                expected = Information(self.laws, lower, upper, noise=self.noise, rng=self.rng)
                apart = separation(there, found, more)
                found = expected.exchange(there, found, more, apart=apart, moves=False, progress=self.progress)
            else:
                found = filling(there if len(there) else reference.array(box.domains)[None], found, more)
        found = found[:more]
        mixtures = [*fixed, *(Mixture(dict(zip(box.domains, row.tolist(), strict=True))) for row in found)]
        shares = np.array([mixture.array(box.domains) for mixture in mixtures])
        nearest = int(distances(shares, reference.array(box.domains)[None]).argmin())
        mixtures.insert(0, mixtures.pop(nearest))
        return mixtures, box, [*given.notes, *notes]


def _repeats(asked: int | None, runs: int, domains: int, *, given: bool) -> int:
    if asked is None:
        return int(runs >= max(_REPEAT_FROM, domains + 2) and not given)
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


def _wanted(candidates: Sequence[Mixture], box: Constraints, there: list[Mixture]) -> list[Mixture]:
    """Return the candidates in the order of the domains, each once, without those that are there."""
    found = list(there)
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
    return found[len(there) :]

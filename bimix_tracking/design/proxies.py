"""Sizes, lengths and numbers of proxy runs for a budget of compute, with what is known of their worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from bimix_tracking.design.options import (
    MEASURED,
    MEASURED_BY,
    MEASURED_RANK,
    MEASURED_STEP,
    Option,
    SizedRuns,
)
from bimix_tracking.display.card import Card, Shown
from bimix_tracking.errors import ConstraintError
from bimix_tracking.laws.registry import law as find_law
from bimix_tracking.quantities import MISSING, about, count, flops, parameters, size_meant
from bimix_tracking.quantities import percent as percent_of
from bimix_tracking.recommendation.investment.flops import PER_TOKEN, training_flops

TOKENS_PER_PARAMETER = 20.0
"""How long a proxy trains at least: the compute-optimal length (arXiv 2203.15556, Table 3)."""
PER_DOMAIN = 5
"""Mixtures by domain, as public swarms have them (OLMo 3); the laws' held-out error falls slowly from there on."""
_LAWS = ("bimix", "transfer", "additive")
_LEFT_IN = 0.9
"""Cross-validation in ten parts leaves so many of the mixtures to a fit."""
_MOST_FOR_ANCHORS = 0.5
_ANCHORS = ((3, 1.0), (2, 1.0), (1, 1.0), (1, 0.5), (1, 0.3))
"""How many, and which part of the target run: the first that half of the budget pays for."""
_STEP = 2.5
"""From a size to the next: that of the sweep which the figures are from."""
_FEWEST_AT_SECOND = 4
"""Fewer mixtures at a size don't enter the law, nor rank: they are anchors."""
_DIGITS = 2
_LEAST_SIZE = 1000.0


@dataclass(frozen=True, repr=False)
class ProxyPlan(Shown):
    """What a budget buys. See `plan_proxies`.

    Args:
        budget: FLOPs.
        model_size: Of the target run.
        tokens: Of the target run.
        options: Each way to spend it.
        notes: What is said of all.
    """

    budget: float
    model_size: float
    tokens: float
    options: tuple[Option, ...]
    notes: tuple[str, ...] = ()

    @property
    def target(self) -> float:
        """FLOPs of the target run."""
        return training_flops(self.model_size, self.tokens)

    @property
    def advised(self) -> Option:
        """The first option that the budget reaches, one with an anchor before those without."""
        possible = [option for option in self.options if option.possible]
        return next((o for o in possible if o.anchors is not None or o.name == TARGET_SIZE), possible[0])

    def to_frame(self) -> pd.DataFrame:
        """Return a row an option: its runs, anchors, FLOPs and measured error, as they are printed."""
        return pd.DataFrame([self._row(option) for option in self.options]).set_index("option")

    def _row(self, option: Option) -> dict[str, str]:
        measured = option.error is not None and option.possible
        return {
            "option": option.name,
            "proxies": " + ".join(map(str, option.proxies)) or MISSING,
            "anchors": MISSING if option.anchors is None else str(option.anchors),
            "FLOPs": flops(option.flops) if option.possible else f"needs {flops(option.needs or math.nan)}",
            "of target run": about(option.flops / self.target) if option.possible else MISSING,
            "step": f"{count(option.step)} ×" if option.possible else MISSING,
            f"error measured at {count(MEASURED_STEP)} ×": percent_of(option.error or 0.0) if measured else MISSING,
        }

    def sentences(self) -> tuple[str, ...]:
        """Return what is known of the options, and what isn't."""
        first = (
            f"The target run takes {flops(self.target)} FLOPs (6 N D). The budget of {flops(self.budget)} is "
            f"{about(self.budget / self.target)} of it."
        )
        own = [f"{option.name}: {note}" for option in self.options for note in option.notes]
        return (first, *own, *self.notes)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {
            "budget_flops": self.budget,
            "model_size": self.model_size,
            "tokens": self.tokens,
            "target_flops": self.target,
            "options": [option.to_dict() for option in self.options],
            "advised": self.advised.name,
        }

    def _card(self) -> Card:
        rows = [list(self._row(option).values()) for option in self.options]
        first, *rest = self.sentences()
        return Card(
            f"Proxies for {flops(self.budget)} FLOPs",
            first,
            f"advised: {self.advised.name}",
            head=list(self._row(self.options[0])),
            rows=rows,
            notes=tuple(rest),
        )


ONE_SIZE, TWO_SIZES, TARGET_SIZE = "one size", "two sizes", "target size"


def plan_proxies(
    domains: Sequence[str] | int,
    budget: float,
    *,
    model_size: float,
    tokens: float,
    mixtures: int | None = None,
    smallest: float | None = None,
    gpus: int | None = None,
    tokens_per_parameter: float = TOKENS_PER_PARAMETER,
) -> ProxyPlan:
    """Return what a budget of FLOPs buys: sizes, lengths and numbers of proxies, and anchors at the target size.

    A run of N parameters and D tokens takes 6 N D FLOPs. Of the budget C at most half pays for anchors: three whole
    runs, two, one, a half or 30 % of one, whichever is the first that it pays for. The rest trains k mixtures at N
    parameters and c N tokens each,

        N = √((C − C_anchors) / (6 c k)),

    and never nearer to the target size than a step of 2.5: from there on the runs become longer, up to the target run's
    tokens by parameter. k is five by domain, or what the laws need. With two sizes a quarter of the mixtures, at least
    four, is run at 2.5 N as well.

    Args:
        domains: Their names, or how many.
        budget: C, FLOPs.
        model_size: Of the target run, parameters without embeddings.
        tokens: Of the target run.
        mixtures: k.
        smallest: No proxy has fewer parameters.
        gpus: As many runs train side by side; k is rounded up to a multiple of it.
        tokens_per_parameter: c.

    Raises:
        ConstraintError: A number that isn't positive, a size below 1,000 parameters, or a budget that no option fits
            in; the text has what it takes.

    >>> plan = plan_proxies(["code", "web", "books"], 1e21, model_size=1e9, tokens=2e10)
    >>> plan.advised.name, str(plan.advised.proxies[0]), str(plan.advised.anchors)
    ('one size', '15 × 400M, 8B tokens', '3 × 1B, 20B tokens')
    """
    number = domains if isinstance(domains, int) else len(set(domains))
    _check(number, budget, model_size, tokens, mixtures, smallest, gpus, tokens_per_parameter)
    needed = max(find_law(name).traits.mixtures_needed for name in _LAWS)
    k = mixtures or max(PER_DOMAIN * number, math.ceil(needed / _LEFT_IN))
    notes = []
    if gpus is not None and gpus <= k:
        k = gpus * math.ceil(k / gpus)
        notes.append(f"{k} mixtures train in {k // gpus} rounds of {gpus} GPUs, a run on each.")
    search = _Search(budget, number, model_size, tokens, k, max(smallest or 0.0, _LEAST_SIZE), tokens_per_parameter)
    options = (search.sweep(ONE_SIZE, 0), search.sweep(TWO_SIZES, max(_FEWEST_AT_SECOND, k // 4)), search.at_target())
    if not any(option.possible for option in options):
        least = min(option.needs or math.inf for option in options)
        raise ConstraintError(
            f"a budget of {flops(budget)} FLOPs is too small: {k} runs of {parameters(search.smallest)} parameters "
            f"take {flops(least)}. Raise it to that, allow smaller proxies, or run fewer mixtures"
        )
    notes.append(
        f"Errors are measured ({MEASURED_BY}): SlimPajama, seven domains, 122M to 310M parameters, a step of "
        f"{count(MEASURED_STEP)}, 20B tokens a run. At a larger step the error is unknown."
    )
    return ProxyPlan(budget, model_size, tokens, options, tuple(notes))


@dataclass(frozen=True)
class _Search:
    """What is asked, by the names of `plan_proxies`."""

    budget: float
    domains: int
    model_size: float
    tokens: float
    mixtures: int
    smallest: float
    per_parameter: float

    def sweep(self, name: str, second: int) -> Option:
        """Return an option with a sweep at one size or, with mixtures at a second one, at two."""
        times = _STEP if second else 1.0
        # FLOPs of the sweep are this times N²; a run at the second size is as long for its size.
        square = PER_TOKEN * self.per_parameter * (self.mixtures + second * _STEP**2)
        most = self.model_size / (times * _STEP)
        least = square * self.smallest**2
        one = training_flops(self.model_size, self.tokens)
        target = Option(name, (), None, one, math.nan)
        if most < self.smallest:
            note = f"no proxy between {parameters(self.smallest)} parameters and the target size: lower --smallest"
            return replace(target, needs=None, notes=(note,))
        if self.budget < least:
            return replace(target, needs=least)
        anchors = self._anchors(min(_MOST_FOR_ANCHORS * self.budget, self.budget - least))
        left = self.budget - (anchors.flops if anchors else 0.0)
        size = max(_down(min(math.sqrt(left / square), most)), self.smallest)
        sizes = [(size, self.mixtures)] + ([(_down(_STEP * size), second)] if second else [])
        # What a larger size would take goes into longer runs, up to the target run's length for its size.
        longest = left / (PER_TOKEN * sum(runs * each**2 for each, runs in sizes))
        per_parameter = max(min(longest, self.tokens / self.model_size), self.per_parameter)
        proxies = [SizedRuns(each, _down(per_parameter * each), runs) for each, runs in sizes]
        found = replace(target, proxies=tuple(proxies), anchors=anchors, step=self.model_size / proxies[-1].model_size)
        return self._judged(found)

    def at_target(self) -> Option:
        """Return the option with all runs at the target size."""
        one = training_flops(self.model_size, self.tokens)
        runs = min(int(self.budget / one * (1 + 1e-9)), self.mixtures)
        needed = math.ceil(max(find_law(name).traits.mixtures_needed for name in _LAWS) / _LEFT_IN)
        option = Option(TARGET_SIZE, (), None, one, 1.0)
        if runs < needed:
            return replace(option, needs=needed * one)
        return self._judged(replace(option, proxies=(SizedRuns(self.model_size, self.tokens, runs),)))

    def _anchors(self, most: float) -> SizedRuns | None:
        for runs, part in _ANCHORS:
            found = SizedRuns(self.model_size, part * self.tokens, runs, part)
            if found.flops <= most:
                return found
        return None

    def _judged(self, option: Option) -> Option:
        """Add what was measured of an option, and what isn't known."""
        notes = []
        at_target, anchors = option.name == TARGET_SIZE, 0 if option.anchors is None else option.anchors.runs
        whole = option.anchors is None or option.anchors.part == 1.0
        if not at_target and not anchors:
            least = _ANCHORS[-1][1] * option.target
            notes.append(
                f"No anchor: mixtures rank (correlation {MEASURED_RANK} measured), but losses at the target size stay "
                f"unknown. {_ANCHORS[-1][1]:.0%} of a target run takes {flops(least)} FLOPs more.".replace("%", " %")
            )
        if option.anchors is not None and not whole:
            notes.append(
                f"The anchor stops at {about(option.anchors.part)} of its schedule, which is the target's. Its loss at "
                "the end comes from its curve, with an error of its own (bimix plan --anchor)."
            )
        if option.name == TWO_SIZES:
            notes.append("Rank transfer is checked between the two sizes. Their error is not measured.")
        alike = at_target or (anchors and whole and option.name == ONE_SIZE)
        error = self._measured(option, anchors) if alike else None
        if error is not None and not at_target and option.step > 1.05 * MEASURED_STEP:
            notes.append(
                f"The step from {parameters(option.proxies[-1].model_size)} to {parameters(self.model_size)} is "
                f"{count(option.step)} ×: the error there is unknown, and no smaller than measured."
            )
        return replace(option, error=error, notes=tuple(notes))

    def _measured(self, option: Option, anchors: int) -> float | None:
        by_domain = option.proxies[0].runs / self.domains
        known = [errors for mixtures, errors in MEASURED if by_domain >= mixtures * (1 - 1e-9)]
        return known[-1][anchors] if known else None


def _down(size: float) -> float:
    """Return a number with two digits, no larger than it was."""
    unit = 10.0 ** (math.floor(math.log10(size)) - _DIGITS + 1)
    return math.floor(size / unit * (1 + 1e-12)) * unit


def _check(
    domains: int, budget: float, model_size: float, tokens: float, mixtures: int | None, smallest: float | None,
    gpus: int | None, per_parameter: float,
) -> None:  # fmt: skip
    if domains < 2:
        raise ConstraintError(f"a sweep compares mixtures of at least two domains, got {domains}")
    numbers = {"budget": budget, "model size": model_size, "tokens": tokens, "tokens per parameter": per_parameter}
    numbers |= {} if smallest is None else {"smallest size": smallest}
    for name, value in numbers.items():
        if not (math.isfinite(value) and value > 0):
            raise ConstraintError(f"the {name} must be a positive number, got {value!r}")
    for name, size in (("model size", model_size), ("smallest size", smallest)):
        if size is not None and size < _LEAST_SIZE:
            raise ConstraintError(f"a {name} of {count(size)} parameters is none{size_meant(size)}")
    if smallest is not None and smallest >= model_size:
        raise ConstraintError(
            f"the smallest size, {parameters(smallest)}, is not below the target size, {parameters(model_size)}"
        )
    for name, whole in (("mixtures", mixtures), ("GPUs", gpus)):
        if whole is not None and whole < 1:
            raise ConstraintError(f"the number of {name} must be positive, got {whole}")

"""Guards: no target may get worse than so much against the reference; how people write them, and what they mean.

code<=+0.5%     a loss at most 0.5 % above that of the reference
mmlu>=-0.5pp    an accuracy at most half a percentage point below
judge>=-0.01    a hundredth of the target's own unit
all<=+1%        every target, or every member of a group, in its own direction
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bimix_tracking.data.links import IDENTITY, Link
from bimix_tracking.data.targets import Kind, Target
from bimix_tracking.errors import ConstraintError, did_you_mean, shown
from bimix_tracking.laws.protocol import Array
from bimix_tracking.messages import few, said
from bimix_tracking.recommendation.solvers.limits import Limit, Rule

Sign = Literal["<=", ">="]
Unit = Literal["relative", "points", "absolute"]
ALL = "all"
_WRITTEN = re.compile(r"(.*)(<=|>=|≤|≥)\s*([+\-−]?)\s*(\d+(?:\.\d*)?(?:e[+\-]?\d+)?|\.\d+)\s*(%|pp)?\s*", re.DOTALL)
_FORMS = "'code<=+0.5%', 'mmlu>=-0.5pp', 'judge>=-0.01' or 'all<=+1%'"
_MOST = 20
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Guard:
    """How far one target, a group of them or all may change against the reference.

    Args:
        target: A target's name, a group's, or `all`.
        sign: `<=` of what is better when low, `>=` of what is better when high.
        amount: The change allowed: 0.005 of half a percent, or of half a percentage point.
        unit: Of `amount`: relative to the reference's value, points of an accuracy, or absolute, in the target's unit.

    >>> print(Guard("code", "<=", 0.005))
    code<=+0.5%
    """

    target: str
    sign: Sign
    amount: float
    unit: Unit = "relative"

    def __post_init__(self) -> None:
        if self.sign not in ("<=", ">="):
            raise ConstraintError(f"a guard's sign must be '<=' or '>=', got {shown(self.sign)}")
        if self.unit not in ("relative", "points", "absolute"):
            raise ConstraintError(f"a guard is relative, in points or absolute, got {shown(self.unit)}")
        if isinstance(self.amount, bool) or not math.isfinite(self.amount):
            raise ConstraintError(f"the guard on {shown(self.target)} needs a finite amount, got {self.amount!r}")
        if self.unit == "relative" and self.amount <= -1:
            raise ConstraintError(f"guard {str(self)!r} leaves nothing: a fall by {-100 * self.amount:g} % is too much")

    def __str__(self) -> str:
        """Return it as people write it."""
        size = self.amount if self.unit == "absolute" else 100 * self.amount
        end = {"relative": "%", "points": "pp", "absolute": ""}[self.unit]
        return f"{self.target}{self.sign}{size:+.6g}{end}"

    @property
    def worsening(self) -> float:
        """How much worse the target may get; below 0: it must get better."""
        return self.amount if self.sign == "<=" else -self.amount


def parse_guard(text: str) -> Guard:
    """Return a guard that a person wrote: a name, `<=` or `>=`, and the change allowed.

    The name ends at the last sign, so it may hold one. `%` is relative to the reference's value, `pp` are percentage
    points of an accuracy, a plain number is in the target's own unit.

    Raises:
        ConstraintError: It is none; the text shows the forms.

    >>> parse_guard("code<=+0.5%")
    Guard(target='code', sign='<=', amount=0.005, unit='relative')
    >>> parse_guard("a<=b >= -0.5pp").target
    'a<=b'
    >>> parse_guard("code<0.5%")
    Traceback (most recent call last):
    bimix_tracking.errors.ConstraintError: 'code<0.5%' is no guard: write one as 'code<=+0.5%', ...
    """
    found = _WRITTEN.fullmatch(text) if isinstance(text, str) else None
    if found is None or not found[1].strip():
        raise ConstraintError(f"{shown(text)} is no guard: write one as {_FORMS}")
    size = float(found[4]) * (-1 if found[3] in ("-", "−") else 1)
    sign: Sign = "<=" if found[2] in ("<=", "≤") else ">="
    if not found[5]:
        return Guard(found[1].strip(), sign, size, "absolute")
    return Guard(found[1].strip(), sign, size / 100, "relative" if found[5] == "%" else "points")


@dataclass(frozen=True)
class TargetGuard:
    """A guard on one target.

    Args:
        text: As it was asked for, of `all` or a group with the target's own form.
        target: Its name.
        guard: In the target's direction.
        link: Of the target.
    """

    text: str
    target: str
    guard: Guard
    link: Link

    def limit(self, reference: Any) -> Any:
        """Return the limit, in the target's own unit, by its value on the reference."""
        if self.guard.unit == "relative":
            return reference + self.guard.amount * np.abs(reference)
        return reference + self.guard.amount

    @property
    def rule(self) -> Rule:
        """What is allowed, by the working loss on the reference."""

        def largest(loss: Array) -> Array:
            limit = self.limit(self.link.value(loss))
            return np.asarray(self.link.loss(limit), float)

        return largest

    def amount_for(self, value: float, reference: float) -> Guard:
        """Return the guard of this form that a value would just meet, rounded to what it surely meets."""
        change = value - reference
        of = abs(reference) if self.guard.unit == "relative" else 1.0
        scale = 1.0 if self.guard.unit == "absolute" else 100.0
        worse = (change if self.guard.sign == "<=" else -change) / of * scale
        step = 10.0 ** (math.floor(math.log10(max(abs(worse), 1e-12))) - 1)
        allowed = math.ceil(worse / step + 1e-9) * step / scale
        return Guard(self.target, self.guard.sign, allowed if self.guard.sign == "<=" else -allowed, self.guard.unit)

    def limited(self, margin: float = 0.0) -> Limit:
        """Return the limit that a search keeps.

        Args:
            margin: So much less is allowed, of the working loss.
        """
        return Limit(self.target, self.rule, margin)


@dataclass(frozen=True)
class GuardResult:
    """What a guard did to a recommendation.

    Args:
        guard: Its text.
        target: The target.
        reference: Its value on the reference, in its own unit, like the two that follow.
        limit: The worst value allowed.
        predicted: On the recommended mixture.
        binding: Whether it decides the mixture.
        cost: What it costs: the objective above that of the optimum without this guard, in the objective's unit.
        price: What a unit of its own more would gain, of the objective; 0 where it doesn't bind.
        probability: That it holds, by the replicates and the law's form error; None without replicates.
        without_margin: Likewise on the optimum without a margin.
        margin: How much nearer to the reference than the limit it was held for its probability, in its own unit.
    """

    guard: str
    target: str
    reference: float
    limit: float
    predicted: float
    binding: bool
    cost: float
    price: float
    probability: float | None = None
    without_margin: float | None = None
    margin: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return dict(vars(self))

    def noted(self) -> dict[str, Any]:
        """Return what stands beside a mixture: the guard, whether it is kept as predicted, and how probably it holds.

        >>> GuardResult("code<=+1%", "code", 2.0, 2.02, 2.01, False, 0.0, 0.0, 0.93).noted()
        {'guard': 'code<=+1%', 'kept': True, 'probability': 0.93}
        """
        over = self.predicted - self.limit
        worse = over if "<=" in self.guard.removeprefix(self.target)[:2] else -over
        return {"guard": self.guard, "kept": worse <= _ROUNDING * abs(self.limit), "probability": self.probability}


def guards_on(
    guardrails: Sequence[str | Guard],
    targets: Collection[str],
    described: Mapping[str, Target],
    links: Mapping[str, Link],
    unfit: Mapping[str, str] | None = None,
    weights: Mapping[str, float] | None = None,
) -> tuple[tuple[TargetGuard, ...], list[str]]:
    """Return a guard for each target that is meant, and warnings about those left out or said twice.

    Args:
        guardrails: As people write them, or made.
        targets: Whose values are predicted.
        described: What targets are: their kinds and groups.
        links: Of targets that are no losses.
        unfit: Targets that can't decide, with what each needs: a guard on one is refused.
        weights: As people gave them: a target with one of its own may be guarded all the same.

    Raises:
        ConstraintError: No guard, an unknown target, one that can't decide, or the wrong direction; says the right one.

    >>> found, _ = guards_on(["all<=+1%"], ["code", "quiz"], {"quiz": Target("quiz", "accuracy")}, {})
    >>> [each.text for each in found]
    ['code<=+1% (of all<=+1%)', 'quiz>=-1% (of all<=+1%)']
    """
    if isinstance(guardrails, str | Guard):
        guardrails = [guardrails]
    kept = {t: why for t, why in (unfit or {}).items() if not (weights or {}).get(t, 0.0) > 0}
    groups: dict[str, list[str]] = {}
    for name in targets:
        if name in described and described[name].group:
            groups.setdefault(str(described[name].group), []).append(name)
    found: list[TargetGuard] = []
    warnings: list[str] = []
    for given in guardrails:
        guard = given if isinstance(given, Guard) else parse_guard(given)
        if guard.target in targets:
            found.append(_single(guard, described, links, kept))
            continue
        members = list(targets) if guard.target == ALL else groups.get(guard.target, [])
        if not members:
            known = [*targets, *groups, ALL]
            raise ConstraintError(
                f"guard {str(guard)!r} is on an unknown target {shown(guard.target)}; "
                f"{did_you_mean(guard.target, known, _MOST)}"
            )
        left_out = [name for name in members if name in kept]
        if len(left_out) == len(members):
            raise ConstraintError(f"guard {str(guard)!r}: {_unfit(left_out[0], kept[left_out[0]])}")
        if left_out:
            warnings.append(
                said(
                    "guard {guard!r} leaves out targets that cannot decide: {targets}",
                    guard=str(guard),
                    targets=few(left_out),
                )
            )
        found += [_member(guard, name, described, links) for name in members if name not in kept]
    once: dict[str, str] = {}
    for one in found:
        if one.target in once and once[one.target] != one.text:
            warnings.append(
                said(
                    "target {target!r} has two guards, {one!r} and {other!r}: the tighter one counts",
                    target=one.target,
                    one=once[one.target],
                    other=one.text,
                )
            )
        once[one.target] = one.text
    return tuple(found), list(dict.fromkeys(warnings))


def _unfit(target: str, why: str) -> str:
    return f"target {target!r} cannot decide, for {why}. Leave the guard out, or give the target a weight"


def _single(
    guard: Guard, described: Mapping[str, Target], links: Mapping[str, Link], unfit: Mapping[str, str]
) -> TargetGuard:
    target = described.get(guard.target) or Target(guard.target)
    if guard.target in unfit:
        raise ConstraintError(f"guard {str(guard)!r}: {_unfit(guard.target, unfit[guard.target])}")
    right: Sign = ">=" if target.rising else "<="
    if guard.sign != right:
        better = "higher" if target.rising else "lower"
        other = Guard(guard.target, right, -guard.amount, guard.unit)
        raise ConstraintError(
            f"guard {str(guard)!r} forbids an improvement: of {guard.target!r}, {better} is better. Did you mean "
            f"{str(other)!r}?"
        )
    _checked(guard, target)
    return TargetGuard(str(guard), guard.target, guard, links.get(guard.target, IDENTITY))


def _member(guard: Guard, name: str, described: Mapping[str, Target], links: Mapping[str, Link]) -> TargetGuard:
    target = described.get(name) or Target(name)
    own = (
        Guard(name, ">=", -guard.worsening, guard.unit)
        if target.rising
        else Guard(name, "<=", guard.worsening, guard.unit)
    )
    _checked(own, target)
    return TargetGuard(f"{own} (of {guard})", name, own, links.get(name, IDENTITY))


def _checked(guard: Guard, target: Target) -> None:
    if guard.unit == "points" and target.kind is not Kind.ACCURACY:
        raise ConstraintError(
            f"guard {str(guard)!r} is in percentage points, and {guard.target!r} is no accuracy but of kind "
            f"{target.kind}: write it with % or as a number"
        )
    if guard.unit == "absolute" and target.kind is Kind.ACCURACY and abs(guard.amount) >= 1:
        points = Guard(guard.target, guard.sign, guard.amount / 100, "points")
        raise ConstraintError(
            f"guard {str(guard)!r}: an accuracy is a fraction from 0 to 1. Did you mean {str(points)!r}?"
        )

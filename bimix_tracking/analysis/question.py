"""What an analysis is asked: the options that decide its answer, and by which it is known again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from bimix_tracking.data.observations import Observations
from bimix_tracking.data.targets import Target
from bimix_tracking.errors import ConstraintError, did_you_mean, shown
from bimix_tracking.fitting.replicates import REPLICATES
from bimix_tracking.mixture import Mixture
from bimix_tracking.recommendation.constraints import MAX_EPOCHS, Bounds
from bimix_tracking.recommendation.costs import Costs
from bimix_tracking.recommendation.guards import ALL, Guard, parse_guard
from bimix_tracking.recommendation.solvers.limits import Change
from bimix_tracking.recommendation.trade_offs.pareto import REST
from bimix_tracking.tracking.write_back import key_of

AUTO = "auto"
"""The law that predicts held-out mixtures best."""
_LIMITS = ("bounds", "available_tokens", "max_epochs", "prior", "prior_strength", "reference")
_GUARDS = ("guardrails", "guard_probability", "max_change", "change")
_OF_TARGETS = ("weight", "guard", "pareto")


@dataclass(frozen=True, kw_only=True)
class Question:
    """The question that an analysis answers; arguments as in `analyze`."""

    tokens: float
    model_size: float | None = None
    law: str = AUTO
    weights: Mapping[str, float] | None = None
    targets: Mapping[str, Target] | None = None
    bounds: Bounds | None = None
    available_tokens: Mapping[str, float] | None = None
    max_epochs: float | Mapping[str, float] = MAX_EPOCHS
    prior: Mixture | None = None
    prior_strength: float = 0.0
    reference: Mixture | None = None
    beyond_tried: bool = False
    guardrails: Sequence[str | Guard] = ()
    guard_probability: float | None = None
    max_change: float | None = None
    change: Change = "tv"
    pareto: tuple[str, str] | None = None
    costs: Costs | None = None
    replicates: int = REPLICATES
    lang: str = "en"

    @property
    def limits(self) -> dict[str, Any]:
        """What the mixture has to keep to, as `recommend` and `allowed` take it."""
        return {name: getattr(self, name) for name in _LIMITS}

    @property
    def guarding(self) -> dict[str, Any]:
        """How far targets and mixture may be from the reference, as `recommend` takes it."""
        return {name: getattr(self, name) for name in _GUARDS}

    def check_names(self, domains: Collection[str]) -> None:
        """Refuse names that no run has.

        Args:
            domains: All that the runs have, mixed or only evaluated, targets and groups of targets among them.

        Raises:
            ConstraintError: An unknown one; names the nearest, and those that there are.
        """
        for what, given in self.named.items():
            unknown = next((name for name in given if name not in domains), None)
            if unknown is not None:
                kind = "target" if what in _OF_TARGETS else "domain"
                on = "on" if what == "guard" else "of"
                raise ConstraintError(f"{what} {on} unknown {kind} {shown(unknown)}; {did_you_mean(unknown, domains)}")

    @property
    def named(self) -> dict[str, Collection[str]]:
        """The names that the question has for domains and targets, by what for; none where it names none."""
        asked = {
            "weight": self.weights,
            "guard": [name for name in map(_guarded, self.guardrails) if name != ALL] or None,
            "pareto": [name for name in self.pareto or () if name != REST] or None,
            "bounds": self.bounds,
            "available tokens": self.available_tokens,
            "epochs": self.max_epochs if isinstance(self.max_epochs, Mapping) else None,
            "prior": self.prior,
            "reference": self.reference,
        }
        return {what: given for what, given in asked.items() if given is not None}

    def key(self, obs: Observations) -> str:
        """Return what names the analysis of these observations: the same question to the same data has one key."""
        asked = {one.name: value for one in fields(self) if (value := getattr(self, one.name)) != one.default}
        if obs.described:  # weights and groups of targets, wherever they were said
            asked["targets"] = {name: target.to_dict() for name, target in sorted(obs.described.items())}
        return key_of("analysis", obs.data_hash, asked)


def _guarded(guard: str | Guard) -> str:
    return (guard if isinstance(guard, Guard) else parse_guard(guard)).target


def check_options(given: Iterable[str], also: Iterable[str] = ()) -> None:
    """Refuse an option that `analyze` doesn't have, before it is handed on.

    Args:
        given: Names of options.
        also: Names that are known besides those of a question.

    Raises:
        TypeError: An unknown one; names the nearest, and those that there are.

    >>> check_options(["wieghts"])
    Traceback (most recent call last):
    TypeError: no option 'wieghts'; did you mean 'weights'? Choose from 'model_size', 'law', ...
    """
    known = [*(one.name for one in fields(Question) if one.name != "tokens"), *also]
    for name in given:
        if name not in known:
            raise TypeError(f"no option {shown(name)}; {did_you_mean(name, known)}")

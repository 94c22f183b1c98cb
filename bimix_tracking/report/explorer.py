"""What the mixture explorer of the page computes from: the fitted laws themselves, and their replicates.

The script beside (`explorer.js`, with each law's own, which stands beside the law) evaluates the same laws from the
same θ as `LawFit.predict`. Replicates travel as
half-precision deviations from the fit: an interval needs three digits of them, and there are hundreds of thousands.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from bimix_tracking.data.observations import Observations
from bimix_tracking.data.weights import objective_weights
from bimix_tracking.display.texts import printable, shorten
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.levels import SAME_VOLUME, faded
from bimix_tracking.fitting.outcome import Outcome
from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.laws.registry import BUILT_IN
from bimix_tracking.laws.registry import law as find_law
from bimix_tracking.messages import said
from bimix_tracking.mixture import Mixture
from bimix_tracking.recommendation.guards import GuardResult, parse_guard
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.recommendation.uncertainty import LEVEL
from bimix_tracking.report.language import Language
from bimix_tracking.report.scale.selector import sizes_content
from bimix_tracking.report.templates import own_text

MOST_BYTES = 1_000_000
"""Of replicates: as base64 a third more. Of a large sweep fewer replicates are in the page."""
FEWEST = 50
"""With fewer replicates than that an interval's ends would be single draws."""

_LAWS = "/* the laws' page scripts */"
"""Where `explorer.js` has them."""


def unscripted(fit: LawFit) -> list[str]:
    """Return the laws with a part in a prediction that have no page script: without them a page cannot compute it."""
    used = dict.fromkeys(
        one.law for name, one in _members(fit).items() if any(_weight(fit, name, target) for target in fit.targets)
    )
    return [name for name in used if find_law(name).page_script is None]


def script(fit: LawFit) -> str:
    """Return the page's one script: the explorer's, with those of our laws, and of other packages' that have a part."""
    used = dict.fromkeys([*BUILT_IN, *(one.law for one in _members(fit).values())])
    scripts = {name: find_law(name).page_script for name in used}
    joined = "\n".join(f"laws[{as_script(name)}] =\n{text.strip()}\n;" for name, text in scripts.items() if text)
    return own_text("explorer.js").replace(_LAWS, joined)


def content(
    obs: Observations, fit: LawFit, rec: Recommendation, replicates: Replicates | None, say: Language
) -> dict[str, Any]:
    """Return everything the explorer needs, as JSON types.

    Args:
        obs: The sweep, whose mixtures are presets.
        fit: Its fit.
        rec: The recommendation, for target, weights and reference.
        replicates: Of the fit; None: there are no intervals.
        say: The page's language.
    """
    targets = shown_targets(fit, rec)
    weights = {
        target: weight for target, weight in objective_weights(rec.weights, fit.links).items() if target in targets
    }
    weights = {target: weights[target] for target in targets}
    kept = _kept(fit, replicates, targets)
    counted = [target for target in targets if weights[target] > 0]
    sizes = sizes_content(fit, targets, say)
    return {
        "domains": [printable(domain) for domain in fit.domains],
        "targets": [fit.own(target) for target in targets],
        "names": [printable(target) for target in targets],
        "weights": list(weights.values()),
        "unit": str(rec.unit),
        "linked": any(target in fit.links for target in counted),
        "links": [None if fit.link(t).identity else fit.link(t).to_dict() for t in targets],
        "signed": [t in fit.links or t not in fit.domains for t in targets],
        "volumes": [fit.only_volume(target) for target in targets],
        "sameVolume": SAME_VOLUME,
        "guards": [_guard(one, rec, targets) for one in rec.guards],
        "tokens": rec.volume,
        "observed": list(fit.tokens),
        **sizes | {"sizes": [{**one, "sure": _sure(replicates, one["size"], weights, rec)} for one in sizes["sizes"]]},
        "tried": [fit.tried(domain) for domain in fit.domains],
        "reference": rec.reference.array(fit.domains).tolist(),
        "tolerance": None if rec.near_optimal is None else rec.near_optimal.tolerance,
        "levels": [list(map(list, zip(*faded(fit.levels.get(target, ())), strict=True))) for target in targets],
        "laws": [_law(one, name, fit, targets, replicates, kept) for name, one in _members(fit).items()],
        "replicates": kept,
        "presets": [{"name": name, "shares": shares} for name, shares in _presets(obs, fit, rec, say)],
        "source": f"{printable(obs.source)}, data {fit.data_hash}",
        "words": _words(say, rec),
        "units": say.units(),
    }


def _sure(
    drawn: Replicates | None, size: float | None, working: Mapping[str, float], rec: Recommendation
) -> dict[str, Any] | None:
    """Return what an interval has beside the replicates at a model size, of each target and of the weighted sum."""
    if drawn is None:
        return None
    replicates = drawn.at(size)

    def of(weights: Mapping[str, float]) -> dict[str, float]:
        form = replicates.form(weights)
        rate = 0.0 if replicates.later is None else replicates.later.rate(weights)
        return {
            "times": replicates.times(weights, LEVEL),
            "wider": replicates.stretch(weights, LEVEL),
            "each": 0.0 if form is None else form.each,
            "apart": 0.0 if form is None else form.apart,
            "rate": rate if math.isfinite(rate) else 0.0,
            "ofRun": 0.0 if form is None else form.of_proxy,
        }

    return {
        "targets": [of({target: 1.0}) for target in working],
        "sum": of(working),
        "optimism": 0.0 if rec.uncertainty is None else rec.uncertainty.optimism,
    }


def shown_targets(fit: LawFit, rec: Recommendation) -> list[str]:
    """Return the targets of the explorer: all that are predicted, and every domain."""
    return [t for t in fit.targets if t in fit.domains or math.isfinite(rec.predicted.get(t, math.nan))]


def outside_rows(fit: LawFit, rec: Recommendation) -> list[tuple[str, list[tuple[int, str]]]]:
    """Return the targets that are no domains by their group: their places in the explorer's data, and names."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for place, target in enumerate(shown_targets(fit, rec)):
        if target not in fit.domains:
            groups.setdefault(rec.target(target).group or "", []).append((place, printable(target)))
    return [(printable(group), rows) for group, rows in sorted(groups.items(), key=lambda item: (not item[0], item[0]))]


def _guard(one: GuardResult, rec: Recommendation, targets: list[str]) -> dict[str, Any]:
    """Return a guard as the script keeps it: by its own rule, for its limit moves with the reference's value."""
    rule = parse_guard("x" + one.guard.removeprefix(one.target).partition(" (of ")[0])
    return {
        "place": targets.index(one.target),
        "text": printable(one.guard),
        "amount": rule.amount,
        "relative": rule.unit == "relative",
        "rising": rec.target(one.target).rising,
    }


def as_script(values: Mapping[str, Any] | str) -> str:
    r"""Return JSON that a page may hold in a script element: no text in it can end the element.

    >>> as_script({"name": "</script><b>"})
    '{"name":"\\u003c/script>\\u003cb>"}'
    """
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _members(fit: LawFit) -> Mapping[str, LawFit]:
    return fit.members or {fit.law: fit}


def _weight(fit: LawFit, name: str, target: str) -> float:
    return fit.targets[target].parameters.get(name, 0.0) if fit.members else 1.0


def _used(fit: LawFit, targets: list[str]) -> Iterator[tuple[str, LawFit, str, Any]]:
    """Return each law and target with a part in the prediction, and θ there."""
    for name, one in _members(fit).items():
        for target in targets:
            if target in one.targets and _weight(fit, name, target):
                yield name, one, target, one.theta(target)


def _kept(fit: LawFit, replicates: Replicates | None, targets: list[str]) -> int:
    """Return how many replicates the page has room for."""
    if replicates is None:
        return 0
    each = sum(2 * len(theta) for _, _, _, theta in _used(fit, targets) if theta is not None)
    kept = min(len(next(iter(replicates.theta.values()))), MOST_BYTES // max(each, 1))
    return kept if kept >= FEWEST else 0


def _law(
    one: LawFit, name: str, fit: LawFit, targets: list[str], replicates: Replicates | None, kept: int
) -> dict[str, Any]:
    parts: list[dict[str, Any] | None] = []
    for target in targets:
        theta = one.theta(target) if target in one.targets and _weight(fit, name, target) else None
        if theta is None:
            # A law of weight 0 adds nothing; one that couldn't be fitted leaves the loss unknown.
            parts.append(None if not _weight(fit, name, target) else {"weight": _weight(fit, name, target)})
            continue
        fitted = one.targets[target]
        part: dict[str, Any] = {"weight": _weight(fit, name, target), "theta": theta.tolist()}
        if fitted.outcome is Outcome.SINGLE_MIXTURE and not fit.members:
            part["only"] = fitted.shares[0]
        if kept and replicates is not None:
            drawn = replicates.theta[name][:kept, list(one.targets).index(target)]
            with np.errstate(over="ignore"):
                part["drawn"] = base64.b64encode((drawn - theta).astype("<f2").tobytes()).decode()
        parts.append(part)
    return {"law": one.law, "scale": one.scale, "floor": one.floor, "targets": parts}


def _presets(obs: Observations, fit: LawFit, rec: Recommendation, say: Language) -> Iterator[tuple[str, list[float]]]:
    def shares(mixture: Mixture) -> list[float]:
        return [float(share) for share in mixture.array(fit.domains)]

    yield say(said("recommended")), shares(rec.mixture)
    yield say(said("reference")), shares(rec.reference)
    if rec.binding or rec.prior is not None:
        yield say(said("without constraints")), shares(rec.unconstrained)
    for law, mixture in rec.by_law.items():
        yield say(said("{law} alone", law=printable(law))), shares(mixture)
    for run in obs.runs:
        yield shorten(printable(run), 60), shares(obs.mixture(run))


def _amount(rec: Recommendation) -> str:
    if str(rec.unit) == "nats per token":
        return said("{{value}} nats")
    return said("{{value}} bits per byte") if str(rec.unit) == "bits per byte" else "{value}"


def _words(say: Language, rec: Recommendation) -> dict[str, str]:
    """Return the script's sentences; what stands in braces it fills in."""
    words = {
        "better": said("{{gain}} better than the reference{{interval}}."),
        "worse": said("{{gain}} worse than the reference{{interval}}."),
        "near": said("Near-optimal: within {{tolerance}} of the recommended mixture."),
        "far": said("{{above}} worse than the recommended mixture, near-optimal being {{tolerance}}."),
        "above": said("{{above}} worse than the recommended mixture."),
        "below": said("{{above}} better than the recommended mixture, outside the constraints."),
        "interval": said(" (90 % interval {{low}} to {{high}})"),
        "outside": said("Outside the range tried: {{domains}}."),
        "beyond": said("{{times}}× the tokens observed: extrapolated."),
        "before": said("Fewer tokens than observed."),
        "unknown": said("Unknown here: {{domains}}."),
        "copied": said("Copied."),
        "selected": said("Selected: copy it with the keyboard."),
        "percent": said("{{share}} %"),
        "range": said("{{low}}–{{high}}"),
        "points": said("{{points}} pp"),
        "guards": said("Guards kept: {{kept}} of {{all}}."),
        "broken": said("Broken: {{guards}}."),
        "amount": _amount(rec),
    }
    return {name: say(text) for name, text in words.items()} | {"gap": say.gap}

"""What goes with a mixture wherever it goes: how far to trust it, where it is from, and a tracker's columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bimix_tracking.data import metric_names
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.recommendation.investment.returns import Worth
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.recommendation.uncertainty import finite
from bimix_tracking.recommendation.verdict import Verdict
from bimix_tracking.selection.cross_validation import Validation
from bimix_tracking.selection.rank_transfer import RankTransfer


def mixture_document(
    rec: Recommendation,
    verdict: Verdict,
    warnings: Sequence[str],
    fit: LawFit,
    lineage: Mapping[str, Any],
    ranks: RankTransfer | None = None,
) -> dict[str, Any]:
    """Return the content of `mixture.yaml`: the mixture, whether to act on it, its warnings, and its provenance.

    Args:
        rec: The recommendation.
        verdict: Whether to act on it.
        warnings: What to know before.
        fit: The law.
        lineage: Which runs and data it is from: see `Findings.lineage`.
        ranks: Whether ranks hold between model sizes; None of one size.
    """
    guards = {"guards": [guard.noted() for guard in rec.guards]} if rec.guards else {}
    return {
        "mixture": {domain: float(share) for domain, share in rec.mixture.items()},
        "verdict": str(verdict.decision),
        "why": str(verdict.sentence),
        "warnings": [str(text) for text in warnings],
        **guards,
        "provenance": {
            "law": fit.law,
            "target_tokens": rec.tokens,
            **_of_size(rec, fit, ranks),
            "objective": f"the least weighted sum of predicted values, {rec.unit}",
            "weights": dict(rec.weights),
            "not_counted": {t: str(why) for t, why in fit.unfit.items() if not rec.weights.get(t)},
            "predicted_at_tokens": rec.volume,
            "predicted_loss": finite(rec.predicted),
            "predicted_gain_over_reference": rec.gain,
            "unit": str(rec.unit),
            "changes": _changes(rec),
            **({"guards": [guard.to_dict() for guard in rec.guards]} if rec.guards else {}),
            **({} if rec.path is None else {"smallest_change": str(rec.path.sentence)}),
            **_sureness(rec),
            "reference": {domain: float(share) for domain, share in rec.reference.items()},
            "kkt_residual": rec.kkt_residual,
            "source": lineage["source"],
            "runs": len(lineage["runs"]),
            **{name: lineage[name] for name in ("data_hash", "created", "versions")},
        },
    }


def _of_size(rec: Recommendation, fit: LawFit, ranks: RankTransfer | None) -> dict[str, Any]:
    """Return the model size that was asked for, whose losses the figures are, and what carries them from there."""
    if rec.model_size is None:
        return {}
    bridge = fit.bridge
    source = "unknown"
    if bridge is not None and bridge.known:
        source = "extrapolated, rough" if bridge.rough else "anchor runs" if bridge.anchors else "runs of that size"
    anchors = [] if bridge is None or source != "anchor runs" else [one.run for one in bridge.anchors]
    found: dict[str, Any] = {
        "model_size": rec.model_size,
        "figures_of_model_size": rec.level_size,
        "losses_from": source,
    }
    found |= {"anchors": anchors} if anchors else {}
    if ranks is not None:
        found["rank_transfer"] = {"verdict": str(ranks.verdict), "why": str(ranks.sentence)}
    return found


def _changes(rec: Recommendation) -> dict[str, Any]:
    """Return what the mixture does to each target, in its own unit, the largest improvement first."""
    values = ("reference", "recommended", "change", "low", "high")
    return {
        str(name): finite({key: float(row[key]) for key in values})
        | {"better": bool(row["better"]), "kind": str(rec.target(str(name)).kind)}
        for name, row in rec.changes.astype(object).to_dict("index").items()
    }


def _sureness(rec: Recommendation) -> dict[str, Any]:
    sure = rec.uncertainty
    if sure is None:
        return {}
    return {
        "gain_interval": list(sure.gain),
        "probability_better_than_reference": sure.probability,
        "includes_misspecification": sure.form_error is not None,
        "interval": {str(d): [float(low), float(high)] for d, low, high in sure.shares.itertuples()},
        "level": sure.level,
    }


def columns(
    rec: Recommendation, fit: LawFit, validation: Validation | None, worth: Worth | None, runs: int
) -> dict[str, float]:
    """Return what is worth a column in the tracker's table of runs.

    Args:
        rec: The recommendation.
        fit: The law.
        validation: What it predicts of held-out mixtures.
        worth: What the mixture saves.
        runs: How many the sweep has.
    """
    result = {"bimix/gain": rec.gain, "bimix/target_tokens": rec.tokens, "bimix/runs": float(runs)}
    sizes = {"bimix/model_size": rec.model_size, "bimix/figures_of_model_size": rec.level_size}
    if rec.model_size is not None:
        result |= {name: float(size) for name, size in sizes.items() if size is not None}
    if rec.uncertainty is not None:
        low, high = rec.uncertainty.gain
        result |= {"bimix/gain_low": low, "bimix/gain_high": high}
        result |= {"bimix/probability_better": rec.uncertainty.probability}
    if worth is not None and worth.fraction is not None and worth.demonstrated:
        result["bimix/tokens_saved_fraction"] = worth.fraction
    for domain in fit.domains:
        result[metric_names.key("bimix_recommended", domain)] = rec.mixture[domain]
        if domain not in fit.targets:
            continue
        result[metric_names.key("bimix_predicted_loss", domain)] = rec.predicted[domain]
        result[metric_names.key("bimix_fit_error", domain)] = fit.targets[domain].error
        error = None if validation is None else validation.error.get(domain)
        result |= {} if error is None else {metric_names.key("bimix_heldout_error", domain): error}
    return result

"""What fits without a run's mixture get wrong of its last losses: the law's form and chance, which no refit shows.

A bootstrap draws runs again and keeps the law, so its spread leaves out that the law may be wrong. Held-out errors
don't: σ_cv² of a weighted sum is estimation, form and noise in one, and what replicates and repeats explain is taken
off it again. The errors of two mixtures differ by less the nearer they are: on real sweeps the mean square of that
difference grows as the distance does, so it is scaled by it, and between a mixture and itself there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial.distance import pdist
from scipy.stats import chi2

from bimix_tracking.data.observations import Observations
from bimix_tracking.data.targets import Kind

Array = npt.NDArray[np.float64]
_FEWEST = 3
"""Fewest mixtures for a variance of errors, with one degree of freedom left for Student's t."""
_CONFIDENT = 0.9
"""Lower confidence limit of repeats' variance that is subtracted: a single pair estimates noise poorly."""

_MOST = 0.5
"""At most this part of σ_cv² counts as estimation error: both are of few mixtures, and their difference would be 0 in
every third sweep of eight, although the law's form is no better."""


@dataclass(frozen=True)
class HeldOutRun:
    """How far a run's last losses are from what fits without its mixture predict.

    Args:
        run: Its name.
        shares: Its mixture, in the order of the fit's domains.
        tokens: Its last data volume.
        error: By target observed − predicted, nats.
        sampling: By target the variance that its questions alone give, nats²; none of a target without.
    """

    run: str
    shares: tuple[float, ...]
    tokens: float
    error: Mapping[str, float]
    sampling: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FormError:
    """Error of a law by model misspecification, as variances of a weighted sum, nats².

    Args:
        mixtures: From so many held-out mixtures: n.
        each: Of the expected loss of one mixture: (σ_cv² − σ_rep² − σ_est²)₊, σ_cv² the mean square.
        apart: Of the difference of two mixtures, by their distance in total variation: 2 (σ_cv² − σ_rep² − σ_est²)₊
            over the mean distance, σ_cv² the variance.
        of_run: Of one run about the law: `each` with σ_rep² in it.
        of_sizes: What of these three (twice of `apart`, by distance) is that mixtures do otherwise at the model size of
            the anchor runs, which tell it by contradicting one another.
    """

    mixtures: int
    each: float
    apart: float
    of_run: float
    of_sizes: float = 0.0

    @property
    def of_proxy(self) -> float:
        """Of one run about the law at the size that the law is of."""
        return self.of_run - self.of_sizes

    @property
    def free(self) -> int:
        """Degrees of freedom, n − 2: the effect of the mixture is estimated between mixtures, by slope and constant."""
        return max(self.mixtures - 2, 1)

    def between(self, one: Array, other: Array) -> Array:
        """Return the variance of the error of a difference, nats²; of mixtures of shape (…, domains)."""
        return np.asarray(self.apart * _distance(one, other))


@dataclass(frozen=True)
class HeldOutErrors:
    """The held-out errors of a fit, kept with it.

    Args:
        runs: One a run that was held out.
    """

    runs: tuple[HeldOutRun, ...]

    @classmethod
    def of(
        cls,
        predictions: pd.DataFrame,
        mixtures: pd.DataFrame,
        sampling: Mapping[str, Mapping[str, float]] | None = None,
    ) -> HeldOutErrors:
        """Return those of each run's last losses.

        Args:
            predictions: Columns run, tokens, domain, observed, predicted (nats), as in `Validation.predictions`.
            mixtures: One row a run, one column a domain, as in `Observations.mixtures`.
            sampling: By run, see `HeldOutRun`; `sampling_of` has it. None: nothing is known.
        """
        last = predictions.sort_values("tokens", kind="stable").drop_duplicates(["run", "domain"], keep="last")
        errors = (last["observed"] - last["predicted"]).to_numpy(float)
        found: dict[str, dict[str, float]] = {}
        volumes: dict[str, float] = {}
        for run, target, tokens, error in zip(
            last["run"], last["domain"], last["tokens"], errors.tolist(), strict=True
        ):
            found.setdefault(str(run), {})[str(target)] = error
            volumes[str(run)] = max(float(tokens), volumes.get(str(run), 0.0))
        shares = mixtures.to_numpy(float).tolist()
        return cls(
            tuple(
                HeldOutRun(run, tuple(row), volumes[run], found[run], (sampling or {}).get(run, {}))
                for run, row in zip(map(str, mixtures.index), shares, strict=True)
                if run in found
            )
        )

    @cached_property
    def shares(self) -> Array:
        """Proportions of the runs' mixtures, (runs, domains)."""
        return np.array([one.shares for one in self.runs])

    @cached_property
    def tokens(self) -> Array:
        """Data volumes of the errors, (runs,)."""
        return np.array([one.tokens for one in self.runs])

    def sums(self, weights: Mapping[str, float]) -> Array:
        """Return Σ w (observed − predicted) of each run, nats; NaN where a target that counts wasn't predicted."""
        counted = {target: weight for target, weight in weights.items() if weight > 0}
        return np.array([sum(w * one.error.get(t, np.nan) for t, w in counted.items()) for one in self.runs])

    def form(self, weights: Mapping[str, float], drawn: Array, out: Array | None = None) -> FormError | None:
        """Return the law's misspecification error; None from fewer than three mixtures.

        Runs of one mixture count as one, with their mean error. Their spread about it is noise (σ_rep²), of which the
        lower confidence limit is subtracted. Without repeats it is what the questions of accuracies give: the most that
        it can be, for runs that answer the same questions err together.

        Args:
            weights: Of the targets; what isn't named counts 0.
            drawn: The replicates' weighted sums at the runs' mixtures, nats, shape (replicates, runs): what estimation
                makes of the errors, σ_est².
            out: In which replicates each run wasn't drawn, of that shape: what they say of its mixture is said without
                it, as its error is. None: all count.
        """
        errors = self.sums(weights)
        known = np.isfinite(errors)
        if not known.any():
            return None
        shares, mixture = np.unique(np.round(self.shares[known], 9), axis=0, return_inverse=True)
        often = np.bincount(mixture.ravel())
        count = len(often)
        if count < _FEWEST:
            return None
        mean = np.bincount(mixture.ravel(), errors[known]) / often
        repeats = int((often - 1).sum())
        within = float(((errors[known] - mean[mixture.ravel()]) ** 2).sum())
        noise_variance = within / float(chi2.ppf(_CONFIDENT, repeats)) if repeats else self._sampled(weights, known)
        usable = np.isfinite(drawn).all(1)
        without = np.ones(drawn.shape, bool) if out is None else np.asarray(out, bool)
        each, held = np.empty((int(usable.sum()), count)), np.empty((int(usable.sum()), count), bool)
        for one in range(count):
            mine = np.flatnonzero(known)[mixture.ravel() == one]
            each[:, one] = drawn[usable][:, mine].mean(1)
            held[:, one] = without[usable][:, mine].all(1)
        estimated = _variance(each, held)
        estimated_apart = _variance(each - each.mean(1, keepdims=True), held) * count / (count - 1)
        noise = noise_variance * float((1 / often).mean())
        square, variance = float((mean**2).mean()), float(mean.var(ddof=1))
        estimated, estimated_apart = min(estimated, _MOST * square), min(estimated_apart, _MOST * variance)
        distance = float(pdist(shares, "cityblock").mean()) / 2
        return FormError(
            mixtures=count,
            each=max(square - noise - estimated, 0.0),
            apart=2 * max(variance - noise - estimated_apart, 0.0) / distance,
            of_run=max(square + noise_variance - noise - estimated, 0.0),
        )

    def at_anchors(self, form: FormError, variance: float) -> FormError:
        """Return the error where anchor runs stray from law and level by more than runs of the law's own size do.

        Args:
            form: At that size.
            variance: Of an anchor run about law and level, nats²; see `Bridge.of_anchor`.
        """
        more = max(variance - form.of_run, 0.0)
        distance = float(pdist(np.unique(np.round(self.shares, 9), axis=0), "cityblock").mean()) / 2
        apart = form.apart + 2 * more / distance
        return replace(form, each=form.each + more, apart=apart, of_run=form.of_run + more, of_sizes=more)

    def _sampled(self, weights: Mapping[str, float], known: npt.NDArray[np.bool_]) -> float:
        """Return the mean variance of a weighted sum by questions alone, nats²; questions of two targets differ."""
        each = [sum(weights.get(t, 0.0) ** 2 * variance for t, variance in one.sampling.items()) for one in self.runs]
        return float(np.array(each)[known].mean())

    def to_dict(self) -> list[dict[str, Any]]:
        """Return the errors as JSON types; `from_dict` reads them back."""
        return [
            {"run": one.run, "shares": list(one.shares), "tokens": one.tokens, "error": dict(one.error)}
            | ({"sampling": dict(one.sampling)} if one.sampling else {})
            for one in self.runs
        ]

    @classmethod
    def from_dict(cls, content: Sequence[Mapping[str, Any]]) -> HeldOutErrors:
        """Read what `to_dict` wrote."""
        return cls(
            tuple(
                HeldOutRun(
                    one["run"], tuple(one["shares"]), one["tokens"], dict(one["error"]), dict(one.get("sampling", {}))
                )
                for one in content
            )
        )


@dataclass(frozen=True)
class LaterErrors:
    """How far losses are from what a fit to earlier ones predicts: what more tokens than were observed add.

    Args:
        ahead: log(s / s_end) of the predicted losses, s_end the last volume of the fit; shape (parts,).
        errors: By target the mean over runs of observed − predicted at each, nats.
    """

    ahead: tuple[float, ...]
    errors: Mapping[str, tuple[float, ...]]

    def rate(self, weights: Mapping[str, float]) -> float:
        """Return the error of a weighted sum by log(s / s_end), nats: √(Σ e² / Σ log²); NaN where a target has none."""
        counted = {target: weight for target, weight in weights.items() if weight > 0}
        if not set(counted) <= set(self.errors):
            return float("nan")
        errors = sum(weight * np.array(self.errors[target]) for target, weight in counted.items())
        return float(np.sqrt(np.square(errors).sum() / np.square(self.ahead).sum()))

    def times(self, factors: Mapping[str, float]) -> LaterErrors:
        """Return the errors where each target's losses are so many times as large."""
        errors = {t: tuple(factors.get(t, 1.0) * one for one in each) for t, each in self.errors.items()}
        return LaterErrors(self.ahead, errors)


def sampling_of(obs: Observations) -> dict[str, dict[str, float]]:
    """Return by run and target the variance of a last working loss by its questions alone: p̄ (1 − p̄) / N / unit².

    Args:
        obs: The sweep; targets that are no accuracies, or of unknown questions, have none.
    """
    found: dict[str, dict[str, float]] = {}
    for target, link in obs.links.items():
        if link.kind is not Kind.ACCURACY:
            continue
        rows = obs.losses[obs.losses["domain"] == target].sort_values("tokens", kind="stable")
        last = rows.drop_duplicates("run", keep="last")
        mean, usual = float(last["value"].mean()), obs.target(target).questions
        asked = last["questions"].fillna(np.nan if usual is None else usual).to_numpy(float)
        for run, variance in zip(last["run"], mean * (1 - mean) / asked / link.unit**2, strict=True):
            if np.isfinite(variance):
                found.setdefault(str(run), {})[target] = float(variance)
    return found


def _variance(values: Array, counts: npt.NDArray[np.bool_]) -> float:
    """Return the mean over columns of the variance of the values that count; 0 where none has two."""
    often = counts.sum(0)
    use = often > 1
    if not use.any():
        return 0.0
    mean = np.where(counts, values, 0.0).sum(0)[use] / often[use]
    square = np.where(counts[:, use], (values[:, use] - mean) ** 2, 0.0).sum(0) / (often[use] - 1)
    return float(square.mean())


def _distance(one: Array, other: Array) -> Array:
    """Return the total variation between mixtures, ½ Σ |r − r′|: which part of the tokens would be others."""
    return np.asarray(np.abs(one - other).sum(-1) / 2)

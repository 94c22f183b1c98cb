"""Uncertainty of a fit: the run-level bootstrap, whose replicates are fits to runs drawn with replacement.

The losses of one run rise and fall together, so a bootstrap that draws single losses would promise too much: here a
replicate draws as many runs as there are, with replacement, and counts each as often as it was drawn. All replicates
have the law's form; what that form gets wrong is in the fit's held-out errors, and what more tokens add in those of a
fit to the first of them. Intervals have all three in quadrature, times Student's t.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import norm
from scipy.stats import t as student

from bimix_tracking.fitting.held_out_errors import FormError, LaterErrors
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.levels import raised
from bimix_tracking.fitting.parts.drawn import drawn_losses, quantiles
from bimix_tracking.laws.protocol import Array, Inputs
from bimix_tracking.laws.registry import law as find_law
from bimix_tracking.mixture import Mixture

Method = Literal["few-steps", "exact", "linearised"]
MIN_RUNS = 3
REPLICATES = 200
"""Enough for a 90 % interval whose ends are good to a tenth of its width; each is a refit."""


@dataclass(frozen=True, eq=False)  # arrays and tables have no one truth
class Replicates:
    """How the law varies over sweeps of the same kind: a run-level bootstrap.

    Args:
        fit: The fit to all runs.
        theta: Its law's θ in each replicate, shape (replicates, targets, parameters); NaN where the runs drawn
            don't identify it. Of an ensemble: by law.
        method: How they were found.
        residuals: Of each run's last losses, nats, one row a run and one column a target.
        later: Errors beyond the volumes observed; None where too few volumes were observed.
        drawn: How often each run of `residuals` was drawn, shape (replicates, runs); None if unknown.
    """

    fit: LawFit
    theta: dict[str, Array]
    method: Method
    residuals: pd.DataFrame
    later: LaterErrors | None = None
    drawn: Array | None = None

    def at(self, model_size: float | None) -> Replicates:
        """Return how the law varies at another model size, as `LawFit.at`: the same θ, at another level."""
        fit = self.fit.at(model_size)
        if fit is self.fit:
            return self
        at = {target: float(np.exp(knots[-1][1])) if knots else 1.0 for target, knots in fit.raised.items()}
        errors = None if self.later is None else self.later.times(at)
        return replace(self, fit=fit, residuals=self.residuals * pd.Series(at), later=errors)

    def parameters(self, target: str) -> pd.DataFrame:
        """Return the reported parameters of a target, one row a replicate.

        Raises:
            ValueError: An ensemble, whose parameters are weights; or no such target.
        """
        if self.fit.members or target not in self.fit.targets:
            raise ValueError(f"no parameters of {target!r} to draw: {self.fit.law} has {list(self.fit.targets)}")
        model = find_law(self.fit.law)
        theta = self.theta[self.fit.law][:, list(self.fit.targets).index(target)]
        rows = [
            model.report(at, self.fit.scale, self.fit.own(target), self.fit.domains)
            for at in theta[np.isfinite(theta).all(-1)]
        ]
        return pd.DataFrame(rows)

    def standard_errors(self, target: str) -> dict[str, float]:
        """Return the standard deviation of each parameter over the replicates."""
        spread = self.parameters(target).std(ddof=1)
        return {str(name): float(value) for name, value in spread.items()}

    def predict(
        self,
        mixtures: Mixture | Sequence[Mixture] | npt.ArrayLike,
        tokens: float | npt.ArrayLike,
        model_size: float | None = None,
    ) -> Array:
        """Return the predicted values in own units, shape (replicates, n, targets); arguments as `LawFit.predict`.

        The members' weights of an ensemble are those of the fit. NaN where `LawFit.predict` has it for a data volume.
        """
        if model_size is not None:
            return self.at(model_size).predict(mixtures, tokens)
        shares, volume = self.fit.rows(mixtures, tokens)
        return self.fit.in_own_units(np.where(self.fit.known_at(volume), self.losses(shares, volume), np.nan))

    def losses(self, mixtures: Mixture | Sequence[Mixture] | npt.ArrayLike, tokens: float | npt.ArrayLike) -> Array:
        """Return the replicates' own losses, as `predict`, also at data volumes at which a target's can't be known."""
        shares, volume = self.fit.rows(mixtures, tokens)
        if not self.fit.members:
            return self._of_law(self.fit, shares, volume)
        parts = {name: self._of_law(fit, shares, volume) for name, fit in self.fit.members.items()}
        return self.fit.stacked(parts, volume)

    def interval(
        self,
        mixtures: Mixture | Sequence[Mixture] | npt.ArrayLike,
        tokens: float | npt.ArrayLike,
        level: float = 0.9,
        model_size: float | None = None,
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the lower and the upper end of the interval of the expected value at each mixture and target.

        In the target's own unit; of a target that is no loss the ends are those of its working loss L:

            log L̂ ± √((t/z q)² + t² (σ_form² + σ_later² + σ_δ²) / L̂²)

        with q the quantiles of the replicates' log loss about their median, z and t those of the normal and Student's
        distribution with n − 2 degrees of freedom. σ_form² is `FormError.each` of the fit's held-out errors. Without
        them it is 0, and q times √(n / (n − 2)): a replicate's runs are fitted as closely as the sweep's, and so stray
        less than new ones would. σ_later grows from 0 at the largest volume observed, and σ_δ is the error of the model
        size's level (`of_level`). A single run has noise besides.

        Args:
            mixtures: As in `LawFit.predict`.
            tokens: As in `LawFit.predict`.
            level: Between 0 and 1.
            model_size: As in `LawFit.predict`.
        """
        if model_size is not None:
            return self.at(model_size).interval(mixtures, tokens, level)
        shares, volume = self.fit.rows(mixtures, tokens)
        centre = self.fit.losses(shares, volume).to_numpy(float)
        drawn = np.where(self.fit.known_at(volume), self.losses(shares, volume), np.nan)
        residuals = np.log(drawn) - np.log(centre)
        names = list(self.fit.targets)
        lower, upper = np.empty_like(centre), np.empty_like(centre)
        for i, target in enumerate(names):
            own = {target: 1.0}
            form = self.form(own)
            variance = self.beyond(own, volume) + (0.0 if form is None else form.each)
            known = centre[np.isfinite(centre[:, i]), i]  # of a target that wasn't fitted there is none
            variance = variance + (self.of_level(own, {target: float(known.mean())}) if len(known) else 0.0)
            low, high = self.sides(residuals[..., i], own, variance / centre[:, i] ** 2, level)
            ends = [self.fit.link(target).value(centre[:, i] * np.exp(end)) for end in (low, high)]
            lower[:, i], upper[:, i] = reversed(ends) if self.fit.link(target).rising else ends
        return pd.DataFrame(lower, columns=names), pd.DataFrame(upper, columns=names)

    def change(
        self, mixture: Mixture, reference: Mixture, tokens: float, level: float = 0.9
    ) -> tuple[pd.Series, pd.Series]:
        """Return the lower and upper end of the interval of the change of each target, in its own unit.

        It is the value on the mixture − that on the reference; of a loss, nats.

        Of the same replicate, so that what both mixtures share cancels; widened as in `interval`, by what the form
        errors of two mixtures differ (`FormError.between`). More tokens move all mixtures alike, and add nothing.

        Args:
            mixture: The one.
            reference: The other.
            tokens: Data volume s.
            level: Between 0 and 1.
        """
        shares, volume = self.fit.rows([mixture, reference], tokens)
        losses = self.fit.losses(shares, volume).to_numpy(float)
        centre, drawn = self.fit.in_own_units(losses), self.predict(shares, volume)
        residuals = drawn[:, 0] - drawn[:, 1] - (centre[0] - centre[1])
        found = []
        for i, target in enumerate(self.fit.targets):
            form = self.form({target: 1.0})
            slope = float(self.fit.link(target).slope(np.sqrt(losses[0, i] * losses[1, i])))
            variance = np.array(0.0 if form is None else slope**2 * form.between(*shares))
            ends = self.sides(residuals[:, i], {target: 1.0}, variance, level)
            found.append([float(centre[0, i] - centre[1, i] + end) for end in ends])
        low, high = (pd.Series(end, index=list(self.fit.targets)) for end in zip(*found, strict=True))
        return low, high

    def sides(
        self, residuals: Array, weights: Mapping[str, float], variance: npt.ArrayLike, level: float
    ) -> tuple[Array, Array]:
        """Return how far the lower and the upper end of an interval are from its centre.

        Args:
            residuals: Deviations of the replicates, shape (replicates, …), taken about their own median.
            weights: Of the targets it is of.
            variance: Of all other errors, in the unit of `residuals` squared, shape (…).
            level: Between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, got {level}")
        times, wider = self.times(weights, level), self.stretch(weights, level)
        low, middle, high = quantiles(residuals, [(1 - level) / 2, 0.5, (1 + level) / 2])
        return (
            -np.hypot(wider * (low - middle), times * np.sqrt(variance)),
            np.hypot(wider * (high - middle), times * np.sqrt(variance)),
        )

    def times(self, weights: Mapping[str, float], level: float) -> float:
        """Return Student's t of an interval of a weighted sum: so many standard deviations are a half of it."""
        return float(student.ppf((1 + level) / 2, self.free(weights)))

    def stretch(self, weights: Mapping[str, float], level: float) -> float:
        """Return by how much replicates' quantiles are widened: t/z, without held-out errors √(n / (n − 2)) more."""
        return self.times(weights, level) / float(norm.ppf((1 + level) / 2)) * self._widest(weights)

    def _widest(self, weights: Mapping[str, float]) -> float:
        if self.form(weights) is not None:  # held-out errors have what replicates stray too little
            return 1.0
        return max((self.wider(target) for target, weight in weights.items() if weight > 0), default=1.0)

    def form(self, weights: Mapping[str, float]) -> FormError | None:
        """Return the law's misspecification error in a weighted sum; None where it is unknown.

        Args:
            weights: Of the targets; what isn't named counts 0.
        """
        key = tuple(sorted((target, weight) for target, weight in weights.items() if weight > 0))
        if key not in self._forms:
            self._forms[key] = self._form(weights)
        return self._forms[key]

    def _form(self, weights: Mapping[str, float]) -> FormError | None:
        held_out = self.fit.held_out
        if held_out is None or not held_out.runs:
            return None
        weight = np.array([weights.get(target, 0.0) for target in self.fit.targets])
        use = weight > 0
        out = None
        if self.drawn is not None:
            place = self.residuals.index.get_indexer(pd.Index([one.run for one in held_out.runs]))
            out = (self.drawn[:, place] == 0) & (place >= 0)
        found = held_out.form(weights, self._at_held_out[..., use] @ weight[use], out)
        bridge = self.fit.bridge
        if found is None or bridge is None or self.fit.origin is not None or bridge.of_reference.in_law:
            return found
        losses = self.fit.losses(held_out.shares, held_out.tokens).mean()
        terms = {target: w * float(losses[target]) for target, w in weights.items() if w > 0}
        return held_out.at_anchors(found, bridge.of_anchor(terms, found.of_run))

    def free(self, weights: Mapping[str, float]) -> int:
        """Return Student's degrees of freedom of a weighted sum's interval: n − 2, of mixtures held out or of runs."""
        form = self.form(weights)
        runs = min((self.fit.targets[target].runs for target, weight in weights.items() if weight > 0), default=3)
        return max(runs - 2, 1) if form is None else form.free

    def beyond(self, weights: Mapping[str, float], tokens: npt.ArrayLike) -> Array:
        """Return what more tokens than were observed add to the variance of a weighted sum, nats²; 0 if unknown.

        Args:
            weights: Of the targets.
            tokens: Data volumes.
        """
        ahead = np.maximum(np.log(np.asarray(tokens, float) / self.fit.tokens[1]), 0.0)
        rate = 0.0 if self.later is None else self.later.rate(weights)
        return np.asarray(np.square(np.nan_to_num(rate) * ahead))

    def of_level(self, weights: Mapping[str, float], losses: Mapping[str, float]) -> float:
        """Return what the error of the level adds to the variance of a weighted sum, nats² (`Bridge.variance`)."""
        bridge, size = self.fit.bridge, self.fit.model_size
        if bridge is None or size is None:
            return 0.0
        known = {target: weight for target, weight in weights.items() if weight > 0}
        form = self.form(known)
        of_run = self.run_noise(known) ** 2 if form is None else form.of_proxy
        terms = {target: weight * losses[target] for target, weight in known.items()}
        return bridge.variance(size, terms, 0.0 if np.isnan(of_run) else of_run)

    def half_of_run(self, weights: Mapping[str, float], mixture: Mixture, tokens: float, level: float) -> float:
        """Return half the interval of a single run's weighted loss, in log loss: as `interval`, with a run's own noise.

        t √(σ_b² + σ_run² + σ_later² + σ_δ²): of the replicates, widened as there, `run_noise`, `beyond`, `of_level`.

        Args:
            weights: Of the targets.
            mixture: The run's.
            tokens: Its data volume.
            level: Between 0 and 1.
        """
        weight = np.array([weights.get(target, 0.0) for target in self.fit.targets])
        use = weight > 0
        losses = self.fit.losses(mixture, tokens).to_numpy(float)[0]
        total = float(losses[use] @ weight[use])
        drawn = np.log(self.losses(mixture, tokens)[:, 0, use] @ weight[use] / total)
        of_level = self.of_level(weights, dict(zip(self.fit.targets, losses.tolist(), strict=True)))
        noise = self.run_noise(weights)
        if not np.isfinite(noise):  # fewer than three runs have it
            residuals = self.residuals.loc[:, use] @ weight[use]
            noise = float(np.sqrt(np.square(residuals.dropna()).sum()))
        variance = (
            self._widest(weights) ** 2 * float(np.nanvar(drawn))
            + (noise**2 + float(self.beyond(weights, tokens)) + of_level) / total**2
        )
        return self.times(weights, level) * float(np.sqrt(variance))

    def run_noise(self, weights: Mapping[str, float]) -> float:
        """Return the residual standard deviation of a run's weighted loss, nats.

        Noise and misspecification together: √(Σ_runs (Σ w (L − L̂))² / (n − 2)), or that of held-out errors
        (`FormError.of_run`) where it is larger. NaN with fewer than three runs that have all the losses.

        Args:
            weights: Of the targets; what isn't named counts 0.
        """
        counted = {t: w for t, w in weights.items() if w > 0 and t in self.residuals}
        sums = (self.residuals[list(counted)] * pd.Series(counted)).sum(axis=1, skipna=False).dropna()
        if len(sums) < MIN_RUNS:
            return float("nan")
        form = self.form(counted)
        inside = (sums**2).sum() / (len(sums) - 2)
        return float(np.sqrt(inside if form is None else max(inside, form.of_run)))

    def wider(self, target: str) -> float:
        """Return by how much deviations of replicates from the fit are widened: √(n / (n − 2)) for n runs."""
        runs = self.fit.targets[target].runs
        # The effect of the mixture is estimated between runs: α, or constant and slope; the rest within them.
        return float(np.sqrt(runs / max(runs - 2, 1)))

    @cached_property
    def _forms(self) -> dict[tuple[tuple[str, float], ...], FormError | None]:
        """What `form` found, for each target and sum is asked for more than once."""
        return {}

    @cached_property
    def _at_held_out(self) -> Array:
        """Losses of the held-out runs by the replicates, (replicates, runs, targets)."""
        held_out = self.fit.held_out
        if held_out is None:
            raise ValueError("this fit carries no held-out errors")
        return self.losses(held_out.shares, held_out.tokens)

    def _of_law(self, fit: LawFit, shares: Array, volume: Array) -> Array:
        model, theta = find_law(fit.law), self.theta[fit.law]
        inputs = Inputs.rows(shares, np.log(volume / fit.scale), fit.floor)
        result = np.full((len(theta), len(volume), len(fit.targets)), np.nan)
        for i, target in enumerate(fit.targets):
            known, at = np.isfinite(theta[:, i]).all(-1), fit.theta(target)
            if at is None or not known.any():
                continue
            tangent = at if self.method == "linearised" else None
            result[known, :, i] = drawn_losses(model, theta[known, i], fit.own(target), inputs, tangent)
            if target in fit.raised:
                result[:, :, i] *= np.exp(raised(fit.raised[target], volume))
        return result

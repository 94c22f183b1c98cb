"""The choice of the law: each predicts held-out mixtures, and the simplest of the best ones is taken."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from bimix_tracking.data.observations import Observations
from bimix_tracking.data.weights import objective_weights, target_weights
from bimix_tracking.display.card import Card, Shown
from bimix_tracking.errors import ObservationsError
from bimix_tracking.fitting.alignment.aligning import Alignment, align, bridged
from bimix_tracking.fitting.ensemble import stack, too_demanding
from bimix_tracking.fitting.folds import HeldOut, divide, fit_held_out
from bimix_tracking.fitting.held_out_errors import HeldOutErrors, sampling_of
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.options import FOLDS, HUBER_DELTA, FitOptions, ZeroShare
from bimix_tracking.fitting.single_law import fit_single
from bimix_tracking.fitting.warmup import settled
from bimix_tracking.laws.registry import ENSEMBLE, names
from bimix_tracking.messages import few, joined, said
from bimix_tracking.progress import Progress, Tally
from bimix_tracking.quantities import percent, signed
from bimix_tracking.selection.comparison import best_of, difference
from bimix_tracking.selection.cross_validation import Validation, cross_validate, of_stack
from bimix_tracking.selection.eligibility import unfit
from bimix_tracking.selection.fitness import FitnessTable, fitness
from bimix_tracking.selection.repeats import NoiseFloor, noise_floor

_PLAUSIBLE = 2.0


@dataclass(frozen=True, repr=False)
class Selection(Shown):
    """The law that was chosen, and how all of them did.

    Args:
        fit: The chosen law's fit to all runs.
        validation: Its held-out predictions; None where nothing could be held out.
        fits: Every law's fit, by name, the simplest first.
        validations: Every law's held-out predictions.
        excluded: Law → why it wasn't fitted.
        noise: The noise floor, from repeated mixtures; None without repeats.
        ineligible: Law that was fitted → why it can't answer the question, and so couldn't be chosen.
        fitness: Which targets are fit to decide; None where nothing could be held out.
    """

    fit: LawFit
    validation: Validation | None
    fits: Mapping[str, LawFit]
    validations: Mapping[str, Validation]
    excluded: Mapping[str, str]
    noise: NoiseFloor | None
    ineligible: Mapping[str, str] = field(default_factory=dict)
    fitness: FitnessTable | None = None

    def of(self, alignment: Alignment, obs: Observations) -> Selection:
        """Return the choice with fits that know their model size, and the others' levels.

        Args:
            alignment: Of the runs that were fitted.
            obs: The sweep as it was read.
        """
        fits = {name: bridged(fit, alignment, obs) for name, fit in self.fits.items()}
        return replace(self, fit=bridged(self.fit, alignment, obs), fits=fits)

    @property
    def scores(self) -> pd.DataFrame:
        """One row a law, the simplest first, then the mean of the other runs.

        `error`: mean relative error on held-out mixtures; `above_best`: how much more than the best law's, and
        `standard_error`: of that difference, paired by mixture; `rank_correlation`: of the summed final losses;
        `chosen`; `note`: why not.
        """
        return pd.DataFrame(self._scores)

    @cached_property
    def _scores(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        best = best_of(self.validations)
        for name, validation in self.validations.items():
            above, error = difference(validation, self.validations[best]) if best else (0.0, 0.0)
            rows.append(
                {
                    "law": name,
                    "error": validation.mean_error,
                    "above_best": above,
                    "standard_error": error,
                    "rank_correlation": validation.rank_correlation,
                    "chosen": name == self.fit.law,
                    "note": self.ineligible.get(name, ""),
                }
            )
        nothing = {"error": np.nan, "above_best": np.nan, "standard_error": np.nan, "rank_correlation": np.nan}
        for name, why in self.notes.items():
            rows.append({"law": name, **nothing, "chosen": name == self.fit.law, "note": why})
            if name == "mean" and self.validation is not None:
                rows[-1]["error"] = self.validation.mean_baseline_error
        return rows

    @property
    def notes(self) -> dict[str, str]:
        """Why a row has no score; and a note for the mean of the other runs, which is no law."""
        unscored = {name: said("nothing could be held out") for name in self.fits if name not in self.validations}
        mean = {} if self.validation is None else {"mean": said("mean of the other runs: no law")}
        return {**unscored, **self.excluded, **mean}

    @property
    def not_eligible(self) -> dict[str, str]:
        """Law → why it couldn't be chosen, fitted or not."""
        return {**self.excluded, **self.ineligible}

    @property
    def plausible(self) -> dict[str, LawFit]:
        """Single laws that may answer, and whose held-out error is at most twice the best one's."""
        singles = [name for name in self.validations if not self.fits[name].members and name not in self.ineligible]
        errors = {name: self.validations[name].mean_error for name in singles}
        best = min(errors.values(), default=0.0)
        return {name: self.fits[name] for name, error in errors.items() if error <= _PLAUSIBLE * best}

    def sentences(self) -> str:
        """Return which law was chosen and by which rule, the noise floor, and which laws were not eligible."""
        sentences = [self.reason()]
        if self.noise is not None:
            sentences.append(self.noise.sentence())
        sentences += [said("{law} is not eligible: {why}.", law=n, why=why) for n, why in self.not_eligible.items()]
        return joined(sentences)

    def to_frame(self) -> pd.DataFrame:
        """Return `scores`: every result has its table by this name."""
        return self.scores

    def _card(self) -> Card:
        found = self.validation
        rank = "no mixture could be held out"
        if found is not None:
            rank = f"rank correlation of held-out mixtures {signed(found.rank_correlation)}"
        rows = [
            [row["law"], percent(row["error"]), signed(row["rank_correlation"]), "✓" if row["chosen"] else row["note"]]
            for row in self._scores
        ]
        return Card(
            "Choice of the law",
            self.reason(),
            rank,
            head=["law", "held-out error", "rank correlation", "chosen"],
            rows=rows,
        )

    def reason(self) -> str:
        """Return by which rule the law was chosen, with the figures that decided."""
        law = self.fit.law
        if self.validation is None:
            return said("{law}, without a comparison: too few mixtures to hold any out.", law=law)
        eligible = {name: v for name, v in self.validations.items() if name not in self.ineligible}
        others = {name: v for name, v in (eligible or self.validations).items() if name != law}
        chosen = {"law": law, "error": percent(self.validation.mean_error)}
        if not others:
            return said("{law}: the only eligible law, with a held-out error of {error}.", **chosen)
        counted = {target for target, weight in self.validation.weights.items() if weight > 0}
        rival = ENSEMBLE if ENSEMBLE in others else best_of(others, counted)
        above, error = difference(others[rival], self.validation, counted)
        figures = {**chosen, "rival": rival, "gap": f"{100 * abs(above):.2f} ± {100 * error:.2f}"}
        if rival == ENSEMBLE:
            return said(
                "{law}: held-out error {error}, lower than the ensemble's by more than one standard error "
                "({gap} points).",
                **figures,
            )
        if above >= 0:
            return said("{law}: the lowest held-out error, {error}; {rival} is next ({gap} points more).", **figures)
        if law == ENSEMBLE:
            return said(
                "{law}: held-out error {error}. {rival} is better by less than one standard error ({gap} points): the "
                "ensemble is kept.",
                **figures,
            )
        return said(
            "{law}: held-out error {error}. {rival} is better by less than one standard error ({gap} points): the "
            "simpler law is kept.",
            **figures,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the scoreboard as JSON types."""
        rows = self.scores.to_dict("records")
        clean = [{str(n): None if isinstance(v, float) and np.isnan(v) else v for n, v in row.items()} for row in rows]
        noise = None if self.noise is None else {**vars(self.noise), "interval": self.noise.interval}
        return {"chosen": self.fit.law, "why": self.sentences(), "noise_floor": noise, "scores": clean}


def select_law(
    obs: Observations,
    laws: Sequence[str] | None = None,
    *,
    folds: int = FOLDS,
    seed: int = 0,
    weights: Mapping[str, float] | None = None,
    guarded: Collection[str] = (),
    huber_delta: float = HUBER_DELTA,
    zero_share: ZeroShare = "chosen",
    warmup: float | None = None,
    progress: Progress | None = None,
    model_size: float | None = None,
) -> Selection:
    """Fit every law, let each predict held-out mixtures, and choose.

    The one-standard-error rule, on differences of error paired by mixture, so that what is hard about a mixture for
    every law cancels. Among single laws: the simplest whose error is above the best one's by no more than one standard
    error. With the ensemble among the candidates: the ensemble, whose weights already lean to the simplest law as far
    as the data allow, unless a single law is better by more than one standard error; then the simplest such. A
    law that needs more mixtures than a training part has isn't fitted; one that can't answer the question (BiMix where
    a domain has no losses; a target with weight that it can't fit and another law can) isn't eligible.

    Args:
        obs: The sweep.
        laws: Candidates, the simplest first; `ensemble` stacks the others. None: all of `laws.names()`, with their
            ensemble: those of other packages compete.
        folds: Into how many parts the mixtures are divided, at most one a mixture.
        seed: Of the division.
        weights: Weight of each target, as in `recommend`: the laws are compared on targets that count. By default one
            that isn't fit to decide (`fitness`) doesn't.
        guarded: Targets that the law must predict, whether or not they count.
        huber_delta: As in `fit_law`.
        zero_share: As in `fit_law`.
        warmup: As in `fit_law`.
        progress: Called as (what, done, total); fits without a fold count.
        model_size: Whose losses the law is to have, as in `fit_law`.

    Raises:
        ObservationsError: No law can be fitted, or the size is smaller than all.
        ValueError: No such law.

    >>> rows = [{"a": a, "b": 1 - a, "tokens": s, "la": a**-0.1 * (90 / s**0.5 + 3), "lb": (1 - a)**-0.2 * 2}
    ...         for a in (0.2, 0.4, 0.5, 0.7) for s in (1e3, 4e3, 1.6e4, 6.4e4)]
    >>> losses = {"a": "la", "b": "lb"}
    >>> obs = Observations.from_wide(pd.DataFrame(rows), proportions=["a", "b"], losses=losses, tokens="tokens")
    >>> best = select_law(obs)
    >>> best.fit.law, best.excluded["additive"]
    ('bimix', 'it needs 5 mixtures; holding a fold out leaves 3')
    """
    alignment = align(obs, model_size)
    options = FitOptions(huber_delta, zero_share, warmup, folds, seed)
    found = _selected(alignment.observations, laws, options, weights, guarded, progress)
    return found.of(alignment, obs)


def _selected(
    obs: Observations,
    laws: Sequence[str] | None,
    options: FitOptions,
    weights: Mapping[str, float] | None,
    guarded: Collection[str],
    progress: Progress | None,
) -> Selection:
    given, weights = weights, _working(obs, weights)
    options = settled(obs, options)
    laws = (*names(), ENSEMBLE) if laws is None else laws
    singles = [name for name in laws if name != ENSEMBLE]
    noise = noise_floor(obs)
    try:
        fold = divide(obs, options.folds, options.seed)
    except ObservationsError:
        fit = fit_single(obs, singles[0], options)
        return Selection(fit, None, {fit.law: fit}, {}, {}, noise)
    excluded = too_demanding(obs, singles, fold)
    fits: dict[str, LawFit] = {}
    predictions: dict[str, HeldOut] = {}
    validations: dict[str, Validation] = {}
    unjudged: dict[str, LawFit] = {}
    candidates = [name for name in singles if name not in excluded]
    # Of each target a fit, and one without each fold.
    each = len(obs.targets) * (int(fold.max()) + 2)
    tally = Tally(progress, "fitting", each * len(candidates))
    for number, name in enumerate(candidates, 1):
        try:
            fits[name], predictions[name] = fit_held_out(obs, name, options, fold, after=tally.more)
            validations[name] = cross_validate(obs, weights=weights, fit=fits[name], predictions=predictions[name])
        except ObservationsError as refused:
            excluded[name] = refused.args[0]
            predictions.pop(name, None)
            if name in fits:
                unjudged[name] = fits.pop(name)
        tally.reach(each * number)  # targets that aren't identifiable aren't refitted
    if ENSEMBLE in laws and len(predictions) > 1:
        fits[ENSEMBLE] = stack(obs, fits, predictions)
        validations[ENSEMBLE] = of_stack(obs, fits[ENSEMBLE], predictions, weights)
    elif ENSEMBLE in laws:
        excluded[ENSEMBLE] = said("no second law to stack")
    if not validations and unjudged:  # what each target lacks is then known by its outcome
        able = [fit for name, fit in unjudged.items() if not unfit(name, obs.targets, obs.domains, weights)]
        return Selection((able or list(unjudged.values()))[0], None, unjudged, {}, excluded, noise)
    if not validations:
        raise ObservationsError("no law can be fitted: " + "; ".join(f"{n}: {why}" for n, why in excluded.items()))
    # Whose held-out ranks are asked is chosen before any target is left out, so that none is chosen by its own.
    judged = fitness(obs, validations[ENSEMBLE if ENSEMBLE in validations else best_of(validations)])
    weights, sampling = _working(obs, given, judged.unfit), sampling_of(obs)
    for name, found in validations.items():  # after the stack, so that its members don't carry theirs along
        held_out = HeldOutErrors.of(found.predictions, obs.mixtures, sampling)
        fits[name] = replace(fits[name], held_out=held_out, unfit=judged.unfit)
        validations[name] = replace(found, weights={target: weights[target] for target in found.domains})
    asked = weights | {target: weights.get(target, 0.0) or 1.0 for target in guarded}
    ineligible = _ineligible(obs, fits, asked)
    eligible = {name: found for name, found in validations.items() if name not in ineligible} or validations
    chosen = _chosen(eligible, weights)
    return Selection(fits[chosen], validations[chosen], fits, validations, excluded, noise, ineligible, judged)


def _working(obs: Observations, weights: Mapping[str, float] | None, unfit: Collection[str] = ()) -> dict[str, float]:
    """Return what a unit of each working loss counts."""
    own = target_weights(weights, obs.targets, obs.domains, obs.described, obs.links, unfit=unfit)
    return objective_weights(own, obs.links)


def _ineligible(obs: Observations, fits: Mapping[str, LawFit], weights: Mapping[str, float]) -> dict[str, str]:
    """Return the laws that can't answer the question, and why."""
    found = {}
    usable = {name: {t for t, fitted in fit.targets.items() if fitted.outcome.usable} for name, fit in fits.items()}
    for name in fits:
        lacks = [
            t for t, w in weights.items() if w > 0 and t not in usable[name] and any(t in ts for ts in usable.values())
        ]
        why = unfit(name, obs.targets, obs.domains, weights)
        if why or lacks:
            found[name] = why or said("it can't fit targets {targets}, which another law can", targets=few(lacks))
    return found


def _chosen(validations: Mapping[str, Validation], weights: Mapping[str, float]) -> str:
    counted = {target for target, weight in weights.items() if weight > 0}
    best = best_of(validations, counted)
    if ENSEMBLE in validations:
        for name in validations:
            above, error = difference(validations[name], validations[ENSEMBLE], counted)
            if above < -error:
                return name
        return ENSEMBLE
    for name in validations:
        above, error = difference(validations[name], validations[best], counted)
        if above <= error:
            return name
    return best

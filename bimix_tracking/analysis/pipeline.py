"""Source → observations → fit → recommendation → artifacts, and back into the tracker."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bimix_tracking.analysis.asking_again import as_json
from bimix_tracking.analysis.question import AUTO, Question
from bimix_tracking.analysis.reading import read
from bimix_tracking.analysis.result import Analysis, Findings
from bimix_tracking.data.observations import Observations
from bimix_tracking.data.targets import Targets, targets_of
from bimix_tracking.data.weights import checked_weights, objective_weights
from bimix_tracking.display.progress_line import shown
from bimix_tracking.errors import ConstraintError, ObservationsError, RecommendationError
from bimix_tracking.fitting.alignment.aligning import Alignment, align, bridged
from bimix_tracking.fitting.fit import fit_law
from bimix_tracking.fitting.held_out_errors import HeldOutErrors, sampling_of
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.replicates import MIN_RUNS, REPLICATES, Replicates
from bimix_tracking.fitting.resampling import bootstrap
from bimix_tracking.laws.registry import ENSEMBLE
from bimix_tracking.laws.registry import law as named_law
from bimix_tracking.mixture import Mixture
from bimix_tracking.progress import Progress, reported
from bimix_tracking.quantities import tokens as tokens_shown
from bimix_tracking.recommendation.constraints import MAX_EPOCHS, Bounds
from bimix_tracking.recommendation.costs import Costs
from bimix_tracking.recommendation.guards import Guard, guards_on
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.recommendation.recommending import allowed, recommend
from bimix_tracking.recommendation.savings import worth
from bimix_tracking.recommendation.solvers.limits import Change
from bimix_tracking.recommendation.trade_offs.pareto import Pareto, two_groups
from bimix_tracking.recommendation.trade_offs.pareto import pareto as trade_off
from bimix_tracking.report.language import Language
from bimix_tracking.selection.cross_validation import Validation, cross_validate
from bimix_tracking.selection.diagnostics import diagnose
from bimix_tracking.selection.extrapolation import extrapolate
from bimix_tracking.selection.fitness import FitnessTable, fitness
from bimix_tracking.selection.law_choice import Selection, select_law
from bimix_tracking.selection.rank_transfer import rank_transfer
from bimix_tracking.tracking.ports import RunSource, Wanted, open_source
from bimix_tracking.tracking.write_back import analysis_name, leave


def analyze(
    source: str | RunSource | Observations,
    tokens: float,
    *,
    model_size: float | None = None,
    law: str = AUTO,
    weights: Mapping[str, float] | None = None,
    targets: Targets | None = None,
    bounds: Bounds | None = None,
    available_tokens: Mapping[str, float] | None = None,
    max_epochs: float | Mapping[str, float] = MAX_EPOCHS,
    prior: Mixture | None = None,
    prior_strength: float = 0.0,
    reference: Mixture | None = None,
    beyond_tried: bool = False,
    guardrails: Sequence[str | Guard] = (),
    guard_probability: float | None = None,
    max_change: float | None = None,
    change: Change = "tv",
    pareto: tuple[str, str] | None = None,
    costs: Costs | None = None,
    replicates: int = REPLICATES,
    out: str | Path | None = None,
    write_back: bool | RunSource = False,
    nest: bool = False,
    wanted: Wanted | None = None,
    lang: str = "en",
    progress: Progress | bool | None = None,
) -> Analysis:
    """Read a sweep, fit a law, recommend a mixture, and leave it where the team looks.

    Args:
        source: A URI such as `mlflow:my-sweep`, an open source, or observations at hand.
        tokens: Data volume of the run that will use the mixture, in tokens (or the unit of the observations).
        model_size: Parameters of that run's model: runs of several sizes are pooled for it (see
            `fitting.alignment.align`). None: the runs are of one size.
        law: Which law to fit; `auto`: the one that predicts held-out mixtures best (see `select_law`).
        weights: How much a unit of each target counts (a nat, a bit, all of an accuracy), or of a group of targets;
            where not named, as `target_weights` has it.
        targets: What targets are (kind, questions, chance level, weight, group), see `targets_of`: where the runs don't
            say it, or say it otherwise. Not with observations at hand, which say it themselves.
        bounds: As in `recommend`, like the seven that follow.
        available_tokens: Distinct tokens by domain.
        max_epochs: How often a token may be repeated.
        prior: A mixture to stay near.
        prior_strength: How strongly.
        reference: The mixture to compare with.
        beyond_tried: Seek the mixture outside the proportions tried too.
        guardrails: How much worse than on the reference targets may get, such as `"code<=+0.5%"`; like the three that
            follow, as in `recommend`.
        guard_probability: How surely all of them hold together.
        max_change: How far from the reference the mixture may be.
        change: How that is measured: `tv` or `kl`.
        pareto: Two groups of targets, of which the report shows what one gains where the other loses; one may be
            `rest`. By default the first group and the rest, where there are groups.
        costs: What training costs, as far as known: what is saved is then also in GPU-hours and money.
        replicates: How many refits tell how sure the recommendation is; 0: none.
        out: A folder for the artifacts (see `Analysis.save`), or for a page that says why nothing can be recommended.
        write_back: Also write them into the source, or into the one given, as a run of role `analysis`, which then is
            the recommended one; the same question to the same data is written once.
        nest: Show the source runs under that run, where the tracker can.
        wanted: Which runs of the source count, and how runs of other tools are read; for a URI.
        lang: Of the reports: `en`, `ja` or one that a package adds.
        progress: Called as (what, done, total); True: a line that changes in place; None: that, in a notebook only.

    Raises:
        ValueError: There is no such law, or no report in that language.
        BimixError: The source cannot be read, the runs must not be pooled, or no mixture can be recommended.

    >>> import pandas as pd
    >>> rows = [{"a": a, "b": 1 - a, "tokens": s,
    ...          "la": a**-0.1 * (90 / s**0.5 + 3), "lb": (1 - a)**-0.1 * (40 / s**0.4 + 1)}
    ...         for a in (0.2, 0.5, 0.7) for s in (1e3, 4e3, 1.6e4, 6.4e4)]
    >>> losses = {"a": "la", "b": "lb"}
    >>> obs = Observations.from_wide(pd.DataFrame(rows), proportions=["a", "b"], losses=losses, tokens="tokens")
    >>> analyze(obs, tokens=1e9).recommendation.mixture  # no run had more of a
    Mixture({'a': 0.7, 'b': 0.3})
    >>> analyze(obs, tokens=1e9, beyond_tried=True).recommendation.mixture
    Mixture({'a': 0.729189, 'b': 0.270811})
    """
    progress = shown(progress)
    Language(lang)  # an unknown one is told before the work, like an unknown law
    if law not in (AUTO, ENSEMBLE):
        named_law(law)
    question = Question(
        tokens=tokens,
        model_size=model_size,
        law=law,
        weights=weights,
        targets=targets_of(targets) or None,
        bounds=bounds,
        available_tokens=available_tokens,
        max_epochs=max_epochs,
        prior=prior,
        prior_strength=prior_strength,
        reference=reference,
        beyond_tried=beyond_tried,
        guardrails=tuple([guardrails] if isinstance(guardrails, str | Guard) else guardrails),
        guard_probability=guard_probability,
        max_change=max_change,
        change=change,
        pareto=pareto,
        costs=costs,
        replicates=replicates,
        lang=lang,
    )
    obs, opened = read(source, wanted, question, progress)
    checked_weights(weights, obs.targets, obs.domains, obs.described, obs.links)
    allowed(obs.domains, tokens, **question.limits)  # a wrong name is found before anything is fitted
    guards, _ = guards_on(question.guardrails, obs.targets, obs.described, obs.links)  # likewise
    guarded = [guard.target for guard in guards]
    groups = [target.group for target in obs.described.values() if target.group]
    question.check_names([*obs.domains, *obs.targets, *groups])
    alignment = align(obs, model_size)
    selection, validation, fit, judged = _fitted(alignment, obs, law, weights, guarded, progress)
    aligned = alignment.observations
    counted = checked_weights(weights, obs.targets, obs.domains, obs.described, obs.links, unfit=fit.unfit)
    enough = replicates > 0 and len(aligned.runs) >= MIN_RUNS
    drawn = bootstrap(aligned, fit, replicates=replicates, progress=progress) if enough else None
    checked = _checked(aligned, fit, selection, validation, question, progress)
    findings = replace(
        checked,
        observations=obs,
        aligned=aligned,
        fitness=judged,
        ranks=rank_transfer(obs, weights=counted, bridge=fit.bridge),
    )
    try:
        recommendation = _recommended(fit, counted, drawn, question, progress)
    except ConstraintError:
        raise  # the question is at fault, not the sweep
    except RecommendationError as error:
        if out is None:
            raise
        page = findings.save_undecided(out, error.args[0])
        raise RecommendationError(f"{error}. What the sweep does show is in {page}") from error
    result = _answered(findings, recommendation, drawn, question, progress)
    if out is not None:
        result.save(out, progress=progress)
    if write_back:
        into = opened or open_source(obs.source) if isinstance(write_back, bool) else write_back
        result = replace(result, location=_left(result, into, question, nest=nest, progress=progress))
    return result


def _fitted(
    alignment: Alignment,
    read: Observations,
    law: str,
    weights: Mapping[str, float] | None,
    guarded: Collection[str],
    progress: Progress | None,
) -> tuple[Selection | None, Validation | None, LawFit, FitnessTable]:
    """Return the fit, of the law that was named or of the one that predicts held-out mixtures best, and how it does.

    And which targets are fit to decide. The fit is to the aligned runs, and is said to be of those that were read.
    """
    obs = alignment.observations
    if law == AUTO:
        chosen = select_law(obs, weights=weights, guarded=guarded, progress=progress)
        selection = chosen.of(alignment, read)
        judged = selection.fitness or fitness(obs)
        return selection, selection.validation, selection.fit, judged
    (fit,) = (fit_law(obs, name) for name in reported(progress, "fitting", [law]))
    validation: Validation | None
    (validation,) = (
        _or_none(cross_validate, obs, fit=fit) for _ in reported(progress, "predicting held-out mixtures", [law])
    )
    judged = fitness(obs, validation)
    fit = replace(fit, unfit=judged.unfit)
    if validation is not None:
        counted = checked_weights(weights, obs.targets, obs.domains, obs.described, obs.links, unfit=fit.unfit)
        working = objective_weights(counted, obs.links)
        validation = replace(validation, weights={target: working[target] for target in validation.domains})
        fit = replace(fit, held_out=HeldOutErrors.of(validation.predictions, obs.mixtures, sampling_of(obs)))
    return None, validation, bridged(fit, alignment, read), judged


def _checked(
    obs: Observations,
    fit: LawFit,
    selection: Selection | None,
    validation: Validation | None,
    question: Question,
    progress: Progress | None,
) -> Findings:
    """Return what the sweep and its fit show, checked on held-out mixtures and on later losses."""
    (later,) = (_or_none(extrapolate, obs, fit=fit) for _ in reported(progress, "predicting later losses", [fit.law]))
    return Findings(
        observations=obs,
        fit=fit,
        validation=validation,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        selection=selection,
        extrapolation=later,
        diagnostics=diagnose(obs, fit, validation=validation, tokens=question.tokens),
        lang=question.lang,
        options=as_json(question),
    )


def _recommended(
    fit: LawFit,
    weights: Mapping[str, float],
    replicates: Replicates | None,
    question: Question,
    progress: Progress | None,
) -> Recommendation:
    return recommend(
        fit,
        question.tokens,
        model_size=question.model_size,
        # A target that the law can't have is in nobody's way unless it counts.
        weights={t: w for t, w in weights.items() if w > 0 or t in fit.targets or t in fit.domains},
        **question.limits,
        beyond_tried=question.beyond_tried,
        **question.guarding,
        replicates=replicates,
        progress=progress,
    )


def _answered(
    findings: Findings,
    recommendation: Recommendation,
    replicates: Replicates | None,
    question: Question,
    progress: Progress | None,
) -> Analysis:
    """Return the findings with the recommendation, what it saves, and what is to be known before acting on it."""
    obs, fit, selection = findings.fitted, findings.fit, findings.selection
    diagnostics = diagnose(
        obs, fit, validation=findings.validation, mixture=recommendation.mixture, tokens=question.tokens
    )
    return Analysis(
        **vars(findings) | {"diagnostics": diagnostics},
        recommendation=recommendation,
        worth=worth(
            obs,
            fit,
            recommendation,
            replicates=replicates,
            laws=None if selection is None else selection.plausible,
            costs=question.costs,
            measured=findings.observations,
            progress=progress,
        ),
        pareto=_traded(fit, recommendation, question),
        replicates=replicates,
    )


def _traded(fit: LawFit, rec: Recommendation, question: Question) -> Pareto | None:
    """Return the optima between two groups of targets, where there are two."""
    groups = two_groups(rec, question.pareto)
    if groups is None:
        return None
    return trade_off(fit, rec, groups, guardrails=question.guardrails, beyond_tried=question.beyond_tried)


def _left(result: Analysis, into: RunSource, question: Question, *, nest: bool, progress: Progress | None) -> str:
    """Write an analysis beside its runs, once, and return where it is."""
    obs = result.observations
    return leave(
        into,
        obs,
        result.recommendation.mixture,
        save=lambda folder: result.write(folder, progress=progress),
        metrics=result.metrics(),
        note=result.note(),
        runs=obs.runs,
        key=question.key(obs),
        name=analysis_name(obs, tokens_shown(question.tokens), result.created[:10], model_size=question.model_size),
        nest=nest,
        model_size=question.model_size,
    )


def _or_none(check: Callable[..., Any], obs: Observations, **options: Any) -> Any:
    """Return what a check finds; None where the sweep is too small to ask, which the report says."""
    try:
        return check(obs, **options)
    except ObservationsError:
        return None

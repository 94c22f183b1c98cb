"""Which law may answer: one doubtful target, or a domain without losses, doesn't refuse all that is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bimix_tracking import Observations, analyze, fit_law, recommend, select_law
from bimix_tracking.errors import ObservationsError, RecommendationError
from bimix_tracking.fitting.outcome import Outcome
from bimix_tracking.report import content, html, markdown

DOMAINS = ("web", "code", "books")
VOLUMES = (1e9, 2e9, 4e9, 8e9)


def taught(
    targets: Mapping[str, Sequence[float]], *, volumes: Sequence[float] = VOLUMES, runs: int = 10, noise: float = 0.002
) -> Observations:
    """Return a sweep whose targets learn from each domain so much; NaN: that one loss is a constant."""
    rng = np.random.default_rng(5)
    rows = []
    for n, shares in enumerate(rng.dirichlet(np.ones(len(DOMAINS)), runs)):
        for s in volumes:
            row = {"run": f"run-{n}", "tokens": s} | dict(zip(DOMAINS, shares, strict=True))
            for name, parts in targets.items():
                loss = (np.array(parts) @ shares + 0.05) ** -0.1 * (1.5 + 3 * (s / 1e9) ** -0.4)
                row[f"loss {name}"] = 2.5 if np.isnan(loss) else loss * np.exp(noise * rng.standard_normal())
            rows.append(row)
    columns = {name: f"loss {name}" for name in targets}
    return Observations.from_wide(
        pd.DataFrame(rows), proportions=list(DOMAINS), losses=columns, tokens="tokens", run="run"
    )


OWN = {"web": (1, 0.1, 0.1), "code": (0.1, 1, 0.1)}  # books has no losses
OUTSIDE = {"hellaswag": (1, 0.2, 0.5), "humaneval": (0.1, 1, 0.05)}
STALE = (np.nan, np.nan, np.nan)


def test_a_domain_without_losses_counts_by_what_it_does_to_the_others() -> None:
    found = analyze(taught(OWN), 8e9, replicates=20)
    rec = found.recommendation

    assert found.selection is not None
    assert found.fit.law != "bimix"
    assert "domains 'books' have no losses" in found.selection.ineligible["bimix"]
    assert found.selection.scores.set_index("law")["error"]["bimix"] > 0  # it is reported all the same
    assert rec.weights == {"web": 1.0, "code": 1.0, "books": 0.0}
    told = [
        text for text in rec.warnings if text == "domain 'books' was not evaluated: it counts by its effect on targets"
    ]
    assert len(told) == 1
    low, high = found.observations.mixtures["books"].min(), found.observations.mixtures["books"].max()
    assert low - 1e-9 <= rec.mixture["books"] <= high + 1e-9
    assert rec.mixture["books"] == pytest.approx(low, abs=1e-6)  # it teaches the others nothing


def test_bimix_by_name_says_what_it_lacks_and_what_serves() -> None:
    with pytest.raises(
        RecommendationError,
        match=r"bimix cannot recommend a mixture: it sees only a domain's own proportion.*'books'.*Use a law",
    ):
        analyze(taught(OWN), 8e9, law="bimix")
    with pytest.raises(RecommendationError, match=r"domains \['books'\] have a weight but were not evaluated"):
        analyze(taught(OWN), 8e9, weights={"books": 1.0})


@pytest.mark.parametrize("volumes", [VOLUMES, (8e9,)])
def test_where_no_target_is_a_domain_all_targets_count_alike(volumes: Sequence[float], tmp_path: Path) -> None:
    obs = taught(OUTSIDE, volumes=volumes)

    found = analyze(obs, 8e9, replicates=20, out=tmp_path)
    rec = found.recommendation

    assert {target: rec.weights[target] for target in OUTSIDE} == {"hellaswag": 1.0, "humaneval": 1.0}
    assert rec.gain == pytest.approx(sum(rec.reference_predicted[t] - rec.predicted[t] for t in OUTSIDE))
    for domain in DOMAINS:  # what the law says beyond the proportions tried is nobody's
        tried = obs.mixtures[domain]
        assert tried.min() - 1e-9 <= rec.mixture[domain] <= tried.max() + 1e-9
    page = content.page(found)
    assert "unweighted sum of 'hellaswag', 'humaneval'" in page.gain
    assert page.total.change == f"−{page.gain.split(': ')[1].split(' nats')[0]}"
    assert [row.domain for row in page.shares] == [*DOMAINS]
    assert sorted(row.target for row in page.gains) == sorted(OUTSIDE)
    for text in (html.render(found), markdown.render(found)):
        assert "hellaswag" in text


def test_a_table_of_eight_runs_seven_domains_and_a_dozen_proxies_needs_no_option() -> None:
    rng = np.random.default_rng(3)
    domains, targets = [f"source {i}" for i in range(7)], [f"pile {i}" for i in range(12)]
    shares = rng.dirichlet(np.full(7, 0.8), 8)
    shares = np.where(shares < 0.01, 0.0, shares)
    shares /= shares.sum(1, keepdims=True)
    teaches = rng.uniform(0.05, 1, (12, 7)) ** 3
    losses = rng.uniform(2, 4, 12) * (0.02 + shares @ teaches.T) ** -0.1 * np.exp(0.003 * rng.standard_normal((8, 12)))
    table = pd.DataFrame(np.hstack([shares, losses]), columns=[*domains, *targets]).assign(tokens=1e9)

    obs = Observations.from_wide(table, proportions=domains, losses=targets, tokens="tokens")
    found = analyze(obs, 1e9, replicates=20)
    rec = found.recommendation

    assert {rec.weights[target] for target in targets} == {1.0}
    assert found.selection is not None
    assert set(found.selection.fits) == {"transfer", "additive", "exponential", "ensemble"}
    assert list(rec.warnings).count("no domain is a target: each counts by its effect on the targets") == 1
    assert not any("source" in text for text in rec.warnings)
    assert np.isfinite([rec.predicted[target] for target in targets]).all()
    assert rec.gain >= 0
    tried = obs.mixtures[domains]
    assert all(tried[d].min() - 1e-9 <= rec.mixture[d] <= tried[d].max() + 1e-9 for d in domains)


def test_a_weight_decides_which_laws_may_answer() -> None:
    obs = taught(OWN | {"books": (0.1, 0.1, 1)} | OUTSIDE)

    by_domain, by_target = select_law(obs), select_law(obs, weights=dict.fromkeys((*DOMAINS, *OUTSIDE), 1.0))

    assert by_domain.ineligible == {}
    assert set(by_target.ineligible) == {"bimix"}
    assert "'hellaswag', 'humaneval'" in by_target.ineligible["bimix"]
    assert by_target.fit.law not in by_target.ineligible
    found = analyze(obs, 8e9, weights={**dict.fromkeys(DOMAINS, 0.0), **dict.fromkeys(OUTSIDE, 1.0)}, replicates=0)
    assert found.recommendation.weights["hellaswag"] == 1.0


def test_a_column_that_exists_is_never_called_unknown() -> None:
    obs = taught(OWN | {"books": (0.1, 0.1, 1)} | OUTSIDE)

    with pytest.raises(RecommendationError) as told:
        analyze(obs, 8e9, law="bimix", weights={"hellaswag": 1.0}, replicates=0)
    assert "unknown" not in str(told.value)
    assert "additive" in str(told.value)
    analyze(obs, 8e9, law="bimix", weights={"hellaswag": 0.0}, replicates=0)  # what doesn't count is in nobody's way
    with pytest.raises(
        RecommendationError, match=r"weight of unknown domain or target 'mmlu'; choose from .*'hellaswag'"
    ):
        analyze(obs, 8e9, weights={"mmlu": 1.0})


@pytest.mark.parametrize("runs", [10, 14])  # a single law and the ensemble is chosen
def test_a_target_that_no_law_can_fit_is_left_out_and_named(runs: int) -> None:
    found = analyze(taught(OWN | {"books": STALE}, runs=runs), 8e9, replicates=0)
    rec = found.recommendation

    assert rec.weights == {"web": 1.0, "code": 1.0, "books": 0.0}
    assert found.fit.targets["books"].outcome is Outcome.CONSTANT_LOSS
    assert any("target 'books' is excluded from the objective" in t and "stale value" in t for t in rec.warnings)
    assert np.isnan(rec.predicted["books"])
    assert rec.gain == pytest.approx(sum(rec.reference_predicted[t] - rec.predicted[t] for t in ("web", "code")))
    html.render(found)


def test_if_no_target_is_left_the_remedy_of_each_is_said() -> None:
    with pytest.raises(RecommendationError, match=r"'web': all losses of the domain are equal.*'code': all"):
        analyze(taught({"web": STALE, "code": STALE}, noise=0.0), 8e9, replicates=0)


def test_a_target_of_few_runs_stays_in_the_ensemble() -> None:
    obs = taught(OWN | {"books": (0.1, 0.1, 1)})
    few = obs.losses[(obs.losses["domain"] != "books") | obs.losses["run"].isin(["run-0", "run-1"])]
    fit = fit_law(Observations(obs.mixtures, few.reset_index(drop=True)), "ensemble")

    assert set(fit.targets) == {"web", "code", "books"}
    if fit.targets["books"].outcome.usable:
        assert sum(fit.targets["books"].parameters.values()) == pytest.approx(1)


def test_an_ensemble_has_the_worst_doubt_of_the_laws_it_uses() -> None:
    fit = fit_law(taught(OWN | {"books": (0.1, 0.1, 1)}, volumes=(1e9, 4e9)), "ensemble")

    for target, fitted in fit.targets.items():
        used = [fit.members[name].targets[target].outcome for name, w in fitted.parameters.items() if w > 0]
        assert fitted.outcome is Outcome.worst(used)
        assert fitted.outcome is Outcome.TOO_FEW_CHECKPOINTS


def test_a_table_that_no_law_fits_says_which_needs_what() -> None:
    with pytest.raises(ObservationsError, match=r"bimix needs a target's own proportion: losses are of 'hellaswag'"):
        fit_law(taught(OUTSIDE))


@pytest.mark.parametrize("seed", [4, 6])
def test_a_fit_that_stops_early_is_judged_by_its_held_out_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    domains, targets = 5, 8
    shares = rng.dirichlet(np.full(domains, 0.7), 14)
    shares[shares < 0.04] = 0
    shares /= shares.sum(1, keepdims=True)
    teach = rng.exponential(1, (targets, domains)) * (rng.random((targets, domains)) < 0.7) + 1e-3
    rows = []
    for n, row in enumerate(shares):
        luck = rng.normal(0, 0.003)
        for s in np.arange(1, 12):
            losses = {
                f"t{t}": (teach[t] @ row + 0.05) ** -0.08 * (1.5 + 3 * s**-0.4) * np.exp(luck + rng.normal(0, 0.002))
                for t in range(targets)
            }
            rows.append({"run": f"r{n}", "tokens": s * 1e9, **{f"p{k}": row[k] for k in range(domains)}, **losses})
    obs = Observations.from_wide(
        pd.DataFrame(rows),
        proportions=[f"p{k}" for k in range(domains)],
        losses=[f"t{t}" for t in range(targets)],
        tokens="tokens",
        run="run",
    )

    fit = fit_law(obs, "additive")
    rec = recommend(fit, 1e10)

    assert all(fitted.error < 0.01 for fitted in fit.targets.values())
    assert all(rec.weights[target] == 1 for target in fit.targets)

"""Bad input that users really have: each is refused or set aside by a message that names it and the cure."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from bimix_tracking import Mixture, Observations, analyze, fit_law, select_law
from bimix_tracking.data.manifest import RunManifest, RunRecord
from bimix_tracking.errors import BimixError, CorpusError, MissingDependencyError, ObservationsError
from bimix_tracking.fitting.outcome import Outcome
from bimix_tracking.selection.diagnostics import Diagnostic, diagnose

MakeSweep = Callable[..., Observations]
LAWS = {"code": (0.05, 0.3, 120.0, 1.1), "web": (0.1, 0.5, 900.0, 2.7), "c++": (0.25, 0.9, 1e5, 1.9)}
TOKENS = (1e6, 2e6, 4e6, 8e6, 1.6e7, 3.2e7)


def changed(obs: Observations, losses: pd.DataFrame) -> Observations:
    return Observations(obs.mixtures, losses.reset_index(drop=True))


def of_kind(found: tuple[Diagnostic, ...], kind: str) -> list[Diagnostic]:
    return [each for each in found if each.kind == kind]


def table_of(losses: list[float], shares: tuple[float, ...] = (0.2, 0.5, 0.7)) -> pd.DataFrame:
    return pd.DataFrame(
        [{"a": r, "b": 1 - r, "tokens": s, "la": v} for r in shares for s, v in zip(TOKENS, losses, strict=True)]
    )


def read(table: pd.DataFrame) -> Observations:
    return Observations.from_wide(table, proportions=["a", "b"], losses={"a": "la"}, tokens="tokens")


def test_a_constant_loss() -> None:
    fitted = fit_law(read(table_of([2.0] * 6))).targets["a"]

    assert fitted.outcome is Outcome.CONSTANT_LOSS
    assert "all losses of the domain are equal" in fitted.outcome.remedy


def test_an_increasing_loss() -> None:
    fitted = fit_law(read(table_of([2.0, 2.1, 2.2, 2.3, 2.5, 2.6]))).targets["a"]

    assert fitted.outcome is Outcome.LOSS_RISES
    assert "rises along training" in fitted.outcome.remedy


def test_three_points() -> None:
    fitted = fit_law(read(table_of([2.0] * 6).iloc[[0, 1, 8]].assign(la=[2.0, 1.8, 1.7]))).targets["a"]

    assert fitted.outcome is Outcome.TOO_FEW_POINTS
    assert "fewer losses than parameters" in fitted.outcome.remedy


def test_duplicate_steps_with_different_values() -> None:
    table = table_of([3.0, 2.8, 2.6, 2.5, 2.4, 2.35])
    obs = read(pd.concat([table, table.iloc[[2]].assign(la=9.9), table.iloc[[2]]], ignore_index=True))

    assert 9.9 not in obs.losses["loss"].to_numpy()
    assert any("an earlier value of a point logged again" in str(note) for note in obs.notes)


@pytest.mark.parametrize("factor", [1000.0, np.e**4])
def test_losses_in_the_wrong_unit(factor: float) -> None:
    with pytest.raises(ObservationsError, match=r"domain 'a' is .* in run 'mixture-1'.*sum over tokens, or"):
        read(table_of([3.0 * factor, 2.8 * factor, 2.6 * factor, 2.5 * factor, 2.4 * factor, 2.3 * factor]))


def test_one_run_in_the_wrong_unit_is_excluded_and_the_others_read() -> None:
    table = table_of([3.0, 2.8, 2.6, 2.5, 2.4, 2.35])
    of_one = table["a"] == 0.5
    for wrong in (table["la"] * 1e5, np.exp(2 * table["la"]), table["la"].where(table["tokens"] > 1e6, 1e30)):
        obs = read(table.assign(la=table["la"].where(~of_one, wrong)))

        assert obs.runs == ("mixture-1", "mixture-3")
        (note,) = obs.notes
        assert (note.action, note.run) == ("excluded", "mixture-2")
        assert "a sum over tokens, or a perplexity?" in note.reason


def test_runs_with_disjoint_domains() -> None:
    def record(name: str, domains: tuple[str, str]) -> RunRecord:
        rows = [
            {"bimix/step": 1.0, "bimix/tokens": s, **{f"bimix_eval_loss/{d}": 3 - 0.1 * i for d in domains}}
            for i, s in enumerate(TOKENS)
        ]
        manifest = RunManifest(domains=domains, mixture=Mixture.uniform(domains))
        return RunRecord(run_id=name, name=name, manifest=manifest, rows=rows)

    with pytest.raises(ObservationsError, match=r"differ in domains.*'code, web': one; 'law, math': two"):
        Observations.from_records([record("one", ("code", "web")), record("two", ("law", "math"))], source="test")


def test_mixtures_that_sum_to_one_only_after_rounding() -> None:
    table = table_of([3.0, 2.8, 2.6, 2.5, 2.4, 2.35], shares=(0.333, 0.5, 0.667)).assign(b=lambda t: 1.001 - t["a"])
    obs = read(table)

    assert obs.mixtures.sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-12)
    assert any("summed to 1 only within rounding and were rescaled" in str(note) for note in obs.notes)
    with pytest.raises(ObservationsError, match=r"proportions sum to 1\.2, not 1"):
        read(table.assign(b=lambda t: 1.2 - t["a"]))


def test_one_domain_never_varied(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, mixtures=[(0.2, 0.1, 0.7), (0.2, 0.5, 0.3), (0.2, 0.3, 0.5), (0.2, 0.7, 0.1)])
    fit = fit_law(obs)

    assert fit.targets["code"].outcome is Outcome.SINGLE_MIXTURE
    [found] = of_kind(diagnose(obs, fit), "few shares")
    assert (found.domain, "'code' was tried at only 1 proportion (0.2)" in found.text) == ("code", True)
    assert "Add runs until it has at least three" in found.remedy


def test_shares_that_move_together(sweep: MakeSweep) -> None:
    mixtures = [(a, 1.5 * a, 1 - 2.5 * a) for a in (0.1, 0.15, 0.2, 0.25, 0.3)]
    obs = sweep(LAWS, mixtures=mixtures)

    found = of_kind(diagnose(obs, fit_law(obs)), "collinear")

    assert "the proportions of 'code' and 'web' move together (correlation of their logarithms 1.00)" in found[0].text
    assert "1.00" in found[0].text
    assert "raise one and lower the other" in found[0].remedy


def test_a_run_that_is_off_is_named(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, runs=12, noise=0.002)
    losses = obs.losses.assign(loss=obs.losses["loss"] * np.where(obs.losses["run"] == "run-3", 1.06, 1.0))

    found = of_kind(diagnose(changed(obs, losses), fit_law(changed(obs, losses))), "outlier run")

    assert [each.run for each in found] == ["run-3"]
    assert "% above the law over all its targets" in found[0].text
    assert not of_kind(diagnose(obs, fit_law(obs)), "outlier run")


def test_runs_of_different_length_are_named(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, runs=6)
    short = obs.losses[(obs.losses["run"] != "run-2") | (obs.losses["tokens"] < 1e7)]

    [found] = of_kind(diagnose(changed(obs, short), fit_law(changed(obs, short))), "schedules")

    assert "1 of 6 runs end before the longest" in found.text
    assert "'run-2'" in found.text
    assert "Train all runs for the same tokens" in found.remedy


def test_a_run_that_counts_one_process_s_tokens_is_named(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, runs=6)
    steps = obs.losses.assign(step=obs.losses["tokens"] / 1e3)
    of_one = np.where(steps["run"] == "run-2", 1 / 8, 1.0)
    wrong = changed(obs, steps.assign(tokens=steps["tokens"] * of_one))

    [found] = of_kind(diagnose(wrong, fit_law(wrong)), "tokens a step")

    assert found.run == "run-2"
    assert "1 of 6 runs log fewer tokens per step" in found.text
    assert "run 'run-2' the fewest: 125 instead of 1k (8 times fewer)" in found.text
    padded = changed(obs, steps.assign(tokens=steps["tokens"] * np.where(steps["run"] == "run-2", 0.8, 1.0)))
    assert not of_kind(diagnose(padded, fit_law(padded)), "tokens a step")
    assert not of_kind(diagnose(obs, fit_law(obs)), "tokens a step")  # steps that aren't known


def test_a_domain_the_law_fits_badly_is_named(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, runs=12, noise=0.002)
    rng = np.random.default_rng(0)
    wild = np.where(obs.losses["domain"] == "web", np.exp(0.08 * rng.standard_normal(len(obs.losses))), 1.0)
    hit = changed(obs, obs.losses.assign(loss=obs.losses["loss"] * wild))

    [found] = of_kind(diagnose(hit, fit_law(hit)), "bad fit")

    assert found.domain == "web"
    assert "give it a smaller weight" in found.remedy


def test_targets_outside_what_was_tried(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, runs=8)

    found = diagnose(obs, fit_law(obs), mixture=Mixture({"code": 0.01, "web": 0.01, "c++": 0.98}), tokens=1e9)

    texts = [each.text for each in of_kind(found, "outside")]
    assert any("1B tokens is 31.2 times the largest volume observed" in text for text in texts)
    assert any("the proportion of domain 'c++', 0.98, is outside those tried" in text for text in texts)
    assert any("the mixture differs from the nearest run, 'run-" in text for text in texts)


def test_a_clean_sweep_has_nothing_to_say(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, runs=12, noise=0.003)

    assert not [each for each in diagnose(obs, fit_law(obs)) if each.kind != "outcome"]


def test_the_analysis_says_what_was_found(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, runs=12, noise=0.002)
    losses = obs.losses.assign(loss=obs.losses["loss"] * np.where(obs.losses["run"] == "run-3", 1.06, 1.0))

    found = analyze(changed(obs, losses), tokens=1e8)

    assert found.selection is not None
    assert found.fit.law == found.selection.fit.law
    assert [each.run for each in found.diagnostics if each.kind == "outlier run"] == ["run-3"]
    assert found.extrapolation is not None
    assert found.extrapolation.mean_error < found.extrapolation.mean_carried_error


def test_a_sweep_no_law_can_be_fitted_to_says_why(sweep: MakeSweep) -> None:
    obs = sweep(LAWS)
    other = obs.losses.assign(domain="benchmark")

    with pytest.raises(ObservationsError, match=r"no law can be fitted: bimix: no loss is of a domain of the mixtures"):
        select_law(changed(obs, other), laws=("bimix",))


@pytest.mark.parametrize("error", [CorpusError("a"), MissingDependencyError("pandas", extra="all")])
def test_errors_cross_to_other_processes(error: BimixError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own, made here

    assert type(again) is type(error)
    assert (str(again), vars(again)) == (str(error), vars(error))

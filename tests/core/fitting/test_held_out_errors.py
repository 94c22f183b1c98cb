"""What a law's form gets wrong: held-out errors against hand-made ones, in the fit's file, and in intervals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bimix_tracking import LawFit, Mixture, Observations, bootstrap, fit_law, select_law
from bimix_tracking.data.targets import Target
from bimix_tracking.fitting.held_out_errors import HeldOutErrors, HeldOutRun, LaterErrors, sampling_of

MakeSweep = Callable[..., Observations]
LAWS = {"code": (0.05, 0.3, 120.0, 1.1), "web": (0.1, 0.5, 900.0, 2.7), "c++": (0.25, 0.9, 1e5, 1.9)}
BOTH = {"a": 1.0, "b": 2.0}


def held_out(errors: list[tuple[float, float, float]]) -> HeldOutErrors:
    """Return errors of runs of two domains: share of the first, errors of both targets."""
    return HeldOutErrors(
        tuple(HeldOutRun(f"r{i}", (r, 1 - r), 1e9, {"a": a, "b": b}) for i, (r, a, b) in enumerate(errors))
    )


def no_estimation(errors: HeldOutErrors) -> np.ndarray:
    """Return replicates that don't stray."""
    return np.zeros((5, len(errors.runs)))


def test_the_errors_are_those_of_each_run_s_last_losses() -> None:
    predictions = pd.DataFrame(
        [
            ("x", 2e9, "a", 3.0, 2.9),
            ("x", 1e9, "a", 4.0, 9.0),
            ("x", 1e9, "b", 2.0, 2.5),
            ("y", 2e9, "a", 3.5, 3.6),
        ],
        columns=["run", "tokens", "domain", "observed", "predicted"],
    )
    mixtures = pd.DataFrame({"a": [0.2, 0.7, 0.5], "b": [0.8, 0.3, 0.5]}, index=["x", "y", "never held out"])

    found = HeldOutErrors.of(predictions, mixtures)

    assert [one.run for one in found.runs] == ["x", "y"]
    assert found.runs[0].error == pytest.approx({"a": 0.1, "b": -0.5})
    assert found.runs[0].tokens == 2e9
    assert found.shares.tolist() == [[0.2, 0.8], [0.7, 0.3]]
    assert found.sums(BOTH) == pytest.approx([0.1 - 1.0, np.nan], nan_ok=True)


def test_form_errors_are_mean_square_and_variance_of_the_weighted_sum() -> None:
    errors = held_out([(0.2, 0.1, 0.0), (0.4, 0.0, 0.2), (0.6, -0.1, 0.1), (0.8, 0.2, 0.0)])
    sums = np.array([0.1, 0.4, 0.1, 0.2])
    distance = np.mean([0.2, 0.4, 0.6, 0.2, 0.4, 0.2])

    found = errors.form(BOTH, no_estimation(errors))

    assert found is not None
    assert (found.mixtures, found.free) == (4, 2)
    assert found.each == pytest.approx((sums**2).mean())
    assert found.of_run == pytest.approx(found.each)
    assert found.apart == pytest.approx(2 * sums.var(ddof=1) / distance)
    one, other = np.array([0.3, 0.7]), np.array([0.4, 0.6])
    assert found.between(one, other) == pytest.approx(found.apart * 0.1)
    assert found.between(one, one) == 0
    # Over all pairs of the mixtures held out it is what their errors differ by.
    pairs = [(i, j) for i in range(4) for j in range(i)]
    said = [found.between(errors.shares[i], errors.shares[j]) for i, j in pairs]
    assert np.mean(said) == pytest.approx(np.mean([(sums[i] - sums[j]) ** 2 for i, j in pairs]))


def test_what_estimation_and_repeats_tell_is_no_form_error() -> None:
    errors = held_out([(r, e, 0.0) for r, e in ((0.2, 0.3), (0.4, -0.3), (0.6, 0.3), (0.8, -0.3))])
    alone = errors.form({"a": 1.0}, no_estimation(errors))
    drawn = np.array([[0.1, 0.1, -0.1, -0.1], [-0.1, -0.1, 0.1, 0.1]])

    estimated = errors.form({"a": 1.0}, drawn)

    assert alone is not None
    assert estimated is not None
    assert estimated.each == pytest.approx(alone.each - 0.02)  # the variance of ±0.1
    # Of a mixture those replicates count that were made without it: the third has all of them.
    wild = np.vstack([drawn, np.full((1, 4), 9.0)])
    out = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]], bool)
    without = errors.form({"a": 1.0}, wild, out)
    assert without is not None
    assert without.each == pytest.approx(estimated.each)
    assert without.apart == pytest.approx(estimated.apart)
    repeated = held_out(
        [(r, e + d, 0.0) for r, e in ((0.2, 0.3), (0.4, -0.3), (0.6, 0.3), (0.8, -0.3)) for d in (-0.1, 0.1)]
    )
    told = repeated.form({"a": 1.0}, no_estimation(repeated))
    assert told is not None
    assert told.mixtures == 4
    chance = 8 * 0.1**2 / 7.7794403397  # χ²(4) at 0.9
    assert told.each == pytest.approx(0.09 - chance / 2)
    assert told.of_run == pytest.approx(0.09 + chance / 2)
    # Errors that are no larger than chance leave nothing, and no negative variance.
    quiet = held_out([(r, d, 0.0) for r in (0.2, 0.4, 0.6) for d in (-0.1, 0.1)])
    nothing = quiet.form({"a": 1.0}, no_estimation(quiet))
    assert nothing is not None
    assert (nothing.each, nothing.apart) == (0, 0)


def test_two_mixtures_tell_no_form_error() -> None:
    errors = held_out([(0.2, 0.1, 0.0), (0.2, 0.2, 0.0), (0.5, 0.1, 0.0)])

    assert errors.form({"a": 1.0}, no_estimation(errors)) is None
    assert errors.form({"missing": 1.0}, no_estimation(errors)) is None


def test_the_errors_travel_with_the_chosen_fit_and_in_its_file(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, mixtures=[(0.2, 0.3, 0.5), (0.5, 0.3, 0.2), (0.3, 0.5, 0.2), (0.6, 0.2, 0.2)], noise=0.003)

    found = select_law(obs)

    assert found.validation is not None
    last = found.validation.last_sums().reindex(list(obs.runs))  # NaN where a run can't be told from the others
    assert found.fit.held_out is not None
    sums = found.fit.held_out.sums(dict.fromkeys(found.fit.targets, 1.0))
    assert np.isfinite(sums).sum() >= 3
    assert sums == pytest.approx((last["observed"] - last["predicted"]).to_numpy(float), nan_ok=True)
    content = json.loads(json.dumps(found.fit.to_dict()))
    assert LawFit.from_dict(content).held_out == found.fit.held_out
    del content["held_out"]  # a file of before
    assert LawFit.from_dict(content).held_out is None


def test_an_ensemble_has_its_own_however_it_was_made(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, noise=0.003, runs=9)

    alone, chosen = fit_law(obs, "ensemble"), select_law(obs).fits["ensemble"]

    assert alone.held_out is not None
    assert chosen.held_out is not None
    both = dict.fromkeys(alone.targets, 1.0)
    assert alone.held_out.sums(both) == pytest.approx(chosen.held_out.sums(both), rel=1e-6)
    assert all(member.held_out is None for member in alone.members.values())


def test_intervals_have_the_form_error_in_quadrature(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, noise=0.003, runs=9)
    fit = fit_law(obs, warmup=0)
    shares = obs.mixtures.to_numpy(float)
    errors = HeldOutErrors(
        tuple(
            HeldOutRun(run, tuple(row), 1e7, dict.fromkeys(fit.targets, 0.5 * (-1) ** i))
            for i, (run, row) in enumerate(zip(obs.runs, shares.tolist(), strict=True))
        )
    )
    mixture, other = Mixture.uniform(LAWS), Mixture.normalized({"code": 2.0, "web": 1.0, "c++": 1.0})
    plain = bootstrap(obs, fit, replicates=60)

    told = replace(plain, fit=replace(fit, held_out=errors))

    form = told.form({"web": 1.0})
    assert plain.form({"web": 1.0}) is None
    assert form is not None
    assert form.each == pytest.approx(0.25, rel=0.02)  # estimation is little beside it
    centre = float(fit.predict(mixture, 1e7)["web"][0])
    _, high = told.interval(mixture, 1e7)
    _, alone = plain.interval(mixture, 1e7)
    sides = [np.log(float(end["web"][0]) / centre) for end in (high, alone)]
    scale = told.times({"web": 1.0}, 0.9) / plain.times({"web": 1.0}, 0.9)
    assert sides[0] == pytest.approx(
        np.hypot(scale * sides[1], told.times({"web": 1.0}, 0.9) * form.each**0.5 / centre)
    )
    least, most = told.change(mixture, other, 1e7)
    assert most["web"] - least["web"] > 2 * np.sqrt(form.between(mixture.array(fit.domains), other.array(fit.domains)))
    least, most = told.change(mixture, mixture, 1e7)
    assert (least == 0).all()
    assert (most == 0).all()


def test_more_tokens_than_were_observed_widen_an_interval_and_fewer_do_not(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, noise=0.001, runs=9)
    fit = fit_law(obs, warmup=0)
    found = bootstrap(obs, fit, replicates=40)
    largest = fit.tokens[1]
    off = replace(found, later=LaterErrors((0.5, 1.0), dict.fromkeys(fit.targets, (0.05, 0.1))))

    assert off.later is not None
    assert off.later.rate({"web": 1.0}) == pytest.approx(0.1)
    assert off.later.rate({"web": 1.0, "code": 2.0}) == pytest.approx(0.3)
    assert np.isnan(off.later.rate({"elsewhere": 1.0}))
    assert off.beyond({"web": 1.0}, largest / 2) == 0
    assert off.beyond({"web": 1.0}, largest) == 0
    assert off.beyond({"web": 1.0}, largest * np.e**2) == pytest.approx(0.04)
    for tokens, times in ((largest / 2, 1.0), (largest * 4, 2.0)):
        widths = []
        for one in (replace(found, later=None), off):
            low, high = one.interval(Mixture.uniform(LAWS), tokens)
            widths.append(float((high - low)["web"][0]))
        assert widths[1] >= times * widths[0] * (1 - 1e-12)


def test_later_errors_are_those_of_a_fit_to_the_first_half() -> None:
    rng = np.random.default_rng(3)
    rows = []
    for run, r in enumerate(rng.uniform(0.2, 0.8, 8)):
        for s in (1e9, 2e9, 4e9, 8e9, 1.6e10, 3.2e10):
            loss = r**-0.1 * (2e4 * s**-0.5 + 2.0)
            # The last one is 3 % lower than the law: a schedule's end.
            rows.append(
                {"run": run, "a": r, "b": 1 - r, "tokens": s, "la": loss, "lb": loss * (0.97 if s > 2e10 else 1)}
            )
    losses = {"a": "la", "b": "lb"}
    obs = Observations.from_wide(pd.DataFrame(rows), proportions=["a", "b"], losses=losses, tokens="tokens", run="run")
    last = obs.losses[(obs.losses["tokens"] > 2e10) & (obs.losses["domain"] == "b")]["loss"]
    cut = Observations(obs.mixtures, obs.losses[obs.losses["tokens"] <= 4e9].reset_index(drop=True))

    found = bootstrap(obs, fit_law(obs, "additive", warmup=0), replicates=3).later

    assert found is not None
    assert found.ahead == pytest.approx([np.log(2)])
    assert found.errors["a"] == pytest.approx([0.0], abs=1e-3)
    assert found.errors["b"] == pytest.approx([float(last.mean()) * (1 - 1 / 0.97)], rel=0.05)
    assert bootstrap(cut, fit_law(cut, warmup=0), replicates=3).later is None  # three volumes: none is left to predict


def test_noise_of_questions_is_taken_off_like_that_of_repeats() -> None:
    mixtures = np.random.default_rng(0).dirichlet(np.ones(3), 12)
    error = np.random.default_rng(1).normal(0, 0.02, 12)
    still = np.zeros((20, 12))
    plain = HeldOutErrors(tuple(HeldOutRun(str(i), tuple(mixtures[i]), 1e9, {"quiz": error[i]}) for i in range(12)))
    asked = HeldOutErrors(tuple(replace(one, sampling={"quiz": 1e-4}) for one in plain.runs))

    before, after = plain.form({"quiz": 2.0}, still), asked.form({"quiz": 2.0}, still)

    assert before is not None
    assert after is not None
    assert before.each == pytest.approx(4 * (error**2).mean())
    assert after.each == pytest.approx(before.each - 4e-4)
    assert after.of_run == pytest.approx(before.of_run)
    assert HeldOutErrors.from_dict(asked.to_dict()) == asked


def test_repeats_say_more_of_the_noise_than_questions_that_all_runs_share() -> None:
    mixtures = np.repeat(np.random.default_rng(0).dirichlet(np.ones(3), 8), 2, axis=0)
    error = np.repeat(np.random.default_rng(1).normal(0, 0.02, 8), 2) + np.tile([0.001, -0.001], 8)
    still = np.zeros((20, 16))
    plain = HeldOutErrors(tuple(HeldOutRun(str(i), tuple(mixtures[i]), 1e9, {"quiz": error[i]}) for i in range(16)))
    asked = HeldOutErrors(tuple(replace(one, sampling={"quiz": 4e-4}) for one in plain.runs))

    before, after = plain.form({"quiz": 1.0}, still), asked.form({"quiz": 1.0}, still)

    assert before is not None
    assert after == before
    assert before.each > 1e-4


def test_what_questions_give_is_binomial_in_units_of_the_working_loss() -> None:
    share = np.linspace(0.1, 0.9, 9)
    table = pd.DataFrame({"a": share, "b": 1 - share, "tokens": 1e9, "quiz": 0.3 + 0.3 * share})
    target = Target("quiz", "accuracy", questions=400, chance=0.25)
    obs = Observations.from_wide(table, proportions=["a", "b"], losses=[], targets=[target], tokens="tokens")

    found = sampling_of(obs)

    assert len(found) == 9
    expected = 0.45 * 0.55 / 400 / obs.link("quiz").unit ** 2
    assert all(each == {"quiz": pytest.approx(expected)} for each in found.values())

"""The gain, its interval and its probability: with the law's form or without, and less the luck of the chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t as student

from bimix_tracking import LawFit, Mixture, Observations, Recommendation, bootstrap, fit_law, recommend
from bimix_tracking.fitting.held_out_errors import HeldOutErrors, HeldOutRun
from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.recommendation.constraints import constrain
from bimix_tracking.recommendation.optimum import Problem
from bimix_tracking.recommendation.savings import worth
from bimix_tracking.report.decision import sureness

MakeSweep = Callable[..., Observations]
TRUE = {"a": (0.08, 0.4, 900.0, 2.0), "b": (0.05, 0.5, 2000.0, 2.6), "c": (0.12, 0.45, 900.0, 1.4)}
AT = 3.2e7
POOR = Mixture({"a": 0.05, "b": 0.9, "c": 0.05})
NEAR = Mixture({"a": 0.3, "b": 0.2, "c": 0.5})


def errors_of(obs: Observations, fit: LawFit, size: float) -> HeldOutErrors:
    """Return held-out errors of one size whose sign changes from run to run."""
    shares = obs.mixtures.to_numpy(float).tolist()
    return HeldOutErrors(
        tuple(
            HeldOutRun(run, tuple(row), AT, dict.fromkeys(fit.targets, size * (-1) ** i))
            for i, (run, row) in enumerate(zip(obs.runs, shares, strict=True))
        )
    )


@pytest.fixture
def drawn(sweep: MakeSweep) -> tuple[Observations, Replicates]:
    """Return a sweep of twelve runs and its replicates, without held-out errors."""
    obs = sweep(TRUE, noise=0.01, runs=12)
    return obs, bootstrap(obs, fit_law(obs, warmup=0), replicates=60)


def asked(found: Replicates, reference: Mixture, size: float | None, obs: Observations) -> Recommendation:
    """Return the recommendation, with held-out errors of a size where one is given."""
    fit = found.fit if size is None else replace(found.fit, held_out=errors_of(obs, found.fit, size))
    return recommend(fit, AT, reference=reference, replicates=replace(found, fit=fit))


def test_the_gain_is_taken_down_by_the_median_regret_of_the_replicates(drawn: tuple[Observations, Replicates]) -> None:
    obs, found = drawn

    rec = asked(found, POOR, None, obs)

    assert rec.uncertainty is not None
    best = rec.mixture.array(found.fit.domains)
    problem = Problem(found.fit, AT, dict.fromkeys(TRUE, 1.0), constrain(found.fit.domains))
    optima = problem.minima(found.theta, best).shares
    by_fit = found.fit.losses(np.vstack([best, optima]), AT).to_numpy(float).sum(1)
    assert rec.uncertainty.optimism == pytest.approx(float(np.median(by_fit[1:] - by_fit[0])), rel=1e-3)
    assert rec.uncertainty.optimism > 0
    assert rec.uncertainty.regret == rec.uncertainty.optimism  # what replicates tell; nothing is known of the form
    low, high = rec.uncertainty.gain
    assert low < rec.gain - rec.uncertainty.optimism < high


def test_the_probability_has_the_scale_of_the_interval(drawn: tuple[Observations, Replicates]) -> None:
    obs, found = drawn
    for size in (None, 0.05, 0.3):
        rec = asked(found, POOR, size, obs)
        sure = rec.uncertainty
        assert sure is not None
        scale = (rec.gain - sure.optimism - sure.gain[0]) / student.ppf(0.95, 10)
        expected = student.cdf((rec.gain - sure.optimism) / scale, 10)
        assert sure.probability == pytest.approx(min(expected, 1 - 0.5 / 61), rel=1e-6)
        assert (sure.probability > 0.95) == (sure.gain[0] > 0)


def test_form_errors_make_the_gain_less_sure_and_a_near_reference_less_so(
    drawn: tuple[Observations, Replicates],
) -> None:
    obs, found = drawn
    without, small, large, near = (
        asked(found, reference, size, obs).uncertainty
        for reference, size in ((POOR, None), (POOR, 0.05), (POOR, 0.3), (NEAR, 0.3))
    )
    assert without is not None
    assert small is not None
    assert large is not None
    assert near is not None
    assert without.form_error is None
    assert small.form_error is not None
    assert large.form_error is not None
    assert near.form_error is not None
    assert large.form_error == pytest.approx(6 * small.form_error, rel=0.01)
    assert near.form_error < 0.7 * large.form_error
    half = [(one.gain[1] - one.gain[0]) / 2 for one in (without, small, large)]
    assert half[0] < half[1] < half[2]
    assert half[2] == pytest.approx(student.ppf(0.95, 10) * large.form_error, rel=0.02)
    assert 0.5 < large.probability < small.probability
    assert without.regret < small.regret < large.regret
    assert (without.to_dict()["includes_misspecification"], large.to_dict()["includes_misspecification"]) == (
        False,
        True,
    )
    assert large.shares.equals(without.shares)  # of the proportions it isn't known


def test_what_the_report_says_of_the_form(drawn: tuple[Observations, Replicates]) -> None:
    obs, found = drawn
    plain, told = (asked(found, POOR, size, obs) for size in (None, 0.05))

    assert "model misspecification excluded" in sureness(plain)
    assert told.uncertainty is not None
    assert told.uncertainty.form_error is not None
    assert f"model misspecification included, ±{told.uncertainty.form_error:.4f} nats" in sureness(told)
    assert "excluded" not in sureness(told)


def test_a_saving_promises_no_more_than_the_gain(drawn: tuple[Observations, Replicates]) -> None:
    obs, found = drawn
    spans = []
    for size in (None, 0.02, 0.3):
        rec = asked(found, POOR, size, obs)
        fit = found.fit if size is None else replace(found.fit, held_out=errors_of(obs, found.fit, size))
        saved = worth(obs, fit, rec, replicates=replace(found, fit=fit))
        assert rec.uncertainty is not None
        assert saved.interval is not None
        assert not (saved.demonstrated and rec.uncertainty.gain[0] <= 0)
        assert (saved.interval[0] > 0) == (rec.uncertainty.gain[0] > 0)
        spans.append(saved.interval)
    assert spans[2][0] < spans[1][0] < spans[0][0] <= spans[0][1] < spans[1][1] <= spans[2][1]

"""Outcomes: each way a fit can end is reached from data, and its text names the cure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest

from bimix_tracking import Mixture, Observations, fit_law, recommend
from bimix_tracking.errors import RecommendationError
from bimix_tracking.fitting.domain_fit import DomainFit
from bimix_tracking.fitting.engine import least_squares, problem
from bimix_tracking.fitting.outcome import Outcome

SHARES = (0.1, 0.3, 0.6)
TOKENS = tuple(1e6 * 2**k for k in range(6))


def fitted(curve: Callable[[float, float], float], *, shares: Sequence[float] = SHARES) -> DomainFit:
    return of_table([[curve(r, s) for s in TOKENS] for r in shares], shares=shares)


def of_table(losses: Sequence[Sequence[float]], *, shares: Sequence[float] = SHARES) -> DomainFit:
    tokens = np.geomspace(TOKENS[0], TOKENS[-1], len(losses[0]))
    rows = [
        {"a": r, "b": 1 - r, "tokens": s, "la": loss}
        for r, of_run in zip(shares, losses, strict=True)
        for s, loss in zip(tokens, of_run, strict=True)
    ]
    obs = Observations.from_wide(pd.DataFrame(rows), proportions=["a", "b"], losses={"a": "la"}, tokens="tokens")
    return fit_law(obs).targets["a"]


@pytest.mark.parametrize(
    "curve",
    [
        pytest.param(lambda r, s: r**-0.1 * (5 if s == TOKENS[0] else 2), id="all of the fall before the second point"),
        pytest.param(lambda r, s: 1e-5 * r**-6.0 * (10 / s**0.3 + 1), id="an exponent of the share beyond the box"),
    ],
)
def test_a_curve_that_bends_elsewhere_ends_at_a_bound(curve: Callable[[float, float], float]) -> None:
    fit = fitted(curve)

    assert fit.outcome is Outcome.AT_BOUND
    assert "Evaluate earlier and later" in fit.outcome.remedy


def test_a_loss_that_rises_along_training_is_no_falling_law() -> None:
    fit = fitted(lambda r, s: r**-0.1 * (2 + np.log(s / 1e6) / 10))

    assert fit.outcome is Outcome.LOSS_RISES
    assert "Check for divergence" in fit.outcome.remedy


def test_a_fit_cut_short_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = least_squares.minimize
    monkeypatch.setattr(problem, "minimize", lambda *args, **options: whole(*args, **options | {"steps": 0}))

    fit = of_table([[2, 8, 8, 2, 2, 2], [2, 2, 2, 2, 8, 1], [8, 8, 8, 2, 8, 2]])

    assert fit.outcome is Outcome.NOT_CONVERGED
    assert fit.outcome.usable
    assert "only if its held-out error is small" in fit.outcome.remedy


@pytest.mark.parametrize("law", ["additive", "exponential"])
def test_no_law_of_all_proportions_stops_before_its_end(law: str) -> None:
    """Few runs, targets outside and inside the mixtures: what was refused in every third such sweep."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        shares = rng.dirichlet(np.full(5, 0.7), 6 + 4 * (seed % 3))
        shares = np.where(shares < 0.04, 0, shares)
        shares /= shares.sum(1, keepdims=True)
        teach = rng.exponential(1, (4, 5)) * (rng.random((4, 5)) < 0.7) + 1e-3
        run, tokens = np.divmod(np.arange(len(shares) * 6), 6)
        loss = (shares[run] @ teach.T + 0.05) ** -0.08 * (1.5 + 3 * (1.0 + tokens[:, None]) ** -0.4)
        loss *= np.exp(0.003 * rng.standard_normal((len(shares), 4))[run] + 0.002 * rng.standard_normal(loss.shape))
        table = pd.DataFrame(shares[run], columns=list("abcde")).assign(run=run, tokens=(1.0 + tokens) * 1e9)
        table[["la", "lb", "outside", "other"]] = loss
        losses = {"a": "la", "b": "lb", "outside": "outside", "other": "other"}
        obs = Observations.from_wide(table, proportions=list("abcde"), losses=losses, tokens="tokens", run="run")

        outcomes = {target: fit.outcome for target, fit in fit_law(obs, law).targets.items()}

        stopped = {Outcome.NOT_CONVERGED, Outcome.NEARLY_CONVERGED}
        assert not [target for target, outcome in outcomes.items() if outcome in stopped], (seed, outcomes)


def test_losses_that_several_curves_fit_about_as_well_are_said_to_be_chance() -> None:
    fit = of_table(
        [
            [1.03, 2.64, 1.08, 2.75, 1.03, 1.09, 0.83, 2.46, 2.18],
            [20.99, 25.16, 2.88, 22.62, 20.47, 0.86, 2.95, 2.34, 2.71],
        ],
        shares=(0.583, 0.295),
    )

    assert fit.outcome is Outcome.STARTS_DISAGREE
    assert fit.starts[0] < 2
    assert "Evaluate more often or add mixtures" in fit.outcome.remedy


def test_a_law_that_holds_leaves_nothing_to_cure() -> None:
    fit = fitted(lambda r, s: r**-0.1 * (900 / s**0.5 + 2))

    assert fit.outcome is Outcome.CONVERGED
    assert fit.starts[0] == fit.starts[1]
    assert (fit.points, fit.runs, fit.shares) == (18, 3, (0.1, 0.6))
    assert fit.r2 == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.CONVERGED])
def test_each_remedy_says_what_to_do(outcome: Outcome) -> None:
    assert any(verb in outcome.remedy.lower() for verb in ("evaluate ", "add ", "train a run", "exclude "))


def test_a_fit_that_cannot_be_used_is_not_recommended_from(sweep: Callable[..., Observations]) -> None:
    laws = {"a": (0.1, 0.5, 900.0, 2.7), "b": (0.2, 0.4, 200.0, 1.5)}
    one_point_each = sweep(laws, mixtures=[(0.3, 0.7), (0.6, 0.4)], tokens=(1e6,))
    few = Observations(one_point_each.mixtures, one_point_each.losses.iloc[1:])

    fit = fit_law(few)

    assert fit.targets["a"].outcome in (Outcome.TOO_FEW_POINTS, Outcome.SINGLE_MIXTURE)
    assert np.isnan(fit.predict(Mixture({"a": 0.5, "b": 0.5}), 1e6)["a"][0])
    with pytest.raises(RecommendationError, match="'a': the domain's proportion is the same in all runs"):
        recommend(fit, 1e6)

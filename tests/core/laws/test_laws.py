"""The laws behind their protocol: derivatives, units, order, convexity, and each law's own sweeps predicted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimix_tracking import Mixture, Observations, fit_law
from bimix_tracking.errors import ObservationsError
from bimix_tracking.fitting.engine.least_squares import normal
from bimix_tracking.laws.bimix import BiMix
from bimix_tracking.laws.protocol import Inputs
from bimix_tracking.laws.registry import BUILT_IN, law, names

Array = npt.NDArray[np.float64]
Truth = Callable[[Array, float], Array]
"""Mixtures, (n, domains), and tokens → losses, (n, targets)."""
DOMAINS = ("code", "web", "math")
FREE = ("transfer", "additive", "exponential")
"""Laws that need no own share."""
TOKENS = tuple(np.geomspace(1e6, 6.4e7, 8).tolist())
ALPHA, BETA = np.array([0.06, 0.12, 0.2]), np.array([0.3, 0.5, 0.7])
FALL, FLOOR = np.array([0.6, 0.5, 0.4]), np.array([1.6, 2.4, 1.9])
TAUGHT = np.array([[1.0, 0.2, 0.05], [0.1, 1.0, 0.0], [0.3, 0.15, 1.0]])
GAMMA = np.array([[0.7, 0.6, 0.75], [0.65, 0.7, 0.8], [0.7, 0.75, 0.6]])
SLOPE = np.array([[-2.5, -0.4, -0.6], [-0.5, -2.0, -0.3], [-0.8, -0.6, -3.0]])


def falling(tokens: float) -> Array:
    return np.asarray(FALL * (tokens / 8e6) ** -BETA)


def bimix(shares: Array, tokens: float) -> Array:
    return np.asarray(shares**-ALPHA * (falling(tokens) + FLOOR))


def transfer(shares: Array, tokens: float) -> Array:
    return np.asarray((shares @ TAUGHT.T) ** -ALPHA * (falling(tokens) + FLOOR))


def additive(shares: Array, tokens: float) -> Array:
    taught = np.maximum(TAUGHT, 0.02)  # the law has no domain that teaches nothing
    return np.asarray(FLOOR + 1 / (shares[:, None] ** GAMMA * 1.5 * taught).sum(-1) + falling(tokens))


def exponential(shares: Array, tokens: float) -> Array:
    return np.asarray((FLOOR + np.exp(shares @ SLOPE.T)) * (0.3 * falling(tokens) + 0.8))


TRUTHS: dict[str, Truth] = {"bimix": bimix, "transfer": transfer, "additive": additive, "exponential": exponential}


def dirichlet(count: int, seed: int) -> Array:
    shares = np.maximum(np.random.default_rng(seed).dirichlet(np.full(len(DOMAINS), 2.0), count), 0.02)
    return np.asarray(shares / shares.sum(1, keepdims=True))


def measured(
    truth: Truth, shares: Array, *, targets: Sequence[str] = DOMAINS, noise: float = 0.0, seed: int = 0
) -> Observations:
    rng = np.random.default_rng(seed)
    losses = np.concatenate([truth(shares, s) for s in TOKENS]) * np.exp(
        noise * rng.standard_normal((len(shares) * len(TOKENS), len(DOMAINS)))
    )
    run = np.tile(np.arange(len(shares)), len(TOKENS))
    table = pd.DataFrame(shares[run], columns=[f"p {d}" for d in DOMAINS])
    table[[f"l {t}" for t in targets]] = losses
    table = table.assign(run=run, tokens=np.repeat(TOKENS, len(shares)))
    return Observations.from_wide(
        table,
        proportions={d: f"p {d}" for d in DOMAINS},
        losses={t: f"l {t}" for t in targets},
        tokens="tokens",
        run="run",
    )


def drawn(name: str, seed: int, *, own_volumes: bool = False) -> tuple[Array, npt.NDArray[np.intp], Inputs]:
    """Return θ of several problems inside the law's bounds, their own domains, and where to evaluate them."""
    rng, model = np.random.default_rng(seed), law(name)
    own = np.array([2, 0, 1, *([] if model.traits.needs_own else [-1])], np.intp)
    mixtures, volumes = 5, 4
    x = Inputs(dirichlet(mixtures, seed), rng.normal(0, 1.5, (mixtures if own_volumes else 1, volumes)), 1e-3)
    log_loss, weight = rng.normal(1, 0.1, (len(own), mixtures, volumes)), np.ones((len(own), mixtures, volumes))
    start = model.starts(own, x, log_loss, weight)[:, 0]
    box = model.box(own, x, log_loss, weight)
    return np.clip(start + rng.normal(0, 0.2, start.shape), box.lower, box.upper), own, x


def first_volume(x: Inputs) -> Inputs:
    return replace(x, log_u=x.log_u[:, :1])


@pytest.mark.parametrize("name", BUILT_IN)
@settings(max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_the_jacobian_is_the_slope_in_every_parameter(name: str, seed: int) -> None:
    theta, own, x = drawn(name, seed, own_volumes=seed % 2 == 1)
    found = law(name).blocks(theta, own, x)

    assert found.log_loss.shape == (len(own), 5, 4)
    for position, step in enumerate(1e-5 * np.eye(theta.shape[1])):
        above, below = (law(name).blocks(theta + sign * step, own, x).log_loss for sign in (1, -1))
        assert found.jacobian()[..., position] == pytest.approx((above - below) / 2e-5, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", BUILT_IN)
@settings(max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_normal_equations_of_blocks_are_those_of_the_points(name: str, seed: int) -> None:
    theta, own, x = drawn(name, seed, own_volumes=seed % 2 == 1)
    rng = np.random.default_rng(seed)
    found = law(name).blocks(theta, own, x)
    weight = rng.uniform(0, 2, found.log_loss.shape) * (rng.random(found.log_loss.shape) < 0.7)
    rows = found.jacobian().reshape(len(own), 20, -1)
    w, residual = weight.reshape(len(own), 20, 1), found.log_loss.reshape(len(own), 20)

    gradient, hessian = normal(found, weight)

    assert gradient == pytest.approx(np.einsum("pnk,pn->pk", rows * w, residual), rel=1e-10, abs=1e-12)
    assert hessian == pytest.approx(np.swapaxes(rows * w, 1, 2) @ rows, rel=1e-10, abs=1e-12)


def moved(x: Inputs, step: np.ndarray) -> Inputs:
    return replace(x, shares=x.shares + step)


@pytest.mark.parametrize("name", BUILT_IN)
@settings(max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_the_gradient_in_the_shares_is_the_slope(name: str, seed: int) -> None:
    theta, own, x = drawn(name, seed)
    x = first_volume(x)
    found = law(name).by_share(theta, own, x)

    assert found.log_loss == pytest.approx(law(name).blocks(theta, own, x).log_loss[..., 0], rel=1e-12)
    for domain, step in enumerate(1e-6 * np.eye(len(DOMAINS))):
        above, below = (law(name).blocks(theta, own, moved(x, sign * step)).log_loss[..., 0] for sign in (1, -1))
        assert found.gradient[..., domain] == pytest.approx((above - below) / 2e-6, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", BUILT_IN)
@settings(max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_the_bend_in_the_shares_is_the_slope_of_the_slope(name: str, seed: int) -> None:
    theta, own, x = drawn(name, seed)
    x = first_volume(x)
    found = law(name).by_share(theta, own, x)
    loss = np.exp(found.log_loss)[..., None, None]
    outer = found.gradient[..., :, None] * found.gradient[..., None, :]
    bend = loss * (found.factor[..., None, None] * outer + found.diagonal[..., None] * np.eye(len(DOMAINS)))

    def slope(at: Inputs) -> np.ndarray:
        there = law(name).by_share(theta, own, at)
        return np.asarray(np.exp(there.log_loss)[..., None] * there.gradient)

    for domain, step in enumerate(1e-6 * np.eye(len(DOMAINS))):
        expected = (slope(moved(x, step)) - slope(moved(x, -step))) / 2e-6
        scale = np.abs(bend).max()
        assert bend[..., domain] == pytest.approx(expected, rel=1e-5, abs=1e-7 * scale)


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_problem_may_have_a_mixture_of_its_own(name: str) -> None:
    theta, own, x = drawn(name, 3)
    each = np.random.default_rng(0).dirichlet(np.ones(len(DOMAINS)), len(own))
    alone = law(name).by_share(theta, own, Inputs.each(each, x.log_u[0, :1], x.floor))

    for i in range(len(own)):
        one = law(name).by_share(
            theta[i : i + 1], own[i : i + 1], Inputs.rows(each[i : i + 1], x.log_u[0, :1], x.floor)
        )
        for got, expected in zip(vars(alone).values(), vars(one).values(), strict=True):
            assert got[i] == pytest.approx(expected[0], rel=1e-12)


@pytest.mark.parametrize("name", BUILT_IN)
@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e12))
def test_what_is_reported_is_the_same_law(name: str, seed: int, scale: float) -> None:
    theta, own, x = drawn(name, seed)
    model = law(name)

    for at, one in zip(theta, own.tolist(), strict=True):
        told = model.report(at, scale, one, DOMAINS)
        again = model.internal(told, scale, one, DOMAINS)

        assert tuple(told) == model.parameters(DOMAINS)
        assert model.report(again, scale, one, DOMAINS) == pytest.approx(told, rel=1e-9)
        if one >= 0:  # outside, the unit of the transfers is free
            assert again == pytest.approx(at, rel=1e-9, abs=1e-9)
        here, there = (model.blocks(v[None], np.array([one], np.intp), x).log_loss for v in (at, again))
        assert there == pytest.approx(here, rel=1e-9)


@given(seed=st.integers(0, 10**6))
def test_no_transfer_is_bimix(seed: int) -> None:
    theta, own, x = drawn("bimix", seed)
    without = np.concatenate([theta, np.zeros((len(theta), len(DOMAINS)))], -1)
    plain = law("bimix").blocks(theta, own, x).log_loss

    assert law("transfer").blocks(without, own, x).log_loss == pytest.approx(plain)


# The prior draws a shrunk law a little away from its own formula, most at mixtures in a corner.
@pytest.mark.parametrize("seed", [3, 5, 7])
@pytest.mark.parametrize(
    ("name", "runs", "mean", "worst"),
    [
        ("bimix", 12, 1e-8, 1e-7),
        ("transfer", 16, 2e-4, 4e-3),
        ("additive", 16, 5e-4, 1e-2),
        ("exponential", 12, 1e-4, 1e-3),
    ],
)
def test_each_law_predicts_new_mixtures_of_its_own_kind(
    name: str, runs: int, mean: float, worst: float, seed: int
) -> None:
    unseen = dirichlet(30, 90 + seed)

    fit = fit_law(measured(TRUTHS[name], dirichlet(runs, seed)), name)

    for tokens in (4e6, 6.4e7):
        off = np.abs(fit.predict(unseen, tokens).to_numpy(float) / TRUTHS[name](unseen, tokens) - 1)
        assert off.mean() < mean
        assert off.max() < worst


@pytest.mark.parametrize("name", FREE)
def test_targets_outside_and_shares_of_zero_are_no_trouble(name: str) -> None:
    shares = dirichlet(14, 2)
    shares[:4] = [(0, 0.5, 0.5), (1, 0, 0), (0.4, 0, 0.6), (0.7, 0.3, 0)]
    targets = ("exam", "quiz", "test")
    unseen = np.array([(0.3, 0.4, 0.3), (0, 0.2, 0.8), (0.5, 0.5, 0), (0, 1, 0)])

    fit = fit_law(measured(TRUTHS[name], shares, targets=targets), name)

    assert tuple(fit.targets) == targets
    assert not fit.notes
    assert all(fitted.outcome.usable for fitted in fit.targets.values())
    off = fit.predict(unseen, 2e7).to_numpy(float) / TRUTHS[name](unseen, 2e7) - 1
    assert np.abs(off[:3]).max() < 0.015
    assert np.abs(off).max() < 0.03
    assert np.isfinite(fit.gradient(unseen, 2e7)).all()


def test_a_target_outside_has_an_effective_share_of_all() -> None:
    shares = dirichlet(16, 6)

    fit = fit_law(measured(transfer, shares, targets=("exam", "quiz", "test")), "transfer")

    for place, fitted in enumerate(fit.targets.values()):
        found = fitted.parameters
        assert fitted.outcome.name == "CONVERGED"
        assert found["alpha"] == pytest.approx(ALPHA[place], rel=0.05)
        teaches = np.array([found[f"t[{d}]"] for d in DOMAINS])
        assert teaches / teaches[place] == pytest.approx(TAUGHT[place], abs=0.03)  # their unit is free
        effective = fit.floor + shares @ teaches
        by_hand = effective ** -found["alpha"] * (found["B"] / 2e7 ** found["beta"] + found["C"])
        assert fit.predict(shares, 2e7).to_numpy(float)[:, place] == pytest.approx(by_hand, rel=1e-12)


def test_alike_transfers_say_that_the_mixture_does_not_matter() -> None:
    flat = measured(lambda r, s: 0 * r + falling(s) + FLOOR, dirichlet(10, 6), targets=("exam", "quiz", "test"))

    fit = fit_law(flat, "transfer")

    predicted = fit.predict(np.eye(3), 2e7).to_numpy(float)
    assert predicted == pytest.approx(np.tile(falling(2e7) + FLOOR, (3, 1)), rel=1e-4)
    assert all(fitted.outcome.usable for fitted in fit.targets.values())


@pytest.mark.parametrize("targets", [DOMAINS, ("exam", "quiz", "test")])
def test_a_domain_alone_has_a_loss_that_a_model_can_have(targets: Sequence[str]) -> None:
    """Where few mixtures seem to say that a domain teaches a target nothing."""
    taught = np.array([[1.0, 0.9, 0.0], [0.0, 1.0, 0.9], [0.9, 0.0, 1.0]])
    shares = np.array(
        [(0.5, 0.5, 0), (0.3, 0.6, 0.1), (0.4, 0.4, 0.2), (0.2, 0.7, 0.1), (0.6, 0.3, 0.1), (0.1, 0.8, 0.1)]
    )
    steep = measured(lambda r, s: FLOOR + 0.3 / (r @ taught.T + 0.01) + falling(s), shares, targets=targets)

    fit = fit_law(steep, "additive")

    assert fit.predict(np.eye(3), 2e7).to_numpy(float).max() < 60


@pytest.mark.parametrize("name", FREE)
@pytest.mark.parametrize("fixed", [0.0, 0.2])
def test_a_proportion_that_never_varied_has_the_effect_of_an_average_domain(name: str, fixed: float) -> None:
    others = np.random.default_rng(8).dirichlet((2, 2), 12) * (1 - fixed)
    tried = np.column_stack([np.full(12, fixed), others])
    elsewhere = np.array([(0.05, 0.5, 0.45), (0.5, 0.25, 0.25), (0.9, 0.05, 0.05)])

    fit = fit_law(measured(lambda r, s: transfer(np.maximum(r, 1e-3), s), tried, noise=0.002), name)

    found = fit.predict(elsewhere, 2e7)["code"].to_numpy(float)
    usual = fit.predict(tried, 2e7)["code"].to_numpy(float)
    assert usual == pytest.approx(transfer(np.maximum(tried, 1e-3), 2e7)[:, 0], rel=0.01)
    assert found == pytest.approx(np.full(3, usual.mean()), rel=0.05)
    assert fit.tried("code") == pytest.approx((fixed, fixed))
    assert [note.domain for note in fit.notes if "the same in all runs" in note.reason] == ["code"]
    again = type(fit).from_dict(fit.to_dict())
    assert again.predict(elsewhere, 2e7)["code"].to_numpy(float) == pytest.approx(found)


def test_a_law_of_the_own_share_has_no_target_outside() -> None:
    with pytest.raises(ObservationsError, match=r"no loss is of a domain of the mixtures"):
        fit_law(measured(bimix, dirichlet(6, 1), targets=("exam", "quiz", "test")), "bimix")


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_share_of_zero_has_a_finite_loss_and_only_where_that_bends_the_law_a_note(name: str) -> None:
    shares = dirichlet(10, 3)
    shares[0] = (0, 0.5, 0.5)
    losses = additive  # finite at 0, as real losses are

    fit = fit_law(measured(losses, shares), name)

    assert (
        any(f"below the proportion floor, {fit.floor:g}" in note.reason for note in fit.notes)
        == law(name).traits.infinite_at_zero
    )
    assert np.isfinite(fit.predict(shares, 2e7).to_numpy(float)).all()
    assert np.isfinite(fit.gradient(shares, 2e7)).all()


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_order_of_domains_and_runs_is_no_information(name: str) -> None:
    obs = measured(TRUTHS[name], dirichlet(12, 4), noise=0.002)
    order = ["math", "code", "web"]
    turned = Observations(obs.mixtures.iloc[::-1][order], obs.losses.iloc[::-1].reset_index(drop=True))

    here, there = (fit_law(data, name).predict(Mixture.uniform(DOMAINS), 3e7) for data in (obs, turned))

    for target in DOMAINS:
        assert there[target][0] == pytest.approx(here[target][0], rel=1e-6)


@pytest.mark.parametrize(("loss_unit", "token_unit"), [(1.0, 1 / 524_288), (1 / np.log(2), 1.0)])
@pytest.mark.parametrize("name", BUILT_IN)
def test_units_change_no_prediction(name: str, loss_unit: float, token_unit: float) -> None:
    obs = measured(TRUTHS[name], dirichlet(12, 5), noise=0.002)
    changed = obs.losses.assign(loss=obs.losses["loss"] * loss_unit, tokens=obs.losses["tokens"] * token_unit)
    unseen = dirichlet(5, 98)

    here = fit_law(obs, name).predict(unseen, 5e7)
    there = fit_law(Observations(obs.mixtures, changed), name).predict(unseen, 5e7 * token_unit)

    assert there.to_numpy(float) / loss_unit == pytest.approx(here.to_numpy(float), rel=1e-5)


@pytest.mark.parametrize("source", TRUTHS)
@pytest.mark.parametrize("name", BUILT_IN)
def test_a_fitted_loss_is_convex_in_the_mixture(name: str, source: str) -> None:
    fit = fit_law(measured(TRUTHS[source], dirichlet(12, 6), noise=0.003), name)
    one, other = dirichlet(200, 7), dirichlet(200, 8)

    ends, middle = (fit.predict(part, 2e7).to_numpy(float) for part in (np.r_[one, other], (one + other) / 2))

    assert (ends[:200] + ends[200:] - 2 * middle).min() >= -1e-9


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Forget the laws found, before and after."""
    for found in (law, names):
        found.cache_clear()
    yield
    for found in (law, names):
        found.cache_clear()


@pytest.mark.usefixtures("forgotten")
def test_a_law_of_another_package_is_found_and_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(BiMix):
        name = "mine"

    asked: list[str] = []

    def points(*, group: str) -> list[Any]:
        asked.append(group)
        return [SimpleNamespace(name="mine", load=Mine, dist=None, value="mine.laws:Mine")]

    monkeypatch.setattr("importlib.metadata.entry_points", points)
    obs = measured(bimix, dirichlet(5, 1))

    fit = fit_law(obs, "mine")

    assert set(asked) == {"bimix_tracking.laws"}
    assert fit.law == "mine"
    pd.testing.assert_frame_equal(fit.predict(dirichlet(3, 9), 2e7), fit_law(obs).predict(dirichlet(3, 9), 2e7))
    with pytest.raises(ValueError, match=r"no law 'yours'; choose from .*'exponential', 'mine', 'ensemble'"):
        law("yours")

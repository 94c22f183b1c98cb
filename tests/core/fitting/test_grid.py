"""The engine: whichever arrays a sweep becomes, the fit is the same one, and a problem says how far its minimum is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bimix_tracking import Observations, fit_law
from bimix_tracking.fitting import single_law
from bimix_tracking.fitting.engine import grid as grids
from bimix_tracking.fitting.engine import problem as problems
from bimix_tracking.fitting.engine import threads
from bimix_tracking.fitting.engine.grid import grid_of
from bimix_tracking.fitting.engine.problem import FitProblem
from bimix_tracking.fitting.folds import held_out
from bimix_tracking.fitting.options import FitOptions
from bimix_tracking.laws.bimix import BiMix
from bimix_tracking.laws.protocol import Array, Blocks, Index, Inputs, Traits
from bimix_tracking.laws.registry import BUILT_IN, law

NAMES = ("a", "b", "c")
TOKENS = np.geomspace(1e9, 2e10, 5)


def swept(*, ragged: float = 0.0, runs: int = 10, short: int = 1) -> Observations:
    """Return a sweep whose runs are evaluated at volumes as far apart as `ragged` says, every other one less often."""
    rng = np.random.default_rng(3)
    shares = np.maximum(rng.dirichlet(np.full(3, 2.0), runs), 0.02)
    shares /= shares.sum(1, keepdims=True)
    rows = []
    for run, mixture in enumerate(shares):
        for tokens in TOKENS[: 5 - short * (run % 2)] * np.exp(ragged * rng.uniform(-1, 1)):
            losses = (mixture + 0.1) ** -0.2 * (1.5 + (tokens / 1e9) ** -0.4) * np.exp(0.003 * rng.standard_normal(3))
            rows.append({"run": f"r{run}", "tokens": tokens, **dict(zip(NAMES, mixture, strict=True))})
            rows[-1] |= {f"l{n}": loss for n, loss in zip(NAMES, losses, strict=True)}
    losses_of = {n: f"l{n}" for n in NAMES}
    return Observations.from_wide(pd.DataFrame(rows), proportions=NAMES, losses=losses_of, tokens="tokens", run="run")


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("ragged", [0.0, 0.1])
def test_rows_of_volumes_that_runs_share_or_have_alone_give_one_fit(
    name: str, ragged: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits, rows, held = [], [], []
    for most in (0.0, 1e9):
        monkeypatch.setattr(grids, "_SHARED", most)
        obs = swept(ragged=ragged)
        rows.append(len(grid_of(obs).log_u))
        fits.append(fit_law(obs, name, warmup=0))
        found = held_out(obs, fits[-1], np.arange(10) % 5)
        held.append(found.grid.at(found.predicted))

    assert rows == [10, 1]
    one, other = (fit.predict(np.full((1, 3), 1 / 3), 1e10).to_numpy(float) for fit in fits)
    assert other == pytest.approx(one, rel=1e-6)
    assert np.isfinite(held[0]).all()
    assert held[1] == pytest.approx(held[0], abs=1e-5)
    for target in NAMES:
        mine, theirs = (fit.targets[target] for fit in fits)
        assert (mine.points, mine.runs, mine.tokens) == (theirs.points, theirs.runs, theirs.tokens)


def test_volumes_of_a_short_run_are_filled_up_and_dont_count() -> None:
    grid = grid_of(swept(ragged=0.1))

    assert grid.log_u.shape == (10, 5)
    assert (np.diff(grid.log_u, axis=1) >= 0).all()
    assert (grid.weight[:, 1::2, 4] == 0).all()
    assert (grid.weight > 0).sum() == 3 * (10 * 5 - 5)
    assert len(grid.run) == 45
    assert grid.scale * np.exp(grid.at_u.mean()) == pytest.approx(grid.scale)


def test_the_same_observations_become_arrays_once(monkeypatch: pytest.MonkeyPatch) -> None:
    obs = swept()
    built: list[Observations] = []
    whole = grids._built

    def watched(obs: Observations) -> grids.Grid:
        built.append(obs)
        return whole(obs)

    monkeypatch.setattr(grids, "_built", watched)
    for name in BUILT_IN:
        fit_law(obs, name)

    assert len(built) == 1


class OfPoints(BiMix):
    """BiMix that gives its derivatives at single points."""

    traits: Traits = replace(BiMix.traits, separable=False)

    def blocks(self, theta: Array, own: Index, x: Inputs) -> Blocks:
        assert x.log_u.shape == (len(x.shares), 1), "one volume a mixture is what it was promised"
        found = super().blocks(theta, own, x)
        return Blocks(found.log_loss, None, np.empty((len(theta), 1, 1, 0)), found.jacobian()[:, :, 0])


def test_a_law_that_is_not_made_of_blocks_is_fitted_at_points(monkeypatch: pytest.MonkeyPatch) -> None:
    obs = swept()
    as_blocks = fit_law(obs, "bimix")
    monkeypatch.setattr(single_law, "find_law", lambda _: OfPoints())

    as_points = fit_law(obs, "bimix")

    for target in NAMES:
        expected = dict(as_blocks.targets[target].parameters)
        assert dict(as_points.targets[target].parameters) == pytest.approx(expected, rel=1e-5)
        errors = dict(as_blocks.targets[target].standard_errors)
        assert dict(as_points.targets[target].standard_errors) == pytest.approx(errors, rel=1e-4)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_run_that_counts_twice_is_a_run_made_twice(name: str) -> None:
    obs = swept(short=0)
    fit = fit_law(obs, name, warmup=0)
    weights = np.ones((1, 10))
    weights[0, 3] = 2.0
    again = obs.losses[obs.losses["run"] == "r3"].assign(run="r3 again")
    twice = Observations(
        pd.concat([obs.mixtures, obs.mixtures.loc[["r3"]].rename(index={"r3": "r3 again"})]),
        pd.concat([obs.losses, again], ignore_index=True),
    )

    theta = single_law.refit(obs, fit, weights)[0]
    theta_of_twice = single_law.refit(twice, fit, np.ones((1, 11)))[0]

    # s₀ and the mean weight of a run are the same, and so are the two problems.
    problem = FitProblem.of(obs, law(name), FitOptions(warmup=0.0))
    expected = problem.predict(theta_of_twice, np.arange(3))
    assert np.abs(problem.predict(theta, np.arange(3)) - expected).max() < 1e-5
    moved = np.abs(
        problem.predict(np.stack([at for at in map(fit.theta, NAMES) if at is not None]), np.arange(3)) - expected
    )
    assert moved.max() > 1e-4, "a run that counts twice moves the fit"


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_gradient_is_the_slope_of_the_cost_and_the_offset_is_small_at_the_fit_only(name: str) -> None:
    obs = swept()
    fit, problem = fit_law(obs, name, warmup=0), FitProblem.of(obs, law(name), FitOptions(warmup=0.0))
    which = np.arange(3)
    theta = np.stack([at for at in map(fit.theta, NAMES) if at is not None])
    aside = np.clip(theta + 0.02, problem.box.lower, problem.box.upper)

    cost, gradient, offset = problem.cost_at(theta, which)
    _, slope, far = problem.cost_at(aside, which)

    assert (offset < 0.01).all()
    assert (far > 10 * offset).all()
    for k, step in enumerate(1e-6 * np.eye(theta.shape[1])):
        ahead, behind = (problem.cost_at(aside + sign * step, which)[0] for sign in (1, -1))
        inner = (aside[:, k] - 1e-6 > problem.box.lower[:, k]) & (aside[:, k] + 1e-6 < problem.box.upper[:, k])
        difference = (ahead - behind) / 2e-6
        assert slope[inner, k] == pytest.approx(difference[inner], rel=1e-4, abs=1e-6)
    assert (cost > 0).all()
    assert gradient.shape == theta.shape


def test_two_threads_find_what_one_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "_BATCH", 500)  # several batches
    found = []
    for count in (1, 2):
        monkeypatch.setattr(threads, "workers", lambda count=count: count)
        obs = swept()
        fit = fit_law(obs, "additive")
        weights = np.random.default_rng(0).multinomial(10, np.full(10, 0.1), 20).astype(float)
        found.append(single_law.refit(obs, fit, weights))

    assert np.array_equal(found[0], found[1], equal_nan=True)


def test_an_error_in_a_thread_ends_the_work_that_has_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "workers", lambda: 2)
    begun = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 0:
            raise ValueError("no")
        return number

    with pytest.raises(ValueError, match="no"):
        threads.in_threads(work, range(100_000))

    assert len(begun) < 100_000


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", BUILT_IN)
def test_what_is_said_to_have_arrived_has_no_way_down_inside_its_box(name: str, seed: int) -> None:
    """Losses without a floor: steps lead far out of the box, and what is put on its side there may lead up."""
    rng = np.random.default_rng(seed)
    mixtures = np.array([[1, 1, 1], [4, 1, 1], [1, 4, 1], [1, 1, 4], [1, 2, 3], [3, 2, 1], [1, 1, 1], [2, 5, 1]]) / 8
    mixtures /= mixtures.sum(1, keepdims=True)
    run, checkpoint = np.divmod(np.arange(8 * 9), 9)
    tokens = 1e5 * 1.35**checkpoint
    losses = (mixtures[run] + 0.02) ** -0.12 * 9 * tokens[:, None] ** -0.11
    losses *= np.exp(0.01 * rng.standard_normal((8, 3))[run] + 0.004 * rng.standard_normal(losses.shape))
    table = pd.DataFrame(mixtures[run], columns=NAMES).assign(run=run, tokens=tokens)
    table[[f"l{n}" for n in NAMES]] = losses
    obs = Observations.from_wide(
        table, proportions=NAMES, losses={n: f"l{n}" for n in NAMES}, tokens="tokens", run="run"
    )
    problem = FitProblem.of(obs, law(name), FitOptions(warmup=0.0))
    grid, box = problem.grid, problem.box
    starts = problem.law.starts(grid.own, grid.inputs(1e-3), grid.log_loss, grid.weight)
    which = np.repeat(np.arange(3), starts.shape[1])

    found = problem.solve(which, starts.reshape(len(which), -1), np.ones((len(which), starts.shape[2]), bool))

    assert (found.offset < 1e-3).mean() > 0.9
    for theta, target, offset in zip(found.theta, which, found.offset, strict=True):
        cost, gradient, _ = problem.cost_at(theta[None], np.array([target]))
        curvature = problem.by_run(theta, int(target))[1].sum(0).diagonal() + problem.prior.precision[target].diagonal()
        low, high = theta <= box.lower[target] + 1e-9, theta >= box.upper[target] - 1e-9
        free = ~(low & (gradient[0] > 0)) & ~(high & (gradient[0] < 0)) & (box.lower[target] < box.upper[target])
        noise = 2 * cost[0] / (grid.weight[target] > 0).sum()
        # What one parameter alone could still win, in the units of the offset.
        alone = np.abs(gradient[0]) / np.sqrt(np.maximum(curvature, 1e-12) * noise)
        assert (alone[free] < 0.05).all() or offset > 1e-3

"""Which mixtures are held out together: repeats and near-twins, whatever runs and domains are called."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from bimix_tracking import LawFit, Observations, cross_validate, fit_law, select_law
from bimix_tracking.fitting.folds import divide, floors, smallest_training, twins
from bimix_tracking.fitting.options import FLOORS, USUAL, FitOptions, ZeroShare

Array = npt.NDArray[np.float64]
MakeSweep = Callable[..., Observations]
LAWS = {"code": (0.06, 0.3, 70.0, 1.6), "web": (0.12, 0.5, 1500.0, 2.4), "math": (0.2, 0.7, 27000.0, 1.9)}


def twinned(mixtures: int, times: int, *, near: float = 0.01, domains: int = 3, seed: int = 0) -> Array:
    """Return mixtures, each so many times, with every proportion scattered by 1 %."""
    rng = np.random.default_rng(seed)
    shares = np.repeat(rng.dirichlet(np.full(domains, 2.0), mixtures), times, axis=0)
    shares *= np.exp(near * rng.standard_normal(shares.shape))
    return np.asarray(shares / shares.sum(1, keepdims=True))


def renamed(obs: Observations, seed: int) -> tuple[Observations, list[str]]:
    """Return the sweep with runs and domains renamed and in another order, and the new name of each old run."""
    rng = np.random.default_rng(seed)
    runs = [f"r{n}" for n in rng.permutation(len(obs.runs))]
    domains = [f"d{n}" for n in rng.permutation(len(obs.domains))]
    run, domain = dict(zip(obs.runs, runs, strict=True)), dict(zip(obs.domains, domains, strict=True))
    mixtures = obs.mixtures.rename(index=run, columns=domain).sort_index().sort_index(axis=1)
    losses = obs.losses.assign(run=obs.losses["run"].map(run), domain=obs.losses["domain"].map(domain))
    return Observations(mixtures, losses.sort_values(["run", "tokens", "domain"]).reset_index(drop=True)), runs


@pytest.mark.parametrize("seed", range(5))
def test_folds_go_by_what_mixtures_are_not_by_names_or_order(sweep: MakeSweep, seed: int) -> None:
    obs = sweep(LAWS, runs=17, noise=0.01, seed=seed)
    fold = dict(zip(obs.runs, divide(obs, 5, seed).tolist(), strict=True))

    other, runs = renamed(obs, seed)

    again = dict(zip(other.runs, divide(other, 5, seed).tolist(), strict=True))
    assert [again[new] for new in runs] == [fold[old] for old in obs.runs]
    assert divide(obs, 5, seed + 1).tolist() != list(fold.values())


def test_mixtures_that_differ_by_names_only_are_told_apart_by_their_losses(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, mixtures=[(0.6, 0.2, 0.2), (0.2, 0.6, 0.2), (0.2, 0.2, 0.6), (0.5, 0.3, 0.2), (0.3, 0.2, 0.5)])
    fold = dict(zip(obs.runs, divide(obs, 5, 1).tolist(), strict=True))

    for seed in range(5):
        other, runs = renamed(obs, seed)
        again = dict(zip(other.runs, divide(other, 5, 1).tolist(), strict=True))
        assert [again[new] for new in runs] == [fold[old] for old in obs.runs]


@pytest.mark.parametrize("times", [2, 3, 4])
def test_near_twins_are_held_out_together(sweep: MakeSweep, times: int) -> None:
    obs = sweep(LAWS, mixtures=twinned(10, times), noise=0.01)

    fold = divide(obs, 5, 0).reshape(10, times)

    assert (fold == fold[:, :1]).all()
    assert np.bincount(fold[:, 0]).tolist() == [2] * 5
    assert smallest_training(obs, fold.reshape(-1)) == 8 * times


def test_an_error_told_by_twins_is_the_error_on_new_mixtures(sweep: MakeSweep) -> None:
    # Losses of another law, to which this one bends as far as its parameters let it: to the twin of what is held out.
    shares, unseen = twinned(10, 2, near=0.003), twinned(40, 1, near=0, seed=8)
    losses = {"a": (0.3, 0.5, 60.0, 0.4), "b": (0.25, 0.5, 90.0, 0.5), "c": (0.2, 0.4, 30.0, 0.6)}
    obs, new = sweep(losses, mixtures=shares), sweep(losses, mixtures=unseen)
    fit = fit_law(obs, "exponential")
    predicted = fit.predict(new.mixtures.reindex(new.losses["run"]).to_numpy(float), new.losses["tokens"].to_numpy())
    place = [list(fit.targets).index(d) for d in new.losses["domain"]]
    true = np.abs(predicted.to_numpy()[np.arange(len(place)), place] / new.losses["loss"] - 1).mean()

    said = cross_validate(obs, "exponential", folds=10).mean_error

    assert said == pytest.approx(true, rel=0.35)


def test_a_dense_part_of_a_sweep_is_no_set_of_twins(sweep: MakeSweep) -> None:
    rng = np.random.default_rng(0)
    dense, far = rng.dirichlet([60.0, 60.0, 60.0], 20), np.array([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05]])

    mixture, twin = twins(sweep(LAWS, mixtures=np.concatenate([dense, far])))

    assert mixture.max() + 1 == 22
    assert twin.max() + 1 >= 19


@pytest.mark.parametrize("runs", [3, 5, 24, 60])
def test_an_ordinary_sweep_has_hardly_any_twins_and_always_three_groups(sweep: MakeSweep, runs: int) -> None:
    for seed in range(6):
        _, twin = twins(sweep(LAWS, runs=runs, seed=seed))
        assert max(3, 0.8 * runs) <= twin.max() + 1 <= runs
        _, few = twins(sweep({d: LAWS[d] for d in ("code", "web")}, runs=runs, seed=seed))
        assert few.max() + 1 >= 3


def test_folds_are_of_about_as_many_mixtures(sweep: MakeSweep) -> None:
    shares = np.concatenate([twinned(1, 4), twinned(17, 1, seed=3), twinned(1, 3, seed=5)])
    obs = sweep(LAWS, mixtures=shares)

    sizes = np.bincount(divide(obs, 6, 2))

    assert sizes.sum() == 24
    assert sizes.tolist() == pytest.approx([4] * 6, abs=1)
    assert pd.Series(divide(obs, 6, 2)).nunique() == 6


def sparse(floor: float, *, runs: int = 24, seed: int = 0) -> Observations:
    """Return a sweep with many proportions of 0, of losses that a proportion below the floor doesn't raise further."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(3, 0.8), runs)
    shares[np.arange(runs), rng.integers(0, 6, runs) % 3] *= rng.random(runs) > 0.6
    shares /= shares.sum(1, keepdims=True)
    rows = [
        {"run": f"run-{i}", "tokens": s}
        | {f"p {d}": r for d, r in zip(LAWS, mixture, strict=True)}
        | {
            f"l {d}": max(r, floor) ** -alpha * (b / s**beta + c) * np.exp(0.003 * rng.standard_normal())
            for (d, (alpha, beta, b, c)), r in zip(LAWS.items(), mixture, strict=True)
        }
        for i, mixture in enumerate(shares)
        for s in (1e6, 4e6, 1.6e7)
    ]
    shares_of, losses_of = {d: f"p {d}" for d in LAWS}, {d: f"l {d}" for d in LAWS}
    return Observations.from_wide(
        pd.DataFrame(rows), proportions=shares_of, losses=losses_of, tokens="tokens", run="run"
    )


@pytest.mark.parametrize("floor", FLOORS)
def test_the_floor_is_the_one_that_predicts_held_out_mixtures_best(floor: float) -> None:
    obs = sparse(floor)
    assert (obs.mixtures.to_numpy() < 1e-3).mean() > 0.1

    fit = fit_law(obs)

    assert fit.zero_share == floor
    assert fit.targets["math"].parameters["alpha"] == pytest.approx(LAWS["math"][0], rel=0.02)
    assert LawFit.from_dict(json.loads(json.dumps(fit.to_dict()))).floor == floor
    found = select_law(obs)
    assert {name: found.fits[name].floor for name in ("bimix", "transfer")} == {"bimix": floor, "transfer": floor}
    assert found.fits["ensemble"].floor == min(member.floor for member in found.fits["ensemble"].members.values())


def test_a_floor_that_is_given_or_refused_is_not_chosen() -> None:
    obs = sparse(1e-4)

    assert fit_law(obs, zero_share=1e-3).zero_share == 1e-3
    none = fit_law(obs, zero_share=None)
    assert none.zero_share is None
    assert none.targets["code"].runs < 24
    with pytest.raises(ValueError, match=r"zero_share must be a number, None or 'chosen', got 'best'"):
        fit_law(obs, zero_share="best")  # type: ignore[arg-type]  # what is refused


def test_floors_are_tried_as_far_as_they_differ(sweep: MakeSweep) -> None:
    def tried(*mixtures: tuple[float, ...], law: str = "bimix", told: FitOptions = USUAL) -> tuple[ZeroShare, ...]:
        return floors(sweep(LAWS, mixtures=[(0.3, 0.3, 0.4), *mixtures]), law, told)

    assert tried((0.5, 0.001, 0.499)) == (1e-3,)
    assert tried((0.5, 5e-4, 0.4995)) == (1e-3, 1e-4)
    assert tried((0.5, 1e-7, 0.4999999)) == (1e-3, 1e-4, 1e-5)
    assert tried((0.5, 1e-7, 0.4999999), law="additive") == ("chosen",)  # finite at 0
    assert tried((0.5, 1e-7, 0.4999999), told=FitOptions(zero_share=0.01)) == (0.01,)


def test_with_two_mixtures_the_usual_floor_holds(sweep: MakeSweep) -> None:
    assert fit_law(sweep(LAWS, mixtures=[(0.5, 1e-7, 0.4999999), (0.3, 0.3, 0.4)])).zero_share == 1e-3

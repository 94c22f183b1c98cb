"""The choice of the law: on sweeps of known laws, with few mixtures, as a stack, beyond the tokens, after a warm-up."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from bimix_tracking import LawFit, Observations, fit_law, quantities
from bimix_tracking.errors import ObservationsError
from bimix_tracking.fitting.ensemble import fit_ensemble
from bimix_tracking.fitting.folds import HeldOut, divide, held_out
from bimix_tracking.fitting.levels import level_at
from bimix_tracking.fitting.warmup import find_warmup
from bimix_tracking.fitting.weighing import stack_weights
from bimix_tracking.laws.registry import BUILT_IN, law
from bimix_tracking.quantities import percent
from bimix_tracking.selection.cross_validation import Validation
from bimix_tracking.selection.extrapolation import extrapolate
from bimix_tracking.selection.law_choice import Selection, _chosen, select_law
from bimix_tracking.selection.repeats import NoiseFloor, noise_floor

Array = npt.NDArray[np.float64]
MakeSweep = Callable[..., Observations]
LAWS = {"code": (0.06, 0.3, 70.0, 1.6), "web": (0.12, 0.5, 1500.0, 2.4), "math": (0.2, 0.7, 27000.0, 1.9)}
TOKENS = tuple(np.geomspace(1e6, 6.4e7, 8).tolist())
UNSEEN = np.random.default_rng(99).dirichlet([3.0, 3.0, 3.0], 6)


def additive_sweep(
    runs: int, *, noise: float = 0.0, seed: int = 0, targets: Sequence[str] = tuple(LAWS)
) -> Observations:
    """Return a sweep of L = E + 1 / Σ C_j r_j^γ_j + B / s^β, in which every domain teaches the others."""
    rng = np.random.default_rng(seed)
    shares = np.maximum(rng.dirichlet(np.full(3, 2.0), runs), 0.02)
    shares /= shares.sum(1, keepdims=True)
    strength = np.array([[1.5, 0.6, 0.2], [0.5, 1.5, 0.1], [0.9, 0.4, 1.5]])
    rows = []
    for i, mixture in enumerate(shares):
        of_mixture = 1 / (strength * mixture**0.7).sum(-1)
        for s in TOKENS:
            loss = 1.8 + of_mixture + 0.5 * (s / 8e6) ** -0.5
            loss *= np.exp(noise * rng.standard_normal(3))
            rows.append(
                {"run": f"run-{i}", "tokens": s}
                | {f"p {d}": r for d, r in zip(LAWS, mixture, strict=True)}
                | {f"l {t}": value for t, value in zip(targets, loss, strict=True)}
            )
    shares_of, losses_of = {d: f"p {d}" for d in LAWS}, {t: f"l {t}" for t in targets}
    return Observations.from_wide(
        pd.DataFrame(rows), proportions=shares_of, losses=losses_of, tokens="tokens", run="run"
    )


@pytest.fixture(scope="module")
def chosen() -> Selection:
    """Return the selection on a noisy sweep that is not BiMix's."""
    return select_law(additive_sweep(14, noise=0.003))


@pytest.mark.parametrize("noise", [0.0, 0.002, 0.01])
@pytest.mark.parametrize("runs", [8, 14])
def test_on_a_bimix_sweep_nothing_worse_than_bimix_is_chosen(sweep: MakeSweep, runs: int, noise: float) -> None:
    found = select_law(sweep(LAWS, runs=runs, tokens=TOKENS, noise=noise, seed=runs))

    assert found.validation is not None
    error = {name: validation.mean_error for name, validation in found.validations.items()}
    assert found.fit.law == "bimix" or error[found.fit.law] <= 1.1 * error["bimix"]
    assert found.validation is found.validations[found.fit.law]


@pytest.mark.parametrize("noise", [0.0, 0.003])
@pytest.mark.parametrize("runs", [12, 20])
def test_where_other_domains_teach_bimix_is_not_chosen(runs: int, noise: float) -> None:
    found = select_law(additive_sweep(runs, noise=noise, seed=runs))

    assert found.fit.law != "bimix"
    assert found.validation is not None
    assert found.validation.mean_error < 0.6 * found.validations["bimix"].mean_error


def test_laws_that_need_more_mixtures_are_no_candidates(sweep: MakeSweep) -> None:
    found = select_law(sweep(LAWS, runs=4, tokens=TOKENS))

    assert set(found.excluded) == {"transfer", "additive", "exponential", "ensemble"}
    assert found.excluded["additive"] == "it needs 5 mixtures; holding a fold out leaves 3"
    assert found.excluded["ensemble"] == "no second law to stack"
    notes = found.scores.set_index("law")["note"]
    assert notes["exponential"] == found.excluded["exponential"]
    assert np.isnan(found.scores.set_index("law")["error"]["exponential"])
    assert "additive is not eligible: it needs 5 mixtures" in found.sentences()


def held_out_by(name: str, errors: Sequence[float]) -> Validation:
    """Return held-out predictions of one domain with these relative errors, a mixture each."""
    observed = np.full((1, len(errors), 1), 2.0)
    return Validation(
        law=name,
        folds=len(errors),
        domains=("code",),
        runs=tuple(f"run-{i}" for i in range(len(errors))),
        tokens=np.full((len(errors), 1), 1e6),
        observed=observed,
        predicted=observed * (1 + np.array(errors)[None, :, None]),
        baseline=observed * 1.05,
        weights={"code": 1.0},
        mixtures={f"run-{i}": i for i in range(len(errors))},
    )


@pytest.mark.parametrize(
    ("law", "errors", "said"),
    [
        # Differences of the four mixtures: mean ± standard error, by hand.
        ("bimix", {"bimix": (1, 1, 1, 1)}, "bimix: the only eligible law, with a held-out error of 1.00 %."),
        (
            "ensemble",  # additive − ensemble: −0.4, 0.4, −0.4, 0.2: −0.05 ± 0.21
            {"bimix": (2, 2, 2, 2), "additive": (0.6, 1.4, 0.6, 1.2), "ensemble": (1, 1, 1, 1)},
            "ensemble: held-out error 1.00 %. additive is better by {less} (0.05 ± 0.21 points): the ensemble is kept.",
        ),
        (
            "additive",  # ensemble − additive: 0.4, 0.6, 0.4, 0.6: 0.50 ± 0.06
            {"bimix": (2, 2, 2, 2), "additive": (0.6, 0.4, 0.6, 0.4), "ensemble": (1, 1, 1, 1)},
            "additive: held-out error 0.50 %, lower than the ensemble's by {more} (0.50 ± 0.06 points).",
        ),
        (
            "bimix",  # additive − bimix: −0.4, 0.4, −0.4, 0.2: −0.05 ± 0.21
            {"bimix": (1, 1, 1, 1), "additive": (0.6, 1.4, 0.6, 1.2)},
            "bimix: held-out error 1.00 %. additive is better by {less} (0.05 ± 0.21 points): the simpler law is kept.",
        ),
        (
            "ensemble",  # bimix − ensemble: 0.1, 0.3, 0.1, 0.3: 0.20 ± 0.06
            {"bimix": (0.6, 0.8, 0.6, 0.8), "additive": (3, 3, 3, 3), "ensemble": (0.5, 0.5, 0.5, 0.5)},
            "ensemble: the lowest held-out error, 0.50 %; bimix is next (0.20 ± 0.06 points more).",
        ),
    ],
)
def test_the_rule_that_chose_the_law_is_said_with_its_figures(
    chosen: Selection, law: str, errors: dict[str, tuple[float, ...]], said: str
) -> None:
    held = {name: held_out_by(name, [each / 100 for each in of]) for name, of in errors.items()}

    assert _chosen(held, {"code": 1.0}) == law
    found = Selection(replace(chosen.fit, law=law), held[law], chosen.fits, held, {}, None)
    assert found.sentences() == said.format(less="less than one standard error", more="more than one standard error")


def test_a_law_that_is_not_eligible_is_not_compared(chosen: Selection) -> None:
    held = {"bimix": held_out_by("bimix", [0.01] * 4), "additive": held_out_by("additive", [0.001] * 4)}

    found = Selection(replace(chosen.fit, law="bimix"), held["bimix"], chosen.fits, held, {}, None, {"additive": "no"})

    assert found.sentences() == (
        "bimix: the only eligible law, with a held-out error of 1.00 %. additive is not eligible: no."
    )


def test_two_mixtures_are_fitted_and_not_compared(sweep: MakeSweep) -> None:
    found = select_law(sweep(LAWS, mixtures=[(0.2, 0.3, 0.5), (0.5, 0.3, 0.2)], tokens=TOKENS))

    assert found.fit.law == "bimix"
    assert found.validation is None
    assert found.sentences().startswith("bimix, without a comparison: too few mixtures to hold any out.")
    assert found.scores.set_index("law").loc["bimix", "chosen"]
    assert json.loads(json.dumps(found.to_dict()))["chosen"] == "bimix"


def test_no_law_at_all_is_an_error_that_says_why() -> None:
    obs = additive_sweep(6, targets=("exam", "quiz", "test"))

    with pytest.raises(ObservationsError, match=r"no law can be fitted: bimix: no loss is of a domain"):
        select_law(obs, ["bimix"])
    with pytest.raises(ValueError, match=r"no law 'regmix'"):
        select_law(obs, ["regmix"])


def test_targets_outside_are_for_the_laws_that_can_have_them() -> None:
    found = select_law(additive_sweep(8, targets=("exam", "quiz", "test")))

    assert set(found.fits) >= {"transfer", "additive", "exponential"}
    assert "bimix" in found.excluded
    assert set(found.fit.targets) == {"exam", "quiz", "test"}


def test_the_scores_say_what_each_law_did(chosen: Selection) -> None:
    scores = chosen.scores

    columns = ["law", "error", "above_best", "standard_error", "rank_correlation", "chosen", "note"]
    assert list(scores.columns) == columns
    assert list(scores["law"]) == [*BUILT_IN, "ensemble", "mean"]
    assert list(scores["law"][scores["chosen"]]) == [chosen.fit.law]
    by_law = scores.set_index("law")
    for name, validation in chosen.validations.items():
        assert by_law["error"][name] == pytest.approx(validation.mean_error)
    assert by_law["above_best"].min() == 0
    best = by_law["above_best"].idxmin()
    off = chosen.validations["bimix"].by_mixture - chosen.validations[str(best)].by_mixture
    assert by_law["above_best"]["bimix"] == pytest.approx(off.mean())
    assert by_law["standard_error"]["bimix"] == pytest.approx(off.std() / np.sqrt(len(off)))
    assert len(off) == 13  # of 14 mixtures two are twins


def test_the_selection_goes_to_json(chosen: Selection) -> None:
    content = json.loads(json.dumps(chosen.to_dict(), allow_nan=False))

    assert content["chosen"] == chosen.fit.law
    assert content["noise_floor"] is None
    assert content["why"].startswith(f"{chosen.fit.law}: ")
    assert [row["law"] for row in content["scores"]][-1] == "mean"


def test_an_ensemble_is_the_weighted_sum_of_its_laws(chosen: Selection) -> None:
    fit = chosen.fits["ensemble"]

    for tokens in (TOKENS[3], 1.3e7, 1e9):
        predicted = fit.predict(UNSEEN, tokens)
        for target, fitted in fit.targets.items():
            parts = [w * fit.members[name].predict(UNSEEN, tokens)[target] for name, w in fitted.parameters.items()]
            level = level_at(fit.levels[target], np.array([tokens]))[0]
            expected = np.exp(level) * np.sum(parts, axis=0)
            assert predicted[target].to_numpy(float) == pytest.approx(expected)


def test_an_ensemble_goes_through_json(chosen: Selection) -> None:
    fit = chosen.fits["ensemble"]

    again = LawFit.from_dict(json.loads(json.dumps(fit.to_dict(), allow_nan=False)))

    for tokens in (TOKENS[3], 1e9):
        pd.testing.assert_frame_equal(again.predict(UNSEEN, tokens), fit.predict(UNSEEN, tokens))
    assert again.levels == fit.levels


@pytest.mark.parametrize("name", [*BUILT_IN, "ensemble"])
def test_the_gradient_is_the_slope_of_the_prediction(chosen: Selection, name: str) -> None:
    fit = chosen.fits[name]
    gradient = fit.gradient(UNSEEN, TOKENS[4])

    for domain, step in enumerate(1e-6 * np.eye(3)):
        above, below = (fit.predict(UNSEEN + sign * step, TOKENS[4]).to_numpy(float) for sign in (1, -1))
        assert gradient[:, :, domain] == pytest.approx((above - below) / 2e-6, rel=1e-5, abs=1e-7)


def test_the_weights_of_a_stack_are_a_mean_s(chosen: Selection) -> None:
    for fitted in chosen.fits["ensemble"].targets.values():
        weights = np.array(list(fitted.parameters.values()))
        assert (weights >= 0).all()
        assert weights.sum() == pytest.approx(1, abs=1e-12)


def test_of_laws_that_say_the_same_the_simplest_is_taken(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, tokens=TOKENS, noise=0.003)
    fold = divide(obs, 8, 0)
    one = held_out(obs, fit_law(obs), fold)

    weights = stack_weights({"bimix": one, "transfer": one, "additive": one}, 0.01)

    for by_law in weights.values():
        assert by_law["bimix"] > 0.99


def test_a_law_that_alone_is_right_gets_the_weight() -> None:
    fit = fit_ensemble(additive_sweep(16))

    for fitted in fit.targets.values():
        assert fitted.parameters["bimix"] + fitted.parameters["transfer"] < 0.2


def off_by(held: HeldOut, errors: Array) -> HeldOut:
    """Return predictions that are off by errors of log loss, (targets, runs), the same at each point of a run."""
    return replace(held, predicted=held.grid.log_loss + errors[:, :, None])


def test_a_law_that_is_far_off_everywhere_is_out_whatever_delta_is(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, runs=20, tokens=TOKENS)
    held = held_out(obs, fit_law(obs), divide(obs, 10, 0))
    rng = np.random.default_rng(3)
    right, wrong = 0.02 * rng.standard_normal((3, 20)), 0.15 * rng.standard_normal((3, 20))

    weights = stack_weights({"bimix": off_by(held, wrong), "additive": off_by(held, right)}, 0.01)

    # Inverse variances would give it 1.7 %, and as much again comes from leaning to the simplest.
    for by_law in weights.values():
        assert by_law["bimix"] < 0.05


def test_one_wild_run_does_not_choose_the_law(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, runs=20, tokens=TOKENS)
    held = held_out(obs, fit_law(obs), divide(obs, 10, 0))
    rng = np.random.default_rng(4)
    right, wrong = 0.003 * rng.standard_normal((3, 20)), 0.02 * rng.standard_normal((3, 20))
    right[:, 7], wrong[:, 7] = 0.3, 0.1  # all laws miss it, the wrong one by less

    weights = stack_weights({"bimix": off_by(held, wrong), "additive": off_by(held, right)}, 0.01)

    for by_law in weights.values():
        assert by_law["additive"] > 0.8


def test_what_all_runs_have_at_one_checkpoint_is_a_level(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, runs=12, tokens=TOKENS, noise=0.001)
    raised = obs.losses.assign(loss=obs.losses["loss"] * np.where(obs.losses["tokens"] == TOKENS[5], 1.02, 1.0))

    fit = fit_ensemble(Observations(obs.mixtures, raised))

    for levels in fit.levels.values():
        assert dict(levels)[TOKENS[5]] == pytest.approx(0.02, abs=0.005)
        assert abs(dict(levels)[TOKENS[3]]) < 0.006


def test_a_level_fades_beyond_the_last_checkpoint_instead_of_jumping(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, runs=12, tokens=TOKENS, noise=0.001)
    raised = obs.losses.assign(loss=obs.losses["loss"] * np.where(obs.losses["tokens"] == TOKENS[-1], 1.02, 1.0))
    fit = fit_ensemble(Observations(obs.mixtures, raised))
    step = TOKENS[-1] / TOKENS[-2]

    at = TOKENS[-1] * step ** np.array([0.0, 0.01, 0.5, 1.0, 2.0])
    level = np.array([level_at(fit.levels[target], at) for target in LAWS])

    last = np.array([fit.levels[target][-1][1] for target in LAWS])
    assert (last > 0.005).all()
    assert level == pytest.approx(last[:, None] * [1, 0.99, 0.5, 0, 0], abs=1e-9)


def test_the_noise_floor_is_that_of_repeated_mixtures(sweep: MakeSweep) -> None:
    mixtures = [(0.2, 0.3, 0.5), (0.5, 0.3, 0.2), (0.2, 0.3, 0.5), (0.3, 0.6, 0.1)]
    obs = sweep(LAWS, mixtures=mixtures, tokens=TOKENS, noise=0.01)
    table = obs.losses.set_index(["run", "tokens", "domain"])["loss"]
    between = np.log(table["run-0"] / table["run-2"]).to_numpy(float)

    found = noise_floor(obs)

    assert found is not None
    assert found.error == pytest.approx(np.sqrt(2 / np.pi) * np.sqrt((between**2 / 2).mean()))
    assert noise_floor(sweep(LAWS, noise=0.01)) is None
    chosen = select_law(obs)
    assert f"Noise floor {100 * found.error:.2f} %, from a single pair of repeated runs: a rough" in chosen.sentences()
    assert json.loads(json.dumps(chosen.to_dict()))["noise_floor"] == {
        "error": found.error,
        "repeats": 1,
        "interval": list(found.interval),
    }


def test_the_noise_floor_s_interval_holds_it_in_nine_of_ten_sweeps() -> None:
    rng = np.random.default_rng(0)
    for repeats in (1, 4):
        # σ̂² of ν runs beyond their mixtures' first: checkpoints of a run share what went well in it.
        drawn = [NoiseFloor(e, repeats) for e in np.sqrt((rng.standard_normal((2000, repeats)) ** 2).mean(1))]
        held = np.mean([low <= 1 <= high for low, high in (one.interval for one in drawn)])
        assert held == pytest.approx(0.9, abs=0.03)


def test_repeats_of_runs_are_counted_not_their_checkpoints(sweep: MakeSweep) -> None:
    mixtures = [(0.2, 0.3, 0.5)] * 3 + [(0.5, 0.3, 0.2)] * 2 + [(0.3, 0.6, 0.1)]

    found = noise_floor(sweep(LAWS, mixtures=mixtures, tokens=TOKENS, noise=0.01))

    assert found is not None
    assert found.repeats == 3
    assert f"Noise floor {100 * found.error:.2f} %, from 3 repeats (90 % interval" in found.sentence()


def test_a_right_law_sees_beyond_its_tokens(sweep: MakeSweep) -> None:
    found = extrapolate(sweep(LAWS, tokens=TOKENS))

    assert found.at == TOKENS[-1]
    assert found.until == pytest.approx(TOKENS[-2])
    assert found.mean_error < 1e-5
    assert found.mean_carried_error > 0.005
    at = quantities.tokens(found.at)
    assert found.sentences() == (
        f"Fitted up to {quantities.tokens(found.until)} tokens, the law predicts losses at {at} with an error of "
        f"{percent(found.mean_error)}; the last loss carried forward, {percent(found.mean_carried_error)}."
    )
    assert json.loads(json.dumps(found.to_dict()))["mean_error"] == found.mean_error


def test_a_law_that_ends_is_not_to_be_carried_on(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, tokens=TOKENS)
    # A curve that falls as a power law, and then stops.
    stopped = obs.losses.copy()
    last_fall = stopped[stopped["tokens"] == TOKENS[4]].set_index(["run", "domain"])["loss"]
    late = stopped["tokens"] > TOKENS[4]
    stopped.loc[late, "loss"] = last_fall.loc[
        list(zip(stopped["run"][late], stopped["domain"][late], strict=True))
    ].to_numpy(float)

    found = extrapolate(Observations(obs.mixtures, stopped), fraction=0.2)

    assert found.mean_error > found.mean_carried_error
    assert f"an error of {percent(found.mean_error)}; the last loss carried forward, 0.00 %" in found.sentences()


def test_an_ensemble_is_extrapolated_with_the_weights_it_has(chosen: Selection) -> None:
    obs, fit = additive_sweep(14, noise=0.003), chosen.fits["ensemble"]
    early = obs.losses["tokens"] <= 0.6 * TOKENS[-1]
    seen = Observations(obs.mixtures, obs.losses[early].reset_index(drop=True))
    members = {name: fit_law(seen, name, warmup=0) for name in fit.members}

    found = extrapolate(obs, fit=fit)

    last = obs.losses[obs.losses["tokens"] == TOKENS[-1]]
    for target, fitted in fit.targets.items():
        mine = last[last["domain"] == target]
        shares = obs.mixtures.loc[mine["run"]].to_numpy(float)
        parts = [w * members[n].predict(shares, TOKENS[-1])[target] for n, w in fitted.parameters.items()]
        off = np.abs(np.sum(parts, axis=0) / mine["loss"].to_numpy(float) - 1).mean()
        assert found.error[target] == pytest.approx(off)
    assert found.law == "ensemble"
    assert found.until == pytest.approx(TOKENS[-2])


def test_a_target_measured_at_the_end_is_no_part_of_the_extrapolation(chosen: Selection) -> None:
    obs, fit = additive_sweep(14, noise=0.003), chosen.fits["ensemble"]
    counted = (obs.losses["domain"] != "code") | (obs.losses["tokens"] == TOKENS[-1])

    found = extrapolate(Observations(obs.mixtures, obs.losses[counted].reset_index(drop=True)), fit=fit)

    every = extrapolate(obs, fit=fit).error
    assert found.error == pytest.approx({target: every[target] for target in ("web", "math")}, rel=1e-4)


def test_what_cannot_be_extrapolated_is_said(sweep: MakeSweep) -> None:
    with pytest.raises(ObservationsError, match=r"1 token counts up to 0.6 of the largest; at least 3 are needed"):
        extrapolate(sweep(LAWS, tokens=(1e6, 4e6)))
    with pytest.raises(ValueError, match=r"fraction must be between 0 and 1, got 1"):
        extrapolate(sweep(LAWS), fraction=1)


@pytest.mark.parametrize("noise", [0.0, 0.003])
def test_a_first_checkpoint_in_the_warm_up_is_found_and_named(sweep: MakeSweep, noise: float) -> None:
    obs = sweep(LAWS, tokens=np.geomspace(1e6, 6.4e7, 16), noise=noise)
    high = obs.losses.assign(loss=obs.losses["loss"] * np.where(obs.losses["tokens"] < 1.1e6, 1.2, 1.0))
    warming = Observations(obs.mixtures, high)

    fit = fit_law(warming)

    assert find_warmup(warming) == pytest.approx(TOKENS[0])
    assert fit.warmup == pytest.approx(TOKENS[0])
    note = "losses up to 1M tokens, within the warm-up, where no power law holds yet"
    assert ("excluded", note) in [(each.action, each.reason) for each in fit.notes]
    assert fit.targets["web"].points == 8 * 15
    assert fit.targets["web"].parameters["alpha"] == pytest.approx(0.12, rel=1e-6 if not noise else 0.05)
    assert fit_law(warming, warmup=0).targets["web"].points == 8 * 16


@pytest.mark.parametrize("noise", [0.0, 0.003, 0.01])
def test_a_sweep_without_a_warm_up_is_left_alone(sweep: MakeSweep, noise: float) -> None:
    for seed in range(5):
        assert find_warmup(sweep(LAWS, tokens=TOKENS, noise=noise, seed=seed)) == 0.0


def test_few_evaluations_tell_of_no_warm_up(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, tokens=TOKENS[:5])
    high = obs.losses.assign(loss=obs.losses["loss"] * np.where(obs.losses["tokens"] == TOKENS[0], 1.2, 1.0))

    assert find_warmup(Observations(obs.mixtures, high)) == 0.0


def test_a_last_checkpoint_that_is_the_one_before_is_set_aside(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, tokens=(*TOKENS, TOKENS[-1] * 1.002), noise=0.002)
    once = obs.losses[~np.isclose(obs.losses["tokens"], TOKENS[-1], rtol=1e-6)].reset_index(drop=True)

    fit, without = fit_law(obs), fit_law(Observations(obs.mixtures, once))

    note = "checkpoints within 0.5% of the tokens of the next, in 8 of 8 runs"
    assert ("excluded", note) in [(each.action, each.reason) for each in fit.notes]
    assert fit.targets["web"].points == 8 * 8
    assert fit.predict(UNSEEN, 5e7).to_numpy(float) == pytest.approx(
        without.predict(UNSEEN, 5e7).to_numpy(float), rel=1e-6
    )


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("zero_share", [1e-3, None])
def test_runs_without_a_domain_count_where_the_law_is_finite(name: str, zero_share: float | None) -> None:
    obs = additive_sweep(12)
    without = obs.mixtures.copy()
    without.iloc[0] = [0.0, 0.5, 0.5]
    without.iloc[1] = [0.0, 0.3, 0.7]

    fit = fit_law(Observations(without, obs.losses), name, zero_share=zero_share)

    notes = [note for note in fit.notes if note.domain == "code"]
    if not law(name).traits.infinite_at_zero:
        assert not notes
    else:
        assert [(note.action, note.count) for note in notes] == [("adjusted" if zero_share else "excluded", 2)]
    used = 10 if zero_share is None and law(name).traits.infinite_at_zero else 12
    assert fit.targets["code"].runs == used
    assert fit.targets["web"].runs == 12

"""Which targets can decide between mixtures: noise is called noise, a real one isn't, and few mixtures say nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy.stats import chi2, spearmanr

from bimix_tracking import Observations, analyze, recommend, select_law
from bimix_tracking.data.targets import Target
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.recommendation.verdict import Decision
from bimix_tracking.selection.dependence import depends, rank_interval
from bimix_tracking.selection.fitness import Fitness, FitnessTable, fitness

Array = npt.NDArray[np.float64]
QUESTIONS = 500


def shares(runs: int, domains: int = 3, seed: int = 0) -> Array:
    return np.random.default_rng(seed).dirichlet(np.full(domains, 2.0), runs)


def table(mixtures: Array, **columns: Array) -> pd.DataFrame:
    domains = {f"d{i}": mixtures[:, i] for i in range(mixtures.shape[1])}
    run = [f"run-{i}" for i in range(len(mixtures))]
    return pd.DataFrame(domains | columns).assign(tokens=1e9, run=run)


def observed(mixtures: Array, targets: Sequence[Target], **columns: Array) -> Observations:
    names = [f"d{i}" for i in range(mixtures.shape[1])]
    frame = table(mixtures, **columns)
    return Observations.from_wide(frame, proportions=names, losses=[], targets=targets, tokens="tokens", run="run")


def answered(rng: np.random.Generator, accuracy: Array) -> Array:
    return rng.binomial(QUESTIONS, accuracy) / QUESTIONS


def quiz(name: str, **options: object) -> Target:
    return Target(name, "accuracy", questions=QUESTIONS, **options)  # type: ignore[arg-type]


def judged(values: Array, mixtures: Array, target: Target | None = None) -> Fitness:
    target = target or quiz("quiz")
    return fitness(observed(mixtures, [target], **{target.name: values}))[target.name]


def test_questions_give_the_noise_and_the_rest_of_the_spread_is_signal() -> None:
    mixtures = shares(40)
    values = 0.4 + 0.2 * mixtures[:, 0]

    found = judged(values, mixtures)

    mean = values.mean()
    noise = math.sqrt(mean * (1 - mean) / QUESTIONS)
    assert found.noise_from == "questions"
    assert found.noise == pytest.approx(noise, rel=1e-9)
    assert found.signal == pytest.approx(math.sqrt(values.var(ddof=1) - noise**2), rel=1e-9)
    assert found.ratio == pytest.approx(found.signal / noise)
    assert found.fit
    assert found.judged


def test_what_follows_the_mixture_by_less_than_its_questions_noise_is_not_fit() -> None:
    # All runs answer the same questions, so an accuracy may move in step with a share where other questions would not.
    mixtures = np.stack([np.linspace(0.1, 0.9, 16), 1 - np.linspace(0.1, 0.9, 16)], axis=1)
    noise = math.sqrt(0.25 / QUESTIONS)
    found = judged(0.5 + np.linspace(-1.0, 1.0, 16) * noise, mixtures)

    assert not found.fit
    assert "questions" in found.needs


def test_the_test_of_signal_is_a_chi_square_of_binomial_variance() -> None:
    mixtures = np.stack([np.linspace(0.1, 0.9, 12), 1 - np.linspace(0.1, 0.9, 12)], axis=1)
    values = 0.5 + 0.025 * np.tile([1.0, -1.0], 6)

    found = judged(values, mixtures)

    statistic = ((values - 0.5) ** 2).sum() / (0.25 / QUESTIONS)
    assert found.p_value == pytest.approx(chi2.sf(statistic, 11), rel=1e-6)


@pytest.mark.parametrize(("runs", "domains"), [(12, 3), (24, 7), (48, 17)])
def test_noise_is_called_noise_and_a_real_target_is_not(runs: int, domains: int) -> None:
    rng = np.random.default_rng(3)
    kept, lost = 0, 0
    for seed in range(20):
        mixtures = shares(runs, domains, seed)
        real = mixtures[:, 0]
        spread = 2 * math.sqrt(0.4 * 0.6 / QUESTIONS)  # twice the sampling error
        columns = {
            "coin": answered(rng, np.full(runs, 0.4)),
            "real": answered(rng, 0.4 + spread * (real - real.mean()) / real.std()),
        }
        found = fitness(observed(mixtures, [quiz("coin"), quiz("real")], **columns))
        kept += found["coin"].fit
        lost += not found["real"].fit
    assert kept <= 3  # 3 % of 20, give or take
    assert lost <= 2


def test_noise_of_unknown_size_is_judged_by_whether_values_follow_the_mixture() -> None:
    rng = np.random.default_rng(0)
    mixtures = shares(24)
    score = Target("judge", "score", higher_is_better=True)
    real = observed(mixtures, [score], judge=7 + 3 * mixtures[:, 1] + 0.1 * rng.normal(size=24))
    noise = observed(mixtures, [score], judge=7 + rng.normal(size=24))

    assert fitness(real)["judge"].fit
    found = fitness(noise)["judge"]
    assert not found.fit
    assert "no dependence on the mixture over 24 mixtures" in found.why
    assert "repeats" in found.needs
    assert math.isnan(found.noise)


def test_repeats_give_the_noise_where_runs_differ_by_more_than_their_questions() -> None:
    rng = np.random.default_rng(1)
    mixtures = np.repeat(shares(12), 3, axis=0)
    seeds = np.clip(0.5 + 0.1 * rng.normal(size=36), 0, 1)  # four times what questions give

    found = judged(seeds, mixtures)

    within = seeds.reshape(12, 3).var(axis=1, ddof=1).mean()
    assert found.noise_from == "repeats"
    assert found.noise == pytest.approx(math.sqrt(within), rel=1e-9)
    assert not found.fit
    assert "repeats of one" in found.why


def test_what_noise_needs_is_a_number_of_questions() -> None:
    rng = np.random.default_rng(2)
    found = judged(answered(rng, np.full(16, 0.5)), shares(16))

    assert not found.fit
    assert "at least about" in found.needs
    assert "questions" in found.needs
    assert found.sentence() == f"{found.why}. It would need {found.needs}"


def test_few_mixtures_say_nothing_and_leave_the_weights() -> None:
    rng = np.random.default_rng(0)
    mixtures = shares(6)
    obs = observed(mixtures, [quiz("coin")], coin=answered(rng, np.full(6, 0.5)))

    found = fitness(obs)["coin"]

    assert found.fit
    assert not found.judged
    assert "too few mixtures" in found.why
    assert fitness(obs).unfit == {}


@pytest.mark.parametrize("runs", [1, 2])
def test_a_run_or_two_are_no_error(runs: int) -> None:
    found = judged(np.full(runs, 0.5), np.array([[0.2, 0.3, 0.5], [0.4, 0.3, 0.3]])[:runs])

    assert found.fit
    assert math.isnan(found.rank)


def test_accuracies_that_are_all_equal_cannot_decide() -> None:
    found = judged(np.full(12, 0.25), shares(12), quiz("quiz", chance=0.25))

    assert not found.fit
    assert "same value" in found.why


def test_a_target_at_chance_is_noise_like_any_other() -> None:
    rng = np.random.default_rng(0)

    found = judged(answered(rng, np.full(24, 0.25)), shares(24), quiz("quiz", chance=0.25))

    assert not found.fit


def test_questions_unknown_are_asked_for() -> None:
    rng = np.random.default_rng(0)

    found = judged(answered(rng, np.full(24, 0.5)), shares(24), Target("quiz", "accuracy"))

    assert not found.fit
    assert "number of questions" in found.needs


def test_a_task_missing_in_some_runs_is_judged_by_the_others() -> None:
    mixtures = shares(20)
    values = 0.3 + 0.4 * mixtures[:, 0]
    values[[2, 7, 11]] = np.nan

    found = judged(values, mixtures)

    assert found.mixtures == 17
    assert found.fit


def test_surrogates_that_disagree_are_named_together() -> None:
    mixtures = shares(40)
    up, down = 0.2 + 0.6 * mixtures[:, 0], 1.0 + mixtures[:, 0]
    targets = [quiz("qa", task="qa"), Target("qa_bpb", "bpb", task="qa")]

    apart = fitness(observed(mixtures, targets, qa=up, qa_bpb=down))
    agree = fitness(observed(mixtures, targets, qa=up, qa_bpb=2 - down / 2))

    assert apart["qa"].surrogates["qa_bpb"] == pytest.approx(spearmanr(up, -down).statistic)
    assert apart["qa"].disagrees == ("qa_bpb",)
    assert len(apart.disagreements()) == 1
    assert "'qa' and 'qa_bpb'" in apart.disagreements()[0]
    assert agree["qa"].surrogates["qa_bpb"] == pytest.approx(1.0)
    assert agree.disagreements() == []


def test_a_surrogate_that_is_fit_is_what_noise_needs() -> None:
    rng = np.random.default_rng(0)
    mixtures = shares(24)
    targets = [quiz("qa", task="qa"), Target("qa_bpb", "bpb", task="qa")]
    obs = observed(mixtures, targets, qa=answered(rng, np.full(24, 0.5)), qa_bpb=1.0 - 0.3 * mixtures[:, 0])

    assert "use 'qa_bpb' of the same task instead" in fitness(obs)["qa"].needs


def test_dependence_is_exact_on_permuted_values() -> None:
    rng = np.random.default_rng(5)
    mixtures = shares(16, 4)
    found = np.array([depends(rng.normal(size=16), mixtures) for _ in range(100)])

    assert 0.0 <= (found <= 0.05).mean() <= 0.11
    assert 0.3 < np.median(found) < 0.7
    assert depends(mixtures[:, 2] ** 2, mixtures) == 1 / 200


def test_a_rank_interval_is_fisher_s() -> None:
    low, high = rank_interval(0.0, 28)

    assert high == -low == pytest.approx(math.tanh(1.6448536 * math.sqrt(1.06 / 25)))
    assert all(math.isnan(end) for end in rank_interval(math.nan, 28))


@pytest.fixture(scope="module")
def sweep() -> Observations:
    """Return 16 runs judged by a task that follows a domain and one that is noise."""
    rng = np.random.default_rng(4)
    mixtures = shares(16, 2)
    columns = {"real": answered(rng, 0.3 + 0.4 * mixtures[:, 0]), "coin": answered(rng, np.full(16, 0.5))}
    return observed(mixtures, [quiz("real"), quiz("coin")], **columns)


def test_by_default_noise_does_not_count_and_is_named_with_what_it_needs(sweep: Observations) -> None:
    found = analyze(sweep, 1e9, replicates=0)

    assert found.recommendation.weights == {"d0": 0.0, "d1": 0.0, "real": 1.0, "coin": 0.0}
    assert found.fitness is not None
    assert list(found.fitness.unfit) == ["coin"] == list(found.fit.unfit)
    assert any("'coin' has weight 0" in text and "questions" in text for text in found.warnings)
    assert "not_counted" in found.mixture_yaml()
    assert [one["fit"] for one in found.decision()["fitness"]] == [True, False]
    assert found.fitness.to_frame().loc["coin", "fit"] == np.False_
    assert found.selection is not None
    assert found.selection.validation is not None
    assert found.selection.validation.weights["coin"] == 0


def test_recommend_has_the_same_defaults_and_a_given_weight_keeps_it(sweep: Observations) -> None:
    fit = select_law(sweep).fit
    read = LawFit.from_dict(fit.to_dict())

    assert read.unfit == {name: str(why) for name, why in fit.unfit.items()}
    assert recommend(read, 1e9).weights == recommend(fit, 1e9).weights
    kept = recommend(fit, 1e9, weights={"coin": 0.5})
    assert kept.weights["coin"] == 0.5
    assert any("'coin' counts, though it can't decide" in text for text in kept.warnings)


def test_the_named_law_has_them_too(sweep: Observations) -> None:
    found = analyze(sweep, 1e9, law="exponential", replicates=0)

    assert found.recommendation.weights["coin"] == 0
    assert found.validation is not None
    assert found.validation.weights["coin"] == 0


def test_where_none_is_fit_all_count_and_the_verdict_refuses() -> None:
    rng = np.random.default_rng(6)
    mixtures = shares(16, 2)
    columns = {name: answered(rng, np.full(16, 0.5)) for name in ("one", "two")}
    found = analyze(observed(mixtures, [quiz("one"), quiz("two")], **columns), 1e9, replicates=0)

    assert list(found.fit.unfit) == ["one", "two"]
    assert found.recommendation.weights["one"] == found.recommendation.weights["two"] == 1.0
    assert "no_signal" in [caveat.kind for caveat in found.verdict.caveats]
    assert found.verdict.decision is Decision.UNUSABLE


def test_an_empty_table_is_a_table() -> None:
    assert FitnessTable({}).unfit == {}
    assert len(FitnessTable({}).to_frame()) == 0

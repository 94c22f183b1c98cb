"""Guards: what people write, whom it means, what it costs, and what is said where no mixture meets them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimix_tracking import LawFit, Mixture, Observations, bootstrap, fit_law, recommend
from bimix_tracking.data.links import Link
from bimix_tracking.data.targets import Kind, Target
from bimix_tracking.errors import ConstraintError, RecommendationError
from bimix_tracking.fitting.domain_fit import DomainFit
from bimix_tracking.fitting.outcome import Outcome
from bimix_tracking.recommendation.guards import Guard, GuardResult, guards_on, parse_guard

MakeSweep = Callable[..., Observations]
TOKENS, SCALE = 1e8, 1e7
NAMES = ("code", "math", "web")
EVEN = Mixture.uniform(NAMES)
TRUE = {"a": (0.1, 0.5, 900.0, 2.0), "b": (0.05, 0.4, 300.0, 2.0), "c": (0.2, 0.5, 600.0, 1.5)}
AT = 3.2e7


def fit_of(law: str = "transfer", alphas: tuple[float, float, float] = (0.2, 0.1, 0.05)) -> LawFit:
    targets = {}
    for name, alpha in zip(NAMES, alphas, strict=True):
        parameters = {"alpha": alpha, "beta": 0.5, "B": 0.5 * SCALE**0.5, "C": 2.0}
        if law == "transfer":
            parameters |= {f"t[{d}]": 0.0 if d == name else 0.1 for d in NAMES}
        targets[name] = DomainFit(parameters, Outcome.CONVERGED, 90, 12, 0.01, 0.9, (9, 9), (0.0, 1.0))
    return LawFit(law, NAMES, targets, (1e6, TOKENS), SCALE, 0.01, 1e-9, "hash", "test")


def by_target(results: tuple[GuardResult, ...]) -> Mapping[str, GuardResult]:
    return {result.target: result for result in results}


# --- what people write --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "guard"),
    [
        ("code<=+0.5%", Guard("code", "<=", 0.005, "relative")),
        ("code<=0.5%", Guard("code", "<=", 0.005, "relative")),
        (" code <= -1 % ", Guard("code", "<=", -0.01, "relative")),
        ("mmlu>=-0.5pp", Guard("mmlu", ">=", -0.005, "points")),
        ("mmlu >= −0.5 pp", Guard("mmlu", ">=", -0.005, "points")),
        ("hellaswag≥-.01", Guard("hellaswag", ">=", -0.01, "absolute")),
        ("x<=1e-3", Guard("x", "<=", 0.001, "absolute")),
        ("all<=+1%", Guard("all", "<=", 0.01, "relative")),
        ("a<b=c<=+1%", Guard("a<b=c", "<=", 0.01, "relative")),
        ("a>=b<=+1%", Guard("a>=b", "<=", 0.01, "relative")),
        ("コード<=+1%", Guard("コード", "<=", 0.01, "relative")),
        ("two words\n<=+1%", Guard("two words", "<=", 0.01, "relative")),
    ],
)
def test_a_guard_is_read_as_it_is_written(text: str, guard: Guard) -> None:
    found = parse_guard(text)

    assert (found.target, found.sign, found.unit) == (guard.target, guard.sign, guard.unit)
    assert found.amount == pytest.approx(guard.amount, rel=1e-12)


@pytest.mark.parametrize(
    "text", ["", "code", "code<1%", "code<=", "<=1%", "code<=1%%", "code<=one", "code=<1%", "code<=1 %x", "code<=nan"]
)
def test_what_is_no_guard_is_told_the_forms(text: str) -> None:
    with pytest.raises(ConstraintError, match=r"is no guard: write one as 'code<=\+0.5%', 'mmlu>=-0.5pp'"):
        parse_guard(text)


@given(
    name=st.text(min_size=1).map(str.strip).filter(bool),
    sign=st.sampled_from(["<=", ">="]),
    size=st.integers(-990, 990),
    unit=st.sampled_from(["relative", "points", "absolute"]),
)
def test_a_guard_reads_itself_back(name: str, sign: str, size: int, unit: str) -> None:
    guard = Guard(name, sign, size / 1000, unit)  # type: ignore[arg-type]  # drawn from the literals

    found = parse_guard(str(guard))

    assert (found.target, found.sign, found.unit) == (name, sign, unit)
    assert found.amount == pytest.approx(guard.amount, abs=1e-12)


# --- whom it means ------------------------------------------------------------------------------------------------

QUIZ = Target("quiz", Kind.ACCURACY, group="tasks")
DESCRIBED = {"quiz": QUIZ, "judge": Target("judge", Kind.SCORE, higher_is_better=False, group="tasks")}
LINKS = {"quiz": Link(Kind.ACCURACY, rate=0.1, chance=0.25, rising=True), "judge": Link(Kind.SCORE, rate=0.05)}
TARGETS = ("code", "quiz", "judge")


def meant(*guards: str | Guard, unfit: Mapping[str, str] | None = None) -> list[str]:
    return [one.text for one in guards_on(guards, TARGETS, DESCRIBED, LINKS, unfit)[0]]


def test_all_and_a_group_mean_each_member_in_its_own_direction() -> None:
    assert meant("all<=+1%") == [f"{each} (of all<=+1%)" for each in ("code<=+1%", "quiz>=-1%", "judge<=+1%")]
    assert meant("all>=-1%")[1] == "quiz>=-1% (of all>=-1%)"
    assert meant("tasks<=+2%") == ["quiz>=-2% (of tasks<=+2%)", "judge<=+2% (of tasks<=+2%)"]


@pytest.mark.parametrize(
    ("guard", "message"),
    [
        ("cod<=+1%", r"unknown target 'cod'; did you mean 'code'\?"),
        ("code>=-1%", r"forbids an improvement: of 'code', lower is better. Did you mean 'code<=\+1%'\?"),
        ("quiz<=+0.5pp", r"of 'quiz', higher is better. Did you mean 'quiz>=-0.5pp'\?"),
        ("code<=+1pp", r"'code' is no accuracy but of kind loss: write it with % or as a number"),
        ("quiz>=-2", r"an accuracy is a fraction from 0 to 1. Did you mean 'quiz>=-2pp'\?"),
        ("all<=+1pp", r"'code' is no accuracy but of kind loss"),
    ],
)
def test_a_guard_that_means_nobody_or_the_wrong_way_is_refused(guard: str, message: str) -> None:
    with pytest.raises(ConstraintError, match=message):
        meant(guard)


def test_a_target_that_cannot_decide_is_refused_by_name_and_left_out_of_all() -> None:
    unfit = {"quiz": "its ranks can't be told: it needs about 4,000 questions"}

    with pytest.raises(ConstraintError, match=r"target 'quiz' cannot decide, for its ranks .* 4,000 questions"):
        meant("quiz>=-1%", unfit=unfit)
    found, warnings = guards_on(["all<=+1%"], TARGETS, DESCRIBED, LINKS, unfit)
    assert [one.target for one in found] == ["code", "judge"]
    assert warnings == ["guard 'all<=+1%' leaves out targets that cannot decide: 'quiz'"]
    kept, _ = guards_on(["quiz>=-1%"], TARGETS, DESCRIBED, LINKS, unfit, {"quiz": 1.0})
    assert [one.target for one in kept] == ["quiz"]


def test_limits_are_in_the_targets_own_units() -> None:
    (quiz,), _ = guards_on(["quiz>=-2pp"], TARGETS, DESCRIBED, LINKS)
    (judge,), _ = guards_on(["judge<=+0.5"], TARGETS, DESCRIBED, LINKS)
    link = LINKS["quiz"]

    assert quiz.limit(0.5) == pytest.approx(0.48)
    assert link.value(quiz.rule(np.array([link.loss(0.5)])))[0] == pytest.approx(0.48)
    assert quiz.rule(np.array([link.loss(0.5)]))[0] > link.loss(0.5)  # a lower accuracy is a larger loss
    at = LINKS["judge"].loss(-3.0)
    assert LINKS["judge"].value(judge.rule(np.array([at])))[0] == pytest.approx(-2.5)


# --- what it does to a recommendation -----------------------------------------------------------------------------


def test_a_guard_that_binds_is_met_exactly_and_its_cost_is_what_dropping_it_wins() -> None:
    fit, weights = fit_of(), {"code": 4.0, "math": 1.0, "web": 1.0}
    free = recommend(fit, TOKENS, weights=weights, reference=EVEN)
    assert free.predicted["web"] > 1.01 * free.reference_predicted["web"]

    found = recommend(fit, TOKENS, weights=weights, reference=EVEN, guardrails=["web<=+0.5%", "code<=+10%"])

    results = by_target(found.guards)
    assert found.predicted["web"] == pytest.approx(1.005 * found.reference_predicted["web"], rel=1e-9)
    assert results["web"].limit == pytest.approx(1.005 * found.reference_predicted["web"])
    assert results["web"].binding
    assert not results["code"].binding
    assert results["web"].cost == pytest.approx(free.gain - found.gain, abs=1e-8)
    assert results["code"].cost == pytest.approx(0, abs=1e-9)
    assert found.kkt_residual <= 1e-8
    # A nat more of the guard's own target wins as much as its price says.
    more = recommend(fit, TOKENS, weights=weights, reference=EVEN, guardrails=["web<=+0.501%"])
    by = 1e-5 * found.reference_predicted["web"]
    assert more.gain - found.gain == pytest.approx(results["web"].price * by, rel=1e-2)
    assert found.to_dict()["guards"][0]["guard"] == "web<=+0.5%"
    assert found.changes["guard"].to_dict() == {"web": "web<=+0.5%", "code": "code<=+10%", "math": ""}


def test_without_guards_nothing_changes() -> None:
    one, other = (recommend(fit_of(), TOKENS, reference=EVEN, guardrails=g) for g in ((), ["all<=+50%"]))

    assert one.guards == ()
    assert dict(other.mixture) == pytest.approx(dict(one.mixture), abs=1e-7)
    assert not any(result.binding for result in other.guards)


def test_the_tighter_of_two_guards_counts_and_that_is_said() -> None:
    found = recommend(fit_of(), TOKENS, weights={"code": 4.0}, reference=EVEN, guardrails=["web<=+2%", "web<=+0.5%"])

    assert found.predicted["web"] == pytest.approx(1.005 * found.reference_predicted["web"], rel=1e-9)
    assert [result.binding for result in found.guards] == [False, True]
    assert "target 'web' has two guards, 'web<=+2%' and 'web<=+0.5%': the tighter one counts" in found.warnings


def test_an_improvement_may_be_asked_for() -> None:
    found = recommend(fit_of(), TOKENS, weights={"web": 1.0}, reference=EVEN, guardrails=["code<=-1%"])

    assert found.predicted["code"] <= 0.99 * found.reference_predicted["code"] * (1 + 1e-9)


def test_guards_that_nothing_meets_are_told_by_how_much_and_that_is_enough() -> None:
    fit, guards = fit_of(), ["code<=-4%", "math<=-2%", "web<=-2%"]

    with pytest.raises(ConstraintError, match="no mixture meets all guards: ") as refused:
        recommend(fit, TOKENS, reference=EVEN, guardrails=guards)

    relaxed = dict(guard.split("<=") for guard in guards)
    text = str(refused.value).partition(": ")[2].rpartition(". Relax")[0]
    for need in text.split(", "):
        guard, _, amount = need.partition(" needs ")
        relaxed[guard.partition("<=")[0]] = amount
    assert any(relaxed[guard.partition("<=")[0]] != guard.partition("<=")[2] for guard in guards)
    met = recommend(fit, TOKENS, reference=EVEN, guardrails=[f"{name}<={amount}" for name, amount in relaxed.items()])
    assert len(met.guards) == 3


def test_bimix_cannot_improve_everything() -> None:
    with pytest.raises(ConstraintError, match=r"no mixture meets all guards: code<=-1% needs .*math<=-1% needs"):
        recommend(fit_of("bimix"), TOKENS, reference=EVEN, guardrails=["all<=-1%"])


def test_guards_hold_below_the_proportion_floor_as_predicted() -> None:
    fit = LawFit("bimix", NAMES, fit_of("bimix").targets, (1e6, TOKENS), SCALE, 0.01, 0.02, "hash", "test")
    reference = Mixture({"code": 0.0, "math": 0.5, "web": 0.5})

    found = recommend(fit, TOKENS, weights={"math": 1.0}, reference=reference, guardrails=["all<=+0.5%"])

    for result in found.guards:
        assert result.predicted <= result.limit * (1 + 1e-9)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"guardrails": ["x<=1%"]}, r"unknown target 'x'"),
        ({"guard_probability": 0.9}, r"guard_probability 0.9 needs guardrails"),
        ({"guardrails": ["web<=1%"], "guard_probability": 0.9}, r"needs replicates"),
        ({"guardrails": ["web<=1%"], "guard_probability": 90}, r"between 0 and 1, got 90"),
        ({"max_change": -0.1}, r"max_change must be a proportion from 0 to 1, such as 0.1, got -0.1"),
        ({"max_change": 10}, r"max_change must be a proportion from 0 to 1, such as 0.1, got 10"),
        ({"max_change": 0.1, "change": "l2"}, r"change must be 'tv' or 'kl', got 'l2'"),
        (
            {"max_change": 0.1, "bounds": {"code": (0.6, 1.0)}},
            r"no mixture within a change of 0.1 from the reference meets the constraints: the nearest is 0.267 away",
        ),
    ],
)
def test_mistakes_are_named(more: dict[str, object], message: str) -> None:
    with pytest.raises(RecommendationError, match=message):
        recommend(fit_of(), TOKENS, reference=EVEN, **more)  # type: ignore[arg-type]  # mistakes


def test_the_near_optimal_range_keeps_the_guards() -> None:
    fit, weights = fit_of(), {"code": 4.0, "math": 1.0, "web": 1.0}
    found = recommend(fit, TOKENS, weights=weights, reference=EVEN, guardrails=["web<=+0.5%"], tolerance=0.02)
    whole = np.array([(i, j, 400 - i - j) for i in range(1, 400) for j in range(1, 400 - i)]) / 400
    losses = fit.losses(whole, TOKENS).to_numpy(float)
    best = float(fit.losses(found.mixture, TOKENS).to_numpy(float)[0] @ [4.0, 1.0, 1.0])
    limit = found.guards[0].limit

    near = whole[(losses @ [4.0, 1.0, 1.0] <= best + 0.02) & (losses[:, 2] <= limit)]

    assert found.near_optimal is not None
    extent = found.near_optimal.extent.to_numpy(float)
    assert len(near) > 50
    assert extent[:, 0] == pytest.approx(near.min(0), abs=3 / 400)
    assert extent[:, 1] == pytest.approx(near.max(0), abs=3 / 400)
    assert (extent[:, 0] <= near.min(0) + 1e-9).all()
    assert (extent[:, 1] >= near.max(0) - 1e-9).all()


def test_a_law_with_two_optima_keeps_its_guards() -> None:
    def both(better: float) -> DomainFit:
        values = {"E": 2.0, "beta": 0.5, "B": 1.0, "C[a]": 1.0, "C[b]": better, "gamma[a]": 3.0, "gamma[b]": 3.0}
        return DomainFit(values, Outcome.CONVERGED, 90, 12, 0.01, 0.9, (9, 9), (0.02, 0.98))

    fit = LawFit("additive", ("a", "b"), {"a": both(1.1), "b": both(1.3)}, (1e6, TOKENS), SCALE, 0.01, 1e-9, "h", "t")
    reference = Mixture({"a": 0.9, "b": 0.1})

    found = recommend(fit, TOKENS, reference=reference, guardrails=["a<=+5%", "b<=+5%"])

    for result in found.guards:
        assert result.predicted <= result.limit * (1 + 1e-9)
    assert found.gain > 0.1
    assert found.kkt_residual <= 1e-8


@pytest.mark.parametrize("law", ["ensemble", "transfer"])
def test_intervals_and_what_each_law_says_keep_the_guards_too(sweep: MakeSweep, law: str) -> None:
    obs = sweep(TRUE, noise=0.01, runs=12)
    fit = fit_law(obs, law)
    drawn = bootstrap(obs, fit, replicates=40, method="few-steps")
    reference = Mixture.uniform(fit.domains)

    found = recommend(
        fit, AT, weights={"a": 3.0}, reference=reference, replicates=drawn, guardrails=["all<=+1%"], max_change=0.2
    )

    assert found.uncertainty is not None
    assert found.near_optimal is not None
    at = found.mixture.array(fit.domains)
    assert np.abs(at - reference.array(fit.domains)).sum() / 2 <= 0.2 + 1e-9
    shares = found.uncertainty.shares.to_numpy(float)
    assert (shares[:, 0] <= at + 1e-9).all()
    assert (at - 1e-9 <= shares[:, 1]).all()
    most = 1.01 * fit.losses(reference, AT).to_numpy(float)[0]
    for name, mixture in found.by_law.items():
        member = fit.members[name]
        own = 1.01 * member.losses(reference, AT).to_numpy(float)[0]
        assert (member.losses(mixture, AT).to_numpy(float)[0] <= own * (1 + 1e-9)).all()
    assert (fit.losses(found.mixture, AT).to_numpy(float)[0] <= most * (1 + 1e-9)).all()
    assert all(result.probability is not None for result in found.guards)
    assert 0 < (found.guards_together or 0) <= 1


# --- with a probability -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["bimix", "transfer"])
def test_a_probability_makes_a_margin_and_costs_gain(sweep: MakeSweep, law: str) -> None:
    obs = sweep(TRUE, noise=0.01, runs=12)
    fit = fit_law(obs, law)
    drawn = bootstrap(obs, fit, replicates=100, method="few-steps")
    reference = Mixture.uniform(fit.domains)
    guards, weights = ["c<=+1%"], {"a": 3.0}

    plain, safe = (
        recommend(
            fit, AT, weights=weights, reference=reference, replicates=drawn, guardrails=guards, guard_probability=p
        )
        for p in (None, 0.9)
    )

    assert plain.guards[0].binding
    assert plain.guards[0].probability is not None
    assert plain.guards[0].probability == pytest.approx(0.5, abs=0.15)
    assert safe.guards_together is not None
    assert safe.guards_together >= 0.9
    assert safe.guards[0].without_margin == plain.guards[0].probability
    assert safe.guards[0].margin > 0
    assert safe.guards[0].predicted == pytest.approx(safe.guards[0].limit - safe.guards[0].margin, rel=1e-6)
    assert safe.gain < plain.gain
    # Margins grow with the distance: the reference itself keeps what is relative to it.
    assert safe.path is not None
    assert safe.path.start == ""
    assert dict(safe.path.steps[0].mixture) == pytest.approx(dict(reference))
    assert dict(safe.path.steps[-1].mixture) == pytest.approx(dict(safe.mixture), abs=1e-7)


# --- the smallest change ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["tv", "kl"])
def test_the_path_leads_from_the_reference_to_the_optimum_and_gains_ever_less(change: str) -> None:
    reference = Mixture({"code": 0.1, "math": 0.2, "web": 0.7})

    found = recommend(fit_of(), TOKENS, reference=reference, change=change)  # type: ignore[arg-type]  # of the literals

    assert found.path is not None
    steps = found.path.steps
    assert len(steps) == 13
    assert dict(steps[0].mixture) == pytest.approx(dict(reference))
    assert dict(steps[-1].mixture) == pytest.approx(dict(found.mixture), abs=1e-7)
    gains = np.array([step.gain for step in steps])
    assert gains[0] == pytest.approx(0, abs=1e-12)
    assert gains[-1] == pytest.approx(found.gain)
    assert (np.diff(gains) > 0).all()
    assert (np.diff([step.moved for step in steps]) > 0).all()
    slopes = np.diff(gains) / np.diff([step.radius for step in steps])
    assert (np.diff(slopes) <= 1e-9).all()  # concave
    assert [step.part for step in steps] == pytest.approx((gains / gains[-1]).tolist())
    assert found.path.to_dict()["steps"][3]["gain"] == steps[3].gain


def test_most_of_the_gain_takes_as_much_as_a_search_finds() -> None:
    reference = Mixture({"code": 0.1, "math": 0.2, "web": 0.7})
    found = recommend(fit_of(), TOKENS, reference=reference)
    assert found.path is not None

    enough = found.path.moved_for(0.8)

    gains = {
        radius: recommend(fit_of(), TOKENS, reference=reference, max_change=radius).gain
        for radius in (enough, enough - 0.02)
    }
    assert gains[enough] >= 0.8 * found.gain
    assert gains[enough - 0.02] < 0.8 * found.gain
    assert f"moving {100 * enough:.3g} points of share gets 80 % of the gain" in found.path.sentence


def test_a_largest_change_is_kept_and_its_path_goes_on_beyond_it() -> None:
    reference = Mixture({"code": 0.1, "math": 0.2, "web": 0.7})

    found = recommend(fit_of(), TOKENS, reference=reference, max_change=0.05)

    moved = np.abs(found.mixture.array(NAMES) - reference.array(NAMES)).sum() / 2
    assert moved == pytest.approx(0.05, abs=1e-9)
    assert found.path is not None
    assert found.path.gain > found.gain
    still = recommend(fit_of(), TOKENS, reference=reference, max_change=0.0)
    assert dict(still.mixture) == pytest.approx(dict(reference), abs=1e-8)


def test_a_path_from_outside_the_constraints_says_so_and_starts_at_the_nearest() -> None:
    reference = Mixture({"code": 0.1, "math": 0.2, "web": 0.7})

    found = recommend(fit_of(), TOKENS, reference=reference, bounds={"web": (0.0, 0.5)})

    assert found.path is not None
    assert found.path.steps[0].moved == pytest.approx(0.2, abs=1e-3)
    assert "the nearest mixture within them has 20 points of share elsewhere" in found.path.start
    assert all(step.mixture["web"] <= 0.5 + 1e-9 for step in found.path.steps)


def test_no_reference_has_no_path_and_an_optimal_one_none_either() -> None:
    best = recommend(fit_of(), TOKENS)

    assert best.path is None
    assert recommend(fit_of(), TOKENS, reference=best.mixture).path is None


def test_the_path_has_intervals_that_end_at_the_recommendation_s(sweep: MakeSweep) -> None:
    obs = sweep(TRUE, noise=0.01, runs=12)
    fit = fit_law(obs)
    drawn = bootstrap(obs, fit, replicates=60, method="few-steps")

    found = recommend(fit, AT, reference=Mixture({"a": 0.2, "b": 0.3, "c": 0.5}), replicates=drawn)

    assert found.path is not None
    assert found.uncertainty is not None
    ends = [step.interval for step in found.path.steps]
    first, last = ends[0], ends[-1]
    assert first == pytest.approx((0, 0), abs=1e-12)
    assert last is not None
    assert last[0] == pytest.approx(found.uncertainty.gain[0], rel=1e-6)
    assert all(end is not None and end[0] <= end[1] for end in ends)

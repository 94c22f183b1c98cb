"""The trade-off between two groups of targets: no optimum beats another, and the ends are the groups' own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bimix_tracking import Mixture, recommend
from bimix_tracking.data.targets import Target
from bimix_tracking.errors import RecommendationError
from bimix_tracking.fitting.domain_fit import DomainFit
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.outcome import Outcome
from bimix_tracking.recommendation.trade_offs.pareto import pareto, two_groups

DOMAINS = ("code", "math", "web")
GROUPS = {"code": "programs", "math": "texts", "web": "texts"}
TOKENS = 1e8


@pytest.fixture
def fit() -> LawFit:
    """Return a fit of BiMix whose losses each fall with their own proportion."""

    def target(alpha: float, floor: float) -> DomainFit:
        parameters = {"alpha": alpha, "beta": 0.5, "B": 1e-9, "C": floor}
        return DomainFit(parameters, Outcome.CONVERGED, 9, 3, 0.0, 1.0, (3, 3), (0.05, 0.9))

    targets = {"code": target(0.1, 2.0), "math": target(0.15, 1.5), "web": target(0.05, 3.0)}
    described = {name: Target(name, group=group) for name, group in GROUPS.items()}
    return LawFit("bimix", DOMAINS, targets, (1e6, TOKENS), 1e7, 0.01, 1e-3, "", "", described=described)


def test_no_optimum_is_dominated_and_the_ends_are_the_groups_own(fit: LawFit) -> None:
    rec = recommend(fit, TOKENS)
    groups = two_groups(rec)
    assert groups == {"programs": {"code": 1.0}, "texts": {"math": 1.0, "web": 1.0}}
    found = pareto(fit, rec, groups)
    assert found is not None
    assert found.names == ("programs", "texts")
    assert len(found.points) == 9
    first, second = (np.array([getattr(one, name) for one in found.points]) for name in ("first", "second"))
    assert (np.diff(first) < 0).all()
    assert (np.diff(second) > 0).all()
    for end, weights in ((0, {"code": 1.0, "math": 0.0, "web": 0.0}), (-1, {"code": 0.0, "math": 1.0, "web": 1.0})):
        alone = recommend(fit, TOKENS, weights=weights)
        assert dict(found.points[end].mixture) == pytest.approx(dict(alone.mixture), abs=1e-7)
        assert (found.points[end].first, found.points[end].second)[end] == pytest.approx(alone.gain, abs=1e-10)
    # The recommended mixture is one of these optima: between its neighbours, and no worse than what lies between them.
    after = int(np.argmax(first < found.recommended[0]))
    part = (first[after - 1] - found.recommended[0]) / (first[after - 1] - first[after])
    assert found.recommended[1] >= second[after - 1] + part * (second[after] - second[after - 1]) - 1e-12
    # Nor does any other mixture beat them in both.
    drawn = np.random.default_rng(0).dirichlet([2, 2, 2], 4000)
    losses = fit.losses(drawn, TOKENS)
    reference = fit.losses(rec.reference, TOKENS)
    each = (["code"], ["math", "web"])
    gains = np.stack([reference[names].sum(axis=1)[0] - losses[names].sum(axis=1) for names in each])
    inside = ((drawn >= 0.05) & (drawn <= 0.9)).all(axis=1)
    assert inside.sum() > 3000
    for one in found.points:
        assert not ((gains[0] > one.first + 1e-9) & (gains[1] > one.second + 1e-9) & inside).any()


def test_constraints_and_guards_hold_at_every_point(fit: LawFit) -> None:
    guards = ["web<=+0.5%"]
    rec = recommend(fit, TOKENS, bounds={"math": (0.3, 0.6)}, guardrails=guards)
    groups = two_groups(rec)
    assert groups is not None
    found = pareto(fit, rec, groups, guardrails=guards)
    assert found is not None
    most = 1.005 * rec.reference_predicted["web"]
    for one in found.points:
        assert 0.3 - 1e-9 <= one.mixture["math"] <= 0.6 + 1e-9
        assert fit.predict(one.mixture, TOKENS)["web"][0] <= most * (1 + 1e-8)
    free = pareto(fit, recommend(fit, TOKENS), groups)
    assert free is not None
    assert free.points[0].first > found.points[0].first + 1e-3


def test_groups_are_those_that_are_described_or_asked_for(fit: LawFit) -> None:
    plain = recommend(replace(fit, described={}), TOKENS)
    assert two_groups(plain) is None
    assert two_groups(plain, ("code", "rest")) == {"code": {"code": 1.0}, "rest": {"math": 1.0, "web": 1.0}}
    assert two_groups(plain, ("rest", "code")) == {"rest": {"math": 1.0, "web": 1.0}, "code": {"code": 1.0}}
    rec = recommend(fit, TOKENS, weights={"code": 0.0})
    assert two_groups(rec) is None  # one group is left
    with pytest.raises(RecommendationError, match="no group or target 'cod' counts; did you mean 'code'"):
        two_groups(plain, ("cod", "rest"))
    with pytest.raises(RecommendationError, match=r"share targets.*math"):
        two_groups(recommend(fit, TOKENS), ("texts", "math"))
    with pytest.raises(RecommendationError, match="needs two names of groups or targets"):
        two_groups(plain, ("code", "code"))


def test_where_one_mixture_is_best_for_both_there_is_no_trade_off(fit: LawFit) -> None:
    pinned = recommend(fit, TOKENS, bounds=dict(Mixture.uniform(DOMAINS)))
    groups = two_groups(pinned)
    assert groups is not None
    assert pareto(fit, pinned, groups) is None

"""Mixtures that do more at the anchors' size than at the proxies': a slope a target, none where anchors show none."""

import numpy as np
import numpy.typing as npt

from bimix_tracking import fit_law
from bimix_tracking.fitting.alignment.aligning import align
from bimix_tracking.fitting.scale.bridge import Bridge
from tests.core.fitting.scale.worlds import DOMAINS, LAW, Size, drawn, observe, table_of

SMALL = Size(1e6, drawn(14), schedule=5e6, level=dict.fromkeys(DOMAINS, 0.2))
STRETCH = 0.2
UNSEEN = np.array(drawn(8, seed=7))


def two_sizes(anchors: int, stretch: float, noise: float = 0.001) -> Bridge:
    """Return the bridge of a sweep whose mixtures do so much more at the large size."""
    table = table_of([SMALL, Size(2e7, SMALL.mixtures[:anchors])], noise=noise)
    large = table["size"] == 2e7
    for target, (alpha, _, _, _) in LAW.items():
        more = table.loc[large, f"p {target}"] ** (-alpha * stretch)
        table.loc[large, f"l {target}"] *= more
    bridge = align(observe(table), model_size=2e7).bridge
    assert bridge is not None
    return bridge


def test_a_slope_is_found_and_shrunk() -> None:
    bridge = two_sizes(3, STRETCH)
    # Where α is small, mixtures do little, and three anchors tell no slope.
    assert 0.5 * STRETCH < bridge.stretch["math"] < STRETCH
    assert abs(bridge.stretch["code"]) < STRETCH


def test_no_slope_without_one() -> None:
    assert all(abs(b) < 0.02 for b in two_sizes(3, 0.0).stretch.values())


def test_one_anchor_has_no_slope() -> None:
    bridge = two_sizes(1, STRETCH)
    assert (dict(bridge.stretch), dict(bridge.centre)) == ({}, {})


def test_a_slope_takes_nothing_of_the_evidence_that_anchors_differ() -> None:
    bridge = two_sizes(3, STRETCH)
    deviations = np.array([one.deviation["math"] for one in bridge.anchors])
    more = np.array([-LAW["math"][0] * STRETCH * np.log(mixture[1]) for mixture in SMALL.mixtures[:3]])
    assert np.abs(deviations - (more - more.mean())).max() < 0.2 * np.ptp(more)


def test_what_the_bridge_wrote_it_reads() -> None:
    bridge = two_sizes(3, STRETCH)
    assert Bridge.from_dict(bridge.to_dict()) == bridge


def predicted(stretch: float) -> npt.NDArray[np.float64]:
    """Return what is predicted of unseen mixtures at the large size, log loss of math."""
    table = table_of([SMALL, Size(2e7, SMALL.mixtures[:3])])
    large = table["size"] == 2e7
    for target, (alpha, _, _, _) in LAW.items():
        table.loc[large, f"l {target}"] *= table.loc[large, f"p {target}"] ** (-alpha * stretch)
    fit = fit_law(observe(table), "bimix", model_size=2e7)
    return np.asarray(np.log(fit.predict(UNSEEN, 2e7)["math"].to_numpy(float)))


def test_predictions_follow_the_slope() -> None:
    plain, more = predicted(0.0), predicted(STRETCH)
    further = -LAW["math"][0] * STRETCH * np.log(UNSEEN[:, 1])
    assert np.abs(more - plain - further).max() < 0.25 * np.ptp(further)

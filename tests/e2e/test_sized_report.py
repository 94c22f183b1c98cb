"""The report of runs of several model sizes in a real browser: its explorer at each size, on screens and on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bimix_tracking import analyze
from bimix_tracking.analysis.result import Analysis
from bimix_tracking.report import html
from tests.core.report.sized_sweeps import SCHEDULES, sized
from tests.e2e.test_report_page import _SIDEWAYS, _TOUCHING, Opened, browser, written  # noqa: F401  # the fixture

LARGE = 1.6e9
NAMES = ("code", "web", "math")


@pytest.fixture(scope="module")
def found() -> Analysis:
    return analyze(sized({1e8: 12, 4e8: 6, LARGE: 2}), SCHEDULES[LARGE], model_size=LARGE, replicates=60)


def choose(opened: Opened, size: str) -> None:
    """Set the explorer to a model size."""
    opened.page.select_option("#model-size", label=size)
    opened.settle()


def test_the_explorer_predicts_what_the_fit_predicts_at_each_size(
    browser: Any,  # noqa: F811
    found: Analysis,
    tmp_path: Path,
) -> None:
    opened = Opened(browser, written(found, tmp_path))
    fit, page = found.fit, opened.page
    assert page.locator("#model-size option").all_inner_texts() == ["100M", "400M", "1.6B"]
    assert page.locator("#model-size option:checked").inner_text() == "1.6B"

    for size, name in ((1e8, "100M"), (4e8, "400M"), (LARGE, "1.6B")):
        page.locator("#reset").click()
        choose(opened, name)
        assert opened.values("#volume-text")[0] == pytest.approx(SCHEDULES[size])  # at the same progress
        for moment in range(8):
            opened.slide(moment % 3, 0.07 * (moment + 2))
            page.locator("#volume").evaluate(
                "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }",
                8.3 + 0.3 * moment,
            )
            opened.settle()
            mixture, tokens = opened.mixture(), opened.values("#volume-text")[0]
            expected = fit.at(size).predict(mixture, tokens).iloc[0]
            reference = fit.at(size).predict(found.recommendation.reference, tokens).iloc[0]
            assert opened.values(".loss") == pytest.approx([expected[d] for d in NAMES], rel=1e-9)
            assert opened.values("#gain")[0] == pytest.approx(float(expected.sum() - reference.sum()), abs=1e-8)
            assert fit.predict(mixture, tokens, model_size=size).iloc[0].tolist() == expected.tolist()
    assert opened.complaints == []


def test_its_intervals_are_those_of_the_analysis_at_each_size(
    browser: Any,  # noqa: F811
    found: Analysis,
    tmp_path: Path,
) -> None:
    opened = Opened(browser, written(found, tmp_path))
    assert found.replicates is not None
    for size, name in ((1e8, "100M"), (LARGE, "1.6B")):
        choose(opened, name)
        tokens = opened.values("#volume-text")[0]
        low, high = found.replicates.at(size).interval(found.recommendation.mixture, tokens)
        for place, target in enumerate(NAMES):
            cell = opened.page.locator(".interval").nth(place)
            ends = cell.evaluate("c => [Number(c.dataset.low), Number(c.dataset.high)]")
            wide = float(high[target][0] - low[target][0])
            assert ends == pytest.approx([low[target][0], high[target][0]], abs=0.02 * wide), (name, target)


def test_reset_returns_to_the_target_size(browser: Any, found: Analysis, tmp_path: Path) -> None:  # noqa: F811
    opened = Opened(browser, written(found, tmp_path))
    before = opened.values(".loss")
    choose(opened, "100M")
    assert opened.values(".loss") != before
    opened.page.locator("#reset").click()
    opened.settle()
    assert opened.values(".loss") == before
    assert opened.page.locator("#model-size option:checked").inner_text() == "1.6B"
    assert opened.page.locator("#yaml").input_value().startswith("# set by hand in the explorer, for a 1.6B model and ")


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_nothing_touches_or_sticks_out(browser: Any, tmp_path: Path, lang: str) -> None:  # noqa: F811
    obs = sized({1e8: 12, 4e8: 6}, ("code", "W" * 60, "עברית"))
    result = analyze(obs, SCHEDULES[LARGE], model_size=LARGE, replicates=40, lang=lang)
    opened = Opened(browser, written(result, tmp_path))
    assert opened.page.evaluate(_TOUCHING) == []
    for wide in (1280, 768, 390):
        opened.page.set_viewport_size({"width": wide, "height": 800})
        assert not opened.page.evaluate(_SIDEWAYS), f"the page scrolls sideways at {wide}"
    assert opened.complaints == []
    opened.page.emulate_media(media="print")
    assert opened.page.locator("#scale svg.figure").first.is_visible()
    assert len(html.render(result).encode()) < 2_000_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_barrier_for_who_cannot_see_or_point(
    browser: Any,  # noqa: F811
    found: Analysis,
    tmp_path: Path,
    scheme: str,
) -> None:
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415  # optional, as playwright

    opened = Opened(browser, written(found, tmp_path), color_scheme=scheme)
    violations = Axe().run(opened.page).response["violations"]
    assert [(v["id"], v["impact"], v["nodes"][0]["html"][:200]) for v in violations] == []

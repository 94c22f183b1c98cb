"""What a reader sees first: verdict, picture, figures and caveats agree, on every screen and in each scheme."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bimix_tracking import Costs, Mixture, Observations, analyze
from bimix_tracking.analysis.result import Analysis
from bimix_tracking.recommendation.verdict import Decision
from bimix_tracking.report.language import Language
from tests.e2e.test_report_page import COUNTED, GUARDS, PRESENT, Opened, browser, judged, sweep, written  # noqa: F401  # a fixture

DOMAINS = ("code", "web", "math", "books")
BILL = Costs(gpu_hours_per_run=12, target_gpu_hours=19_680, cost_per_gpu_hour=2.5, currency="USD")
MOST_WORDS = 120
MOST_WORDS_BELOW = 1_000
"""Of three domains and eight runs, tables and figures included: half of what the page once had."""
BEYOND = """() => [...document.querySelectorAll('.key-figures strong')]
  .filter(one => one.scrollWidth > one.clientWidth).map(one => one.textContent)"""
"""Figures that are wider than their tile."""
FOLD = 600
"""Pixels from the top: the first figure stands above."""


def clear_gain() -> Analysis:
    poor = Mixture(dict(zip(DOMAINS, (0.02, 0.9, 0.04, 0.04), strict=True)))
    return analyze(sweep(DOMAINS, 14), 1e10, reference=poor, costs=BILL, replicates=60)


def extrapolated() -> Analysis:
    poor = Mixture(dict(zip(DOMAINS, (0.02, 0.9, 0.04, 0.04), strict=True)))
    return analyze(sweep(DOMAINS, 14), 3e10, reference=poor, costs=BILL, law="bimix", replicates=60)


def no_gain() -> Analysis:
    obs = sweep(DOMAINS, 14)
    best = analyze(obs, 1e10, law="bimix", replicates=0).recommendation.mixture
    return analyze(obs, 1e10, law="bimix", reference=best, costs=BILL, replicates=60)


def bad_fit() -> Analysis:
    """Return an analysis of losses that a run's luck decides, and no mixture: what is held out comes out reversed."""
    obs = sweep(DOMAINS, 12, seed=11)
    draw = np.random.default_rng(5)
    luck = {run: float(np.exp(0.03 * draw.standard_normal())) for run in obs.runs}
    last = obs.losses.groupby(["tokens", "domain"])["loss"].transform("mean")
    flat = obs.losses.assign(loss=last * obs.losses["run"].map(luck))
    return analyze(Observations(obs.mixtures, flat), 1e10, law="bimix", replicates=60)


def one_volume() -> Analysis:
    return analyze(sweep(DOMAINS, 12, 1), 1e12, costs=BILL, law="bimix", replicates=60)


def many_domains() -> Analysis:
    names = [f"domain-{number} {'עברית' if number == 3 else 'n' * (9 * number + 1)}" for number in range(22)]
    return analyze(sweep(names, 30, 4), 3e10, law="bimix", replicates=40)


def like_the_demo() -> Analysis:
    return analyze(sweep(DOMAINS[:3], 8, noise=0.02, seed=4), 1e10, costs=BILL, replicates=60)


def one_takes_it_all() -> Analysis:
    """Return an analysis without repeats whose one domain that counts, of a name of 200 letters, was tried to 95 %."""
    names = ("n" * 200, "עברית ערבית", "日本語")
    obs = sweep(names, 7, first=(0.95, 0.03, 0.02))
    return analyze(obs, 1e10, law="bimix", weights=dict.fromkeys(names[1:], 0.0), replicates=0)


def benchmarks_with_guards() -> Analysis:
    """Return an analysis of ten benchmarks in two groups, three of them guarded, one not fit to decide."""
    return analyze(judged(), 1e9, reference=PRESENT, weights=COUNTED, guardrails=GUARDS, costs=BILL, replicates=60)


CASES: dict[str, tuple[Callable[[], Analysis], set[Decision]]] = {
    "a clear gain": (clear_gain, {Decision.ACT}),
    "extrapolated": (extrapolated, {Decision.ACT}),
    "no gain": (no_gain, {Decision.INSIDE_NOISE}),
    "a bad fit": (bad_fit, {Decision.UNUSABLE}),
    "one volume": (one_volume, {Decision.ACT, Decision.INSIDE_NOISE}),
    "22 domains": (many_domains, set(Decision)),
    "like the demo": (like_the_demo, {Decision.INSIDE_NOISE}),
    "benchmarks, guarded": (benchmarks_with_guards, {Decision.ACT, Decision.INSIDE_NOISE}),
    "one domain takes 95 %": (one_takes_it_all, {Decision.UNCHECKED, Decision.UNUSABLE}),
}


@pytest.fixture(scope="module", params=CASES)
def found(request: pytest.FixtureRequest) -> tuple[Analysis, set[Decision]]:
    make, decisions = CASES[request.param]
    return make(), decisions


class FirstScreen:
    """What a page says before anybody scrolls."""

    def __init__(self, opened: Opened) -> None:
        text = opened.page.locator
        self.verdict = _plain(text("header .answer").inner_text())
        self.figures = [
            tuple(_plain(part.inner_text()) for part in figure.locator("dt, strong, span").all())
            for figure in text(".key-figures > div").all()
        ]
        self.caveats = [_plain(line) for line in text("header .caveats li").all_inner_texts()]
        self.words = opened.page.evaluate(
            "document.querySelector('header').innerText.split(/\\s+/).filter(Boolean).length"
            " - document.querySelector('header .bx-mix').innerText.split(/\\s+/).filter(Boolean).length"
        )

    def value(self, name: str) -> str:
        return next(value for label, value, _ in self.figures if label == name)


def _plain(text: str) -> str:
    return text.replace("\xa0", " ").strip()


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text.replace("−", "-").replace(",", ""))]


def test_verdict_figures_and_caveats_agree(
    browser: Any,  # noqa: F811
    found: tuple[Analysis, set[Decision]],
    tmp_path: Path,
) -> None:
    result, decisions = found
    opened = Opened(browser, written(result, tmp_path))
    screen = FirstScreen(opened)
    decision, rec = result.verdict.decision, result.recommendation

    assert decision in decisions
    assert opened.page.locator(f"header.{decision}").count() == 1
    assert screen.verdict == result.verdict.sentence
    assert len(screen.figures) == 4
    assert screen.words <= MOST_WORDS, screen.words
    gain, chance, saving, held_out = (value for _, value, _ in screen.figures)
    interval = numbers(screen.figures[0][2])[1:]
    if decision is Decision.ACT:
        assert screen.verdict.startswith("Act")
        assert interval[0] > 0
        assert numbers(chance)[0] >= 95
    elif decision is Decision.INSIDE_NOISE:
        assert screen.verdict.startswith(("The gain is inside the noise", "No gain"))
        assert interval[0] <= 0 or rec.gain <= 0
        assert numbers(chance)[0] < 97
        assert saving in ("not demonstrated", "unknown")
    elif decision is Decision.UNUSABLE:
        assert screen.verdict.startswith("Don't use this mixture: ")
        assert {gain, chance, saving} == {"not reliable"}
        assert not any(numbers(more) for _, _, more in screen.figures[:3])
        assert opened.page.get_by_text("Savings at equal loss").count() == 0
    else:
        assert screen.verdict.startswith("Not checked")
        assert (chance, screen.figures[0][2]) == ("unknown", "no interval: no replicates")
    in_points = "pp" in gain
    shown = round(100 * rec.gain, 1) if in_points else round(rec.gain, 4)
    assert numbers(gain) == ([] if decision is Decision.UNUSABLE else [shown])
    if result.validation is None:
        assert held_out == "unknown"
    elif in_points:
        # Of the accuracies that count, in points: about what binomial noise of 2,000 questions is.
        assert 0.5 < numbers(held_out)[0] < 2.5
        assert held_out.endswith("pp")
    else:
        assert numbers(held_out) == [round(100 * result.validation.counted.mean_error, 2)]
    # What decides is in the verdict, or stands below it; and the rest is one summary away. Nothing stands there twice.
    opened.page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    page = _plain(opened.page.locator("body").inner_text())
    assert page.count(screen.verdict) == 1
    for caveat in result.verdict.caveats:
        named = str(caveat.short) in screen.verdict
        assert not (named and caveat.text in screen.caveats)
        assert page.count(caveat.text) == 1
    assert opened.complaints == []


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_every_screen_and_scheme_shows_all_of_it(
    browser: Any,  # noqa: F811
    found: tuple[Analysis, set[Decision]],
    tmp_path: Path,
    lang: str,
) -> None:
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415  # optional, as playwright

    result = dataclasses.replace(found[0], lang=lang)
    opened = Opened(browser, written(result, tmp_path))
    page = opened.page

    assert FirstScreen(opened).verdict == _plain(Language(lang)(result.verdict.sentence))
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for wide in (390, 768, 1280):
            page.set_viewport_size({"width": wide, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth") <= wide
            assert page.evaluate(BEYOND) == [], wide
            for first in (".bx-mix", ".key-figures"):
                assert page.locator(f"header {first}").bounding_box()["y"] < FOLD, (first, wide)
        if (lang, scheme) == ("ja", "dark"):  # the colours of the English page
            continue
        serious = [
            (found["id"], found["nodes"][0]["html"][:200])
            for found in Axe().run(page).response["violations"]
            if found["impact"] in ("serious", "critical")
        ]
        assert serious == []
    assert opened.complaints == []


def test_marks_stay_in_their_tracks_and_names_in_their_column(browser: Any, tmp_path: Path) -> None:  # noqa: F811
    result = one_takes_it_all()
    opened = Opened(browser, written(result, tmp_path))

    assert max(result.recommendation.mixture.values()) == pytest.approx(0.95, abs=0.01)
    for wide in (320, 390, 1280):
        opened.page.set_viewport_size({"width": wide, "height": 844})
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= wide
        beyond = opened.page.evaluate(
            """() => [...document.querySelectorAll('.bx-row')].flatMap(row => {
              const edge = row.getBoundingClientRect();
              return [...row.children, ...row.querySelectorAll('i')].map(one => one.getBoundingClientRect())
                .filter(box => box.width && (box.left < edge.left - 1 || box.right > edge.right + 1));
            }).length"""
        )
        assert beyond == 0


def test_the_whole_page_of_a_small_sweep_is_short(browser: Any, tmp_path: Path) -> None:  # noqa: F811
    opened = Opened(browser, written(like_the_demo(), tmp_path))
    opened.page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")

    assert len(opened.page.locator("body").inner_text().split()) <= MOST_WORDS_BELOW

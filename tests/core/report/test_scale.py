"""What the report says of model sizes: whose losses, from which anchor runs, and nothing that no run gave."""

from __future__ import annotations

import math
import re
from html import unescape
from typing import Any

import numpy as np
import pytest

from bimix_tracking.analysis.pipeline import analyze
from bimix_tracking.analysis.result import Analysis
from bimix_tracking.quantities import nats, parameters, percent
from bimix_tracking.report import content, html, markdown
from bimix_tracking.report.language import Language
from bimix_tracking.report.panels.drawn import drawn
from bimix_tracking.report.panels.marks import Marks
from bimix_tracking.report.scale import pictures, selector
from bimix_tracking.report.scale.section import Scale
from tests.core.report.sized_sweeps import DROP, SCHEDULES, level, sized
from tests.core.report.test_japanese import Shown, english, untidy
from tests.core.report.test_report import HOSTILE, Read

LARGE = 1.6e9


def said_of(result: Analysis) -> Scale:
    """Return the section of a page that has one."""
    found = content.page(result).scale
    assert found is not None
    return found


@pytest.fixture(scope="module")
def anchored() -> Analysis:
    """Return twelve runs at 100M and two anchor runs at 1.6B."""
    return analyze(sized({1e8: 12, LARGE: 2}), SCHEDULES[LARGE], model_size=LARGE, replicates=60)


@pytest.fixture(scope="module")
def unanchored() -> Analysis:
    """Return twelve runs at 100M and five at 400M, for a model of 7B."""
    return analyze(sized({1e8: 12, 4e8: 5}), SCHEDULES[7e9], model_size=7e9, replicates=60)


@pytest.fixture(scope="module")
def rough() -> Analysis:
    """Return runs of three sizes, for a model of 7B."""
    return analyze(sized({1e8: 12, 4e8: 5, LARGE: 5}), SCHEDULES[7e9], model_size=7e9, replicates=60)


def test_the_first_page_is_what_the_large_model_will_lose(anchored: Analysis) -> None:
    rec, page = anchored.recommendation, content.page(anchored)
    assert page.title == "Data mixture for a 1.6B model and 8B tokens"
    assert page.answer.partition("reference. ")[2].startswith("For a 1.6B model and 8B tokens: ")
    mean = float(np.mean([rec.predicted[target] for target in anchored.fit.targets]))
    assert page.forecast.startswith(f"1.6B model after 8B tokens: predicted mean loss {nats(mean)}, 90 % interval ")
    first = page.key_figures[0]
    assert (first.name, first.value) == ("predicted mean loss", nats(mean))
    low, high = (float(end) for end in re.findall(r"\d\.\d{4}", str(first.more)))
    assert low < mean < high

    small, large = 12 * 6 * 1e8 * SCHEDULES[1e8], 2 * 6 * LARGE * SCHEDULES[LARGE]
    part = (small + large) / (12 * 6 * LARGE * SCHEDULES[LARGE])
    assert page.forecast.endswith(f"It took {100 * part:.0f} % of the compute of 12 runs at that size.")
    for text in (Read(html.render(anchored)).text, markdown.render(anchored).replace("\\", "")):
        assert page.title in text
        assert page.forecast.replace(" %", "\u00a0%") in text or page.forecast in text
        assert "its level comes from 2 anchor runs" in text


def test_each_target_has_its_loss_at_the_target_size_and_an_interval(anchored: Analysis) -> None:
    rec, fit, replicates = anchored.recommendation, anchored.fit, anchored.replicates
    assert replicates is not None
    low, high = replicates.interval(rec.mixture, rec.tokens)
    predicted = fit.predict(rec.mixture, rec.tokens, model_size=LARGE).iloc[0]
    rows = said_of(anchored).forecasts
    assert [row.target for row in rows] == list(fit.targets)
    for row in rows:
        assert row.predicted == nats(predicted[row.target])
        assert row.interval == f"{nats(low[row.target][0])} to {nats(high[row.target][0])}"


def test_levels_are_those_that_the_sweep_was_made_with(anchored: Analysis) -> None:
    found = said_of(anchored)
    assert found.changes == ("against 100M, %",)
    for place, row in enumerate(found.levels):
        text, error = row.changes[0].replace("−", "-").split(" ± ")
        assert float(text) == pytest.approx(100 * math.expm1(level(LARGE, place)), abs=0.3)
        assert 0 < float(error) < 0.5
    assert [row.run for row in found.anchors] == ["run-2e+09-0", "run-2e+09-1"]
    assert anchored.fit.bridge is not None
    errors = [abs(anchored.fit.bridge.anchors[0].error[target]) for target in anchored.fit.targets]
    assert found.anchors[0].error == percent(float(np.mean(errors)))
    assert [(row.size, row.runs, row.mixtures) for row in found.sizes] == [("100M", "12", "12"), ("1.6B", "2", "2")]
    assert [row.role for row in found.sizes] == ["law and level", "anchor runs"]


def test_a_lone_anchor_run_has_no_error_and_the_page_says_so() -> None:
    result = analyze(sized({1e8: 12, LARGE: 1}), SCHEDULES[LARGE], model_size=LARGE, replicates=60)
    found = said_of(result)
    assert found.whose.endswith("its level comes from one anchor run.")
    assert "One anchor run cannot be checked against another; a second one would." in found.doubts
    assert {row.anchors for row in found.levels} == {"–"}
    assert (found.anchors[0].error, found.anchors[0].worst) == ("–", "–")


def test_an_anchor_run_that_ends_early_is_said_to_be_extended() -> None:
    obs = sized({1e8: 12, LARGE: 1}, cut=0.5)
    found = said_of(analyze(obs, SCHEDULES[LARGE], model_size=LARGE, replicates=60))
    (line,) = [text for text in found.doubts if "schedule" in text]
    assert line.startswith("Anchor run 'run-2e+09-0' reached 50 % of its schedule;")
    both = sized({1e8: 12, LARGE: 2}, cut=0.5)
    found = said_of(analyze(both, SCHEDULES[LARGE], model_size=LARGE, replicates=60))
    (line,) = [text for text in found.doubts if "schedule" in text]
    assert line.startswith("2 of 2 anchor runs end early, from 50 % of their schedule on;")


def test_an_unknown_level_is_no_number(unanchored: Analysis) -> None:
    page, found = content.page(unanchored), said_of(unanchored)
    assert page.title == "Data mixture for a 7B model and 20B tokens"
    assert found.weak
    assert found.whose.startswith("The loss at 7B is unknown: no anchor run there, and fewer than three model sizes.")
    assert page.key_figures[0].value == "unknown"
    assert page.key_figures[0].more == "no anchor run at 7B"
    assert page.key_figures[1].more.endswith(", 400M model")
    assert "known at" not in page.verdict
    assert any("anchor" in text and "%" in text for text in found.doubts), "what one would buy"
    assert page.forecast == "The loss at 7B is unknown: no anchor run there, and fewer than three model sizes."
    read = Read(html.render(unanchored))
    assert f'<p class="box alert">{found.whose}</p>' in html.render(unanchored).replace("\u00a0", " ")
    assert "Losses at 7B" not in read.text


def test_of_one_size_the_page_says_what_one_anchor_run_would_buy() -> None:
    found = said_of(analyze(sized({1e8: 12}), 8e9, model_size=LARGE, replicates=40))
    assert "All losses are those of the 100M model." in found.whose
    assert any(
        text.startswith("One anchor run at 1.6B parameters would bring the 90 % interval") for text in found.doubts
    )
    assert found.levels == ()
    assert found.pairs == ()


def test_levels_over_three_sizes_are_rough_beside_the_number(rough: Analysis) -> None:
    page, found = content.page(rough), said_of(rough)
    assert found.weak
    start = "Losses at 7B are rough: without an anchor run, levels are extrapolated from 3 sizes."
    assert found.whose.startswith(start)
    assert rough.fit.bridge is not None
    assert rough.fit.bridge.left_out is not None
    assert percent(rough.fit.bridge.left_out.mean) in found.whose
    assert page.key_figures[0].value != "unknown"
    assert page.key_figures[0].more.startswith("rough: 90 % interval ")
    assert [row.role for row in found.sizes][-1] == "level extrapolated"


def test_ranks_have_a_picture_where_mixtures_were_run_twice(unanchored: Analysis, anchored: Analysis) -> None:
    assert unanchored.ranks is not None
    found = pictures.pictures(unanchored.ranks, Language())
    assert len(found) == 2
    assert found[0].count("<circle") == 5
    assert found[1].count("<circle") == 1 + len(unanchored.fit.targets)
    assert said_of(unanchored).ranks.startswith(str(unanchored.ranks.sentence))
    assert anchored.ranks is not None
    assert pictures.pictures(anchored.ranks, Language()) == []  # two mixtures have no rank


def test_runs_of_a_size_have_a_mark_of_their_own(anchored: Analysis) -> None:
    obs = drawn(anchored.observations, anchored.fitted, anchored.fit.bridge)
    assert len(obs.runs) == 14
    marks = Marks(obs)
    assert {marks.shape(run) for run in obs.runs if obs.sizes[run] == LARGE} == {"circle"}
    assert {marks.shape(run) for run in obs.runs if obs.sizes[run] == 1e8} == {"square"}
    assert [size for _, size in marks.key()] == ["1.6B", "100M"]
    assert Marks(obs.only([run for run in obs.runs if obs.sizes[run] == 1e8])).key() == []
    page = html.render(anchored)
    assert page.count("Runs of all sizes, at the level of the 1.6B model; each mark is a size:") >= 2


def test_one_size_has_no_section() -> None:
    page = content.page(analyze(sized({1e8: 8}), 2e9, replicates=0))
    assert page.forecast == ""
    assert 'id="scale"' not in html.render(analyze(sized({1e8: 8}), 2e9, replicates=0))
    assert page.title == "Data mixture for 2B tokens"


def test_hostile_names_stay_text() -> None:
    obs = sized({1e8: 12, LARGE: 2}, HOSTILE, prefix="<img src=x onerror=alert(1)>|`")
    result = analyze(obs, SCHEDULES[LARGE], model_size=LARGE, replicates=0)
    read = Read(html.render(result))
    assert not {"img", "iframe", "object"} & set(read.tags)
    assert read.tags.count("script") == 2
    assert "<img" not in markdown.render(result)
    assert "<script" not in markdown.render(result)


def test_the_explorer_has_each_size_with_its_schedule_and_level(anchored: Analysis) -> None:
    fit = anchored.fit
    found = selector.sizes_content(fit, list(fit.targets), Language())
    assert [one["name"] for one in found["sizes"]] == ["100M", "1.6B"]
    assert found["sizes"][found["size"]]["ratio"] == 1.0
    assert found["sizes"][0]["ratio"] == SCHEDULES[1e8] / SCHEDULES[LARGE]
    for place, target in enumerate(fit.targets):
        at, off = found["sizes"][0]["raised"][place]
        assert at[-1] == pytest.approx(SCHEDULES[1e8])
        assert off[-1] == pytest.approx(-level(LARGE, place), abs=3e-3), target
    assert DROP[LARGE] > 0


@pytest.mark.parametrize("options", [{}, {"weights": {"web": 2.0}}, {"replicates": 0}])
def test_notes_and_cards_say_whose_losses(options: dict[str, Any]) -> None:
    result = analyze(sized({1e8: 12, LARGE: 2}), SCHEDULES[LARGE], model_size=LARGE, **{"replicates": 40} | options)
    whose = "All losses are those of the 1.6B model; its level comes from 2 anchor runs."
    assert whose in result.note()
    assert whose in result._repr_html_()
    assert content.page(result).forecast in result.note().replace("\\", "")


@pytest.mark.parametrize(
    ("runs", "size", "cut"),
    [
        ({1e8: 12, LARGE: 1}, LARGE, 0.5),
        ({1e8: 12, LARGE: 3}, LARGE, 0.5),
        ({1e8: 12, 4e8: 6}, 7e9, 1.0),
        ({1e8: 12, 4e8: 5, LARGE: 5}, 7e9, 1.0),
    ],
)
def test_nothing_of_a_japanese_page_is_english_but_names(runs: dict[float, int], size: float, cut: float) -> None:
    obs = sized(runs, ("コード", "ウェブ", "数学"), cut=cut, prefix="番号")
    result = analyze(obs, SCHEDULES[size], model_size=size, replicates=40, lang="ja")
    sizes = [parameters(one) for one in (*SCHEDULES, 7e9)]
    names = [result.fit.formula, "FLOPs", "sizes", "plan --anchor", *obs.runs, *sizes]
    for page in (Shown(html.render(result)).texts, markdown.render(result).splitlines(), result.note().splitlines()):
        texts = [unescape(text.replace("\\", "")) for text in page]
        assert english(texts, *names) == []
        assert untidy([re.sub(r"`[^`]*`", "", text).replace(result.fit.formula, "") for text in texts]) == []

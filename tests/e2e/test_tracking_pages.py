"""MLflow's own pages, as whoever opens them sees a sweep and its analysis: a real server, a real browser."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from mlflow.tracking import MlflowClient

from bimix_tracking import DomainLossRecorder, Mixture, analyze, open_tracker
from bimix_tracking.data.metric_names import slug
from tests.adapters.services import MlflowServer

DOMAINS = ("code", "web", "<b>c++</b>")
SHARES = ((0.6, 0.2, 0.2), (0.2, 0.6, 0.2), (0.2, 0.2, 0.6), (0.4, 0.3, 0.3))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = shutil.which("chromium")
    if path is None or importlib.util.find_spec("playwright") is None:
        missing = "no chromium or playwright here: MLflow's pages were not opened"
        if os.environ.get("BIMIX_REQUIRE_ALL"):
            pytest.fail(missing)
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  # optional on a developer's machine

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of MLflow."""
    started = MlflowServer(tmp_path_factory.mktemp("pages"))
    yield started.address
    started.stop()


def analysed(uri: str, *, nest: bool) -> tuple[str, str, str]:
    """Return the address of the analysis, of a run of the sweep, and of the experiment."""
    run = ""
    for number, row in enumerate(SHARES):
        mixture = Mixture(dict(zip(DOMAINS, row, strict=True)))
        tracker = open_tracker(uri, run_name=f"run-{number}")
        recorder = DomainLossRecorder(DOMAINS, mixture, tracker)
        for step in range(1, 17):
            recorder.add([0, 1, 2], [3000.0 * share for share in row], [round(1000 * share) for share in row])
            if step in (1, 2, 4, 8, 16):
                recorder.add([0, 1, 2], [512 * share**-0.1 * (2 + 3 / step**0.5) for share in row], 512, split="eval")
                recorder.log_eval(step)
        recorder.finish()
        run = str(tracker.run_id)
    location = analyze(uri, tokens=1e6, write_back=True, nest=nest).location
    assert location is not None
    experiment = location.partition("/runs/")[0]
    return location, f"{experiment}/runs/{run}", f"{experiment}/runs"


@pytest.fixture(scope="module")
def pages(server: str) -> tuple[str, str, str]:
    """Return the address of an analysis, of a run of the sweep, and of the experiment: runs are under the analysis."""
    return analysed(f"mlflow+{server}#sweep", nest=True)


@pytest.fixture(scope="module")
def flat(server: str) -> tuple[str, str, str]:
    """Return the same of a sweep whose runs are beside the analysis."""
    return analysed(f"mlflow+{server}#flat", nest=False)


def opened(browser: Any, address: str, path: str = "") -> Any:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(120_000)
    page.goto(address.partition("?")[0] + path + "?workflowType=machine_learning")
    return page


def test_the_link_leads_to_the_pages_of_training(browser: Any, pages: tuple[str, str, str]) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(120_000)
    page.goto(pages[0])
    page.get_by_text("Model registry").wait_for()  # not those of GenAI, where MLflow else opens


def test_runs_are_nested_under_the_analysis(browser: Any, pages: tuple[str, str, str]) -> None:
    page = opened(browser, pages[2])
    page.get_by_role("link", name="sweep · 1M · ").wait_for()
    assert page.get_by_role("link", name="run-0").count() == 0
    page = opened(browser, pages[0])
    page.get_by_role("link", name="run-0").wait_for()
    assert page.get_by_text("bimix.recommended").count() == 1


def test_the_table_of_runs_is_sorted_by_a_proportion(browser: Any, flat: tuple[str, str, str]) -> None:
    page = browser.new_page(viewport={"width": 1600, "height": 900})
    page.set_default_timeout(120_000)
    cells = page.locator("[col-id='params.`mixture.code`']")
    for ascending in (True, False):
        page.goto("about:blank")  # else only what follows the # changes, and nothing is loaded
        order = f"orderByKey=params.%60mixture.code%60&orderByAsc={str(ascending).lower()}"
        page.goto(f"{flat[2]}?workflowType=machine_learning&{order}")
        page.get_by_role("link", name="run-0").wait_for()
        if ascending:  # MLflow remembers it
            page.get_by_role("button", name="Columns", exact=True).click()
            page.get_by_placeholder("Search columns").fill("mixture.")
            page.get_by_text("mixture.code", exact=True).first.click()
            page.keyboard.press("Escape")
        cells.first.wait_for()
        head, *shown = cells.all_inner_texts()
        assert head == "mixture.code"
        numbers = [float(cell) for cell in shown]
        assert len(numbers) == len(SHARES) + 1  # the analysis is one of them
        assert {row[0] for row in SHARES} < set(numbers)
        assert numbers == sorted(numbers, reverse=not ascending)


def test_runs_are_compared_by_their_proportions(browser: Any, server: str, flat: tuple[str, str, str]) -> None:
    number = flat[2].partition("/experiments/")[2].partition("/")[0]
    runs = [run.info.run_id for run in MlflowClient(server).search_runs([number])]
    asked = urlencode({"runs": json.dumps(runs), "experiments": json.dumps([number])})
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(120_000)
    page.goto(f"{server}/#/compare-runs?{asked}&workflowType=machine_learning")
    page.locator(".parcoords .axis-title").first.wait_for(state="attached")
    axes = page.locator(".parcoords .axis-title").all_text_contents()
    assert sorted(axes) == sorted(f"mixture.{slug(domain)}" for domain in DOMAINS)


def test_the_note_is_a_page_of_its_own(browser: Any, pages: tuple[str, str, str]) -> None:
    page = opened(browser, pages[0])
    note = page.get_by_role("table").filter(has_text="recommended").first
    note.wait_for()
    assert "<b>c++</b>" in note.inner_text()  # a name stays text
    assert page.get_by_text("For 1M tokens:").count() >= 1


def test_metrics_are_grouped_by_quantity(browser: Any, pages: tuple[str, str, str]) -> None:
    page = opened(browser, pages[1], "/model-metrics")
    assert page.get_by_text("step", exact=True).count() == 0  # MLflow has the step of each point
    for group in ("bimix", "bimix_eval_loss"):
        page.get_by_text(group, exact=True).first.wait_for()
    page.get_by_text("code", exact=True).first.wait_for()  # a chart of the group, without its prefix


def test_the_report_lives_in_mlflows_frame(browser: Any, pages: tuple[str, str, str]) -> None:
    page = opened(browser, pages[0], "/artifacts/bimix/report.html")
    frame = page.frame_locator("iframe")
    frame.locator("#explorer").wait_for()
    frame.locator("#preset").select_option(label="reference")
    frame.locator("#gain").get_by_text("0.0000").wait_for()  # against itself


@pytest.mark.parametrize(
    ("file", "text"), [("mixture.yaml", "predicted_gain_over_reference"), ("observations.csv", "proportion/code")]
)
def test_files_are_shown(browser: Any, pages: tuple[str, str, str], file: str, text: str) -> None:
    page = opened(browser, pages[0], f"/artifacts/bimix/{file}")
    page.get_by_text(text).first.wait_for()

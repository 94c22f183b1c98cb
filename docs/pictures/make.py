"""Make the pictures of the documentation from what `make demo` left: `python docs/pictures/make.py demo-results`.

The report as a page, and MLflow's own pages of the same runs, in Chromium. It takes a minute; no training.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from PIL import Image
from playwright.sync_api import sync_playwright

from bimix_tracking import analyze, open_source
from bimix_tracking.analysis.earlier import earlier

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.adapters.services import MlflowServer  # noqa: E402  # the repository isn't on the path before

HERE = Path(__file__).parent
_NO_PATHS = """() => document.querySelectorAll('*').forEach(element => {
  if (!element.children.length && element.textContent.includes('file://')) element.style.visibility = 'hidden';
})"""
"""Folders of whoever makes the pictures are nobody's business."""
SIZE = {"width": 1280, "height": 860}
FIRST_SCREEN = {"width": 1280, "height": 640}
PHONE = {"width": 390, "height": 844}


def main() -> None:
    """Write the PNG files beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=lambda text: Path(text).resolve(), help="The folder that `make demo` left.")
    parser.add_argument("--browser", default="/usr/bin/chromium")
    asked = parser.parse_args()
    database = f"sqlite:///{asked.demo / 'mlflow.db'}"
    store = f"mlflow+{database}#pilot"
    with sync_playwright() as play, tempfile.TemporaryDirectory() as folder:
        browser = play.chromium.launch(executable_path=asked.browser, args=["--no-sandbox", "--disable-gpu"])
        reports(browser, asked.demo / "analysis" / "report.html")
        in_japanese(store, asked.demo / "analysis", Path(folder))
        shot(browser, (Path(folder) / "report.html").as_uri(), "report-ja")
        server = MlflowServer(Path(folder), store=database)
        try:
            mlflow_pages(browser, server.address, store)
        finally:
            server.stop()
        browser.close()


def reports(browser: Any, page: Path) -> None:
    """Take the report in light and dark and on a phone, and its explorer."""
    shot(browser, page.as_uri(), "report-light")
    shot(browser, page.as_uri(), "report-dark", color_scheme="dark")
    shot(browser, page.as_uri(), "report-phone", viewport=PHONE, device_scale_factor=2, is_mobile=True)
    opened = browser.new_page(viewport=SIZE)
    opened.goto(page.as_uri())
    save(opened.locator("#explorer").screenshot(), "explorer")
    opened.close()


def in_japanese(store: str, demo: Path, out: Path) -> None:
    """Make the demo's analysis again, in Japanese: of its own runs, for those that checked it came after."""
    then = earlier(demo)
    obs = open_source(store).observations()
    names = {number: name for name, number in obs.run_ids.items()}
    sweep = obs.only([names[number] for number in then["runs"]])
    analyze(sweep, tokens=then["tokens"], reference=then["reference"], lang="ja", out=out)


def shot(browser: Any, address: str, name: str, **context: Any) -> None:
    """Take the first screen of a page."""
    opened = browser.new_context(**({"viewport": FIRST_SCREEN} | context)).new_page()
    opened.goto(address)
    save(opened.screenshot(), name)
    opened.close()


def mlflow_pages(browser: Any, server: str, store: str) -> None:
    """Take MLflow's pages: the runs, the analysis, a run's metrics, the report, the mixture."""
    runs = open_source(store).records()
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("pilot")
    if experiment is None:
        raise SystemExit(f"{store} has no experiment 'pilot'")
    # The first one: the verification came after it.
    (found,) = client.search_runs(
        [experiment.experiment_id], "tags.`bimix.role` = 'analysis'", order_by=["attribute.start_time"], max_results=1
    )
    analysis = found.info.run_id
    base = f"{server}/#/experiments/{experiment.experiment_id}/runs"
    opened = browser.new_page(viewport=SIZE)
    opened.set_default_timeout(90_000)
    # MLflow opens its assistant on a first visit, over what is to be seen.
    opened.goto(server)
    opened.evaluate("localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false')")
    opened.evaluate("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
    for name, path, sign in (
        ("mlflow-runs", "", "pilot · "),
        ("mlflow-run", f"/{analysis}", "About this run"),
        ("mlflow-metrics", f"/{runs[0].run_id}/model-metrics", "bimix_eval_loss"),
        ("mlflow-report", f"/{analysis}/artifacts/bimix/report.html", "report.html"),
        ("mlflow-mixture", f"/{analysis}/artifacts/bimix/mixture.yaml", "mixture.yaml"),
    ):
        opened.goto("about:blank")  # else only what follows the # changes, and nothing is loaded
        opened.goto(f"{base}{path}?workflowType=machine_learning")
        opened.get_by_text(sign).first.wait_for()
        if name == "mlflow-runs":
            choose_columns(opened)
        if name == "mlflow-report":
            opened.frame_locator("iframe").locator("#explorer").wait_for()
        opened.wait_for_timeout(2500)  # charts are drawn a little after their names
        opened.evaluate(_NO_PATHS)
        save(opened.screenshot(), name)
    opened.close()


def choose_columns(opened: Any) -> None:
    """Show the nominal proportions in the table of runs, in place of what is empty."""
    opened.get_by_role("button", name="Columns").click()
    nodes = opened.locator("[class*=tree-treenode]")
    for name in ("Dataset", "Source", "Models"):
        nodes.filter(has=opened.get_by_title(name, exact=True)).locator("[class*=tree-checkbox]").first.click()
    opened.get_by_placeholder("Search columns").fill("mixture.")
    opened.wait_for_timeout(500)
    nodes.filter(has_text="Parameters").locator("[class*=tree-checkbox]").first.click()
    opened.keyboard.press("Escape")


def save(picture: bytes, name: str) -> None:
    """Write a PNG of 256 colours: a third of the bytes."""
    image = (
        Image.open(io.BytesIO(picture))
        .convert("RGB")
        .quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    )
    path = HERE / f"{name}.png"
    image.save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

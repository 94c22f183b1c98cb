"""How heavy the report is: its size, and how long Chromium takes until the explorer answers.

22 domains, 60 runs of 20 checkpoints, all laws, 200 replicates; medians of several loads from disk.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright
from sweeps import simulated

from bimix_tracking import analyze
from bimix_tracking.report import html

_READY = """() => {
  const ready = performance.getEntriesByName('explorer')[0];
  return [ready.startTime, ready.duration];
}"""
# From a change to the frame after it is shown.
_MOVE = """() => new Promise(done => {
  const slider = document.querySelector('tr[data-domain] input[type=range]');
  const start = performance.now();
  slider.value = 0.1 + 0.1 * Math.random();
  slider.dispatchEvent(new Event('input', {bubbles: true}));
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
})"""


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domains", type=int, default=22)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--browser", default="/usr/bin/chromium")
    asked = parser.parse_args()

    obs = simulated(asked.domains, asked.runs, 20)
    found = analyze(obs, tokens=1e11, law="ensemble")  # the heaviest: all laws for each domain
    begin = time.perf_counter()
    page = html.render(found)
    rendered = time.perf_counter() - begin
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        file = Path(folder) / "report.html"
        file.write_text(page, encoding="utf-8")
        opened = play.chromium.launch(executable_path=asked.browser, args=["--no-sandbox", "--disable-gpu"])
        ready, moves = [], []
        for _ in range(asked.repeats):
            shown = opened.new_page()
            shown.goto(file.as_uri())
            shown.locator("#explorer").wait_for()
            begun, took = shown.evaluate(_READY)
            ready.append(begun + took)
            moves += [shown.evaluate(_MOVE) for _ in range(3)]
            shown.close()
        opened.close()
    print(f"{asked.domains} domains, {asked.runs} runs, law {found.fit.law}; medians of {asked.repeats} loads:\n")
    print("| | |\n|---|---|")
    print(f"| size of report.html | {len(page.encode()) / 1e6:.2f} MB |")
    print(f"| Python makes it in | {rendered:.2f} s |")
    print(f"| from opening to an explorer that answers | {statistics.median(ready):.0f} ms |")
    print(f"| a slider moved to all numbers and intervals shown | {statistics.median(moves):.0f} ms |")


if __name__ == "__main__":
    main()

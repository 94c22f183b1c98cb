"""The report in a real browser: from disk and in a sandboxed frame, by mouse and keyboard, light, dark and on paper."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from bimix_tracking import Mixture, Observations, analyze
from bimix_tracking.analysis.result import Analysis
from bimix_tracking.data.targets import Target
from bimix_tracking.data.weights import objective_weights
from bimix_tracking.entropy.domain_counts import EntropySettings
from bimix_tracking.entropy.measuring import corpus_entropies
from bimix_tracking.errors import RecommendationError
from bimix_tracking.recommendation.guards import parse_guard
from bimix_tracking.report import html

HOSTILE = (
    "<script>alert(1)</script>",
    "a|b",
    "</script><img src=x onerror=alert(2)>",
    "n" * 200,
    "W" * 60,
    "עברית ערבית",
)
LAWS = ("bimix", "transfer", "additive", "exponential", "auto")


def sweep(
    domains: Sequence[str],
    runs: int,
    checkpoints: int = 6,
    *,
    seed: int = 7,
    noise: float = 2e-3,
    first: Sequence[float] = (),
) -> Observations:
    """Return losses in which each domain is helped a little by the one after it; `first` is the first run's mixture."""
    draw = np.random.default_rng(seed)
    shares = draw.dirichlet(np.full(len(domains), 2.0), size=runs)
    if first:
        shares[0] = first
    volumes = np.geomspace(1e8, 1e10, checkpoints).round()
    effective = shares + 0.2 * np.roll(shares, 1, axis=1)
    rows = []
    for run in range(runs):
        for volume in volumes:
            level = (300 + 40 * np.arange(len(domains)) % 7) * volume**-0.35 + 1 + 0.1 * (np.arange(len(domains)) % 5)
            losses = effective[run] ** (-0.05 - 0.02 * (np.arange(len(domains)) % 4)) * level
            losses = losses * (1 + noise * draw.standard_normal(len(domains)))
            proportions = {f"p{i}": share for i, share in enumerate(shares[run])}
            rows.append(
                {"run": f"run-{run}", "tokens": volume, **proportions, **{f"l{i}": v for i, v in enumerate(losses)}}
            )
    return Observations.from_wide(
        pd.DataFrame(rows),
        proportions={domain: f"p{i}" for i, domain in enumerate(domains)},
        losses={domain: f"l{i}" for i, domain in enumerate(domains)},
        tokens="tokens",
        run="run",
        source="<b>sweep</b> of a test",
    )


TASKS = {
    "humaneval": (0, -2.0, 1.6, 0.0, "code"),
    "mbpp": (0, -1.4, 1.4, 0.0, "code"),
    "code_qa": (0, -0.5, 1.0, 0.25, "code"),
    "gsm8k": (1, -1.8, 1.5, 0.0, "knowledge"),
    "mmlu": (2, -1.2, 1.2, 0.25, "knowledge"),
    "hellaswag": (2, -0.4, 0.9, 0.25, "knowledge"),
    "arc": (2, -0.6, 0.8, 0.25, "knowledge"),
    "coin": (0, 0.0, 0.0, 0.0, "knowledge"),
}
"""Name → the domain that it follows, its logit without any of it, its slope in √proportion, chance level, group."""


def judged(runs: int = 16, seed: int = 0) -> Observations:
    """Return a sweep of three domains whose ten targets are benchmarks in two groups; `coin` is noise."""
    draw = np.random.default_rng(seed)
    shares = draw.dirichlet([2, 2, 2], runs)
    table = pd.DataFrame(shares, columns=["code", "math", "web"])
    table = table.assign(run=[f"run-{i}" for i in range(runs)], tokens=1e9)
    targets = [
        Target("gsm_bpb", "bpb", group="knowledge"),
        Target("judge", "score", higher_is_better=True, group="code"),
    ]
    for name, (domain, start, slope, chance, group) in TASKS.items():
        right = chance + (1 - chance) / (1 + np.exp(-start - slope * np.sqrt(shares[:, domain])))
        table[name] = draw.binomial(2000, right) / 2000
        targets.append(Target(name, "accuracy", questions=2000, chance=chance, group=group))
    table["gsm_bpb"] = (1.5 - 0.4 * np.sqrt(shares[:, 1])) * np.exp(0.003 * draw.standard_normal(runs))
    table["judge"] = 40 + 20 * shares[:, 0] + 0.3 * draw.standard_normal(runs)
    return Observations.from_wide(
        table, proportions=["code", "math", "web"], losses=[], targets=targets, tokens="tokens", run="run"
    )


PRESENT = Mixture({"code": 0.2, "math": 0.2, "web": 0.6})
COUNTED = {name: 1.0 for name in TASKS if name != "coin"}
GUARDS = ("hellaswag>=-1pp", "mmlu>=-5%", "gsm_bpb<=+0.5%")


@pytest.fixture(scope="module")
def benchmarks() -> Analysis:
    return analyze(judged(), 1e9, reference=PRESENT, weights=COUNTED, guardrails=GUARDS, replicates=60)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = shutil.which("chromium")
    if path is None or importlib.util.find_spec("playwright") is None:
        missing = "no chromium or playwright here: the report was not opened in a browser"
        if os.environ.get("BIMIX_REQUIRE_ALL"):
            pytest.fail(missing)
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  # optional on a developer's machine

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def found() -> Analysis:
    return analyze(sweep(("code", "web", "math", "books"), 14), tokens=3e10, available_tokens={"code": 2e9})


class Opened:
    """A page, what it complained of, and what it shows."""

    def __init__(self, browser: Any, file: Path, **context: Any) -> None:
        self.complaints: list[str] = []
        self.page = browser.new_context(viewport={"width": 1200, "height": 900}, **context).new_page()
        self.page.set_default_timeout(120_000)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on(
            "request",
            lambda request: self.complaints.extend([] if request.url == file.as_uri() else [f"loads {request.url}"]),
        )
        self.page.goto(file.as_uri())
        self.root: Any = self.page

    def settle(self) -> None:
        """Wait for the frame in which changes are shown."""
        self.root.locator("body").evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")

    def mixture(self) -> Mixture:
        text = self.root.locator("#yaml").input_value()
        return Mixture(yaml.safe_load(text)["mixture"])

    def values(self, cell: str) -> list[float]:
        shown = self.root.locator(cell).evaluate_all("cells => cells.map(cell => Number(cell.dataset.value))")
        return [float(value) for value in shown]

    def slide(self, place: int, value: float) -> None:
        slider = self.root.locator("tr[data-domain] input[type=range]").nth(place)
        slider.evaluate(
            "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', {bubbles: true})); }",
            value,
        )
        self.settle()


def written(result: Analysis, folder: Path) -> Path:
    file = folder / "report.html"
    file.write_text(html.render(result), encoding="utf-8")
    return file


def sums(result: Analysis, losses: Mapping[Any, float]) -> float:
    weights = result.recommendation.weights
    return sum(weights[target] * loss for target, loss in losses.items())


@pytest.mark.parametrize("law", LAWS)
def test_the_explorer_predicts_what_the_fit_predicts(browser: Any, tmp_path: Path, law: str) -> None:
    weights = {"web": 2.0, "math": 0.0}
    result = analyze(sweep(("code", "web", "math", "books"), 14), tokens=3e10, law=law, weights=weights, replicates=60)
    opened = Opened(browser, written(result, tmp_path))
    fit, page = result.fit, opened.page

    presets = page.locator("#preset option").count() - 1
    assert presets >= 2 + len(result.observations.runs)
    for moment in range(presets + 12):
        if moment < presets:
            page.select_option("#preset", str(moment))
        else:
            opened.slide(moment % 4, 0.07 * (moment % 11) + 0.01)
            page.locator("#volume").evaluate(
                "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }",
                8.0 + 0.3 * (moment - presets),
            )
        opened.settle()
        mixture, tokens = opened.mixture(), opened.values("#volume-text")[0]
        expected = fit.predict(mixture, tokens).iloc[0].to_dict()
        reference = fit.predict(result.recommendation.reference, tokens).iloc[0].to_dict()
        assert opened.values(".loss") == pytest.approx([expected[d] for d in fit.domains], rel=1e-9)
        assert opened.values("#sum")[0] == pytest.approx(sums(result, expected), rel=1e-9)
        assert opened.values("#gain")[0] == pytest.approx(sums(result, expected) - sums(result, reference), abs=1e-8)
    assert opened.complaints == []


def test_the_explorer_predicts_benchmarks_in_their_own_units(
    browser: Any, benchmarks: Analysis, tmp_path: Path
) -> None:
    opened = Opened(browser, written(benchmarks, tmp_path))
    fit, rec, page = benchmarks.fit, benchmarks.recommendation, opened.page
    working = objective_weights(rec.weights, fit.links)
    names = [str(row) for row in page.locator("tr[data-target] th").evaluate_all("all => all.map(one => one.title)")]
    assert sorted(names) == sorted(name for name, value in rec.predicted.items() if np.isfinite(value))
    guarded = [(one, parse_guard(one.guard)) for one in rec.guards]

    seen = set()
    for moment in range(page.locator("#preset option").count() + 5):
        if moment < page.locator("#preset option").count() - 1:
            page.select_option("#preset", str(moment))
        else:
            opened.slide(moment % 3, 0.09 * (moment % 11) + 0.01)
        opened.settle()
        mixture = opened.mixture()
        values, reference = (fit.predict(one, 1e9).iloc[0] for one in (mixture, rec.reference))
        assert opened.values("tr[data-target] .value") == pytest.approx(values[names].tolist(), rel=1e-9)
        assert opened.values("tr[data-target] .shift") == pytest.approx((values - reference)[names].tolist(), abs=1e-9)
        losses = fit.losses(mixture, 1e9).iloc[0]
        assert opened.values("#sum")[0] == pytest.approx(
            sum(w * losses[t] for t, w in working.items() if w > 0), rel=1e-9
        )
        broken = []
        for place, (one, guard) in enumerate(guarded):
            scale = abs(reference[one.target]) if guard.unit == "relative" else 1.0
            limit = reference[one.target] + guard.amount * scale
            off = limit - values[one.target] if guard.sign == ">=" else values[one.target] - limit
            broken += [place] if off > 1e-5 else []
        line = page.locator("#explorer-guards")
        assert json.loads(line.get_attribute("data-broken")) == broken
        assert line.inner_text().startswith(f"Guards kept: {len(guarded) - len(broken)} of {len(guarded)}.")
        assert all((guarded[place][0].guard in line.inner_text()) for place in broken)
        seen.add(len(broken))
    assert {0, 1} <= seen  # kept on the recommended mixture, broken on others
    assert opened.complaints == []


def test_its_intervals_of_benchmarks_are_those_of_the_analysis(
    browser: Any, benchmarks: Analysis, tmp_path: Path
) -> None:
    opened = Opened(browser, written(benchmarks, tmp_path))
    assert benchmarks.replicates is not None
    low, high = benchmarks.replicates.interval(benchmarks.recommendation.mixture, 1e9)
    rows = opened.page.locator("tr[data-target]")
    for place in range(rows.count()):
        name = rows.nth(place).locator("th").get_attribute("title")
        cell = rows.nth(place).locator(".ends")
        ends = cell.evaluate("c => [Number(c.dataset.low), Number(c.dataset.high)]")
        wide = float(high[name][0] - low[name][0])
        assert ends == pytest.approx([low[name][0], high[name][0]], abs=0.01 * wide), name
        if name in TASKS:
            assert cell.inner_text().count("%") == 1


def test_the_explorer_predicts_targets_that_are_no_domains(browser: Any, tmp_path: Path) -> None:
    obs = sweep(("code", "web", "math", "books"), 14)
    losses = obs.losses.assign(domain=obs.losses["domain"].astype(str) + " exam")
    result = analyze(Observations(obs.mixtures, losses), tokens=3e10, law="transfer", replicates=0)
    opened = Opened(browser, written(result, tmp_path))

    for moment in range(opened.page.locator("#preset option").count() - 1):
        opened.page.select_option("#preset", str(moment))
        opened.settle()
        expected = result.fit.predict(opened.mixture(), opened.values("#volume-text")[0]).iloc[0]
        assert opened.values("#sum")[0] == pytest.approx(float(expected.sum()), rel=1e-9)
    assert opened.complaints == []


def test_the_explorers_intervals_are_those_of_the_analysis(browser: Any, found: Analysis, tmp_path: Path) -> None:
    opened = Opened(browser, written(found, tmp_path))
    rec, replicates = found.recommendation, found.replicates
    assert replicates is not None
    assert rec.uncertainty is not None

    low, high = replicates.interval(rec.mixture, rec.tokens)
    for place, domain in enumerate(found.fit.domains):
        ends = (
            opened.page.locator(".interval").nth(place).evaluate("c => [Number(c.dataset.low), Number(c.dataset.high)]")
        )
        wide = float(high[domain][0] - low[domain][0])
        assert ends == pytest.approx([low[domain][0], high[domain][0]], abs=0.01 * wide)
    # Half precision and the order of quantiles: a hundredth of the width.
    gain = opened.page.locator("#gain").evaluate("c => [Number(c.dataset.low), Number(c.dataset.high)]")
    wide = rec.uncertainty.gain[1] - rec.uncertainty.gain[0]
    assert gain == pytest.approx(rec.uncertainty.gain, abs=0.02 * wide)


def test_sliders_by_keyboard_and_mouse(browser: Any, found: Analysis, tmp_path: Path) -> None:
    opened = Opened(browser, written(found, tmp_path))
    page = opened.page
    before = opened.mixture()
    first = page.locator("tr[data-domain] input[type=range]").first

    first.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    opened.settle()
    after = opened.mixture()
    assert after["code"] == pytest.approx(round(before["code"], 3) + 0.01, abs=2e-3)
    rest = [after[d] / before[d] for d in ("web", "math", "books")]
    assert rest == pytest.approx([rest[0]] * 3)
    assert sum(after.values()) == pytest.approx(1)
    assert page.locator("#preset").input_value() == ""

    page.keyboard.press("Tab")  # the number beside it
    page.keyboard.type("40")
    page.keyboard.press("Tab")
    opened.settle()
    assert opened.mixture()["code"] == pytest.approx(0.4)

    page.keyboard.press("Space")  # and the box that holds it
    box = page.locator("tr[data-domain] input[type=range]").nth(1).bounding_box()
    page.mouse.click(box["x"] + 0.3 * box["width"], box["y"] + box["height"] / 2)
    opened.settle()
    held = opened.mixture()
    assert held["code"] == pytest.approx(0.4)
    assert held["web"] == pytest.approx(0.3, abs=0.03)

    page.locator("tr[data-domain] input[type=range]").nth(1).focus()
    page.keyboard.press("End")  # no further than what is not held
    opened.settle()
    assert dict(opened.mixture()) == pytest.approx({"code": 0.4, "web": 0.6, "math": 0.0, "books": 0.0}, abs=1e-9)

    page.locator("#reset").press("Enter")
    opened.settle()
    assert dict(opened.mixture()) == pytest.approx(dict(before))
    assert opened.complaints == []


def test_the_explorer_says_what_a_mixture_is_worth(browser: Any, found: Analysis, tmp_path: Path) -> None:
    opened = Opened(browser, written(found, tmp_path))
    answer, doubts = opened.page.locator("#explorer-answer"), opened.page.locator("#explorer-doubts")
    assert "better than the reference (90 % interval" in answer.inner_text()
    assert "3× the tokens observed: extrapolated" in doubts.inner_text()

    opened.page.select_option("#preset", label="reference")
    opened.settle()
    assert "worse than the recommended mixture" in answer.inner_text()
    opened.slide(0, 0.97)
    assert "Outside the range tried: code" in doubts.inner_text()


def test_the_yaml_is_a_mixture(browser: Any, found: Analysis, tmp_path: Path) -> None:
    opened = Opened(browser, written(found, tmp_path), permissions=["clipboard-read", "clipboard-write"])
    opened.slide(2, 0.123)
    opened.page.locator("#copy").click()
    opened.page.get_by_text("Copied.").wait_for()
    file = tmp_path / "mixture.yaml"
    file.write_text(opened.page.evaluate("navigator.clipboard.readText()"))
    assert Mixture.from_yaml(file)["math"] == pytest.approx(0.123)


def test_in_a_sandboxed_frame(browser: Any, found: Analysis, tmp_path: Path) -> None:
    text = html.render(found).replace("&", "&amp;").replace('"', "&quot;")
    host = tmp_path / "host.html"
    host.write_text(f'<iframe sandbox="allow-scripts" style="width:1150px;height:850px" srcdoc="{text}"></iframe>')
    opened = Opened(browser, host)
    opened.root = opened.page.frame_locator("iframe")

    opened.root.locator("#explorer").wait_for()
    opened.slide(0, 0.5)
    assert opened.mixture()["code"] == pytest.approx(0.5)
    opened.root.locator("#copy").click()
    opened.root.locator("#copied").get_by_text("op").wait_for()  # copied, or selected to be copied by hand
    assert opened.root.locator("#yaml").evaluate("area => area.selectionEnd - area.selectionStart") > 20
    assert [text for text in opened.complaints if "clipboard" not in text.lower()] == []


_TOUCHING = """() => {
  const bad = [];
  for (const figure of document.querySelectorAll('svg.figure')) {
    const edge = figure.getBoundingClientRect();
    const boxes = [...figure.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
    boxes.forEach(([text, a], i) => {
      if (a.left < edge.left - 1 || a.right > edge.right + 1 || a.bottom > edge.bottom + 1) bad.push('cut: ' + text);
      for (const [other, b] of boxes.slice(i + 1))
        if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 2 && b.top < a.bottom - 2)
          bad.push('touch: ' + text + ' / ' + other);
    });
  }
  return bad;
}"""
_SIDEWAYS = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


def one_domain() -> Observations:
    obs = sweep(("code", "web"), 6)
    losses = obs.losses[obs.losses["domain"] == "code"]
    return Observations(obs.mixtures, losses.reset_index(drop=True))


def failed_domain() -> Observations:
    obs = sweep(("code", "web", "math"), 6)
    losses = obs.losses.copy()
    losses.loc[losses["domain"] == "math", "loss"] = 2.0
    return Observations(obs.mixtures, losses)


ODD: dict[str, tuple[Callable[[], Observations], dict[str, Any]]] = {
    "hostile names": (lambda: sweep((*HOSTILE, "ä", "日本語"), 14), {}),
    "a failed domain": (failed_domain, {"weights": {"math": 0.0}, "law": "bimix"}),
    "losses of one domain": (one_domain, {"weights": {"web": 0.0}}),
    "a hundred domains": (lambda: sweep([f"domain-{i}" for i in range(100)], 8, 4), {"law": "bimix", "replicates": 50}),
    "two mixtures, nothing to validate": (lambda: sweep(("code", "web"), 2), {}),
    "three domains in Japanese": (lambda: sweep(("code", "web", "math"), 8), {"lang": "ja"}),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_sweep_has_a_page(browser: Any, tmp_path: Path, name: str) -> None:
    make, options = ODD[name]
    result = analyze(make(), tokens=2e10, **options)
    opened = Opened(browser, written(result, tmp_path))

    assert opened.page.locator("#explorer").is_visible()
    assert opened.page.evaluate(_TOUCHING) == []
    assert not opened.page.evaluate(_SIDEWAYS), "the page scrolls sideways"
    assert opened.complaints == []
    shown = opened.page.locator("#explorer tbody th").all_inner_texts()
    assert shown == [" ".join(domain.split()) for domain in result.fit.domains]
    opened.page.set_viewport_size({"width": 390, "height": 800})
    assert not opened.page.evaluate(_SIDEWAYS), "the page scrolls sideways on a telephone"


@pytest.mark.parametrize(("scheme", "lang"), [("light", "en"), ("dark", "en"), ("light", "ja")])
def test_no_barrier_for_who_cannot_see_or_point(browser: Any, tmp_path: Path, scheme: str, lang: str) -> None:
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415  # optional, as playwright

    result = analyze(sweep(("code", "web", "math"), 8), tokens=3e10, lang=lang, available_tokens={"code": 2e9})
    opened = Opened(browser, written(result, tmp_path), color_scheme=scheme)
    violations = Axe().run(opened.page).response["violations"]
    assert [(v["id"], v["impact"], v["nodes"][0]["html"][:200]) for v in violations] == []


def test_on_paper(browser: Any, found: Analysis, tmp_path: Path) -> None:
    opened = Opened(browser, written(found, tmp_path))
    opened.page.emulate_media(media="print")
    assert not opened.page.locator("#explorer").is_visible()
    assert opened.page.locator("svg.figure").first.is_visible()
    assert len(opened.page.pdf()) > 20_000


def test_without_scripts_the_page_says_so(browser: Any, found: Analysis, tmp_path: Path) -> None:
    opened = Opened(browser, written(found, tmp_path), java_script_enabled=False)
    assert "The mixture explorer needs scripts" in opened.page.locator("body").inner_text()
    assert not opened.page.locator("#explorer").is_visible()


@pytest.mark.parametrize(("domains", "runs"), [(("code", "web"), 1), (("code",), 4)])
def test_a_sweep_that_tells_nothing_of_mixtures_has_a_page_that_says_so(
    browser: Any, tmp_path: Path, domains: Sequence[str], runs: int
) -> None:
    with pytest.raises(RecommendationError, match="What the sweep does show is in "):
        analyze(sweep(domains, runs), tokens=2e10, out=tmp_path)

    opened = Opened(browser, tmp_path / "report.html")
    text = opened.page.locator("body").inner_text()
    assert "No mixture can be recommended from this sweep." in text
    assert "Add at least one run with another proportion of it" in text
    assert opened.page.locator("svg.figure").count() == len(domains)
    assert opened.page.evaluate(_TOUCHING) == []
    assert opened.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_entropies(browser: Any, tmp_path: Path, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415  # optional, as playwright

    corpora = {}
    for number, name in enumerate(("a|b", "<script>alert(1)</script>", "עברית ערבית")):
        corpora[name] = tmp_path / f"{number}.txt"
        corpora[name].write_text("".join(f"{number} {word * (number + 3) % 97}\n" for word in range(2000)))
    corpus_entropies(corpora, EntropySettings(embedder=None)).save(tmp_path)
    opened = Opened(browser, tmp_path / "entropy.html", color_scheme=scheme)

    assert opened.page.locator("tbody th").first.inner_text() == "a|b"
    assert opened.page.evaluate(_TOUCHING) == []
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in Axe().run(opened.page).response["violations"]] == []
    assert opened.complaints == []

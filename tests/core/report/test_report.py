"""The report says what the analysis found, keeps anyone's names as text, and opens with nothing but a browser."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
import sys
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bimix_tracking.analysis.pipeline import analyze
from bimix_tracking.analysis.result import Analysis
from bimix_tracking.data.observations import Observations
from bimix_tracking.display import svg
from bimix_tracking.display.proportions import mixture_chart
from bimix_tracking.display.texts import listing, width
from bimix_tracking.errors import MissingDependencyError
from bimix_tracking.fitting.fit import fit_law
from bimix_tracking.fitting.outcome import Outcome
from bimix_tracking.mixture import Mixture
from bimix_tracking.quantities import digits, nats
from bimix_tracking.quantities import tokens as show_tokens
from bimix_tracking.recommendation.costs import Costs
from bimix_tracking.report import content, explorer, figures, gains, html, markdown, mixture_figures, run_noise
from bimix_tracking.report.language import Language

HOSTILE = ("<script>alert(1)</script>", "a|b", "ä", "n" * 200)
VOLUMES = tuple(1e6 * 2.0**k for k in range(6))


def sweep(
    mixtures: Mapping[str, Sequence[float]],
    domains: Sequence[str] = ("code", "web", "math"),
    *,
    volumes: Sequence[float] = VOLUMES,
    off: Mapping[str, float] | None = None,
    alphas: Sequence[float] | None = None,
    spoil: bool = False,
) -> Observations:
    """Return losses that follow the law exactly, times 1 + `off` of the run."""
    rows = []
    for run, shares in mixtures.items():
        for volume in volumes:
            row: dict[str, object] = {"run": run, "tokens": volume}
            for i, share in enumerate(shares):
                alpha = 0.05 + 0.03 * (i % 5) if alphas is None else alphas[i]
                level = (200 + 40 * i) * max(volume, 1.0) ** -0.4 + 1 + 0.2 * i
                row[f"p{i}"] = share
                row[f"l{i}"] = max(share, 1e-3) ** -alpha * level * (1 + (off or {}).get(run, 0.0))
            rows.append(row)
    if spoil:
        rows[1]["l0"] = float("nan")
    return Observations.from_wide(
        pd.DataFrame(rows),
        proportions={domain: f"p{i}" for i, domain in enumerate(domains)},
        losses={domain: f"l{i}" for i, domain in enumerate(domains)},
        tokens="tokens",
        run="run",
        source="test sweep",
    )


SPREAD = {"one": (0.6, 0.2, 0.2), "two": (0.2, 0.6, 0.2), "three": (0.2, 0.2, 0.6), "four": (0.4, 0.3, 0.3)}


def many(domains: Sequence[str], runs: int, checkpoints: int) -> Observations:
    shares = np.random.default_rng(7).dirichlet(np.ones(len(domains)), size=runs)
    volumes = np.geomspace(1e8, 1e10, checkpoints).round().tolist()
    return sweep({f"run-{i}": row.tolist() for i, row in enumerate(shares)}, domains, volumes=volumes)


class Read(HTMLParser):
    """What a browser would make of the page: its elements, their attributes and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def plain() -> Analysis:
    return analyze(sweep(SPREAD), tokens=32e6)


def test_both_pages_say_the_numbers_of_the_analysis(plain: Analysis) -> None:
    rec = plain.recommendation
    for text in (Read(html.render(plain)).text, markdown.render(plain)):
        assert f"Data mixture for {show_tokens(rec.tokens)} tokens" in text
        assert plain.verdict.sentence in text
        assert f"{nats(rec.gain)} nats" in text
        for domain in plain.fit.domains:
            assert f"{100 * rec.mixture[domain]:.2f}" in text
            assert f"{100 * rec.reference[domain]:.2f}" in text
            assert nats(rec.predicted[domain]) in text
            assert nats(rec.reference_predicted[domain]) in text
            for value in plain.fit.targets[domain].parameters.values():
                assert digits(value) in text
        assert plain.fit.data_hash in text
        assert plain.created in text
        assert "test sweep" in text


def test_the_answer_names_the_largest_domain_first(plain: Analysis) -> None:
    rec = plain.recommendation
    largest = max(rec.mixture, key=lambda domain: rec.mixture[domain])
    assert f"For 32M tokens: {100 * rec.mixture[largest]:.0f} % {largest}, " in content.page(plain).answer


def test_weights_and_another_reference_are_named() -> None:
    obs = sweep(SPREAD)
    reference = Mixture({"code": 0.7, "web": 0.2, "math": 0.1})
    page = content.page(analyze(obs, tokens=32e6, weights={"web": 2}, reference=reference))
    assert "(70 % code, 20 % web, 10 % math)" in page.gain
    assert "nats, weighted sum of 'code', 'web', 'math'" in page.gain
    assert {one.target: one.weight for one in page.gains} == {"code": "1", "web": "2", "math": "1"}


def test_totals_are_the_weighted_sums_and_their_difference_the_gain() -> None:
    result = analyze(sweep(SPREAD), tokens=32e6, weights={"web": 2, "math": 0.5})
    rec = result.recommendation
    ours = sum(rec.weights[d] * rec.predicted[d] for d in result.fit.domains)
    theirs = sum(rec.weights[d] * rec.reference_predicted[d] for d in result.fit.domains)
    total = content.page(result).total
    assert (total.recommended, total.reference, total.change) == (nats(ours), nats(theirs), nats(ours - theirs))


def test_hostile_names_stay_text() -> None:
    shares = np.random.default_rng(3).dirichlet(np.full(4, 2.0), size=6)
    mixtures = {f"<img src=x onerror=alert({i})>|`{i}`": row.tolist() for i, row in enumerate(shares)}
    result = analyze(sweep(mixtures, HOSTILE, spoil=True), tokens=32e6)
    read = Read(html.render(result))
    assert not {"img", "iframe", "object", "link", "base", "form"} & set(read.tags)
    assert read.tags.count("script") == 2  # the explorer's and its data
    assert not set(re.findall(r"<[a-z]\S*", explorer.as_script({"names": [*HOSTILE, *mixtures]})))
    assert not [name for _, name, _ in read.attributes if name.startswith("on")]
    for name in (*HOSTILE, *mixtures):
        assert name in read.text
    table = markdown.render(result)
    assert "<script" not in table
    assert "<img" not in table
    assert r"a\|b" in table
    for block in table.split("\n\n"):
        if block.startswith("|"):
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in block.splitlines()}) == 1, block


@pytest.mark.parametrize("text", ["a\nb", "a\r\n| b |", "a\u2028b", "a\x00b", "a\u202eb"])
def test_a_name_stays_on_its_line(text: str) -> None:
    assert markdown.escape(text).isprintable()
    assert svg.label(0, 0, text).isprintable()


def test_the_page_loads_nothing_and_runs_one_script(plain: Analysis) -> None:
    page = html.render(plain)
    loads = [value for _, name, value in Read(page).attributes if name in {"src", "href", "data", "action", "srcset"}]
    assert loads == []
    assert not re.search(r"https?://|url\(|@import", page)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    script = page.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy is not None
    assert policy[1].startswith(f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}';")


def test_a_large_sweep_stays_small_and_finite() -> None:
    page = html.render(analyze(many([f"domain-{i}" for i in range(22)], 60, 20), 1e11, law="transfer", replicates=30))
    assert len(page.encode()) < 3_000_000
    assert not re.search(r'[ "ML](nan|inf)', page)
    assert page.count('<svg class="figure"') == 3 * 22 + 23  # three panels a domain, held out, sum


def test_repeats_that_differ_by_more_than_the_gain_are_said_to_hide_it() -> None:
    twice = {**SPREAD, "four again": SPREAD["four"]}
    obs = sweep(twice, off={"four again": 0.2})
    result = analyze(obs, tokens=32e6)
    found = run_noise.measure(obs, result.recommendation.weights)
    last = obs.losses[obs.losses["tokens"] == VOLUMES[-1]].groupby("run")["loss"].sum()
    assert found.difference == pytest.approx(abs(last["four"] - last["four again"]))
    assert found.difference > result.recommendation.gain
    said = content.page(result).noise
    assert (
        said == f"Repeated runs differ by up to {nats(found.difference)} nats (pairs: 1). "
        "The predicted gain is smaller than that."
    )


def test_a_gain_above_the_difference_of_repeats_is_said_to_be_outside() -> None:
    twice = {**SPREAD, "four again": SPREAD["four"]}
    result = analyze(sweep(twice, off={"four again": 1e-5}), tokens=32e6)
    assert re.search(r"The predicted gain is [\d,]+× as large\.", content.page(result).noise)


def test_noise_counts_weights_and_the_last_shared_checkpoint_only() -> None:
    twice = {"a": (0.5, 0.3, 0.2), "b": (0.5, 0.3, 0.2), "c": (0.2, 0.3, 0.5)}
    obs = sweep(twice, off={"b": 0.01})
    cut = Observations(obs.mixtures, obs.losses[~((obs.losses["run"] == "b") & (obs.losses["tokens"] > VOLUMES[3]))])
    found = run_noise.measure(cut, {"code": 1.0, "web": 3.0, "math": 0.0})
    at = obs.losses[(obs.losses["tokens"] == VOLUMES[3]) & (obs.losses["run"] == "a")].set_index("domain")["loss"]
    assert found.tokens == VOLUMES[3]
    assert found.difference == pytest.approx(0.01 * (at["code"] + 3 * at["web"]))
    assert (found.repeated, found.compared, found.runs) == (1, 1, ("a", "b"))


def test_without_repeats_the_noise_is_unknown(plain: Analysis) -> None:
    assert "no mixture was run twice" in content.page(plain).noise
    apart = sweep(SPREAD).losses
    apart.loc[apart["run"] == "two", "tokens"] *= 1.5
    repeats = sweep(dict.fromkeys(SPREAD, (0.2, 0.3, 0.5)), off={"two": 0.01, "three": 0.02, "four": 0.03})
    repeated = Observations(repeats.mixtures.loc[["one", "two"]], apart)
    assert "share no token count with all weighted targets" in run_noise.measure(
        repeated, dict.fromkeys(SPREAD, 1.0)
    ).sentences(0.1)


def test_repeats_without_any_difference_are_doubted() -> None:
    obs = sweep({**SPREAD, "four again": SPREAD["four"]}, off={"four again": 1e-12})
    assert obs.runs[-1] == "four again"
    rounded = Observations(obs.mixtures, obs.losses.round({"loss": 6}))  # as a table may hold them
    assert "same seed" in content.page(analyze(rounded, tokens=32e6)).noise
    assert "no mixture was run twice" in run_noise.measure(
        sweep({**SPREAD, "four again": SPREAD["four"]}), dict.fromkeys(("code", "web", "math"), 1.0)
    ).sentences(0.1)


def test_notes_and_their_absence_appear(plain: Analysis) -> None:
    assert "excluded or adjustednothing" in Read(html.render(plain)).text
    assert "- nothing" in markdown.render(plain)
    spoiled = analyze(sweep(SPREAD, spoil=True), tokens=32e6)
    assert "excluded: loss is NaN (run 'one', domain 'code'; 1×)" in Read(html.render(spoiled)).text
    assert "excluded: loss is NaN" in markdown.render(spoiled)


def test_many_notes_of_one_kind_are_one_line_with_their_sum() -> None:
    result = analyze(sweep(SPREAD, volumes=(0.0, *VOLUMES)), tokens=32e6)
    assert len(result.fit.notes) == 12
    (said,) = content.page(result).notes
    assert "evaluated before training" in said
    assert "12×" in said
    assert "4 runs" in said
    assert "3 domains" in said


def test_failed_fits_and_held_domains_come_with_what_to_do() -> None:
    few = analyze(sweep(SPREAD, volumes=VOLUMES[:2]), tokens=2e6)
    assert {fitted.outcome for fitted in few.fit.targets.values()} == {Outcome.TOO_FEW_CHECKPOINTS}
    rising = analyze(sweep(SPREAD, alphas=(0.1, -0.1, 0.1)), tokens=32e6)
    assert set(rising.recommendation.held) == {"web"}
    for result, outcome in ((few, Outcome.TOO_FEW_CHECKPOINTS), (rising, Outcome.ALPHA_NOT_POSITIVE)):
        page = html.render(result)
        assert 'class="failed"' in page
        for text in (Read(page).text, markdown.render(result).replace("\\", "")):
            assert outcome.remedy in text
    assert "domain 'web' has alpha" in content.page(rising).warnings[-1]


def test_figures_survive_what_cannot_be_told(plain: Analysis) -> None:
    single = sweep({"only": (0.2, 0.3, 0.5)})
    fit = fit_law(single)
    assert {fitted.outcome for fitted in fit.targets.values()} == {Outcome.SINGLE_MIXTURE}
    curves = figures.predict_curves(single, fit)
    say = Language()
    drawn = [mixture_chart(mixture_figures.rows(fit, plain.recommendation), say)]
    drawn += [gains.chart(plain.recommendation, gains.gains(plain.recommendation, single, {}), say)]
    drawn += mixture_figures.moved(fit, plain.recommendation, say)
    for target in fit.targets:
        drawn += [
            figures.training(single, fit, curves, target, target, say),
            figures.response(single, fit, plain.recommendation, target, target, say),
        ]
    assert not [figure for figure in drawn if re.search(r'[ "ML](nan|inf)', figure)]


def test_one_token_count_has_one_tick() -> None:
    axis = svg.logarithmic([2e9, 2e9], 0, 100, show_tokens)
    assert [axis.show(tick) for tick in axis.ticks] == ["2B"]
    assert axis.at(2e9) == pytest.approx(50)


@pytest.mark.parametrize(("low", "high"), [(1e6, 1e9), (1e6, 2e6), (1.00e9, 1.05e9), (5, 7e12), (9e8, 1.1e9)])
def test_log_axes_have_labels_that_do_not_touch(low: float, high: float) -> None:
    axis = svg.logarithmic([low, high], 52, 308, show_tokens)
    assert len(axis.ticks) >= 2
    ends = [(axis.at(t), width(axis.show(t)) * svg.DIGIT / 2) for t in axis.ticks]
    assert all(a + half < b - other for (a, half), (b, other) in itertools.pairwise(ends))


def test_without_jinja2_the_extra_is_named(plain: Analysis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r"jinja2 is not installed. Run: pip install 'jinja2>=3.1'"):
        html.render(plain)


def test_a_name_from_right_to_left_takes_no_number_with_it() -> None:
    assert listing({"עברית": 0.6, "web": 0.4}) == "60 % \u2068עברית\u2069, 40 % web"
    assert listing({"a\u2069\u202eb": 0.6, "web": 0.4}) == "60 % a�b, 40 % web"


def spread_of_one() -> Observations:
    """Return a sweep in which nobody varied the proportion of a domain, and one run is off."""
    mixtures = {f"run-{i}": (0.2, 0.1 * i, 0.8 - 0.1 * i) for i in range(1, 8)}
    return sweep(mixtures, off={"run-3": 0.05}, spoil=True)


@pytest.mark.parametrize(
    ("obs", "options"),
    [
        (sweep(SPREAD), {"bounds": {"code": (0.0, 0.25)}, "costs": Costs(6, 20000, 2.5)}),
        (sweep(SPREAD, spoil=True, alphas=(0.1, -0.1, 0.1)), {"law": "bimix"}),
        (
            spread_of_one(),
            {"weights": {"code": 0.0}, "prior": Mixture.uniform(("code", "web", "math")), "prior_strength": 1},
        ),
        (sweep({"one": (0.6, 0.2, 0.2), "two": (0.2, 0.2, 0.6)}), {"weights": {"web": 0.0}}),
        (sweep({**SPREAD, "again": SPREAD["one"]}, off={"again": 0.01}), {"replicates": 0}),
    ],
)
def test_nothing_of_a_japanese_page_is_in_english(obs: Observations, options: dict[str, Any]) -> None:
    result = analyze(obs, tokens=64e6, lang="ja", **options)
    formula = re.compile(r"[LE][_(].* = .*")
    for page in (
        Read(html.render(result).partition("<script")[0]).text.partition("</style>")[2],
        markdown.render(result),
    ):
        text = page.replace(result.fit.formula, "")
        sentences = re.findall(r"[A-Za-z][A-Za-z']+(?: [A-Za-z][A-Za-z']*){2,}", formula.sub("", text))
        assert [
            found for found in sentences if not found.startswith(("test sweep", "sum over laws", "in nats per token"))
        ] == []

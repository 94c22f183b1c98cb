"""The Japanese pages: no English but names, set as Japanese is, in one register and with one word for a thing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from html import unescape as html_entities
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.cells import cell_len

from bimix_tracking.analysis.pipeline import analyze
from bimix_tracking.analysis.result import Analysis
from bimix_tracking.cli.console import Manner, folded, manner
from bimix_tracking.cli.summary import print_analysis
from bimix_tracking.data.observations import Observations
from bimix_tracking.data.targets import Target
from bimix_tracking.entropy.domain_counts import EntropySettings
from bimix_tracking.entropy.measuring import corpus_entropies
from bimix_tracking.errors import RecommendationError
from bimix_tracking.laws.registry import law
from bimix_tracking.mixture import Mixture
from bimix_tracking.recommendation.costs import Costs
from bimix_tracking.report import html, markdown
from bimix_tracking.report.language import Language, catalogue, japanese

DOMAINS = ("コード", "ウェブ", "数学")
VOLUMES = [1e6, 2e6, 4e6, 8e6, 16e6, 32e6]
SPREAD = {
    "ア": (0.6, 0.2, 0.2),
    "イ": (0.2, 0.6, 0.2),
    "ウ": (0.2, 0.2, 0.6),
    "エ": (0.4, 0.3, 0.3),
    "オ": (0.3, 0.4, 0.3),
}
NAMES = {
    *("BiMix", "MLflow", "YAML", "JSON", "GPU", "ID", "id", "UTC", "nats", "nat", "NaN", "alpha", "beta", "Huber"),
    *("arXiv", "v4", "exp"),
    *("bimix", "transfer", "additive", "exponential", "ensemble", "mean"),  # laws
    *("observations.csv", "validation.json", "mixture.yaml", "report.html", "plan"),  # files, and a command
    *("python", "bimix-tracking", "numpy", "scipy", "pandas", "typer", "mlflow"),  # versions
    *("guard-probability", "pp"),  # an option, and the unit of a guard as it is written
    *("SE", "JE", "CE", "VNE", "plug-in", "grassberger", "bytes"),  # entropies
}
_KANA = "\u3040-\u30ff\u4e00-\u9fff"


def sweep(
    mixtures: Mapping[str, Sequence[float]],
    *,
    off: Mapping[str, float] | None = None,
    alphas: Sequence[float] = (0.05, 0.08, 0.11),
    volumes: Sequence[float] = VOLUMES,
    spoil: bool = False,
) -> Observations:
    """Return losses that follow the law, times 1 + `off` of the run, of runs and domains with Japanese names."""
    rows = []
    for run, shares in mixtures.items():
        for volume in volumes:
            row: dict[str, object] = {"run": run, "tokens": volume}
            for i, share in enumerate(shares):
                level = (200 + 40 * i) * volume**-0.4 + 1 + 0.2 * i
                row[f"p{i}"], row[f"l{i}"] = share, share ** -alphas[i] * level * (1 + (off or {}).get(run, 0.0))
            rows.append(row)
    if spoil:
        rows[1]["l0"] = float("nan")
    columns = range(len(DOMAINS))
    return Observations.from_wide(
        pd.DataFrame(rows),
        proportions={DOMAINS[i]: f"p{i}" for i in columns},
        losses={DOMAINS[i]: f"l{i}" for i in columns},
        tokens="tokens",
        run="run",
        source="スイープ",
    )


def noisy(runs: int, scale: float, seed: int = 1) -> Observations:
    """Return a sweep of mixtures drawn at random, whose runs are off by chance; one mixture is there twice."""
    rng = np.random.default_rng(seed)
    mixtures = {f"番号{i}": tuple(rng.dirichlet(np.full(3, 3.0))) for i in range(runs)}
    mixtures["再実行"] = mixtures["番号0"]
    return sweep(mixtures, off={run: scale * rng.standard_normal() for run in mixtures})


def judged(runs: int = 14) -> Observations:
    """Return a sweep whose targets are benchmarks in two groups, one of which is noise."""
    rng = np.random.default_rng(3)
    shares = rng.dirichlet([2, 2, 2], runs)
    table = pd.DataFrame(shares, columns=list(DOMAINS)).assign(run=[f"番号{i}" for i in range(runs)], tokens=64e6)
    targets = [Target("判定", "score", higher_is_better=True, group="文章"), Target("数学の圧縮", "bpb", group="文章")]
    for place, name in enumerate(("プログラム", "常識", "算数", "雑音")):
        right = 0.3 + (0.4 * np.sqrt(shares[:, place]) if place < 3 else np.zeros(runs))
        table[name] = rng.binomial(1000, right) / 1000
        targets.append(Target(name, "accuracy", questions=1000, group="文章" if place else "開発"))
    table["判定"] = 40 + 20 * shares[:, 0] + 0.3 * rng.standard_normal(runs)
    table["数学の圧縮"] = (1.5 - 0.4 * np.sqrt(shares[:, 2])) * np.exp(0.003 * rng.standard_normal(runs))
    return Observations.from_wide(
        table, proportions=list(DOMAINS), losses=[], targets=targets, tokens="tokens", run="run", source="スイープ"
    )


SWEEPS: dict[str, tuple[Callable[[], Observations], dict[str, Any]]] = {
    "a clear gain, with costs": (
        lambda: noisy(8, 0.001),
        {"bounds": {"コード": (0.0, 0.25)}, "costs": Costs(6, 20000, 2.5, batch_tokens=1e6)},
    ),
    "no gain": (lambda: noisy(8, 0.03), {"costs": Costs(6, 20000)}),
    "a bad fit": (lambda: noisy(8, 0.3), {}),
    "a domain that others teach": (
        lambda: sweep(SPREAD, spoil=True, alphas=(0.1, -0.1, 0.1)),
        {"law": "bimix", "weights": {"数学": 2.0}},
    ),
    "a prior": (
        lambda: sweep(SPREAD),
        {"prior": Mixture.uniform(DOMAINS), "prior_strength": 1, "weights": {"コード": 0}},
    ),
    "two mixtures": (lambda: sweep({"ア": SPREAD["ア"], "ウ": SPREAD["ウ"]}), {}),
    "one volume": (lambda: sweep(SPREAD, volumes=[1e9]), {}),
    "benchmarks, guarded": (
        judged,
        {
            "guardrails": ["常識>=-2pp", "数学の圧縮<=+1%"],
            "weights": {"プログラム": 1.0, "常識": 1.0, "算数": 1.0},
            "reference": Mixture(dict(zip(DOMAINS, (0.2, 0.4, 0.4), strict=True))),
        },
    ),
    "no replicates": (lambda: sweep(SPREAD), {"replicates": 0}),
}


class Shown(HTMLParser):
    """Every text of a page that a person meets: in elements, tooltips, labels, and in what its script says."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._inside: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"style", "script", "code"}:
            self._inside.append("json" if ("type", "application/json") in attrs else tag)
        told = {"title", "aria-label", "aria-valuetext", "placeholder", "alt", "content", "value", "label"}
        self.texts += [value for name, value in attrs if tag != "meta" and name in told and value]

    def handle_endtag(self, tag: str) -> None:
        if tag in {"style", "script", "code"}:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.texts.append(data)
        elif self._inside[-1] == "json":
            values = json.loads(data)
            self.texts += [re.sub(r"\{\w+\}", "", text) for text in values["words"].values()]
            self.texts += [preset["name"] for preset in values["presets"]]
            self.texts += [unit for _, unit in values["units"]]


def english(texts: Sequence[str], *names: str) -> list[str]:
    """Return the Latin words of texts that are no names; formulas are skipped, and letters by themselves."""
    found = []
    for text in texts:
        left = re.sub(r"`[^`]*`|[0-9a-f]{16}|\d{4}-\d\d-\d\dT\S+", " ", text)
        for name in names:
            left = left.replace(name, " ")
        words = re.findall(r"[A-Za-z][A-Za-z0-9.'-]*[A-Za-z0-9]|(?<=\d)[kMBT]\b", left)
        found += [f"{word}: {text.strip()[:80]}" for word in words if word not in NAMES]
    return found


def untidy(texts: Sequence[str]) -> list[str]:
    """Return the texts that are set as English is: half-width marks, blanks before % and beside full-width ones."""
    patterns = (
        r"\d[ \u00a0]%",
        r"[\u3001\u3002\uff09\uff1a\u300d] (?![*|])",
        rf"[{_KANA}] ?[(~?!]|[)~] ?[{_KANA}]",
        rf"[{_KANA}][:;,]",
        r"\d\.\d+\u2013\d",
    )
    return [text.strip()[:100] for text in texts if any(re.search(pattern, text.strip()) for pattern in patterns)]


@cache
def analysed(name: str) -> Analysis:
    """Return the analysis of one of the sweeps, for a page in Japanese."""
    make, options = SWEEPS[name]
    return analyze(make(), tokens=64e6, lang="ja", **options)


@pytest.mark.parametrize("name", SWEEPS)
def test_nothing_of_a_page_is_english_but_names(name: str) -> None:
    result = analysed(name)

    texts = Shown(html.render(result)).texts
    card = Shown(result._repr_html_()).texts
    for page in (texts, card, markdown.render(result).splitlines(), result.note().splitlines()):
        shown = [html_entities(text.replace("\\", "")) for text in page]
        assert len("".join(shown)) > 300
        assert english(shown, result.fit.formula) == []
        assert untidy([re.sub(r"`[^`]*`", "", text).replace(result.fit.formula, "") for text in shown]) == []
    assert any("億" in text or "万" in text for text in texts)


@pytest.mark.parametrize("name", SWEEPS)
def test_nor_of_the_answer_in_a_terminal(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = manner.set(Manner(lang="ja"))
    print_analysis(analysed(name))
    manner.reset(before)

    shown = capsys.readouterr()
    lines = [*shown.out.splitlines(), *shown.err.splitlines()]
    assert len(lines) > 8
    assert english(lines) == []
    assert untidy(lines) == []


def test_japanese_is_wrapped_where_it_may_break() -> None:
    text = "ホールドアウト誤差は 0.91%（法則なし 5.31%）、8ランでの順位相関は 0.69 です。"

    for room in range(12, 40):
        lines = folded(text, room).splitlines()
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
        assert all(cell_len(line) <= room for line in lines)
        assert not any(line[0] in "、。）％" for line in lines)
    assert folded("Held-out error 0.91 %", 8) == "Held-out error 0.91 %"


def test_nor_of_the_page_of_a_sweep_that_decides_nothing(tmp_path: Path) -> None:
    with pytest.raises(RecommendationError):
        analyze(sweep({"ア": SPREAD["ア"]}), tokens=64e6, lang="ja", out=tmp_path)

    texts = Shown((tmp_path / "report.html").read_text(encoding="utf-8")).texts
    assert english(texts, law("bimix").formula) == []
    assert untidy([text.replace(law("bimix").formula, "") for text in texts]) == []


@pytest.mark.parametrize("compare", ["equal", "all"])
def test_nor_of_the_page_of_entropies(tmp_path: Path, compare: Any) -> None:
    corpora = {}
    for number, name in enumerate(DOMAINS):
        corpora[name] = tmp_path / f"{number}.txt"
        corpora[name].write_text("".join(f"{number} {word * (number + 3) % 97}\n" for word in range(2000 + number)))
    found = corpus_entropies(corpora, EntropySettings(embedder=None))

    texts = Shown(found.files(lang="ja", compare=compare)["entropy.html"]).texts
    assert english(texts) == []
    assert untidy(texts) == []


def entries() -> Iterator[tuple[str, str]]:
    """Return the catalogue's Japanese sentences, without what is filled in and without code."""
    for key, text in catalogue("ja").items():
        yield key, re.sub(r"`[^`]*`|\b[a-z]+\([A-Z]\)", "", re.sub(r"\{+\w+(![rs])?(:[^{}]*)?\}+", "\u3007", text))


def test_the_catalogue_is_set_as_japanese_is() -> None:
    assert {key: text for key, text in entries() if untidy([text])} == {}
    assert {
        key: text
        for key, text in entries()
        if re.search(r"[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff5e\uff61-\uff9f~]", text)
    } == {}
    assert {key: text for key, text in entries() if "\u3007 %" in text} == {}


@pytest.mark.parametrize(
    ("word", "instead"),
    [
        (r"価格", "費用"),
        (r"未学習", "ホールドアウト"),
        (r"再標本|再抽出", "レプリケート"),
        (
            r"プロキシ学習|各学習|学習間|学習単位|[0-9\u3007]回の学習|つの学習|学習 ?\u3007|学習を(加え|追加|除外)",
            "ラン",
        ),
        (r"ほぼ同等", "ほぼ最適"),
        (r"当てはめ誤差|適合誤差", "フィット誤差"),
        (r"パラメーター|メモリー|ユーザー", "without the last mark of length"),
        (r"左に|除いておいた|検証用に除いた", "ホールドアウト"),
    ],
)
def test_one_word_for_a_thing(word: str, instead: str) -> None:
    assert {key: text for key, text in entries() if re.search(word, text)} == {}, f"better {instead}"


def test_sentences_are_polite_throughout() -> None:
    plain = re.compile(r"(である|だ|する|(?<!ま)した|ない|できる|れる)\u3002")
    assert {key: text for key, text in entries() if plain.search(text)} == {}


def test_numbers_and_lists_are_set_but_names_stay() -> None:
    say = Language("ja")

    assert [say(text) for text in ("41.24 %", "22.9–26.9 %", "−12.4–15.4 %", "2.1946–2.2738", "<0.1 %")] == [
        "41.24%", "22.9〜26.9%", "−12.4〜15.4%", "2.1946〜2.2738", "<0.1%",
    ]  # fmt: skip
    names = ["top 10 %", "2026-11–12", "a: b, c", "–", "v1.2–rc", "ウェブ: 日本, 英語"]
    assert [say(name) for name in names] == names
    assert japanese("ウェブ 47 %, コード 28 %。 次の文") == "ウェブ 47%、コード 28%。次の文"

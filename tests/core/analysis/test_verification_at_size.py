"""A large run against what small runs and anchors predict of it: at its own size, as far as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bimix_tracking import analyze, open_source, verify
from bimix_tracking.analysis.groups import analyze_groups
from bimix_tracking.analysis.verification import SUM, UNKNOWN
from bimix_tracking.analysis.watching import Watch, analysis_of
from bimix_tracking.errors import ObservationsError
from bimix_tracking.files.yaml_json import load_yaml
from bimix_tracking.report.language import catalogue
from tests.core.analysis.two_sizes import (  # fmt: skip
    FALL,
    LARGE,
    LAWS,
    PROGRESS,
    PROXIES,
    SCHEDULE,
    SMALL,
    observed,
    proxies,
    rows,
    train,
    truth,
)

BIG = (0.3, 0.4, 0.3)
ANCHOR = ("anchor", (0.33, 0.33, 0.34), LARGE)


def test_a_large_run_is_compared_with_the_law_at_its_size() -> None:
    good, bad, lucky = (
        verify(observed(proxies(), rows(*ANCHOR), rows("big", BIG, LARGE, off=off)), ["big"], law="bimix")
        for off in (0.0, 0.05, -0.05)
    )

    verdicts = [dict(zip(f.table["target"], f.table["verdict"], strict=True))[SUM] for f in (good, bad, lucky)]
    assert verdicts == ["inside", "above", "below"]
    expected = truth(dict(zip(LAWS, BIG, strict=True)), 1.0, LARGE)
    predicted = good.table.set_index("target")["predicted"].drop(SUM)
    assert predicted.to_dict() == pytest.approx(expected, rel=0.01)
    assert set(good.table["model_size"]) == {LARGE}
    assert good.sentences()[0].startswith("Run 'big' (310M parameters, 256M tokens) is as predicted")
    assert good.before.recommendation.model_size == LARGE
    bridge = good.after.fit.bridge
    assert bridge is not None
    assert {one.run for one in bridge.anchors} == {"anchor", "big"}


def test_nine_of_ten_large_runs_are_inside() -> None:
    inside = []
    for seed in range(6):
        new = [rows(f"big-{seed}-{i}", shares, LARGE) for i, shares in enumerate(PROXIES[:4])]
        names = [str(run[0]["run"]) for run in new]
        small = [row for i, s in enumerate(PROXIES) for row in rows(f"proxy-{seed}-{i}", s, SMALL)]
        anchors = [rows(f"anchor-{seed}-{i}", shares, LARGE) for i, shares in enumerate(PROXIES[5:7])]
        found = verify(observed(small, *anchors, *new), names, law="bimix", replicates=60)
        inside += (found.table["verdict"] == "inside").tolist()

    # 96 losses of 24 runs: a standard error of 5 % or so, for those of one sweep share its levels' error.
    assert 0.8 <= np.mean(inside) <= 1.0


def test_a_run_of_a_size_of_unknown_level_is_not_predicted_and_gives_the_level() -> None:
    found = verify(observed(proxies(), rows("big", BIG, LARGE)), ["big"], law="bimix")

    assert set(found.table["verdict"]) == {UNKNOWN}
    assert found.table[["predicted", "low", "high"]].isna().all(axis=None)
    assert np.isfinite(found.table["observed"]).all()
    assert any(
        "the level of the losses at 310M parameters was unknown without 'big'" in text for text in found.warnings
    )
    before, after = found.before.fit.bridge, found.after.fit.bridge
    assert before is not None
    assert after is not None
    assert not before.known
    assert after.known
    assert [one.run for one in after.anchors] == ["big"]
    level = next(text for text in found.sentences() if text.startswith("The level"))
    assert level.startswith("The level at 310M parameters is now known, from 'big': against 20M losses change by −")
    for domain, fall in FALL.items():
        change = after.level_at(LARGE, domain, 1.0) - after.level_at(SMALL, domain, 1.0)
        assert float(change) == pytest.approx(-fall, abs=0.01)
    assert "bimix/verified_inside" not in found.metrics()
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert {row["predicted"] for row in content["table"]} == {None}
    assert content["model_size"] == LARGE


def test_of_several_runs_of_an_unknown_level_the_order_is_checked() -> None:
    new = [rows(f"big-{i}", shares, LARGE) for i, shares in enumerate(((0.1, 0.8, 0.1), (0.34, 0.33, 0.33)))]
    found = verify(observed(proxies(), *new), ["big-0", "big-1"], law="bimix")

    assert any("1 of 1 pairs of these runs are in the predicted order" in text for text in found.warnings)


def test_a_run_that_is_going_is_compared_as_far_as_it_is() -> None:
    half = [p for p in PROGRESS if p <= 0.5]
    anchor = rows(*ANCHOR)
    found = verify(observed(proxies(), anchor, rows("big", BIG, LARGE, progress=half)), ["big"], law="bimix")
    told = verify(
        observed(proxies(), anchor, rows("big", BIG, LARGE, progress=half, schedule=False)),
        ["big"],
        tokens=SCHEDULE[LARGE],
        law="bimix",
    )

    expected = truth(dict(zip(LAWS, BIG, strict=True)), 0.5, LARGE)
    assert found.table.set_index("target")["predicted"].drop(SUM).to_dict() == pytest.approx(expected, rel=0.015)
    assert dict(zip(found.table["target"], found.table["verdict"], strict=True))[SUM] == "inside"
    assert set(found.table["progress"]) == {0.5}
    assert "50 % of its schedule" in found.sentences()[0]
    assert not any("schedule" in text for text in found.warnings)
    assert any("has 128M of 256M tokens and no schedule length" in text for text in told.warnings)


def test_a_small_run_of_a_sweep_of_several_sizes_is_compared_at_its_own() -> None:
    obs = observed(proxies(), rows(*ANCHOR), rows("late", BIG, SMALL))
    found = verify(obs, ["late"], law="bimix", model_size=LARGE, tokens=SCHEDULE[LARGE])

    expected = truth(dict(zip(LAWS, BIG, strict=True)), 1.0, SMALL)
    assert found.table.set_index("target")["predicted"].drop(SUM).to_dict() == pytest.approx(expected, rel=0.01)
    assert dict(zip(found.table["target"], found.table["verdict"], strict=True))[SUM] == "inside"


def test_from_a_tracker_the_earlier_analysis_says_the_size(tmp_path: Path) -> None:
    uri = f"jsonl:{tmp_path / 'runs'}"
    for i, shares in enumerate(PROXIES[:6]):
        train(tmp_path / "runs", f"proxy-{i}", shares, SMALL)
    train(tmp_path / "runs", *ANCHOR)
    first = analyze(uri, 5e8, model_size=LARGE, law="bimix", out=tmp_path / "then", write_back=True)
    train(tmp_path / "runs", "big", BIG, LARGE)

    found = verify(open_source(uri), ["big"], analysis=tmp_path / "then", write_back=True)

    assert found.before.fit.data_hash == first.fit.data_hash
    assert found.before.recommendation.model_size == found.after.recommendation.model_size == LARGE
    assert dict(found.before.recommendation.mixture) == dict(first.recommendation.mixture)
    assert dict(zip(found.table["target"], found.table["verdict"], strict=True))[SUM] == "inside"
    assert found.location is not None
    written = load_yaml((Path(found.location) / "mixture.yaml").read_text(encoding="utf-8"))["provenance"]
    assert (written["model_size"], written["figures_of_model_size"]) == (LARGE, LARGE)
    assert (written["losses_from"], written["anchors"]) == ("anchor runs", ["anchor", "big"])
    assert found.metrics()["bimix/model_size"] == LARGE


def test_another_size_is_another_question(tmp_path: Path) -> None:
    for i, shares in enumerate(PROXIES[:4]):
        train(tmp_path, f"proxy-{i}", shares, SMALL)
    train(tmp_path, *ANCHOR)
    source = open_source(f"jsonl:{tmp_path}")

    places = {
        analyze(source.uri, 5e8, model_size=size, law="bimix", replicates=0, write_back=True).location
        for size in (SMALL, LARGE, LARGE)
    }

    assert len(places) == 2


def test_a_watch_analyses_again_with_each_anchor(tmp_path: Path) -> None:
    told: list[str] = []
    for i, shares in enumerate(PROXIES[:4]):
        train(tmp_path, f"proxy-{i}", shares, SMALL)
    source = open_source(f"jsonl:{tmp_path}")
    analyse = analysis_of(source, 5e8, model_size=LARGE, law="bimix", replicates=0)
    watch = Watch(source, analyse, lambda event: told.append(event.kind), runs=4)
    watch.look()
    watch.look()
    assert told.count("analysed") == 1

    train(tmp_path, *ANCHOR)
    watch.look()

    assert told.count("analysed") == 2
    assert "failed" not in told


def test_groups_are_of_other_fields_where_a_size_is_asked_for(tmp_path: Path) -> None:
    for tokenizer in ("bytes", "words"):
        for i, shares in enumerate(PROXIES[:4]):
            train(tmp_path, f"{tokenizer}-{i}", shares, SMALL, tokenizer=tokenizer)
        train(tmp_path, f"{tokenizer}-anchor", *ANCHOR[1:], tokenizer=tokenizer)
    asked: dict[str, Any] = {"model_size": LARGE, "law": "bimix", "replicates": 0}

    found = analyze_groups(f"jsonl:{tmp_path}", 5e8, by="tokenizer", **asked)

    assert list(found) == ["bytes", "words"]
    for analysis in found.values():
        assert not isinstance(analysis, Exception)
        assert analysis.recommendation.model_size == LARGE
        assert len(analysis.observations.runs) == 5
    with pytest.raises(ObservationsError, match="pooled for model_size, or analysed apart by it"):
        analyze_groups(f"jsonl:{tmp_path}", 5e8, by="model_size", **asked)


def test_it_is_said_in_japanese_too() -> None:
    found = verify(observed(proxies(), rows("big", BIG, LARGE)), ["big"], law="bimix", replicates=0, lang="ja")

    note = found.note()
    assert "予測がありません" in note
    assert "水準は不明" in note
    assert catalogue("ja")["level unknown"] in note

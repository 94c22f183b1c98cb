"""A run after a recommendation against its prediction: the verdict is right, and right as often as it says."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bimix_tracking import (
    Costs,
    DomainLossRecorder,
    Mixture,
    Observations,
    analyze,
    open_source,
    open_tracker,
    verify,
)
from bimix_tracking.analysis.verification import SUM, Verification
from bimix_tracking.errors import ObservationsError, SourceError
from bimix_tracking.recommendation.guards import Guard

LAWS = {"code": (0.08, 0.4, 900.0, 1.2), "web": (0.05, 0.5, 2000.0, 2.6), "math": (0.12, 0.45, 1200.0, 0.9)}
VOLUMES = (1e6, 2e6, 4e6, 8e6, 1.6e7)
SHARES = [(0.2, 0.6, 0.2), (0.6, 0.2, 0.2), (0.2, 0.2, 0.6), (0.4, 0.4, 0.2), (0.2, 0.4, 0.4), (0.4, 0.2, 0.4), (0.33, 0.33, 0.34), (0.1, 0.7, 0.2)]  # fmt: skip  # noqa: E501


def sweep(
    new: Sequence[Sequence[float]],
    *,
    noise: float = 0.004,
    off: float = 0.0,
    seed: int = 0,
    new_volumes: Sequence[float] = VOLUMES,
    pilot_volumes: Sequence[float] = VOLUMES,
) -> Observations:
    """Return eight runs `pilot-…` and some `big-…` that follow BiMix; the new ones' losses times 1 + `off`."""
    rng = np.random.default_rng(seed)
    rows = []
    for kind, mixtures, volumes in (("pilot", SHARES, pilot_volumes), ("big", new, new_volumes)):
        for i, shares in enumerate(mixtures):
            luck = np.exp(noise * rng.standard_normal(3))
            for s in volumes:
                row: dict[str, object] = {"run": f"{kind}-{i}", "tokens": s}
                for (domain, (alpha, beta, b, c)), r, by in zip(LAWS.items(), shares, luck, strict=True):
                    level = r**-alpha * (b / s**beta + c)
                    row[f"p {domain}"], row[f"l {domain}"] = r, level * by * (1 + off * (kind == "big"))
                rows.append(row)
    return Observations.from_wide(
        pd.DataFrame(rows),
        proportions={d: f"p {d}" for d in LAWS},
        losses={d: f"l {d}" for d in LAWS},
        tokens="tokens",
        run="run",
    )


def test_a_run_as_predicted_is_inside_and_one_that_is_off_is_not() -> None:
    good, bad, lucky = (verify(sweep([(0.3, 0.4, 0.3)], off=off), ["big-0"], law="bimix") for off in (0.0, 0.05, -0.05))

    verdicts = [dict(zip(f.table["target"], f.table["verdict"], strict=True))[SUM] for f in (good, bad, lucky)]
    assert verdicts == ["inside", "above", "below"]
    assert "is as predicted" in good.sentences()[0]
    assert "worse than predicted; find out why before scaling" in bad.sentences()[0]
    assert "better than predicted" in lucky.sentences()[0]
    assert "0 of 3 values are inside" in bad.sentences()[1]


def test_the_prediction_knows_nothing_of_the_run() -> None:
    one, other = (verify(sweep([(0.3, 0.4, 0.3)], off=off), ["big-0"], law="bimix") for off in (0.0, 0.2))

    pd.testing.assert_series_equal(one.table["predicted"], other.table["predicted"])
    assert dict(one.before.recommendation.mixture) == dict(other.before.recommendation.mixture)
    assert one.after.fit.data_hash != other.after.fit.data_hash
    observed = sweep([(0.3, 0.4, 0.3)]).losses.query("run == 'big-0' and tokens == 1.6e7").set_index("domain")["loss"]
    assert one.table.set_index("target")["observed"].drop(SUM).to_dict() == observed.to_dict()


def test_with_one_volume_a_run_is_compared_there_and_nowhere_else() -> None:
    there = sweep([(0.3, 0.4, 0.3)], pilot_volumes=(4e6,), new_volumes=(4e6, 1.6e7))
    elsewhere = sweep([(0.3, 0.4, 0.3)], pilot_volumes=(4e6,), new_volumes=(1.6e7,))

    found = verify(there, ["big-0"], law="bimix")

    assert set(found.table["tokens"]) == {4e6}
    assert np.isfinite(found.table["predicted"]).all()
    with pytest.raises(ObservationsError, match=r"nothing is predicted of run 'big-0' at 16M tokens.*at 4M"):
        verify(elsewhere, ["big-0"], law="bimix")


def test_nine_of_ten_new_runs_are_inside() -> None:
    new = [(0.3, 0.4, 0.3), (0.5, 0.3, 0.2), (0.25, 0.35, 0.4), (0.35, 0.45, 0.2), (0.4, 0.3, 0.3), (0.2, 0.5, 0.3), (0.3, 0.3, 0.4), (0.45, 0.25, 0.3)]  # fmt: skip  # noqa: E501
    inside = []
    for seed in range(15):
        found = verify(sweep(new, seed=seed), [f"big-{i}" for i in range(len(new))], law="bimix")
        inside += (found.table["verdict"] == "inside").tolist()

    # 480 losses of 120 runs; those of one sweep share its law's error: the mean has a standard error of 2.5 %.
    assert 0.84 <= np.mean(inside) <= 0.97


def test_with_the_run_the_law_is_fitted_again_and_what_changed_is_said() -> None:
    found = verify(sweep([(0.05, 0.05, 0.9)], off=0.05), ["big-0"], law="bimix")

    old, new = (a.recommendation.mixture for a in (found.before, found.after))
    apart = max(abs(old[d] - new[d]) for d in old)
    assert apart > 0.005
    assert f"moves by at most {100 * apart:.2f} %" in found.sentences()[-1]
    assert len(found.after.observations.runs) == len(found.before.observations.runs) + 1


def test_what_makes_the_comparison_doubtful_is_said() -> None:
    found = verify(sweep([(0.05, 0.05, 0.9)], new_volumes=(1e7, 6.4e7)), ["big-0"], law="bimix")

    said = " ".join(found.warnings)
    assert "was not trained on the recommended mixture: 'math' is 90.00 %" in said
    assert "4× the tokens of the sweep's longest run" in said


def test_an_earlier_analysis_is_the_prediction(tmp_path: Path) -> None:
    obs = sweep([(0.3, 0.4, 0.3), (0.3, 0.4, 0.3)])
    pilot = [run for run in obs.runs if run.startswith("pilot")]
    today = Mixture({"math": 0.2, "web": 0.5, "code": 0.3})
    earlier = analyze(obs.only(pilot), 5e8, law="bimix", weights={"math": 3.0}, reference=today, out=tmp_path / "then")

    found = verify(obs, ["big-0"], analysis=tmp_path / "then")

    assert found.before.fit.data_hash == earlier.fit.data_hash
    assert dict(found.before.recommendation.mixture) == dict(earlier.recommendation.mixture)
    assert dict(found.after.recommendation.reference) == dict(earlier.recommendation.reference) == today
    assert found.before.recommendation.tokens == 5e8
    assert found.before.recommendation.weights["math"] == 3.0
    assert "big-1" not in found.after.observations.runs
    assert not any("changed" in text for text in found.warnings)


def test_a_renewed_analysis_is_asked_what_the_earlier_one_was(tmp_path: Path) -> None:
    obs = sweep([(0.3, 0.4, 0.3)])
    pilot = [run for run in obs.runs if run.startswith("pilot")]
    asked: dict[str, Any] = {
        "guardrails": ["code<=+0.4%", Guard("web", "<=", 0.0123456789)],
        "bounds": {"math": (0.2, 0.5)},
        "prior": Mixture({"code": 0.2, "web": 0.6, "math": 0.2}),
        "prior_strength": 0.01,
        "costs": Costs(gpu_hours_per_run=3, target_gpu_hours=1000, cost_per_gpu_hour=2, currency="USD"),
        "replicates": 20,
    }
    analyze(obs.only(pilot), 5e8, law="bimix", out=tmp_path / "then", **asked)

    found = verify(obs, ["big-0"], analysis=tmp_path / "then")
    other = verify(obs, ["big-0"], analysis=tmp_path / "then", bounds={"math": 0.3})

    for one in (found.before, found.after):
        rec = one.recommendation
        assert [guard.target for guard in rec.guards] == ["code", "web"]
        assert one.options["guardrails"] == ["code<=+0.4%", vars(asked["guardrails"][1])]
        assert rec.mixture["math"] >= 0.2
        assert (rec.prior, rec.prior_strength) == (asked["prior"], 0.01)
        assert one.worth is not None
        assert one.worth.costs == asked["costs"]
        assert one.options == found.before.options
    assert other.after.recommendation.mixture["math"] == pytest.approx(0.3)


def test_options_that_are_none_are_refused_with_the_folder(tmp_path: Path) -> None:
    analyze(sweep([]), 5e8, law="bimix", replicates=0, out=tmp_path / "then")
    lineage = tmp_path / "then" / "lineage.json"
    content = json.loads(lineage.read_text(encoding="utf-8"))
    lineage.write_text(json.dumps(content | {"options": {"guardrails": [{"target": "code"}]}}), encoding="utf-8")

    with pytest.raises(SourceError, match=r"is not a folder that `bimix analyze --out` left"):
        verify(sweep([(0.3, 0.4, 0.3)]), ["big-0"], analysis=tmp_path / "then")


def test_data_that_changed_since_the_analysis_are_said(tmp_path: Path) -> None:
    analyze(sweep([], seed=1), 5e8, law="bimix", out=tmp_path / "then")

    found = verify(sweep([(0.3, 0.4, 0.3)], seed=2), ["big-0"], analysis=tmp_path / "then")

    assert any("the sweep's data have changed since the analysis" in text for text in found.warnings)


def test_the_artifacts_hold_everything(tmp_path: Path) -> None:
    found = verify(sweep([(0.3, 0.4, 0.3)]), ["big-0"], law="bimix", out=tmp_path)

    content = json.loads((tmp_path / "verification.json").read_text(encoding="utf-8"))
    assert content["sentences"] == found.sentences()
    assert [row["target"] for row in content["table"]] == [*LAWS, SUM]
    assert content["mixture_after"] == dict(found.after.recommendation.mixture)
    page = (tmp_path / "verification.md").read_text(encoding="utf-8")
    assert "as predicted" in page
    assert "| big-0 | code |" in page
    assert (tmp_path / "mixture.yaml").exists()


def test_mistakes_are_named(tmp_path: Path) -> None:
    obs = sweep([(0.3, 0.4, 0.3)])

    with pytest.raises(ObservationsError, match=r"no finished training run 'big-1' in table. Did you mean 'big-0'"):
        verify(obs, ["big-1"])
    with pytest.raises(ObservationsError, match=r"no run to verify"):
        verify(obs, [])
    with pytest.raises(ObservationsError, match=r"1 runs are left to predict from, at least 3 are needed"):
        verify(obs, obs.runs[1:])
    with pytest.raises(SourceError, match=r"is not a folder that `bimix analyze --out` left"):
        verify(obs, ["big-0"], analysis=tmp_path)


def train(folder: Path, name: str, shares: Sequence[float], *, tokenizer: str = "bytes", eval_set: str = "v1") -> None:
    """Leave a finished run in a folder of plain files."""
    recorder = DomainLossRecorder(
        tuple(LAWS), dict(zip(LAWS, shares, strict=True)), open_tracker(f"jsonl:{folder}", run_name=name),
        tokenizer=tokenizer, eval_set=eval_set,
    )  # fmt: skip
    for step in (1, 2, 4, 8):
        tokens = [round(1000 * r) for r in shares]
        for _ in range(step // 2 or 1):
            recorder.add([0, 1, 2], [2.0 * n for n in tokens], tokens)
        losses = [r**-0.1 * (3 / math.sqrt(step) + 1) for r in shares]
        recorder.add([0, 1, 2], [100 * loss for loss in losses], [100, 100, 100], split="eval")
        recorder.log_train(step)
        recorder.log_eval(step)
    recorder.finish()


def test_it_is_written_back_beside_the_runs(tmp_path: Path) -> None:
    for i, shares in enumerate(SHARES[:5]):
        train(tmp_path, f"pilot-{i}", shares)
    train(tmp_path, "big", (0.3, 0.4, 0.3))

    found = verify(open_source(f"jsonl:{tmp_path}"), ["big"], law="bimix", write_back=True)

    assert isinstance(found, Verification)
    assert found.location is not None
    assert (Path(found.location) / "verification.json").exists()
    assert "as predicted" in (Path(found.location) / "note.md").read_text(encoding="utf-8")
    assert found.metrics()["bimix/verified_runs"] == 1


@pytest.mark.parametrize("other", [{"tokenizer": "gpt2"}, {"eval_set": "v2"}])
def test_a_run_with_another_tokenizer_or_eval_set_is_refused(tmp_path: Path, other: dict[str, str]) -> None:
    for i, shares in enumerate(SHARES[:4]):
        train(tmp_path, f"pilot-{i}", shares)
    train(tmp_path, "big", (0.3, 0.4, 0.3), **other)

    with pytest.raises(ObservationsError, match=r"the runs differ in (tokenizer|eval.set).*'?big'?"):
        verify(f"jsonl:{tmp_path}", ["big"])

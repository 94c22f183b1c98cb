"""What belongs to an evaluation is said once: the table, the page of the docs, and all who read or write a row."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from bimix_tracking import DomainLossRecorder, Mixture, Observations, open_tracker
from bimix_tracking.data import metric_names
from bimix_tracking.data.manifest import RunManifest, RunRecord
from bimix_tracking.data.run_curve import of_one_set
from bimix_tracking.recording.rows import evaluated, evaluation_of
from bimix_tracking.recording.sums import DomainSums

ROOT = Path(__file__).parents[3]
OF_AN_EVALUATION = {"bimix_eval_loss", "bimix_eval_tokens", "bimix_eval_bpb", "bimix_target", "bimix_questions"}


def test_the_page_of_metrics_is_the_table() -> None:
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(\S+)` \| (.*) \|$", page, flags=re.MULTILINE))

    assert told == {f"{q.name}/<domain>" if q.by_domain else q.name: q.about for q in metric_names.QUANTITIES.values()}


def test_quantities_of_an_evaluation_alone_are_told_from_those_of_every_row() -> None:
    names = [f"{q.name}/web" if q.by_domain else q.name for q in metric_names.QUANTITIES.values()]

    assert {name.partition("/")[0] for name in names if metric_names.is_evaluation(name)} == OF_AN_EVALUATION
    assert {name for name in names if metric_names.belongs_to_evaluation(name)} == {
        *(f"{name}/web" for name in OF_AN_EVALUATION),
        "bimix_nonfinite/web",
        "bimix/other_set",
        "bimix/step",
        "bimix/tokens",
    }


def test_an_evaluation_is_all_that_its_sums_tell_and_no_number_that_they_don_t() -> None:
    sums = DomainSums.zeros(3)
    sums.loss[:] = 6.0, 3.0, 0.0
    sums.tokens[:] = 4, 2, 0
    sums.bytes[:] = 16, 0, 0

    row = evaluated(["a", "b", "c"], sums)

    assert row == {
        "bimix_eval_tokens/a": 4.0,
        "bimix_eval_bpb/a": 6.0 / np.log(2) / 16,
        "bimix_eval_tokens/b": 2.0,  # whose bytes aren't known
    }


def test_a_resumed_run_keeps_what_was_left_out_of_the_checkpoint_s_own_evaluation() -> None:
    evaluation = {
        "bimix_eval_loss/a": 2.0,
        "bimix_eval_tokens/a": 9.0,
        "bimix_nonfinite/a": 1.0,
        "bimix/other_set": 2.0,
    }
    rows = [
        {"bimix/step": 3.0, "bimix/tokens": 30.0, "bimix_train_loss/a": 5.0, "bimix_nonfinite/a": 7.0},
        {"bimix/step": 3.0, "bimix/tokens": 30.0, "bimix/time": 9.0, **evaluation},
        {"bimix/step": 4.0, "bimix/tokens": 40.0, "bimix_eval_loss/a": 1.0},
    ]

    assert evaluation_of(rows, 3) == {"bimix/step": 3.0, "bimix/tokens": 30.0, **evaluation}
    assert evaluation_of(rows, 5) == {}


def test_of_another_set_nothing_is_left_in_a_curve() -> None:
    at = {"bimix/tokens": 10.0, "bimix_share/a": 1.0, "bimix_nonfinite/a": 0.0}
    first = {"bimix/step": 1.0, **at, "bimix_eval_loss/a": 2.0, "bimix_eval_tokens/a": 9.0, "bimix_eval_bpb/a": 1.0}
    other = {"bimix/step": 2.0, **at, "bimix_eval_loss/a": 1.0, "bimix_eval_tokens/a": 5.0, "bimix_eval_bpb/a": 0.5}
    record = RunRecord("1", "one", RunManifest(("a",), Mixture({"a": 1.0})), [first, other])

    kept, strangers = of_one_set(record)

    assert strangers == 1
    assert list(kept.rows) == [first, {"bimix/step": 2.0, **at}]


def test_an_artifact_that_lost_what_its_losses_are_means_of_is_not_believed(tmp_path: Path) -> None:
    for code in (0.3, 0.7):
        recorder = DomainLossRecorder(
            ["code", "web"],
            {"code": code, "web": 1 - code},
            open_tracker(f"jsonl:{tmp_path}", run_name=f"run-{code}"),
        )
        for step in (1, 2, 3):
            recorder.add([0, 1], [code * 30.0, (1 - code) * 20.0], [round(code * 10), round((1 - code) * 10)])
            recorder.add([0, 1], [64 * 3.0 / step, 64 * 2.0 / step], [64, 64], split="eval")
            recorder.log_train(step)
            recorder.log_eval(step)
        recorder.finish()
    file = tmp_path / "run-0.3" / "curves.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    for row in content["rows"]:
        del row["bimix_eval_tokens/web"]
    file.write_text(json.dumps(content), encoding="utf-8")

    obs = Observations.from_source(f"jsonl:{tmp_path}")

    assert obs.losses["eval_tokens"].eq(64).all()
    (note,) = (note for note in obs.notes if note.run == "run-0.3")
    assert note.reason == (
        "its curves.json lacks values of its evaluations, or has others than its rows.jsonl; rows.jsonl is read instead"
    )

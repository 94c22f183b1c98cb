"""Results files of lm-evaluation-harness, in the form that its `evaluation_tracker.py` writes (commit 034ab03)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bimix_tracking.data.manifest import RunRecord
from bimix_tracking.data.metric_names import QUESTIONS, TARGET, key
from bimix_tracking.data.observations import Observations
from bimix_tracking.errors import SourceError
from bimix_tracking.mixture import Mixture
from bimix_tracking.tracking.lm_eval import LmEvalSource
from bimix_tracking.tracking.other_tools.runs import ForeignRuns
from bimix_tracking.tracking.ports import RunSource, Wanted

MIXTURES = {f"mix-{at}": Mixture({"code": at / 10, "web": 1 - at / 10}) for at in (1, 3, 5, 7, 9)}
FOREIGN = ForeignRuns(mixtures=MIXTURES, tokens=5e9)


def results(hellaswag: float, *, date: float = 1.7e9, **more: Any) -> dict[str, Any]:
    """Return results as the library has them: numbers and texts in one mapping, filters after a comma."""
    found: dict[str, Any] = {
        "results": {
            "hellaswag": {
                "alias": "hellaswag", "acc,none": 0.28, "acc_stderr,none": 0.0045, "acc_norm,none": hellaswag,
                "acc_norm_stderr,none": 0.0046,
            },
            "mmlu": {"acc,none": 0.2546, "acc_stderr,none": 0.0037, "alias": "mmlu"},
            "mmlu_stem": {"acc,none": 0.25, "acc_stderr,none": 0.0077, "alias": " - stem"},
            "mmlu_anatomy": {"alias": "  - anatomy", "acc,none": 0.2, "acc_stderr,none": 0.034},
            "mmlu_virology": {"alias": "  - virology", "acc,none": 0.3, "acc_stderr,none": 0.035},
            "gsm8k": {
                "alias": "gsm8k", "exact_match,strict-match": 0.01, "exact_match_stderr,strict-match": 0.0027,
                "exact_match,flexible-extract": 0.02, "exact_match_stderr,flexible-extract": 0.0039,
            },
            "wikitext": {
                "alias": "wikitext", "word_perplexity,none": 37.37, "word_perplexity_stderr,none": "N/A",
                "byte_perplexity,none": 1.968, "byte_perplexity_stderr,none": "N/A", "bits_per_byte,none": 0.977,
                "bits_per_byte_stderr,none": "N/A",
            },
            "mytask": {"alias": "mytask", "acc,none": 0.4, "acc_stderr,none": "N/A"},
        },
        "groups": {"mmlu": {"acc,none": 0.2546, "acc_stderr,none": 0.0037, "alias": "mmlu"}},
        "group_subtasks": {
            "mytask": [], "wikitext": [], "gsm8k": [], "hellaswag": [], "mmlu_stem": ["mmlu_anatomy", "mmlu_virology"],
            "mmlu": ["mmlu_stem"],
        },
        "configs": {
            "hellaswag": {"task": "hellaswag", "output_type": "multiple_choice", "doc_to_choice": "choices"},
            "mytask": {"task": "mytask", "output_type": "multiple_choice", "doc_to_choice": ["A", "B", "C"]},
        },
        "versions": {"hellaswag": 1.0, "mmlu": 2},
        "n-shot": {"hellaswag": 0, "mmlu": 0},
        "higher_is_better": {"hellaswag": {"acc": True, "acc_norm": True}, "wikitext": {"bits_per_byte": False}},
        "n-samples": {
            "hellaswag": {"original": 10042, "effective": 10042}, "mmlu_anatomy": {"original": 135, "effective": 100},
            "mmlu_virology": {"original": 166, "effective": 100}, "gsm8k": {"original": 1319, "effective": 1319},
        },
        "config": {"model": "hf", "model_args": "pretrained=runs/mix-03", "num_fewshot": None, "limit": None},
        "git_hash": "034ab036", "date": date, "model_name": "runs/mix-03",
    }  # fmt: skip
    return found | more


def write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2))


def source(folder: Path, foreign: ForeignRuns | None = FOREIGN, **more: Any) -> LmEvalSource:
    return LmEvalSource(f"lm-eval:{folder}", wanted=Wanted(foreign=foreign, **more))


NAME = "results_2025-01-31T10-20-30.123456.json"


def test_a_run_s_results_are_targets_with_questions_chance_levels_and_groups(tmp_path: Path) -> None:
    write(tmp_path / "mix-3" / "gpt2" / NAME, results(0.31))

    (record,) = source(tmp_path).records()

    assert record.manifest.mixture == MIXTURES["mix-3"]
    assert [target.to_dict() for target in sorted(record.manifest.targets, key=lambda target: target.name)] == [
        {"name": "gsm8k/exact_match,strict-match", "kind": "accuracy", "task": "gsm8k"},
        {"name": "hellaswag/acc_norm", "kind": "accuracy", "chance": 0.25, "task": "hellaswag"},
        {"name": "mmlu/acc", "kind": "accuracy", "chance": 0.25, "task": "mmlu"},
        {"name": "mytask/acc", "kind": "accuracy", "chance": 1 / 3, "task": "mytask"},
        {"name": "wikitext/bits_per_byte", "kind": "bpb", "task": "wikitext"},
    ]
    (row,) = record.rows
    assert row == {
        "bimix/step": 0.0, "bimix/tokens": 5e9,
        key(TARGET, "hellaswag/acc_norm"): 0.31, key(QUESTIONS, "hellaswag/acc_norm"): 10042,
        key(TARGET, "mmlu/acc"): 0.2546, key(QUESTIONS, "mmlu/acc"): 200,
        key(TARGET, "gsm8k/exact_match,strict-match"): 0.01, key(QUESTIONS, "gsm8k/exact_match,strict-match"): 1319,
        key(TARGET, "wikitext/bits_per_byte"): 0.977, key(TARGET, "mytask/acc"): 0.4,
    }  # fmt: skip
    (note,) = record.notes
    assert "not counted beside their group: 'mmlu_anatomy', 'mmlu_stem', 'mmlu_virology'. Name" in note
    assert record.exclusions == {}


def test_a_sweep_of_results_is_read_and_nothing_is_touched(tmp_path: Path) -> None:
    for at, run in enumerate(MIXTURES):
        content = results(0.3 + 0.01 * at)
        if run == "mix-5":
            del content["results"]["gsm8k"]
        write(tmp_path / run / "gpt2" / NAME, content)
        (tmp_path / run / "gpt2" / "samples_mmlu_2025-01-31T10-20-30.123456.jsonl").write_text("{}\n")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    opened: RunSource = source(tmp_path, targets={"mmlu/acc": {"kind": "accuracy", "weight": 2}})
    obs = opened.observations()

    assert obs.runs == tuple(MIXTURES)
    assert set(obs.targets) == {
        "gsm8k/exact_match,strict-match", "hellaswag/acc_norm", "mmlu/acc", "mytask/acc", "wikitext/bits_per_byte",
    }  # fmt: skip
    table = obs.losses[obs.losses["domain"] == "hellaswag/acc_norm"]
    assert table["value"].tolist() == pytest.approx([0.30, 0.31, 0.32, 0.33, 0.34])
    assert set(table["questions"]) == {10042}
    assert (obs.losses["domain"] == "gsm8k/exact_match,strict-match").sum() == 4
    assert obs.target("mmlu/acc").weight == 2
    assert obs.target("mmlu/acc").chance == 0.25
    assert [(state.run_id, state.status) for state in opened.states()] == [(run, "finished") for run in MIXTURES]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_is_pulled_is_read_again(tmp_path: Path) -> None:
    for at, run in enumerate(MIXTURES):
        write(tmp_path / "evals" / run / "gpt2" / NAME, results(0.3 + 0.01 * at))
    obs = source(tmp_path / "evals").observations()

    obs.to_csv(tmp_path / "table.csv")

    columns = ["run", "tokens", "domain", "value", "questions", "loss"]
    back = Observations.from_csv(tmp_path / "table.csv").losses[columns].sort_values(["domain", "run"])
    expected = obs.losses[columns].sort_values(["domain", "run"])
    pd.testing.assert_frame_equal(back.reset_index(drop=True), expected.reset_index(drop=True))


@pytest.mark.parametrize("shape", ["mix-3/step-{}/gpt2", "mix-3/gpt2/checkpoint-{}", "__runs__mix-3__global_step{}"])
def test_checkpoints_are_told_by_their_folders(shape: str, tmp_path: Path) -> None:
    for step in (1000, 2000):
        write(tmp_path / shape.format(step) / NAME, results(0.3 + step / 1e5))

    (record,) = source(tmp_path, ForeignRuns(mixtures=MIXTURES, tokens_per_step=1e6)).records()

    assert [(row["bimix/step"], row["bimix/tokens"]) for row in record.rows] == [(1000, 1e9), (2000, 2e9)]
    assert [row[key(TARGET, "hellaswag/acc_norm")] for row in record.rows] == pytest.approx([0.31, 0.32])
    assert record.manifest.mixture == MIXTURES["mix-3"]
    assert record.exclusions == {}


def test_of_several_results_of_a_checkpoint_the_newest_of_each_task_counts(tmp_path: Path) -> None:
    write(tmp_path / "mix-3" / "gpt2" / "results_2025-01-31T10-00-00.json", results(0.31, date=3.0))
    only = {"results": {"hellaswag": {"acc_norm,none": 0.5, "acc_norm_stderr,none": 0.05}}, "groups": {}}
    write(tmp_path / "mix-3" / "gpt2" / "results_2025-02-01T10-00-00.json", results(0, date=4.0) | only)

    (record,) = source(tmp_path).records()

    (row,) = record.rows
    assert (row[key(TARGET, "hellaswag/acc_norm")], row[key(TARGET, "mmlu/acc")]) == (0.5, 0.2546)
    assert record.exclusions == {"an earlier result of a task at the same checkpoint: the newest counts": 1}


def test_results_of_an_older_version_have_no_filters_and_nothing_beside_them(tmp_path: Path) -> None:
    se = math.sqrt(0.3 * 0.7 / (1838 - 1))
    old = {
        "results": {"piqa": {"acc": 0.3, "acc_stderr": se, "acc_norm": 0.55, "acc_norm_stderr": 0.0116}},
        "versions": {"piqa": 0},
        "config": {"model": "hf-causal", "model_args": "pretrained=gpt2"},
    }
    write(tmp_path / "mix-3" / "results.json", old)

    (record,) = source(tmp_path).records()
    (acc,) = source(tmp_path, targets={"piqa/acc": {"kind": "accuracy"}}).records()

    (target,) = record.manifest.targets
    assert target.to_dict() == {"name": "piqa/acc_norm", "kind": "accuracy", "chance": 0.5, "task": "piqa"}
    assert acc.rows[0][key(QUESTIONS, "piqa/acc")] == 1838


def test_results_named_by_their_run_lie_in_the_folder_itself(tmp_path: Path) -> None:
    write(tmp_path / "mix-3_2025-01-31T10-20-30.123456.json", results(0.31))
    write(tmp_path / "mix-5_2025-01-31T10-20-30.123456.json", results(0.32))

    assert [record.name for record in source(tmp_path).records()] == ["mix-3", "mix-5"]


def test_a_broken_file_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    write(tmp_path / "mix-1" / NAME, results(0.31))
    (tmp_path / "mix-1" / "results_2025-03-01T10-00-00.json").write_text('{"results": {')
    (tmp_path / "mix-3").mkdir()
    (tmp_path / "mix-3" / "results_x.json").write_text('["results"]')

    one, three = source(tmp_path).records()

    assert one.rows
    assert_said(one, "mix-1/results_2025-03-01T10-00-00.json cannot be read: it is not JSON")
    assert not three.rows
    assert_said(three, "the run cannot be read: mix-3/results_x.json cannot be read: it has no `results` by task")


def assert_said(record: RunRecord, text: str) -> None:
    assert [reason for reason in record.exclusions if reason.startswith(text)]


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e400, -3.0])
def test_a_value_that_is_none_is_excluded_and_counted(value: float, tmp_path: Path) -> None:
    for at, run in enumerate(MIXTURES):
        content = results(0.3 + 0.01 * at)
        if run == "mix-5":
            content["results"]["wikitext"]["bits_per_byte,none"] = value
        write(tmp_path / run / NAME, content)

    obs = source(tmp_path).observations()

    assert (obs.losses["domain"] == "wikitext/bits_per_byte").sum() == 4
    notes = [note for note in obs.notes if note.domain == "wikitext/bits_per_byte" and note.run == "mix-5"]
    assert [note.count for note in notes] == [1]


def test_a_run_without_a_mixture_is_named_with_what_says_it(tmp_path: Path) -> None:
    write(tmp_path / "mix-3" / NAME, results(0.31))

    with pytest.raises(SourceError, match=r"none of its 1 runs can be used .*lm-evaluation-harness.*--mixtures FILE"):
        source(tmp_path, None).records()


def test_a_folder_that_holds_no_results_says_how_they_come_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no results_\*\.json in .*lm_eval --output_path"):
        source(tmp_path).records()
    with pytest.raises(SourceError, match="there is no folder"):
        source(tmp_path / "nowhere").states()
    with pytest.raises(SourceError, match="can't be filtered"):
        LmEvalSource("lm-eval:x", wanted=Wanted(filter="x"))


def test_runs_evaluated_alone_and_in_a_group_are_one_sweep(tmp_path: Path) -> None:
    for run in ("mix-1", "mix-3"):
        groups = {"arc": ["arc_easy"]} if run == "mix-3" else {}
        write(tmp_path / run / NAME, {"results": {"arc_easy": {"acc,none": 0.4}}, "group_subtasks": groups})

    obs = source(tmp_path).observations()

    assert obs.target("arc_easy/acc").group == "arc"

"""Targets beside the losses: recorded once, at their step, whatever comes first; what is none is left out, loudly."""

from __future__ import annotations

import json
import math
import warnings

import pytest

from bimix_tracking import DomainLossRecorder
from bimix_tracking.data.targets import Target
from bimix_tracking.errors import MixtureError, RecorderError
from tests.core.memory import Tracker

MMLU = Target("mmlu", "accuracy", questions=14042, chance=0.25)
TARGETS = [MMLU, Target("gsm8k/bpb", "bpb"), Target("judge", "score", higher_is_better=True)]
JUDGE = "bimix_target/judge"


def recorder_of(tracker: Tracker | None = None) -> DomainLossRecorder:
    return DomainLossRecorder(["code", "web"], {"code": 0.5, "web": 0.5}, tracker, targets=TARGETS)


def evaluate(recorder: DomainLossRecorder, step: int) -> None:
    recorder.add([0, 1], [3.0, 4.0], split="eval")
    recorder.log_eval(step)


@pytest.mark.parametrize("losses_first", [True, False])
def test_losses_and_targets_of_a_step_are_one_evaluation(losses_first: bool) -> None:
    tracker = Tracker()
    recorder = recorder_of(tracker)
    recorder.add([0, 1], [3.0, 4.0], [5, 5])
    if losses_first:
        evaluate(recorder, 7)
    recorder.record_targets(7, {"mmlu": 0.31, "gsm8k/bpb": 0.9})
    if not losses_first:
        evaluate(recorder, 7)
    recorder.record_targets(7, {"mmlu": 0.99, "judge": -2.5})  # of other weights: the first counts
    recorder.finish()

    merged: dict[str, float] = {}
    for row in tracker.rows:
        merged |= row
    assert len(tracker.rows) == 3
    expected = {
        "bimix/step": 7.0, "bimix/tokens": 10.0, "bimix_eval_loss/code": 3.0, "bimix_eval_loss/web": 4.0,
        "bimix_eval_tokens/code": 1.0, "bimix_eval_tokens/web": 1.0, "bimix_target/mmlu": 0.31,
        "bimix_questions/mmlu": 14042.0, "bimix_target/gsm8k_bpb_5a65748f": 0.9, JUDGE: -2.5,
    }  # fmt: skip
    assert merged == expected
    (of_step,) = json.loads(tracker.files["bimix/curves.json"])["rows"]
    assert of_step == expected | {"bimix_share/code": 0.5, "bimix_share/web": 0.5}


def test_what_was_asked_in_one_evaluation_counts_more_than_what_the_target_says() -> None:
    row = recorder_of().record_targets(3, {"mmlu": 0.3}, tokens=9e6, questions={"mmlu": 500})

    assert row == {"bimix/step": 3, "bimix/tokens": 9e6, "bimix_target/mmlu": 0.3, "bimix_questions/mmlu": 500}


def test_a_value_that_is_no_number_is_counted_and_the_others_are_kept() -> None:
    tracker = Tracker()
    recorder = recorder_of(tracker)
    recorder.start()

    with pytest.warns(UserWarning, match="target 'mmlu' was NaN or infinite"):
        recorder.record_targets(1, {"mmlu": math.nan, "judge": 1.0}, tokens=5)
    recorder.record_targets(2, {"mmlu": math.inf}, tokens=9)  # warned of once; counted again

    assert tracker.rows == [
        {"bimix/step": 1.0, "bimix/tokens": 5.0, "bimix_nonfinite/mmlu": 1.0, JUDGE: 1.0},
        {"bimix/step": 2.0, "bimix/tokens": 9.0, "bimix_nonfinite/mmlu": 1.0},
    ]


def test_a_name_that_is_no_target_is_said_once_and_training_goes_on() -> None:
    recorder = recorder_of()

    with pytest.warns(UserWarning, match=r"'mmul' is no target of this run.*did you mean 'mmlu'"):
        recorder.record_targets(1, {"mmul": 0.3, "judge": 1.0}, tokens=5)
    recorder.record_targets(2, {"mmul": 0.3, "judge": 1.0}, tokens=5)  # a warning would be an error here

    assert [row[JUDGE] for row in recorder.curves()["rows"]] == [1.0, 1.0]


def test_an_accuracy_in_per_cent_is_said_once_and_kept() -> None:
    recorder = recorder_of()

    with pytest.warns(UserWarning, match="target 'mmlu' is an accuracy, but has the value 31: .*per cent"):
        recorder.record_targets(1, {"mmlu": 31.0}, tokens=5)
    recorder.record_targets(2, {"mmlu": 31.0}, tokens=5)

    assert [row["bimix_target/mmlu"] for row in recorder.curves()["rows"]] == [31.0, 31.0]


@pytest.mark.parametrize(
    ("values", "more", "complaint"),
    [
        ({"judge": "good"}, {}, "'judge' must be a number, got 'good'"),
        ({"mmlu": 0.3}, {"questions": {"mmlu": 0}}, "questions of target 'mmlu' must be a whole number from 1 on"),
        ({"mmlu": 0.3}, {"tokens": -1}, "'tokens' must be a number from 0 on"),
        ({"mmlu": 0.3}, {"tokens": math.nan}, "'tokens' must be a number from 0 on"),
    ],
)
def test_what_is_no_number_is_refused(values: dict[str, object], more: dict[str, object], complaint: str) -> None:
    recorder = recorder_of()

    with pytest.raises(RecorderError, match=complaint):
        recorder.record_targets(1, values, **more)  # type: ignore[arg-type]  # that is the point

    assert recorder.curves()["rows"] == []


def test_an_earlier_checkpoint_s_tokens_are_asked_for_unless_its_losses_have_them() -> None:
    recorder = recorder_of()
    recorder.add([0], [3.0], [10])
    recorder.log_train(1)
    evaluate(recorder, 1)
    recorder.add([0], [3.0], [10])
    recorder.log_train(3)

    assert recorder.record_targets(1, {"mmlu": 0.3})["bimix/tokens"] == 10
    assert recorder.record_targets(3, {"mmlu": 0.3})["bimix/tokens"] == 20
    with pytest.raises(RecorderError, match=r"step 2 come after step 3.*tokens="):
        recorder.record_targets(2, {"mmlu": 0.3})
    assert recorder.record_targets(2, {"mmlu": 0.3}, tokens=15)["bimix/tokens"] == 15


def test_a_baseline_that_goes_takes_no_target_along() -> None:
    recorder = recorder_of()
    evaluate(recorder, 0)  # on another set than later
    recorder.add([0], [3.0], [10])
    recorder.record_targets(5, {"mmlu": 0.3})
    recorder.add([0, 1], [9.0, 9.0], [7, 7], split="eval")

    with pytest.warns(UserWarning, match="the evaluation before training used another set"):
        recorder.log_eval(5)

    (row,) = recorder.curves()["rows"]
    assert (row["bimix_target/mmlu"], row["bimix_eval_loss/code"]) == (0.3, pytest.approx(9 / 7))


def test_a_resumed_run_goes_on_with_its_targets_and_refuses_another_kind() -> None:
    whole, first = recorder_of(), recorder_of()
    for recorder in (whole, first):
        recorder.record_targets(1, {"mmlu": 0.3}, tokens=5)
    state = json.loads(json.dumps(first.state_dict()))
    second = recorder_of()
    second.load_state_dict(state)
    for recorder in (whole, second):
        recorder.record_targets(2, {"mmlu": 0.4}, tokens=9)

    assert second.curves() == whole.curves()
    changed = DomainLossRecorder(["code", "web"], targets=[Target("mmlu", "bpb")])
    with pytest.raises(RecorderError, match="target 'mmlu' is of kind accuracy, this run's of kind bpb"):
        changed.load_state_dict(state)
    without = DomainLossRecorder(["code", "web"])
    without.load_state_dict(state)
    assert without.manifest.targets == tuple(TARGETS)


class Kept(Tracker):
    """A tracker that tells what it has after the checkpoint."""

    later: list[dict[str, float]]

    def resume(self, run_id: str | None, rows: int) -> list[dict[str, float]]:
        return self.later


@pytest.mark.parametrize("losses_in_checkpoint", [True, False])
def test_targets_recorded_after_the_checkpoint_of_their_step_are_kept(losses_in_checkpoint: bool) -> None:
    first = recorder_of(Tracker())
    first.add([0], [3.0], [10])
    first.log_train(4)
    if losses_in_checkpoint:
        evaluate(first, 4)
    tracker = Kept()
    loss = {"bimix/step": 4.0, "bimix/tokens": 10.0, "bimix_eval_loss/code": 8.0, "bimix_eval_tokens/code": 1.0}
    tracker.later = [loss, {"bimix/step": 4.0, "bimix/tokens": 10.0, "bimix_target/mmlu": 0.3}]
    second = recorder_of(tracker)

    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    second.keep_evaluation(4)

    (row,) = second.curves()["rows"]
    assert row["bimix_target/mmlu"] == 0.3
    assert row["bimix_eval_loss/code"] == (3.0 if losses_in_checkpoint else 8.0)
    (sent,) = tracker.rows
    assert ("bimix_eval_loss/code" in sent) is not losses_in_checkpoint


def test_a_target_needs_a_name_of_its_own() -> None:
    with pytest.raises(MixtureError, match="web"):
        DomainLossRecorder(["code", "web"], targets=[Target("web", "bpb")])


def test_a_muted_process_records_nothing_anywhere_else() -> None:
    tracker = Tracker()
    recorder = recorder_of(tracker)
    recorder.mute()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert recorder.record_targets(1, {"mmlu": 0.3}, tokens=5)["bimix_target/mmlu"] == 0.3

    assert (tracker.rows, tracker.manifests) == ([], [])


@pytest.mark.parametrize(
    "target",
    [
        Target("ppl", "score", higher_is_better=False),
        Target("mmlu", "accuracy", weight=0.0, questions=1, chance=0.25),
        Target("x", group="g", task="t"),
    ],
)
def test_what_a_target_says_is_all_in_its_manifest(target: Target) -> None:
    assert Target.from_dict(json.loads(json.dumps(target.to_dict()))) == target

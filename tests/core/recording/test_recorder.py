"""The recorder: sums in, rows out, the same as a loop over tokens; and a tracker that fails loses nothing."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimix_tracking import DomainLossRecorder
from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.errors import MixtureError, RecorderError
from bimix_tracking.recording.sums import SUMMED, DomainSums
from tests.core.memory import Tracker

DOMAINS = ("code", "web", "math")
tokens = st.lists(st.tuples(st.integers(0, 2), st.floats(0, 50), st.booleans()), min_size=1, max_size=40)


@given(st.lists(tokens, min_size=1, max_size=4))
def test_rows_equal_a_loop_over_tokens(batches: list[list[tuple[int, float, bool]]]) -> None:
    recorder = DomainLossRecorder(DOMAINS)
    losses: dict[str, list[float]] = defaultdict(list)
    for batch in batches:
        ids, values, counted = zip(*batch, strict=True)
        recorder.add(list(ids), list(values), [int(c) for c in counted])
        for id_, value, is_counted in batch:
            if is_counted:
                losses[DOMAINS[id_]].append(value)

    row = recorder.log_train(7)

    total = sum(map(len, losses.values()))
    expected: dict[str, float] = {"bimix/step": 7, "bimix/tokens": total}
    for name, seen in losses.items():
        expected[f"bimix_train_loss/{name}"] = math.fsum(seen) / len(seen)
    if total:
        for name in DOMAINS:
            expected[f"bimix_tokens/{name}"] = len(losses[name])
            expected[f"bimix_share/{name}"] = len(losses[name]) / total
    assert row == pytest.approx(expected, rel=1e-12)


def test_a_window_ends_with_its_row_and_tokens_go_on() -> None:
    recorder = DomainLossRecorder(DOMAINS)
    recorder.add([0, 1], [1.0, 5.0])
    recorder.log_train(1)
    recorder.add([0, 0], [3.0, 4.0])

    row = recorder.log_train(2)

    assert row["bimix_train_loss/code"] == 3.5
    assert "bimix_train_loss/web" not in row
    assert (row["bimix_tokens/code"], row["bimix_tokens/web"]) == (3, 1)
    assert (row["bimix_share/code"], row["bimix_share/math"]) == (0.75, 0)


def test_ids_of_sequences_go_with_losses_of_tokens() -> None:
    recorder = DomainLossRecorder(DOMAINS)

    recorder.add([0, 2], [[1.0, 2.0, 9.0], [4.0, 6.0, 8.0]], [[1, 1, 0], [1, 1, 1]])

    row = recorder.log_train(1)
    assert (row["bimix_train_loss/code"], row["bimix_train_loss/math"]) == (1.5, 6.0)


def test_one_evaluation_is_one_row_and_forgotten() -> None:
    recorder = DomainLossRecorder(DOMAINS)
    recorder.add([0] * 10, [2.0] * 10)
    recorder.add([0, 1], [3.0, 4.0], [1, 2], split="eval")

    assert recorder.log_eval(5) == {
        "bimix/step": 5, "bimix/tokens": 10, "bimix_eval_loss/code": 3.0, "bimix_eval_loss/web": 2.0,
        "bimix_eval_tokens/code": 1, "bimix_eval_tokens/web": 2,
    }  # fmt: skip
    assert recorder.log_eval(6) == {}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_bad_loss_leaves_the_rest_right_and_is_counted_and_said_once(bad: float) -> None:
    recorder = DomainLossRecorder(DOMAINS)
    recorder.add([0, 0, 1], [1.0, bad, 2.0])

    with pytest.warns(UserWarning, match=r"1 losses of domain 'code' up to step 3 were NaN or infinite"):
        row = recorder.log_train(3)

    assert (row["bimix_train_loss/code"], row["bimix_train_loss/web"]) == (1.0, 2.0)
    assert row["bimix_nonfinite/code"] == 1
    assert row["bimix/tokens"] == 2
    recorder.add([0], [bad])
    assert recorder.log_train(4)["bimix_nonfinite/code"] == 1  # a second warning would be an error here


@pytest.mark.parametrize(
    ("ids", "losses", "complaint"),
    [
        ([0, 3], [1.0, 1.0], r"domain id 3 is outside 0\.\.2 \(0 'code', 1 'web', 2 'math'\)"),
        ([-1], [1.0], "domain id -1 is outside"),
        ([0.0], [1.0], "must be integers, got float64"),
        (["code"], [1.0], "must be integers"),
        ([0, 1], [1.0], r"ids of shape \(2,\) don't fit losses of shape \(1,\)"),
    ],
)
def test_what_belongs_to_no_domain_is_refused(ids: list[object], losses: list[float], complaint: str) -> None:
    recorder = DomainLossRecorder(DOMAINS)

    with pytest.raises(RecorderError, match=complaint):
        recorder.add(ids, losses)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("counts", "complaint"),
    [
        ([3, -1], r"token counts must be whole numbers from 0 on, got -1"),
        ([0.5, 1.0], r"token counts must be whole numbers from 0 on, got 0\.5"),
        ([math.nan, 1.0], r"token counts must be whole numbers from 0 on, got nan"),
        ([1, 1, 1], r"token counts of shape \(3,\) don't fit losses of shape \(2,\)"),
    ],
)
def test_what_counts_no_tokens_is_refused_and_leaves_no_trace(counts: list[float], complaint: str) -> None:
    recorder = DomainLossRecorder(DOMAINS)

    with pytest.raises(RecorderError, match=complaint):
        recorder.add([0, 1], [1.0, 2.0], counts)

    assert recorder.log_train(1) == {"bimix/step": 1, "bimix/tokens": 0}


def test_counts_of_sequences_are_of_sequences_even_in_a_square_batch() -> None:
    recorder = DomainLossRecorder(DOMAINS)

    recorder.add([0, 1], [[1.0, 2.0], [3.0, 4.0]], [1, 0])

    row = recorder.log_train(1)
    assert row["bimix_train_loss/code"] == 1.5
    assert "bimix_train_loss/web" not in row


@given(st.lists(tokens, min_size=2, max_size=5))
def test_many_small_batches_are_one_large_batch(batches: list[list[tuple[int, float, bool]]]) -> None:
    small, large = DomainLossRecorder(DOMAINS), DomainLossRecorder(DOMAINS)
    for batch in batches:
        small.add(*map(list, zip(*batch, strict=True)))
    large.add(*map(list, zip(*(token for batch in batches for token in batch), strict=True)))

    assert small.log_train(1) == pytest.approx(large.log_train(1), rel=1e-12)


def test_a_mixture_over_other_domains_is_refused() -> None:
    with pytest.raises(MixtureError, match=r"unknown domain 'cobol'; choose from 'code', 'web'"):
        DomainLossRecorder(["code", "web"], {"code": 0.5, "cobol": 0.5})
    with pytest.raises(MixtureError, match=r"sum to 0\.9"):
        DomainLossRecorder(["code", "web"], {"code": 0.5, "web": 0.4})


def feed(recorder: DomainLossRecorder, steps: range) -> None:
    for step in steps:
        recorder.add([0, 1, 2], [3.0 / step, 2.0, 1.0], [step, 1, 2])
        if step % 2 == 0:
            recorder.log_train(step)
            recorder.add([0, 1, 2], [3.0, 2.0, 1.0 * step], split="eval")
            recorder.log_eval(step)


def test_an_interrupted_run_goes_on_as_if_it_had_not_been() -> None:
    whole, first = (DomainLossRecorder(DOMAINS, dict.fromkeys(DOMAINS, 1 / 3)) for _ in range(2))
    feed(whole, range(1, 10))
    feed(first, range(1, 6))

    second = DomainLossRecorder(DOMAINS, dict.fromkeys(DOMAINS, 1 / 3))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    feed(second, range(6, 10))

    assert second.state_dict() == whole.state_dict()
    assert second.log_train(9) == whole.log_train(9)
    assert second.curves() == whole.curves()
    with pytest.raises(RecorderError, match="the checkpoint has domains"):
        DomainLossRecorder(["a"]).load_state_dict(first.state_dict())


# As the version before sums were kept by name wrote it; still earlier ones hadn't all of the sums.
EARLIER = """{"manifest": {"schema": 1, "role": "train", "domains": ["code", "web"],
 "mixture": {"code": 0.5, "web": 0.5}, "tokenizer": "bytes", "eval_set": "sums:84f048abade0",
 "schedule": [[10, {"code": 0.25, "web": 0.75}]]},
"train": {"loss": [5.0, 0.0], "tokens": [3, 0], "nonfinite": [0, 1], "labels": [0, 0], "bytes": [12, 0],
 "unmeasured": [0, 0]},
"eval": {"loss": [1.5, 0.0], "tokens": [1, 0], "nonfinite": [0, 0], "labels": [0, 0], "bytes": [0, 0],
 "unmeasured": [0, 0]},
"sets": {"held out": [{"loss": [0.0, 2.5], "tokens": [0, 2], "nonfinite": [0, 0], "labels": [0, 0], "bytes": [0, 0],
 "unmeasured": [0, 0]}]},
"held_out": {"trained": true, "parts": [["", 0, 1, 0], ["", 1, 2, 0]]}, "tokens": [5, 4],
"drift": {"windows": 1, "steps": 1, "_tokens": [2.0, 4.0], "_sum": [-1.0, 1.0], "_squares": [1.0, 1.0],
 "_binomial": [1.5, 1.5], "_asked": [3.0, 3.0]}, "step": 1, "warned": [],
"curves": [[1, {"bimix/step": 1.0, "bimix/tokens": 6.0, "bimix_eval_loss/code": 1.0, "bimix_eval_loss/web": 1.0}]],
"delivery": {"run_id": null, "rows": 0, "journal": null, "key": null, "time": 0.0}}"""


@pytest.mark.parametrize("lacks", [(), ("unmeasured",), ("unmeasured", "bytes", "labels", "nonfinite")])
def test_a_checkpoint_of_an_earlier_version_is_gone_on_with(lacks: tuple[str, ...]) -> None:
    state, whole = json.loads(EARLIER), json.loads(EARLIER)
    of_state, of_whole = ([each["train"], each["eval"], *each["sets"]["held out"]] for each in (state, whole))
    for left, full in zip(of_state, of_whole, strict=True):
        for name in lacks:
            del left[name]
        full |= {name: [0, 0] for name in SUMMED if name not in left}
    recorder = DomainLossRecorder(
        ["code", "web"], {"code": 0.5, "web": 0.5}, schedule={10: {"code": 0.25, "web": 0.75}}
    )

    recorder.load_state_dict(state)

    assert recorder.state_dict() == whole  # what isn't there is 0
    recorder.add([0], [4.0], [2], byte_counts=[8])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        row = recorder.log_train(2)
    assert row["bimix_train_loss/code"] == 9 / 5
    assert row.get("bimix_nonfinite/web", 0.0) == (0.0 if "nonfinite" in lacks else 1.0)
    assert (row["bimix_tokens/code"], row["bimix_tokens/web"], row["bimix/tokens"]) == (7, 4, 11)
    with pytest.warns(UserWarning, match="domain 'web' has different text of the same length"):
        row = recorder.log_eval(2)
    assert (row["bimix_eval_loss/code"], "bimix_eval_loss/web" in row) == (1.5, False)
    assert recorder.curves()["rows"][0] == state["curves"][0][1]


@pytest.mark.parametrize("name", SUMMED)
def test_each_sum_adds_up_and_is_in_a_checkpoint(name: str) -> None:
    sums = DomainSums.from_lists({"loss": [0, 0], name: [3, 4]})
    recorder = DomainLossRecorder(["code", "web"])
    for split in ("train", "eval", "eval"):
        recorder.add_sums(sums, split=split)

    state = json.loads(json.dumps(recorder.state_dict()))
    resumed = DomainLossRecorder(["code", "web"])
    resumed.load_state_dict(state)

    assert state["train"][name] == [3, 4]
    assert state["eval"][name] == [6, 8]
    assert resumed.state_dict() == state
    zeros = {other: [0, 0] for other in SUMMED if other != name}
    assert state["train"] == {**zeros, name: [3, 4]}


def test_a_run_ends_with_its_curves() -> None:
    tracker = Tracker()
    recorder = DomainLossRecorder(DOMAINS, dict.fromkeys(DOMAINS, 1 / 3), tracker, tokenizer="t")
    feed(recorder, range(1, 6))
    recorder.finish(5)

    curves = json.loads(tracker.files["bimix/curves.json"])
    assert [row["bimix/step"] for row in curves["rows"]] == [2, 4]
    assert curves["manifest"]["tokenizer"] == "t"
    assert curves["manifest"]["eval_set"].startswith("sums:")
    assert tracker.rows[-1]["bimix_train_loss/code"] == 3.0 / 5 / 5  # what came after the last row isn't lost
    assert tracker.ended
    assert tracker.manifests[-1].eval_set == curves["manifest"]["eval_set"]


def test_without_numpy_types_in_rows() -> None:
    recorder = DomainLossRecorder(DOMAINS)
    recorder.add(np.array([0, 1]), np.array([1.0, 2.0]), np.array([1, 1]))

    assert {type(value) for value in recorder.log_train(1).values()} == {float}


def test_a_loss_that_is_no_number_makes_no_other_evaluation_set() -> None:
    def evaluated(losses: list[float], ids: list[int]) -> str | None:
        recorder = DomainLossRecorder(DOMAINS)
        recorder.add(ids, losses, split="eval")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            recorder.log_eval(1)
        return recorder.manifest.eval_set

    assert evaluated([1.0, math.nan, 2.0], [0, 0, 1]) == evaluated([1.0, 3.0, 2.0], [0, 0, 1])
    assert evaluated([1.0, 3.0, 2.0], [0, 1, 1]) != evaluated([1.0, 3.0, 2.0], [0, 0, 1])


def test_an_evaluation_set_is_the_same_whatever_order_the_domains_are_listed_in() -> None:
    def evaluated(domains: list[str], tokens: dict[str, int], labels: dict[str, int]) -> str | None:
        recorder = DomainLossRecorder(domains)
        sums = DomainSums.zeros(len(domains))
        sums.tokens[:] = [tokens[domain] for domain in domains]
        sums.labels[:] = [labels[domain] for domain in domains]
        recorder.add_sums(sums, split="eval")
        recorder.log_eval(1)
        return recorder.manifest.eval_set

    tokens, labels = {"web": 512, "code": 256, "c++": 64}, {"web": 9000, "code": 77, "c++": 5}
    (one,) = {evaluated(list(order), tokens, labels) for order in itertools.permutations(tokens)}
    # Another set has another name, though its numbers are the same ones of other domains.
    assert evaluated(["web", "code", "c++"], tokens | {"web": 256, "code": 512}, labels) != one
    assert evaluated(["web", "code", "c++"], tokens, labels | {"web": 5, "c++": 9000}) != one


def test_a_schedule_is_logged_as_it_goes_and_told_in_the_manifest() -> None:
    tracker = Tracker()
    recorder = DomainLossRecorder(
        ["code", "web"], {"code": 0.5, "web": 0.5}, tracker, schedule={10: {"code": 0.9, "web": 0.1}}
    )
    rows = []
    for step in (5, 15, 20):
        recorder.add([0, 1], [1.0, 1.0])
        rows.append(recorder.log_train(step))
    recorder.set_mixture({"code": 0.2, "web": 0.8}, 20)
    recorder.add([0, 1], [1.0, 1.0])
    rows.append(recorder.log_train(25))

    # From 5 to 15 half of the steps had the one, half the other.
    assert [row["bimix_nominal/code"] for row in rows] == pytest.approx([0.5, 0.7, 0.9, 0.2])
    told = tracker.manifests[-1]
    assert [(step, dict(mixture)) for step, mixture in told.schedule] == [
        (10, {"code": 0.9, "web": 0.1}),
        (20, {"code": 0.2, "web": 0.8}),
    ]
    assert RunManifest.from_dict(json.loads(json.dumps(told.to_dict()))) == told


@pytest.mark.parametrize(
    ("schedule", "complaint"),
    [
        ({0: {"code": 1.0, "web": 0.0}}, r"must rise and be above 0, got \[0\]"),
        ({5: {"code": 0.5, "cobol": 0.5}}, "unknown domain 'cobol'"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(schedule: dict[int, dict[str, float]], complaint: str) -> None:
    with pytest.raises(MixtureError, match=complaint):
        DomainLossRecorder(["code", "web"], {"code": 0.5, "web": 0.5}, schedule=schedule)
    with pytest.raises(MixtureError, match="needs the mixture that the run starts with"):
        DomainLossRecorder(["code", "web"], schedule={5: {"code": 0.5, "web": 0.5}})


def test_bits_per_byte_stand_beside_nats_where_bytes_are_given() -> None:
    recorder = DomainLossRecorder(DOMAINS)
    recorder.add([0, 1], [8.0, 6.0], [4, 3], byte_counts=[16, 0], split="eval")

    row = recorder.log_eval(1)

    assert row["bimix_eval_loss/code"] == 2.0
    assert row["bimix_eval_bpb/code"] == pytest.approx(8 / math.log(2) / 16)
    assert "bimix_eval_bpb/web" not in row


def test_a_muted_recorder_keeps_its_numbers_to_itself() -> None:
    loud, muted = Tracker(), Tracker()
    recorders = [DomainLossRecorder(DOMAINS, dict.fromkeys(DOMAINS, 1 / 3), tracker) for tracker in (loud, muted)]
    recorders[1].mute()
    for recorder in recorders:
        feed(recorder, range(1, 6))
        recorder.finish(5)

    assert loud.rows
    assert not muted.rows
    assert not muted.ended
    assert recorders[0].curves() == recorders[1].curves()


def test_tokens_whose_loss_nobody_saw_are_tokens_all_the_same() -> None:
    recorder = DomainLossRecorder(["code", "web"], {"code": 0.5, "web": 0.5})
    sums = DomainSums.zeros(2)
    sums.loss[0], sums.tokens[0], sums.unmeasured[:] = 6.0, 2, [1, 3]
    recorder.add_sums(sums)

    row = recorder.log_train(1)

    assert row["bimix_train_loss/code"] == 3.0
    assert "bimix_train_loss/web" not in row
    assert (row["bimix_tokens/code"], row["bimix_tokens/web"], row["bimix_share/web"]) == (3, 3, 0.5)

"""A run is one training, and its curve one held-out set's: restarts, failures, resumes, and evaluations of others."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bimix_tracking import DomainLossRecorder, Observations, Wanted, open_source, open_tracker
from bimix_tracking.data.manifest import RunManifest, RunRecord
from bimix_tracking.errors import RecorderError, SourceError
from bimix_tracking.mixture import Mixture
from bimix_tracking.recording.drift import Drift
from bimix_tracking.recording.sums import DomainSums

DOMAINS = ("code", "web")
MIXTURE = {"code": 0.3, "web": 0.7}


def recorder(where: str = "", **options: Any) -> DomainLossRecorder:
    return DomainLossRecorder(DOMAINS, MIXTURE, open_tracker(where) if where else None, **options)


def train(of: DomainLossRecorder, step: int, tokens: Sequence[int] = (300, 700)) -> None:
    of.add([0, 1], [3.0 * n for n in tokens], list(tokens))
    of.log_train(step)


def evaluate(
    of: DomainLossRecorder, step: int, tokens: Sequence[int] = (100, 100), loss: float = 2.0
) -> dict[str, float]:
    of.add([0, 1], [loss * n for n in tokens], list(tokens), split="eval")
    return of.log_eval(step)


def sums(tokens: Sequence[int], labels: Sequence[int] = (0, 0)) -> DomainSums:
    found = DomainSums.zeros(2)
    found.tokens[:], found.labels[:], found.loss[:] = tokens, labels, 2.0 * np.array(tokens)
    return found


def losses(row: Mapping[str, float]) -> set[str]:
    return {name.partition("/")[2] for name in row if name.startswith("bimix_eval_loss/")}


# --- the curve is the held-out set's


@pytest.mark.parametrize("explicit", [{}, {"eval_set": "mine"}])
def test_a_set_that_changes_in_mid_run_counts_up_to_there(explicit: dict[str, str], tmp_path: Path) -> None:
    of = recorder(f"jsonl:{tmp_path}", **explicit)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for step, tokens in ((1, (100, 100)), (2, (100, 100)), (3, (500, 100)), (4, (500, 100))):
            train(of, step)
            evaluate(of, step, tokens)
        of.finish()

    (text,) = [str(each.message) for each in said]
    assert text.startswith(
        "the evaluation at step 3 is not on this run's held-out set: domain 'code' has 500 "
        "tokens instead of 100. It is excluded from the curve"
    )
    obs = Observations.from_source(f"jsonl:{tmp_path}")
    steps = {domain: rows["step"].tolist() for domain, rows in obs.losses.groupby("domain")}
    assert steps == {"code": [1, 2], "web": [1, 2, 3, 4]}
    (note,) = obs.notes
    assert (note.reason, note.count) == ("evaluated on other tokens than the run's held-out set", 2)


def test_as_many_tokens_of_other_text_are_another_set() -> None:
    of = recorder()
    train(of, 1)
    of.add_sums(sums((100, 100), (5000, 6000)), split="eval")
    assert losses(of.log_eval(1)) == {"code", "web"}
    train(of, 2)
    of.add_sums(sums((100, 100), (5000, 6001)), split="eval")
    with pytest.warns(UserWarning, match="domain 'web' has different text of the same length"):
        row = of.log_eval(2)
    assert losses(row) == {"code"}
    assert row["bimix/other_set"] == 1


def test_a_test_set_after_training_never_enters_the_curve(tmp_path: Path) -> None:
    of = recorder(f"jsonl:{tmp_path}")
    train(of, 1)
    evaluate(of, 1)
    of.finish()
    (curves,) = tmp_path.glob("*/curves.json")
    before = curves.read_text(encoding="utf-8")

    with pytest.warns(UserWarning, match="is not on this run's held-out set"):
        evaluate(of, 1, (40, 60), loss=9.0)
    evaluate(of, 1, loss=8.0)  # the held-out set again: perhaps by other weights
    of.finish()

    assert json.loads(curves.read_text(encoding="utf-8")) == json.loads(before)


def test_a_baseline_of_another_set_before_training_does_not_fix_it() -> None:
    of = recorder()
    evaluate(of, 0, (7, 7))
    train(of, 1)
    with pytest.warns(UserWarning, match="the evaluation before training used another set"):
        row = evaluate(of, 1)

    assert losses(row) == {"code", "web"}
    assert [row["bimix/step"] for row in of.curves()["rows"]] == [1]
    assert of.manifest.eval_set is not None
    train(of, 2)
    assert losses(evaluate(of, 2)) == {"code", "web"}


def test_sets_of_a_step_are_judged_apart_by_their_names() -> None:
    of = recorder()

    def sets(step: int, **named: tuple[int, int]) -> dict[str, float]:
        train(of, step)
        for name, tokens in named.items():
            of.add_sums(sums(tokens), split="eval")
            of.end_evaluation(name)
        return of.log_eval(step)

    row = sets(1, news=(10, 20), wiki=(30, 40))
    assert (row["bimix_eval_tokens/code"], row["bimix_eval_tokens/web"]) == (40, 60)
    with pytest.warns(UserWarning, match="not on this run's held-out set"):
        row = sets(2, news=(10, 20), extra=(5, 5), wiki=(30, 40))
    assert (row["bimix_eval_tokens/code"], row["bimix_eval_tokens/web"]) == (40, 60)
    assert losses(sets(3, news=(10, 20))) == set()  # a part of it only
    again = sets(4, news=(10, 20), wiki=(30, 40))
    assert (again["bimix_eval_tokens/code"], again["bimix_eval_tokens/web"]) == (40, 60)
    assert "bimix/other_set" not in again


def test_of_two_sets_of_one_name_and_step_the_held_out_one_counts() -> None:
    of = recorder()
    row: dict[str, float] = {}
    for step, sizes in ((1, (7, 100)), (2, (100, 7)), (3, (7, 100, 100)), (4, (100,))):
        train(of, step)
        for size in sizes:
            of.add_sums(sums((size, size)), split="eval")
            of.end_evaluation("eval")
        if step == 1:
            of.load_state_dict(of.state_dict())
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            row = of.log_eval(step)
        assert (row["bimix_eval_tokens/code"], row.get("bimix/other_set", 0)) == (100, 2 * (step < 4))


def test_a_domain_that_is_evaluated_later_has_a_curve_from_there() -> None:
    of = recorder()
    train(of, 1)
    of.add([0], [200.0], [100], split="eval")
    of.log_eval(1)
    first = of.manifest.eval_set
    train(of, 2)
    assert losses(evaluate(of, 2)) == {"code", "web"}
    assert of.manifest.eval_set != first


@given(st.permutations(["news", "wiki", "forum"]), st.integers(0, 2))
def test_the_order_of_sets_tells_nothing_and_a_repeat_counts_once(order: list[str], again: int) -> None:
    of = recorder()
    for step, names in ((1, ["news", "wiki", "forum"]), (2, [*order, order[again]])):
        train(of, step)
        for name in names:
            of.add_sums(sums((len(name), 2 * len(name))), split="eval")
            of.end_evaluation(name)
        row = of.log_eval(step)
        assert row["bimix_eval_tokens/code"] == 13


def test_the_set_is_held_to_across_a_resume() -> None:
    first = recorder()
    train(first, 1)
    evaluate(first, 1)
    resumed = recorder()
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    train(resumed, 2)
    with pytest.warns(UserWarning, match="evaluation at step 2 is not on this run's held-out set"):
        assert losses(evaluate(resumed, 2, (60, 60))) == set()


def test_a_set_that_changed_in_runs_of_earlier_versions_is_found_in_what_they_logged() -> None:
    def row(step: int, tokens: int, **more: float) -> dict[str, float]:
        return {"bimix/step": step, "bimix/tokens": 1000.0 * step, "bimix_eval_loss/code": 3.0 - step / 10,
                "bimix_eval_tokens/code": tokens, **more}  # fmt: skip

    not_finite = {"bimix_nonfinite/code": 2.0}  # of the training, or of the evaluation: rows of a step are merged
    rows = [row(0, 7), row(1, 100, **not_finite), row(2, 98, **not_finite), row(3, 160), row(4, 100), row(5, 99)]
    manifest = RunManifest(DOMAINS, Mixture(MIXTURE), eval_set="mine")
    obs = Observations.from_records([RunRecord("r", "r", manifest, rows)], source="here")
    assert obs.losses["step"].tolist() == [1, 2, 4]
    assert "evaluated on other tokens than the run's held-out set" in {note.reason for note in obs.notes}


# --- a run is one training


def test_each_training_begins_from_zero_in_a_run_of_its_own(tmp_path: Path) -> None:
    of = DomainLossRecorder(DOMAINS, MIXTURE, open_tracker(f"jsonl:{tmp_path}", run_name="p"))
    for _ in range(3):
        of.restart()
        for step in (1, 2):
            train(of, step)
            evaluate(of, step)
        of.finish(2)
        assert of.curves()["rows"][-1]["bimix/tokens"] == 2000

    records = open_source(f"jsonl:{tmp_path}").records()
    assert [record.name for record in records] == ["p", "p-2", "p-3"]
    assert [record.rows[-1]["bimix/tokens"] for record in records] == [2000] * 3


def test_an_attempt_that_did_not_end_is_failed_and_leaves_nothing(tmp_path: Path) -> None:
    of = recorder(f"jsonl:{tmp_path}")
    train(of, 1)
    of.add([0, 1], [1.0, 1.0])  # what the attempt was about to log
    of.restart()
    train(of, 1)
    evaluate(of, 1)
    of.finish(1)

    states = open_source(f"jsonl:{tmp_path}").states()
    assert sorted(state.status for state in states) == ["failed", "finished"]
    assert Observations.from_source(f"jsonl:{tmp_path}").losses["tokens"].tolist() == [1000, 1000]


def test_a_step_that_goes_back_is_another_training() -> None:
    of = recorder()
    train(of, 5)
    with pytest.raises(RecorderError, match=r"step 2 comes after step 5.*restart\(\)"):
        of.log_train(2)


def test_an_exception_fails_the_run_and_an_end_finishes_it(tmp_path: Path) -> None:
    failing = recorder(f"jsonl:{tmp_path}/a")
    train(failing, 1)
    with pytest.raises(RecorderError), failing:
        failing.log_train(-1)
    with recorder(f"jsonl:{tmp_path}/b") as of:
        train(of, 1)
    assert [state.status for where in "ab" for state in open_source(f"jsonl:{tmp_path}/{where}").states()] == [
        "failed",
        "finished",
    ]


def test_a_resume_with_another_mixture_is_a_change_from_there() -> None:
    first = recorder()
    train(first, 10)
    evaluate(first, 10)
    state = first.state_dict()
    resumed = DomainLossRecorder(DOMAINS, {"code": 0.8, "web": 0.2})
    with pytest.warns(UserWarning, match="checkpoint of step 10 has another mixture"):
        resumed.load_state_dict(state)
    assert resumed.manifest.mixture == Mixture(MIXTURE)
    assert resumed.manifest.schedule == ((10, Mixture({"code": 0.8, "web": 0.2})),)

    again = DomainLossRecorder(DOMAINS, {"code": 0.8, "web": 0.2})
    again.load_state_dict(resumed.state_dict())  # the change is known by now
    assert again.manifest.schedule == resumed.manifest.schedule


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"tokenizer": "b"}, "the checkpoint's tokenizer is 'a', this run's 'b'"),
        ({"domains": ("web", "code")}, "the checkpoint has domains 'code', 'web', this run 'web', 'code'"),
        ({"domains": ("code", "web", "math")}, "this run 'code', 'web', 'math'"),
    ],
)
def test_a_resume_with_another_tokenizer_or_domain_list_is_refused(changes: dict[str, Any], complaint: str) -> None:
    first = recorder(tokenizer="a")
    train(first, 1)
    given = {"domains": DOMAINS, "tokenizer": "a"} | changes
    other = DomainLossRecorder(given["domains"], MIXTURE, tokenizer=given["tokenizer"])
    with pytest.raises(RecorderError, match=complaint):
        other.load_state_dict(first.state_dict())


def test_a_tokenizer_that_the_trainer_tells_later_is_held_against_the_checkpoint_s() -> None:
    first = recorder()
    first.complete(tokenizer="a (10 tokens)", model_size=7000, total_parameters=9000)
    train(first, 1)
    resumed = recorder()
    resumed.load_state_dict(first.state_dict())
    resumed.complete(tokenizer="a (10 tokens)")
    assert (resumed.manifest.model_size, resumed.manifest.total_parameters) == (7000, 9000)
    with pytest.raises(RecorderError, match=r"tokenizer is 'a \(10 tokens\)', this run's 'b'"):
        resumed.complete(tokenizer="b")


# --- numbers are numbers at the door


@pytest.mark.parametrize("step", [np.int64(1), np.float32(1), torch.tensor(1), 1.0, np.array(1)])
@pytest.mark.parametrize("value", [np.float32(0.5), torch.tensor(0.5, requires_grad=True), np.array(0.5), 0.5])
def test_numbers_of_every_library_are_numbers(step: Any, value: Any) -> None:
    of = recorder()
    row = of.log_train(step, {"lr": value})
    assert json.loads(json.dumps(row)) == {"bimix/step": 1.0, "bimix/tokens": 0.0, "lr": 0.5,
                                           "bimix_nominal/code": 0.3, "bimix_nominal/web": 0.7}  # fmt: skip
    json.dumps(of.state_dict())


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"opt": "adam"}, "'opt' must be a number, got 'adam'"),
        ({"opt": "3"}, "'opt' must be a number"),
        ({"opt": None}, "'opt' must be a number, got None"),
        ({"opt": np.ones(1)}, "'opt' must be a number"),
        ({"opt": torch.ones(2)}, "'opt' must be a number"),
        ({"opt": 1j}, "'opt' must be a number"),
        ({3: 1.0}, "name must be a text, got 3"),
        ({" ": 1.0}, "name must be a text"),
        ({"bimix/step": 9.0}, "the recorder logs a metric 'bimix/step' itself"),
    ],
)
def test_what_is_no_number_is_refused_by_name(more: dict[Any, Any], complaint: str) -> None:
    of = recorder()
    of.add([0], [1.0])
    with pytest.raises(RecorderError, match=complaint):
        of.log_train(1, more)
    assert of.log_train(1)["bimix_train_loss/code"] == 1.0  # nothing is lost by the refusal


@pytest.mark.parametrize("step", [1.5, -1, "1", None, float("nan"), float("inf"), [1]])
def test_a_step_that_is_none_is_refused(step: Any) -> None:
    for log in (recorder().log_train, recorder().log_eval):
        with pytest.raises(RecorderError, match="'step' must be"):
            log(step)


def test_token_counts_beyond_an_int64_are_refused_and_large_ones_exact() -> None:
    of = recorder()
    for counts in ([2**63], [2.0**63], np.array([2**63], np.uint64), [10**30], [float("inf")]):
        with pytest.raises(RecorderError, match=r"token counts must be whole numbers from 0 on"):
            of.add([0], [1.0], counts)
    with pytest.raises(RecorderError, match=r"domain 'code' would have .* tokens, more than an int64 counts"):
        of.add([0, 0], [1.0, 1.0], [2**62, 2**62])
    of.add([0], [1.0], [2**53 + 1])
    assert of.state_dict()["tokens"] == [2**53 + 1, 0]
    for split in ("train", "eval"):
        of.add([0], [1.0], [2**62], split=split)
        with pytest.raises(RecorderError, match="domain 'code' would have"):
            of.add([0], [1.0], [2**62], split=split)
    assert of.state_dict()["tokens"][0] > 0


# --- nominal and realised shares


def told(of: DomainLossRecorder, steps: Iterable[int], tokens: Sequence[int]) -> list[str]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for step in steps:
            train(of, step, tokens)
        of.finish()
    return [str(each.message) for each in said]


def test_a_gross_mismatch_is_told_with_the_first_records_and_at_the_end() -> None:
    said = told(DomainLossRecorder(DOMAINS, {"code": 0.1, "web": 0.9}), range(50, 201, 50), (700, 300))
    assert [text.partition(" has ")[0] for text in said] == [
        "at step 50, domain 'web'",
        "at the end of training, domain 'web'",
    ]


def test_a_mismatch_that_is_not_gross_is_told_at_the_end_of_a_run_with_few_records() -> None:
    (said,) = told(DomainLossRecorder(DOMAINS, {"code": 0.2, "web": 0.8}), range(500, 3001, 500), (240, 760))
    assert said.startswith("at the end of training, domain 'web' has a realised share of 0.76")


def test_few_draws_tell_nothing() -> None:
    assert told(DomainLossRecorder(DOMAINS, {"code": 0.5, "web": 0.5}), range(1, 4), (700, 300)) == []


def test_random_draws_are_seldom_told_early() -> None:
    false = 0
    rng = np.random.default_rng(0)
    for _ in range(300):
        drift = Drift(3)
        nominal = np.array([0.05, 0.25, 0.7])
        for _ in range(12):
            drift.add(512 * rng.multinomial(10, nominal), nominal, steps=10)  # one sequence a step: the worst there is
            false += bool(drift.beyond_noise())
        false += bool(drift.beyond_noise(ended=True))
    assert false <= 1


def test_the_law_can_be_fitted_to_what_was_realised(tmp_path: Path) -> None:
    uri = f"jsonl:{tmp_path}"
    for number, code in enumerate((0.2, 0.5)):
        of = DomainLossRecorder(DOMAINS, {"code": code, "web": 1 - code}, open_tracker(uri, run_name=f"r{number}"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            for step in (100, 200):
                train(of, step, (100, 900 + number))
                evaluate(of, step, loss=2.0 + number / step)
            of.finish()

    nominal = Observations.from_source(uri)
    realised = Observations.from_source(open_source(uri, wanted=Wanted(shares="realised")))
    assert nominal.mixtures["code"].tolist() == [0.2, 0.5]
    assert "kept; nominal share used" in {note.action for note in nominal.notes}
    assert realised.mixtures["code"].tolist() == pytest.approx([0.1, 100 / 1001])
    assert realised.shared["shares"] == "realised"
    assert realised.notes == ()
    with pytest.raises(SourceError, match="shares must be one of nominal, realised, got 'told'"):
        Wanted(shares="told")  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="pull it with --shares realised"):
        open_source(f"csv:{tmp_path}/sweep.csv", wanted=Wanted(shares="realised"))


def test_runs_without_realised_shares_keep_their_mixture_and_that_is_said() -> None:
    rows = [{"bimix/step": 1.0, "bimix/tokens": 1e3, "bimix_eval_loss/code": 3.0}]
    record = RunRecord("r", "r", RunManifest(DOMAINS, Mixture(MIXTURE)), rows)
    obs = Observations.from_records([record], source="here", shares="realised")
    assert obs.mixture("r") == Mixture(MIXTURE)
    assert [str(note) for note in obs.notes] == [
        "kept; nominal share used: no realised shares were logged (run 'r'; 1×)"
    ]

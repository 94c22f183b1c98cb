"""Targets of their own kinds: read and written whole, refused where they can't be, and linked to working losses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from bimix_tracking import Observations
from bimix_tracking.data.links import Link, linked
from bimix_tracking.data.manifest import RunManifest, RunRecord
from bimix_tracking.data.targets import Kind, Target, targets_of, united
from bimix_tracking.errors import ObservationsError
from bimix_tracking.mixture import Mixture

TARGETS = (
    Target("quiz", "accuracy", questions=800, chance=0.25, group="knowledge", task="quiz"),
    Target("quiz_bpb", "bpb", task="quiz"),
    Target("judge", "score", higher_is_better=True),
    Target("toxicity", "score", higher_is_better=False),
)


def table(**columns: object) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "run": [f"r{i}" for i in range(6)],
            "code": [0.1, 0.2, 0.3, 0.5, 0.6, 0.8],
            "web": [0.9, 0.8, 0.7, 0.5, 0.4, 0.2],
            "tokens": 1e9,
            "loss": [3.0, 2.9, 2.85, 2.8, 2.78, 2.75],
            "quiz": [0.31, 0.36, 0.40, 0.47, 0.50, 0.56],
            "quiz_bpb": [1.2, 1.15, 1.1, 1.05, 1.0, 0.95],
            "judge": [-3.0, -2.5, 0.0, 2.0, 2.5, 4.0],
            "toxicity": [0.0, 0.1, 0.1, 0.2, 0.3, 0.3],
        }
        | columns
    )


def read(frame: pd.DataFrame, targets: tuple[Target, ...] = TARGETS) -> Observations:
    return Observations.from_wide(
        frame, proportions=["code", "web"], losses={"code": "loss"}, targets=targets, tokens="tokens", run="run"
    )


def test_every_kind_is_read_as_it_was_measured_and_linked_to_a_loss() -> None:
    obs = read(table())

    assert obs.targets == ("code", "quiz", "quiz_bpb", "judge", "toxicity")
    assert obs.target("quiz").questions == 800
    assert obs.target("code").kind is Kind.LOSS
    for name in obs.targets:
        mine = obs.losses["domain"] == name
        assert obs.measured[mine].tolist() == table()["loss" if name == "code" else name].tolist()
        losses = obs.losses.loc[mine, "loss"].to_numpy()
        assert (losses > 0).all()
        better = np.argsort(losses) if not obs.target(name).rising else np.argsort(-losses)
        assert (np.diff(obs.measured[mine][better]) >= 0).all()  # one order, the loss falls as it gets better
        assert obs.link(name).value(losses) == pytest.approx(obs.measured[mine], rel=2e-3)


def test_a_csv_keeps_kinds_questions_and_chance(tmp_path: Path) -> None:
    obs = read(table())
    obs.to_csv(tmp_path / "sweep.csv")
    again = Observations.from_csv(tmp_path / "sweep.csv")

    assert again.targets == obs.targets
    assert [again.target(t).kind for t in again.targets] == [obs.target(t).kind for t in obs.targets]
    assert not again.target("toxicity").rising
    assert again.target("quiz").chance == 0.25
    np.testing.assert_allclose(again.losses["loss"], obs.losses["loss"], rtol=1e-12)
    np.testing.assert_allclose(again.losses["precision"], obs.losses["precision"], rtol=1e-12)


def test_a_sweep_of_losses_alone_has_the_hash_that_it_had() -> None:
    plain = read(table(), ())

    assert not plain.links
    assert plain.losses["loss"].equals(plain.losses["value"].rename("loss"))
    assert plain.data_hash == "63ddd0ad159e44d7"
    assert read(table(), TARGETS[1:2]).data_hash != read(table(), (Target("quiz_bpb"),)).data_hash


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"quiz": [31.0, 36.0, 40.0, 47.0, 50.0, 56.0]}, "target 'quiz' is an accuracy, but run 'r0' has 31.*per cent"),
        ({"quiz": [1.2, 1.3, 1.1, 0.4, 0.5, 0.6]}, "3 of 6 runs are above 1"),
    ],
)
def test_accuracies_in_per_cent_are_refused_by_run_and_number(columns: dict[str, object], text: str) -> None:
    with pytest.raises(ObservationsError, match=text):
        read(table(**columns))


def test_single_bad_values_are_excluded_and_the_rest_is_kept() -> None:
    obs = read(table(quiz=[0.31, 0.36, 0.4, 1.4, 0.5, 0.56], judge=[np.nan, -2.5, 0.0, 2.0, np.inf, 4.0]))

    reasons = {(note.reason, note.run, note.domain) for note in obs.notes}
    assert ("an accuracy outside 0 to 1", "r3", "quiz") in reasons
    assert ("its value is NaN", "r0", "judge") in reasons
    assert ("its value is infinite", "r4", "judge") in reasons
    assert (obs.losses["domain"] == "quiz").sum() == 5
    assert (obs.losses["domain"] == "judge").sum() == 4
    assert (obs.losses["domain"] == "code").sum() == 6


def test_a_mean_below_chance_is_said_and_kept() -> None:
    obs = read(table(quiz=[0.10, 0.11, 0.12, 0.11, 0.10, 0.09]))

    (note,) = obs.notes
    assert note.domain == "quiz"
    assert "10.5 %, below its chance level of 25.0 %" in note.reason
    assert np.isfinite(obs.losses["loss"]).all()


def test_equal_accuracies_are_a_constant_loss() -> None:
    obs = read(table(quiz=[0.3] * 6))

    assert np.ptp(obs.losses.loc[obs.losses["domain"] == "quiz", "loss"]) == 0


def test_runs_say_what_their_targets_are_and_must_agree() -> None:
    def record(name: str, share: float, target: Target) -> RunRecord:
        manifest = RunManifest(("code", "web"), Mixture({"code": share, "web": 1 - share}), targets=(target,))
        manifest = RunManifest.from_dict(manifest.to_dict())
        rows = [{"bimix/step": 1.0, "bimix/tokens": 1e6, "bimix_target/quiz": share, "bimix_questions/quiz": 500.0}]
        return RunRecord(name, name, manifest, rows)

    quiz = Target("quiz", "accuracy", chance=0.25, group="g")
    records = [record("one", 0.3, quiz), record("two", 0.6, quiz)]
    obs = Observations.from_records(records, source="here", targets=[Target("quiz", "accuracy", weight=2.0)])

    assert obs.targets == ("quiz",)
    assert obs.measured.tolist() == [0.3, 0.6]
    assert obs.losses["questions"].tolist() == [500.0, 500.0]
    assert obs.target("quiz") == Target("quiz", "accuracy", chance=0.25, group="g", weight=2.0)
    with pytest.raises(ObservationsError, match=r"target 'quiz' is .* in run 'one', but .* in run 'other'"):
        Observations.from_records([*records, record("other", 0.5, Target("quiz", "bpb"))], source="here")


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"kind": "acuracy"}, "no kind 'acuracy'; did you mean 'accuracy'"),
        ({"kind": "score"}, "say whether higher_is_better"),
        ({"kind": "accuracy", "higher_is_better": False}, "of which higher is better"),
        ({"kind": "bpb", "questions": 10}, "only accuracies have questions"),
        ({"kind": "accuracy", "questions": 0}, "a positive number of questions"),
        ({"kind": "accuracy", "chance": 25}, "a proportion from 0 up to 1"),
        ({"kind": "accuracy", "qestions": 10}, "no entry 'qestions'; did you mean 'questions'"),
        ({"weight": -1}, "finite and not negative"),
        ({"group": ["a", "b"]}, "the group of target 'mmlu' must be a text"),
    ],
)
def test_wrong_entries_are_named(entries: dict[str, object], text: str) -> None:
    with pytest.raises(ObservationsError, match=text):
        targets_of({"mmlu": entries})


def test_a_targets_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "targets.yaml"
    path.write_text("mmlu: {kind: accuracy, questions: 14042, chance: 0.25}\nweb: {weight: 2}\n", encoding="utf-8")

    found = targets_of(path)
    assert found == {
        "mmlu": Target("mmlu", "accuracy", questions=14042, chance=0.25),
        "web": Target("web", weight=2),
    }
    assert united(found, targets_of({"mmlu": {"kind": "bpb"}}))["mmlu"] == Target("mmlu", "bpb")
    with pytest.raises(ObservationsError, match="cannot read the targets file"):
        targets_of(tmp_path / "none.yaml")


@given(st.floats(0.01, 5.0), st.floats(-3.0, 3.0), st.sampled_from([0.0, 0.25, 0.5]), st.floats(0.02, 0.98))
def test_a_link_and_its_inverse_are_one(rate: float, centre: float, chance: float, q: float) -> None:
    accuracy = Link(Kind.ACCURACY, rate, centre, chance, rising=True)
    value = chance + (1 - chance) * q
    assert float(accuracy.value(accuracy.loss(value))) == pytest.approx(value, rel=1e-9)
    assert float(np.log(accuracy.loss(value))) == pytest.approx(rate * (centre - logit(q)), abs=1e-9)
    # Near L = 1 a unit of L is worth `unit` of accuracy.
    step = 1e-6
    slope = (float(accuracy.value(1.0)) - float(accuracy.value(1.0 + step))) / step
    assert slope == pytest.approx(accuracy.unit, rel=1e-4)


def test_the_working_response_is_unbiased_near_chance_where_a_logit_is_not() -> None:
    random = np.random.default_rng(0)
    runs, questions = 40, 500
    centre = np.full(runs, -2.2)  # 0.33 with a chance of 0.25: one in nine of these draws is below 0.26
    truth = 0.25 + 0.75 * expit(centre)
    target = Target("quiz", "accuracy", questions=questions, chance=0.25)
    found = []
    for _ in range(200):
        values = random.binomial(questions, truth) / questions
        one = linked(target, values, np.full(runs, np.nan), np.arange(runs), np.full(runs, 1e9))
        weight = one.precision / one.precision.sum()
        found.append(float(one.link.value(np.exp((weight * np.log(one.loss)).sum()))))
        assert 0.3 < one.precision.min() <= one.precision.max() < 4

    assert np.mean(found) == pytest.approx(float(truth[0]), abs=0.002)

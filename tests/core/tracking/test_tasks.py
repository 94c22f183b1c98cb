"""Benchmark tasks of other tools: their spellings as their sources have them, and which of them are targets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from bimix_tracking.data.histories import Point
from bimix_tracking.data.manifest import RunRecord
from bimix_tracking.data.metric_names import QUESTIONS, TARGET, key
from bimix_tracking.data.targets import Kind, Target
from bimix_tracking.errors import SourceError
from bimix_tracking.mixture import Mixture
from bimix_tracking.tracking.other_tools.runs import ForeignRuns
from bimix_tracking.tracking.other_tools.tasks import Facts, tasks_of
from bimix_tracking.tracking.ports import Wanted

HALVES = Mixture({"code": 0.5, "web": 0.5})
REAL = {
    # lm_eval/loggers/wandb_logger.py at 0ff6ab9: `<task>/<metric>`, a filter's name after a comma unless it is `none`.
    "lm-evaluation-harness": (
        [
            "hellaswag/acc", "hellaswag/acc_stderr", "hellaswag/acc_norm", "hellaswag/acc_norm_stderr",
            "gsm8k/exact_match,strict-match", "gsm8k/exact_match_stderr,strict-match",
            "gsm8k/exact_match,flexible-extract", "lambada_openai/perplexity", "lambada_openai/acc",
            "wikitext/word_perplexity", "wikitext/byte_perplexity", "wikitext/bits_per_byte", "truthfulqa_mc2/mc2",
            "evaluation/eval_results", "train/acc", "val/f1", "eval/accuracy",
        ],
        {
            "hellaswag/acc_norm": ("accuracy", 0.25), "gsm8k/exact_match,strict-match": ("accuracy", 0.0),
            "lambada_openai/acc": ("accuracy", 0.0), "lambada_openai/log_perplexity": ("loss", 0.0),
            "wikitext/bits_per_byte": ("bpb", 0.0), "truthfulqa_mc2/mc2": ("score", 0.0),
        },
    ),
    # Marin's sweeps read these names of Levanter's.
    "Levanter": (
        [
            "lm_eval/arc_challenge/acc", "lm_eval/arc_challenge/acc_norm", "lm_eval/arc_challenge/bpb",
            "lm_eval/arc_challenge/choice_logprob", "lm_eval/hellaswag_0shot/acc_norm", "lm_eval/piqa/acc",
            "lm_eval/averages/macro_avg_acc", "lm_eval/humaneval_0shot/pass@1,create_test",
            "lm_eval/code2text_python_0shot/smoothed_bleu_4", "eval/paloma/c4_en/loss", "eval/paloma/c4_en/bpb",
        ],
        {
            "arc_challenge/acc_norm": ("accuracy", 0.25), "arc_challenge/bpb": ("bpb", 0.0),
            "hellaswag_0shot/acc_norm": ("accuracy", 0.25), "piqa/acc": ("accuracy", 0.5),
            "humaneval_0shot/pass@1,create_test": ("accuracy", 0.0),
            "code2text_python_0shot/smoothed_bleu_4": ("score", 0.0),
        },
    ),
    "OLMo-core": (
        [
            "eval/downstream/hellaswag (length-normalized accuracy)", "eval/downstream/boolq (accuracy)",
            "eval/downstream/boolq (CE loss)", "eval/downstream/arc_easy_test_rc_5shot (BPB)",
            "eval/downstream/arc_easy_test_rc_5shot (BPB v2)", "eval/downstream/arc_easy_test_rc_5shot (log soft loss)",
            "eval/downstream/mmlu_stem_mc_5shot_test (length-normalized accuracy v2)",
        ],
        {
            "hellaswag/acc_norm": ("accuracy", 0.25), "boolq/acc": ("accuracy", 0.5), "boolq/ce_loss": ("loss", 0.0),
            "arc_easy_test_rc_5shot/bpb": ("bpb", 0.0), "mmlu_stem_mc_5shot_test/acc_norm": ("accuracy", 0.25),
        },
    ),
    "Composer": (
        ["metrics/mmlu/5-shot/InContextLearningMultipleChoiceAccuracy", "metrics/web/LanguageCrossEntropy"],
        {"mmlu_5shot/acc": ("accuracy", 0.25)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("tool", REAL)
def test_real_names_of_the_tools(tool: str) -> None:
    metrics, expected = REAL[tool]

    found = tasks_of(metrics)

    assert found.tool == tool
    targets = {one.target.name: (str(one.target.kind), one.target.chance) for one in found.metrics.values()}
    assert targets == expected
    assert all(one.target.task == one.target.name.rpartition("/")[0] for one in found.metrics.values())
    assert found.notes == {}


def test_nothing_of_an_ordinary_training_is_a_task() -> None:
    names = ["loss", "lr", "train/loss", "eval/accuracy", "val/f1", "epoch", "train/grad_norm"]

    assert tasks_of(names).metrics == {}
    assert ForeignRuns().wanted(names) == []


MMLU = ["mmlu", "mmlu_stem", "mmlu_anatomy", "mmlu_astronomy", "mmlu_virology"]


def test_subtasks_don_t_count_beside_their_group_unless_they_are_named() -> None:
    metrics = [f"{task}/acc" for task in MMLU]
    names = {one.target.name for one in tasks_of(metrics).metrics.values()}
    (note,) = tasks_of(metrics).notes

    assert names == {"mmlu/acc"}
    assert note.startswith("subtasks are not counted beside their group: 'mmlu_anatomy', 'mmlu_astronomy', 'mmlu_stem'")
    named = tasks_of(metrics, {"mmlu_virology/acc": Target("mmlu_virology/acc", "accuracy", questions=166)})
    (virology,) = (one.target for one in named.metrics.values() if one.target.name == "mmlu_virology/acc")
    assert (virology.questions, virology.group, virology.task) == (166, "mmlu", "mmlu_virology")


def test_a_group_without_a_value_of_its_own_groups_its_tasks() -> None:
    facts = Facts(groups={"science": ["arc", "sciq"], "arc": ["arc_easy", "arc_challenge"], "sciq": []})

    found = tasks_of(["arc_easy/acc", "arc_challenge/acc", "sciq/acc", "piqa/acc"], facts=facts)

    groups = {one.target.task: one.target.group for one in found.metrics.values()}
    assert groups == {"arc_easy": "arc", "arc_challenge": "arc", "sciq": "science", "piqa": None}


def test_groups_that_hold_each_other_end_somewhere() -> None:
    found = tasks_of(["a/acc", "b/acc"], facts=Facts(groups={"a": ["b"], "b": ["a"]}))

    assert len(found.metrics) <= 2


def test_an_unknown_chance_level_is_said_unless_it_is_described() -> None:
    (note,) = tasks_of(["mytask/acc"]).notes

    assert "the chance level of target 'mytask/acc' isn't known and taken as 0" in note
    assert tasks_of(["mytask/acc"], {"mytask/acc": Target("mytask/acc", "accuracy", chance=0.2)}).notes == {}
    assert tasks_of(["mytask/acc"], facts=Facts(answers={"mytask": 5})).notes == {}


def test_an_unknown_metric_is_a_score_where_its_direction_is_known() -> None:
    assert tasks_of(["ruler/4096"]).metrics == {}
    (found,) = tasks_of(["ruler/4096"], facts=Facts(higher={"ruler/4096": True})).metrics.values()

    assert (found.target.kind, found.target.rising) == (Kind.SCORE, True)


def record(history: Mapping[str, Sequence[Point]], **fields: object) -> RunRecord:
    runs = ForeignRuns(**{"mixtures": {"id": HALVES}, "tokens_per_step": 100, **fields})  # type: ignore[arg-type]
    return runs.record("id", "name", history, {})


def test_a_run_of_tasks_alone_is_read_with_the_questions_that_its_standard_errors_tell() -> None:
    accuracy, questions = 0.3, 10042
    se = math.sqrt(accuracy * (1 - accuracy) / (questions - 1))
    history = {
        "hellaswag/acc_norm": [(10, 1.0, accuracy), (20, 2.0, 1.0)],
        "hellaswag/acc_norm_stderr": [(10, 1.0, se), (20, 2.0, 0.0)],
        "wikitext/byte_perplexity": [(10, 1.0, 8.0)],
    }

    found = record(history)

    assert found.exclusions == {}
    assert found.manifest.domains == ("code", "web")
    assert [target.to_dict() for target in found.manifest.targets] == [
        {"name": "hellaswag/acc_norm", "kind": "accuracy", "chance": 0.25, "task": "hellaswag"},
        {"name": "wikitext/bits_per_byte", "kind": "bpb", "task": "wikitext"},
    ]
    hellaswag = key(TARGET, "hellaswag/acc_norm")
    assert found.rows == [
        {
            "bimix/step": 10.0, "bimix/tokens": 1000.0, hellaswag: accuracy,
            key(QUESTIONS, "hellaswag/acc_norm"): questions, key(TARGET, "wikitext/bits_per_byte"): 3.0,
        },
        {"bimix/step": 20.0, "bimix/tokens": 2000.0, hellaswag: 1.0},
    ]  # fmt: skip


def test_tasks_stand_beside_losses_at_their_steps() -> None:
    history = {
        "eval/code/loss": [(10, 1.0, 3.0), (20, 2.0, 2.5)],
        "eval/web/loss": [(10, 1.0, 4.0), (20, 2.0, 3.5)],
        "lm_eval/piqa/acc": [(20, 2.0, 0.6)],
    }

    found = record(history)

    assert [sorted(name.partition("/")[0] for name in row) for row in found.rows] == [
        ["bimix", "bimix", "bimix_eval_loss", "bimix_eval_loss"],
        ["bimix", "bimix", "bimix_eval_loss", "bimix_eval_loss", "bimix_target"],
    ]
    assert [target.name for target in found.manifest.targets] == ["piqa/acc"]


def test_bits_per_byte_beside_a_domain_s_loss_are_read_if_they_are_named() -> None:
    metrics = ["eval/paloma/c4_en/loss", "eval/paloma/c4_en/bpb"]

    assert tasks_of(metrics).metrics == {}
    (found,) = tasks_of(metrics, {"paloma/c4_en/bpb": Target("paloma/c4_en/bpb", "bpb")}).metrics
    assert found == "eval/paloma/c4_en/bpb"


def test_a_summary_has_the_tasks_that_a_history_lacks_with_their_questions() -> None:
    summary = {"piqa/acc": 0.6, "piqa/acc_stderr": 0.01, "piqa/alias": "piqa", "lr": 0.1}
    losses = {"eval/code/loss": [(10, 1.0, 3.0)], "eval/web/loss": [(10, 1.0, 4.0)]}
    runs = ForeignRuns(mixtures={"id": HALVES}, tokens_per_step=100)

    for history in ({}, losses):
        whole, notes = runs.with_summary(history, summary)
        assert whole.keys() == {*history, "piqa/acc", "piqa/acc_stderr"}
        assert list(notes.values()) == [1]
    (row,) = runs.record("id", "name", whole, {}).rows
    assert (row[key(TARGET, "piqa/acc")], row[key(QUESTIONS, "piqa/acc")]) == (0.6, 2401)
    assert row["bimix_eval_loss/web"] == 4.0


def test_ten_thousand_names_are_read_in_no_time() -> None:
    names = [f"{'a_' * 20}{number}/acc" for number in range(10_000)]

    assert len(tasks_of(names).metrics) == 10_000


def test_one_volume_is_that_of_the_last_value_of_a_task() -> None:
    history = {"piqa/acc": [(10, 1.0, 0.5), (20, 2.0, 0.6)], "piqa/acc_stderr": [(10, 1.0, 0.01), (20, 2.0, 0.01)]}

    found = record(history, tokens=5e9, tokens_per_step=None)

    (row,) = found.rows
    assert (row["bimix/tokens"], row[key(TARGET, "piqa/acc")]) == (5e9, 0.6)
    assert list(found.exclusions.values()) == [1]


def test_a_target_that_is_described_and_has_no_value_is_said() -> None:
    found = record({"piqa/acc": [(10, 1.0, 0.5)]}, targets={"piqa/ac": Target("piqa/ac", "accuracy")})

    assert "target 'piqa/ac' has no value; did you mean 'piqa/acc'? Choose from 'piqa/acc'" in found.notes


def test_a_name_that_is_a_domain_and_a_target_is_said() -> None:
    mixture = {"id": Mixture({"piqa/acc": 0.5, "web": 0.5})}

    (why,) = record({"piqa/acc": [(10, 1.0, 0.5)]}, mixtures=mixture).exclusions

    assert why == "'piqa/acc' is a domain and a target: rename one"


def test_a_mixtures_file_describes_targets_and_names_their_metrics(tmp_path: Path) -> None:
    path = tmp_path / "mixtures.yaml"
    path.write_text(
        "mixtures: {id: {code: 0.5, web: 0.5}}\n"
        "tokens: 1000\n"
        "targets:\n"
        "  piqa/acc: {kind: accuracy, weight: 2, group: reasoning}\n"
        "  judge: {kind: score, higher_is_better: true, metric: my/judge}\n"
    )
    runs = ForeignRuns.from_file(path)

    assert runs.wanted(["piqa/acc", "my/judge", "my/other"]) == ["piqa/acc", "my/judge"]
    found = runs.record("id", "name", {"piqa/acc": [(1, 1.0, 0.5)], "my/judge": [(1, 1.0, 7.0)]}, {})
    piqa, judge = sorted(found.manifest.targets, key=lambda target: target.name, reverse=True)
    assert (piqa.weight, piqa.group, piqa.chance) == (2, "reasoning", 0.5)
    assert judge == Target("judge", "score", higher_is_better=True)
    assert found.rows == [
        {"bimix/step": 1.0, "bimix/tokens": 1000, key(TARGET, "piqa/acc"): 0.5, key(TARGET, "judge"): 7.0}
    ]
    (tmp_path / "targets.yaml").write_text("judge: {kind: score, higher_is_better: true}\n")
    path.write_text("targets: targets.yaml\n")
    assert ForeignRuns.from_file(path).targets == {"judge": Target("judge", "score", higher_is_better=True)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("targets: {a: {kind: acuracy}}", "entry 'targets': target 'a' has no kind 'acuracy'; did you mean 'accuracy'"),
        ("targets: {a: {kind: score}}", "entry 'targets': target 'a' is a score: say whether higher_is_better"),
        ("targets: [a]", "entry 'targets' must be a mapping"),
        ("targets: {a: 3}", "entry 'targets': target 'a' must be a mapping"),
        ("targets: {a: {kind: bpb, metric: 3}}", "'metric'"),
        ("targets: nowhere.yaml", "entry 'targets': cannot read the targets file"),
    ],
)
def test_targets_of_a_mixtures_file_that_are_wrong_are_named(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mixtures.yaml"
    path.write_text(text)

    with pytest.raises(SourceError, match=said):
        ForeignRuns.from_file(path)


def test_what_is_wanted_describes_what_other_tools_logged() -> None:
    wanted = Wanted(foreign=ForeignRuns(mixtures={"id": HALVES}), targets={"hellaswag/acc": {"kind": "accuracy"}})

    assert wanted.foreign is not None
    assert wanted.foreign.wanted(["hellaswag/acc", "hellaswag/acc_norm"]) == ["hellaswag/acc", "hellaswag/acc_norm"]

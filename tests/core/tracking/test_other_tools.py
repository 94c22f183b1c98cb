"""Runs of other tools: their spellings as in their sources, mixtures from files and configs, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimix_tracking.data import metric_names
from bimix_tracking.data.histories import REPEATED, Point
from bimix_tracking.data.manifest import RunRecord
from bimix_tracking.data.observations import Observations
from bimix_tracking.errors import SourceError
from bimix_tracking.mixture import Mixture
from bimix_tracking.tracking.other_tools.patterns import EVALUATIONS, TRAININGS, recognise
from bimix_tracking.tracking.other_tools.runs import ForeignRuns

History = Mapping[str, Sequence[Point]]
HALVES = Mixture({"code": 0.5, "web": 0.5})
SPELLINGS: dict[str, tuple[str, Callable[[str], str]]] = {
    "hf-mlflow": ("HF Trainer", "eval_{}_loss".format),
    "hf-wandb": ("HF Trainer", "eval/{}_loss".format),
    "swift-mlflow": ("ms-swift", "eval_loss_{}".format),
    "swift-wandb": ("ms-swift", "eval/loss_{}".format),
    "levanter": ("Levanter", "eval/{}/loss".format),
    "olmo-core": ("OLMo-core", "eval/lm/{}/CE loss".format),
    "composer": ("Composer", "metrics/{}/LanguageCrossEntropy".format),
    "llm-foundry": ("Composer", "metrics/eval/{}/LanguageCrossEntropy".format),
    "regmix": ("RegMix", "metric/{}_val_loss".format),
    "swift-training": ("ms-swift", "train/loss_{}".format),
}
names = st.text(min_size=1, max_size=40).filter(lambda s: s.isprintable() and s == s.strip())
KEPT = {"macro", "micro", "train", "eval"}
"""Names that are averages or groups in the tools themselves."""


@pytest.mark.parametrize("spelling", SPELLINGS)
@given(st.lists(names, min_size=2, max_size=6, unique=True))
def test_any_domain_survives_every_spelling(spelling: str, domains: list[str]) -> None:
    tool, spell = SPELLINGS[spelling]
    domains = [d for d in domains if d.rpartition("/")[2] not in KEPT and not d.startswith("eval/")]
    # A plain name beside them: a run of one domain, called `loss_x_loss`, could be of two tools, and is refused.
    domains = list(dict.fromkeys([*domains, "plain"]))

    found = recognise([spell(d) for d in domains] + ["loss", "lr", "eval_loss", "eval/loss", "train/loss"])

    assert found is not None
    assert found.tool == tool
    assert found.domains == {spell(d): d for d in domains}


@given(names)
def test_no_pattern_reads_anothers_spelling(domain: str) -> None:
    for spelling, (tool, spell) in SPELLINGS.items():
        matches = {t.name for t in EVALUATIONS if t.domain(spell(domain)) is not None}
        if not domain.endswith("loss") and not domain.startswith("loss_") and domain.rpartition("/")[2] not in KEPT:
            assert matches <= {tool}, spelling
        assert len(matches) <= 2


REAL = {
    "HF Trainer": (
        (
            "eval_web_loss eval_web_runtime eval_web_samples_per_second eval_web_steps_per_second "
            "eval_c++_loss eval_c++_runtime eval_aux_loss eval_loss loss epoch train_loss num_input_tokens_seen"
        ),
        {"web", "c++"},
    ),
    "Levanter": (
        (
            "eval/paloma/c4_en/loss eval/paloma/c4_en/bpb eval/paloma/macro_loss eval/paloma/micro_loss eval/loss "
            "eval/macro_loss eval/bpb eval/macro_bpb eval/uncheatable_eval/github_cpp/loss eval/loading_time "
            "eval/total_time train/loss throughput/total_tokens throughput/mfu"
        ),
        {"paloma/c4_en", "uncheatable_eval/github_cpp"},
    ),
    "OLMo-core": (
        (
            "eval/lm/c4_en-validation/CE%20loss eval/lm/c4_en-validation/PPL eval/lm/pile-validation/CE%20loss "
            "eval/downstream/hellaswag%20(CE%20loss) train/CE%20loss train/PPL throughput/total%20tokens optim/LR"
        ),
        {"c4_en-validation", "pile-validation"},
    ),
    "Composer": (
        (
            "metrics/eval/arxiv/LanguageCrossEntropy metrics/eval/arxiv/LanguagePerplexity metrics/eval/c4/"
            "LanguageCrossEntropy metrics/train/LanguageCrossEntropy loss/train/total time/token time/batch"
        ),
        {"arxiv", "c4"},
    ),
    "RegMix": (
        (
            "metric/the_pile_arxiv_val_loss metric/the_pile_arxiv_val_ppl metric/the_pile_github_val_loss total_tokens "
            "metric/train_loss trainer/global_step gradient_norm"
        ),
        {"the_pile_arxiv", "the_pile_github"},
    ),
    "ms-swift": ("eval_loss_math eval_loss_code eval_loss eval_token_acc loss_math loss_code loss", {"math", "code"}),
}


@pytest.mark.parametrize("tool", REAL)
def test_real_names_of_the_tools(tool: str) -> None:
    metrics, domains = REAL[tool]
    listed = [metric.replace("%20", " ") for metric in metrics.split()]

    found = recognise(listed)

    assert found is not None
    assert (found.tool, set(found.domains.values())) == (tool, domains)
    assert found.others == (["eval_aux_loss"] if tool == "HF Trainer" else [])
    counted = {
        "num_input_tokens_seen",
        "throughput/total_tokens",
        "throughput/total tokens",
        "time/token",
        "total_tokens",
    }
    expected = {*found.domains, *found.others, *(counted & set(listed)), *({"trainer/global_step"} & set(listed))}
    expected |= {metric for metric in listed if metric.startswith("eval/downstream/")}  # tasks: see test_tasks.py
    assert set(ForeignRuns().wanted(listed)) == expected


@pytest.mark.parametrize(
    "metrics",
    [
        ["eval_loss", "loss"],
        ["eval/loss", "eval/macro_loss", "eval/bpb", "eval/micro_loss"],
        ["metrics/eval/LanguageCrossEntropy", "metrics/train/LanguageCrossEntropy"],
        ["eval/lm/c4/PPL", "train/CE loss"],
        ["bimix_eval_loss/web"],
        ["eval_\n_loss", "eval/ x_loss"],
        [],
    ],
)
def test_what_is_no_run_of_domains(metrics: list[str]) -> None:
    assert ForeignRuns().wanted(metrics) == []


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (
            ["eval_web_loss", "eval/web/loss"],
            "'eval_web_loss' looks like HF Trainer's .*'eval/web/loss' like Levanter's",
        ),
        (["eval/web_loss", "eval/code/loss"], "'eval/web_loss' .*'web', but 'eval/code/loss' .*'code'"),
        (["eval/loss_x_loss"], "can be HF Trainer's loss of 'loss_x' or ms-swift's of 'x_loss'"),
        (
            ["metrics/web/LanguageCrossEntropy", "metrics/eval/web/LanguageCrossEntropy"],
            "'metrics/eval/web/.*' and 'metrics/web/.*' are both the loss of domain 'web'",
        ),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(metrics: list[str], said: str) -> None:
    with pytest.raises(SourceError, match=said):
        ForeignRuns().wanted(metrics)
    with pytest.raises(SourceError, match=r"run 'name' \(id\): "):
        ForeignRuns(tokens_per_step=1).record("id", "name", {metric: [] for metric in metrics}, {})


LEVANTER: History = {
    "eval/code/loss": [(10, 1.0, 3.0), (20, 2.0, 2.5)],
    "eval/web/loss": [(10, 1.0, 4.0), (20, 2.0, 3.5)],
    "throughput/total_tokens": [(9, 0.9, 900.0), (10, 1.0, 1000.0), (20, 2.0, 2000.0), (30, 3.0, 3000.0)],
}


def _record(history: History, *, told: Mapping[str, object] | None = None, **fields: object) -> RunRecord:
    runs = ForeignRuns(**{"mixtures": {"id": HALVES}, **fields})  # type: ignore[arg-type]  # any of its fields
    return runs.record("id", "name", history, told or {})


def test_a_record_has_our_names_and_the_tools_tokens() -> None:
    record = _record(LEVANTER)

    assert record.manifest.mixture == HALVES
    assert record.manifest.domains == ("code", "web")
    assert record.rows == [
        {metric_names.STEP: 10, metric_names.TOKENS: 1000, "bimix_eval_loss/code": 3.0, "bimix_eval_loss/web": 4.0},
        {metric_names.STEP: 20, metric_names.TOKENS: 2000, "bimix_eval_loss/code": 2.5, "bimix_eval_loss/web": 3.5},
    ]
    assert record.notes == record.exclusions == {}  # Levanter's losses are means over tokens


def test_it_is_pooled_with_runs_of_its_kind() -> None:
    runs = ForeignRuns({"a": HALVES, "b": Mixture({"code": 0.9, "web": 0.1})})
    records = [runs.record(name, name, LEVANTER, {}) for name in ("a", "b", "c")]

    obs = Observations.from_records(records, source="test")

    assert obs.losses.shape[0] == 8
    reason = "logged without this package (Levanter), and no mixture is known for it: name it in --mixtures FILE"
    assert [str(note) for note in obs.notes] == [f"excluded: {reason} (run 'c'; 1×)"]


def test_rows_of_one_evaluation_at_several_of_wandbs_steps_are_one_row() -> None:
    # HF Trainer logs each evaluation set by a call of its own; a resumed run comes back to a step.
    history: History = {
        "eval/code_loss": [(1, 1.0, 3.0), (7, 7.0, 2.9), (11, 11.0, 2.0)],
        "eval/web_loss": [(2, 2.0, 4.0), (8, 8.0, 3.9)],
        "train/global_step": [(0, 0.0, 10), (1, 1.0, 10), (2, 2.0, 10), (6, 6.0, 10), (10, 10.0, 20), (11, 11.0, 20)],
        "train/num_input_tokens_seen": [(0, 0.0, 500.0), (6, 6.0, 500.0), (9, 9.0, 900.0)],
    }

    record = _record(history)

    assert record.rows == [
        {metric_names.STEP: 10, metric_names.TOKENS: 500, "bimix_eval_loss/code": 2.9, "bimix_eval_loss/web": 3.9},
        {metric_names.STEP: 20, metric_names.TOKENS: 900, "bimix_eval_loss/code": 2.0},
    ]
    assert record.exclusions == {REPEATED: 2}
    assert [count for note, count in record.notes.items() if note.startswith("tokens were not logged")] == [1]


def test_a_loss_before_the_first_step_is_counted() -> None:
    history: History = {"eval/code_loss": [(0, 0, 9.0), (2, 2, 3.0)], "train/global_step": [(1, 1, 5)]}

    record = _record(history, tokens_per_step=100)

    assert record.rows == [{metric_names.STEP: 5, metric_names.TOKENS: 500, "bimix_eval_loss/code": 3.0}]
    assert record.exclusions == {"a loss before the first 'train/global_step', at an unknown step": 1}
    assert record.manifest.batch_tokens == 100


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 10**9)), min_size=1, max_size=30),
    st.lists(st.integers(0, 60), min_size=1, max_size=20, unique=True),
)
def test_tokens_are_the_newest_at_or_before_an_evaluation(seen: list[tuple[int, int]], evaluated: list[int]) -> None:
    # Composer leaves out a value that equals the last one: histories have holes.
    history: History = {
        "metrics/eval/code/LanguageCrossEntropy": [(step, step, 3.0) for step in evaluated],
        "time/token": [(step, place, float(value)) for place, (step, value) in enumerate(seen)],
    }

    rows = _record(history).rows

    if all(step > max(evaluated) for step, _ in seen):  # of no loss are the tokens known
        assert not rows
        return
    assert [row[metric_names.STEP] for row in rows] == sorted(evaluated)
    for row in rows:
        before = [(step, place, value) for place, (step, value) in enumerate(seen) if step <= row[metric_names.STEP]]
        assert row.get(metric_names.TOKENS) == (max(before)[2] if before else None)


ONCE: History = {"eval/code/loss": [(0, 1.0, 3.0)], "eval/web/loss": [(0, 1.0, 4.0)]}
"""Final losses logged once, without a step."""


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        (1e9, {}),
        (10**9, {}),
        ({"id": 1e9, "name": 5.0}, {}),
        ({"name": 1e9, "other": 5.0}, {}),
        ("train_tokens", {"train_tokens": "1000000000.0"}),  # MLflow's params
        ("train_tokens", {"train_tokens": "1_000_000_000"}),
        ("data.budget.tokens", {"data": {"budget.tokens": 1e9}}),  # W&B's config
    ],
)
@pytest.mark.parametrize("place", [0, 7])
def test_losses_logged_once_have_the_volume_that_is_told(
    tokens: str | float | dict[str, float] | None, told: dict[str, object], place: int
) -> None:
    history: History = {metric: [(place, time, loss) for _, time, loss in points] for metric, points in ONCE.items()}

    record = _record(history, told=told, tokens=tokens)

    assert record.rows == [
        {metric_names.STEP: place, metric_names.TOKENS: 1e9, "bimix_eval_loss/code": 3.0, "bimix_eval_loss/web": 4.0}
    ]
    assert record.exclusions == {}


def test_a_run_s_one_volume_is_that_of_its_last_losses() -> None:
    # W&B's steps count calls: each set is an evaluation of its own.
    history: History = {
        "eval/code/loss": [(0, 0.0, 3.0), (4, 4.0, 2.5)],
        "eval/web/loss": [(1, 1.0, 4.0), (5, 5.0, 3.5)],
        "eval/books/loss": [(2, 2.0, 5.0)],  # not measured at the end
    }

    record = _record(history, tokens=2e9)

    assert record.rows == [
        {metric_names.STEP: 4, metric_names.TOKENS: 2e9, "bimix_eval_loss/code": 2.5},
        {metric_names.STEP: 5, metric_names.TOKENS: 2e9, "bimix_eval_loss/web": 3.5},
    ]
    ((reason, count),) = record.exclusions.items()
    assert count == 3
    assert "whose volume is the only one known" in reason
    observed = Observations.from_records([record], source="x").losses
    assert set(observed["tokens"]) == {2e9}


def test_what_names_a_run_counts_more_than_the_rest() -> None:
    assert [row[metric_names.TOKENS] for row in _record(LEVANTER, tokens={"id": 7e9}).rows] == [7e9]
    assert [row[metric_names.TOKENS] for row in _record(LEVANTER, tokens={"other": 7e9}).rows] == [1000, 2000]
    assert [row[metric_names.TOKENS] for row in _record(LEVANTER, tokens={"x": 7e9}, tokens_per_step=3).rows] == [
        30,
        60,
    ]
    seen: History = {**LEVANTER, "seen": [(10, 1.0, 5.0), (20, 2.0, 6.0)]}
    assert [row[metric_names.TOKENS] for row in _record(seen, told={"seen": 1e9}, tokens="seen").rows] == [5, 6]
    assert [row[metric_names.TOKENS] for row in _record(seen, tokens="seen", tokens_per_step=3).rows] == [5, 6]
    assert [row[metric_names.TOKENS] for row in _record(LEVANTER, tokens="seen", tokens_per_step=3).rows] == [30, 60]


@pytest.mark.parametrize(
    ("fields", "told", "said"),
    [
        (
            {"tokens_per_step": 10},
            {"cfg": {"train_tokens": 1e9, "tokenizer": "x"}, "total_tok": "5e8", "lr": 1},
            r"at step 0, where `tokens_per_step` gives 0 tokens. Give `tokens`: .*'cfg.train_tokens', 'total_tok'$",
        ),
        (
            {"tokens": {"other": 1.0}},
            {"train_tokens": 1e9},
            "none of its metrics counts tokens: .*`tokens`: a number.*'train_tokens'",
        ),
        ({}, {"total_tokens": 1e9}, "counts tokens: .*. These could be it: 'total_tokens'"),
        (
            {},
            {},
            "counts tokens: give `tokens_per_step`, or `tokens`: a number, one for each run, or the name of .* key",
        ),
        ({"tokens": "nope"}, {}, r"\(there is no 'nope'\)"),
        ({"tokens": "a"}, {"a": "1B"}, "`tokens` names 'a', which is '1B' there: not a number above 0"),
        ({"tokens": "a"}, {"a": 0}, "which is 0 there"),
        ({"tokens": "a"}, {"a": True}, "which is True there"),
        ({"tokens": "a"}, {"a": {"b": ["x" * 9999] * 999}}, r"which is \{'b': \[.{1,100} there"),
    ],
)
def test_a_run_of_no_known_volume_says_what_would_tell_it(
    fields: dict[str, object], told: dict[str, object], said: str
) -> None:
    record = _record(ONCE, told=told, **fields)

    assert not record.rows
    ((reason, _),) = record.exclusions.items()
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(reason)


def test_a_count_that_comes_after_the_losses_says_what_to_do() -> None:
    record = _record({**ONCE, "seen": [(1, 2.0, 1e9)]}, tokens="seen")

    assert not record.rows
    ((reason, _),) = record.exclusions.items()
    assert reason.startswith(
        "'seen' counts its tokens, but has no value at or before its losses: give `tokens_per_step`"
    )


@pytest.mark.parametrize("written", ["1e9", "'1e9'", "1.0e+9", "1_000_000_000", "1000000000", "1E9"])
def test_a_file_gives_a_volume_as_people_write_it(written: str, tmp_path: Path) -> None:
    runs = ForeignRuns.from_file(_file(tmp_path, f"tokens: {written}\ntokens_per_step: {written}\n"))
    of_runs = ForeignRuns.from_file(_file(tmp_path, f"tokens: {{tokens: {written}, seen: 5}}\n"))

    assert (runs.tokens, runs.tokens_per_step) == (1e9, 1e9)
    assert of_runs.tokens == {"tokens": 1e9, "seen": 5}
    assert ForeignRuns.from_file(_file(tmp_path, "tokens: data.seen\n")).tokens == "data.seen"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tokens: 0", "tokens must be a number above 0, got 0"),
        ("tokens: {r1: -1}", "tokens r1 must be a number above 0, got -1"),
        ("tokens: {r1: many}", "entry 'tokens', 'r1', must be a number, got 'many'"),
        ("tokens: {r1: 12:30}", "entry 'tokens', 'r1', must be a number, got 12:30 in line 1"),
        ("tokens: 010", "entry 'tokens' must be a number, got 010 in line 1"),
        ("tokens: yes", "entry 'tokens' must be a number, got yes in line 1"),
        ("tokens: inf", "tokens must be a number above 0, got inf"),
        ("tokens: [1]", r"entry 'tokens' must be a number, got \[1\]"),
        ("tokens_per_step: 0x1F", "entry 'tokens_per_step' must be a number, got 0x1F in line 1"),
    ],
)
def test_a_volume_that_is_none_is_told(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=said):
        ForeignRuns.from_file(_file(tmp_path, text))


def test_odd_losses_stay_what_they_are() -> None:
    history: History = {"eval/code/loss": [(1, 1, math.nan), (2, 2, math.inf), (3, 3, 1.797e308)]}

    record = _record(history, tokens_per_step=10)

    assert math.isnan(record.rows[0]["bimix_eval_loss/code"])
    assert [row["bimix_eval_loss/code"] for row in record.rows[1:]] == [math.inf, math.inf]
    assert sum(record.exclusions.values()) == 2


def test_names_are_mapped_and_may_not_meet() -> None:
    history: History = {
        "eval_github_loss": [(1, 1, 3.0)],
        "eval_c___loss": [(1, 1, 4.0)],
        "eval_books_loss": [(1, 1, 5.0)],
    }
    mixture = Mixture({"code": 0.5, "c++": 0.25, "none": 0.25})

    record = _record(history, mixtures={"name": mixture}, domains={"github": "code", "c__": "c++"}, tokens_per_step=1)

    assert record.manifest.domains == ("code", "c++", "none", "books")
    assert set(record.rows[0]) == {
        metric_names.STEP,
        metric_names.TOKENS,
        *(metric_names.key(metric_names.EVAL_LOSS, d) for d in ("code", "c++", "books")),
    }
    assert any("domain 'none' has no loss (of 'books', 'c++', 'code')" in note for note in record.notes)
    with pytest.raises(SourceError, match=r"run 'name' .*'eval_books_loss' and 'eval_github_loss' .* domain 'books'"):
        _record(history, domains={"github": "books"})


def test_losses_outside_the_mixture_are_targets_all_the_same_and_that_is_said() -> None:
    record = _record(LEVANTER, mixtures={"id": Mixture({"x": 1.0})})

    assert record.manifest.domains == ("x", "code", "web")
    assert [row["bimix_eval_loss/web"] for row in record.rows] == [4.0, 3.5]
    (note,) = record.notes
    assert "no domain of its mixture ('x') has a loss; the losses are of 'code', 'web'." in note
    assert "`domains` in --mixtures FILE" in note


def test_the_id_counts_more_than_the_name() -> None:
    mixtures = {"name": Mixture({"code": 1.0}), "id": HALVES}

    assert _record(LEVANTER, mixtures=mixtures).manifest.mixture == HALVES
    assert _record(LEVANTER, mixtures={"name": HALVES}).manifest.mixture == HALVES


@pytest.mark.parametrize(
    ("fields", "told", "reason"),
    [
        ({"mixtures": {}}, {}, r"logged without this package \(Levanter\), and no mixture is known for it: name it in"),
        ({"tokens": "my/tokens"}, {}, "none of its metrics counts tokens"),
        (
            {"mixtures": {}, "mixture_from": {"code": "a", "web": "b"}},
            {"a": 1},
            "it lacks 'b', the proportion of .*'web'",
        ),
        ({"mixtures": {}, "mixture_from": {"code": "a", "web": "b"}}, {"a": 0.5, "b": 0.4}, "proportions sum to 0.9"),
        ({"mixtures": {}, "mixture_from": {"code": "a", "web": "b"}}, {"a": "x", "b": "0.4"}, "must be finite"),
        ({"mixtures": {}, "mixture_from": "w"}, {"w": "[1, 2]"}, r"'w' must hold a mapping or a list of pairs"),
        ({"mixtures": {}, "mixture_from": "w"}, {"w": [[["a"], 1]]}, r"a name in 'w' must be text, got \['a'\]"),
        ({"mixtures": {}, "mixture_from": "w"}, {"w": [[True, 1]]}, "a name in 'w' must be text, got True"),
        ({"mixtures": {}, "mixture_from": "w"}, {"w": "{a: 1, a: 2}"}, "'w' holds no mapping: 'a' appears twice"),
        (
            {"mixtures": {}, "mixture_from": "w"},
            {"w": {"code": -1, "web": 2}},
            "'code' must be finite and not negative",
        ),
    ],
)
def test_a_run_that_cannot_be_used_is_set_aside_and_says_why(
    fields: dict[str, object], told: dict[str, object], reason: str
) -> None:
    record = _record(LEVANTER, told=told, **fields)

    assert not record.rows
    ((said, count),) = record.exclusions.items()
    assert count == 1
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(said)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ({"code": "data.code", "web": "data.web"}, {"data.code": "0.25", "data.web": "0.75"}),  # MLflow's params
        ({"code": "data.code", "web": "data.web"}, {"data": {"code": 0.25, "web": 0.75}}),  # W&B's config
        ({"code": "a.b.0", "web": "a.b.1"}, {"a.b": [0.25, 0.75]}),
        ("train_data_config", {"train_data_config": [["gh", 1], ["web", 3]]}),  # RegMix
        ("data.train_weights", {"data": {"train_weights": {"gh": 10, "web": 30}}}),  # Levanter
        ("data", {"data": "{'gh': 1, 'web': 3}"}),  # a dict as MLflow has a param
        ("data", {"data": "[[gh, 1], [web, 3]]"}),
    ],
)
def test_mixtures_that_runs_say_themselves(where: object, told: dict[str, object]) -> None:
    record = _record(LEVANTER, told=told, mixtures={}, mixture_from=where, domains={"gh": "code"})

    assert record.manifest.mixture == Mixture({"code": 0.25, "web": 0.75})


@pytest.mark.parametrize("weights", ["{no: 1, 0: 3}", "[[no, 1], [0, 3]]", [["no", 1], [0, 3]], {"no": 1, "0": 3}])
def test_names_in_a_run_s_own_words_are_what_is_written(weights: object) -> None:
    history: History = {"eval/no/loss": [(1, 1, 3.0)], "eval/0/loss": [(1, 1, 2.0)]}

    record = _record(history, told={"w": weights}, mixtures={}, mixture_from="w", tokens=1e6)

    assert record.manifest.mixture == Mixture({"no": 0.25, "0": 0.75})


@pytest.mark.parametrize(
    ("spelling", "weighted", "said"),
    [
        ("levanter", None, None),
        ("olmo-core", None, None),
        ("llm-foundry", None, None),
        ("hf-mlflow", None, "means of batch means"),
        ("hf-mlflow", True, None),
        ("levanter", False, "means of batch means"),
        ("regmix", None, "it is unknown"),
        ("swift-wandb", None, None),
        ("swift-training", None, "training batches"),
        ("swift-training", True, "training batches"),
    ],
)
def test_losses_that_are_not_weighted_by_tokens_are_named(
    spelling: str, weighted: bool | None, said: str | None
) -> None:
    history: History = {SPELLINGS[spelling][1](domain): [(1, 1, 3.0)] for domain in ("code", "web")}

    notes = list(_record(history, token_weighted=weighted, tokens_per_step=1).notes)

    assert notes == [] if said is None else (len(notes) == 1 and said in notes[0])


def test_training_losses_only_where_there_are_no_others() -> None:
    assert recognise(["loss_a", "eval_loss_b"]).domains == {"eval_loss_b": "b"}  # type: ignore[union-attr]  # it is
    assert TRAININGS[0].domain("train/loss_a") == "a"


def test_ones_own_pattern() -> None:
    runs = ForeignRuns({"id": HALVES}, pattern="val/(?P<domain>.+)/nll", tokens="seen")
    history = {"val/code/nll": [(5, 0, 2.0)], "val/web/nll": [(5, 0, 3.0)], "seen": [(4, 0, 77.0)]}

    assert runs.wanted([*history, "eval/x/loss", "lr"]) == list(history)
    assert runs.record("id", "", history, {}).rows[0][metric_names.TOKENS] == 77
    with pytest.raises(SourceError, match=r"has no group \(\?P<domain>"):
        ForeignRuns(pattern="val/(.+)")
    with pytest.raises(SourceError, match=r"'\(' is not a regular expression"):
        ForeignRuns(pattern="(")
    with pytest.raises(SourceError, match="tokens_per_step must be a number above 0"):
        ForeignRuns(tokens_per_step=0)


def _file(folder: Path, text: str, name: str = "mixtures.yaml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_file_with_everything(tmp_path: Path) -> None:
    _file(tmp_path, "mixture: {code: 0.5, web: 0.5}", "other.yaml")
    content = {
        "mixtures": {"run-a": {"code": 0.3, "web": 0.7}, "run-b": {"file": "other.yaml"}, "7": {"file": 1.0}},
        "mixture_from": {"code": "data.code"},
        "domains": {"github": "code", "0": "web"},
        "pattern": "val/(?P<domain>.+)/nll",
        "tokens": "seen",
        "tokens_per_step": 524288,
        "token_weighted": True,
    }
    expected = ForeignRuns(
        mixtures={"run-a": Mixture({"code": 0.3, "web": 0.7}), "run-b": HALVES, "7": Mixture({"file": 1.0})},
        mixture_from={"code": "data.code"},
        domains={"github": "code", "0": "web"},
        pattern="val/(?P<domain>.+)/nll",
        tokens="seen",
        tokens_per_step=524288,
        token_weighted=True,
    )

    assert ForeignRuns.from_file(_file(tmp_path, json.dumps(content))) == expected


def test_tables_of_mixtures(tmp_path: Path) -> None:
    table = _file(tmp_path, 'run,code,web,books\r\na,0.3,0.7,\n\n"b, c",0.5,0.5,0\n', "table.csv")
    expected = {"a": Mixture({"code": 0.3, "web": 0.7}), "b, c": Mixture({"code": 0.5, "web": 0.5, "books": 0})}

    assert ForeignRuns.from_file(table) == ForeignRuns(expected)
    assert ForeignRuns.from_file(_file(tmp_path, "mixtures: table.csv")) == ForeignRuns(expected)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mixture: {a: 1}", "no entry 'mixture'; did you mean 'mixtures'"),
        ("- 1", r"must be a mapping with mixtures, targets, mixture_from, domains"),
        ("a: [", "is not YAML or JSON: .* in line"),
        ("mixtures: {a: {x: 1}, a: {x: 1}}", "'a' appears twice"),
        ("mixtures: {a: {x: 0.5}}", r"entry 'mixtures', run 'a': proportions sum to 0.5, not 1"),
        (
            "mixtures: {a: {x: yes}}",
            "run 'a': the proportion of domain 'x' is not a number: yes in line 1",
        ),
        ("mixtures: {a: 3}", r"entry 'mixtures', run 'a': must be \{domain: proportion\} or"),
        ("mixtures: {a: {file: none.yaml}}", r"entry 'mixtures', run 'a': .*none.yaml cannot be read"),
        ("mixtures: [1]", "entry 'mixtures' must be a mapping"),
        ("mixtures: none.csv", "none.csv cannot be read: No such file"),
        ("domains: {a: 1}", "entry 'domains', 'a', must be text, got 1 in line 1: put it in quotes"),
        ("tokens_per_step: yes", "entry 'tokens_per_step' must be a number, got yes in line 1"),
        ("tokens_per_step: -1", "must be a number above 0, got -1"),
        ("token_weighted: 1", "entry 'token_weighted' must be true or false"),
        ("pattern: ''", "entry 'pattern' must be text"),
        ("pattern: x", "has no group"),
        ("pattern: '" + "(" * 1500 + "'", "is not a regular expression"),
        ("pattern: 'a{99999999999999}'", "is not a regular expression"),
        ("pattern: '" + "x" * 3000 + "'", "pattern has 3,000 characters; at most 2,000 are read"),
        ("!!python/object:os.system {}", "is not YAML or JSON"),
        ("x" * (2**22 + 1), r"it has 4,194,305 bytes; at most 4,194,304 are read"),
    ],
)
def test_a_file_that_is_wrong_names_the_entry(text: str, said: str, tmp_path: Path) -> None:
    path = _file(tmp_path, text)

    with pytest.raises(SourceError, match=said) as error:
        ForeignRuns.from_file(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,code\na,1\n", "needs one column 'run'"),
        ("run,code,code\na,1,0\n", "line 1: the column 'code' appears twice"),
        ("", "needs one column 'run'"),
        ("run,code\na,1\na,1\n", "line 3: run 'a' appears twice"),
        ("run,code\na\n", "line 2: 1 cells, but the header has 2"),
        ("run,code\na,x\n", "line 2, run 'a': the proportion of domain 'code' is not a number: 'x'"),
    ],
)
def test_a_table_that_is_wrong_names_the_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=said):
        ForeignRuns.from_file(_file(tmp_path, text, "table.csv"))


def test_files_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_bytes(b"\xff\xfe\x00")

    for path, said in (
        (tmp_path / "m.yaml", "not UTF-8"),
        (tmp_path, "cannot be read"),
        (tmp_path / "x", "cannot be read"),
    ):
        with pytest.raises(SourceError, match=said):
            ForeignRuns.from_file(path)

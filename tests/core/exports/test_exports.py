"""Each trainer's form holds the mixture to the last digit, and its own parser, or that parser's rule, reads it back."""

from __future__ import annotations

import ast
import csv
import io
import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bimix_tracking import Mixture, analyze, export, write_exports
from bimix_tracking.data.observations import Observations
from bimix_tracking.errors import MixtureError
from bimix_tracking.exports import FORMATS
from bimix_tracking.files.spreadsheet import restored

HOSTILE = Mixture({"c++ #1": 0.1, "web: en%": 0.2, "it's $HOME `x`": 0.3, 'ä"\\': 0.15, "- list": 0.25})
PATHS = {domain: f"/data/{i}/the {domain}_text_document" for i, domain in enumerate(HOSTILE)}


def blend(items: list[str]) -> dict[str, float]:
    """Return weights by prefix as `get_blend_from_list` does (NVIDIA/Megatron-LM, megatron/core/datasets/utils.py)."""
    assert len(items) % 2 == 0
    weights, prefixes = [float(w) for w in items[::2]], items[1::2]
    assert all(weight > 0 for weight in weights), "BlendedDataset refuses a weight of 0"
    return dict(zip(prefixes, weights, strict=True))


def megatron(text: str) -> dict[str, float]:
    """Return what bash hands to pretrain_gpt.py."""
    script = f'{text}\nprintf "%s\\0" "${{DATA_PATH[@]}}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    option, *items = done.stdout.split("\0")[:-1]
    assert option == "--data-path"
    return blend(items)


def shell_words(text: str) -> dict[str, float]:
    """Return the same without starting bash, for the many draws of a property test."""
    words = shlex.split(text, comments=True)
    assert (words[0], words[-1]) == ("DATA_PATH=(--data-path", ")")
    return blend(words[1:-1])


def nemo(text: str) -> dict[str, float]:
    """Return what `data_prefix` holds: as Megatron's list, numbers allowed."""
    return blend([str(item) for item in yaml.safe_load(text)["data_prefix"]])


def streaming(text: str) -> dict[str, float]:
    """Return proportions by place, by the rules of mosaicml/streaming 0.13, streaming/base/stream.py."""
    streams = yaml.safe_load(text)["train_loader"]["dataset"]["streams"]
    found = {}
    for arguments in streams.values():
        # At most one of the three, and of all streams the same one; not negative.
        assert set(arguments) & {"proportion", "repeat", "choose"} == {"proportion"}
        assert arguments["proportion"] >= 0
        # A `remote` without `local` is copied to a temporary folder, which a second start refuses.
        (where,) = set(arguments) - {"proportion"}
        assert where == ("remote" if "://" in arguments[where] else "local")
        found[arguments[where]] = arguments["proportion"]
    return found


def olmo_core(text: str) -> dict[str, float]:
    """Return ratios by path, by the rules of allenai/OLMo-core, src/olmo_core/data/source_mixture.py."""
    sources = yaml.safe_load(text)["sources"]
    for source in sources:
        assert set(source) <= {"source_name", "target_ratio", "paths", "max_repetition_ratio", "max_source_fraction"}
        assert 0 < source["target_ratio"] <= 1
        assert source["paths"]
    assert np.allclose(sum(source["target_ratio"] for source in sources), 1.0)
    return {source["paths"][0]: source["target_ratio"] for source in sources}


def torchtitan(text: str) -> dict[str, float]:
    """Return weights by data set; pytorch/torchtitan's components/data/dataset.py wants them finite and above 0."""
    (node,) = ast.parse(text).body
    assert isinstance(node, ast.Assign)
    rows = ast.literal_eval(node.value)
    assert all(np.isfinite(weight) and weight > 0 for _, _, weight in rows)
    return {where: weight for _, where, weight in rows}


def llamafactory(text: str) -> dict[str, float]:
    """Return probabilities by data set, as hiyouga/LLaMA-Factory's hparams/data_args.py splits them."""
    content = yaml.safe_load(text)
    names = [name.strip() for name in content["dataset"].split(",")]
    probabilities = [float(value.strip()) for value in content["interleave_probs"].split(",")]
    assert content["mix_strategy"] in ("concat", "interleave_under", "interleave_over")
    assert len(names) == len(probabilities)
    return dict(zip(names, probabilities, strict=True))


def hf(text: str) -> dict[str, float]:
    content = json.loads(text)
    return dict(zip(content["paths"], content["probabilities"], strict=True))


WITH_PATHS: dict[str, Callable[[str], dict[str, float]]] = {
    "megatron": megatron,
    "nemo": nemo,
    "streaming": streaming,
    "olmo-core": olmo_core,
    "torchtitan": torchtitan,
    "llamafactory": llamafactory,
    "hf": hf,
}


def levanter(text: str) -> dict[str, float]:
    """Return `train_weights` (stanford-crfm/levanter, data/text: a mapping of component to weight)."""
    return dict(yaml.safe_load(text)["data"]["train_weights"])


def doremi(text: str) -> dict[str, float]:
    """Return the weights that sangmichaelxie/doremi's train.py reads; it takes domain ids from each list's order."""
    content = json.loads(text)
    train, evaluation = content["train_domain_weights"], content["eval_domain_weights"]
    assert list(train) == list(evaluation)
    assert len(set(evaluation.values())) == 1  # above 0: the evaluation ends when every domain's data have
    assert min(evaluation.values()) > 0
    return dict(train)


def plain_csv(text: str) -> dict[str, float]:
    return {restored(row["domain"]): float(row["proportion"]) for row in csv.DictReader(io.StringIO(text))}


BY_NAME: dict[str, Callable[[str], dict[str, float]]] = {
    "levanter": levanter,
    "doremi": doremi,
    "yaml": lambda text: dict(yaml.safe_load(text)["mixture"]),
    "json": lambda text: dict(json.loads(text)["mixture"]),
    "csv": plain_csv,
}


def test_every_format_is_read_here() -> None:
    assert set(FORMATS) == set(WITH_PATHS) | set(BY_NAME)


@pytest.mark.parametrize("fmt", WITH_PATHS)
def test_paths_and_proportions_come_back_to_the_last_digit_and_in_order(fmt: str) -> None:
    found = WITH_PATHS[fmt](export(HOSTILE, fmt, paths=PATHS))

    assert list(found.items()) == [(PATHS[domain], share) for domain, share in HOSTILE.items()]


@pytest.mark.parametrize("fmt", BY_NAME)
def test_names_and_proportions_come_back_to_the_last_digit_and_in_order(fmt: str) -> None:
    assert list(BY_NAME[fmt](export(HOSTILE, fmt)).items()) == list(HOSTILE.items())


@pytest.mark.parametrize("fmt", sorted(set(WITH_PATHS) - {"hf"}))
def test_the_order_and_the_placeholders_are_said(fmt: str) -> None:
    text = export(Mixture({"b": 0.25, "a": 0.75}), fmt)

    assert text.startswith('# domain order: ["b", "a"]\n')
    assert "a domain's name replaces the path of its data" in text
    assert "stands where" not in export(Mixture({"b": 1.0}), fmt, paths={"b": "/x"})


@pytest.mark.parametrize("fmt", WITH_PATHS)
def test_a_domain_without_a_proportion_is_left_out_and_named(fmt: str) -> None:
    text = export(Mixture({"a": 0.5, "none": 0.0, "b": 0.5}), fmt)

    assert WITH_PATHS[fmt](text) == {"a": 0.5, "b": 0.5}
    assert "excluded, with a proportion of 0" in text


@pytest.mark.parametrize("fmt", BY_NAME)
def test_a_domain_without_a_proportion_stays_where_it_is_taken_for_what_it_is(fmt: str) -> None:
    text = export(Mixture({"a": 0.5, "none": 0.0, "b": 0.5}), fmt)

    assert list(BY_NAME[fmt](text).items()) == [("a", 0.5), ("none", 0.0), ("b", 0.5)]
    assert "left out" not in text
    assert 'domain order: ["a", "none", "b"]' in text.replace("\\", "") or fmt == "csv"


@pytest.mark.parametrize("fmt", sorted(FORMATS))
@given(weights=st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=30))
def test_proportions_still_sum_to_one_when_read_back(fmt: str, weights: list[float]) -> None:
    mixture = Mixture.normalized({f"d{i}": weight for i, weight in enumerate(weights)})

    found = ({**WITH_PATHS, **BY_NAME} if fmt != "megatron" else {fmt: shell_words})[fmt](export(mixture, fmt))

    assert found == dict(mixture)
    assert abs(np.sum(list(found.values())) - 1) < 1e-12


@pytest.mark.parametrize("stopping", ["first_exhausted", "all_exhausted", "all_exhausted_without_replacement"])
def test_hugging_face_interleaves_by_it(stopping: str) -> None:
    content = json.loads(export(Mixture({"a": 0.2, "none": 0.0, "b": 0.8}), "hf"))
    rows = {"a": 1000, "b": 4000}
    sets = [datasets.Dataset.from_dict({"domain": [domain] * rows[domain]}) for domain in content["domains"]]

    mixed = datasets.interleave_datasets(
        sets, probabilities=content["probabilities"], seed=0, stopping_strategy=stopping
    )

    assert np.mean([domain == "b" for domain in mixed["domain"]]) == pytest.approx(0.8, abs=0.02)


def test_the_yaml_is_read_back_by_mixture(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(export(HOSTILE, "yaml", provenance="a\nb"), encoding="utf-8")

    assert Mixture.from_yaml(tmp_path / "m.yaml") == HOSTILE
    assert "# from a b\n" in (tmp_path / "m.yaml").read_text(encoding="utf-8")


def test_provenance_cannot_leave_its_comment() -> None:
    for fmt in sorted(set(FORMATS) - {"hf", "json", "csv", "doremi"}):
        text = export(Mixture({"a": 1.0}), fmt, provenance="x\n$(touch /tmp/never)\r\n\u2028: y")
        assert [line for line in text.splitlines() if "never" in line] == ["# from x $(touch /tmp/never) : y"]


def test_every_form_is_left_with_an_analysis_but_those_that_cannot_hold_a_name(tmp_path: Path) -> None:
    files = {form.file for form in FORMATS.values()}
    assert {file.name for file in write_exports(HOSTILE, tmp_path / "all", paths=PATHS)} == files
    assert files - {file.name for file in write_exports(HOSTILE, tmp_path / "most")} == {"megatron.sh"}  # "- list"
    commas = Mixture({"a,b": 0.5, "c": 0.5})
    assert {form.file for form in FORMATS.values()} - {f.name for f in write_exports(commas, tmp_path / "some")} == {
        "llamafactory.yaml"
    }


def test_an_analysis_leaves_them(tmp_path: Path, sweep: Callable[..., Observations]) -> None:
    obs = sweep({"a": (0.1, 0.5, 900.0, 2.7), "b": (0.2, 0.4, 200.0, 1.5)})

    found = analyze(obs, 1e8, law="bimix", out=tmp_path)

    text = (tmp_path / "exports" / "megatron.sh").read_text(encoding="utf-8")
    assert megatron(text) == dict(found.recommendation.mixture)
    assert shlex.split(text.splitlines()[0], comments=True) == []
    assert f"data {found.fit.data_hash}" in text


@pytest.mark.parametrize("fmt", sorted(set(FORMATS) - {"csv"}))
def test_the_tokens_are_said(fmt: str) -> None:
    assert "for a run of 150B tokens" in export(HOSTILE, fmt, paths=PATHS, tokens=1.5e11)


def test_olmo_core_is_told_how_many_tokens_to_request() -> None:
    assert "requested_tokens=150000000000;" in export(HOSTILE, "olmo-core", tokens=1.5e11)


def test_what_is_somewhere_else_is_remote() -> None:
    text = export(Mixture({"a": 0.5, "b": 0.5}), "streaming", paths={"a": "s3://bucket/a"})

    assert streaming(text) == {"s3://bucket/a": 0.5, "b": 0.5}
    assert "set `local`" in text
    assert "set `local`" not in export(HOSTILE, "streaming")


@pytest.mark.parametrize("fmt", ["yaml", "json", "csv", "levanter", "doremi"])
def test_no_path_is_ignored(fmt: str) -> None:
    assert "/data/0/the c++ #1_text_document" in export(HOSTILE, fmt, paths=PATHS)


def test_the_yaml_with_paths_is_read_back_by_mixture(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(export(HOSTILE, "yaml", paths=PATHS), encoding="utf-8")

    assert Mixture.from_yaml(tmp_path / "m.yaml") == HOSTILE


@pytest.mark.parametrize(
    ("fmt", "options", "said"),
    [
        ("yml", {}, r"no format 'yml'; did you mean 'yaml'\? Choose from 'megatron', 'nemo'"),
        ("nemo", {"paths": {"web": "/x"}}, r"a path of unknown domain 'web'; choose from 'c\+\+ #1', "),
        ("nemo", {"paths": {"c++#1": "/x"}}, r"a path of unknown domain 'c\+\+#1'; did you mean 'c\+\+ #1'\?"),
        ("nemo", {"paths": {"c++ #1": "/x\n"}}, r"the path '/x\\n' of domain 'c\+\+ #1' is empty, padded"),
        ("nemo", {"paths": {"c++ #1": ""}}, r"the path '' of domain 'c\+\+ #1' is empty"),
        ("nemo", {"paths": {"c++ #1": "- list"}}, r"domains 'c\+\+ #1' and '- list' have the same path '- list'"),
        ("nemo", {"tokens": -1.0}, r"tokens of the run must be a positive number, got -1\.0"),
        ("megatron", {}, r"Megatron takes '- list', the path of domain '- list', for an option.*--path"),
    ],
)
def test_mistakes_are_named(fmt: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(MixtureError, match=said):
        export(HOSTILE, fmt, **options)


def test_a_name_that_a_parser_would_take_for_something_else_needs_a_path() -> None:
    with pytest.raises(MixtureError, match=r"domain 'a,b' cannot be called 'a,b' there: give it a dataset name"):
        export(Mixture({"a,b": 1.0}), "llamafactory")
    reference = Mixture({"${oc.env:HOME}": 1.0})
    for fmt in ("nemo", "streaming", "llamafactory"):
        with pytest.raises(MixtureError, match=r"as a reference, so domain '\$\{oc.env:HOME\}' needs"):
            export(reference, fmt)
        assert "${data}/web" in export(reference, fmt, paths={"${oc.env:HOME}": "${data}/web"})  # which may be meant

"""Text in a field of a struct column, in Parquet and Hugging Face datasets, of each domain its own."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bimix_tracking import EntropySettings, corpus_entropies
from bimix_tracking.entropy.corpora import find_blocks, read_block
from bimix_tracking.entropy.corpora.documents import Document, Problems, Reading
from bimix_tracking.errors import CorpusError

TEXTS = [f"document {number} " + "ä" * (number % 40) for number in range(700)]
IDS = [[number % 300, 7, 8] * (number % 4) for number in range(50)]


def read(path: Path, reading: Reading, problems: Problems | None = None) -> list[Document]:
    found = problems or Problems()
    return list(
        itertools.chain.from_iterable(read_block(block, reading, found) for block in find_blocks(path, reading))
    )


def parquet(path: Path, values: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(values), path, **options)
    return path


@pytest.mark.parametrize("kind", ["parquet", "datasets"])
@pytest.mark.parametrize(
    ("field", "values", "expected"),
    [
        ("data.text", {"data": [{"text": t, "n": 1} for t in TEXTS]}, TEXTS),
        ("data.text", {"data": [{"text": "inner"}] * 700, "data.text": TEXTS}, TEXTS),
        ("data.text", {"data.text": TEXTS, "data": [{"text": "inner"}] * 700}, TEXTS),
        ("a.b.c", {"a": [{"b": {"c": t}, "d": 1} for t in TEXTS], "a.b": [{"d": "no"}] * 700}, TEXTS),
        ("a.b.c", {"a": [{"b.c": t, "b": {"c": "no"}} for t in TEXTS]}, TEXTS),
        ("data.ids", {"data": [{"ids": ids} for ids in IDS]}, IDS),
    ],
)
def test_a_field_of_a_struct_is_named_with_dots(
    tmp_path: Path, kind: str, field: str, values: dict[str, Any], expected: list[Any]
) -> None:
    if kind == "parquet":
        path = parquet(tmp_path / "a.parquet", values, row_group_size=300)
    else:
        path = tmp_path / "ds"
        datasets.Dataset.from_dict(values).save_to_disk(path)

    found = read(path, Reading(text_field=field))

    assert [d.content if isinstance(d.content, str) else np.asarray(d.content).tolist() for d in found] == expected


@pytest.mark.parametrize("kind", [pa.string(), pa.dictionary(pa.int32(), pa.string())])
def test_text_of_a_struct_that_is_null_is_null(tmp_path: Path, kind: pa.DataType) -> None:
    texts = pa.array(["one", "hidden", None, "two"]).cast(kind)
    rows = pa.StructArray.from_arrays([texts], names=["text"], mask=pa.array([False, True, False, False]))
    path = parquet(tmp_path / "a.parquet", {"data": rows.slice(0, 4)})

    with pytest.raises(CorpusError, match=r"a.parquet, row group 0, row 1: 'data.text' is null"):
        read(path, Reading(text_field="data.text"))
    problems = Problems()
    found = read(path, Reading(text_field="data.text", skip_bad=True), problems)
    assert [d.content for d in found] == ["one", "two"]
    assert problems.count == 2


def test_no_such_field_of_a_struct_names_those_there_are(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"data": [{"body": "x", "meta": {"id": 1}}], "b": ["y"]})
    datasets.Dataset.from_dict({"data": [{"body": "x"}]}).save_to_disk(tmp_path / "ds")

    with pytest.raises(
        CorpusError, match=r"a.parquet has no column 'data.text'; there are 'data.body', 'data.meta.id', 'b'. Give the"
    ):
        read(path, Reading(text_field="data.text"))
    with pytest.raises(CorpusError, match=r"column 'data' is of type struct<.*; there are 'data.body', 'data.meta.id'"):
        read(path, Reading(text_field="data"))
    with pytest.raises(CorpusError, match=r"domain 'code': .*arrow has no column 'text'; there are 'data.body'. Give"):
        corpus_entropies(
            {"web": path, "code": tmp_path / "ds"}, EntropySettings(reading=Reading(text_fields={"web": "b"}))
        )


def test_all_formats_have_their_text_where_each_domain_has_it(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"data": {"text": text}}) + "\n" for text in TEXTS))
    parquet(tmp_path / "b.parquet", {"data": [{"body": text} for text in TEXTS]})
    datasets.Dataset.from_dict({"content": TEXTS}).save_to_disk(tmp_path / "c")
    (tmp_path / "d.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    reading = Reading(text_fields={"a": "data.text", "b": "data.body", "c": "content"})
    corpora = {"a": tmp_path / "a.jsonl", "b": tmp_path / "b.parquet", "c": tmp_path / "c", "d": tmp_path / "d.jsonl"}

    found = corpus_entropies(corpora, EntropySettings(embedder=None, reading=reading))

    assert len(set(found.entropies("joint", compare="all").values())) == 1
    with pytest.raises(CorpusError, match="text field of unknown domain 'z'; choose from 'a', 'b'"):
        corpus_entropies(corpora, EntropySettings(reading=Reading(text_fields={"z": "text"})))

"""Where a document's text is: in objects within objects, of each domain its own; what is missing is named."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from bimix_tracking.entropy.corpora import find_blocks, read_block
from bimix_tracking.entropy.corpora.documents import Block, Document, Problems, Reading
from bimix_tracking.errors import CorpusError


def jsonl(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def documents(path: Path, reading: Reading) -> list[Document]:
    return read(find_blocks(path, reading), reading)


def read(blocks: list[Block], reading: Reading) -> list[Document]:
    return list(itertools.chain.from_iterable(read_block(block, reading, Problems()) for block in blocks))


@pytest.mark.parametrize(
    ("field", "line", "text"),
    [
        ("data.text", '{"data": {"text": "inner"}}', "inner"),
        ("data.text", '{"data": {"text": "inner"}, "data.text": "outer"}', "outer"),
        ("a.b.c", '{"a": {"b.c": "one", "b": {"c": "two"}}}', "one"),
        ("a.b.c", '{"a": {"b": {"c": "two"}}, "a.b": {"c": "three"}}', "three"),
        ("a.b.c", '{"a": {"b": {"c": "two"}}, "a.b": {"d": "no"}}', "two"),
        ("a.b.c", '{"a.b": "no object", "a": {"b": {"c": "two"}}}', "two"),
        (".", '{".": "dot"}', "dot"),
        ("a.", '{"a": {"": "empty"}}', "empty"),
        ("data.ids", '{"data": {"ids": [3, 1]}}', [3, 1]),
    ],
)
def test_a_field_within_objects_is_named_with_dots(tmp_path: Path, field: str, line: str, text: object) -> None:
    (found,) = documents(jsonl(tmp_path / "a.jsonl", f"{line}\n"), Reading(text_field=field))

    assert (found.content if isinstance(found.content, str) else found.content.tolist()) == text


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            '{"data": {"body": "x", "meta": {"id": 1}}, "b": 2}',
            "there are 'data.body', 'data.meta.id', 'b'. Give the text",
        ),
        ('{"data": [{"text": "x"}]}', "has no field 'data.text'; there are 'data'. Give the text's field"),
        ('{"data": null}', "has no field 'data.text'; there are 'data'"),
        ("{}", "has no field 'data.text'; there are none"),
        ('{"data": {"text": {"en": "x"}}}', "holds an object in field 'data.text', .*; there are 'data.text.en'. Give"),
        ('{"' + "x" * 9999 + '": 1}', "there are '" + "x" * 60 + "…'"),
        ('{"d": ' * 900 + "1" + "}" * 900, "there are 'd.d.d.d.d.d.d.d.d'"),
        (json.dumps(dict.fromkeys(map(str, range(5000)), "y")), "'8', '9' and more. Give"),
    ],
)
def test_a_field_that_is_missing_names_those_there_are(tmp_path: Path, line: str, text: str) -> None:
    path = jsonl(tmp_path / "a.jsonl", '{"data.text": "x"}\n' + line + "\n")

    with pytest.raises(CorpusError, match=f"a.jsonl, line 2 at byte 19 .*{text}") as error:
        documents(path, Reading(text_field="data.text"))
    assert len(str(error.value)) < 700


def test_a_line_is_numbered_in_any_block_and_empty_ones_count(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", '{"text": "one"}\n\n{"text": "two"}\n{"text": "three"}\n{"body": "x"}\n')

    for size in (1, 20, 33, 1000):
        with pytest.raises(CorpusError, match=r"a.jsonl, line 5 at byte 51 has no field 'text'; there are 'body'"):
            documents(path, Reading(block_bytes=size))


def test_each_domain_may_have_a_text_field_of_its_own(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", '{"text": "one", "content": "two"}\n')
    reading = Reading(text_fields={"code": "content"})
    (block,) = find_blocks(path, reading)

    found = {name: read([replace(block, domain=name)], reading)[0].content for name in ("code", "web", None)}

    assert found == {"code": "two", "web": "one", None: "one"}

"""Files of corpora: every format gives its documents, however it is divided; what is damaged is named."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimix_tracking.entropy.corpora import find_blocks, open_format, read_block
from bimix_tracking.entropy.corpora import jsonl as jsonl_room
from bimix_tracking.entropy.corpora.documents import Block, Document, Problems, Reading
from bimix_tracking.errors import CorpusError

SMALL = Reading(block_bytes=64)
LINES = [
    *(
        json.dumps({"text": f"document {number} " + "ä" * (number % 40), "n": number}, ensure_ascii=False)
        for number in range(30)
    ),
    "",
    json.dumps({"text": "the last"}),
]


def documents(path: Path, reading: Reading = SMALL, **options: str) -> list[Document]:
    return read(find_blocks(path, reading, **options), reading)


def read(blocks: list[Block], reading: Reading = SMALL, problems: Problems | None = None) -> list[Document]:
    found = problems or Problems()
    return list(itertools.chain.from_iterable(read_block(block, reading, found) for block in blocks))


def shown(found: list[Document]) -> list[tuple[object, int]]:
    return [(d.content if isinstance(d.content, str) else d.content.tolist(), d.group) for d in found]


def jsonl(path: Path, text: str | bytes | None = None) -> Path:
    content = "\n".join(LINES) + "\n" if text is None else text
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def test_lines_are_documents_whatever_the_blocks(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl")
    expected = [json.loads(line)["text"] for line in LINES if line]

    for size in (1, 7, 64, 1000, 1 << 20):
        reading = Reading(block_bytes=size)
        blocks = find_blocks(path, reading)
        assert sum(block.size for block in blocks) == path.stat().st_size
        found = read(blocks, reading)
        assert [document.content for document in found] == expected
        offsets = np.cumsum([0, *(len(line.encode()) + 1 for line in LINES)])
        assert [d.group for d in found] == [int(o) // size for o, line in zip(offsets[:-1], LINES, strict=True) if line]


def test_compression_changes_neither_documents_nor_groups(tmp_path: Path) -> None:
    plain = documents(jsonl(tmp_path / "a.jsonl"))

    assert shown(documents(jsonl(tmp_path / "b.jsonl.gz"))) == shown(plain)
    assert len(find_blocks(tmp_path / "b.jsonl.gz", SMALL)) == 1


@settings(max_examples=60)
@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=20), max_size=12),
    st.integers(1, 40),
    st.sampled_from(["utf-8", "utf-8-sig", "gb18030"]),
)
def test_text_is_all_there_whatever_the_blocks(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], size: int, encoding: str
) -> None:
    folder = tmp_path_factory.mktemp("text")
    text = "\n".join(["x", *rows])
    (folder / "a.txt").write_bytes(text.encode(encoding))
    (folder / "b.txt.gz").write_bytes(gzip.compress(text.encode(encoding)))
    reading = Reading(block_bytes=size, encoding=encoding)

    found = documents(folder / "a.txt", reading)

    # Lines longer than a block are cut, but never inside a character.
    assert "".join(str(d.content) for d in found) == text
    groups = [d.group for d in found]
    assert groups == sorted(groups)
    assert shown(documents(folder / "b.txt.gz", reading)) == shown(found)


@pytest.mark.parametrize("size", [4, 8, 16, 100])
def test_a_character_that_a_file_ends_in_is_named(tmp_path: Path, size: int) -> None:
    (tmp_path / "a.txt").write_bytes("汉".encode() * 5 + b"\xe6")

    with pytest.raises(CorpusError, match=r"a.txt isn't utf-8: 0xe6 at byte 15 of the file: give the file's encoding"):
        documents(tmp_path / "a.txt", Reading(block_bytes=size))
    problems, reading = Problems(), Reading(block_bytes=size, skip_bad=True)
    read(find_blocks(tmp_path / "a.txt", reading), reading, problems)
    assert problems.count == 1


def test_a_line_longer_than_blocks_is_read_once_and_looked_through_once(tmp_path: Path) -> None:
    size = 1 << 22
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(size)
    blocks = find_blocks(tmp_path / "a.txt", Reading(block_bytes=1 << 16))

    def read_bytes() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before = read_bytes()
    assert sum(len(d.content) for d in read(blocks, Reading(block_bytes=1 << 16))) == size
    assert read_bytes() - before < 3 * size


def test_a_text_file_is_a_document_unless_it_is_larger_than_a_block(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("one\ntwo\n" * 20)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(("one\ntwo\n" * 20).encode()))

    assert [d.content for d in documents(tmp_path / "a.md", Reading())] == ["one\ntwo\n" * 20]
    assert shown(documents(tmp_path / "b.txt.gz")) == shown(documents(tmp_path / "a.md"))
    assert len(documents(tmp_path / "a.md")) == 3


def test_a_long_file_takes_little_memory(tmp_path: Path) -> None:
    line = json.dumps({"text": "word " * 200}) + "\n"
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", compresslevel=1) as file:
        for _ in range(20):
            file.write(line * 1000)  # 20 MB in all

    tracemalloc.start()
    problems, count = Problems(), 0
    for block in find_blocks(tmp_path / "a.jsonl.gz", Reading()):
        for _ in read_block(block, Reading(), problems):
            count += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert count == 20_000
    assert peak < 2_000_000


def test_a_long_line_takes_little_memory(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.txt.gz", "wb", compresslevel=1) as file:
        for _ in range(40):
            file.write(b"word " * 200_000)  # 40 MB in all, in one line

    tracemalloc.start()
    reading = Reading(block_bytes=1 << 18)
    blocks = find_blocks(tmp_path / "a.txt.gz", reading)
    size = sum(len(document.content) for block in blocks for document in read_block(block, reading, Problems()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert size == 40_000_000
    assert peak < 3_000_000


def test_a_folder_is_its_files_in_order_and_nothing_hidden(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.py", "a/.hidden.txt", ".git/x.txt", "a/c.jsonl", "a/dataset_info.json", "_SUCCESS"):
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"text": name}))

    blocks = find_blocks(tmp_path / "corpus", Reading())

    assert [(b.name, b.format) for b in blocks] == [("a/c.jsonl", "jsonl"), ("a/z.py", "text"), ("b.txt", "text")]


def test_a_folder_that_leads_back_to_itself_is_named(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "up").symlink_to("../..")

    with pytest.raises(CorpusError, match=r"b/up leads back to .*, which contains it: remove the link from the corpus"):
        find_blocks(tmp_path, Reading())


def test_what_is_neither_file_nor_folder_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(CorpusError, match="pipe cannot be read: Not a directory"):
        find_blocks(tmp_path / "pipe", Reading())


def test_blocks_have_bytes(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="blocks must have at least one byte, got block_bytes = 0"):
        find_blocks(jsonl(tmp_path / "a.jsonl"), Reading(block_bytes=0))


def test_ids_in_lines_are_tokens(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.json", '{"ids": [1, 2, 3]}\n{"ids": []}\n')

    found = documents(path, Reading(text_field="ids"))

    assert [np.asarray(d.content).tolist() for d in found] == [[1, 2, 3], []]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("{", "line 2 at byte 15 is not JSON: .* JSON lines have one object per line"),
        ("[" * 100_000, "line 2 at byte 15 is not JSON"),
        ("[1]", "line 2 at byte 15 holds a list, not an object with a field 'text'"),
        ('{"body": "x", "id": 1}', "has no field 'text'; there are 'body', 'id'. Give the text's field"),
        ('{"text": null}', "holds null in field 'text', neither text nor a list of token ids"),
        ('{"text": [1, "a"]}', "holds a list in field 'text', neither text"),
        ('{"text": [true]}', "holds a list in field 'text', neither text"),
        ('{"text": [99999999999999999999]}', "has a token id beyond 63 bits in field 'text'"),
        (b'{"text": "\xff"}', "isn't utf-8: 0xff at byte 25 of the file: give the file's encoding"),
        ('{"text": "\\ud800"}', "has half of a surrogate pair in field 'text', which is not text"),
        ('{"text": "' + "x" * 1000 + '"}', "has 500 bytes or more: is this a file of JSON lines"),
    ],
)
def test_a_bad_line_is_named_or_skipped_and_counted(
    tmp_path: Path, line: str | bytes, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "500 bytes" in text:
        monkeypatch.setattr(jsonl_room, "LONGEST_LINE", 500)
    bad = line.encode() if isinstance(line, str) else line
    path = jsonl(tmp_path / "a.jsonl", b'{"text":"one"}\n' + bad + b'\n{"text": "two"}\n')

    with pytest.raises(CorpusError, match=text) as error:
        documents(path, Reading())
    assert str(path) in str(error.value)
    problems, reading = Problems(), Reading(skip_bad=True)
    found = read(find_blocks(path, reading), reading, problems)
    assert [d.content for d in found] == ["one", "two"]
    assert problems.count == 1
    assert str(path) in problems.first[0].where


@pytest.mark.parametrize("harm", ["cut off", "changed"])
def test_a_damaged_gzip_file_is_named_and_what_came_before_is_kept(tmp_path: Path, harm: str) -> None:
    rng = np.random.default_rng(0)
    text = "".join(json.dumps({"text": rng.bytes(60).hex()}) + "\n" for _ in range(3000))
    path = jsonl(tmp_path / "a.jsonl.gz", text)
    content = bytearray(path.read_bytes())
    if harm == "cut off":
        del content[len(content) * 3 // 4 :]
    else:
        content[len(content) // 2 : len(content) // 2 + 50] = bytes(50)
    path.write_bytes(content)

    with pytest.raises(CorpusError, match=r"a.jsonl.gz, .*(the file is damaged or cut off|isn't utf-8|is not JSON)"):
        documents(path, Reading())
    problems, reading = Problems(), Reading(skip_bad=True)
    found = read(find_blocks(path, reading), reading, problems)
    assert 500 < len(found) < 3000
    assert problems.count > 0


def test_what_is_no_gzip_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_text("plain text, but long enough to be taken for something")

    with pytest.raises(
        CorpusError, match=r"a.txt.gz, after 0 bytes of its content: the file is damaged or cut off \(Not a gzip"
    ):
        documents(tmp_path / "a.txt.gz")
    (tmp_path / "a.txt.gz").write_bytes(b"")
    with pytest.raises(CorpusError, match=r"damaged or cut off \(it is empty, and not a compressed file"):
        documents(tmp_path / "a.txt.gz")


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("klingon", "'klingon' is not an encoding that Python knows"),
        ("undefined", "'undefined' is not an encoding that Python knows"),
        ("utf-16", "files in utf-16 cannot be divided at line ends"),
    ],
)
def test_an_encoding_must_be_one_and_have_line_ends(tmp_path: Path, encoding: str, text: str) -> None:
    (tmp_path / "a.txt").write_text("x")

    with pytest.raises(CorpusError, match=text):
        documents(tmp_path / "a.txt", Reading(encoding=encoding))


def test_another_encoding_and_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("schön\n".encode("latin-1"))
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfone\r\n")

    assert documents(tmp_path / "a.txt", Reading(encoding="latin-1"))[0].content == "schön\n"
    assert documents(tmp_path / "b.txt", Reading())[0].content == "one\r\n"
    with pytest.raises(CorpusError, match="isn't utf-8: 0xf6 at byte 3 of the file"):
        documents(tmp_path / "a.txt", Reading())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("photo.jpeg", "photo.jpeg: its name doesn't show its format. Give one"),
        ("a.bin", "has no index a.idx next to it, as Megatron's files have. Give the type"),
        ("empty.txt", "holds no text and no token ids: an empty file"),
    ],
)
def test_files_that_cannot_be_read_as_they_are(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(b"" if "empty" in name else b"xx")

    with pytest.raises(CorpusError, match=text):
        find_blocks(tmp_path / name, Reading())


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="nowhere is not there"):
        find_blocks(tmp_path / "nowhere", Reading())
    with pytest.raises(CorpusError, match="no file in it"):
        find_blocks(tmp_path, Reading())
    with pytest.raises(
        CorpusError, match="no format 'clay'; choose from 'datasets', 'jsonl', 'megatron', 'parquet', 'text', 'tokens'"
    ):
        open_format("clay")


def test_a_file_that_goes_meanwhile_is_named(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl")
    blocks = find_blocks(path, SMALL)
    path.unlink()

    with pytest.raises(CorpusError, match=r"a.jsonl cannot be read: No such file"):
        read(blocks)

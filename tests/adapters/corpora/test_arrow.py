"""Corpora that Arrow reads: Parquet, Hugging Face datasets on disk, Zstandard, as users' own libraries write them."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
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


def read(path: Path, reading: Reading | None = None, problems: Problems | None = None) -> list[Document]:
    reading, problems = reading or Reading(), problems or Problems()
    blocks = find_blocks(path, reading)
    return list(itertools.chain.from_iterable(read_block(block, reading, problems) for block in blocks))


def parquet(path: Path, values: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(values), path, **options)
    return path


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_a_row_is_a_document_and_a_row_group_a_block(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"id": list(range(700)), "text": pa.array(TEXTS).cast(kind)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=300, compression="zstd")

    found = read(tmp_path / "a.parquet")

    assert [document.content for document in found] == TEXTS
    assert [document.group for document in found] == [0] * 300 + [1] * 300 + [2] * 100
    assert [b.start for b in find_blocks(tmp_path / "a.parquet", Reading())] == [0, 1, 2]


@pytest.mark.parametrize("kind", [pa.list_(pa.int32()), pa.large_list(pa.uint16()), pa.list_(pa.int64(), 3)])
def test_a_column_of_lists_is_token_ids(tmp_path: Path, kind: pa.DataType) -> None:
    rows = [ids[:3] for ids in IDS if ids] if pa.types.is_fixed_size_list(kind) else IDS
    pq.write_table(pa.table({"input_ids": pa.array(rows, kind)}), tmp_path / "a.parquet")

    found = read(tmp_path / "a.parquet", Reading(text_field="input_ids"))

    assert [np.asarray(document.content).tolist() for document in found] == rows


def test_no_such_column_names_those_there_are(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"body": ["x"], "id": [1]})

    with pytest.raises(
        CorpusError,
        match=r"a.parquet has no column 'text'; there are 'body', 'id'. Give the text's field: --text-field",
    ):
        read(path)
    with pytest.raises(CorpusError, match="column 'id' is of type int64, neither text nor lists of token ids"):
        read(path, Reading(text_field="id"))


def test_a_null_is_named_or_skipped_and_counted(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"text": ["one", None, "two", None]})

    with pytest.raises(CorpusError, match=r"a.parquet, row group 0, row 1: 'text' is null"):
        read(path)
    problems = Problems()
    assert [d.content for d in read(path, Reading(skip_bad=True), problems)] == ["one", "two"]
    assert (problems.count, problems.first[1].where) == (2, f"{path}, row group 0, row 3")


def test_a_damaged_page_is_named_and_the_other_groups_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = [rng.bytes(40).hex() for _ in range(900)]
    path = parquet(
        tmp_path / "a.parquet", {"text": texts}, row_group_size=300, use_dictionary=False, compression="snappy"
    )
    first = pq.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    start = first.data_page_offset
    content[start + 20 : start + 5000] = bytes(4980)
    path.write_bytes(content)

    with pytest.raises(
        CorpusError, match=r"a.parquet, row group 1: its 300 rows from row 0 on cannot be read, the file is damaged"
    ):
        read(path)
    problems = Problems()
    assert [d.content for d in read(path, Reading(skip_bad=True), problems)] == texts[:300] + texts[600:]
    assert problems.count == 300


def test_text_of_a_damaged_row_is_named_and_the_other_rows_are_read(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"text": TEXTS[:100]}, compression="none", use_dictionary=False)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"document 70 ", b"document 70\xff"))

    with pytest.raises(CorpusError, match=r"a.parquet, row group 0, row 70: 'text' is damaged \(Invalid UTF8"):
        read(path)
    problems = Problems()
    assert [d.content for d in read(path, Reading(skip_bad=True), problems)] == TEXTS[:70] + TEXTS[71:100]
    assert problems.count == 1


def test_the_name_of_a_column_that_is_damaged(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"text": ["x"], "some": ["y"]}, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"some", b"so\xffe"))

    with pytest.raises(CorpusError, match=r"a.parquet cannot be read as Parquet: 'utf-8' codec can't decode"):
        read(path)
    datasets.Dataset.from_dict({"text": ["x"], "some": ["y"]}).save_to_disk(tmp_path / "ds")
    path = next((tmp_path / "ds").glob("*.arrow"))
    path.write_bytes(path.read_bytes().replace(b"some", b"so\xffe"))
    with pytest.raises(CorpusError, match=r"\.arrow: its rows from 0 on cannot be read, .*'utf-8' codec can't decode"):
        read(tmp_path / "ds")


def test_a_page_that_differs_from_its_checksum_is_damaged(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "a.parquet", {"text": TEXTS}, compression="none", use_dictionary=False, write_page_checksum=True
    )
    path.write_bytes(path.read_bytes().replace(b"document 70 ", b"document 90 "))

    with pytest.raises(CorpusError, match=r"row group 0: its 700 rows from row 0 on cannot be read, .*CRC"):
        read(path)


@pytest.mark.parametrize("kind", [pa.list_(pa.int32()), pa.large_list(pa.int64())])
def test_a_null_among_ids_is_named_or_skipped_and_counted(tmp_path: Path, kind: pa.DataType) -> None:
    path = parquet(tmp_path / "a.parquet", {"ids": pa.array([[1, 2], [3, None], None, [4, 5]], kind)})

    with pytest.raises(CorpusError, match=r"row group 0, row 1: 'ids' has a null among its token ids"):
        read(path, Reading(text_field="ids"))
    problems = Problems()
    found = read(path, Reading(text_field="ids", skip_bad=True), problems)
    assert [np.asarray(d.content).tolist() for d in found] == [[1, 2], [4, 5]]
    assert [problem.what for problem in problems.first] == ["'ids' has a null among its token ids", "'ids' is null"]


_PEAK = """
import sys
import pyarrow
from bimix_tracking.entropy.corpora import find_blocks, read_block
from bimix_tracking.entropy.corpora.documents import Problems, Reading

(block,) = find_blocks(sys.argv[1], Reading())
count = sum(len(document.content) for document in read_block(block, Reading(), Problems()))
print(count, pyarrow.default_memory_pool().max_memory())
"""


def test_a_row_group_larger_than_memory_is_read_page_by_page(tmp_path: Path) -> None:
    # Random, so that the row group is about as large in the file.
    text = np.random.default_rng(0).bytes(30_000_000).hex()
    texts = [text[first : first + 2000] for first in range(0, len(text), 2000)]
    path = parquet(tmp_path / "a.parquet", {"text": texts}, compression="zstd", use_dictionary=False)

    # A process of its own: the most that Arrow held is told for the whole of one.
    done = subprocess.run([sys.executable, "-c", _PEAK, str(path)], capture_output=True, text=True, check=True)

    count, peak = map(int, done.stdout.split())
    assert count == 60_000_000
    assert peak < 20_000_000


@pytest.mark.parametrize("content", [b"", b"not parquet at all", b"PAR1 and not much more PAR1"])
def test_what_is_no_parquet_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(content)

    with pytest.raises(CorpusError, match=r"a.parquet cannot be read as Parquet"):
        read(tmp_path / "a.parquet")


def test_a_dataset_on_disk_is_its_rows(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": TEXTS, "id": list(range(700))}).save_to_disk(
        tmp_path / "corpus" / "ds", num_shards=2
    )

    blocks = find_blocks(tmp_path / "corpus", Reading())
    found = read(tmp_path / "corpus", Reading(block_bytes=5000))

    assert [b.name for b in blocks] == ["ds/data-00000-of-00002.arrow", "ds/data-00001-of-00002.arrow"]
    assert [document.content for document in found] == TEXTS
    assert [d.content for d in read(tmp_path / "corpus" / "ds")] == TEXTS


def test_rows_that_were_chosen_and_splits(tmp_path: Path) -> None:
    whole = datasets.Dataset.from_dict({"text": TEXTS})
    chosen = whole.shuffle(seed=0).select(range(10))
    datasets.DatasetDict({"train": chosen, "test": whole.select(range(3))}).save_to_disk(tmp_path / "ds")

    assert [d.content for d in read(tmp_path / "ds")] == [*chosen["text"], *TEXTS[:3]]
    assert [b.name.split("/")[1] for b in find_blocks(tmp_path / "ds", Reading())] == ["train", "test"]


def test_a_dataset_of_token_ids(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"input_ids": IDS}).save_to_disk(tmp_path / "ds")

    found = read(tmp_path / "ds", Reading(text_field="input_ids"))

    assert [np.asarray(d.content).tolist() for d in found] == IDS


def test_a_dataset_that_was_cut_off(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / "ds")
    path = next((tmp_path / "ds").glob("*.arrow"))
    path.write_bytes(path.read_bytes()[:3000])

    with pytest.raises(
        CorpusError, match=r"\.arrow: its rows from \d+ on cannot be read, the file is damaged or cut off"
    ):
        read(tmp_path / "ds")
    problems = Problems()
    read(tmp_path / "ds", Reading(skip_bad=True), problems)
    assert problems.count == 1


def test_a_dataset_that_was_cut_off_between_two_batches(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / "ds")
    path = next((tmp_path / "ds").glob("*.arrow"))
    path.write_bytes(path.read_bytes()[:-8])

    with pytest.raises(CorpusError, match=r"\.arrow: its rows from 700 on cannot be read, .*doesn't end as it should"):
        read(tmp_path / "ds")


@pytest.mark.parametrize("field", ["text", "data.text"])
@pytest.mark.parametrize(("row", "offset"), [(5, 2**30), (70, -1), (199, 0)])
def test_offsets_that_lead_out_of_a_dataset_are_followed_nowhere(
    tmp_path: Path, row: int, offset: int, field: str
) -> None:
    texts = [f"{number:>9}" for number in range(200)]
    rows: dict[str, Any] = {"text": texts} if field == "text" else {"data": [{"text": text} for text in texts]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "ds")
    path = next((tmp_path / "ds").glob("*.arrow"))
    offsets = np.arange(201, dtype=np.int32) * 9
    changed = offsets.copy()
    changed[row] = offset
    content = path.read_bytes()
    assert content.count(offsets.tobytes()) == 1
    path.write_bytes(content.replace(offsets.tobytes(), changed.tobytes()))

    with pytest.raises(CorpusError, match=rf"\.arrow, row {row - 1}: '{field}' is damaged \(Offset"):
        read(tmp_path / "ds", Reading(text_field=field))
    problems = Problems()
    found = read(tmp_path / "ds", Reading(text_field=field, skip_bad=True), problems)
    assert {str(d.content) for d in found} >= {*texts[: row - 1], *texts[row + 1 :]}
    assert len(found) + problems.count == 200


def test_an_arrow_file_alone_is_no_dataset(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / "ds")

    with pytest.raises(CorpusError, match="is a file, and a dataset a folder"):
        find_blocks(next((tmp_path / "ds").glob("*.arrow")), Reading(), format="datasets")


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("{", "state.json cannot be read"),
        ("[]", "state.json holds no object"),
        ("{}", "names no Arrow files"),
        ('{"_data_files": [{"filename": "../../secret.arrow"}]}', "names '../../secret.arrow', which is not in it"),
        ('{"_data_files": [{"filename": "a.arrow"}]}', "a.arrow cannot be read: No such file"),
        (
            '{"_data_files": [{"filename": "a.arrow"}], "_indices_files": [{"filename": "i.arrow"}]}',
            "some rows of its files only",
        ),
    ],
)
def test_a_folder_that_is_no_dataset(tmp_path: Path, state: str, text: str) -> None:
    (tmp_path / "state.json").write_text(state)

    with pytest.raises(CorpusError, match=text):
        read(tmp_path)


def zst(path: Path, content: bytes) -> Path:
    with pa.CompressedOutputStream(str(path), "zstd") as file:
        file.write(content)
    return path


def test_zstandard_changes_neither_documents_nor_groups(tmp_path: Path) -> None:
    content = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()
    (tmp_path / "a.jsonl").write_bytes(content)
    zst(tmp_path / "b.jsonl.zst", content)
    reading = Reading(block_bytes=1000)

    assert read(tmp_path / "b.jsonl.zst", reading) == read(tmp_path / "a.jsonl", reading)
    # Files that were compressed in parts, one after the other.
    (tmp_path / "c.jsonl.zst").write_bytes((tmp_path / "b.jsonl.zst").read_bytes() * 2)
    assert len(read(tmp_path / "c.jsonl.zst", reading)) == 2 * len(TEXTS)


@pytest.mark.parametrize("harm", ["cut off", "changed", "no zstd"])
def test_a_damaged_zstandard_file_is_named(tmp_path: Path, harm: str) -> None:
    rng = np.random.default_rng(0)
    path = zst(
        tmp_path / "a.jsonl.zst",
        "".join(json.dumps({"text": rng.bytes(60).hex()}) + "\n" for _ in range(9000)).encode(),
    )
    content = bytearray(path.read_bytes())
    if harm == "cut off":
        del content[len(content) * 3 // 4 :]
    elif harm == "changed":
        content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    else:
        content[:4] = b"none"
    path.write_bytes(content)

    with pytest.raises(CorpusError, match=r"a.jsonl.zst, .*(damaged or cut off|is not JSON|no utf-8)"):
        read(path)
    problems = Problems()
    read(path, Reading(skip_bad=True), problems)
    assert problems.count > 0


def test_all_formats_of_one_text_have_the_same_entropies(tmp_path: Path) -> None:
    texts = TEXTS * 3
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    (tmp_path / "a.jsonl").write_bytes(lines)
    zst(tmp_path / "b.jsonl.zst", lines)
    parquet(tmp_path / "c.parquet", {"text": list(texts)})
    datasets.Dataset.from_dict({"text": texts}).save_to_disk(tmp_path / "d")
    np.save(tmp_path / "e.npy", np.frombuffer("".join(texts).encode(), np.uint8))
    names = {"a": "a.jsonl", "b": "b.jsonl.zst", "c": "c.parquet", "d": "d"}

    found = corpus_entropies({name: tmp_path / file for name, file in names.items()}, EntropySettings(embedder=None))
    stored = corpus_entropies({"e": tmp_path / "e.npy"})

    exact = {*found.entropies("joint", compare="all").values(), *stored.entropies("joint", compare="all").values()}
    assert len(exact) == 1
    assert len(found.overlaps) == 6

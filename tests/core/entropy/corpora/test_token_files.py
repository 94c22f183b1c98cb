"""Files of token ids: NumPy's, raw ones, Megatron's."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bimix_tracking.entropy.corpora import find_blocks, read_block
from bimix_tracking.entropy.corpora import megatron as megatron_room
from bimix_tracking.entropy.corpora import token_ids as token_room
from bimix_tracking.entropy.corpora.documents import Document, Problems, Reading
from bimix_tracking.errors import CorpusError


def documents(path: Path, reading: Reading | None = None) -> list[Document]:
    reading = reading or Reading(block_bytes=64)
    blocks = find_blocks(path, reading)
    return list(itertools.chain.from_iterable(read_block(block, reading, Problems()) for block in blocks))


@pytest.mark.parametrize("dtype", ["uint16", "int32", "uint32", "int64"])
def test_token_ids_are_mapped_not_read(tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_room, "BLOCK_TOKENS", 100)
    ids = np.arange(350, dtype=dtype)
    np.save(tmp_path / "a.npy", ids)
    ids.tofile(tmp_path / "b.bin")
    np.save(tmp_path / "c.npy", ids.reshape(35, 10))
    reading = Reading(token_dtype=dtype)

    for name in ("a.npy", "b.bin"):
        found = documents(tmp_path / name, reading)
        assert [len(d.content) for d in found] == [100, 100, 100, 50]
        assert np.array_equal(np.concatenate([np.asarray(d.content) for d in found]), ids)
        assert [d.group for d in found] == [0, 100, 200, 300]
        assert isinstance(found[0].content, np.memmap)
    table = documents(tmp_path / "c.npy", reading)
    assert np.array_equal(np.concatenate([np.asarray(d.content) for d in table]), ids.reshape(35, 10))
    assert len(table) == 4


@pytest.mark.parametrize(
    ("content", "dtype", "text"),
    [
        (b"xxx", "uint16", "has 3 bytes, which is not a multiple of 2 of uint16"),
        (b"xxxx", "words", "'words' is not a type of token ids"),
        (b"xxxx", "float32", "'float32' is not a type of token ids"),
        (b"xxxx", "V0", "'V0' is not a type of token ids"),
        (b"xxxx", "2u2", "'2u2' is not a type of token ids"),
        (np.zeros(2, "m8[s]"), None, "holds timedelta64"),
        (np.zeros(2), None, r"holds float64 of shape \(2,\)"),
        (np.zeros((2, 2, 2), np.int64), None, r"holds int64 of shape \(2, 2, 2\)"),
        (b"not numpy", None, "cannot be read as token ids"),
        (b"PK\x03\x04" + bytes(100), None, "cannot be read as token ids"),
        (b"\x93NUMPY\x01\x00\x08\x00{'descr'", None, "cannot be read as token ids"),
        (np.array([{"a": 1}]), None, "cannot be read as token ids"),
    ],
)
def test_files_of_no_token_ids(
    tmp_path: Path, content: bytes | npt.NDArray[np.generic], dtype: str | None, text: str
) -> None:
    path = tmp_path / ("a.bin" if dtype else "a.npy")
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True)

    with pytest.raises(CorpusError, match=text):
        find_blocks(path, Reading(token_dtype=dtype), format="tokens")


def megatron(
    folder: Path, rows: list[list[int]], documents_at: list[int], change: Callable[[bytearray], bytearray] = lambda x: x
) -> Path:
    """Write a pair as Megatron-LM's builder does: header, lengths, pointers, documents."""
    ids = np.array(list(itertools.chain.from_iterable(rows)), np.uint16)
    lengths = np.array([len(row) for row in rows], np.int32)
    pointers = np.concatenate([[0], np.cumsum(lengths[:-1])]).astype(np.int64) * 2
    ids.tofile(folder / "a.bin")
    index = struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", 1, 8, len(rows), len(documents_at))
    index += lengths.tobytes() + pointers.tobytes() + np.array(documents_at, np.int64).tobytes()
    (folder / "a.idx").write_bytes(change(bytearray(index)))
    return folder / "a.bin"


ROWS = [[1, 2, 3], [4], [5, 6], [], [7, 8, 9, 10]]


def test_megatrons_documents_are_their_sequences(tmp_path: Path) -> None:
    path = megatron(tmp_path, ROWS, [0, 1, 3, 5])

    for size in (1, 8, 1000):
        found = documents(path, Reading(block_bytes=size))
        assert [np.asarray(d.content).tolist() for d in found] == [[1, 2, 3], [4, 5, 6], [7, 8, 9, 10]]
        assert all(isinstance(d.content, np.memmap) for d in found)
    assert len(find_blocks(tmp_path, Reading())) == 1


def test_a_megatron_index_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = megatron(tmp_path, [list(range(n % 5)) for n in range(40)], [*range(0, 40, 3), 40])

    for size in (1, 6, 10, 1000):
        whole = find_blocks(path, Reading(block_bytes=size))
        with monkeypatch.context() as context:
            context.setattr(megatron_room, "_AT_ONCE", 2)
            assert find_blocks(path, Reading(block_bytes=size)) == whole
        assert sum(block.size for block in whole) == path.stat().st_size
        assert (whole[0].start, whole[-1].stop) == (0, 14)


def test_without_documents_each_sequence_is_one(tmp_path: Path) -> None:
    found = documents(megatron(tmp_path, ROWS, []))

    assert [np.asarray(d.content).tolist() for d in found] == ROWS


def test_sequences_may_lie_anywhere_in_a_megatron_file(tmp_path: Path) -> None:
    path = megatron(tmp_path, ROWS, [0, 2, 5], _at(34 + 20, np.array([12, 0, 2], np.int64).tobytes()))

    assert [np.asarray(d.content).tolist() for d in documents(path)] == [[7, 8, 9, 1], [2, 3, 7, 8, 9, 10]]


def test_a_megatron_file_of_empty_documents(tmp_path: Path) -> None:
    assert [len(d.content) for d in documents(megatron(tmp_path, [[], []], [0, 1, 2]))] == [0, 0]


def _at(place: int, content: bytes) -> Callable[[bytearray], bytearray]:
    def change(index: bytearray) -> bytearray:
        index[place : place + len(content)] = content
        return index

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_at(0, b"x"), "is not an index of a Megatron dataset"),
        (lambda index: index[:12], "is not an index of a Megatron dataset"),
        (_at(9, b"\x02"), "is of version 2"),
        (_at(17, b"\x07"), "version 1 and type 7"),
        (lambda index: index[:-1], "is cut off"),
        (_at(34, b"\xff\xff\xff\x7f"), "sequence 0 is at byte 0 with 2,147,483,647 tokens: the file is cut off"),
        (_at(34 + 20 + 8, b"\x01"), "sequence 1 is at byte 1"),
        (_at(34 + 20 + 40, b"\x01"), "its documents are of sequences 1 to 5, but there are 0 to 5"),
        (_at(34 + 20 + 40 + 8, b"\x06"), "among documents 0 to 2 one begins before the one ahead of it"),
    ],
)
def test_a_damaged_megatron_index(tmp_path: Path, change: Callable[[bytearray], bytearray], text: str) -> None:
    with pytest.raises(CorpusError, match=text):
        find_blocks(megatron(tmp_path, ROWS, [0, 3, 5], change), Reading())


def test_a_megatron_file_that_was_cut_off(tmp_path: Path) -> None:
    path = megatron(tmp_path, ROWS, [0, 5])
    path.write_bytes(path.read_bytes()[:-2])

    with pytest.raises(CorpusError, match="has 18 bytes, but sequence 4 is at byte 12 with 4 tokens"):
        find_blocks(path, Reading())

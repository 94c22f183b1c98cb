"""Tokenizers and embedders by name, and those that need no file."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimix_tracking.entropy.block_counts import passages_of
from bimix_tracking.entropy.corpora.embedders import open_embedder
from bimix_tracking.entropy.corpora.hashing_embedder import HashingEmbedder
from bimix_tracking.entropy.corpora.tokenizers import PIECE, fingerprint, ids_in_pieces, narrow, open_tokenizer
from bimix_tracking.errors import CorpusError

SAMPLE = [
    "the cat sat on the mat",
    "The cat sat on the mat",
    "import numpy as np",
    "吾輩は猫である。名前はまだ無い。",
    "",
    "abc",
]


@given(st.lists(st.text(), max_size=5))
def test_bytes_are_utf8(texts: list[str]) -> None:
    found = open_tokenizer("bytes")(texts)

    assert [bytes(ids.astype(np.uint8)) for ids in found] == [text.encode("utf-8", "replace") for text in texts]


def test_few_ids_take_few_bits() -> None:
    assert narrow([[1, 65_535]], 65_536)[0].dtype == np.uint16
    assert narrow([[1, 65_536]], 65_537)[0].dtype == np.uint32


@pytest.mark.parametrize("spec", ["runes", "nowhere/tokenizer.json", "", "bytes:3"])
def test_no_such_tokenizer(spec: str) -> None:
    with pytest.raises(CorpusError, match=f"no tokenizer '{spec}': it is not bytes, .*; .*from 'tokenizers', 'tr"):
        open_tokenizer(spec)


def test_long_texts_are_tokenised_in_pieces_that_end_with_lines() -> None:
    line = "ends of lines are where nothing is lost\n"
    long = line * (5 * PIECE // (2 * len(line)))
    batches: list[list[str]] = []

    def encode(texts: list[str]) -> list[list[int]]:
        batches.append(texts)
        return [[len(text)] for text in texts]

    texts = ["", "short", long, "short", *["x" * 1000] * 2000, ""]
    found = ids_in_pieces(texts, encode, 1 << 32)

    assert [int(ids.sum()) for ids in found] == [len(text) for text in texts]
    assert len(found[2]) == 3
    assert "".join(piece for batch in batches for piece in batch) == "".join(texts)
    assert all(piece.endswith("\n") for batch in batches for piece in batch if len(piece) > 1000)
    assert all(sum(map(len, batch)) <= PIECE for batch in batches)
    assert ids_in_pieces([], encode, 10) == []


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("x" * PIECE * 2, "x", "x"),
        ("word " * PIECE, "d", " "),
        ("一二三\r\n" * PIECE, "\r\n", "一"),
        ("    indented\n" * (PIECE // 4), "d\n", "  "),
        ("def f():\n    return 1\n\nx = 1\ny = 1\n\n" * (PIECE // 4), "x = 1\n", "y"),
    ],
)
def test_a_text_is_cut_where_tokens_seldom_reach_over(text: str, before: str, after: str) -> None:
    pieces: list[str] = []

    def encode(texts: list[str]) -> list[list[int]]:
        pieces.extend(texts)
        return [[] for _ in texts]

    ids_in_pieces([text], encode, 10)

    assert "".join(pieces) == text
    assert all(PIECE // 2 <= len(piece) <= PIECE for piece in pieces[:-1])
    assert all(one.endswith(before) and two.startswith(after) for one, two in itertools.pairwise(pieces))


def test_no_such_embedder() -> None:
    with pytest.raises(CorpusError, match="no embedder 'feeling'; choose from 'fasttext', 'hashing', 'model2vec'"):
        open_embedder("feeling")


@pytest.mark.parametrize("dimensions", ["1", "0", "-5", "70000", "many", "2.5"])
def test_dimensions_of_the_hash_are_a_number(dimensions: str) -> None:
    with pytest.raises(CorpusError, match="dimensions are a number from 2 to 65,536"):
        open_embedder(f"hashing:{dimensions}")


def test_the_hash_is_that_of_the_definition() -> None:
    rows = HashingEmbedder(16)(["abcdabcd"])

    # abcd twice, bcda, cdab, dabc once: five strings, of which one counts √2.
    expected = np.zeros(16)
    for string, count in ((b"abcd", 2), (b"bcda", 1), (b"cdab", 1), (b"dabc", 1)):
        h = ((int.from_bytes(string, "big") + 1) * 0x9E3779B97F4A7C15) % 2**64
        h ^= h >> 29
        h = (h * 0xBF58476D1CE4E5B9) % 2**64
        h ^= h >> 32
        expected[h % 16] += (1 if h >> 63 else -1) * count**0.5
    assert rows[0] == pytest.approx(expected, abs=1e-6)


def test_the_hash_is_the_same_in_any_batch_and_any_process() -> None:
    embed = open_embedder("hashing:32")
    rows = embed(SAMPLE)

    assert rows.shape == (len(SAMPLE), 32)
    assert rows.dtype == np.float32
    assert all(np.array_equal(embed([text])[0], row) for text, row in zip(SAMPLE, rows, strict=True))
    made = "from bimix_tracking.entropy.corpora.hashing_embedder import HashingEmbedder"
    code = f"{made}; print(HashingEmbedder(32)({SAMPLE!r}).tobytes().hex())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert bytes.fromhex(printed) == rows.tobytes()


def test_case_doesnt_matter_and_nothing_is_known_of_short_texts() -> None:
    rows = HashingEmbedder()(SAMPLE)

    assert np.array_equal(rows[0], rows[1])
    assert not rows[4:].any()
    assert rows[:4].any(axis=1).all()


@given(st.text(st.characters(codec="utf-8"), max_size=6000))
def test_passages_are_the_whole_text_but_for_space(text: str) -> None:
    found = list(passages_of(text))

    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(0 < len(passage) <= 2000 for passage in found)
    # No more pieces than are needed if each is at least half full.
    assert len(found) <= len(text) // 1000 + 1


def test_a_fingerprint_is_of_names_and_content(tmp_path_factory: pytest.TempPathFactory) -> None:
    one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    for folder in (one, other):
        (folder / "a").write_text("x")
        (folder / "b").write_text("y")

    assert fingerprint([one / "a", one / "b"]) == fingerprint([other / "b", other / "a"])
    (other / "b").write_text("z")
    assert fingerprint([one / "a", one / "b"]) != fingerprint([other / "a", other / "b"])
    with pytest.raises(CorpusError, match="nothing cannot be read"):
        fingerprint([one / "nothing"])

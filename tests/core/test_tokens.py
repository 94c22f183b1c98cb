"""Tokenizers and embedders by name, and those that need no file."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimix_tracking.counting import passages_of
from bimix_tracking.embedding import open_embedder
from bimix_tracking.errors import CorpusError
from bimix_tracking.hashing import HashingEmbedder
from bimix_tracking.tokens import fingerprint, narrow, open_tokenizer

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
    with pytest.raises(
        CorpusError, match=f"no tokenizer '{spec}'; there are bytes, tokenizers, transformers, and paths"
    ):
        open_tokenizer(spec)


def test_no_such_embedder() -> None:
    with pytest.raises(CorpusError, match="no embedder 'feeling'; there are fasttext, hashing, model2vec"):
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
    code = (
        f"import sys; from bimix_tracking.hashing import HashingEmbedder as H; print(H(32)({SAMPLE!r}).tobytes().hex())"
    )
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

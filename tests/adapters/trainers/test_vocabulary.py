"""Bytes of tokens against the texts that they came from, for tokenizers trained here."""

from __future__ import annotations

import pytest
from bimix_integrations.trainers.vocabulary import token_bytes
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from bimix_tracking.errors import RecorderError

TEXTS = ["def f(x):\n    return x + 1\n", "In the beginning …", "日本語の文章です。", "naïve café 🙂"] * 5


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def sentencepiece() -> Tokenizer:
    pieces = [("<unk>", 0.0), *((f"<0x{byte:02X}>", -10.0) for byte in range(256)), ("▁the", -1.0), ("é", -2.0)]
    pieces += [(chr(letter), -4.0) for letter in range(ord("a"), ord("z") + 1)] + [("▁", -3.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="never")])
    return tokenizer


BYTE_LEVEL, SENTENCEPIECE = byte_level(), sentencepiece()


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])).filter(lambda text: "<|end|>" not in text))
def test_a_byte_level_tokenizer_s_tokens_add_up_to_the_text(text: str) -> None:
    lengths = token_bytes(BYTE_LEVEL)

    assert sum(lengths[id_] for id_ in BYTE_LEVEL.encode(text).ids) == len(text.encode())


@given(st.text(alphabet="the café 🙂日", max_size=40))
def test_a_sentencepiece_tokenizer_s_tokens_add_up_to_the_text(text: str) -> None:
    lengths = token_bytes(SENTENCEPIECE)

    assert sum(lengths[id_] for id_ in SENTENCEPIECE.encode(text).ids) == len(text.encode())


def test_a_tokenizer_of_transformers_will_do_and_special_tokens_are_no_text() -> None:
    wrapped = PreTrainedTokenizerFast(tokenizer_object=BYTE_LEVEL, eos_token="<|end|>")  # noqa: S106  # no password

    lengths = token_bytes(wrapped)

    assert len(lengths) == len(wrapped)
    ids = wrapped("In the beginning …<|end|>")["input_ids"]
    assert sum(lengths[id_] for id_ in ids) == len("In the beginning …".encode())


def test_words_without_their_spaces_are_refused() -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))  # noqa: S106  # no password
    words.pre_tokenizer = pre_tokenizers.Whitespace()

    with pytest.raises(RecorderError, match=r"\(Whitespace\) don't say how many bytes they are: give token_bytes"):
        token_bytes(words)

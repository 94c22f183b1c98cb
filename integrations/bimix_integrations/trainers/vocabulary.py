"""A vocabulary: its name, and the bytes of text behind each token, which turn nats per token into bits per byte."""

from __future__ import annotations

import json
import re
from typing import Any

from bimix_tracking.errors import RecorderError

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def name_of(tokenizer: Any) -> str | None:
    """Return what a tokenizer is called, with its size: two of a name may have been extended differently."""
    if tokenizer is None:
        return None
    return f"{getattr(tokenizer, 'name_or_path', '') or type(tokenizer).__name__} ({len(tokenizer)} tokens)"


def token_bytes(tokenizer: Any) -> list[int]:
    """Return how many bytes of UTF-8 text each token stands for, by id; special tokens stand for none.

    Bits per byte compare models with different tokenizers, nats per token don't.

    Args:
        tokenizer: A fast tokenizer of transformers, or a `tokenizers.Tokenizer`: byte-level (GPT-2, Llama 3, Qwen) or
            SentencePiece with byte fall-back (Llama 2, Gemma). The latter puts a space before a text, so each text
            counts one byte too many.

    Raises:
        RecorderError: Of another kind, whose tokens don't say how much text they were.
    """
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    content = json.loads(backend.to_str())
    kinds = {part["type"] for name in ("pre_tokenizer", "decoder") for part in _parts(content.get(name))}
    special = {token["id"] for token in content["added_tokens"] if token["special"]}
    lengths = [0] * backend.get_vocab_size(with_added_tokens=True)
    added = {token["id"] for token in content["added_tokens"]}
    for token, id_ in backend.get_vocab(with_added_tokens=True).items():
        if id_ in special:
            continue
        if id_ in added:
            lengths[id_] = len(token.encode())
        elif "ByteLevel" in kinds:
            lengths[id_] = len(token)  # each character is a byte in disguise
        elif "ByteFallback" in kinds or "Metaspace" in kinds:
            lengths[id_] = 1 if _BYTE.fullmatch(token) else len(token.replace("▁", " ").encode())
        else:
            raise RecorderError(
                f"the tokens of this tokenizer ({', '.join(sorted(kinds)) or 'no decoder'}) don't say how many bytes "
                "they are: give token_bytes yourself, one number for each id"
            )
    return lengths


def _parts(component: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the components of a sequence of them, or the one."""
    if component is None:
        return []
    inner = component.get("pretokenizers") or component.get("decoders")
    return [part for item in inner for part in _parts(item)] if inner else [component]

"""Sums by domain → the metrics of a row: the only divisions there are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from bimix_tracking import keys
from bimix_tracking.sums import DomainSums

_OF_AN_EVALUATION = (keys.STEP, keys.TOKENS, keys.EVAL_LOSS, keys.EVAL_TOKENS, keys.EVAL_BPB)


def losses(slugs: Sequence[str], quantity: str, sums: DomainSums) -> dict[str, float]:
    """Return Σ nll / Σ tokens of each domain that has tokens, and how many losses were no numbers.

    Args:
        slugs: As metrics spell the domains, in their order.
        quantity: `keys.TRAIN_LOSS` or `keys.EVAL_LOSS`.
        sums: What the rows are of.
    """
    row: dict[str, float] = {}
    columns = (slugs, sums.loss.tolist(), sums.tokens.tolist(), sums.nonfinite.tolist())
    for short, loss, tokens, nonfinite in zip(*columns, strict=True):
        if tokens:
            row[f"{quantity}/{short}"] = loss / tokens
        if nonfinite:
            row[f"{keys.NONFINITE}/{short}"] = float(nonfinite)
    return row


def evaluated(slugs: Sequence[str], sums: DomainSums) -> dict[str, float]:
    """Return what evaluation losses are means of, and bits per byte where bytes are known."""
    row: dict[str, float] = {}
    columns = (slugs, sums.loss.tolist(), sums.tokens.tolist(), sums.bytes.tolist())
    for short, loss, tokens, of_text in zip(*columns, strict=True):
        if tokens:
            row[f"{keys.EVAL_TOKENS}/{short}"] = float(tokens)
        if tokens and of_text:
            row[f"{keys.EVAL_BPB}/{short}"] = loss / math.log(2) / of_text
    return row


def shares(slugs: Sequence[str], tokens: npt.NDArray[Any]) -> dict[str, float]:
    """Return each domain's part of all tokens, shape (domains,); nothing where there are none."""
    total = float(tokens.sum())
    return {f"{keys.SHARE}/{short}": n / total for short, n in zip(slugs, tokens.tolist(), strict=True) if total}


def evaluation_of(rows: Iterable[Mapping[str, float]], step: int) -> dict[str, float]:
    """Return the evaluation among some rows that is of a step; nothing where none has a loss."""
    row: dict[str, float] = {}
    for found in (found for found in rows if found[keys.STEP] == step):
        row |= {n: v for n, v in found.items() if n.partition("/")[0] in _OF_AN_EVALUATION or n in _OF_AN_EVALUATION}
    return row if any(name.startswith(f"{keys.EVAL_LOSS}/") for name in row) else {}

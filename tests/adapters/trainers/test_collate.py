"""The collator against the collators people have: padded, packed, in one row; and against examples that are wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from bimix_integrations.trainers.collate import DomainCollator
from transformers import DataCollatorWithFlattening, default_data_collator

from bimix_tracking.errors import RecorderError

DOMAINS = ["code", "web", "c++"]
IGNORED = -100
Batch = dict[str, Any]


def collate(features: list[Any]) -> Batch:
    return dict(default_data_collator(features))


def collator(inner: Any = collate) -> DomainCollator:
    return DomainCollator(inner, DOMAINS)


def example(domain: Any, tokens: list[int] | None = None) -> Batch:
    given = [5, 6, 7] if tokens is None else tokens
    return {"input_ids": given, "labels": list(given), "domain": domain}


class Padding:
    """Pad to the longest example, on either side, with or without a mask."""

    def __init__(self, side: str, *, mask: bool, multiple: int = 1) -> None:
        self.side, self.mask, self.multiple = side, mask, multiple

    def __call__(self, features: list[Batch]) -> Batch:
        time = max(len(feature["input_ids"]) for feature in features)
        time = -(-time // self.multiple) * self.multiple
        names = {"input_ids": 0, "labels": IGNORED}
        batch = {name: torch.stack([self._one(f[name], time, fill) for f in features]) for name, fill in names.items()}
        if self.mask:
            of = [self._one([1] * len(f["input_ids"]), time, 0) for f in features]
            batch["attention_mask"] = torch.stack(of)
        return batch

    def _one(self, values: list[int], time: int, fill: int) -> torch.Tensor:
        rest = [fill] * (time - len(values))
        return torch.tensor(rest + values if self.side == "left" else values + rest)


@pytest.mark.parametrize("domain", ["c++", 2, np.int32(2), np.array(2), torch.tensor(2), np.str_("c++")])
def test_a_name_or_an_id_is_an_id(domain: Any) -> None:
    batch = collator()([example(domain), example("code")])

    assert batch["domain_ids"].tolist() == [2, 0]
    assert batch["domain_ids"].dtype == torch.int64
    assert set(batch) == {"input_ids", "labels", "domain_ids"}


@pytest.mark.parametrize(
    "domain",
    [[0, 0, 2], (0, 0, 2), np.array([0, 0, 2]), torch.tensor([0, 0, 2], dtype=torch.int16), ["code", "code", "c++"]],
)
def test_packed_examples_have_an_id_a_token(domain: Any) -> None:
    batch = collator()([example(domain), example(domain)])

    assert batch["domain_ids"].tolist() == [[0, 0, 2], [0, 0, 2]]
    assert batch["domain_ids"].dtype == torch.int64


def test_packed_and_whole_examples_go_together() -> None:
    batch = collator()([example([0, 1, 2]), example("web")])

    assert batch["domain_ids"].tolist() == [[0, 1, 2], [1, 1, 1]]


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_ids_of_tokens_go_where_the_tokens_went(side: str, mask: bool) -> None:
    features: list[Any] = [example([0, 1, 2, 1], [5, 6, 7, 8]), example([2, 1], [9, 9])]

    batch = collator(Padding(side, mask=mask, multiple=3))(features)

    for row, feature in enumerate(features):
        there = batch["labels"][row] != IGNORED
        assert batch["domain_ids"][row][there].tolist() == feature["domain"]
    assert batch["domain_ids"].shape == batch["labels"].shape == (2, 6)


@pytest.mark.parametrize("options", [{}, {"return_flash_attn_kwargs": True, "return_seq_idx": True}])
def test_all_examples_in_one_row_have_an_id_a_token(options: dict[str, bool]) -> None:
    flat = collator(DataCollatorWithFlattening(**options))

    batch = flat([example("web", [5, 6, 7]), example([0, 2], [8, 9]), example("c++", [4])])
    alone = flat([example("web", [5, 6, 7])])

    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 4]]
    assert batch["domain_ids"].tolist() == [[1, 1, 1, 0, 2, 2]]
    assert alone["domain_ids"].tolist() == [1]


def test_one_row_may_be_filled_up() -> None:
    def flat(features: list[Batch]) -> Batch:
        tokens = [token for feature in features for token in feature["input_ids"]]
        return {"input_ids": torch.tensor([tokens + [0] * 3]), "labels": torch.tensor([tokens + [IGNORED] * 3])}

    batch = collator(flat)([example("web"), example("c++", [8, 9])])

    assert batch["domain_ids"][0, :5].tolist() == [1, 1, 1, 2, 2]
    assert batch["domain_ids"].shape == (1, 8)


def test_examples_may_be_tensors_and_the_column_may_have_another_name() -> None:
    features = [{"input_ids": torch.tensor([1, 2]), "labels": torch.tensor([1, 2]), "source": name} for name in DOMAINS]

    batch = DomainCollator(collate, DOMAINS, column="source")(features)  # type: ignore[arg-type]

    assert batch["domain_ids"].tolist() == [0, 1, 2]
    assert "source" in features[0]  # the dataset's own examples stay as they were


@pytest.mark.parametrize(
    ("domain", "complaint"),
    [
        ("cobol", r"unknown domain 'cobol'; choose from 'code', 'web', 'c\+\+'"),
        (["web", "cobol", "web"], "unknown domain 'cobol'"),
        (1.0, "must be a name or an id, or a list of one a token, got 1.0"),
        (True, "must be a name or an id.*got True"),
        (None, "must be a name or an id.*got None"),
        ([0.0, 1.0, 1.0], "must be a name or an id"),
        ([[0, 1, 1]], "must be a name or an id"),
        ([0, 1, 1, 1], "4 domain ids and 3 tokens: give one id a token"),
        ([0, 1], "2 domain ids and 3 tokens: give one id a token"),
    ],
)
def test_a_domain_that_is_none_is_refused(domain: Any, complaint: str) -> None:
    with pytest.raises(RecorderError, match=complaint):
        collator()([example("web"), example(domain)])


def test_the_example_without_a_domain_is_shown() -> None:
    with pytest.raises(
        RecorderError, match=r"no 'domain'; it has \['input_ids', 'text'\].*remove_unused_columns=False"
    ):
        collator()([example("web"), {"input_ids": [1], "text": "a"}])


def test_rows_of_nobody_knows_whose_examples_are_refused() -> None:
    def repacked(features: list[Batch]) -> Batch:
        return {"input_ids": torch.zeros(2, 4), "labels": torch.zeros(len(features) - 1, 4)}

    with pytest.raises(RecorderError, match="made 2 rows of 3 examples"):
        collator(repacked)([example("web")] * 3)

"""What is written on the command line: values, or an error that names the option, the text and its form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import typer

from bimix_tracking.cli.entries import (
    bounds_by_domain,
    epochs_by_domain,
    one_of,
    tokens_by_domain,
    tokens_of,
    weights_by_target,
)


def test_entries_are_read_by_domain() -> None:
    assert tokens_by_domain(["code=5B", "a=b=1_000"]) == {"code": 5e9, "a=b": 1000.0}
    assert weights_by_target(["code=2", "web=0"]) == {"code": 2.0, "web": 0.0}
    assert bounds_by_domain(["code=5%:0.4", "web=30%"]) == {"code": (0.05, 0.4), "web": 0.3}
    assert tokens_by_domain(None) is weights_by_target([]) is bounds_by_domain(None) is None
    assert tokens_of("1.2T", "--tokens") == 1.2e12


def test_epochs_are_one_number_or_by_domain() -> None:
    available = ["code", "web"]
    assert epochs_by_domain(None, None, 4.0) == 4.0
    assert epochs_by_domain(["2"], available, 4.0) == 2.0
    assert epochs_by_domain(["code=8"], available, 4.0) == {"code": 8.0, "web": 4.0}
    assert epochs_by_domain(["code=8", "2"], available, 4.0) == {"code": 8.0, "web": 2.0}
    assert epochs_by_domain(["cod=8"], available, 4.0) == {"code": 4.0, "web": 4.0, "cod": 8.0}  # whose name is checked


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda: tokens_of("many", "--tokens"), "--tokens: 'many' is not a number of tokens, such as 100B"),
        (lambda: tokens_by_domain(["code"]), "--available: 'code' is not DOMAIN=TOKENS, such as code=5B"),
        (lambda: tokens_by_domain(["=5B"]), "--available: '=5B' is not DOMAIN=TOKENS"),
        (lambda: tokens_by_domain(["code="]), "--available: 'code=' is not DOMAIN=TOKENS"),
        (lambda: tokens_by_domain(["a=1", "a=2"]), "--available: domain 'a' is given twice: keep one"),
        (lambda: weights_by_target(["web=-1"]), "--weight: 'web=-1': '-1' is not a weight, 0 or more"),
        (lambda: weights_by_target(["web=inf"]), "--weight: 'web=inf': 'inf' is not a weight"),
        (lambda: bounds_by_domain(["web=0.1:30"]), "--bound: 'web=0.1:30': '30' is not a proportion from 0 to 1"),
        (lambda: bounds_by_domain(["web=40%:0.1"]), "--bound: 'web=40%:0.1': the least, 40%, is above the most, 0.1"),
        (lambda: epochs_by_domain(["0"], ["a"], 4.0), "--max-epochs: '0' is not a positive number of epochs"),
        (lambda: epochs_by_domain(["1", "2"], ["a"], 4.0), "--max-epochs: one number for all domains, got 1, 2"),
        (lambda: epochs_by_domain(["2"], None, 4.0), "--max-epochs: needs --available"),
        (
            lambda: one_of("grasberger", ["plug-in", "grassberger"], "--estimator", "estimator"),
            "--estimator: no estimator 'grasberger'; did you mean 'grassberger'? Choose from 'plug-in', 'grassberger'",
        ),
    ],
)
def test_a_malformed_entry_is_refused_with_its_option_and_its_form(read: Callable[[], Any], said: str) -> None:
    with pytest.raises(typer.BadParameter) as refused:
        read()

    assert f"{refused.value.param_hint}: {refused.value.message}".startswith(said)

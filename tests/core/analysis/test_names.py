"""Names in a question are checked as soon as the domains are known: by a source that has them, before it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bimix_tracking import Mixture, analyze, verify
from bimix_tracking.analysis.groups import analyze_groups
from bimix_tracking.analysis.watching import analysis_of
from bimix_tracking.errors import ConstraintError
from bimix_tracking.progress import Progress
from bimix_tracking.tracking.local import JsonlSource
from tests.core.proxies import train

_OTHER = Mixture({"code": 0.5, "wbe": 0.5})


class Unread(JsonlSource):
    """A source whose runs may be named, and not read."""

    def observations(self, progress: Progress | None = None) -> Any:
        raise AssertionError("it was read")


@pytest.mark.parametrize(
    "asked",
    [
        {"weights": {"wbe": 1.0}},
        {"bounds": {"wbe": 0.2}},
        {"available_tokens": {"wbe": 5e9}},
        {"max_epochs": {"wbe": 2.0}},
        {"prior": _OTHER, "prior_strength": 0.1},
        {"reference": _OTHER},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_a_wrong_name_is_found_before_the_runs_are_read(tmp_path: Path, asked: dict[str, Any]) -> None:
    train(f"jsonl:{tmp_path}")

    with pytest.raises(ConstraintError, match=r"of unknown (?:domain|target) 'wbe'; did you mean 'web'") as refused:
        analyze(Unread(f"jsonl:{tmp_path}"), 1e9, **asked)

    assert "Choose from 'code', 'web'" in str(refused.value)


def test_right_names_are_read(tmp_path: Path) -> None:
    train(f"jsonl:{tmp_path}")

    with pytest.raises(AssertionError, match="it was read"):
        analyze(Unread(f"jsonl:{tmp_path}"), 1e9, weights={"web": 2.0})


@pytest.mark.parametrize("law", ["transfr", "Bimix"])
def test_a_law_or_a_language_is_checked_before_anything_is_opened(law: str) -> None:
    with pytest.raises(ValueError, match=rf"no law '{law}'; did you mean '(transfer|bimix)'\?"):
        analyze("jsonl:nowhere", 1e9, law=law)
    with pytest.raises(ValueError, match="there is no report in 'JA'; did you mean 'ja'"):
        analyze("jsonl:nowhere", 1e9, lang="JA")


def test_an_option_that_analyze_lacks_is_named_before_anything_is_opened() -> None:
    for asked in (
        lambda: verify("jsonl:nowhere", ["run"], wieghts={}),
        lambda: analyze_groups("jsonl:nowhere", 1e9, by="sweep", wieghts={}),
        lambda: analysis_of(JsonlSource("jsonl:nowhere"), 1e9, wieghts={}),
    ):
        with pytest.raises(TypeError, match="no option 'wieghts'; did you mean 'weights'"):
            asked()

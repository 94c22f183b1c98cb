"""Keys: distinct names stay distinct, in spellings that every tracker takes."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bimix_tracking import keys
from bimix_tracking.errors import MixtureError

HOSTILE = ["c", "c++", "C", "C#", "c#", "web/en", "web_en", "<script>", "ä", "a", "日本語", "../..", "x" * 250]
names = st.text(min_size=1, max_size=60).filter(lambda s: s.isprintable() and s == s.strip())


@given(st.lists(st.one_of(names, st.sampled_from(HOSTILE)), min_size=1, max_size=8, unique=True))
@example(HOSTILE)
@example(["c++", keys.slug("c++")])
def test_keys_are_read_back_as_they_were_written(domains: list[str]) -> None:
    slugs = keys.slugs(domains)

    assert list(slugs.values()) == domains
    for domain in domains:
        for quantity in keys.QUANTITIES:
            assert keys.parse(keys.key(quantity, domain), slugs) == (quantity, domain)


@given(names)
def test_a_slug_is_a_plain_word(name: str) -> None:
    # W&B sorts and filters only by such; MLflow takes letters, digits and a few marks, up to 250 characters.
    assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", keys.slug(name))
    assert len(keys.slug(name)) <= 57


def test_a_plain_name_stays_as_it_is() -> None:
    assert keys.slug("common_crawl") == "common_crawl"


def test_a_slug_of_a_name_that_looks_like_a_slug_is_another() -> None:
    assert keys.slug(keys.slug("c++")) != keys.slug("c++")


def test_other_metrics_are_none_of_ours() -> None:
    slugs = keys.slugs(["web"])

    for metric in ("eval_loss", "bimix_eval_loss", "bimix_eval_loss/code", "other/web", keys.STEP, ""):
        assert keys.parse(metric, slugs) is None


def test_doubled_names_are_refused() -> None:
    with pytest.raises(MixtureError, match="twice: 'a'"):
        keys.slugs(["a", "a"])

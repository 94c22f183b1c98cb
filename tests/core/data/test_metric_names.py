"""Keys: distinct names stay distinct, in spellings that every tracker takes."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bimix_tracking.data import metric_names
from bimix_tracking.errors import MixtureError

HOSTILE = ["c", "c++", "C", "C#", "c#", "web/en", "web_en", "<script>", "ä", "a", "日本語", "../..", "x" * 250]
names = st.text(min_size=1, max_size=60).filter(lambda s: s.isprintable() and s == s.strip())


@given(st.lists(st.one_of(names, st.sampled_from(HOSTILE)), min_size=1, max_size=8, unique=True))
@example(HOSTILE)
@example(["c++", metric_names.slug("c++")])
def test_keys_are_read_back_as_they_were_written(domains: list[str]) -> None:
    slugs = metric_names.slugs(domains)

    assert list(slugs.values()) == domains
    for domain in domains:
        for quantity in (each.name for each in metric_names.QUANTITIES.values() if each.by_domain):
            assert metric_names.parse(metric_names.key(quantity, domain), slugs) == (quantity, domain)


@given(names)
def test_a_slug_is_a_plain_word(name: str) -> None:
    # W&B sorts and filters only by such; MLflow takes letters, digits and a few marks, up to 250 characters.
    assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", metric_names.slug(name))
    assert len(metric_names.slug(name)) <= 57


def test_a_plain_name_stays_as_it_is() -> None:
    assert metric_names.slug("common_crawl") == "common_crawl"


def test_a_slug_of_a_name_that_looks_like_a_slug_is_another() -> None:
    assert metric_names.slug(metric_names.slug("c++")) != metric_names.slug("c++")


def test_other_metrics_are_none_of_ours() -> None:
    slugs = metric_names.slugs(["web"])

    for metric in ("eval_loss", "bimix_eval_loss", "bimix_eval_loss/code", "other/web", metric_names.STEP, ""):
        assert metric_names.parse(metric, slugs) is None


def test_doubled_names_are_refused() -> None:
    with pytest.raises(MixtureError, match="twice: 'a'"):
        metric_names.slugs(["a", "a"])

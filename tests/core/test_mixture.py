"""Mixtures: points of the simplex, their arithmetic, and what is none."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimix_tracking import Mixture
from bimix_tracking.errors import MixtureError
from bimix_tracking.files.yaml_json import dump_yaml

NAMES = ("code", "c++", "web/en", "<script>", "ä")
names = st.text(min_size=1, max_size=30).filter(lambda s: s.isprintable() and s == s.strip())
parts = st.floats(1e-6, 1e6)
weights = st.fixed_dictionaries(dict.fromkeys(NAMES, parts))


@given(weights)
def test_normalized_weights_are_a_mixture_in_their_proportion(given_: dict[str, float]) -> None:
    mixture = Mixture.normalized(given_)

    assert math.fsum(mixture.values()) == pytest.approx(1, abs=1e-12)
    total = sum(given_.values())
    assert dict(mixture) == pytest.approx({name: value / total for name, value in given_.items()})


@given(weights, st.floats(1e-6, 1e6))
def test_the_unit_of_the_weights_is_no_information(given_: dict[str, float], unit: float) -> None:
    scaled = Mixture.normalized({name: weight * unit for name, weight in given_.items()})

    assert dict(scaled) == pytest.approx(dict(Mixture.normalized(given_)), rel=1e-12)


@given(weights)
def test_equal_parts_change_nothing(given_: dict[str, float]) -> None:
    mixture = Mixture.normalized(given_)

    assert dict(mixture * Mixture.uniform(NAMES)) == pytest.approx(dict(mixture), rel=1e-12)


@given(weights, weights)
def test_the_product_adds_logarithms(one: dict[str, float], other: dict[str, float]) -> None:
    product = Mixture.normalized(one) * Mixture.normalized(other)

    logs = np.array([math.log(one[n]) + math.log(other[n]) for n in NAMES])
    softmax = np.exp(logs - logs.max())
    assert product.array(NAMES) == pytest.approx(softmax / softmax.sum(), rel=1e-9)
    assert dict(product) == pytest.approx(dict(Mixture.normalized(other) * Mixture.normalized(one)))


@given(weights)
def test_a_power_is_a_repeated_product(given_: dict[str, float]) -> None:
    mixture = Mixture.normalized(given_)

    assert dict(mixture**2) == pytest.approx(dict(mixture * mixture), rel=1e-9)
    assert dict(mixture**0) == pytest.approx(dict(Mixture.uniform(NAMES)))
    assert dict((mixture**0.5) ** 2) == pytest.approx(dict(mixture), rel=1e-9)


@pytest.mark.parametrize("table", ["pile", "slimpajama"])
def test_the_paper_s_joint_entropy_mixture_is_the_product_of_the_others(table: str, reference_data: Path) -> None:
    # r = softmax(H) and H(X, X') = H(X) + H(X' | X), so je ∝ se · ce to the printed digits.
    printed = pd.read_csv(reference_data / f"paper_mixtures_{table}.csv").set_index("domain")
    se, ce, je = (Mixture.normalized(dict(zip(printed.index, printed[n], strict=True))) for n in ("se", "ce", "je"))

    assert (se * ce).array(se.domains) == pytest.approx(je.array(se.domains), abs=1e-4)


def test_yaml_round_trip(tmp_path: Path) -> None:
    mixture = Mixture.normalized(dict.fromkeys(NAMES, 1.0) | {"ä": 2.5})
    (tmp_path / "mixture.yaml").write_text(dump_yaml({"mixture": dict(mixture)}), "utf-8")

    assert Mixture.from_yaml(tmp_path / "mixture.yaml") == mixture


@given(st.dictionaries(names | st.sampled_from(["yes", "null", "1e3", "~", "- a", "a: b", "#"]), parts, min_size=1))
def test_any_name_and_any_share_survive_yaml(given_: dict[str, float]) -> None:
    mixture = Mixture.normalized(given_)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mixture.yaml")
        path.write_text(dump_yaml({"mixture": dict(mixture)}), encoding="utf-8")

        again = Mixture.from_yaml(path)

    assert set(again) == set(mixture)
    assert dict(again) == pytest.approx(dict(mixture), rel=1e-12)


def test_a_mixture_is_a_value() -> None:
    one, other = Mixture({"a": 0.25, "b": 0.75}), Mixture({"b": 0.75, "a": 0.25})

    assert one == other
    assert hash(one) == hash(other)
    assert len({one, other}) == 1
    with pytest.raises(TypeError):
        one["a"] = 0.5  # type: ignore[index]


@pytest.mark.parametrize(
    ("proportions", "complaint"),
    [
        ({"a": 0.5, "b": 0.4}, r"proportions sum to 0\.9, not 1.*normalized"),
        ({"a": 50, "b": 50}, r"proportions sum to 100, not 1"),
        ({"a": 1.5, "b": -0.5}, r"proportion of domain 'b' must be finite and not negative, got -0\.5"),
        ({"a": math.nan, "b": 1}, r"proportion of domain 'a' must be finite.*got nan"),
        ({"a": "much", "b": 1}, r"proportion of domain 'a' is not a number: 'much'"),
        ({}, "at least one domain"),
        ({" a": 1.0}, r"domain name ' a' is empty, padded"),
        ({"": 1.0}, r"domain name '' is empty"),
        ({"a\n": 1.0}, "padded with spaces, or not printable"),
        ({1: 1.0}, r"must be strings, got 1 \(int\)"),
        ({"x" * 251: 1.0}, "has 251 characters"),
    ],
)
def test_what_is_no_mixture_is_refused(proportions: dict[str, float], complaint: str) -> None:
    with pytest.raises(MixtureError, match=complaint):
        Mixture(proportions)


def test_another_order_is_mended_and_other_domains_are_named() -> None:
    mixture = Mixture({"a": 0.25, "b": 0.75})

    assert mixture.array(["b", "a"]).tolist() == [0.75, 0.25]
    with pytest.raises(MixtureError, match=r"lacks 'c' and has unknown 'b'; the domains are 'a', 'c'"):
        mixture.array(["a", "c"])
    with pytest.raises(MixtureError, match=r"got twice: 'a'"):
        Mixture.uniform(["a", "a"])
    with pytest.raises(MixtureError, match=r"the one string 'code'"):
        Mixture.uniform("code")
    with pytest.raises(MixtureError, match=r"all weights are 0"):
        Mixture.normalized({"a": 0})


@pytest.mark.parametrize(
    "text", ["code: 0.5\n", "", "mixture: [0.5, 0.5]\n", "mixture: {a: 0.5, b", "!!python/name:os.system"]
)
def test_a_file_that_holds_no_mixture_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")

    with pytest.raises(MixtureError, match=r"x\.yaml holds no mapping 'mixture"):
        Mixture.from_yaml(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"mixture: {a: 0.5, b: half}", "the proportion of domain 'b' is not a number: 'half'"),
        (b"mixture: {a: 0.5, b: 0.6}", "proportions sum to 1.1, not 1"),
        (b"mixture:\n  a: 0.5\n  b: 0.5\n  a: 0.5\n", "'a' appears twice, again in line 4"),
        (b"mixtur: {a: 0.5, b: 0.5}", "Is 'mixtur' meant to be 'mixture'?"),
        (b"mixture: {a: yes}", "the proportion of domain 'a' is not a number: yes in line 1"),
        (
            b"mixture: {a: 1" + 400 * b"0" + b"}",
            "the proportion of domain 'a' must be finite and not negative, got inf",
        ),
        (b"mixture: {a: 0.5, b: 0.5", "expected ',' or '}'"),
        (b"mixture: {[a]: 1.0}", "a name in line 1 is a list or a mapping; it must be text"),
        (b"mixture: {a: 1.0}\nother: {b: 2, b: 3}", "'b' appears twice, again in line 2"),
        (b"a: 1", "holds no mapping"),
        (b"mixture: {a: 1.0}\nmade: 2026-99-01", "month must be in 1..12"),
        (b"mixture: " + 3000 * b"[", "nested deeper than 50 in line 1"),
        (b"mixture: {1: 1.0}", "the name 1 in line 1"),
        (b"\xff\xfe\x00", "holds no mapping"),
    ],
)
def test_a_mixture_file_edited_by_hand_is_named_with_its_mistake(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "mixture.yaml"
    file.write_bytes(content)

    with pytest.raises(MixtureError) as told:
        Mixture.from_yaml(file)
    assert said in str(told.value)
    assert str(file) in str(told.value)
    assert "\n" not in str(told.value)


def test_a_mixture_file_may_use_yaml_s_anchors_and_merges(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("base: &b {a: 0.5, b: 0.5}\nmixture:\n  <<: *b\n  b: 0.5\n", encoding="utf-8")

    assert Mixture.from_yaml(tmp_path / "m.yaml") == Mixture({"a": 0.5, "b": 0.5})


def test_a_mixture_file_that_isnt_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MixtureError, match=r"nowhere.yaml cannot be read: No such file"):
        Mixture.from_yaml(tmp_path / "nowhere.yaml")

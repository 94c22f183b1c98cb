"""YAML, JSON and CSV that people give: names that YAML takes for something else, documents made to hurt, odd tables."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bimix_tracking import Mixture, export
from bimix_tracking.data.manifest import RunManifest, parse_row
from bimix_tracking.design.run_files import PlannedRuns
from bimix_tracking.errors import BimixError, listed, shown
from bimix_tracking.exports import FORMATS
from bimix_tracking.files.csv_table import read_table
from bimix_tracking.files.yaml_json import LARGEST, dump_yaml, load_yaml, read_text
from bimix_tracking.tracking.other_tools.runs import ForeignRuns

ODD = [
    *("no", "Yes", "ON", "off", "true", "False", "null", "~", "010", "0x1F", "0b11", "0o17", "1_000", "12:30"),
    *(
        "1:30.5",
        "1e3",
        "1E-3",
        "1.5",
        ".5",
        "+1",
        "-2",
        ".inf",
        ".NaN",
        "2024-01-01",
        "2001-12-14T21:59:43Z",
        "007",
        "=",
    ),
]
"""Names that some reader of YAML takes for something else than text."""


def _bomb(end: str) -> str:
    levels = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    return f"a: &a [x, x, x, x, x, x, x, x, x, x]\n{levels}{end}\n"


HOSTILE = {
    "a bomb for a proportion": _bomb("mixture: {code: *i, web: 0.5}"),
    "a bomb for the mixture": _bomb("mixture: *i"),
    "a bomb of merges": "a: &a {x: 1}\nb: &b {<<: [" + ", ".join(["*a"] * 999) + "]}\n"
    "c: &c {<<: [" + ", ".join(["*b"] * 999) + "]}\nmixture: *c\n",
    "a chain of aliases": "a: &a0 [x]\n" + "".join(f"b{i}: &a{i + 1} [*a{i}]\n" for i in range(3000)),
    "itself": "mixture: &m {code: *m, web: 1}\n",
    "deep": "[" * 100_000,
    "deep mappings": "{a: " * 100_000,
    "deep blocks": "- " * 100_000,
    "digits": f"mixture: {{a: {'9' * 5000}, b: 1}}\n",
    "hexadecimal digits": f"mixture: {{a: 0x{'f' * 5000}, b: 1}}\n",
    "a long alias": "mixture: {a: *" + "x" * 100_000 + "}\n",
    "a long tag": "mixture: !!" + "x" * 100_000 + " 1\n",
    "a long text": "mixture: {a: " + "x" * 100_000 + "}\n",
    "a long name": "mixture: {" + "x" * 100_000 + ": 1}\n",
    "a program": "mixture: !!python/object/apply:os.system ['touch PWNED']\n",
    "two documents": "mixture: {a: 1}\n---\nmixture: {b: 1}\n",
    "a control character": "\x00\x01",
    "a list for a name": "mixture: {? [a, b] : 1}\n",
    "large": "x" * (LARGEST + 1),
    "not a number": "mixture: {a: .nan, b: 1}\n",
    "infinite": "mixture: {a: .inf, b: 1}\n",
    "negative": "mixture: {a: -0.5, b: 1.5}\n",
    "percent": "mixture: {a: 30%, b: 70%}\n",
    "per hundred": "mixture: {a: 30, b: 70}\n",
    "minutes": "mixture: {a: 1:30, b: 0.7}\n",
    "octal": "mixture: {a: 01, b: 0}\n",
    "a date": "mixture: {a: 2020-01-01}\n",
    "yes": "mixture: {a: yes}\n",
    "nothing": "mixture: {a: , b: 1}\n",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("read", [Mixture.from_yaml, ForeignRuns.from_file])
def test_a_document_made_to_hurt_is_a_short_error(name: str, read: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(HOSTILE[name], encoding="utf-8")

    with pytest.raises(BimixError) as told:
        read(path)

    assert len(str(told.value)) < 500 + len(str(path))
    assert "\n" not in str(told.value)
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("name", ODD)
def test_a_name_that_yaml_takes_for_something_else_must_stand_in_quotes(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    plain = {
        "mixture": f"\nmixture: {{{name}: 0.3, en: 0.7}}\n",
        "a domain": f"\nmixtures:\n a: {{{name}: 0.3, en: 0.7}}\n",
        "a run": f"\nmixtures:\n\n {name}: {{a: 0.3, en: 0.7}}\n",
        "a name": f"\ndomains:\n gh: {name}\n",
        "a name's name": f"\ndomains:\n {name}: gh\n",
        "a param": f"\nmixture_from: {{code: {name}}}\n",
        "a mapping": f"\nmixture_from: {name}\n",
    }
    lines = {"mixture": 2, "a domain": 3, "a run": 4, "a name": 3, "a name's name": 3, "a param": 2, "a mapping": 2}
    for what, text in plain.items():
        if name == "=" and what in ("a name", "a param", "a mapping"):
            continue  # nothing else than text there
        if name in ("1e3", "1E-3", "0o17") and what in ("a name", "a param", "a mapping"):
            continue  # what is written is what is meant
        path.write_text(text, encoding="utf-8")
        with pytest.raises(BimixError) as told:
            (Mixture.from_yaml if what == "mixture" else ForeignRuns.from_file)(path)
        assert f"{name} in line {lines[what]}" in str(told.value), what
        assert "put it in quotes" in str(told.value), what

    path.write_text(f"mixture: {{'{name}': 0.25, en: 0.75}}\n", encoding="utf-8")
    assert Mixture.from_yaml(path) == Mixture({name: 0.25, "en": 0.75})
    path.write_text(f"mixtures: {{'{name}': {{'{name}': 1}}}}\ndomains: {{x: '{name}'}}\n", encoding="utf-8")
    assert ForeignRuns.from_file(path) == ForeignRuns({name: Mixture({name: 1.0})}, domains={"x": name})


@pytest.mark.parametrize("name", [*ODD, "y", "N", "None", "nan", "<<", "- a", "a: b", "#x", "1.2.3", "0x", "0E0"])
def test_what_we_write_reads_back_by_every_reader(name: str, tmp_path: Path) -> None:
    mixture = Mixture({name: 0.25, "web": 0.75})
    texts = [PlannedRuns(("pilot-01",), (mixture,), (0,)).to_yaml(0), export(mixture, "yaml")]

    for text in texts:
        (tmp_path / "m.yaml").write_text(text, encoding="utf-8")
        assert Mixture.from_yaml(tmp_path / "m.yaml") == mixture
        assert yaml.safe_load(text)["mixture"] == dict(mixture)
        assert re.search(rf"^ +'{re.escape(name)}': ", text, re.MULTILINE)  # no reader takes that for anything else


@pytest.mark.parametrize(
    "form",
    [form for form, known in FORMATS.items() if known.file.endswith((".yaml", ".yml")) and form != "llamafactory"],
)
def test_exports_quote_such_names(form: str) -> None:
    text = export(Mixture({"no": 0.25, "1e3": 0.25, "010": 0.5}), form)

    for name in ("no", "1e3", "010"):
        assert not re.search(rf"(^|[\s:]){name}(:|$)", text, re.MULTILINE), text
        assert f"'{name}'" in text


plain = st.none() | st.booleans() | st.text() | st.floats()


@settings(max_examples=50)
@given(st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_value_is_shown_shortly(value: object) -> None:
    assert len(shown(value)) <= 100


def test_a_value_is_shown_without_looking_at_all_of_it() -> None:
    bomb: object = "x"
    for _ in range(100):
        bomb = [bomb] * 10
    circle: list[object] = []
    circle.append(circle)

    assert shown(bomb) == "[[[...], [...], [...], ...], [[...], [...], [...], ...], [[...], [...], [...], ...], ...]"
    assert shown(circle) == "[[[...]]]"
    assert shown(10**5000) == "a int of too many digits"
    assert shown({i: i for i in range(9)}) == "{0: 0, 1: 1, 2: 2, ...}"
    assert shown({"a": {"b": {"c": 1}}}) == "{'a': {'b': {...}}}"
    assert listed(range(7)) == "0, 1, 2, 3, 4 and 2 more"


def test_thirty_thousand_names_are_a_mixture_or_a_short_error(tmp_path: Path) -> None:
    names = [f"d{i}" for i in range(30_000)]
    path = tmp_path / "m.yaml"
    path.write_text("mixture: {" + ", ".join(f"{name}: {1 / 30_000}" for name in names) + "}", encoding="utf-8")

    mixture = Mixture.from_yaml(path)

    assert mixture.domains == tuple(names)
    assert mixture.array(names[::-1]).shape == (30_000,)
    for refuse in (
        lambda: mixture.array(["x"]),
        lambda: RunManifest(("x",), mixture),
        lambda: Mixture.uniform(names * 2),
        lambda: export(mixture, "yaml", paths={"x": "y"}),
    ):
        with pytest.raises(BimixError) as told:
            refuse()
        assert len(str(told.value)) < 500


def test_entries_are_counted_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(load_yaml("[" + "a, " * 1000 + "]")) == 1000
    monkeypatch.setattr("bimix_tracking.files.yaml_json._ENTRIES", 1000)

    with pytest.raises(ValueError, match="it has more than 1,000 entries"):
        load_yaml("[" + "a, " * 1001 + "[")  # what comes after isn't looked at


READ = """
import json, sys, yaml
yaml.__with_libyaml__ = sys.argv[1] == "True"
from bimix_tracking.files.yaml_json import _Loader, load_yaml
from yaml.scanner import Scanner

def told(text):
    try:
        return str(load_yaml(text))
    except ValueError as error:
        return str(error)

print(json.dumps([issubclass(_Loader, Scanner), *map(told, json.loads(sys.argv[2]))]))
"""


def test_without_libyaml_documents_are_read_alike() -> None:
    documents = [
        "{a: 0.5, b: [1, ~, x]}",
        "{no: 1}",
        "[" * 9999,
        _bomb("x: *i"),
        "m: &m {a: *m}",
        "{1e3: 2}",
        "a: 1\nb: ]",
    ]

    def read(libyaml: str) -> list[str | bool]:
        command = [sys.executable, "-c", READ, libyaml, json.dumps(documents)]
        found: list[str | bool] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        return found

    by_python, by_libyaml = read("False"), read("True")

    assert yaml.__with_libyaml__
    assert (by_python[0], by_libyaml[0]) == (True, False)
    assert by_python[1:-1] == by_libyaml[1:-1]
    assert "in line 2" in f"{by_python[-1]}"  # how each parser says it is its own


def test_json_is_read_as_json() -> None:
    content = {'é/😀"\\': [1, 0.5, None, True, "no"], "b": {"c": -1e-300}}

    for text in (json.dumps(content), json.dumps(content, indent="\t"), json.dumps(content, ensure_ascii=False)):
        assert load_yaml(text) == content
    assert load_yaml('{"a\\/b": 1}') == {"a/b": 1}
    for text, said in (
        ('{"b": {"a": 1, "a": 2}}', "'a' appears twice"),
        ('{"a": ' * 9999, "nested"),
        ('{"a": ' * 9999 + "1" + "}" * 9999, "nested"),
        (f'{{"a": {"9" * 5000}}}', "digits"),
    ):
        with pytest.raises(ValueError, match=said):
            load_yaml(text)


def test_what_is_kept_of_how_values_were_written() -> None:
    found = load_yaml("a: 1_000\nb: {c: no, d: 'no'}\ne: [x, 0.5, ~]\n")

    assert found == {"a": 1000, "b": {"c": False, "d": "no"}, "e": ["x", 0.5, None]}
    assert str(found["b"].written) == "{'c': no in line 2}"
    assert str(found["e"].written) == "{1: 0.5 in line 3, 2: ~ in line 3}"
    assert str(found.numbers()["a"]) == "1000"
    assert load_yaml("{0: a, no: b}", names_as_written=True) == {"0": "a", "no": "b"}
    assert load_yaml("base: &b {x: 010}\nin: {<<: *b, x: 'y'}")["in"].written == {}
    assert load_yaml(json.dumps({"1": [1, 1.5e300, None, True, "no"]})) == {"1": [1, 1.5e300, None, True, "no"]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_mark_at_the_beginning_of_a_file_is_no_part_of_it(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("mixture: {ä: 1.0}", encoding=encoding)

    assert Mixture.from_yaml(tmp_path / "m.yaml").domains == ("ä",)


def test_a_file_of_another_encoding_is_told(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("ä", encoding="utf-16")

    with pytest.raises(ValueError, match="not UTF-8 text: invalid start byte at byte 0"):
        read_text(tmp_path / "m")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b,a\n1,2,3\n", "line 1: the column 'a' appears twice"),
        ("\n\na,b,a\n", "line 3: the column 'a' appears twice"),
        ("a,b\n1,2\n1,2,3\n", "line 3: 3 cells, but the header has 2"),
        ("a,b\n1\n", "line 2: 1 cells, but the header has 2"),
        ('a,b\n"x\ny",2\n1,2,3\n', "line 4: 3 cells"),
        ("a,b\n1,000,2\n", "line 2: 3 cells.*Quote"),
        ("a;b\n1;2\n", "line 1: its cells are separated by ';'"),
        ("a\tb\n1\t2\n", r"line 1: its cells are separated by '\\t'"),
        ('a,b\n1,2\n"x,2\n', "line 3: unexpected end of data"),
        ("a,b\n" + "x" * 200_000 + ",1\n", "line 2: field larger than field limit"),
    ],
)
def test_a_table_that_is_none_names_the_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as told:
        list(read_table(text).rows)
    assert len(str(told.value)) < 400


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_table_of_any_system_is_read(end: str) -> None:
    table = read_table(end.join(["a,b", '"x, ""y""",2', "", ",", '"p\nq",3']))

    assert table.header == ["a", "b"]
    assert list(table.rows) == [(2, ['x, "y"', "2"]), (5, ["p\nq", "3"])]


def test_a_value_in_an_error_of_a_run_is_bounded() -> None:
    with pytest.raises(ValueError, match="a row must be a mapping") as told:
        parse_row(["x" * 10_000] * 1000)
    assert len(str(told.value)) < 200


def test_yaml_is_written_as_before_where_nothing_is_unclear() -> None:
    content = {"mixture": {"code": 0.5, "ä": 0.5}, "notes": ["a: b", None, True, 3]}

    assert dump_yaml(content) == yaml.safe_dump(content, sort_keys=False, allow_unicode=True)

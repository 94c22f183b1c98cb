"""What an error advises works: the command installs what an extra declares, and a wrong name has its neighbours."""

from __future__ import annotations

import ast
import importlib.metadata
import shlex
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import bimix_tracking
from bimix_tracking.errors import MissingDependencyError, did_you_mean, install_command, requirements

ROOT = Path(bimix_tracking.__file__).parents[1]
EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "optional-dependencies"
]


def declared(extra: str) -> set[str]:
    """Return what pyproject.toml asks for in an extra, each in the form in which requirements compare."""
    found = set()
    for each in map(Requirement, EXTRAS[extra]):
        if each.name == "bimix-tracking":
            found |= {one for inner in each.extras for one in declared(inner)}
        else:
            found.add(str(each).lower())
    return found


def lines() -> list[str]:
    """Return the requirements as a build writes them, extras within extras unresolved."""
    return [
        f"{one} and extra == '{extra}'" if ";" in one else f"{one}; extra == '{extra}'"
        for extra, of_one in EXTRAS.items()
        for one in of_one
    ]


def check(extra: str) -> None:
    command, verb, *asked = shlex.split(install_command(extra))

    assert (command, verb) == ("pip", "install")
    assert {str(Requirement(each)).lower() for each in asked} == declared(extra)
    assert len(asked) == len(declared(extra))


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_shell_gives_pip_what_the_extra_declares(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: lines())
    check(extra)


@pytest.mark.parametrize("extra", sorted(set(EXTRAS) - {"dev", "docs", "bench"}))
def test_so_does_the_package_as_it_is_installed(extra: str) -> None:
    check(extra)  # those of a developer may be newer than the installation


def test_extras_within_extras_are_resolved_where_a_build_left_them(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "numpy>=2.0",
        'a<4,>=3.10; extra == "one"',
        "bimix-tracking[one,three]; extra == 'two'",
        "b[x,y]>=1; python_version < '3.12' and extra == 'two'",
        "bimix-tracking[two]; extra == 'three'",
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: lines)

    assert requirements("two") == ["a>=3.10,<4", 'b[x,y]>=1; python_version < "3.12"']
    assert requirements("none") == []


def test_where_nothing_is_installed_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)

    assert str(MissingDependencyError("mlflow", extra="mlflow")) == "mlflow is not installed. Run: pip install mlflow"


def test_every_extra_that_an_error_names_is_declared() -> None:
    named = {
        keyword.value.value
        for file in [*(ROOT / "bimix_tracking").rglob("*.py"), *(ROOT / "integrations").rglob("*.py")]
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "MissingDependencyError"
        for keyword in node.keywords
        if keyword.arg == "extra" and isinstance(keyword.value, ast.Constant)
    }

    assert "mlflow" in named
    assert named <= set(EXTRAS)


def test_an_unknown_name_has_the_nearest_and_the_valid_ones() -> None:
    assert did_you_mean("Wbe", ["code", "web"]) == "did you mean 'web'? Choose from 'code', 'web'"
    assert did_you_mean("cod", ["code", "codes", "web"]).startswith("did you mean 'code' or 'codes'?")
    assert did_you_mean("x" * 10**6, ["code"]) == "choose from 'code'"
    assert did_you_mean(None, []) == "there is none to choose from"
    assert did_you_mean("q", map(str, range(30))).endswith("'19' and 10 more")

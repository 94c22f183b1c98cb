"""The core stays light: what an import pulls in, seen in a fresh interpreter. What imports what: `lint-imports`."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import bimix_tracking
from bimix_tracking.errors import install_command

_FRAMEWORKS = {"torch", "transformers", "mlflow", "wandb", "lightning", "ray", "plotly", "matplotlib", "jinja2"}


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


_EACH_NAME = """
import json, os, sys
import numpy, pandas, scipy.optimize, scipy.stats, yaml  # once: they take most of the time
assert not any(module.startswith("bimix") for module in sys.modules)
for name in sys.argv[1:]:
    sys.stdout.flush()
    if os.fork() == 0:
        exec(f"from bimix_tracking import {name}")
        print(json.dumps([name, sorted(sys.modules)]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def loaded_by_name() -> dict[str, set[str]]:
    """Return what is loaded once a public name is, of a process each in which nothing of ours was before."""
    command = [sys.executable, "-c", _EACH_NAME, *bimix_tracking.__all__]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {name: set(loaded) for name, loaded in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", bimix_tracking.__all__)
def test_no_public_name_pulls_in_a_framework(name: str, loaded_by_name: dict[str, set[str]]) -> None:
    assert not (_FRAMEWORKS | {"bimix_integrations"}) & loaded_by_name[name]


def test_a_training_process_pays_for_no_science() -> None:
    loaded = loaded_by("from bimix_tracking import DomainLossRecorder, Mixture, open_tracker")

    assert not {"scipy", "pandas", "typer", "rich"} & loaded


@pytest.mark.parametrize("arguments", [["--help"], ["analyze", "--help"], ["entropy", "--help"], ["--version"]])
def test_help_waits_for_no_science(arguments: list[str]) -> None:
    run = f"import sys; sys.argv[1:] = {arguments}\nfrom bimix_tracking.cli import main\n"
    loaded = loaded_by(
        run + "import contextlib\nwith contextlib.redirect_stdout(None), contextlib.suppress(SystemExit): main()"
    )

    assert "typer" in loaded
    assert not ({"numpy", "scipy", "pandas", "yaml", "rich"} | _FRAMEWORKS) & loaded


WINGS = [
    "bimix_tracking",
    *(m.name for m in pkgutil.walk_packages(bimix_tracking.__path__, "bimix_tracking.") if m.ispkg),
]


@pytest.mark.parametrize("wing", sorted(set(WINGS) - {"bimix_tracking.cli"}))
def test_the_two_lists_of_public_names_agree(wing: str) -> None:
    package = importlib.import_module(wing)
    tree = ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))
    checked = {
        alias.asname: str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname is not None
    }
    assert set(checked) == set(package.__all__)
    for name, module in checked.items():
        assert getattr(package, name) is getattr(importlib.import_module(module), name)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'regmix'"):
        bimix_tracking.regmix  # noqa: B018


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("bimix_integrations.trackers.mlflow", "mlflow", "mlflow"),
        ("bimix_integrations.trainers.torch", "torch", "torch"),
        ("bimix_integrations.trainers.transformers", "transformers", "transformers"),
    ],
)
def test_a_missing_framework_names_the_line_that_installs_it(module: str, package: str, extra: str) -> None:
    code = f"import sys; sys.modules['{package}'] = None\nimport {module}"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.endswith(f"{package} is not installed. Run: {install_command(extra)}")

"""The example notebook: kept without outputs, and executed as a notebook, by a kernel."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.warm import program

_ROOT = Path(__file__).parents[3]
_NOTEBOOK = _ROOT / "examples" / "notebook" / "analyze.ipynb"
_EXECUTE = "from nbclient.cli import main; main()"


def cells(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(text)["cells"]
    return [cell for cell in found if cell["cell_type"] == "code"]


def test_it_is_kept_without_outputs() -> None:
    for cell in cells(_NOTEBOOK.read_text(encoding="utf-8")):
        assert (cell["outputs"], cell["execution_count"]) == ([], None)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """Return what each of its cells of code put out."""
    if not all(map(importlib.util.find_spec, ("nbclient", "ipykernel"))):
        missing = "no nbclient or ipykernel here: the notebook was not executed"
        if os.environ.get("BIMIX_REQUIRE_ALL"):
            pytest.fail(missing)
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "data").symlink_to(_ROOT / "examples" / "data")
    notebook = folder / _NOTEBOOK.name
    notebook.write_text(_NOTEBOOK.read_text(encoding="utf-8"), encoding="utf-8")
    paths = os.pathsep.join(filter(None, [str(_ROOT), str(_ROOT / "integrations"), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [program("python"), "-c", _EXECUTE, str(notebook), "--inplace"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths, "IPYTHONDIR": str(folder / "ipython"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [cell["outputs"] for cell in cells(notebook.read_text(encoding="utf-8"))]


def shown(outputs: list[dict[str, Any]]) -> str:
    return "".join("".join(output.get("data", {}).get("text/html", "")) for output in outputs)


def test_the_analysis_is_a_card_and_its_progress_went_by(outputs: list[list[dict[str, Any]]]) -> None:
    assert "bx-card" in shown(outputs[1])
    assert "bx-mix" in shown(outputs[1])
    said = "".join("".join(output["text"]) for output in outputs[1] if output["output_type"] == "stream")
    assert "fitting █" in said
    screen = ""
    for part in said.split("\r"):
        screen = part + screen[len(part) :]
    assert not screen.strip()  # a stage's line is taken away when the stage is done


def test_tables_law_and_report_are_shown(outputs: list[list[dict[str, Any]]]) -> None:
    assert "<table" in shown(outputs[2])
    assert "held-out error" in shown(outputs[3])
    assert "<iframe" in shown(outputs[4])
    assert "mixture:" in "".join(outputs[5][0]["text"])
    for each in outputs:
        assert all(output.get("name") != "stderr" for output in each)

"""The built wheel, with the source out of sight: what users install is what is tested."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, install it into a folder of its own, and return that."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(_ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = folder.glob("bimix_tracking-*.whl")
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(folder / "site"),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True, timeout=300)
    return folder / "site"


def test_the_wheel_holds_both_packages_their_types_and_the_template(site: Path) -> None:
    (wheel,) = site.parent.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())

    assert {
        "bimix_tracking/py.typed",
        "bimix_integrations/py.typed",
        "bimix_tracking/report/report.html.j2",
        "bimix_integrations/trackers/mlflow/__init__.py",
    } <= names
    assert not [name for name in names if name.startswith(("tests/", "examples/", "integrations/"))]


def test_the_core_tests_pass_against_the_wheel(site: Path, tmp_path: Path) -> None:
    config = tmp_path / "pytest.ini"
    config.write_text("[pytest]\naddopts = --import-mode=importlib --strict-markers\n", encoding="utf-8")
    # -S would hide the dependencies too; a path of ours goes before the editable install's.
    environment = os.environ | {"PYTHONPATH": str(site), "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path / "hypothesis")}
    where = "import bimix_tracking, bimix_integrations; print(bimix_tracking.__file__, bimix_integrations.__file__)"
    # Where Python starts is on its path too: outside the checkout, then.
    seen = subprocess.check_output([sys.executable, "-c", where], env=environment, cwd=tmp_path, text=True)
    assert seen.split() == [
        str(site / "bimix_tracking" / "__init__.py"),
        str(site / "bimix_integrations" / "__init__.py"),
    ]
    names = ("test_mixture", "fitting/test_fit", "tracking/test_ports", "report/test_report")
    tests = [str(_ROOT / "tests" / "core" / f"{name}.py") for name in names]

    command = [sys.executable, "-m", "pytest", "-q", "-c", str(config), "--rootdir", str(tmp_path), *tests]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )

    assert done.returncode == 0, done.stdout[-4000:]

"""A wrong name in a long sweep costs a second: the tracker tells the domains before any run is read."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bimix_tracking import open_source
from tests.core.proxies import train
from tests.warm import program


@pytest.mark.parametrize("place", ["jsonl:{folder}/runs", "mlflow+sqlite:///{folder}/mlflow.db#sweep"])
def test_a_wrong_name_is_found_before_the_runs_are_read(tmp_path: Path, place: str) -> None:
    uri = place.format(folder=tmp_path)
    train(uri)
    assert {state.names for state in open_source(uri).states()} == {("code", "web")}

    command = [program("bimix"), "analyze", uri, "--tokens", "1B", "--bound", "wbe=20%"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 5
    assert "bounds of unknown domain 'wbe'; did you mean 'web'? Choose from 'code', 'web'" in done.stderr
    assert "reading" not in done.stderr

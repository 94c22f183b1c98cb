"""Ctrl-C in a real `bimix analyze`: one line, exit code 130, and a folder that is as before or whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import pytest
import typer

from bimix_tracking import Observations, analyze
from bimix_tracking.cli.ending import run_app

_BIMIX = Path(sys.executable).with_name("bimix")
HEEDING = "import os, signal, sys; signal.signal(2, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
"""Where the tests run in the background, SIGINT is ignored, and whoever they start would ignore it too."""
NAMES = [f"d{i}" for i in range(6)]


def table(runs: int, volumes: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(len(NAMES), 3.0), runs)
    rows = []
    for i, mixture in enumerate(shares):
        luck = np.exp(0.005 * rng.standard_normal(len(NAMES)))
        for s in np.geomspace(1e8, 1e10, volumes):
            row: dict[str, object] = {"run": f"run-{i}", "step": s / 1e6, "tokens": s}
            row |= {f"proportion/{name}": r for name, r in zip(NAMES, mixture, strict=True)}
            losses = luck * np.maximum(mixture, 1e-3) ** -0.1 * (2e3 / s**0.5 + 2)
            row |= {f"loss/{name}": loss for name, loss in zip(NAMES, losses, strict=True)}
            rows.append(row)
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("interrupts") / "sweep.csv"
    table(24, 6).to_csv(path, index=False)
    return path


def files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def interrupted_at(moment: str, command: list[str]) -> tuple[int, list[str]]:
    """Run a command, send it SIGINT when it has said the moment, and return its exit code and what it said."""
    heard: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", HEEDING, *command],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "2"},  # as many threads as there are: none may hang
    ) as running:
        watch = threading.Timer(120, running.kill)
        watch.start()
        assert running.stderr is not None
        for line in running.stderr:
            heard.append(line)
            if line.startswith(moment) and running.poll() is None:
                running.send_signal(signal.SIGINT)
                moment = "\0"  # once
        running.wait(timeout=60)
        watch.cancel()
    return running.returncode, heard


@pytest.mark.parametrize(
    "moment",
    ["fitting", "bootstrap", "predicting later losses", "near-optimal range", "writing"],
)
def test_the_folder_is_as_before_or_whole(moment: str, sweep: Path, tmp_path: Path) -> None:
    out = tmp_path / "analysis"
    small = table(4, 4)
    shares, losses = ({name: f"{kind}/{name}" for name in NAMES} for kind in ("proportion", "loss"))
    earlier = Observations.from_wide(small, proportions=shares, losses=losses, run="run", tokens="tokens")
    analyze(earlier, tokens=1e11, law="bimix", out=out)
    before = files(out)

    code, heard = interrupted_at(
        moment,
        [str(_BIMIX), "analyze", f"csv:{sweep}", "--tokens", "1e11", "--out", str(out), "--replicates", "400"],
    )

    assert any(line.startswith(moment) for line in heard), heard
    assert not any("Traceback" in line for line in heard), heard
    if code == 0:  # the signal came when all was done
        assert moment == "writing"
    else:
        assert code == 130
        assert heard[-1] == "interrupted\n"
        assert heard.count("interrupted\n") == 1
    after = files(out)
    whole = '"law": "ensemble"' in after["fit.json"] or "run-23" in after["lineage.json"]
    assert after == before or (whole and set(after) >= set(before) - {"validation.json"})
    assert moment == "writing" or after == before
    assert [path.name for path in tmp_path.iterdir()] == ["analysis"]  # nothing beside it


@pytest.mark.parametrize("error", [KeyboardInterrupt, typer.Abort])
def test_an_interrupt_before_the_command_is_one_line_too(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def reads_options(*, standalone_mode: bool) -> None:
        assert not standalone_mode
        raise error

    monkeypatch.setattr(sys, "argv", ["bimix", "analyze"])
    with pytest.raises(SystemExit) as ended:
        run_app(cast(typer.Typer, reads_options))

    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"

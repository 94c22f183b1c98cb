"""A real MLflow 2.13, in a Python of its own: `make .venv/installed-mlflow-2.13` installs it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
_SCRIPT = Path(__file__).with_name("old_mlflow_store.py")


def python() -> Path:
    """Return the Python that it is installed in; where it isn't, no such file is there."""
    return Path(os.environ.get("BIMIX_OLD_MLFLOW") or ROOT / ".venv" / "mlflow-2.13" / "bin" / "python")


class OldMlflow:
    """MLflow 2.13, started once and asked many times."""

    def __init__(self, folder: Path) -> None:
        self._log = (folder / "old-mlflow.log").open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            [str(python()), "-I", str(_SCRIPT)],  # isolated: today's MLflow isn't on its path
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=folder,
        )
        self.version = json.loads(self._line())

    def make(self, uri: str, artifacts: str | None, runs: list[dict[str, Any]], tags: dict[str, str]) -> dict[str, str]:
        """Make an experiment `s` in a store, and return the ids of its runs by name."""
        made: dict[str, str] = self._ask("make", uri=uri, artifacts=artifacts, runs=runs, tags=tags)
        return made

    def opens(self, uri: str, artifacts: str) -> list[str]:
        """Open a database as that MLflow does when it starts, and return the names of its experiments."""
        names: list[str] = self._ask("opens", uri=uri, artifacts=artifacts)
        return names

    def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
        self._log.close()

    def _ask(self, what: str, **asked: Any) -> Any:
        assert self._process.stdin is not None
        print(json.dumps({"what": what, **asked}), file=self._process.stdin, flush=True)
        answer = json.loads(self._line())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["answer"]

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

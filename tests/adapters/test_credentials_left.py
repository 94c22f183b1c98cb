"""Hostile passwords in a real database's URI: training, a dead tracker, analysis and write-back leave none anywhere."""

from __future__ import annotations

import html
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

import psycopg
import pytest

from bimix_tracking import DomainLossRecorder, Mixture, analyze, open_source, open_tracker
from bimix_tracking.credentials import forget
from bimix_tracking.errors import SourceError
from tests.warm import program

RAW = ("Qx/s3cret", "100%25xyz9", "&token=tok3n", "pä sswörd", "<q>u'o\"te\\d1")
ENCODED = ("p@ss w0rd", "s3cr#t%ly")
"""SQLAlchemy ends a password at the first `@`."""
_LOST = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
os.environ |= {{"BIMIX_FLUSH_SECONDS": "0.2"}}
from bimix_tracking.recording import delivery
delivery.OPEN_SECONDS = 0.2
from tests.adapters.test_credentials_left import MIXTURES, train
train(sys.argv[1], "lost", MIXTURES[0], 0)
sys.stderr.flush()
os._exit(0)
"""
MIXTURES = ((0.2, 0.8), (0.5, 0.5), (0.7, 0.3))


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    forget()
    yield
    forget()


def train(uri: str, name: str, shares: tuple[float, ...], seed: int) -> None:
    domains = ("code", "web")
    recorder = DomainLossRecorder(domains, dict(zip(domains, shares, strict=True)), open_tracker(uri, run_name=name))
    for step in (1, 2, 4, 8):
        counts = [int(1e6 * step * share) for share in shares]
        recorder.add([0, 1], [3.0 * count for count in counts], counts)
        losses = [r**-0.1 * ((90 + seed) / (1e6 * step) ** 0.3 + 2) for r in shares]
        recorder.add([0, 1], [loss * 1000 for loss in losses], [1000, 1000], split="eval")
        recorder.log_train(step)
        recorder.log_eval(step)
    recorder.finish()


def forms(password: str) -> set[str]:
    """Return what of a password must not be found, as text files and databases would hold it."""
    plain = {password, unquote(password)}
    return {form for one in plain for form in (one, quote(one, safe=""), html.escape(one), repr(one)[1:-1])}


def left(folder: Path) -> Iterator[tuple[str, str]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes().decode("utf-8", "replace")


def stored(uri: str) -> Iterator[tuple[str, str]]:
    with psycopg.connect(uri) as database:
        tables = database.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        for (table,) in tables.fetchall():
            rows = database.execute(f'SELECT t::text FROM "{table}" t')  # noqa: S608  # its own names  # type: ignore[arg-type]
            yield table, "\n".join(row[0] for row in rows.fetchall())


def test_no_hostile_password_is_left_anywhere(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(tmp_path)  # where MLflow puts artifacts
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    user, _, place = postgres.removeprefix("postgresql://").partition("@")
    said: list[str] = []
    passwords = (*RAW, *ENCODED)
    for number, password in enumerate(passwords):
        told = password if password in RAW else quote(password, safe="")
        uri = f"mlflow+postgresql://{user}:{told}@{place}#left {number}"
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train(uri, "r0", MIXTURES[0], 0)
            for run, shares in enumerate(MIXTURES[1:], 1):  # MLflow keeps the engine of a URI: these are quick
                train(f"mlflow+{postgres}#left {number}", f"r{run}", shares, run)
            with pytest.raises(SourceError) as refused:
                open_source(uri + "-none").observations()
        out = tmp_path / f"out-{number}"
        found = analyze(uri, tokens=1e9, law="bimix", replicates=0, out=out, write_back=True)
        said += [*(str(warning.message) for warning in caught), str(refused.value), str(found.location)]
        assert found.observations.source == f"mlflow+postgresql://{place}#left {number}"
        assert isinstance(open_source(uri).find_analysis(), str)
        assert Mixture.from_yaml(out / "mixture.yaml") == found.recommendation.mixture
    nowhere = f"mlflow+postgresql://{user}:{quote(RAW[0])}@127.0.0.1:1/postgres#x"
    # In a process of its own: MLflow goes on trying for minutes, and lets nobody else open a database meanwhile.
    lost = subprocess.run([program("python"), "-c", _LOST, nowhere], capture_output=True, text=True, check=True)
    command = [
        program("python"),
        "-c",
        "from bimix_tracking.cli import main; main()",
        "--debug",
        "analyze",
        f"{uri}-none",
    ]
    done = subprocess.run([*command, "--tokens", "1e9"], capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "Traceback" in done.stderr

    places = [("printed", "\n".join((*said, *capfd.readouterr(), done.stdout, done.stderr, lost.stdout, lost.stderr)))]
    places += [*left(tmp_path), *stored(postgres)]

    assert sum("mixture.yaml" in name for name, _ in places) >= 2 * len(passwords)
    assert sum("bimix-spool" in name for name, _ in places) >= 2
    for password in passwords:
        for form in forms(password):
            assert not [name for name, text in places if form in text], form

"""Progress in a log file: a line as a stage begins, and from time to time how long it will still take."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from bimix_tracking.cli import console


def test_a_long_stage_says_how_long_it_will_still_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: now[0]))

    with console.progress_shown() as progress:
        for done, at in ((0, 0.0), (1, 3.0), (4, 12.0), (5, 15.0), (8, 24.0), (12, 36.0)):
            now[0] = at
            progress("fitting", done, 12)
        progress("writing", 0, 7)

    assert capsys.readouterr().err.splitlines() == [
        "fitting (12)…",
        "fitting: 4 of 12, about 24 s left",
        "fitting: 8 of 12, about 12 s left",
        "writing (7)…",
    ]

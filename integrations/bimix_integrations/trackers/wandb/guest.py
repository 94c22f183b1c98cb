"""Rows of ours in a run of the host's: the host's own rows keep their values and their numbers.

W&B numbers the rows of a run. A row of ours that closed one of W&B's would move the numbers of the host's, so that ours
stay in the row that is open, which the host's next call closes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

import wandb

from bimix_tracking.data import metric_names

LONGEST = 50
"""Rows that wait at most: a host that logs more seldom gets rows of ours between its own."""
Write = Callable[[wandb.Run, Mapping[str, float], bool], None]
"""Write a row into a run, and close W&B's row with it or not."""


class GuestRows:
    """Rows on their way into a run whose owner logs without `step=`.

    In W&B's open row there is one of ours at a time, for a second one's `bimix/step` would replace the first one's: it
    waits here until the owner has logged. Training and evaluation of one step are one row. For the end, `close`.

    Args:
        write: Writes a row.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._waiting: deque[Mapping[str, float]] = deque()
        self._open: tuple[float, int] | None = None

    def put(self, row: Mapping[str, float]) -> None:
        """Add a row, to be passed on."""
        self._waiting.append(row)

    def pass_on(self, run: wandb.Run) -> None:
        """Write what can be written without moving the owner's numbers."""
        while self._waiting:
            if _has_steps(run):
                step = self._waiting[0][metric_names.STEP]
                if self._open is not None and self._open[0] != step and run.step <= self._open[1]:
                    break
                self._write_first(run, closes=False)
                # Asked afterwards: where the owner has logged meanwhile, it is later than ours, which is safe.
                self._open = (step, run.step)
            else:
                self._write_first(run, closes=True)
        if len(self._waiting) > LONGEST:
            self.close(run)

    def close(self, run: wandb.Run) -> None:
        """Write all that waits, a row each: an owner that logs later finds its numbers moved by as many."""
        self._close_open(run)
        while self._waiting:
            self._write_first(run, closes=True)

    def _write_first(self, run: wandb.Run, *, closes: bool) -> None:
        row = self._waiting.popleft()
        try:
            self._write(run, row, closes)
        except (ValueError, TypeError):  # it is refused: those behind it aren't
            raise
        except Exception:
            self._waiting.appendleft(row)
            raise

    def _close_open(self, run: wandb.Run) -> None:
        if self._open is not None and _has_steps(run) and run.step <= self._open[1]:
            run.log({}, commit=True)
        self._open = None


def _has_steps(run: wandb.Run) -> bool:
    """Return whether a run can be asked for its step.

    One that isn't the process's own any more has mostly ended, and asking takes 30 s then; one that several processes
    write into has its steps at the server.
    """
    return wandb.run is run and not run.disabled and run.settings.mode != "shared"

"""An adapter of a trainer that calls its hooks: it translates events, the sums and their names are the recorder's."""

from __future__ import annotations

from collections.abc import Sequence

from bimix_tracking import DomainLossRecorder


class LoopCallback:
    """Hand a trainer's losses by domain to a recorder.

    Args:
        recorder: Of this training.
        every: Steps between two records.
    """

    def __init__(self, recorder: DomainLossRecorder, *, every: int = 1) -> None:
        self._recorder, self._every = recorder, every

    def on_train_begin(self) -> None:
        self._recorder.start()

    def on_batch(self, losses: Sequence[float], tokens: Sequence[int], domains: Sequence[int], *, train: bool) -> None:
        self._recorder.add(domains, losses, tokens, split="train" if train else "eval")

    def on_step_end(self, step: int) -> None:
        if step % self._every == 0:
            self._recorder.log_train(step)

    def on_evaluate_end(self, step: int) -> None:
        self._recorder.end_evaluation("held-out")
        self._recorder.log_eval(step)

    def on_train_end(self, *, raised: bool = False) -> None:
        if raised:
            self._recorder.fail()
        else:
            self._recorder.finish()

"""Hugging Face Accelerate: a loop of one's own, with Accelerate's checkpoints and processes.

meter = prepare_meter(accelerator, recorder)
for step, batch in enumerate(loader, 1):
    ...
    meter.add(losses, targets, ids)
    if step % 50 == 0:
        meter.log_train(step)
    if step % 500 == 0:
        accelerator.save_state(folder)                # the meter is in it
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bimix_integrations.trainers.distributed import real_rows_of_accelerate
from bimix_integrations.trainers.torch import DomainLossMeter
from bimix_tracking.recording.recorder import DomainLossRecorder

rows_of_batch: Callable[[int], int] = real_rows_of_accelerate
"""How many rows of the evaluation batch in use count: `meter.add(…, rows=rows_of_batch(len(targets)))`."""


def prepare_meter(accelerator: Any, recorder: DomainLossRecorder, **options: Any) -> DomainLossMeter:
    """Return a meter that `accelerator.save_state` saves and `load_state` loads.

    Args:
        accelerator: An `accelerate.Accelerator`.
        recorder: Who turns the sums into rows.
        options: More of `DomainLossMeter`.
    """
    meter = DomainLossMeter(recorder, **options)
    accelerator.register_for_checkpointing(meter)
    return meter

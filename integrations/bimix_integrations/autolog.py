"""The zero-line entry point of Lightning: a callback for every Trainer, where the environment asks for it."""

from __future__ import annotations

from typing import Any

from bimix_integrations.trainers.environment import autolog


def lightning_callbacks() -> list[Any]:
    """Return the callback for a Lightning Trainer if `BIMIX_AUTOLOG` asks for it.

    The entry point `lightning.pytorch.callbacks_factory`: Lightning calls it for each Trainer on the machine, so it
    imports nothing unless it is switched on.
    """
    if not autolog():
        return []
    from bimix_integrations.trainers.lightning import DomainLossCallback  # noqa: PLC0415  # see above

    return [DomainLossCallback()]

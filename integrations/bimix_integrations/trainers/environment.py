"""What a callback that nobody configures in code takes from the environment.

BIMIX_AUTOLOG=1              switches the zero-line entry points on
BIMIX_MIXTURE=mixture.yaml   the nominal mixture, and with it the domains
BIMIX_DOMAINS=code,web,c++   their order, where ids are numbers, and domains that are only evaluated
BIMIX_TRACKER=mlflow:sweep   where rows go; `mlflow:` unless set
BIMIX_SWEEP=pilot-3          the sweep's name in the manifest
"""

from __future__ import annotations

import os
from typing import Any

from bimix_tracking.errors import RecorderError
from bimix_tracking.mixture import Mixture


def autolog() -> bool:
    """Return whether the zero-line entry points are on."""
    return os.environ.get("BIMIX_AUTOLOG", "").strip().lower() not in ("", "0", "false", "no")


def from_environment() -> dict[str, Any]:
    """Return `domains`, `mixture`, `tracker` and `sweep` for a callback.

    Raises:
        RecorderError: Neither domains nor a mixture are named.
        MixtureError: The mixture file holds none.
    """
    path, listed = os.environ.get("BIMIX_MIXTURE"), os.environ.get("BIMIX_DOMAINS")
    mixture = Mixture.from_yaml(path) if path else None
    domains = [name.strip() for name in listed.split(",")] if listed else list(mixture or ())
    if not domains:
        raise RecorderError("set BIMIX_MIXTURE to a mixture file, or BIMIX_DOMAINS to the domains, as in code,web")
    tracker = os.environ.get("BIMIX_TRACKER", "mlflow:")
    return {"domains": domains, "mixture": mixture, "tracker": tracker, "sweep": os.environ.get("BIMIX_SWEEP")}


def lightning_callbacks() -> list[Any]:
    """Return the callback for a Lightning Trainer if `BIMIX_AUTOLOG` asks for it.

    The entry point `lightning.pytorch.callbacks_factory`: Lightning calls it for each Trainer on the machine, so it
    imports nothing unless it is switched on.
    """
    if not autolog():
        return []
    from bimix_integrations.trainers.lightning import DomainLossCallback  # noqa: PLC0415  # see above

    return [DomainLossCallback()]

"""What a callback not configured in code takes from the environment.

BIMIX_AUTOLOG=1              switches the zero-line entry points on
BIMIX_MIXTURE=mixture.yaml   the nominal mixture, and with it the domains: a file, or JSON, {"code": 0.3, "web": 0.7}
BIMIX_DOMAINS=code,web,c++   their order, where ids are numbers, and domains that are only evaluated
BIMIX_TRACKER=mlflow:sweep   where rows go; `mlflow:` unless set
BIMIX_SWEEP=pilot-3          the sweep's name in the manifest
"""

from __future__ import annotations

import os
from typing import Any

from bimix_tracking.errors import MixtureError, RecorderError
from bimix_tracking.files.yaml_json import load_yaml
from bimix_tracking.mixture import Mixture


def autolog() -> bool:
    """Return whether the zero-line entry points are on."""
    return os.environ.get("BIMIX_AUTOLOG", "").strip().lower() not in ("", "0", "false", "no")


def from_environment() -> dict[str, Any]:
    """Return `domains`, `mixture`, `tracker` and `sweep` for a callback.

    Raises:
        RecorderError: Neither domains nor a mixture are named.
        MixtureError: What is named as the mixture holds none.
    """
    named, listed = os.environ.get("BIMIX_MIXTURE"), os.environ.get("BIMIX_DOMAINS")
    mixture = _mixture(named) if named else None
    domains = [name.strip() for name in listed.split(",")] if listed else list(mixture or ())
    if not domains:
        raise RecorderError("set BIMIX_MIXTURE to a mixture file, or BIMIX_DOMAINS to the domains, as in code,web")
    tracker = os.environ.get("BIMIX_TRACKER", "mlflow:")
    return {"domains": domains, "mixture": mixture, "tracker": tracker, "sweep": os.environ.get("BIMIX_SWEEP")}


def _mixture(named: str) -> Mixture:
    if not named.lstrip().startswith("{"):
        return Mixture.from_yaml(named)
    try:
        return Mixture(load_yaml(named).numbers())  # as `runs.sh` of a plan has it
    except ValueError as error:
        raise MixtureError(f"BIMIX_MIXTURE is neither a file nor a mixture as JSON: {error}") from error

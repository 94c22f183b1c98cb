"""Names of metrics that W&B would drop, take for its own, or for the host's."""

from __future__ import annotations

import hashlib

PREFIX = "bimix_more"
"""Section of a metric that isn't this package's, where it cannot keep its name."""
_LONGEST = 250


def safe(name: str, *, guest: bool) -> str:
    """Return the name that a metric gets at W&B: its own, mostly.

    W&B drops `_step`, overwrites `_runtime`, and hides whatever else begins with `_`. In a host's run, a name that is
    not this package's may be one of the host's.

    >>> safe("bimix_eval_loss/web", guest=True), safe("lr", guest=False), safe("lr", guest=True)
    ('bimix_eval_loss/web', 'lr', 'bimix_more/lr')
    >>> safe("_step", guest=False), len(safe("x" * 10_000, guest=False))
    ('bimix_more/_step', 250)
    """
    if not name or name.startswith("_") or (guest and not name.startswith("bimix")):
        name = f"{PREFIX}/{name}"
    if len(name) > _LONGEST:
        name = f"{name[: _LONGEST - 9]}_{hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()[:8]}"
    return name

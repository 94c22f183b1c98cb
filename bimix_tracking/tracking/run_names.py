"""A run's name ↔ its folder: any text is a name, and each has one safe folder beside the others.

A plain name is its folder's. Of any other, what can be kept is kept and a hash is added after `~`, which is in no plain
name: so two names never get one folder. Where a file system takes two names for one (`Proxy` and `proxy`), the name in
the manifest names the run.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator

LONGEST_NAME = 1000
"""Characters of a name that are read of a manifest at most."""
_PLAIN = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.,=+@ -]{0,98}[A-Za-z0-9_=+@-])?")
_TAKEN = re.compile(
    # What is ours in a folder of runs or in a run's, and what Windows takes for a device.
    r"analysis|recommended|manifest\.json|rows\.jsonl|curves\.json|delivery\.json|finished|failed|lock|"
    r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?",
    re.IGNORECASE,
)


def folder_of(name: str) -> str:
    """Return the name of a run's folder: ASCII, at most 100 characters, distinct for distinct names.

    >>> folder_of("proxy-1"), folder_of("lr=0.1"), folder_of("lr/0.1"), folder_of("../evil"), folder_of("analysis")
    ('proxy-1', 'lr=0.1', 'lr_0.1~ae12c3b04a', 'evil~2d6afc7109', 'analysis~f44e85c4b8')
    """
    if _PLAIN.fullmatch(name) and not _TAKEN.fullmatch(name):
        return name
    ascii_name = unicodedata.normalize("NFKD", name[:LONGEST_NAME]).encode("ascii", "ignore").decode()
    kept = re.sub(r"[^A-Za-z0-9_.=+-]+", "_", ascii_name)[:80].lstrip("._=+-").rstrip("._") or "run"
    return f"{kept}~{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:10]}"


def numbered(name: str) -> Iterator[str]:
    """Return a name, and those that come next where it is taken.

    >>> names = numbered("proxy")
    >>> next(names), next(names), next(names)
    ('proxy', 'proxy-2', 'proxy-3')
    """
    yield name
    for number in range(2, 10_000):
        yield f"{name}-{number}"


def run_name(value: object, folder: str) -> str:
    """Return the name that a manifest says, if it is this folder's; else the folder's, which was copied or renamed.

    >>> run_name("lr/0.1", "lr_0.1~ae12c3b04a"), run_name("lr/0.1", "copy"), run_name(None, "proxy-1")
    ('lr/0.1', 'copy', 'proxy-1')
    """
    name = value if isinstance(value, str) and value and folder_of(value) == folder else folder
    text = name.encode("utf-8", "surrogateescape" if name is folder else "replace").decode("utf-8", "replace")
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"

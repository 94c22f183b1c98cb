"""A manifest as tags of a run, and back: whole, however many domains there are, and without an artifact.

`bimix.NAME` holds a field. What is longer than the shortest limit of a tag that servers have had (5,000 characters;
older ones cut it off without a word) is JSON in parts, `bimix.manifest.0` and so on; `bimix.manifest` says how many
they are and what they add up to. Runs of earlier versions have it in an artifact, `bimix/manifest.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from mlflow.entities import RunTag

from bimix_tracking.data import metric_names
from bimix_tracking.data.manifest import RunManifest, parse_json
from bimix_tracking.errors import BimixError

PREFIX = "bimix."
SCHEMA = f"{PREFIX}schema"
"""Every run that holds a training of this package has it."""
KEY = f"{PREFIX}key"
"""Names the training, whoever sends its rows."""
ARTIFACT = "bimix/manifest.json"
_A_REQUEST = 50
"""Tags of one request: MLflow takes 100, and a megabyte, which 100 long ones might exceed."""
_PARTS = f"{PREFIX}manifest"
_LONGEST = 4000
_JSON = ("schema", "domains", "mixture", "schedule", "targets")


def of_manifest(manifest: RunManifest) -> dict[str, str]:
    """Return a manifest as tags; `domains` becomes the map slug → name, readable beside the metric's names.

    >>> tags = of_manifest(RunManifest(tuple(f"domain {i} of many" for i in range(500))))
    >>> sorted(tags), max(map(len, tags.values())) <= 4000
    (['bimix.manifest', 'bimix.manifest.0', 'bimix.manifest.1', 'bimix.manifest.2', 'bimix.role', 'bimix.schema'], True)
    """
    fields = manifest.to_dict()
    readable = fields | {"domains": metric_names.slugs(manifest.domains)}
    tags = {
        f"{PREFIX}{name}": value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in readable.items()
    }
    long = [name for name in fields if len(tags[f"{PREFIX}{name}"]) > _LONGEST]
    if not long:
        return tags
    text = json.dumps({name: fields[name] for name in long}, separators=(",", ":"))
    parts = [text[start : start + _LONGEST] for start in range(0, len(text), _LONGEST)]
    short = {name: value for name, value in tags.items() if name.removeprefix(PREFIX) not in long}
    # The parts first: until the last request is through, the sum says that they are not whole.
    stored = {f"{_PARTS}.{number}": part for number, part in enumerate(parts)}
    return stored | short | {_PARTS: json.dumps({"parts": len(parts), "sha256": _sum(text)})}


def requests(tags: Mapping[str, str]) -> Iterator[list[RunTag]]:
    """Return tags as MLflow takes them, so many at a time."""
    entries = [RunTag(name, value) for name, value in tags.items()]
    for start in range(0, len(entries), _A_REQUEST):
        yield entries[start : start + _A_REQUEST]


def fields_of(tags: Mapping[str, str]) -> dict[str, Any]:
    """Return the manifest's fields that a run's tags hold, not yet checked.

    Raises:
        BimixError: Parts are missing, or are of two states of the run.
        ValueError: A field is not JSON.
    """
    ours = {name.removeprefix(PREFIX): value for name, value in tags.items() if name.startswith(PREFIX)}
    fields: dict[str, Any] = dict(ours)
    for name in _JSON:
        if name in fields:
            fields[name] = parse_json(fields[name])
    if isinstance(fields.get("domains"), dict):
        fields["domains"] = list(fields["domains"].values())
    return (_joined(tags) if _PARTS in tags else {}) | fields


def is_complete(tags: Mapping[str, str]) -> bool:
    """Return whether tags are all there is: no field of theirs was ever put into an artifact."""
    return _PARTS in tags or KEY in tags or {f"{PREFIX}domains", f"{PREFIX}mixture"} <= tags.keys()


def _joined(tags: Mapping[str, str]) -> dict[str, Any]:
    summary = parse_json(tags[_PARTS])
    count = summary.get("parts") if isinstance(summary, dict) else None
    found = []
    for number in range(count if isinstance(count, int) else 0):
        part = tags.get(f"{_PARTS}.{number}")
        if part is None:
            break
        found.append(part)
    text = "".join(found)
    if not isinstance(summary, dict) or len(found) != count or summary.get("sha256") != _sum(text):
        raise BimixError(f"the parts of its tag {_PARTS!r} are not whole: {len(found)} of {count} are there")
    fields = parse_json(text)
    return fields if isinstance(fields, dict) else {}


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

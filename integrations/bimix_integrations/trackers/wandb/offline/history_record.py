"""A history record → its numbers by name: what reading an offline run spends its time on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from wandb.proto import wandb_internal_pb2

from bimix_integrations.trackers.wandb.rows import leaves
from bimix_tracking.data.histories import number

pb: Any = wandb_internal_pb2
"""Its classes are made when it is imported: no type checker knows them."""

_SAID = ("NaN", "Infinity", "-Infinity")


def parsed(record: bytes) -> Any:
    """Return a record as W&B's protobuf message `Record`.

    Raises:
        ValueError: The bytes are no record.
    """
    try:
        return pb.Record.FromString(record)
    except Exception as error:  # protobuf's DecodeError, whose package isn't ours to depend on
        raise ValueError(f"no record of W&B's: {error}") from error


class HistoryReader:
    """Read the numbers of history records that are wanted; of others, the names.

    Args:
        wanted: Whether a metric of that name is wanted.

    >>> reader = HistoryReader(lambda name: name == "loss")
    >>> reader.row(pb.HistoryRecord(item=[pb.HistoryItem(key="loss", value_json="2.5")]))
    {'loss': 2.5}
    """

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self._wanted = wanted
        self._met: dict[str, bool] = {}

    @property
    def names(self) -> list[str]:
        """The names of numbers met so far, wanted or not."""
        return list(self._met)

    def row(self, history: Any) -> dict[str, float]:
        """Return the numbers of a `HistoryRecord` that are wanted; NaN and the infinities are numbers."""
        found: dict[str, float] = {}
        for item in history.item:
            name = ".".join(item.nested_key) or item.key
            try:
                found[name] = float(item.value_json)  # a JSON number, as nearly all are
            except ValueError:
                found.update(_numbers(name, item))
        for name in found:
            if name not in self._met:
                self._met[name] = self._wanted(name)
        return {name: value for name, value in found.items() if self._met[name]}


def _numbers(name: str, item: Any) -> Iterable[tuple[str, float]]:
    """Return the numbers of an item by name: one, or those of a dictionary."""
    if not item.value_json:
        typed = item.WhichOneof("value")
        return ((name, float(getattr(item, typed))),) if typed in ("number", "integer", "boolean") else ()
    try:
        content = json.loads(item.value_json)
    except (ValueError, RecursionError):
        return ()
    found = leaves(name, content)
    return [(inner, number(value)) for inner, value in found if isinstance(value, int | float) or value in _SAID]

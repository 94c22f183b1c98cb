"""A history record's bytes → its numbers by name: what reading an offline run spends its time on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from wandb.proto import wandb_internal_pb2

from bimix_integrations.trackers.wandb.rows import leaves
from bimix_tracking.data.histories import number

pb: Any = wandb_internal_pb2
"""Its classes are made when it is imported: no type checker knows them."""

# The common form of a record: a number of its own, then `HistoryRecord` in field 2 and what is none of ours.
_RECORD = re.compile(rb"(?:\x08[\x80-\xff]*[\x00-\x7f])?\x12([\x80-\xff]*[\x00-\x7f])")
# The common form of a `HistoryItem`: one key, one JSON number, and every length below 128 and so one byte:
#   0A <length of the item> 12 <of the key> <key> 82 01 <of the number> <number>        (older versions: 0A for 12)
# What follows a number is another item, the step or the end, none of which begins like the rest of a number.
_ITEM = re.compile(
    rb"\n[\x00-\x7f][\n\x12]([\x00-\x7f][^\x82]*+(?:\x82(?!\x01)[^\x82]*+)*+)\x82\x01[\x00-\x7f](-?[0-9][-+0-9.eE]*+)"
)
# After the items comes W&B's own step, 0 as nothing.
_STEP = re.compile(rb"\x12[\x00-\x0b](?:\x08[\x80-\xff]*[\x00-\x7f])?", re.DOTALL)
_TYPED = tuple(name for name in ("number", "integer", "boolean") if name in pb.HistoryItem.DESCRIPTOR.fields_by_name)
_SAID = ("NaN", "Infinity", "-Infinity")


class HistoryReader:
    """Read the numbers of history records that are wanted; of others, the names.

    Args:
        wanted: Whether a metric of that name is wanted.

    >>> record = pb.Record(history=pb.HistoryRecord(item=[pb.HistoryItem(key="loss", value_json="2.5")]))
    >>> HistoryReader(lambda name: name == "loss").row(record.SerializeToString())
    {'loss': 2.5}
    """

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self._names = _Names(wanted)

    @property
    def names(self) -> list[str]:
        """The names of numbers met so far, wanted or not."""
        return self._names.met

    def row(self, record: bytes) -> dict[str, float]:
        """Return the numbers that are wanted; NaN and the infinities are numbers.

        Raises:
            ValueError: The bytes are no history record.
        """
        row = self._quickly(record)
        return self._wholly(record) if row is None else row

    def _quickly(self, record: bytes) -> dict[str, float] | None:
        """Return the numbers of a record of the common form, None where it is of another."""
        begin = _RECORD.match(record)
        if begin is None:
            return None
        start = begin.end()
        # Of what is between the items, then name, number, and so on: nothing may be between, and the step comes last.
        parts = _ITEM.split(record[start : start + _varint(begin[1])])
        names, numbers, rest = parts[1::3], parts[2::3], parts[-1]
        if not names or any(parts[:-1:3]) or (rest and not _STEP.fullmatch(rest)):
            return None
        try:
            row = dict(zip(map(self._names.__getitem__, names), map(float, numbers), strict=True))
        except ValueError:  # nested keys; bytes that are no text; `1e` for a number
            return None
        row.pop(None, None)
        return row  # type: ignore[return-value]  # no None is left

    def _wholly(self, record: bytes) -> dict[str, float]:
        row = {}
        for item in parsed(record).history.item:
            name = ".".join(item.nested_key) if item.nested_key else item.key
            for inner, value in _values(name, item):
                wanted = self._names.of(inner)
                if wanted is not None:
                    row[wanted] = value
        return row


def parsed(record: bytes) -> Any:
    """Return a record as W&B's protobuf message.

    Raises:
        ValueError: The bytes are no record.
    """
    message = pb.Record()
    try:
        message.ParseFromString(record)
    except Exception as error:  # protobuf's DecodeError, whose package isn't ours to depend on
        raise ValueError(f"no record of W&B's: {error}") from error
    return message


class _Names(dict[bytes, "str | None"]):
    """Length and name, as encoded → name, or None where it isn't wanted: found once a name."""

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        super().__init__()
        self._wanted = wanted
        self._kept: dict[str, str | None] = {}

    @property
    def met(self) -> list[str]:
        return list(self._kept)

    def of(self, name: str) -> str | None:
        if name not in self._kept:
            self._kept[name] = name if self._wanted(name) else None
        return self._kept[name]

    def __missing__(self, encoded: bytes) -> str | None:
        if encoded[0] != len(encoded) - 1:
            raise ValueError("a nested key")
        self[encoded] = kept = self.of(encoded[1:].decode())
        return kept


def _values(name: str, item: Any) -> Iterator[tuple[str, float]]:
    """Return the numbers of an item by name: one, or those of a dictionary."""
    if not item.value_json:
        typed = next((name for name in _TYPED if item.HasField(name)), None)
        if typed is not None:
            yield name, float(getattr(item, typed))
        return
    try:
        content = json.loads(item.value_json)
    except (ValueError, RecursionError):
        return
    for inner, value in leaves(name, content):
        if isinstance(value, int | float) or (isinstance(value, str) and value in _SAID):
            yield inner, number(value)


def _varint(encoded: bytes) -> int:
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(encoded))

"""A column of an Arrow table as documents: text, or lists of token ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bimix_tracking.entropy.corpora.documents import Problem, Problems, Reading, Tokens
from bimix_tracking.entropy.corpora.fields import OTHER_FIELD, named, path_of
from bimix_tracking.errors import CorpusError, MissingDependencyError

try:
    import pyarrow as pa
except ModuleNotFoundError as error:
    raise MissingDependencyError("pyarrow", extra="corpora") from error

_LONGEST_TYPE = 200
_ROWS = 64
"""Rows that are made Python's strings at once."""


def check_column(schema: pa.Schema, where: str, reading: Reading) -> None:
    """Check that the column, or the field of a struct column, is there and can hold documents.

    Raises:
        CorpusError: It isn't, and says which are; or it holds neither text nor lists of whole numbers.
    """
    name, fields = reading.text_field, _fields(schema)
    path = path_of(name, fields)
    if path is None:
        raise CorpusError(f"{where} has no column {name!r}; there are {named(fields)}. {OTHER_FIELD}")
    kind = schema
    for part in path:
        kind = kind.field(_names(kind).index(part)).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_integer(kind.value_type) if _is_list(kind) else _is_text(kind)):
        inner = f"; there are {named(_fields(kind), name)}" if pa.types.is_struct(kind) else ""
        raise CorpusError(
            f"{where}: column {name!r} is of type {str(kind)[:_LONGEST_TYPE]}, neither text nor lists of token "
            f"ids{inner}. {OTHER_FIELD}"
        )


def documents(
    batch: pa.RecordBatch, where: str, first: int, reading: Reading, problems: Problems
) -> Iterator[str | Tokens]:
    """Yield a batch's texts or token ids.

    Args:
        batch: With the column, that was checked.
        where: The file, and what part of it.
        first: Number of the batch's first row, there.
        reading: Which column, and what is to become of bad rows.
        problems: Where they are counted.

    Raises:
        CorpusError: A row holds nothing or is damaged, and that isn't to be skipped.
        pyarrow.ArrowInvalid: All rows refer to values that aren't there.
    """
    column = _column(batch, reading)
    if pa.types.is_dictionary(column.type):
        column.validate(full=True)
        column = column.dictionary_decode()
    for start in range(0, len(column), _ROWS):
        some = column.slice(start, _ROWS)
        wrong = _wrong(some)
        if wrong is None:
            yield from _values(some)
            continue
        for row in range(len(some)):
            one = some.slice(row, 1)
            wrong = _wrong(one)
            if wrong is None:
                yield from _values(one)
                continue
            place, what = f"{where}, row {first + start + row:,}", f"{reading.text_field!r} {wrong}"
            if not reading.skip_bad:
                raise CorpusError(f"{place}: {what}: repair the file, or skip what cannot be read")
            problems.add(Problem(place, what))


def _fields(kind: Any) -> dict[str, Any]:
    """Return a schema's columns, or a struct's fields, as names of names."""
    found: dict[str, Any] = {}
    for place, name in enumerate(_names(kind)):
        inner = kind.field(place).type
        found.setdefault(name, _fields(inner) if pa.types.is_struct(inner) else None)
    return found


def _names(kind: Any) -> list[str]:
    if isinstance(kind, pa.Schema):
        return list(kind.names)
    return [kind.field(place).name for place in range(kind.num_fields)]


def _column(batch: pa.RecordBatch, reading: Reading) -> pa.Array:
    """Return the column, or a struct's field that is null where the struct is."""
    path = path_of(reading.text_field, _fields(batch.schema)) or ()
    first, *inner = path
    column = batch.column(batch.schema.names.index(first))
    for name in inner:
        column.validate()  # a field may have fewer rows than its struct
        column = column.flatten()[_names(column.type).index(name)]
    return column


def _wrong(column: pa.Array) -> str | None:
    """Say what is wrong with a column, before anything follows its offsets out of the file and the process crashes."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        return f"is damaged ({error})"
    if column.null_count:
        return "is null"
    if _is_list(column.type) and column.flatten().null_count:
        return "has a null among its token ids"
    return None


def _values(column: pa.Array) -> Iterator[str | Tokens]:
    if _is_list(column.type):
        return (scalar.values.to_numpy(zero_copy_only=False) for scalar in column)
    values: Sequence[str] = column.to_pylist()
    return iter(values)


def _is_list(kind: Any) -> bool:
    return any(is_(kind) for is_ in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))


def _is_text(kind: Any) -> bool:
    return any(is_(kind) for is_ in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))

"""A column of an Arrow table as documents: text, or lists of token ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bimix_tracking.corpora.documents import Problem, Problems, Reading, Tokens
from bimix_tracking.errors import CorpusError, MissingDependencyError

try:
    import pyarrow as pa
except ModuleNotFoundError as error:
    raise MissingDependencyError("pyarrow", extra="corpora") from error


def check_column(names: Sequence[str], where: str, reading: Reading) -> None:
    """Check that the column is there.

    Raises:
        CorpusError: It isn't; says which are.
    """
    if reading.text_field not in names:
        there = ", ".join(map(repr, names[:20])) or "none"
        raise CorpusError(f"{where} has no column {reading.text_field!r}; there are {there}. Give the text's column")


def documents(
    batch: pa.RecordBatch, where: str, first: int, reading: Reading, problems: Problems
) -> Iterator[str | Tokens]:
    """Yield a batch's texts or token ids.

    Args:
        batch: With the column.
        where: The file, and what part of it.
        first: Number of the batch's first row, there.
        reading: Which column, and what is to become of bad rows.
        problems: Where they are counted.

    Raises:
        CorpusError: The column is of another type, or a row holds nothing and that isn't to be skipped.
    """
    column = batch.column(batch.schema.get_field_index(reading.text_field))
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not (pa.types.is_integer(kind.value_type) if listed else _is_text(kind)):
        raise CorpusError(
            f"{where}: column {reading.text_field!r} is of type {kind}, neither text nor lists of token ids"
        )
    values: Iterator[str | Tokens | None] = _lists(column) if listed else iter(column.to_pylist())
    for number, value in enumerate(values, first):
        if value is not None:
            yield value
            continue
        if not reading.skip_bad:
            raise CorpusError(
                f"{where}, row {number:,}: {reading.text_field!r} is null: skip what cannot be read, or fill it"
            )
        problems.add(Problem(f"{where}, row {number:,}", f"{reading.text_field!r} is null"))


def _is_text(kind: pa.DataType) -> bool:
    return any(is_(kind) for is_ in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _lists(column: pa.Array) -> Iterator[Tokens | None]:
    for scalar in column:
        yield None if not scalar.is_valid else np.asarray(scalar.values.to_numpy(zero_copy_only=False))

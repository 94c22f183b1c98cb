"""A CSV table of numbers as pandas reads it, once it is sure that no cell is shifted and no column renamed."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd

from bimix_tracking.errors import shown
from bimix_tracking.files.csv_table import read_table


def read_numbers(path: Path, *, text: str, numbers: tuple[str, ...]) -> pd.DataFrame:
    """Return a table, without lines that hold nothing.

    Args:
        path: The file, of any size: a line is in memory at a time until pandas reads it.
        text: The column that stays text, whatever it reads like, if there is one.
        numbers: Columns that must hold numbers, by how their names begin; of others nothing is asked.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no such table, or no UTF-8; the text names the line.
    """

    def opened() -> TextIO:
        return path.open(encoding="utf-8-sig", newline="")

    with opened() as file:
        strict = read_table(file)
        lines = [line for line, _ in strict.rows]
    with opened() as file:
        table = pd.read_csv(file, dtype={text: str})
    if text in strict.header:  # a run may be called "null"
        with opened() as file:
            table[text] = pd.read_csv(file, usecols=[text], dtype=str, keep_default_na=False)
    # A spreadsheet leaves lines of nothing but commas.
    table = table[~(table.isna() | (table == "")).all(axis=1)].reset_index(drop=True)
    for column in strict.header:
        if column == text or not column.startswith(numbers) or table[column].dtype.kind in "iuf":
            continue
        values = table[column].astype(str).where(table[column].notna())  # `True` is not a number
        bad = np.flatnonzero(pd.to_numeric(values, errors="coerce").isna() & values.notna())
        if len(bad):
            got = shown(str(table[column][bad[0]]))
            raise ValueError(f"line {lines[bad[0]]}: the column {shown(column)} must hold a number, got {got}")
    return table

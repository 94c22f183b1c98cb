"""Text in CSV files: what a spreadsheet would take for a formula is made a text, and read back as it was.

Excel, LibreOffice and Google Sheets run a cell that begins with `=`, `+`, `-`, `@`, a tab or a line break, and an
apostrophe before it makes it a text (OWASP, CSV injection). Names are chosen by whoever starts a run.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""The full-width signs are formulas where the spreadsheet is Japanese or Chinese."""


def defused(text: str) -> str:
    """Return a text that no spreadsheet runs; one that is none, or numbers, are as they were.

    >>> [defused(text) for text in ("=1+1", "'=1+1", "-3", "web", "'web")]
    ["'=1+1", "''=1+1", "'-3", 'web', "'web"]
    """
    return f"'{text}" if _FORMULA.match(text) else text


def restored(text: str) -> str:
    """Return what `defused` was given.

    >>> [restored(text) for text in ("'=1+1", "''=1+1", "'-3", "web", "'web", "=1")]
    ['=1+1', "'=1+1", '-3', 'web', "'web", '=1']
    """
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def table_csv(table: pd.DataFrame) -> str:
    r"""Return a table as CSV whose headings and texts are defused; its numbers stay numbers.

    >>> import pandas as pd
    >>> table_csv(pd.DataFrame({"=x": ["@a", "b"], "n": [-1, 2]}))
    "'=x,n\n'@a,-1\nb,2\n"
    """
    cells = {
        column: [defused(cell) if isinstance(cell, str) else cell for cell in table[column]]
        for column in table.columns
        if table[column].dtype.kind not in "biufc"
    }
    # Else a carriage return would be written as it is, and end the row where it is read.
    broken = any(isinstance(cell, str) and "\r" in cell for column in cells.values() for cell in column)
    quoting: Literal[0, 2] = 2 if broken else 0  # csv.QUOTE_NONNUMERIC, csv.QUOTE_MINIMAL
    named = table.assign(**cells).rename(columns=lambda name: defused(str(name)))
    return named.to_csv(index=False, lineterminator="\n", quoting=quoting)

"""Parquet: a row is a document, a row group a block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from bimix_integrations.corpora.columns import check_column, documents
from bimix_tracking.entropy.corpora.documents import Block, Document, Problem, Problems, Reading
from bimix_tracking.errors import CorpusError

# After `columns`, which says what to install.
import pyarrow as pa  # isort: skip
import pyarrow.parquet as pq  # isort: skip

_BATCH_BYTES, _BATCH_ROWS = 4 << 20, 1024
_BUFFER = 1 << 20


class ParquetFormat:
    """Parquet files: `reading.text_field` is a column of text, or of lists of token ids."""

    def blocks(self, path: Path, name: str, reading: Reading) -> Sequence[Block]:
        """Divide a file by its row groups."""
        with _opened(path) as file:
            check_column(file.schema_arrow, str(path), reading)
            groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
            return [
                Block("parquet", str(path), name, n, n + 1, group.total_byte_size)
                for n, group in enumerate(groups)
                if group.num_rows
            ]

    def read(self, block: Block, reading: Reading, problems: Problems) -> Iterator[Document]:
        """Read the rows of a row group, some megabytes at a time."""
        where = f"{block.path}, row group {block.start}"
        row = 0
        with _opened(Path(block.path)) as file:
            total = file.metadata.row_group(block.start).num_rows
            rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES * total // max(block.size, 1)))
            try:
                for batch in file.iter_batches(rows, row_groups=[block.start], columns=[reading.text_field]):
                    for content in documents(batch, where, row, reading, problems):
                        yield Document(content, block.start)
                    row += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                what = f"its {total - row:,} rows from row {row:,} on cannot be read, the file is damaged: {error}"
                if not reading.skip_bad:
                    raise CorpusError(f"{where}: {what}. Fetch it again, or skip what cannot be read") from error
                problems.add(Problem(where, what, max(total - row, 1)))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        # Page by page, not a whole row group's column at once; writers' checksums are verified.
        file = pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path} cannot be read as Parquet: {error}") from error
    with file:
        yield file

"""Folders that Hugging Face's `save_to_disk` left: a row is a document, an Arrow file a block."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bimix_integrations.corpora.columns import check_column, documents
from bimix_tracking.entropy.corpora.documents import Block, Document, Problem, Problems, Reading
from bimix_tracking.entropy.corpora.streams import size_of
from bimix_tracking.errors import CorpusError

import pyarrow as pa  # isort: skip  # after `columns`, which says what to install


_LAST = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""What an Arrow stream ends with."""


class DatasetsFormat:
    """Datasets on disk, of all splits where there are several: `reading.text_field` is the column."""

    def blocks(self, path: Path, name: str, reading: Reading) -> Sequence[Block]:
        """Return a block for each Arrow file."""
        if not path.is_dir():
            raise CorpusError(f"{path} is a file, and a dataset a folder that `save_to_disk` left: give that")
        if (path / "dataset_dict.json").is_file():
            splits = _json(path / "dataset_dict.json").get("splits")
            if not isinstance(splits, list) or not all(isinstance(split, str) for split in splits):
                raise CorpusError(f"{path / 'dataset_dict.json'} names no splits")
            return [
                block for split in splits for block in self.blocks(_inside(path, split), f"{name}/{split}", reading)
            ]
        state = _json(path / "state.json")
        files = state.get("_data_files")
        if not isinstance(files, list) or not all(isinstance(file, dict) and "filename" in file for file in files):
            raise CorpusError(f"{path / 'state.json'} names no Arrow files: is it a dataset that `save_to_disk` wrote?")
        if state.get("_indices_files") or state.get("_indices_data_files"):
            raise CorpusError(f"{path} holds some rows of its files only: save it again with `flatten_indices()`")
        blocks = []
        for file in files:
            arrow = _inside(path, str(file["filename"]))
            size = size_of(arrow)
            blocks.append(Block("datasets", str(arrow), f"{name}/{arrow.name}", 0, size, size))
        return blocks

    def read(self, block: Block, reading: Reading, problems: Problems) -> Iterator[Document]:
        """Read the rows of an Arrow file that is mapped into memory."""
        row = done = 0
        try:
            with pa.memory_map(block.path) as mapped, pa.ipc.open_stream(mapped) as stream:
                check_column(stream.schema, block.path, reading)
                for batch in stream:
                    for content in documents(batch, block.path, row, reading, problems):
                        yield Document(content, done // reading.block_bytes)
                    row += batch.num_rows
                    done += batch.nbytes
            # A file that is cut off between two batches looks like a shorter one, but for its last word.
            with Path(block.path).open("rb") as file:
                file.seek(-len(_LAST), os.SEEK_END)
                if file.read() != _LAST:
                    raise pa.ArrowInvalid("it doesn't end as it should")
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            what = f"its rows from {row:,} on cannot be read, the file is damaged or cut off: {error}"
            if not reading.skip_bad:
                raise CorpusError(f"{block.path}: {what}. Fetch it again, or skip what cannot be read") from error
            problems.add(Problem(block.path, what))


def _inside(folder: Path, name: str) -> Path:
    """Return a path that a file names, if it is below its folder."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise CorpusError(f"{folder} names {name!r}, which is not in it")
    return path


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise CorpusError(f"{path} holds no object")
    return found

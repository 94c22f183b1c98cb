"""Find the files of a corpus, recognise their formats, and read their blocks."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from bimix_tracking.entropy.corpora.documents import Block, Document, Format, Problems, Reading
from bimix_tracking.entropy.corpora.streams import COMPRESSED
from bimix_tracking.errors import CorpusError
from bimix_tracking.plugins import named

_TEXT = (
    "txt text md markdown rst tex html htm xml csv tsv log srt "
    "py pyi c h cc cpp hpp cu java js jsx ts tsx go rs rb php pl r jl lua sh sql scala kt swift cs hs ml lean v "
    "toml yaml yml ini"
)
_SUFFIXES = {
    **dict.fromkeys((f".{suffix}" for suffix in _TEXT.split()), "text"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    ".parquet": "parquet",
    ".npy": "tokens",
}
_BOOKKEEPING = ("dataset_info.json", "dataset_infos.json", "_SUCCESS", "_metadata", "_common_metadata")
"""Files that Hugging Face's tools and Spark leave beside data, and that have none."""
_DATASET = ("state.json", "dataset_dict.json")
"""Either makes a folder one that Hugging Face's `save_to_disk` left."""


@functools.cache
def open_format(name: str) -> Format:
    """Return what reads files of a format, by entry point of the group `bimix_tracking.formats`.

    Raises:
        CorpusError: No such format.

    >>> open_format("clay tablets")
    Traceback (most recent call last):
    bimix_tracking.errors.CorpusError: no format 'clay tablets'; choose from 'datasets', 'jsonl', 'megatron',
    'parquet', 'text', 'tokens'
    """
    opened: Format = named("format", name, CorpusError)()
    return opened


def find_blocks(path: str | Path, reading: Reading, *, format: str | None = None) -> list[Block]:  # noqa: A002  # as in `open`
    """Return the blocks of a file, or of all files of a folder and those below, in the order of their names.

    Args:
        path: The file or folder. Hidden files and folders in it are passed over, and files without data that tools are
            known to leave beside it (`dataset_info.json`, `_SUCCESS`, `_metadata` and the like); nothing else is.
        reading: How files are to be read.
        format: Of all files; by default by their suffixes.

    Raises:
        CorpusError: There is no such thing, nothing in it, or a file of unknown format; a folder leads back to
            one above it; blocks of less than a byte are asked for.
    """
    root = Path(path)
    if reading.block_bytes < 1:
        raise CorpusError(f"blocks must have at least one byte, got block_bytes = {reading.block_bytes}")
    if not root.exists():
        raise CorpusError(f"{root} is not there")
    blocks: list[Block] = []
    for file, name in _files(root):
        blocks += open_format(format or _format_of(file, reading)).blocks(file, name, reading)
    if not blocks:
        raise CorpusError(
            f"{root} holds no text and no token ids: {'an empty file' if root.is_file() else 'no file in it'}"
        )
    return blocks


def read_block(block: Block, reading: Reading, problems: Problems) -> Iterator[Document]:
    """Read a block's documents, in their order.

    Raises:
        CorpusError: Something cannot be read, and `reading.skip_bad` isn't set.
    """
    return open_format(block.format).read(block, reading.of(block.domain), problems)


def _files(root: Path, above: tuple[Path, ...] = ()) -> Iterator[tuple[Path, str]]:
    """Yield what is read by itself, and its name below the root."""
    if root.is_file() or _is_dataset(root):
        yield root, root.name
        return
    real = root.resolve()
    if real in above:
        raise CorpusError(f"{root} leads back to {real}, which contains it: remove the link from the corpus")
    try:
        entries = sorted(root.iterdir())
    except OSError as error:
        raise CorpusError(f"{root} cannot be read: {error.strerror}") from error
    for path in entries:
        if path.name.startswith(".") or path.name in _BOOKKEEPING or _is_index(path):
            continue
        if path.is_dir():
            for file, name in _files(path, (*above, real)):
                yield file, name if _is_dataset(path) else f"{path.name}/{name}"
        else:
            yield path, path.name


def _is_dataset(path: Path) -> bool:
    return path.is_dir() and any((path / name).is_file() for name in _DATASET)


def _is_index(path: Path) -> bool:
    return path.suffix == ".idx" and path.with_suffix(".bin").is_file()


def _format_of(path: Path, reading: Reading) -> str:
    if path.is_dir():
        return "datasets"
    bare = path.with_suffix("") if path.suffix in COMPRESSED else path
    if bare.suffix == ".bin" and bare == path:
        if path.with_suffix(".idx").is_file():
            return "megatron"
        if reading.token_dtype:
            return "tokens"
        raise CorpusError(
            f"{path} has no index {path.with_suffix('.idx').name} next to it, as Megatron's files have. Give the type "
            "of its token ids, such as uint16 (token_dtype)"
        )
    if bare.suffix.lower() not in _SUFFIXES:
        raise CorpusError(
            f"{path}: its name doesn't show its format. Give one (format: text, jsonl, parquet, datasets, megatron, "
            "tokens), or remove the file from the corpus"
        )
    return _SUFFIXES[bare.suffix.lower()]

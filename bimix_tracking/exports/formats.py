"""A mixture in the form that each trainer reads, with the domain order it has written in it."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from bimix_tracking.errors import MixtureError, PluginError, did_you_mean
from bimix_tracking.exports.request import Format, Request, checked
from bimix_tracking.exports.trainers import FORMATS
from bimix_tracking.mixture import Mixture
from bimix_tracking.plugins import added, of_package

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_logger = logging.getLogger(__name__)


@cache
def all_formats() -> Mapping[str, Format]:
    """Return all formats by name, in the order they are listed: those of this package, then other packages'.

    One of another package that cannot be used is there, says so, and raises `PluginError` when it is asked to write.
    What is installed later than the first call, the next process finds.

    >>> list(all_formats())[:3]
    ['megatron', 'nemo', 'streaming']
    """
    found = dict(FORMATS)
    taken = {form.file for form in found.values()}
    for name in added("export", [*found, "list"]):
        found[name] = _of_package(name, taken)
        taken.add(found[name].file)
    return found


def _of_package(name: str, taken: Collection[str]) -> Format:
    def check(found: Any) -> Format:
        if not isinstance(found, Format):
            raise TypeError(f"it is a {type(found).__name__}, not a bimix_tracking.exports.Format")
        if not _PLAIN.fullmatch(found.file):
            raise ValueError(f"the file's name {found.file!r} isn't letters, digits, '.', '_' and '-'")
        if found.file in taken:
            raise ValueError(f"another format writes {found.file!r}")
        return found

    def write(request: Request) -> str:
        try:
            return of_package("export", name, lambda found: _text(found.write(request)))
        except PluginError as error:
            if isinstance(error.__cause__, MixtureError):  # what the trainer cannot have is no fault of the package
                raise error.__cause__ from None
            raise

    try:
        form = of_package("export", name, check)
    except PluginError as error:
        broken = error

        def refuse(_: Request) -> str:
            raise broken

        return Format("", str(error), refuse)
    return Format(form.file, form.about, write)


def _text(written: Any) -> str:
    if not isinstance(written, str):
        raise TypeError(f"it wrote a {type(written).__name__}, not a text")
    return written


def export(
    mixture: Mixture,
    fmt: str,
    *,
    paths: Mapping[str, str] | None = None,
    tokens: float | None = None,
    provenance: str | None = None,
) -> str:
    """Return a mixture as the text that a trainer reads.

    Proportions are printed to the last digit. A domain with proportion 0 is excluded where the trainer refuses a
    weight of 0 (or would wait for its data for ever), and the file says so.

    Args:
        mixture: The mixture.
        fmt: A name of `all_formats()`.
        paths: Where a domain's data are: a path, prefix or data-set name, as the trainer wants it. A domain that isn't
            named stands with its own name.
        tokens: Training tokens the mixture is for; only said.
        provenance: One line on where the mixture is from.

    Returns:
        The file's text. It says its domain order (CSV: the order of its rows).

    Raises:
        MixtureError: No such format, a path of an unknown domain or of two, or a name that the format cannot hold.
        PluginError: The format is another package's, and cannot be used; names the package.

    >>> print(export(Mixture({"code": 0.25, "web/en": 0.75}), "megatron", paths={"code": "/data/the code"}), end="")
    # domain order: ["code", "web/en"]
    # a domain's name replaces the path of its data where no --path is given
    # weights count sequences of --seq-length tokens each, so they are proportions of tokens
    # source this file in bash, then: pretrain_gpt.py "${DATA_PATH[@]}"
    DATA_PATH=(--data-path
      0.25 '/data/the code'
      0.75 web/en
    )
    """
    known = all_formats()
    if fmt not in known:
        raise MixtureError(f"no format {fmt!r}; {did_you_mean(fmt, known)}")
    return known[fmt].write(checked(mixture, paths, tokens, provenance))


def write_exports(
    mixture: Mixture,
    folder: str | Path,
    *,
    paths: Mapping[str, str] | None = None,
    tokens: float | None = None,
    provenance: str | None = None,
) -> list[Path]:
    """Write a mixture in every format that can hold it; return the files.

    A format whose trainer cannot have one of the names is skipped; `export` says why. So is one of another package
    that cannot be used, with a warning in the log.

    Args:
        mixture: The mixture.
        folder: Where to; a file of the same name there is replaced.
        paths: As in `export`.
        tokens: As in `export`.
        provenance: As in `export`.

    Returns:
        The files written, in the order of `all_formats()`.

    Raises:
        MixtureError: A path of an unknown domain or of two.

    >>> from tempfile import mkdtemp
    >>> [file.name for file in write_exports(Mixture({"a, b": 1.0}), mkdtemp())][7:11]
    ['doremi.json', 'mixture.yaml', 'mixture.json', 'mixture.csv']
    """
    request = checked(mixture, paths, tokens, provenance)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for form in all_formats().values():
        try:
            text = form.write(request)
        except MixtureError:
            continue  # a name this trainer cannot have is no reason to lose the others
        except PluginError as error:
            _logger.warning("%s", error)
            continue
        (target / form.file).write_text(text, encoding="utf-8")
        written.append(target / form.file)
    return written

"""The fenced blocks of a page of the documentation, and how they are run: `python tests/e2e/docs/docs_blocks.py PAGE…`.

Each page runs in a folder of its name, which must be there. The conventions are at the top of `test_docs.py`.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FENCE = re.compile(r"(?P<indent> *)(?P<ticks>```+)(?P<language>[\w+-]*) *(?P<more>.*)")
_TITLE = re.compile(r'title="(?P<name>[^"]+)"')
_NOT_RUN = re.compile(r"<!-- not run: (?P<reason>.+) -->")
_COMPARED = doctest.ELLIPSIS


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Args:
        page: The file.
        line: Of its first line of text, from 1.
        language: As the fence says, such as `bash`.
        text: What stands inside.
        file: The file that it is written to, instead of being run.
        not_run: Why it isn't run, if it isn't.
        output: What it prints, if the page says so.
    """

    page: Path
    line: int
    language: str
    text: str
    file: str | None = None
    not_run: str | None = None
    output: str | None = None

    @property
    def runs(self) -> bool:
        """Whether it is to be run."""
        return self.language in ("bash", "python") and self.file is None and self.not_run is None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page; a text block right after one that runs is its output."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    place, last_end, reason = 0, -1, None
    while place < len(lines):
        fence = _FENCE.fullmatch(lines[place])
        if fence is None:
            marked = _NOT_RUN.fullmatch(lines[place].strip())
            reason = marked["reason"] if marked else reason if not lines[place].strip() else None
            place += 1
            continue
        indent = len(fence["indent"])
        end = next((i for i in range(place + 1, len(lines)) if lines[i].strip() == fence["ticks"]), None)
        if end is None:
            raise ValueError(f"{page}:{place + 1}: the fence has no end")
        text = "".join(f"{line[indent:]}\n" for line in lines[place + 1 : end])
        title = _TITLE.search(fence["more"])
        follows = found and found[-1].runs and not "".join(lines[last_end + 1 : place]).strip()
        if fence["language"] == "text" and follows:
            before = found.pop()
            found.append(Block(page, before.line, before.language, before.text, output=text))
        else:
            name = title["name"] if title else None
            found.append(Block(page, place + 2, fence["language"], text, file=name, not_run=reason))
        place, last_end, reason = end + 1, end, None
    return found


def commands(text: str) -> Iterator[str]:
    """Yield the commands `bimix …` of a shell's text, a line each, without what follows a pipe or redirects."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|\|\|?|;", line):
            found = re.search(r"(?:^|\s)(bimix .*)", part)
            if found and not part.lstrip().startswith("#"):
                yield re.split(r" (?:#|&|\d?>+)", found[1])[0].strip()


class _WrongError(Exception):
    """A block doesn't do what the page says."""


def _run(block: Block, names: dict[str, Any]) -> str:
    if block.language == "bash":
        command = ["bash", "-euo", "pipefail", "-c", block.text]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise _WrongError(f"exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout
    printed = io.StringIO()
    # Lines as in the page, for tracebacks
    code = compile("\n" * (block.line - 1) + block.text, str(block.page), "exec")
    with contextlib.redirect_stdout(printed):
        exec(code, names)  # noqa: S102  # our own pages
    return printed.getvalue()


def _compare(block: Block, got: str) -> None:
    def trimmed(text: str) -> str:
        return "".join(f"{line.rstrip()}\n" for line in text.strip("\n").splitlines())

    if block.output is not None and not doctest.OutputChecker().check_output(
        trimmed(block.output), trimmed(got), _COMPARED
    ):
        raise _WrongError(f"the page says\n{block.output}\nbut it printed\n{got}")


def run(page: Path) -> bool:
    """Run a page's blocks in order, in a folder of its name; print the one that fails, and say if all went well."""
    names: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.chdir(page.stem):
        for block in blocks_of(page):
            if block.file is not None and block.not_run is None:
                Path(block.file).write_text(block.text, encoding="utf-8")
            if not block.runs:
                continue
            try:
                _compare(block, _run(block, names))
            except Exception:  # noqa: BLE001  # whatever a page may raise
                print(f"{block} failed:\n{block.text}\n{traceback.format_exc()}")  # noqa: T201  # it is a program
                return False
    return True


def arguments(pages: Sequence[Path], python: str = sys.executable) -> Sequence[str]:
    """Return the command that runs pages, one after the other."""
    return [python, __file__, *map(str, pages)]


if __name__ == "__main__":
    failed = [page for page in sys.argv[1:] if not run(Path(page))]
    sys.exit(bool(failed))

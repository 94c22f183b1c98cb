"""A whole page where somebody looks: within the notebook that asked for it, else in the browser."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path
from threading import Thread
from typing import Any


def kernel() -> Any:
    """Return IPython's shell where this process is a notebook's kernel, else None; IPython isn't imported for that."""
    get = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = None if get is None else get()
    return shell if getattr(shell, "kernel", None) is not None else None


class Frame:
    """A page within a notebook, in a frame of its own: neither changes the other's styles.

    Args:
        page: A whole page of HTML that loads nothing.
        height: Of the frame, pixels.

    >>> Frame("<p>'1 < 2'</p>")._repr_html_()[:60]
    '<iframe title="report" sandbox="allow-scripts" style="width:'
    """

    def __init__(self, page: str, *, height: int = 720) -> None:
        self._page, self._height = page, height

    def __repr__(self) -> str:
        return "the report"

    def _repr_html_(self) -> str:
        style = f"width:100%;height:{self._height}px;border:0;background:#fff"
        return f'<iframe title="report" sandbox="allow-scripts" style="{style}" srcdoc="{escape(self._page)}"></iframe>'


def show_page(page: str, *, height: int = 720) -> Path | None:
    """Show a page: in a notebook where the cell's output is, in a script in a browser, without waiting for either.

    Args:
        page: A whole page of HTML that loads nothing.
        height: Of the frame in a notebook, pixels.

    Returns:
        The file that the browser was given, which stays until its folder is cleaned; None in a notebook.
    """
    if kernel() is not None:
        sys.modules["IPython"].display.display(Frame(page, height=height))
        return None
    path = Path(tempfile.mkdtemp(prefix="bimix-")) / "report.html"
    path.write_text(page, encoding="utf-8")
    _open(path.as_uri())
    sys.stderr.write(f"the report is {path}\n")
    return path


def _open(address: str) -> None:
    """Have a browser open an address. A process of its own: one in a terminal is waited for, and takes its input."""
    if not sys.executable:
        return
    nowhere = subprocess.DEVNULL
    try:
        process = subprocess.Popen(  # noqa: S603  # Python itself, and a file of ours
            [sys.executable, "-m", "webbrowser", address],
            stdin=nowhere,
            stdout=nowhere,
            stderr=nowhere,
            start_new_session=True,
        )
    except OSError:
        return  # the page is written, and its place is told
    Thread(target=process.wait, name="bimix-browser", daemon=True).start()

"""The documentation: every command and every Python block of README.md and docs/**.md runs, and the site is built.

A page is run in a fresh folder that stands for the clone's (links `docs` and `examples`), its fenced blocks in order.
Pages of one folder share a process, so that what they import is imported once:

- `bash`: with `-euo pipefail`. `python`: in one namespace that the page's Python blocks share.
- `text` right after such a block: what it prints on standard output; `...` stands for anything. Elsewhere it is text.
- `python title="train.py"`, of any language: written to that file, not run by itself.
- `<!-- not run: REASON -->` on the line above a fence: not run. It must parse all the same, and `NOT_RUN` counts it.

Commands and options of `bimix` must exist wherever they stand, in the text too. `make TARGET` must be a target of the
Makefile.
"""

from __future__ import annotations

import ast
import doctest
import functools
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import typer
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, sync_playwright
from scipy.optimize import minimize_scalar

import bimix_tracking
from bimix_tracking.cli import app
from bimix_tracking.data import metric_names
from tests.e2e.docs.docs_blocks import Block, arguments, blocks_of, commands
from tests.warm import program, programs

_ROOT = Path(__file__).parents[3]
_DOCS = _ROOT / "docs"
_PAGES = {str(page.relative_to(_ROOT)): page for page in (_ROOT / "README.md", *sorted(_DOCS.rglob("*.md")))}
_BLOCKS = [block for page in _PAGES.values() for block in blocks_of(page)]
_RUN = sorted({block.page for block in _BLOCKS if block.runs})
NOT_RUN = {
    "README.md": 1,  # a fragment
    "docs/index.md": 2,  # installing
    "docs/how-to/automate.md": 2,  # a watch without an end, Slurm
    "docs/how-to/entropy.md": 1,  # a Ray cluster
    "docs/how-to/trackers/mlflow.md": 2,  # a server, a database
    "docs/how-to/trackers/wandb.md": 3,  # the hosted service
    "docs/how-to/trainers.md": 1,  # no accident, no spool
    "docs/how-to/trainers/composer.md": 1,  # pins another torch
    "docs/how-to/trainers/lightning.md": 1,  # the reader's own script
    "docs/how-to/verify.md": 1,  # the reader's own runs
    "docs/how-to/workflow.md": 1,  # the reader's large run
}
"""How many blocks of a page aren't run; each says why."""


def module(path: Path) -> ModuleType:
    """Return a script's module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize("folder", sorted({page.parent for page in _RUN}), ids=lambda path: path.name)
def test_pages_do_what_they_say(folder: Path, tmp_path: Path) -> None:
    pages = [page for page in _RUN if page.parent == folder]
    for page in pages:
        place = tmp_path / page.stem
        place.mkdir()
        for name in ("docs", "examples"):
            (place / name).symlink_to(_ROOT / name)
    path = os.pathsep.join([programs(training=True), str(Path(sys.executable).parent), os.environ["PATH"]])
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BIMIX_", "MLFLOW_", "WANDB_"))}
    environment = kept | {"PATH": path, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}

    command = arguments(pages, program("python", training=True))
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )

    assert done.returncode == 0, done.stdout[-8000:]


def test_what_is_not_run_is_known_and_parses() -> None:
    left = [block for block in _BLOCKS if block.not_run is not None]

    assert Counter(str(block.page.relative_to(_ROOT)) for block in left) == NOT_RUN
    for block in left:
        if block.language == "python":
            compile(block.text, str(block), "exec")
        else:
            done = subprocess.run(["bash", "-n", "-c", block.text], capture_output=True, text=True, check=False)
            assert (block.language, done.returncode) == ("bash", 0), f"{block}: {done.stderr}"


def _losses(code: str) -> list[str]:
    """Return the made-up law of a snippet, an expression a domain: its array `loss`, or a dictionary's losses."""
    for node in ast.walk(ast.parse(code)):
        named = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "loss"
        if named and isinstance(node.value, ast.Call) and isinstance(node.value.args[0], ast.List):  # type: ignore[attr-defined]  # mypy forgets what `named` said
            return [ast.unparse(element) for element in node.value.args[0].elts]  # type: ignore[attr-defined]  # likewise
        if isinstance(node, ast.Dict):
            keyed = zip(map(ast.unparse, filter(None, node.keys)), node.values, strict=True)
            found = [ast.unparse(value) for key, value in keyed if "_loss/" in key or key in ("'la'", "'lb'")]
            if found:
                return found
    raise AssertionError("no losses that follow a law")


def _value(expression: str, **names: float) -> float:
    return float(eval(expression, {**names}))  # noqa: S307  # our own pages


def _optimum(losses: list[str], share: str, **at: float) -> float:
    """Return the first domain's proportion that makes the sum of losses least: by no means of ours."""

    def total(proportion: float) -> float:
        return sum(_value(loss, **at, **{share: proportion}) for loss in losses)

    found = minimize_scalar(total, bounds=(1e-6, 1 - 1e-6), method="bounded", options={"xatol": 1e-10})
    return float(found.x)


@pytest.mark.parametrize(
    ("name", "share", "at"),
    [
        ("docs/how-to/trainers/sums.md", "code", {"s": 1e9}),
        ("docs/how-to/adapter.md", "code", {"step": 2500.0}),
        ("bimix_tracking/analysis/pipeline.py", "a", {"s": 1e9}),
    ],
)
def test_what_a_page_prints_is_the_optimum_of_its_law(name: str, share: str, at: dict[str, float]) -> None:
    if name.endswith(".py"):
        examples = doctest.DocTestParser().get_examples(bimix_tracking.analyze.__doc__ or "")
        code, output = "".join(example.source for example in examples), examples[-1].want
    else:
        block = next(block for block in blocks_of(_PAGES[name]) if block.language == "python")
        code, output = block.text, block.output or ""

    printed = re.search(r"Mixture\(\{'\w+': ([0-9.]+?)\.{0,3}[,}]", output)
    assert printed is not None
    assert float(printed[1]) == pytest.approx(_optimum(_losses(code), share, **at), abs=10.0 ** -len(printed[1][2:]))


def test_the_example_by_sums_logs_as_one_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = next(block for block in blocks_of(_PAGES["docs/how-to/trainers/sums.md"]) if block.language == "python")
    monkeypatch.chdir(tmp_path)
    exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})  # noqa: S102  # our own page

    runs = {path.parent.name: path.read_text().splitlines() for path in tmp_path.glob("sweep/*/rows.jsonl")}
    assert len(runs) == 3
    law = _losses(block.text)
    for name, lines in runs.items():
        rows = [json.loads(line) for line in lines]
        shares = {"code": float(name.removeprefix("code-")), "web": 1 - float(name.removeprefix("code-"))}
        trained = [row for row in rows if "bimix_train_loss/code" in row]
        evaluated = [row for row in rows if "bimix_eval_loss/code" in row]
        assert len(trained) == len(evaluated) >= 4
        per_step = evaluated[0]["bimix/tokens"] / evaluated[0]["bimix/step"]
        for domain, loss in zip(shares, law, strict=True):
            # An evaluation is of its own step, and of the same text each time.
            for row in evaluated:
                s, told = row["bimix/tokens"], row[f"bimix_eval_loss/{domain}"]
                assert told == pytest.approx(_value(loss, s=s, code=shares["code"]))
            assert len({row[f"bimix_eval_tokens/{domain}"] for row in evaluated}) == 1
            # A training row is of all steps since the last one, and tokens are those of all steps.
            for before, row in zip([0, *(row["bimix/step"] for row in trained)], trained, strict=False):
                seen = [per_step * step for step in range(int(before) + 1, int(row["bimix/step"]) + 1)]
                mean = np.mean([_value(loss, s=s, code=shares["code"]) for s in seen])
                assert row[f"bimix_train_loss/{domain}"] == pytest.approx(mean)
                assert row[f"bimix_tokens/{domain}"] == pytest.approx(shares[domain] * per_step * row["bimix/step"])


def test_a_page_that_is_wrong_fails(tmp_path: Path) -> None:
    fence = "```"
    page = tmp_path / "page.md"
    (tmp_path / "page").mkdir()

    def run(text: str) -> subprocess.CompletedProcess[str]:
        page.write_text(text, encoding="utf-8")
        return subprocess.run(
            arguments([page], program("python")), cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )

    blocks = ("python\nx = 1\nprint(x)", "text\n1", "python\nassert x == 1")
    right = "\n".join(f"{fence}{block}\n{fence}\n" for block in blocks)
    assert run(right).returncode == 0
    assert "but it printed\n1" in run(right.replace("\n1\n", "\n2\n")).stdout
    failed = run(f"text\n\n{fence}bash\nfalse\ntrue\n{fence}\n")
    assert failed.returncode == 1
    assert "page.md:4 failed" in failed.stdout
    assert run(f"<!-- not run: why -->\n{fence}bash\nfalse\n{fence}\n").returncode == 0
    assert run(f'{fence}text title="there"\nhello\n{fence}\n\n{fence}bash\ngrep hello there\n{fence}\n').returncode == 0
    assert "has no end" in run(f"{fence}bash\n").stderr


def _known() -> dict[str, set[str]]:
    """Return the options of each command; the group's under an empty name."""
    group: Any = typer.main.get_command(app)
    named = {"": group, **group.commands}
    options = {name: [o for p in command.params for o in p.opts] for name, command in named.items()}
    return {name: {"--help", *(option for option in of if option.startswith("-"))} for name, of in options.items()}


def _told(page: Path) -> Iterator[str]:
    """Yield every command of a page: in fences, in indented blocks and in the text."""
    text = page.read_text(encoding="utf-8")
    for block in blocks_of(page):
        yield from commands(block.text)
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (line for line in re.findall(r"^    (bimix .*)$", plain, re.MULTILINE))
    yield from (span for span in re.findall(r"`(bimix [^`]*)`", plain))


@pytest.mark.parametrize("name", _PAGES)
def test_commands_and_options_exist(name: str) -> None:
    known = _known()

    for told in _told(_PAGES[name]):
        words = shlex.split(told)[1:]
        before = [word for word in words if not word.startswith("-")]
        command = "" if not before or before[0] in ("COMMAND", "…") else before[0]
        assert command in known, told
        for word in words:
            if word.startswith("-"):
                assert word.partition("=")[0] in known[command] | known[""], told
    plain = re.sub(r"^```.*?^```", "", _PAGES[name].read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    everywhere = set.union(*known.values())
    for option in re.findall(r"`(--[a-z-]+)[^`]*`", plain):
        assert option in everywhere, f"{name}: {option}"


def test_targets_of_make_and_files_of_the_readme_are_there() -> None:
    makefile = (_ROOT / "Makefile").read_text(encoding="utf-8")
    for page in _PAGES.values():
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"^    make ([\w-]+)", text, re.MULTILINE) + re.findall(r"`make ([\w-]+)`", text):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page.name}: make {target}"
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", _PAGES["README.md"].read_text(encoding="utf-8")):
        assert (_ROOT / link).exists(), link


@pytest.mark.parametrize("name", _PAGES)
def test_files_of_the_repository_that_a_page_names_are_there(name: str) -> None:
    text = _PAGES[name].read_text(encoding="utf-8")

    for path in re.findall(r"`((?:tests|examples|bimix_tracking|integrations)/[\w./-]+)`", text):
        assert (_ROOT / path).exists(), path


def test_the_reference_has_everything_there_is() -> None:
    def page(name: str) -> str:
        return (_DOCS / "reference" / name).read_text(encoding="utf-8")

    for quantity in metric_names.QUANTITIES:
        assert f"`{quantity}" in page("metrics.md")
    sources = [path for folder in ("bimix_tracking", "integrations") for path in (_ROOT / folder).rglob("*.py")]
    code = "".join(path.read_text(encoding="utf-8") for path in sources)
    for variable in set(re.findall(r"\bBIMIX_[A-Z_]+\b", code)):
        assert f"`{variable}`" in page("environment.md")
    for name in bimix_tracking.__all__:
        assert f"::: bimix_tracking.{name}\n" in page("api.md")
    group: Any = typer.main.get_command(app)
    for code in re.findall(r"(?:^|\s)(\d+)  \w", group.help):
        assert f"\n| {code} | " in page("cli.md")


def test_the_scripts_of_the_documentation_do_what_they_say() -> None:
    for path in (_DOCS / "make_sweep.py", _DOCS / "_hooks" / "doctests.py"):
        found = doctest.testmod(module(path))
        assert found.attempted
        assert not found.failed


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site; a warning is a failure."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_is_built_and_loads_nothing_from_elsewhere(site: Path) -> None:
    for name, page in _PAGES.items():
        if name == "README.md":
            continue
        text = (site / page.relative_to(_DOCS).with_suffix(".html")).read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|img|iframe)[^>]+src="?https?:', text)
        assert not re.findall(r'<link[^>]+rel="?(?:stylesheet|preconnect|icon)"?[^>]+href="?https?:', text)
        assert "&gt;&gt;&gt;" not in re.sub(r"<(pre|code).*?</\1>", "", text, flags=re.DOTALL)  # examples are code
    assert not list(site.rglob("_hooks"))


def test_the_page_of_the_command_line_has_every_option(site: Path) -> None:
    text = (site / "reference" / "cli.html").read_text(encoding="utf-8")

    for name, options in _known().items():
        assert f">bimix {name}".rstrip() in text
        for option in options - {"--help", "--install-completion", "--show-completion"}:
            assert option in text


@pytest.fixture(scope="module")
def served(site: Path) -> Iterator[str]:
    """Return the address of the site, served: from disk, browsers don't let a search read its index."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        yield play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])


def test_search_works_without_a_network(served: str, browser: Browser) -> None:
    page = browser.new_page()
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{served}index.html")

    page.set_default_timeout(120_000)
    page.locator("[data-md-component=search-query]").first.focus()
    # What is typed before the index is there is not searched for.
    page.locator(".md-search-result__meta", has_text="Type to start searching").wait_for(state="attached")
    page.locator("[data-md-component=search-query]").first.press_sequentially("jackknife")
    # Each letter is searched for: only a link that carries the whole word is of the last search.
    page.locator(".md-search-result__link[href*='entropies'][href*='h=jackknife']").first.wait_for(state="attached")

    assert [url for url in asked if not url.startswith((served, "data:", "blob:"))] == []
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["index", "tutorial", "reference/cli"])
def test_no_serious_barrier_for_who_cannot_see_or_point(served: str, browser: Browser, name: str, scheme: Any) -> None:
    page = browser.new_page(color_scheme=scheme)
    page.goto(f"{served}{name}.html")

    violations = Axe().run(page).response["violations"]

    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in violations if v["impact"] in ("serious", "critical")] == []


class Quiet(SimpleHTTPRequestHandler):
    """A server of files that says nothing."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def test_blocks_are_found() -> None:
    assert {block.language for block in _BLOCKS} <= {"bash", "python", "text", "yaml", "toml", "csv"}
    assert all(isinstance(block, Block) and block.text for block in _BLOCKS)
    assert len(_RUN) > 15

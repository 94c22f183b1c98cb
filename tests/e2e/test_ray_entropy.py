"""Entropies counted by a real Ray cluster on this machine, whose workers are killed."""

from __future__ import annotations

import gzip
import hashlib
import os
import select
import signal
import subprocess
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import ray.data
from bimix_integrations.engines.ray import RayEngine

from bimix_tracking.entropy.corpora import find_blocks
from bimix_tracking.entropy.corpora.documents import Block, Reading
from bimix_tracking.entropy.domain_counts import DomainCounts, EntropySettings
from bimix_tracking.entropy.measuring import Threads, corpus_entropies
from bimix_tracking.errors import BimixError, CorpusError

_EXAMPLE = Path(__file__).parents[2] / "examples" / "ray_entropy.py"
_STDLIB = Path(sysconfig.get_paths()["stdlib"])
Blocks = Mapping[str, Sequence[Block]]


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    """Start a local Ray; its sockets' paths must be short, so its folder is not pytest's."""
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        with warnings.catch_warnings(category=DeprecationWarning, action="ignore"):
            ray.data.DataContext.get_current()  # it warns of its own settings when it is made
        yield
        ray.shutdown()


def sources(*names: str) -> dict[str, list[Path]]:
    """Return packages of the standard library: domains of real text."""
    return {name: sorted(p for p in (_STDLIB / name).glob("*.py") if p.stat().st_size) for name in names}


def blocks_of(corpora: Mapping[str, Sequence[Path]], settings: EntropySettings) -> Blocks:
    return {name: [b for path in paths for b in find_blocks(path, settings.reading)] for name, paths in corpora.items()}


def quiet(what: str, done: int, total: int) -> None:
    """Show nothing."""


def digests(counts: Mapping[str, DomainCounts]) -> dict[str, str]:
    return {name: hashlib.sha256(found.to_bytes()).hexdigest() for name, found in counts.items()}


def test_a_cluster_counts_what_one_machine_counts() -> None:
    corpora = {
        **sources("email", "json"),
        "latin": [_STDLIB / "test" / "encoded_modules" / "module_iso_8859_1.py"],
    }
    # One domain has something that is not UTF-8, and what is said of it must come back too.
    settings = EntropySettings(
        embed_all=True, sample_tokens=1 << 15, reading=Reading(block_bytes=1 << 14, skip_bad=True)
    )
    blocks = blocks_of(corpora, settings)
    assert len(blocks["email"]) > 32  # more than the driver adds up by itself, and results of results
    told: list[tuple[str, int, int]] = []

    counts = RayEngine(task_bytes=1 << 14)(blocks, settings, lambda *what: told.append(what))

    assert digests(counts) == digests(Threads(2)(blocks, settings, quiet))
    assert counts["latin"].problems.count == 1
    size = sum(block.size for part in blocks.values() for block in part) // 10**6
    assert told[0] == ("counting, MB", 0, size)
    assert told[-1] == ("counting, MB", size, size)
    assert ray.is_initialized()


def test_entropies_of_a_cluster_are_those_of_one_machine() -> None:
    corpora = sources("email", "json")
    settings = EntropySettings(embedder=None)

    found = corpus_entropies(corpora, settings, engine=RayEngine())

    assert found.files() == corpus_entropies(corpora, settings).files()


@pytest.fixture(name="piped")
def _piped(tmp_path: Path) -> tuple[Blocks, Blocks, bytes]:
    """Return blocks, the same ones with the first domain's file a pipe, and what is to be written into it."""
    text = "\n".join(path.read_text() for path in sources("asyncio")["asyncio"])
    content = gzip.compress(text.encode())
    assert len(content) > 1 << 16  # more than a pipe holds: half of it cannot be written unless it is read
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "asyncio.txt.gz").write_bytes(content)
    pipe = tmp_path / "asyncio.txt.gz"
    os.mkfifo(pipe)
    blocks = blocks_of({"asyncio": [tmp_path / "there" / pipe.name], **sources("json")}, EntropySettings())
    return blocks, {**blocks, "asyncio": [replace(block, path=str(pipe)) for block in blocks["asyncio"]]}, content


def count(pool: ThreadPoolExecutor, blocks: Blocks, engine: RayEngine) -> Future[Mapping[str, DomainCounts]]:
    """Begin to count; when that ends nobody waits any longer for a reader of the pipe."""
    counting = pool.submit(engine, blocks, EntropySettings(embedder=None), quiet)
    pipe = blocks["asyncio"][0].path
    counting.add_done_callback(lambda _: os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)))
    return counting


def kill_reader(path: str, content: bytes) -> None:
    """Give a worker half of what it reads, kill it, and wait until it is gone."""
    with open(path, "wb", buffering=0) as pipe:  # noqa: PTH123  # waits for the worker, and takes no more than it reads
        pipe.write(content[: len(content) // 2])
        (worker,) = readers(path)
        gone = os.pidfd_open(worker)
        os.kill(worker, signal.SIGKILL)
        assert select.select([gone], [], [], 60)[0]
        os.close(gone)


def readers(path: str) -> set[int]:
    """Return the processes, other than this one, that have a file open."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) == path:  # noqa: PTH115  # of a socket it is no path
                found.add(int(link.parts[2]))
        except OSError:  # closed meanwhile, or another user's
            continue
    return found - {os.getpid()}


def test_a_killed_worker_changes_no_count(piped: tuple[Blocks, Blocks, bytes]) -> None:
    blocks, through_pipe, content = piped
    path = through_pipe["asyncio"][0].path

    with ThreadPoolExecutor(1) as pool:
        counting = count(pool, through_pipe, RayEngine(task_bytes=1))
        kill_reader(path, content)
        kill_reader(path, content)
        Path(path).write_bytes(content)  # the third worker reads all of it
        counts = counting.result(60)

    assert digests(counts) == digests(Threads()(blocks, EntropySettings(embedder=None), quiet))


def test_a_task_that_kills_its_workers_is_given_up_and_named(piped: tuple[Blocks, Blocks, bytes]) -> None:
    _, through_pipe, content = piped
    path = through_pipe["asyncio"][0].path

    with ThreadPoolExecutor(1) as pool:
        counting = count(pool, through_pipe, RayEngine(retries=0))
        kill_reader(path, content)

        with pytest.raises(BimixError, match=f"counting 1 blocks from {path} on: 1 workers died in turn"):
            counting.result(60)


def test_a_domains_text_field_is_its_own_on_any_worker(tmp_path: Path) -> None:
    (tmp_path / "code.jsonl").write_text('{"data": {"text": "some text of a domain"}}\n' * 30)
    (tmp_path / "web.jsonl").write_text('{"text": "other text of another domain"}\n' * 30)
    corpora = {"code": tmp_path / "code.jsonl", "web": tmp_path / "web.jsonl"}
    settings = EntropySettings(embedder=None, reading=Reading(text_fields={"code": "data.text"}))

    found = corpus_entropies(corpora, settings, engine=RayEngine())

    assert found.files() == corpus_entropies(corpora, settings).files()


@pytest.mark.parametrize("engine", [Threads(), RayEngine()])
def test_an_error_is_the_same_from_anywhere(
    tmp_path: Path, engine: Callable[..., Mapping[str, DomainCounts]], capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"text": "a"}\n{"content": "b"}\n')

    with pytest.raises(CorpusError) as raised:
        corpus_entropies({"bad": file, **sources("json")}, EntropySettings(embedder=None), engine=engine)

    assert type(raised.value) is CorpusError
    assert str(raised.value) == (
        f"domain 'bad': {file}, line 2 at byte 14 has no field 'text'; there are 'content'. Give the text's field: "
        "--text-field FIELD, for one domain DOMAIN=FIELD (text_field, text_fields)"
    )
    assert type(raised.value.__cause__) in {type(None), CorpusError}  # nothing of Ray
    assert capfd.readouterr() == ("", "")


_DRIVER = """
import sys

from bimix_integrations.engines.ray import RayEngine
from bimix_tracking.entropy.domain_counts import EntropySettings
from tests.e2e.test_ray_entropy import blocks_of, digests, quiet, ray, sources

settings = EntropySettings(embedder=None)
print(digests(RayEngine(sys.argv[1])(blocks_of(sources("email", "json"), settings), settings, quiet)))
assert not ray.is_initialized()
"""


def test_a_cluster_is_joined_by_its_address_and_stays() -> None:
    address = ray.get_runtime_context().gcs_address
    settings = EntropySettings(embedder=None)
    expected = digests(Threads()(blocks_of(sources("email", "json"), settings), settings, quiet))

    joined = subprocess.run(
        [sys.executable, "-c", _DRIVER, address], capture_output=True, text=True, timeout=120, check=False
    )

    assert (joined.stdout, joined.stderr) == (f"{expected}\n", "")
    assert ray.is_initialized()
    with pytest.raises(BimixError, match=f"uses the Ray cluster at {address} already, not 'localhost:1'"):
        RayEngine("localhost:1")({}, settings, quiet)


def test_the_example_runs_on_a_cluster_of_its_own() -> None:
    done = subprocess.run([sys.executable, str(_EXAMPLE)], capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "conditional" in done.stdout

"""Ray: a corpus counted by a cluster.

corpus_entropies(corpora, settings, engine=RayEngine("auto"))

A Ray Data job: each task counts a few blocks of one domain, further tasks add up eight results at a time, and the
driver adds the last one or two of each domain. Scheduling, retries and lost results are Ray's. Counts add to the same
in any order, so neither the number of workers nor a worker that dies changes them.

All nodes need this package, at the same version, and the files under the same paths: a shared file system.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pickle
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from bimix_tracking.entropy.corpora.documents import Block
from bimix_tracking.entropy.domain_counts import DomainCounts, EntropySettings
from bimix_tracking.errors import BimixError, MissingDependencyError
from bimix_tracking.progress import Progress

try:
    import ray
    import ray.data
    import ray.util.client
    from ray.exceptions import RayError, RayTaskError

    from bimix_integrations.engines.ray_tasks import Tally, count, merge
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in {"ray", "pyarrow"}:  # they are there, but broken: unchanged
        raise
    raise MissingDependencyError("ray", extra="ray") from error

TASK_BYTES = 256 << 20
"""Bytes of files that a task counts, at most: what is lost with a worker, against results that must travel."""
RETRIES = 10
_TASKS_PER_CPU = 4
_FAN_IN = 8
_FEW = 32
"""Results that the driver adds up by itself."""
_MANY_CALLS = 1 << 20
_LEAST_MEMORY = 32 << 20
_SECONDS = 0.5
_PATIENCE = 10
"""Seconds that an address may take to answer."""
_NO_TASK = -1


class RayEngine:
    """Count blocks on a Ray cluster: the same counts as on one machine, to the last one.

    A Ray that this process has begun is used, and stays. Else the cluster at the address is joined for the time of
    the count; where there is none, a local one is started and ended.

    `EntropySettings.memory` is of each node: its workers share it. Results travel whole all the same, so a worker, and
    the driver, need memory for the pairs of a domain: 16 bytes a distinct one, and about six times that while adding.

    Args:
        address: As `ray.init` takes it. By default the one in `RAY_ADDRESS`, else the cluster that `ray start` has
            begun on this machine, else a new local one; `local`: always a new one; `auto`: never. Not of a client
            (`ray://`), which Ray Data doesn't run through.
        task_bytes: Bytes of files that a task counts, at most.
        retries: How often a task is tried again whose worker or node has died; -1: without end.
        verbose: Whether Ray shows its own progress and log.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        task_bytes: int = TASK_BYTES,
        retries: int = RETRIES,
        verbose: bool = False,
    ) -> None:
        self.address = address or None
        self.task_bytes = task_bytes
        self.retries = retries
        self.verbose = verbose

    def __call__(
        self, blocks: Mapping[str, Sequence[Block]], settings: EntropySettings, progress: Progress
    ) -> Mapping[str, DomainCounts]:
        """Return the counts of each domain.

        Raises:
            CorpusError: As `count_blocks`, with its text.
            BimixError: There is no such cluster, or it could not count.
        """
        totals = [DomainCounts.empty(replace(settings, memory=settings.memory // max(len(blocks), 1))) for _ in blocks]
        with (
            _connected(self.address, verbose=self.verbose),
            _console(verbose=self.verbose),
            _ray_errors(),
            contextlib.closing(self._counted(blocks, settings, progress)) as counted,
        ):
            for domain, counts in counted:
                totals[domain] += DomainCounts.from_bytes(counts)
                totals[domain].entropy.settle()
        return dict(zip(blocks, totals, strict=True))

    def _counted(
        self, blocks: Mapping[str, Sequence[Block]], settings: EntropySettings, progress: Progress
    ) -> Generator[tuple[int, bytes]]:
        """Yield domains, by place, and counts that are to be added: about two of each."""
        tasks = list(self._tasks(blocks))
        if not tasks:
            return
        tally = ray.remote(num_cpus=0, max_restarts=-1)(Tally).remote()
        # A worker holds the counts of a block and of a task.
        own = replace(settings, memory=max(settings.memory // (2 * max(_cpus())), _LEAST_MEMORY))
        dataset: ray.data.Dataset = ray.data.from_items(
            [{"task": pickle.dumps((number, *task))} for number, task in enumerate(tasks)],
            override_num_blocks=len(tasks),
        ).map_batches(
            functools.partial(count, settings=own, tally=tally, retries=self.retries),
            batch_size=1,
            batch_format="pyarrow",
        )
        most, level = max(Counter(domain for domain, _ in tasks).values()), 0
        while most > 2 and most * len(blocks) > _FEW:
            level += 1
            dataset = dataset.map_batches(
                functools.partial(merge, level=level, tally=tally, retries=self.retries),
                batch_size=_FAN_IN,
                batch_format="pyarrow",
                num_cpus=0,  # Ray Data keeps some for each step, busy or not, and counting would go without them
                # Steps that ask for the same are run as one, which would merge only within a task. So this differs.
                max_calls=_MANY_CALLS + level,
            )
            most = (most + _FAN_IN - 2) // _FAN_IN + 1  # a domain's results may begin within a batch
        context = dataset.context
        context.execution_options.preserve_order = True  # a domain's results meet in the same batches
        context.raise_original_map_exception = True
        context.execution_no_progress_timeout_s = -1  # a task may embed for long
        context.enable_progress_bars = context.print_on_execution_start = self.verbose
        size = sum(block.size for part in blocks.values() for block in part)
        with _watched(tally, size, progress):
            left = False
            batch: Any
            for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
                for row in batch.to_pylist():
                    if row["error"] is not None:
                        raise pickle.loads(row["error"])  # noqa: S301  # from our own workers
                    left = left or row["counts"] is None
                    if row["counts"] is not None:
                        yield row["domain"], row["counts"]
            if left:
                raise BimixError("a worker could not read a file that the next one could: count again")

    def _tasks(self, blocks: Mapping[str, Sequence[Block]]) -> Iterator[tuple[int, list[Block]]]:
        """Divide the blocks of each domain into tasks, several for each processor there is."""
        size = sum(block.size for part in blocks.values() for block in part)
        most = min(self.task_bytes, size / (_TASKS_PER_CPU * sum(_cpus())))
        for domain, part in enumerate(blocks.values()):
            task: list[Block] = []
            taken = 0
            for block in part:
                if task and taken + block.size > most:
                    yield domain, task
                    task, taken = [], 0
                # Workers have a working directory of their own.
                task.append(replace(block, path=str(Path(block.path).absolute())))
                taken += block.size
            if task:
                yield domain, task


@contextlib.contextmanager
def _watched(tally: Any, size: int, progress: Progress) -> Iterator[None]:
    """Call `progress` from a thread while the job goes on; what it raises ends the job, and is raised."""
    over = threading.Event()

    def watch() -> None:
        most = 0
        while not over.wait(_SECONDS):
            with contextlib.suppress(RayError):  # it went with its node, and starts again: progress is no result
                most = max(most, ray.get(tally.size.remote(), timeout=_PATIENCE))
            try:
                progress("counting, MB", most // 10**6, size // 10**6)
            except BaseException:
                tally.fail.remote(_NO_TASK)
                raise

    progress("counting, MB", 0, size // 10**6)
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            yield
        finally:
            over.set()
            watching.result()
    progress("counting, MB", size // 10**6, size // 10**6)


@contextlib.contextmanager
def _connected(address: str | None, *, verbose: bool) -> Iterator[None]:
    """Use the Ray there is, or join or start one and leave or end it."""
    wanted = address or os.environ.get("RAY_ADDRESS") or "local"
    through_client: Callable[[], bool] = ray.util.client.ray.is_connected
    if through_client() or ("://" in wanted and not ray.is_initialized()):
        raise BimixError(
            "Ray Data doesn't run through a Ray client (ray://). Give the cluster's address (host:6379) on one of "
            "its nodes, or have the cluster run the script (`ray job submit`)"
        )
    if ray.is_initialized():
        used = ray.get_runtime_context().gcs_address
        if address not in {None, "auto", used}:
            raise BimixError(
                f"this process uses the Ray cluster at {used} already, not {address!r}: "
                "give no address, or call ray.shutdown() before"
            )
        yield
        return
    options: dict[str, Any] = {} if verbose else {"log_to_driver": False, "logging_level": logging.ERROR}
    if wanted == "local":
        options["include_dashboard"] = False
    try:
        if re.fullmatch(r"[^/]+:\d+", wanted):  # Ray would try for minutes
            host, _, port = wanted.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
        # Of a cluster that it starts Ray itself sends no usage statistics; another one's are its owner's to decide.
        ray.init(address, **options)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise BimixError(
            f"no Ray cluster at {wanted!r}: {str(error).partition(chr(10))[0].rstrip('.')}. Start one with "
            "`ray start --head`, or use `local`; for one that asks for a token, set RAY_AUTH_MODE=token"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _console(*, verbose: bool) -> Iterator[None]:
    """Keep what Ray Data says below a warning off the console, and its warning that it shows no progress."""
    if verbose:
        yield
        return
    data = logging.getLogger("ray.data")
    shown = [part for part in data.handlers if isinstance(part, logging.StreamHandler)]
    changed: dict[logging.Handler | logging.Logger, int] = dict.fromkeys(shown, logging.WARNING)
    changed[data.getChild("_internal.progress")] = logging.ERROR
    before = {one: one.level for one in changed}
    try:
        for one, level in changed.items():
            one.setLevel(max(one.level, level))
        yield
    finally:
        for one, level in before.items():
            one.setLevel(level)


@contextlib.contextmanager
def _ray_errors() -> Iterator[None]:
    """Say in a line what Ray says in a page, which is the cause."""
    try:
        yield
    except RayError as error:
        found = error.cause if isinstance(error, RayTaskError) else error
        raise BimixError(
            f"the Ray cluster could not count: {type(found).__name__}: {str(found).partition(chr(10))[0]}. Is this "
            "package installed on all nodes, at the same version?"
        ) from error


def _cpus() -> list[int]:
    """Return the processors of each node that has some; 1 if none has yet."""
    nodes: Callable[[], list[dict[str, Any]]] = ray.nodes
    return [int(cpus) for node in nodes() if node["Alive"] and (cpus := node["Resources"].get("CPU", 0)) >= 1] or [1]

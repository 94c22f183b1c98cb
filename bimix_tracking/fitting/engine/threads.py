"""Batches of array work side by side: NumPy lets go of Python's lock while it computes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")
_MOST = 8
"""Beyond that the lock between the array operations is what threads wait for."""


def workers() -> int:
    """Return how many batches are worked on at once: the processors this process may use, as far as they help."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")  # how users and schedulers say that other work shares the machine
    return max(1, min(_MOST, count, int(asked) if asked.isdecimal() and int(asked) > 0 else count))


def in_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return the results in the order of the items; after an interrupt or an error no further batch is begun."""
    many = min(workers(), len(items))
    with one_blas_thread():
        if many < 2:
            return [work(item) for item in items]
        with ThreadPoolExecutor(many) as pool:
            begun = [pool.submit(work, item) for item in items]
            try:
                return [one.result() for one in begun]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep BLAS to one thread: on matrices as small as ours its own wait for one another, at five times the work."""
    with _libraries().limit(limits=1, user_api="blas"):
        yield


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()

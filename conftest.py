"""For all tests and doctests: what one test has made known to the process is unknown to the next."""

import gc
import os
from collections.abc import Iterator

import pytest

from bimix_tracking import credentials


@pytest.fixture(scope="module", autouse=True)
def _imports_are_no_garbage() -> None:
    """Leave what is there so far out of all collections of garbage: accelerate's and the compiler's look at no module.

    With torch, transformers and MLflow loaded each would take half a second, several times in a test.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _no_wait_for_the_disk() -> Iterator[None]:
    """Write files without waiting for the disk, as a journal does for each row: no test outlives a loss of power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(autouse=True)
def _no_known_secrets() -> Iterator[None]:
    """Forget the passwords of URIs that a test opened: the word would be hidden from the texts of the next one."""
    credentials.forget()
    yield
    credentials.forget()

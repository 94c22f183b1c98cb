"""For all tests and doctests: what one test has made known to the process is unknown to the next."""

from collections.abc import Iterator

import pytest

from bimix_tracking import credentials


@pytest.fixture(autouse=True)
def _no_known_secrets() -> Iterator[None]:
    """Forget the passwords of URIs that a test opened: the word would be hidden from the texts of the next one."""
    credentials.forget()
    yield
    credentials.forget()

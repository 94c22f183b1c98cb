"""What tests across all layers share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import mlflow_stores


@pytest.fixture(scope="session", autouse=True)
def _stores_are_copied() -> Iterator[None]:
    """Migrate one new store of MLflow, not dozens."""
    with mlflow_stores.copied():
        yield

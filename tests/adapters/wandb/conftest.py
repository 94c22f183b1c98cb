"""A W&B server on loopback, one a module, and no run of W&B's left open by a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import wandb

from tests.adapters.wandb.wandb_server import WandbServer, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WandbServer]:
    with serving(tmp_path_factory.mktemp("wandb")) as found:
        yield found


@pytest.fixture
def no_run_left(server: WandbServer) -> Iterator[None]:
    """End what a test has left open, and let the server refuse nothing any more."""
    yield
    server.refused = (0, 429, {})
    if wandb.run is not None:
        wandb.run.finish()

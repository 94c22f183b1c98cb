"""Nominal proportions in W&B's config, which a host or a sweep may have used already; and which metrics have charts."""

from __future__ import annotations

import logging

import pytest
import wandb
from bimix_integrations.trackers.wandb import WandbSource, WandbTracker

from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.mixture import Mixture
from bimix_tracking.tracking.ports import Row
from tests.adapters.wandb.wandb_server import WandbServer

pytestmark = pytest.mark.usefixtures("no_run_left")

_HIDDEN = 2
"""As W&B's `MetricOptions` numbers it."""


def manifest(first: float) -> RunManifest:
    return RunManifest(("code", "c++"), Mixture({"code": first, "c++": 1 - first}))


def log(tracker: WandbTracker, step: int) -> None:
    tracker.log([Row(step, 5.0 + step, {"bimix/step": step, "bimix/tokens": 10.0 * step, "bimix_eval_loss/code": 2.0})])


def test_axes_have_no_charts_of_their_own(server: WandbServer) -> None:
    tracker = WandbTracker("wandb:axes")
    tracker.start(manifest(0.25))
    log(tracker, 1)
    tracker.finish()

    defined = {metric["1"]: metric["6"] for metric in server.only("axes").config["_wandb"]["value"]["m"]}
    hidden = {name for name, options in defined.items() if _HIDDEN in options}
    assert hidden == {"bimix/step", "bimix/tokens", "bimix/time"}
    assert set(defined) - hidden == {"bimix_eval_loss/code"}


@pytest.mark.parametrize(("again", "warned"), [(0.25, 0), (0.5, 1)])
def test_a_resumed_run_keeps_its_proportions_and_trains(
    server: WandbServer, again: float, warned: int, caplog: pytest.LogCaptureFixture
) -> None:
    project = f"again-{warned}"
    first = WandbTracker(f"wandb:{project}")
    first.start(manifest(0.25))
    log(first, 1)
    first.finish()
    tracker = WandbTracker(f"wandb:{project}")
    tracker.resume(first.run_id, 1)
    with caplog.at_level(logging.WARNING, "bimix_integrations"):
        tracker.start(manifest(again))
        tracker.start(manifest(again))  # the manifest has grown
    log(tracker, 2)
    tracker.finish()

    run = server.only(project)
    assert run.config["mixture"]["value"] == {"code": 0.25, "c_372946aa": 0.75}
    assert len([record for record in caplog.records if record.name.startswith("bimix")]) == warned
    (record,) = WandbSource(f"wandb:local/{project}").records()
    assert [row["bimix/step"] for row in record.rows] == [1, 2]
    assert record.manifest.mixture == manifest(again).mixture  # the manifest counts


@pytest.mark.parametrize("theirs", ["mixtures/pilot-1.yaml", {"code": 1, "c_372946aa": 3}])
def test_a_host_s_own_config_stays(server: WandbServer, theirs: object, caplog: pytest.LogCaptureFixture) -> None:
    project = f"theirs-{type(theirs).__name__}"
    host = wandb.init(project=project, config={"mixture": theirs})
    tracker = WandbTracker(f"wandb:{project}")
    tracker.share()
    tracker.adopt_active()
    tracker.start(manifest(0.25))
    log(tracker, 1)
    tracker.finish()
    host.finish()

    run = server.only(project)
    assert tracker.run_id == host.id
    assert run.config["mixture"]["value"] == theirs
    assert run.config["bimix"]["value"]["mixture"] == {"code": 0.25, "c++": 0.75}
    assert len([record for record in caplog.records if record.name.startswith("bimix")]) == 1


def test_without_a_mixture_nothing_is_said_of_one(server: WandbServer) -> None:
    tracker = WandbTracker("wandb:none")
    tracker.start(RunManifest(("code", "c++")))
    log(tracker, 1)
    tracker.finish()
    assert "mixture" not in server.only("none").config

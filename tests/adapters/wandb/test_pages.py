"""Reports and workspaces by W&B's own library, saved to a server on loopback and read back."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import wandb_workspaces.reports.v2 as wr
from bimix_integrations.trackers.wandb import pages

from bimix_tracking import Observations, analyze
from bimix_tracking.analysis.result import Analysis
from tests.adapters.wandb.wandb_server import ENTITY, WandbServer

HOSTILE = "<b>c++</b>"


@pytest.fixture(scope="module")
def found() -> Analysis:
    rows = [
        {"a": a, "b": 1 - a, "tokens": s, "la": a**-0.1 * (90 / s**0.5 + 3), "lb": (1 - a) ** -0.1 * (40 / s**0.4 + 1)}
        for a in (0.2, 0.5, 0.7) for s in (1e3, 4e3, 1.6e4, 6.4e4)
    ]  # fmt: skip
    losses = {"web": "lb", HOSTILE: "la"}
    obs = Observations.from_wide(
        pd.DataFrame(rows), proportions={HOSTILE: "a", "web": "b"}, losses=losses, tokens="tokens"
    )
    return analyze(obs, tokens=1e9)


def test_a_report_is_saved_and_is_the_same_when_read(server: WandbServer, found: Analysis) -> None:
    server.run("sweep", "any", entity=ENTITY, create=True)
    made = pages.report(found, f"{ENTITY}/sweep")
    made.save()

    stored = server.views[made.id]
    assert (stored["displayName"], stored["project"]["name"]) == ("Data mixture for 1B tokens", "sweep")
    again = wr.Report.from_url(made.url)
    assert [type(block) for block in again.blocks][:2] == [wr.MarkdownBlock, wr.CodeBlock]
    text = "".join(block.text for block in again.blocks if isinstance(block, wr.MarkdownBlock))
    assert "&lt;b&gt;c++&lt;/b&gt;" in text  # a name stays text
    lines, scatter = (block for block in again.blocks if isinstance(block, wr.PanelGrid))
    for grid, kind in ((lines, wr.LinePlot), (scatter, wr.ScatterPlot)):
        assert [(type(panel), panel.title) for panel in grid.panels] == [(kind, name) for name in found.fit.domains]
        assert "bimix-analysis" in str(grid.runsets[0].filters)  # they have no losses along training
    assert "bimix_eval_loss/web" in stored["spec"]
    assert "bimix_share/web" in stored["spec"]


def test_a_workspace_is_saved_with_a_section_a_quantity(server: WandbServer, found: Analysis) -> None:
    server.run("sweep", "any", entity=ENTITY, create=True)
    pages.workspace(f"{ENTITY}/sweep", found.fit.domains).save()

    spec = json.loads(next(view["spec"] for view in server.views.values() if "Training loss" in view["spec"]))
    sections = spec["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == [
        "Loss against the domain's own proportion", "Evaluation loss, nats per token", "Training loss, nats per token",
        "Realised proportions", "Tokens by domain", "Entropies of the training stream, nats",
    ]  # fmt: skip
    assert [len(section["panels"]) for section in sections] == [2] * 6
    assert "bimix-analysis" in json.dumps(spec["section"]["runSets"])


@pytest.mark.parametrize("project", ["sweep", "/sweep", "team/", "a/b/c"])
def test_a_project_has_an_entity(project: str) -> None:
    with pytest.raises(ValueError, match="is not ENTITY/PROJECT"):
        pages.workspace(project, ["a"])


def test_a_workspace_shows_targets_where_they_are_named() -> None:
    view = pages.workspace(f"{ENTITY}/sweep", ["web"], targets=["gsm8k/bpb"])

    section = next(section for section in view.sections if section.name == "Targets")
    (panel,) = section.panels
    assert (panel.title, panel.x, panel.y) == ("gsm8k/bpb", "bimix/tokens", ["bimix_target/gsm8k_bpb_5a65748f"])

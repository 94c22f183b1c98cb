"""W&B's own pages of a sweep: a workspace with a section for each quantity, and a report of an analysis.

Both are objects of `wandb-workspaces`, to be looked at, changed and saved by whoever asked for them: saving makes a
page in somebody's project, and only they can want that. They were tested against a server on loopback; how W&B draws
them wasn't seen.
"""

from __future__ import annotations

from collections.abc import Sequence

from bimix_integrations.trackers.wandb.analyses import JOB_TYPE
from bimix_tracking.analysis.result import Analysis
from bimix_tracking.data.metric_names import DOMAIN_TOKENS, ENTROPIES, EVAL_LOSS, SHARE, TARGET, TOKENS, TRAIN_LOSS, key
from bimix_tracking.errors import MissingDependencyError
from bimix_tracking.messages import said
from bimix_tracking.quantities import tokens
from bimix_tracking.report.language import Language

try:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "wandb_workspaces":  # it is there, but broken: unchanged
        raise
    raise MissingDependencyError("wandb_workspaces", extra="wandb-report") from error

_SECTIONS = (
    (EVAL_LOSS, "Evaluation loss, nats per token"),
    (TRAIN_LOSS, "Training loss, nats per token"),
    (SHARE, "Realised proportions"),
    (DOMAIN_TOKENS, "Tokens by domain"),
)
_NO_ANALYSES = f"Metric('JobType') != '{JOB_TYPE}'"


def workspace(
    project: str, domains: Sequence[str], *, targets: Sequence[str] = (), name: str = "Mixture sweep"
) -> ws.Workspace:
    """Return a view of a sweep's runs: a section a quantity, a chart a domain, against training tokens.

    The first section is what the law is about: each run's last loss of a domain against its proportion, on log axes.

    Args:
        project: `ENTITY/PROJECT`.
        domains: Whose charts are shown.
        targets: What was recorded beside the domains' losses: a section of its own.
        name: Of the view.

    Raises:
        ValueError: The project isn't named so.

    >>> view = workspace("team/my-sweep", ["code", "c++"])
    >>> [section.name for section in view.sections][:2], len(view.sections[0].panels)
    (["Loss against the domain's own proportion", 'Evaluation loss, nats per token'], 2)
    """
    entity, project = _split(project)
    sections = [
        ws.Section(name="Loss against the domain's own proportion", panels=_against_proportion(domains), is_open=True),
        *(
            ws.Section(name=title, panels=_lines([quantity], domains), is_open=quantity == EVAL_LOSS)
            for quantity, title in _SECTIONS
        ),
        ws.Section(name="Entropies of the training stream, nats", panels=_lines(ENTROPIES, domains)),
    ]
    if targets:
        sections.insert(1, ws.Section(name="Targets", panels=_lines([TARGET], targets), is_open=True))
    proxy_runs = ws.RunsetSettings(filters=_NO_ANALYSES)
    return ws.Workspace(entity=entity, project=project, name=name, sections=sections, runset_settings=proxy_runs)


def report(found: Analysis, project: str) -> wr.Report:
    """Return a report of an analysis: the answer, the mixture, what to doubt, and the proxy runs' losses below.

    `report(found, "team/my-sweep").save()` makes it a page of the project. It shows what W&B can: the explorer and the
    figures are in `report.html`, an artifact of the analysis's run.

    Args:
        found: The analysis, in whose language it is.
        project: `ENTITY/PROJECT`, where the runs are.

    Raises:
        ValueError: The project isn't named so.

    >>> from bimix_tracking import Observations, analyze
    >>> import pandas as pd
    >>> rows = [{"a": a, "b": 1 - a, "tokens": s, "la": a**-0.1 * (9 / s**0.3 + 3), "lb": (1 - a)**-0.1 * 2}
    ...         for a in (0.2, 0.5, 0.7) for s in (1e3, 4e3, 1.6e4, 6.4e4)]
    >>> losses = {"a": "la", "b": "lb"}
    >>> obs = Observations.from_wide(pd.DataFrame(rows), proportions=["a", "b"], losses=losses, tokens="tokens")
    >>> report(analyze(obs, tokens=1e5, replicates=0), "team/my-sweep").title
    'Data mixture for 100k tokens'
    """
    entity, name = _split(project)
    say = Language(found.lang)
    rec = found.recommendation
    runs = wr.Runset(entity=entity, project=name, name=say(said("proxy runs")), filters=_NO_ANALYSES)
    return wr.Report(
        entity=entity,
        project=name,
        title=say(said("Data mixture for {tokens} tokens", tokens=tokens(rec.tokens))),
        description=f"bimix, data {found.fit.data_hash}",
        blocks=[
            wr.MarkdownBlock(text=found.note()),
            wr.CodeBlock(code=found.mixture_yaml(), language="yaml"),
            wr.H2(text=say(said("Loss along training"))),
            wr.PanelGrid(runsets=[runs], panels=_lines([EVAL_LOSS], found.fit.domains)),
            wr.H2(text=say(said("Loss against the domain's own proportion"))),
            wr.PanelGrid(runsets=[runs], panels=_against_proportion(found.fit.domains)),
        ],
    )


def _lines(quantities: Sequence[str], domains: Sequence[str]) -> list[wr.LinePlot]:
    return [
        wr.LinePlot(title=domain, x=TOKENS, y=[key(quantity, domain) for quantity in quantities]) for domain in domains
    ]


def _against_proportion(domains: Sequence[str]) -> list[wr.ScatterPlot]:
    return [
        wr.ScatterPlot(
            title=domain,
            x=wr.SummaryMetric(key(SHARE, domain)),
            y=wr.SummaryMetric(key(EVAL_LOSS, domain)),
            log_x=True,
            log_y=True,
        )
        for domain in domains
    ]


def _split(project: str) -> tuple[str, str]:
    entity, slash, name = project.partition("/")
    if not (entity and slash and name) or "/" in name:
        raise ValueError(f"{project!r} is not ENTITY/PROJECT")
    return entity, name

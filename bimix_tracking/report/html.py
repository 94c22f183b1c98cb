"""The report as one HTML file: it loads nothing, runs one script of ours, and opens anywhere."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from bimix_tracking.display import gains as gains_picture
from bimix_tracking.display.proportions import STYLE, mixture_chart
from bimix_tracking.display.texts import printable
from bimix_tracking.messages import Said
from bimix_tracking.quantities import MISSING, parameters
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.report import content, explorer, figures, laws, mixture_figures
from bimix_tracking.report import gains as changes
from bimix_tracking.report.evidence import Findings, evidence
from bimix_tracking.report.language import Language
from bimix_tracking.report.panels.drawn import drawn
from bimix_tracking.report.panels.held_out import held_out_panels
from bimix_tracking.report.panels.marks import Marks
from bimix_tracking.report.scale import pictures
from bimix_tracking.report.templates import Verbatim, fill


def render(result: content.Result) -> str:
    """Return the HTML page of an analysis: the verdict, the mixture, four figures, what decides; then the evidence.

    Args:
        result: An `Analysis`.

    Raises:
        MissingDependencyError: Jinja2 isn't installed.
    """
    fit, rec, say = result.fit, result.recommendation, Language(result.lang)
    obs = drawn(result.observations, result.fitted, fit.bridge)
    page = content.page(result)
    unscripted = explorer.unscripted(fit)
    script = explorer.script(fit)
    values: dict[str, Any] | None = None
    if not unscripted:
        values = explorer.content(result.observations, fit, rec, result.replicates, say)
    return fill(
        "report.html.j2",
        say,
        **_shown(result, say, rec),
        page=page,
        scale=page.scale,
        rank_pictures=[Verbatim(one) for one in ([] if result.ranks is None else pictures.pictures(result.ranks, say))],
        glossary=content.GLOSSARY,
        most_caveats=content.MOST_CAVEATS,
        most_moved=mixture_figures.MOST_MOVED,
        chart=Verbatim(mixture_chart(mixture_figures.rows(fit, rec), say)),
        gains=Verbatim(changes.chart(rec, page.gains, say)),
        several=len({rec.target(name).kind for name in rec.predicted}) > 1,
        path=Verbatim("" if rec.path is None else mixture_figures.path(rec, rec.path, say)),
        trade=Verbatim("" if result.pareto is None else mixture_figures.trade(result.pareto, say)),
        moved=[Verbatim(panel) for panel in mixture_figures.moved(fit, rec, say)],
        response=[
            Verbatim(figures.response(obs, fit, rec, target, domain, say))
            for target, domain in figures.movers(fit, rec).items()
        ],
        explorer=values,
        explorer_outside=explorer.outside_rows(fit, rec),
        measured=any(target in fit.domains for target in fit.targets),
        unscripted=printable(", ".join(unscripted)),
        explorer_data=Verbatim("" if values is None else explorer.as_script(values)),
        script=Verbatim(script),
        # The page's policy lets this one script run, and nothing that a name could smuggle in.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def render_undecided(found: Findings, why: str) -> str:
    """Return the page of a sweep from which no mixture can be recommended: why, and what it does show.

    Args:
        found: What there is of an analysis.
        why: The error's text.

    Raises:
        MissingDependencyError: Jinja2 isn't installed.
    """
    say = Language(found.lang)
    # The error begins with what is the page's headline.
    remedies = why.values.get("remedies") if isinstance(why, Said) else None
    told = printable(remedies if isinstance(remedies, str) else why)
    return fill("undecided.html.j2", say, **_shown(found, say), page=evidence(found, (why,)), why=told, response=[])


def _shown(found: Findings, say: Language, rec: Recommendation | None = None) -> dict[str, Any]:
    """Return what both pages show of the fit."""
    fit = found.fit
    obs = drawn(found.observations, found.fitted, fit.bridge)
    curves = figures.predict_curves(obs, fit)
    held = [] if found.validation is None else held_out_panels(found.validation, obs, say)
    training = [
        figures.training(obs, fit, curves, target, domain, say)
        for target, domain in figures.movers(fit, rec).items()
        if fit.only_volume(target) is None
    ]
    return {
        "fit_note": laws.fit_note(fit),
        "chart_style": Verbatim(STYLE + gains_picture.STYLE),
        "shades": figures.SHADES,
        "most_curves": figures.MOST_CURVES,
        "held_out": [Verbatim(one) for one in held],
        "training": [Verbatim(one) for one in training],
        "size_key": [(Verbatim(mark), size) for mark, size in Marks(obs).key()],
        "level_size": MISSING if fit.model_size is None else parameters(fit.model_size),
    }

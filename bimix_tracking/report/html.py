"""The report as one HTML file: it loads nothing, runs nothing, and opens anywhere."""

from __future__ import annotations

from bimix_tracking.report import content, figures, laws
from bimix_tracking.report.templates import Drawing, fill


def render(result: content.Result) -> str:
    """Return the HTML page of an analysis: the answer first, then what to doubt, then what it rests on.

    Args:
        result: An `Analysis`.

    Raises:
        MissingDependencyError: Jinja2 isn't installed.
    """
    obs, fit, rec = result.observations, result.fit, result.recommendation
    curves = figures.predict_curves(obs, fit)
    targets = [target for target in fit.targets if target in fit.domains]
    return fill(
        "report.html.j2",
        page=content.page(result),
        caution=content.CAUTION,
        fit_note=laws.FIT_NOTE,
        glossary=content.GLOSSARY,
        shades=figures.SHADES,
        most_curves=figures.MOST_CURVES,
        mixtures=Drawing(figures.mixtures(obs, fit, rec)),
        training=[Drawing(figures.training(obs, fit, curves, target)) for target in targets],
        response=[Drawing(figures.response(obs, fit, rec, target)) for target in targets],
    )

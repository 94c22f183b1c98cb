"""The report as one HTML file: it loads nothing, runs nothing, and opens anywhere."""

from __future__ import annotations

from importlib import resources

from bimix_tracking.errors import MissingDependencyError
from bimix_tracking.report import content, figures, laws


def render(result: content.Result) -> str:
    """Return the HTML page of an analysis: the answer first, then what to doubt, then what it rests on.

    Args:
        result: An `Analysis`.

    Raises:
        MissingDependencyError: Jinja2 isn't installed.
    """
    try:
        import jinja2  # noqa: PLC0415  (only the report needs it)
        import markupsafe  # noqa: PLC0415  (Jinja2's own)
    except ModuleNotFoundError as error:
        if error.name != "jinja2":
            raise
        raise MissingDependencyError("jinja2", extra="report") from error
    obs, fit, rec = result.observations, result.fit, result.recommendation
    curves = figures.predict_curves(obs, fit)
    targets = [target for target in fit.targets if target in fit.domains]
    source = resources.files("bimix_tracking.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # The figures escape their own text; everything else is escaped by the template.
    return environment.from_string(source).render(
        page=content.page(result),
        caution=content.CAUTION,
        fit_note=laws.FIT_NOTE,
        glossary=content.GLOSSARY,
        shades=figures.SHADES,
        most_curves=figures.MOST_CURVES,
        mixtures=markupsafe.Markup(figures.mixtures(obs, fit, rec)),  # noqa: S704
        training=[markupsafe.Markup(figures.training(obs, fit, curves, target)) for target in targets],  # noqa: S704
        response=[markupsafe.Markup(figures.response(obs, fit, rec, target)) for target in targets],  # noqa: S704
    )

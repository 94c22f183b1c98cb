"""Pages from the templates of this folder: everything is escaped unless it is a figure of ours."""

from __future__ import annotations

from importlib import resources

from bimix_tracking.errors import MissingDependencyError


def fill(template: str, /, **content: object) -> str:
    """Return the page of a template.

    Args:
        template: Its file in this folder.
        content: What it asks for; a `Drawing` goes in as it is.

    Raises:
        MissingDependencyError: Jinja2 isn't installed.
    """
    try:
        import jinja2  # noqa: PLC0415  (only pages need it)
    except ModuleNotFoundError as error:
        if error.name != "jinja2":
            raise
        raise MissingDependencyError("jinja2", extra="report") from error
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**content)


class Drawing(str):
    """SVG of ours, whose texts are escaped: a template takes it as it is."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


def _text(name: str) -> str:
    return resources.files("bimix_tracking.report").joinpath(name).read_text(encoding="utf-8")

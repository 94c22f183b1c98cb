"""What an analysis found, and the files it leaves: mixture, fit, checks, lineage, report."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from bimix_tracking.analysis.provenance import columns, mixture_document
from bimix_tracking.analysis.showing import card, note
from bimix_tracking.data.observations import Observations
from bimix_tracking.display.card import Card, Shown
from bimix_tracking.display.notebook import show_page
from bimix_tracking.errors import MissingDependencyError
from bimix_tracking.exports.formats import all_formats, write_exports
from bimix_tracking.files.atomic_folder import staged
from bimix_tracking.files.yaml_json import dump_json, dump_yaml
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.progress import Progress, reported
from bimix_tracking.recommendation.investment.returns import Worth
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.recommendation.trade_offs.pareto import Pareto
from bimix_tracking.recommendation.verdict import Verdict, judge
from bimix_tracking.report import content, html, markdown
from bimix_tracking.report.language import Language
from bimix_tracking.report.mixture_figures import rows
from bimix_tracking.selection.cross_validation import Validation
from bimix_tracking.selection.diagnostics import Diagnostic
from bimix_tracking.selection.extrapolation import Extrapolation
from bimix_tracking.selection.fitness import FitnessTable
from bimix_tracking.selection.law_choice import Selection
from bimix_tracking.selection.rank_transfer import RankTransfer
from bimix_tracking.tracking.write_back import versions

_FILES = (
    "mixture.yaml",
    "fit.json",
    "recommendation.json",
    "lineage.json",
    "validation.json",
    "observations.csv",
    "report.md",
    "report.html",
    "verification.json",
    "verification.md",
)


def owned_files() -> tuple[str, ...]:
    """Return whatever an analysis or a verification may leave in its folder: the next one replaces all of it."""
    return (*_FILES, *(f"exports/{form.file}" for form in all_formats().values() if form.file))


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a sweep and the law fitted to it show, whether or not a mixture can be recommended from them.

    Args:
        observations: The cleaned sweep.
        fit: The fitted law.
        validation: What the law predicts of held-out mixtures; None with fewer than three mixtures.
        created: When, UTC, ISO 8601.
        selection: How the law was chosen; None where the caller named it.
        extrapolation: How well the law predicts the last losses from the first; None where that can't be asked.
        diagnostics: What to know before acting on it.
        lang: Of the reports: `en`, `ja` or one that a package adds.
        fitness: Which targets are fit to decide; None: nobody asked.
        options: What else was asked, as JSON types, so that a renewed analysis is asked the same.
        aligned: The runs that the law was fitted to, of several model sizes brought to one level; None: as observed.
        ranks: Whether ranks of mixtures hold between model sizes; None where the runs have one size.
    """

    observations: Observations
    fit: LawFit
    validation: Validation | None
    created: str
    selection: Selection | None = None
    extrapolation: Extrapolation | None = None
    diagnostics: tuple[Diagnostic, ...] = ()
    lang: str = "en"
    fitness: FitnessTable | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    aligned: Observations | None = None
    ranks: RankTransfer | None = None

    @property
    def fitted(self) -> Observations:
        """The runs as the law was fitted to them: observed beside predicted losses are these."""
        return self.observations if self.aligned is None else self.aligned

    def save_undecided(self, directory: str | Path, why: str) -> Path:
        """Write fit, observations and a page that says why nothing is recommended; return the page.

        As in `Analysis.save`, they take the place of all files of an earlier analysis.

        Raises:
            MissingDependencyError: The report's template engine isn't installed; the other files are written.
        """
        with reported_later() as missing, staged(directory, owned_files()) as folder:
            (folder / "fit.json").write_text(dump_json(self.fit.to_dict()), encoding="utf-8")
            self.observations.to_csv(folder / "observations.csv")
            with missing:
                (folder / "report.html").write_text(html.render_undecided(self, why), encoding="utf-8")
        return Path(directory) / "report.html"

    def lineage(self) -> dict[str, Any]:
        """Return which runs and which data the recommendation comes from."""
        obs = self.observations
        return {
            "source": obs.source,
            "runs": [
                {"name": run, "id": obs.run_ids.get(run, run), "mixture": dict(obs.mixture(run))}
                | ({"model_size": obs.sizes[run]} if run in obs.sizes else {})
                for run in obs.runs
            ],
            "shared": dict(obs.shared),
            "data_hash": self.fit.data_hash,
            "notes": [str(note) for note in self.fit.notes],
            "options": dict(self.options),
            "created": self.created,
            "versions": versions(),
        }


@dataclass(frozen=True, kw_only=True, repr=False)
class Analysis(Shown, Findings):
    """What `analyze` found.

    Args:
        recommendation: The optimum at the target volume.
        worth: What the recommendation saves at equal loss.
        pareto: The optima between two groups of targets; None where there are no groups.
        replicates: Of a run-level bootstrap; None where there are too few runs, or none were asked for.
        location: Where the tracker shows it, if it was written back.
    """

    recommendation: Recommendation
    worth: Worth | None = None
    pareto: Pareto | None = None
    replicates: Replicates | None = None
    location: str | None = None

    @property
    def model_size(self) -> float | None:
        """The size of the model that the mixture is for; None: none was asked for."""
        return self.recommendation.model_size

    @cached_property
    def verdict(self) -> Verdict:
        """Whether to act on it, and what decides that."""
        return judge(self.recommendation, self.fitted, self.fit, self.validation, self.extrapolation, self.ranks)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before acting: the verdict's caveats, the recommendation's, surrogates that disagree."""
        caveats, apart = self.verdict.caveats, [] if self.fitness is None else self.fitness.disagreements()
        volume = {caveat.kind for caveat in caveats} & {"one_volume", "later", "extrapolation"}
        told = self.recommendation.of_volume if volume or self.recommendation.of_another_size else ()
        others = [text for text in self.recommendation.warnings if text not in told]
        return (*(caveat.text for caveat in caveats), *others, *apart)

    def save(self, directory: str | Path, *, progress: Progress | None = None) -> list[Path]:
        """Write mixture, fit, validation, observations, lineage and report; return the files.

        `mixture.yaml`, `recommendation.json`, `fit.json`, `validation.json` (if there is one), `observations.csv`,
        `lineage.json`, the folder `exports` with the mixture in trainers' formats, `report.md` and `report.html`. They
        take the place of all files of an earlier analysis or verification as a whole, whenever the process dies (see
        `bimix_tracking.files.atomic_folder`); other files in the folder stay.

        Args:
            directory: Made where it isn't there.
            progress: Is told how many parts of how many are written.

        Raises:
            MissingDependencyError: The report's template engine isn't installed; the other files are written.
        """
        with reported_later() as missing, staged(directory, owned_files()) as folder, missing:
            self.write(folder, progress=progress)
        return [Path(directory) / name for name in self.names]

    def write(self, folder: Path, *, progress: Progress | None = None) -> None:
        """Write the files of `save` into a folder that is there, one after another.

        Args:
            folder: Where.
            progress: Is told how many parts of how many are written.

        Raises:
            MissingDependencyError: The report's template engine isn't installed; the other files are written.
        """
        texts: dict[str, Callable[[], str]] = {
            "mixture.yaml": self.mixture_yaml,
            "fit.json": lambda: dump_json(self.fit.to_dict()),
            "recommendation.json": lambda: dump_json(self.decision()),
            "lineage.json": lambda: dump_json(self.lineage()),
            "validation.json": lambda: dump_json(self._checks()),
            "report.md": lambda: markdown.render(self),
            "report.html": lambda: html.render(self),  # last, for it alone has a dependency of its own
        }
        if self.validation is None:
            del texts["validation.json"]
        self.observations.to_csv(folder / "observations.csv")
        provenance = f"{self.observations.source}, data {self.fit.data_hash}, {self.created}"
        write_exports(self.recommendation.mixture, folder / "exports", provenance=provenance)
        for name, text in reported(progress, "writing", texts.items()):
            (folder / name).write_text(text(), encoding="utf-8")

    def _checks(self) -> dict[str, Any]:
        """Return what was checked, as JSON types."""
        return (self.validation.to_dict() if self.validation else {}) | {
            "selection": None if self.selection is None else self.selection.to_dict(),
            "extrapolation": None if self.extrapolation is None else self.extrapolation.to_dict(),
            "diagnostics": [vars(found) for found in self.diagnostics],
        }

    @property
    def names(self) -> list[str]:
        """What `save` leaves in its folder."""
        checks = ("validation.json",) if self.validation is not None else ()
        texts = ("mixture.yaml", "fit.json", "recommendation.json", "lineage.json", *checks)
        return [*texts, "observations.csv", "exports", "report.md", "report.html"]

    def decision(self) -> dict[str, Any]:
        """Return the recommendation with all that is known of how sure, free and useful it is, as JSON types."""
        worth = None if self.worth is None else self.worth.to_dict()
        judged = [] if self.fitness is None else self.fitness.to_dict()
        found = {"verdict": self.verdict.to_dict(), "worth": worth, "fitness": judged, "created": self.created}
        found |= {} if self.pareto is None else {"pareto": self.pareto.to_dict()}
        return self.recommendation.to_dict() | found

    def mixture_yaml(self) -> str:
        """Return the recommended mixture with its provenance; `Mixture.from_yaml` and any trainer read it."""
        return dump_yaml(
            mixture_document(self.recommendation, self.verdict, self.warnings, self.fit, self.lineage(), self.ranks)
        )

    def to_frame(self) -> pd.DataFrame:
        """Return proportions, intervals and predicted losses, one row a domain."""
        return self.recommendation.to_frame()

    def show(self, *, height: int = 720) -> Path | None:
        """Show the report: in a notebook below the cell, else in a browser. It waits for neither.

        Args:
            height: Of the frame in a notebook, pixels.

        Returns:
            The file that the browser was given; None in a notebook.

        Raises:
            MissingDependencyError: The report's template engine isn't installed.
        """
        return show_page(html.render(self), height=height)

    def _card(self) -> Card:
        return card(content.page(self), self.recommendation, rows(self.fit, self.recommendation), Language(self.lang))

    def note(self) -> str:
        """Return the run description, Markdown: the answer first, then what to doubt."""
        return note(content.page(self), Language(self.lang))

    def metrics(self) -> dict[str, float]:
        """Return what is worth a column in the tracker's table of runs."""
        return columns(self.recommendation, self.fit, self.validation, self.worth, len(self.observations.runs))


@contextlib.contextmanager
def reported_later() -> Iterator[contextlib.AbstractContextManager[None]]:
    """Yield what catches that a template engine is missing, so that it is raised when the other files are in place."""
    found: list[MissingDependencyError] = []

    @contextlib.contextmanager
    def missing() -> Iterator[None]:
        try:
            yield
        except MissingDependencyError as error:
            found.append(error)

    yield missing()
    if found:
        raise found[0]

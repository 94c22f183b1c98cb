"""`bimix plan --anchor`: runs at the target size, from a sweep or from what an analysis left."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bimix_tracking.cli.console import Cells, print_in_tables, print_notes, progress_shown, say
from bimix_tracking.cli.planning.sweep import print_mixtures
from bimix_tracking.errors import SourceError
from bimix_tracking.quantities import about, count, flops, parameters, percent
from bimix_tracking.quantities import tokens as tokens_of

if TYPE_CHECKING:
    from bimix_tracking.data.observations import Observations
    from bimix_tracking.design.anchors import AnchorPlan
    from bimix_tracking.fitting.law_fit import LawFit
    from bimix_tracking.mixture import Mixture
    from bimix_tracking.progress import Progress
    from bimix_tracking.tracking.ports import RunSource

_ANALYSIS = "fit.json"


def anchors(
    source: str,
    reading: Callable[[], RunSource],
    *,
    number: int,
    model_size: float,
    tokens: float | None,
    reference: Mixture | None,
    part: float | None,
    target_gpu_hours: float | None,
    weights: dict[str, float] | None,
    limits: dict[str, Any],
) -> tuple[AnchorPlan, Sequence[str], dict[str, Any]]:
    """Return the anchors, what is said of them and their figures, and print all of it.

    Args:
        source: A source's URI, or a folder that `bimix analyze --out` left.
        reading: Opens the source.
        number: How many.
        model_size: Of the target run.
        tokens: Of the target run; None: those of the analysis.
        reference: None: the analysis's, or that of a recommendation.
        part: Of the schedule.
        target_gpu_hours: Of the whole target run.
        weights: Of targets; None: the analysis's.
        limits: Of the recommended mixture, where a sweep is read.
    """
    from bimix_tracking.design.anchors import plan_anchors  # noqa: PLC0415  # --help must not wait for SciPy
    from bimix_tracking.fitting.replicates import MIN_RUNS  # noqa: PLC0415  # likewise
    from bimix_tracking.fitting.resampling import bootstrap  # noqa: PLC0415  # likewise
    from bimix_tracking.recommendation.costs import Costs  # noqa: PLC0415  # likewise

    with progress_shown() as progress:
        if (Path(source) / _ANALYSIS).is_file():
            obs, fit, asked = _left(Path(source))
        else:
            if tokens is None:
                raise SourceError(f"{source} is no folder of an analysis, which has the tokens: give --tokens")
            obs, fit, asked = _of_sweep(reading(), tokens, model_size, reference, weights, limits, progress)
        volume = asked["tokens"] if tokens is None else tokens
        replicates = bootstrap(obs, fit, progress=progress) if len(obs.runs) >= MIN_RUNS else None
        found = plan_anchors(
            obs, fit, model_size=model_size, tokens=volume, recommended=asked["mixture"],
            reference=reference or asked["reference"], anchors=number, part=part,
            weights=asked["weights"] if weights is None else weights, replicates=replicates,
            costs=Costs(target_gpu_hours=target_gpu_hours),
        )  # fmt: skip
    print_notes(fit.notes)
    print_mixtures(found, f"{len(found)} anchors at {parameters(model_size)} parameters", {})
    _print_worth(found)
    sentences = found.sentences()
    for text in sentences:
        say(text)
    return found, sentences, found.to_dict()


def _left(folder: Path) -> tuple[Observations, LawFit, dict[str, Any]]:
    """Return runs, fit and question of an analysis that was left in a folder."""
    from bimix_tracking.analysis.earlier import earlier  # noqa: PLC0415  # likewise
    from bimix_tracking.data.observations import Observations  # noqa: PLC0415  # likewise
    from bimix_tracking.fitting.law_fit import LawFit  # noqa: PLC0415  # likewise

    asked = earlier(folder)
    try:
        fit = LawFit.from_dict(json.loads((folder / _ANALYSIS).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{folder / _ANALYSIS} is not what `bimix analyze --out` leaves: {error!r}") from error
    return Observations.from_csv(folder / "observations.csv"), fit, asked


def _of_sweep(
    source: RunSource,
    tokens: float,
    model_size: float,
    reference: Mixture | None,
    weights: dict[str, float] | None,
    limits: dict[str, Any],
    progress: Progress,
) -> tuple[Observations, LawFit, dict[str, Any]]:
    """Return runs and fit of a sweep, and the mixture that it recommends."""
    from bimix_tracking.data.observations import Observations  # noqa: PLC0415  # likewise
    from bimix_tracking.recommendation.recommending import recommend  # noqa: PLC0415  # likewise
    from bimix_tracking.selection.law_choice import select_law  # noqa: PLC0415  # likewise

    obs = Observations.from_source(source, progress=progress)
    fit = select_law(obs, weights=weights, model_size=model_size, progress=progress).fit
    rec = recommend(
        fit, tokens, model_size=model_size, weights=weights, reference=reference, progress=progress, **limits
    )
    return obs, fit, {"tokens": tokens, "mixture": rec.mixture, "reference": rec.reference, "weights": weights}


def _print_worth(found: AnchorPlan) -> None:
    """Print what each number of anchors, and each length, costs and buys."""
    from bimix_tracking.display.texts import isolated, printable  # noqa: PLC0415  # likewise

    table = found.table()
    numbers = [number for number in table.index.tolist() if number]
    rows: list[Cells] = [
        (("anchors", "right"), [str(number) for number in numbers]),
        (("tokens", "right"), [tokens_of(table["tokens"][number]) for number in numbers]),
        (("FLOPs", "right"), [flops(table["flops"][number]) for number in numbers]),
    ]
    if found.gpu_hours is not None:
        rows.append((("GPU-hours", "right"), [count(table["gpu_hours"][number]) for number in numbers]))
    rows.append((("error of the weighted sum", "right"), [percent(table["error"][number]) for number in numbers]))
    print_in_tables(rows, [[]])
    lengths = found.lengths()
    parts = lengths.index.tolist()
    cells: list[Cells] = [
        (("part of the schedule", "right"), [about(part) for part in parts]),
        (("tokens", "right"), [tokens_of(lengths["tokens"][part]) for part in parts]),
        (("FLOPs", "right"), [flops(lengths["flops"][part]) for part in parts]),
        (("added error", "right"), [percent(lengths["adds"][part]) for part in parts]),
        ((f"error with {len(found)}", "right"), [percent(lengths["error"][part]) for part in parts]),
    ]
    print_in_tables(cells, [[]])
    targets = [target for target in found.errors if target != "weighted sum"]
    first: list[Cells] = [(("target", "left"), [isolated(printable(str(target))) for target in targets])]
    errors: list[list[Cells]] = [
        [((_heading(number), "right"), [percent(found.error(number, target=str(target))) for target in targets])]
        for number in found.errors.index.tolist()
    ]
    print_in_tables(first, errors)


def _heading(number: int) -> str:
    return "as it is" if not number else f"{number} anchor{'s' if number > 1 else ''}"

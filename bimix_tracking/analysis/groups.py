"""Runs that must not be pooled, analysed apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bimix_tracking.analysis.pipeline import analyze
from bimix_tracking.analysis.question import check_options
from bimix_tracking.analysis.reading import pooled
from bimix_tracking.analysis.result import Analysis
from bimix_tracking.data.metric_names import slug
from bimix_tracking.data.pooling import grouped
from bimix_tracking.display.progress_line import shown
from bimix_tracking.errors import BimixError, ObservationsError
from bimix_tracking.progress import Progress
from bimix_tracking.tracking.ports import RunSource, Wanted, open_source


def analyze_groups(
    source: str | RunSource,
    tokens: float,
    *,
    by: str,
    out: str | Path | None = None,
    write_back: bool = False,
    wanted: Wanted | None = None,
    progress: Progress | bool | None = None,
    **options: Any,
) -> dict[str, Analysis | BimixError]:
    """Analyse a source's runs apart by what they differ in; a group that can't be analysed has its error for a result.

    With `model_size` the runs of a group may be of several sizes.

    Args:
        source: A URI or an open source.
        tokens: As in `analyze`.
        by: A field of the manifests: `domains`, `tokenizer`, `eval_set`, `model_size`, `batch_tokens` or `sweep`.
        out: A folder; each group has one of its own in it, named for the group.
        write_back: Write each analysis into the source; the last one of them is then the recommended one.
        wanted: As in `analyze`.
        progress: As in `analyze`.
        options: As in `analyze`.

    Raises:
        SourceError: The source cannot be read, or holds no runs but a table.
        ObservationsError: No such field, or a model size is asked for besides.
        TypeError: No such option.
    """
    check_options(options, also=("nest",))
    if by == "model_size" and options.get("model_size") is not None:
        raise ObservationsError(
            "runs of several model sizes are pooled for model_size, or analysed apart by it: leave one of the two out"
        )
    progress = shown(progress)
    options_of = {} if wanted is None else {"wanted": wanted}
    opened = open_source(source, **options_of) if isinstance(source, str) else source
    results: dict[str, Analysis | BimixError] = {}
    for group, records in grouped(opened.records(progress), by).items():
        try:
            obs = pooled(opened, records, all_sizes=options.get("model_size") is not None)
            folder = None if out is None else Path(out) / slug(group)
            results[group] = analyze(
                obs, tokens, out=folder, write_back=opened if write_back else False, progress=progress, **options
            )
        except BimixError as error:
            results[group] = error
    return results

"""The two ports: a `Tracker` takes a run's numbers, a `RunSource` gives them back. Both are opened by URI.

    mlflow:EXPERIMENT                     tracking URI from the environment, as MLflow itself finds it
    mlflow+sqlite:///FILE#EXPERIMENT      an embedded store, no server
    mlflow+postgresql://HOST/DB#EXPERIMENT   a database, no server
    mlflow+file:mlruns#EXPERIMENT         a folder of MLflow's (read)
    mlflow+http://HOST:PORT#EXPERIMENT    a tracking server
    wandb:ENTITY/PROJECT[/sweeps/ID]      Weights & Biases, as the environment says (online or offline)
    wandb-offline:DIR                     its offline files (read)
    jsonl:DIR                             plain files, no service (read and write)
    csv:FILE                              a table, as `bimix pull` writes it (read)
    lm-eval:DIR                           results of lm-evaluation-harness, with a mixtures file (read)

A package adds a scheme by an entry point of the group `bimix_tracking.trackers` or `bimix_tracking.sources`
that names a callable taking the URI.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from bimix_tracking.data.manifest import RunManifest, RunRecord
from bimix_tracking.data.run_curve import Shares
from bimix_tracking.data.targets import Targets, targets_of, united
from bimix_tracking.errors import SourceError
from bimix_tracking.mixture import Advice, Mixture
from bimix_tracking.plugins import opened
from bimix_tracking.progress import Progress

if TYPE_CHECKING:
    from bimix_tracking.data.observations import Observations
    from bimix_tracking.tracking.other_tools.runs import ForeignRuns

SHARES: tuple[Shares, ...] = ("nominal", "realised")


class Row(NamedTuple):
    """One row of metrics: the optimizer step, when it was made (seconds since 1970), and the numbers."""

    step: int
    time: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Wanted:
    """Which runs of a source are to be read, and how.

    Args:
        filter: A condition in the tracker's own language (MLflow's search expressions; for W&B, a JSON filter).
        unfinished: Whether runs that are going, or died, count too.
        foreign: How to read runs that were logged without this package.
        shares: Which proportions a run's losses are put down to: what its sampler was asked for (`nominal`), or what
            its tokens were (`realised`).
        targets: What targets are, where the runs don't say it, or say it otherwise: a targets file, or `Target`s.
        pool_sizes: Whether runs of several model sizes may be pooled: then it takes a size to answer for.
    """

    filter: str | None = None
    unfinished: bool = False
    foreign: ForeignRuns | None = None
    shares: Shares = "nominal"
    targets: Targets | None = None
    pool_sizes: bool = False

    def __post_init__(self) -> None:
        """Refuse other words: a misspelt one would quietly mean the default."""
        if self.shares not in SHARES:
            raise SourceError(f"shares must be one of {', '.join(SHARES)}, got {self.shares!r}")
        if self.targets is not None and self.foreign is not None:  # what is described is read
            known = united(self.foreign.targets, targets_of(self.targets))
            object.__setattr__(self, "foreign", replace(self.foreign, targets=known))

    def pooled(self, records: Sequence[RunRecord], source: str) -> Observations:
        """Return the runs that a source has read as observations; see `Observations.from_records`.

        Raises:
            ObservationsError: The runs must not be pooled, or nothing is left to fit.
        """
        from bimix_tracking.data.observations import Observations  # noqa: PLC0415  # trackers don't need it, nor pandas

        return Observations.from_records(
            records, source=source, shares=self.shares, targets=self.targets, pool_sizes=self.pool_sizes
        )


@dataclass(frozen=True)
class RunState:
    """How far a training run is.

    Args:
        run_id: The tracker's id.
        name: What people call it.
        sweep: The sweep it belongs to, if it says so.
        status: As far as the tracker knows; a killed run may be `running` for ever.
        ended: When it ended, seconds since 1970, if it has.
        trouble: Why nothing of it can be read, where that is so; its sweep is unknown then.
        names: All its domains, mixed and evaluated, its targets and groups; empty where only its losses would say.
    """

    run_id: str
    name: str
    sweep: str | None
    status: Literal["running", "finished", "failed"]
    ended: float | None = None
    trouble: str | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class WriteBack:
    """What an analysis leaves in the tracker, as a run of role `analysis`.

    Args:
        directory: The artifacts, each to appear under `bimix/`.
        manifest: Of role `analysis`; its mixture is the recommended one.
        metrics: Numbers worth a column in the tracker's table.
        note: Markdown for the run's description.
        source_runs: Ids of the runs that were analysed; each gets a tag naming the analysis.
        key: Names the analysis by its data and its question: a source writes one of a key once.
        name: What the run is called.
        nest: Whether source runs are shown under the analysis, where the tracker can and they are under no other run.
    """

    directory: Path
    manifest: RunManifest
    metrics: Mapping[str, float]
    note: str
    source_runs: Sequence[str]
    key: str
    name: str = "analysis"
    nest: bool = False


class Tracker(Protocol):
    """Where a training run's numbers go. One instance a training; only the main process writes to it.

    A remote tracker's methods, `adopt_active` and `resume` aside, are called from a thread of their own, may take
    their time and may raise: rows are on disk before, and are sent again. The same rows may come twice. What it will
    never take is a `RefusedError`: that is skipped and reported, and what follows is sent.
    """

    remote: bool
    """Whether a call may wait for anything but the local disk."""
    certain: bool
    """Whether rows are safe when `log` returns; else a process that is killed may lose them, and they are replayed."""
    run_id: str | None
    """The run's id at the tracker, once there is one: what a resumed process continues."""
    run_name: str | None
    """What a run that is opened here is called, until `start`; without one, a name that no other run has."""
    key: str | None
    """Names this training, whoever sends its rows: a run opened under it is found by it, its id unknown."""

    @property
    def uri(self) -> str:
        """As `open_tracker` takes it, complete and without credentials: another process gets to the same place."""

    def another(self) -> Tracker:
        """Return a tracker of the same place, credentials and all, for another training's run."""

    def adopt_active(self) -> None:
        """Note the run that the training thread has open at the tracker, if this one may write there.

        That is where it was asked to write, and holds no other training. Waits for nothing.
        """

    def resume(self, run_id: str | None, rows: int) -> Sequence[Mapping[str, float]]:
        """Go on with that run, before `start`; without an id, with the one that was opened under `key`, if any was.

        What came after its first `rows` rows will be sent again. Returns those, as far as the tracker has them, with
        `bimix/time` if it knows: of the checkpoint's own step, an evaluation may be among them that no trainer repeats.
        """

    def start(self, manifest: RunManifest) -> None:
        """Adopt the run in progress or open one, and note the manifest. Called again when that grows."""

    def log(self, rows: Sequence[Row]) -> None:
        """Write rows."""

    def write_artifact(self, path: str, text: str) -> None:
        """Write a file of the run, over an earlier one of that path."""

    def finish(self, *, ended: bool = True) -> None:
        """Deliver what is still buffered; end the run if it was opened here.

        Where training hasn't `ended`, for it raised or its process was killed, the run is marked as failed. One that is
        resumed goes on all the same.
        """


class RunSource(Protocol):
    """Where a sweep's numbers come back from."""

    uri: str

    def observations(self, progress: Progress | None = None) -> Observations:
        """Read and pool the training runs that are wanted.

        Raises:
            SourceError: Unreachable, no such experiment, or no training run of this package in it.
            ObservationsError: The runs must not be pooled, or nothing is left to fit.
        """

    def records(self, progress: Progress | None = None) -> Sequence[RunRecord]:
        """Read them without pooling.

        Raises:
            SourceError: As above, or the source holds no runs but a table.
        """

    def states(self) -> Sequence[RunState]:
        """Say how far each training run is, quickly: what waiting and watching ask for again and again.

        Raises:
            SourceError: As above.
        """

    def write_back(self, analysis: WriteBack) -> str:
        """Write an analysis beside its runs and return where a person finds it; one that is there stays the only one.

        The newest is the recommended one, whether it was there or not.

        Raises:
            SourceError: The source cannot be written to.
        """

    def find_analysis(self, key: str | None = None) -> str | None:
        """Return the `mixture.yaml` of the analysis of a key, or of the recommended one; None where there is none.

        Raises:
            SourceError: The source cannot be reached.
        """


def open_tracker(uri: str, **options: Any) -> Tracker:
    """Open a tracker by URI.

    Raises:
        BimixError: No such scheme.

    >>> open_tracker("nowhere:sweep")
    Traceback (most recent call last):
    bimix_tracking.errors.SourceError: 'nowhere:sweep': no tracker for 'nowhere'; choose from 'jsonl', 'mlflow',
    'wandb'
    """
    tracker: Tracker = opened("tracker", uri, options)
    return tracker


def another(tracker: Tracker) -> Tracker:
    """Return a tracker of the same place for another run; a third party's that makes none is opened again by its URI.

    Raises:
        BimixError: Its URI cannot be opened.
    """
    make = getattr(tracker, "another", None)
    made: Tracker = open_tracker(tracker.uri) if make is None else make()
    return made


def open_source(uri: str, **options: Any) -> RunSource:
    """Open a source by URI.

    Raises:
        BimixError: No such scheme.
    """
    source: RunSource = opened("source", uri, options)
    return source


def wanted_of(source: RunSource) -> Wanted:
    """Return which runs an open source reads; one of somebody else's may not say, and reads all."""
    found = getattr(source, "wanted", None)
    return found if isinstance(found, Wanted) else Wanted()


def recommended_mixture(source: str | RunSource, *, key: str | None = None, accept_warnings: bool = False) -> Mixture:
    """Return the mixture that the newest analysis of a sweep recommends: one line in a training script.

    What the analysis warns of is a `RecommendationWarning`; a mixture that it calls unusable is refused.

    Args:
        source: A URI such as `mlflow:my-sweep`, or an open source.
        key: An analysis's key (its tag `bimix.analysis_key`), for the same mixture whatever is analysed later.
        accept_warnings: Take a mixture that its analysis calls unusable, with a warning.

    Raises:
        SourceError: The source cannot be reached, or holds no such analysis.
        MixtureError: What it holds is no mixture.
        RecommendationError: Its analysis calls the mixture unusable.
    """
    found = open_source(source) if isinstance(source, str) else source
    text = found.find_analysis(key)
    if text is None:
        wanted = "" if key is None else f" of key {key!r}"
        raise SourceError(f"{found.uri} holds no analysis{wanted}: bimix analyze … --write-back")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mixture.yaml"
        path.write_text(text, encoding="utf-8")
        mixture, advice = Mixture.from_yaml(path), Advice.from_yaml(path)
    advice.heed(found.uri, accept_warnings=accept_warnings)
    return mixture

"""A training run's numbers into W&B: adopted or opened, one row of all domains a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import wandb
from wandb.errors import UsageError

from bimix_integrations.trackers.wandb import histories
from bimix_integrations.trackers.wandb.artifacts import run_artifact
from bimix_integrations.trackers.wandb.project import Project, mode, probe, redacted, said_mode, told
from bimix_integrations.trackers.wandb.rows import is_ours
from bimix_tracking import keys
from bimix_tracking.delivery import FLUSH_SECONDS
from bimix_tracking.errors import BimixError, SourceError
from bimix_tracking.manifest import CURVES, RunManifest
from bimix_tracking.tracking import Row

MANIFEST = "bimix"
"""Key of a run's config that holds its manifest, and the map slug → name."""


class WandbTracker:
    """Write one run into W&B: the run in progress if there is one, else a new one.

    Rows carry their own x-axes, so a host's steps don't matter. W&B's sidecar takes them and sends them when it can, at
    the latest when the run ends. With a killed process its last rows are lost there, those of 32 KiB of its file too:
    a run that is resumed is to be sent all its rows again, and takes those that the server hasn't got.

    Args:
        uri: `wandb:ENTITY/PROJECT`, `wandb:PROJECT`, or `wandb:` for where the environment says. A run in progress in
            another project than the one named is left alone.
        run_name: Of a new run.
    """

    remote = True
    certain = False  # a killed process's last blocks never reach W&B's own file

    def __init__(self, uri: str = "wandb:", *, run_name: str | None = None) -> None:
        self._project = Project(uri)
        self._run_name = run_name
        self._run: wandb.Run | None = None
        self._adopted: wandb.Run | None = None
        self._resumed: str | None = None
        self._continued = False
        self._stuck = ""
        self._known: set[tuple[float, float, int]] = set()
        self._defined: set[str] = set()
        self._manifest: dict[str, Any] = {}
        self._files: dict[str, str] = {}
        self.owned = False
        self.run_id: str | None = None

    @property
    def uri(self) -> str:
        """Where it writes: project and, as far as it is known, entity."""
        return self._project.uri

    def adopt_active(self) -> None:
        """Note the run that this process has open, unless the URI names another project."""
        active = wandb.run
        if active is None:
            return
        here = (active.entity or self._project.entity, active.project)
        if not self._project.named or here == (self._project.entity or here[0], self._project.name):
            self._adopted = active
            self._settle(active)

    def resume(self, run_id: str, rows: int) -> list[Mapping[str, float]]:
        """Go on with that run: where a step is then logged twice, the newest counts when it is read back.

        Returns its evaluations as far as the server has them: it forgets nothing, and offline there is no server.
        """
        self._resumed = run_id
        if mode() != "online":
            return []
        entity = self._project.settle_entity()
        with told(f"run {run_id}"):
            run = self._project.api.run(f"{entity}/{self._project.name}/{run_id}")
            found = histories.scanned(run, is_ours)
        self._known = {_identity(row) for row in found}
        return histories.evaluations(found)

    def start(self, manifest: RunManifest) -> None:
        """Adopt or open the run and write the manifest into its config."""
        self._manifest = manifest.to_dict() | {"slugs": keys.slugs(manifest.domains)}
        if self._run is None:
            self._open()
        self._on_run(self._configure)

    def log(self, rows: Sequence[Row]) -> None:
        """Write a row a call, with its step and the time it was made: sent twice, it is one row when read back."""
        for row in rows:
            numbers = {**row.metrics, keys.STEP: row.step, keys.TIME: row.time}
            if _identity(numbers) not in self._known:
                self._on_run(partial(self._log, numbers))

    def write_artifact(self, path: str, text: str) -> None:
        """Write a new version of the run's artifact, with this file and those before."""
        if path == CURVES and self._continued and self._resumed is None:
            return  # it would hold only what came after the interruption; the history holds all of it

        self._files[path] = text

        def log(run: wandb.Run) -> None:
            artifact = wandb.Artifact(run_artifact(run.id), type="bimix-run")
            for name, content in self._files.items():
                with artifact.new_file(name, encoding="utf-8") as file:
                    file.write(content)
            run.log_artifact(artifact)

        self._on_run(log)

    def finish(self, *, ended: bool = True) -> None:
        """End the run if it was opened here: a run in progress is its owner's to end.

        Raises:
            SourceError: The server didn't take the rest in time; the text says how to send it later.
        """
        run = self._run
        self._check()
        if run is None or not self.owned:
            return
        self.owned = False
        try:
            run.finish(exit_code=0 if ended else 1)
        except TimeoutError:
            self._stuck = (
                f"W&B's server didn't take the rest of run {run.id} within {FLUSH_SECONDS:g} s. It is on the disk: "
                f"wandb sync --include-online {Path(run.dir).parent}"
            )
            raise SourceError(self._stuck) from None

    def _check(self) -> None:
        """Say once more that the sidecar has given up: what it holds it would not send with a run opened anew."""
        if self._stuck:
            raise SourceError(self._stuck)

    def _open(self) -> None:
        if self._adopted is not None:
            run = self._adopted
            self._continued = MANIFEST in dict(run.config)
        else:
            run, self.owned = self._opened(self._resumed), True
        self._run, self.run_id = run, run.id
        self._settle(run)

    def _opened(self, run_id: str | None) -> wandb.Run:
        if mode() == "online":
            probe()
        with told(self.uri):
            said: Any = said_mode()  # whatever the environment says is the SDK's to judge
            # A run beside those of the process: `wandb.run` stays what it is, and so does standard output.
            return wandb.init(
                entity=self._project.entity,
                project=self._project.name,
                id=run_id,
                resume=None if run_id is None else "allow",
                name=self._run_name,
                mode=said,
                reinit="create_new",
                settings=wandb.Settings(
                    console="off",
                    # Without a limit, a process whose server is dead never ends.
                    finish_timeout=FLUSH_SECONDS,
                    finish_timeout_raises=True,
                ),
            )

    def _on_run(self, call: Callable[[wandb.Run], None]) -> None:
        """Call with the run; one that its owner has ended meanwhile is opened once more, by its id."""
        self._check()
        run = self._run
        if run is None:
            raise BimixError("the tracker has no run yet: call start first")
        try:
            call(run)
        except UsageError as error:
            if "finished" not in str(error):
                raise SourceError(f"run {run.id}: W&B says: {redacted(str(error))}") from None
            self._run, self.owned = self._opened(run.id), True
            self._defined.clear()
            call(self._run)

    def _configure(self, run: wandb.Run) -> None:
        run.config.update({MANIFEST: self._manifest}, allow_val_change=True)  # type: ignore[no-untyped-call]  # half-typed

    def _log(self, numbers: Mapping[str, float], run: wandb.Run) -> None:
        for name in numbers.keys() - self._defined:
            # By its exact name: `*` would take the host's metrics along.
            if name in {keys.STEP, keys.TIME}:
                run.define_metric(name, hidden=True)
            else:
                run.define_metric(name, step_metric=keys.STEP)
            self._defined.add(name)
        run.log(dict(numbers))

    def _settle(self, run: wandb.Run) -> None:
        self._project.settle(run.entity or None, run.project or self._project.name)


def _identity(row: Mapping[str, float]) -> tuple[float, float, int]:
    """Return what two rows of a run have in common only if they are one: a step may have a training row, too."""
    names = frozenset(name for name in row if name.startswith("bimix"))
    return row.get(keys.STEP, -1.0), row.get(keys.TIME, -1.0), hash(names)

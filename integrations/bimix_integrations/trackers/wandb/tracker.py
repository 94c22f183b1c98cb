"""A training's run into W&B by its own SDK: beside the host's run; in that of a trainer's logger, as a guest."""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import wandb
from wandb.apis.public.runs import Run
from wandb.errors import CommError, UsageError

from bimix_integrations.trackers.wandb import histories
from bimix_integrations.trackers.wandb.artifacts import run_artifact
from bimix_integrations.trackers.wandb.guest import GuestRows
from bimix_integrations.trackers.wandb.host import Host, open_beside
from bimix_integrations.trackers.wandb.names import safe
from bimix_integrations.trackers.wandb.params import configure
from bimix_integrations.trackers.wandb.project import Project, as_source_error, is_absent, mode, probe, said_mode
from bimix_integrations.trackers.wandb.rows import FAILED, HOST, KEY, MANIFEST, is_ours
from bimix_tracking.data import metric_names
from bimix_tracking.data.manifest import CURVES, RunManifest
from bimix_tracking.errors import BimixError, RefusedError, SourceError
from bimix_tracking.recording.delivery import FLUSH_SECONDS
from bimix_tracking.tracking.params import proportions
from bimix_tracking.tracking.ports import Row

_AXES = {metric_names.STEP, metric_names.TOKENS, metric_names.TIME}
"""What is plotted against, or nothing to look at: no charts of their own."""
_trainings: weakref.WeakKeyDictionary[wandb.Run, str] = weakref.WeakKeyDictionary()
"""Runs of hosts → key of the training that is a guest there: noted before its manifest is."""


class WandbTracker:
    """Write one training into W&B, as a run of its own.

    A run that the process has open stays as it is: rows of ours would move W&B's step, and W&B drops what a host then
    logs with a smaller `step=`. Ours is in the same project, grouped with it, and names it in its config. Only in the
    run of a logger that never logs with `step=` ours are guests, see `share`.

    W&B's sidecar takes rows and sends them when it can, at the latest when the run ends. With a killed process its last
    rows are lost there, those of 32 KiB of its file too: a run that is resumed is to be sent all its rows again, and
    takes those that the server hasn't got.

    Args:
        uri: `wandb:ENTITY/PROJECT`, `wandb:PROJECT`, or `wandb:` for the project of the run in progress, without one
            for where the environment says.
        run_name: Of a new run.
    """

    remote = True
    certain = False  # a killed process's last blocks never reach W&B's own file

    def __init__(self, uri: str = "wandb:", *, run_name: str | None = None) -> None:
        self._given = uri
        self._project = Project(uri)
        self._shares = False
        self._host: Host | None = None
        self._guest: GuestRows | None = None
        self._run: wandb.Run | None = None
        self._adopted: wandb.Run | None = None
        self._resumed: str | None = None
        self._gone = False
        self._stuck = ""
        self._known: set[tuple[float, float, int]] = set()
        self._defined: set[str] = set()
        self._manifest: dict[str, Any] = {}
        self._shares_warned: dict[str, str] = {}
        self._files: dict[str, str] = {}
        self.owned = False
        self.run_id: str | None = None
        self.run_name = run_name
        self.key: str | None = None

    @property
    def uri(self) -> str:
        """Where it writes: project and, as far as it is known, entity."""
        return self._project.uri

    def another(self) -> WandbTracker:
        """Return a tracker of the same place for another training; it may share where this one might."""
        other = type(self)(self._given, run_name=self.run_name)
        if self._shares:
            other.share()
        return other

    def share(self) -> None:
        """Say, before `start`, that the run in progress is a logger's that never logs with `step=`: ours go there.

        Hugging Face's `WandbCallback` and Lightning's `WandbLogger` are such. A run that holds a training of ours
        already, or is of another project than the one named, is left alone all the same.
        """
        self._shares = True

    def adopt_active(self) -> None:
        """Note the run that this process has open: it says where ours is opened, or is it, see `share`."""
        active = wandb.run
        if active is None:
            return
        self._host = Host.of(active)
        here = (active.entity or self._project.entity, active.project)
        if self._project.named and here != (self._project.entity or here[0], self._project.name):
            self._host = replace(self._host, mode=None, folder=None)  # another place, and the environment's way there
            return
        self._settle(active)
        # One that is resumed is never opened a second time beside its owner.
        if active.id == self._resumed or (self._shares and self._resumed is None and self._is_free(active)):
            self._adopted = active
            _trainings[active] = self._own_key()

    def resume(self, run_id: str | None, rows: int) -> list[Mapping[str, float]]:
        """Go on with that run, or the one of `key`: where a step is logged twice, the newest counts when it is read.

        Returns its evaluations as far as the server has them: it forgets nothing, and offline there is no server.

        Raises:
            RefusedError: The run has been deleted, or may not be seen: another one is opened.
        """
        wanted, self._resumed = run_id or self.key, run_id
        if wanted is None or mode(Host.here().mode) != "online":
            return []
        if not self._project.named and wandb.run is not None:
            self._settle(wandb.run)  # where it was opened, as long as nobody says anything else
        entity = self._project.settle_entity()
        with as_source_error(f"run {wanted}"):
            run = self._found(f"{entity}/{self._project.name}/{wanted}")
            found = [] if run is None else histories.scanned(run, is_ours)
        if run is not None:
            self._resumed = wanted
        elif run_id is not None and self._project.settled:
            self._gone = True
            raise RefusedError(f"{self.uri} has no run {wanted} any more: training continues in a new run")
        self._known = {_identity(row) for row in found}
        return histories.evaluations(found)

    def start(self, manifest: RunManifest) -> None:
        """Open the run, or be a guest in the one in progress, and write the manifest into its config.

        Raises:
            RefusedError: No right to the project, or no such entity.
            SourceError: Nobody answers.
        """
        beside = {HOST: self._manifest[HOST]} if HOST in self._manifest else {}
        self._manifest = (
            manifest.to_dict() | {"slugs": metric_names.slugs(manifest.domains), KEY: self._own_key()} | beside
        )
        if self._run is None:
            self._open()
        self._on_run(self._configure)
        if (shares := proportions(manifest)) != self._shares_warned:
            self._on_run(lambda run: configure(run, shares))
            self._shares_warned = shares

    def log(self, rows: Sequence[Row]) -> None:
        """Write a row a call, with its step and the time it was made: sent twice, it is one row when read back."""
        for row in rows:
            metrics = {safe(name, guest=self._guest is not None): value for name, value in row.metrics.items()}
            numbers = {**metrics, metric_names.STEP: row.step, metric_names.TIME: row.time}
            if _identity(numbers) in self._known:
                continue
            if self._guest is None:
                self._on_run(partial(self._write, numbers=numbers, closes=True))
            else:
                self._guest.put(numbers)
                self._on_run(self._guest.pass_on)

    def write_artifact(self, path: str, text: str) -> None:
        """Write a new version of the run's artifact, with this file and those before.

        Raises:
            RefusedError: W&B takes none of that name.
        """
        self._files[path] = text
        if path == CURVES and self._guest is not None:
            self._on_run(self._guest.close)  # training has ended: they are of all rows

        def log(run: wandb.Run) -> None:
            artifact = wandb.Artifact(run_artifact(run.id), type="bimix-run")
            for name, content in self._files.items():
                with artifact.new_file(name, encoding="utf-8") as file:
                    file.write(content)
            run.log_artifact(artifact)

        self._on_run(log)

    def finish(self, *, ended: bool = True) -> None:
        """End the run, as failed where training hasn't ended; one that is the host's gets a note, and is its to end.

        Raises:
            SourceError: The server didn't take the rest in time; the text says how to send it later.
        """
        self._check()
        if self._run is None:
            return
        if self._guest is not None:
            self._on_run(self._guest.close)
        if not ended:
            self._manifest[FAILED] = True
            self._on_run(self._configure)
        run = self._run
        if not self.owned:
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

    def _found(self, path: str) -> Run | None:
        try:
            return self._project.api.run(path)
        except CommError as error:
            if is_absent(error):
                return None
            raise

    def _own_key(self) -> str:
        self.key = self.key or uuid.uuid4().hex
        return self.key

    def _is_free(self, run: wandb.Run) -> bool:
        """Return whether a run of the host's holds no training but this one."""
        manifest = dict(run.config).get(MANIFEST)
        holds = manifest.get(KEY, "") if isinstance(manifest, Mapping) else _trainings.get(run)
        return holds is None or holds == self.key

    def _check(self) -> None:
        """Say once more that the sidecar has given up: what it holds it would not send with a run opened anew."""
        if self._stuck:
            raise SourceError(self._stuck)

    def _open(self) -> None:
        if self._adopted is not None:
            run, self._guest = self._adopted, GuestRows(self._write)
        else:
            if self._gone:
                self.key, self._resumed = uuid.uuid4().hex, None  # W&B takes no id of a deleted run
            run, self.owned = self._opened(self._resumed or self._own_key()), True
        self._run, self.run_id = run, run.id
        self._settle(run)

    def _opened(self, run_id: str) -> wandb.Run:
        self._host = host = self._host or Host.of_environment()
        online = mode(host.mode) == "online"
        if online:
            probe()
        said = {}
        if self._resumed is None and run_id == self._own_key():  # one that is opened again keeps its name
            said = host.settings(run_id) | ({} if self.run_name is None else {"name": self.run_name})
        if host.fields() and host.run_id != run_id:
            self._manifest[HOST] = host.fields()
        chosen: Any = host.mode or said_mode()  # whatever the environment says is the SDK's to judge
        with as_source_error(self.uri):
            return open_beside(
                host,
                entity=self._project.entity,
                project=self._project.name,
                id=run_id,
                # Opened by its id, whether a call before, or a process before, has got as far or not.
                resume="allow" if online else None,
                config={MANIFEST: self._manifest},
                mode=chosen,
                settings=wandb.Settings(
                    console="off",
                    # Without a limit, a process whose server is dead never ends.
                    finish_timeout=FLUSH_SECONDS,
                    finish_timeout_raises=True,
                    x_disable_stats=host.going,  # the host's run has the machine's
                    # A job of a sweep's agent that opens no run itself has ours.
                    sweep_id=None if host.going or self._project.named else host.sweep,
                ),
                **said,
            )

    def _on_run(self, call: Callable[[wandb.Run], None]) -> None:
        """Call with the run; one that its owner has ended meanwhile is opened once more, by its id."""
        self._check()
        run = self._run
        if run is None:
            raise BimixError("the tracker has no run yet: call start first")
        try:
            with as_source_error(f"run {run.id}"):
                self._call(call, run)
        except _EndedError:
            self._run, self.owned = self._opened(run.id), True
            self._defined.clear()
            with as_source_error(f"run {run.id}"):
                call(self._run)

    def _call(self, call: Callable[[wandb.Run], None], run: wandb.Run) -> None:
        try:
            call(run)
        except UsageError as error:
            if "finished" in str(error):
                raise _EndedError from None
            raise

    def _configure(self, run: wandb.Run) -> None:
        run.config.update({MANIFEST: self._manifest}, allow_val_change=True)  # type: ignore[no-untyped-call]  # half-typed

    def _write(self, run: wandb.Run, numbers: Mapping[str, float], closes: bool) -> None:
        for name in numbers.keys() - self._defined:
            # By its exact name: `*` would take the host's metrics along.
            if name in _AXES:
                run.define_metric(name, hidden=True)
            elif "*" not in name:
                run.define_metric(name, step_metric=metric_names.STEP)
            self._defined.add(name)
        run.log(dict(numbers), commit=closes)

    def _settle(self, run: wandb.Run) -> None:
        self._project.settle(run.entity or None, run.project or self._project.name)


class _EndedError(Exception):
    """A run that its owner has ended."""


def _identity(row: Mapping[str, float]) -> tuple[float, float, int]:
    """Return what two rows of a run have in common only if they are one: a step may have a training row, too."""
    names = frozenset(name for name in row if name.startswith("bimix"))
    return row.get(metric_names.STEP, -1.0), row.get(metric_names.TIME, -1.0), hash(names)

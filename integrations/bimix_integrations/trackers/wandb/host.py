"""The host's W&B run, beside which a run of ours is opened, and what of the surroundings is about that one alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import wandb

JOB_TYPE = "bimix-train"
"""Of a training's run beside a host's."""
_LONGEST = 128
_ABOUT_ONE_RUN = (
    "run_id",
    "resume",
    "resume_from",
    "fork_from",
    "sweep_id",
    "launch_config_path",
)
"""Settings that name a run, or make it one of a sweep or of a launch: the host's, and given back to it."""
_ITS_OWN = ("run_name", "run_notes", "run_job_type", "sweep_param_path")
_opening = Lock()


@dataclass(frozen=True)
class Host:
    """What a run of ours says of the host's run.

    Args:
        run_id: Its id; of a job that hasn't opened it, the id that the environment has for it.
        path: `ENTITY/PROJECT`, as far as it is known.
        sweep: The W&B sweep that it belongs to.
        name: What people call it.
        group: W&B's group.
        going: Whether it is in progress here.
        mode: W&B's mode that it was opened in.
        folder: Where W&B has the folder with its files.
    """

    run_id: str | None
    path: str = ""
    sweep: str | None = None
    name: str | None = None
    group: str | None = None
    going: bool = False
    mode: str | None = None
    folder: str | None = None

    @classmethod
    def here(cls) -> Host:
        """Return what there is to say of the run in progress, else of what the environment says of one."""
        return cls.of_environment() if wandb.run is None else cls.of(wandb.run)

    @classmethod
    def of(cls, run: wandb.Run) -> Host:
        """Return what there is to say of a run."""
        path = "/".join(filter(None, (run.entity, run.project)))
        settings = run.settings
        return cls(
            run.id,
            path,
            run.sweep_id,
            run.name or None,
            run.group or None,
            going=True,
            # Several processes may write into the host's run, not into ours.
            mode="online" if settings.mode == "shared" else settings.mode,
            folder=settings.root_dir,
        )

    @classmethod
    def of_environment(cls) -> Host:
        """Return what the environment says of a run that isn't open: an agent of a sweep, a job's script."""
        settings = wandb.setup().settings
        return cls(settings.run_id, sweep=settings.sweep_id)

    def fields(self) -> dict[str, str]:
        """Return it for a run's config, without what isn't known.

        >>> Host("ab12", "team/pilot", sweep="s1").fields()
        {'run_id': 'ab12', 'path': 'team/pilot', 'sweep': 's1'}
        """
        named = {"run_id": self.run_id, "path": self.path, "sweep": self.sweep}
        return {name: value for name, value in named.items() if value}

    def settings(self, key: str) -> dict[str, str | None]:
        """Return how a run beside it is called and grouped; nothing where there is none to be beside.

        >>> Host("ab12", name="driver", going=True).settings("0123456789")
        {'name': 'driver-01234567', 'group': 'driver-ab12', 'job_type': 'bimix-train', 'notes': 'beside run ab12'}
        """
        if not self.going:
            return {}
        name = self.name or str(self.run_id)
        # Names may repeat, and runs of two hosts are not one group.
        group = self.group or (f"{name[: _LONGEST - 1 - len(str(self.run_id))]}-{self.run_id}" if self.name else name)
        return {
            "name": f"{name[: _LONGEST - 9]}-{key[:8]}",
            "group": group,
            "job_type": JOB_TYPE,
            "notes": f"beside run {self.run_id}",
        }


def open_beside(host: Host, **given: Any) -> wandb.Run:
    """Open a run by `wandb.init` with these arguments, and leave the host's as if there were none.

    Standard output stays the host's, and `wandb.run` too; a `wandb.init()` of its own neither returns ours nor ends it.
    """
    with _surroundings_without(host):
        run = wandb.init(reinit="create_new", dir=host.folder, **given)
        wandb.setup().remove_active_run(run)
        return run


@contextmanager
def _surroundings_without(host: Host) -> Iterator[None]:
    """Keep out of `wandb.init` what the environment says about the host's run.

    An argument cannot: W&B takes None for nothing said, and within a sweep it ignores a run's id and project. Meanwhile
    the training thread waits for our run, mostly; nothing is changed where the environment says nothing of a run.

    Args:
        host: Where it isn't in progress, the environment's name, notes, job type and parameters are for ours too.
    """
    session: Any = wandb.setup()
    settings = session.settings
    names = (*_ABOUT_ONE_RUN, *_ITS_OWN) if host.going else _ABOUT_ONE_RUN
    with _opening:
        kept = {name: value for name in names if (value := getattr(settings, name, None)) is not None}
        kept |= {"launch": True} if getattr(settings, "launch", False) else {}
        parameters = getattr(session, "_sweep_config", None)
        try:
            for name in kept:
                setattr(settings, name, False if name == "launch" else None)
            if parameters and host.going:
                session._sweep_config = None  # noqa: SLF001  # there is no other way
            yield
        finally:
            for name, value in kept.items():
                setattr(settings, name, value)
            if parameters and host.going:
                session._sweep_config = parameters  # noqa: SLF001

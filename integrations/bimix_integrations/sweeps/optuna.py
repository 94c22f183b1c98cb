"""Optuna: mixtures as a trial's parameters, and the analysis when enough trials are complete.

def objective(trial):
    mixture = suggest_mixture(trial, ["code", "web", "books"], low=0.02)
    return train(mixture, tracker="mlflow:my-sweep", run_name=f"trial-{trial.number}")

analysis = AnalyzeWhenDone("mlflow:my-sweep", tokens=100e9, runs=24)
study.optimize(objective, n_trials=24, callbacks=[analysis])
analysis.analysis.recommendation.mixture
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from bimix_integrations.sweeps.once import Once, OnError
from bimix_tracking import Analysis
from bimix_tracking.data.metric_names import slugs
from bimix_tracking.errors import BimixError, ConstraintError, MissingDependencyError
from bimix_tracking.mixture import Mixture

try:
    import optuna
except ModuleNotFoundError as error:
    if error.name != "optuna":  # optuna is there, but broken: say so, unchanged
        raise
    raise MissingDependencyError("optuna", extra="optuna") from error

_SMALLEST = 1e-9
"""Uniforms stay so far from 0 and 1, where a logarithm has no end or a sum of them is 0."""


def suggest_mixture(
    trial: optuna.trial.BaseTrial, domains: Sequence[str], *, low: float | Mapping[str, float] = 0.0
) -> Mixture:
    """Return a mixture drawn for a trial: r_i = l_i + (1 − Σ l) · log u_i / Σ log u.

    With independent uniform u_i, as `RandomSampler` draws them, r is uniform on what the lower bounds leave of the
    simplex: Dirichlet(1, …, 1). Other samplers move the u_i (parameters `bimix_u/<slug>`), and start from that.
    The mixture is kept in the trial's user attribute `bimix_mixture`.

    Args:
        trial: Whose parameters are suggested.
        domains: Their names.
        low: The least proportion of each domain, or of those named; BiMix has no loss at a proportion of 0.

    Raises:
        ConstraintError: The bounds leave no room, are negative, or name an unknown domain.
        MixtureError: Names that cannot be domains.

    >>> import optuna
    >>> trial = optuna.trial.FixedTrial({"bimix_u/code": 0.5, "bimix_u/c_372946aa": 0.25})
    >>> suggest_mixture(trial, ["code", "c++"], low={"c++": 0.1})
    Mixture({'code': 0.3, 'c++': 0.7})
    """
    short = slugs(domains)
    least = {name: (low.get(name, 0.0) if isinstance(low, Mapping) else low) for name in short.values()}
    unknown = [name for name in low if name not in least] if isinstance(low, Mapping) else []
    room = 1.0 - sum(least.values())
    if unknown or not (room > 0 and all(value >= 0 for value in least.values())):
        raise ConstraintError(
            f"no mixture of {', '.join(map(repr, least))} has at least {low!r} of each: the bounds must be of these "
            "domains, not negative, and sum to less than 1"
        )
    drawn = {d: -math.log(trial.suggest_float(f"bimix_u/{s}", _SMALLEST, 1 - _SMALLEST)) for s, d in short.items()}
    total = sum(drawn.values())
    mixture = Mixture.normalized({name: least[name] + room * drawn[name] / total for name in drawn})
    trial.set_user_attr("bimix_mixture", dict(mixture))
    return mixture


class AnalyzeWhenDone:
    """A callback of `study.optimize` that analyses the sweep when so many trials are complete: once.

    Whichever thread (`n_jobs`) or process of the study comes first does it, and says so in the study's user attribute
    `bimix_analysis/<runs>`; the others leave it alone then, those of a restarted script too. After an error the
    attribute is free again, and the end of the next trial tries anew; after a kill it is not: use `bimix analyze`.

    Args:
        source: Where the trials' runs are logged: a URI.
        tokens: As in `analyze`.
        runs: How many trials must be complete; pruned and failed ones don't count.
        sweep: Only the runs whose manifest names that sweep.
        write_back: Into the source.
        on_error: `warn`, or `raise`, which ends `optimize`.
        options: As in `analyze`.

    Raises:
        TypeError: An option that `analyze` doesn't have.
        BimixError: Another argument makes no sense, or the tracker isn't installed.
    """

    def __init__(
        self,
        source: str,
        tokens: float,
        *,
        runs: int,
        sweep: str | None = None,
        write_back: bool = True,
        on_error: OnError = "warn",
        **options: Any,
    ) -> None:
        if runs < 1:
            raise BimixError(f"a sweep cannot be done after {runs} trials")
        self.runs = runs
        self._once = Once(source, tokens, sweep=sweep, write_back=write_back, on_error=on_error, **options)
        self._claim = f"bimix_analysis/{runs}"

    @property
    def analysis(self) -> Analysis | None:
        """The analysis; None as long as there is none, or where another process made it."""
        return self._once.analysis

    def __call__(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        """Analyse if this was the trial that was missing."""
        complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        if len(complete) < self.runs or not self._claimed(study):
            return
        done = False
        try:
            done = self._once.run()
        finally:
            if not done:
                study.set_user_attr(self._claim, None)

    def _claimed(self, study: optuna.Study) -> bool:
        """Return whether the analysis is ours to make: of all threads and processes, this is true for one."""
        if study.user_attrs.get(self._claim):
            return False
        # To look and to set is no single act, but to create a study of a name is, on every storage: it is the lock.
        storage = study._storage  # noqa: SLF001  # a study doesn't show where it is otherwise
        lock = f"{study.study_name}/{self._claim}"
        try:
            optuna.create_study(storage=storage, study_name=lock)
        except optuna.exceptions.DuplicatedStudyError:  # another one has it in its hands
            return False
        try:
            if study.user_attrs.get(self._claim):
                return False
            study.set_user_attr(self._claim, f"{socket.gethostname()}:{os.getpid()}")
        finally:
            optuna.delete_study(study_name=lock, storage=storage)
        return True

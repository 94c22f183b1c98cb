"""Ray Tune: the analysis when the experiment has ended.

analysis = AnalyzeAtEnd("mlflow:my-sweep", tokens=100e9)
tune.Tuner(train, param_space=..., run_config=tune.RunConfig(callbacks=[analysis])).fit()
analysis.analysis.recommendation.mixture
"""

from __future__ import annotations

from typing import Any

from bimix_integrations.sweeps.once import Once, OnError
from bimix_tracking import Analysis
from bimix_tracking.errors import BimixError, MissingDependencyError, ObservationsError

try:
    from ray import tune
    from ray.tune.experiment import Trial
except ModuleNotFoundError as error:
    if error.name != "ray":  # ray is there, but broken or without Tune's dependencies: say so, unchanged
        raise
    raise MissingDependencyError("ray", extra="ray") from error


class AnalyzeAtEnd(tune.Callback):
    """Analyse the sweep once, in the driver, when all trials have ended; `fit` returns after it.

    An experiment that is restored and ends again is analysed again: the same data give the analysis that is there.

    Args:
        source: Where the trials' runs are logged: a URI that means the same on the driver as on the workers.
        tokens: As in `analyze`.
        runs: How many trials must have ended without an error, else there is a warning and no analysis.
        sweep: Only the runs whose manifest names that sweep.
        write_back: Into the source.
        on_error: `warn`, or `raise`, which `fit` then raises.
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
        runs: int = 1,
        sweep: str | None = None,
        write_back: bool = True,
        on_error: OnError = "warn",
        **options: Any,
    ) -> None:
        if runs < 1:
            raise BimixError(f"a sweep cannot be done after {runs} trials")
        self.runs = runs
        self._once = Once(source, tokens, sweep=sweep, write_back=write_back, on_error=on_error, **options)

    @property
    def analysis(self) -> Analysis | None:
        """The analysis; None as long as there is none."""
        return self._once.analysis

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Analyse, if enough trials have ended well."""
        ended = sum(trial.status == Trial.TERMINATED for trial in trials)
        if ended < self.runs:
            what = f"{ended} of {len(trials)} trials ended without an error, and {self.runs} are needed"
            self._once.fail(ObservationsError(what))
        else:
            self._once.run()

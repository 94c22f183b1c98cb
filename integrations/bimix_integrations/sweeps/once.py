"""An analysis that a launcher sets off: once, and never the end of the sweep that it is of."""

from __future__ import annotations

import inspect
import warnings
from typing import Any, Literal

from bimix_tracking import Analysis, analyze, open_source
from bimix_tracking.credentials import without_credentials
from bimix_tracking.errors import BimixError
from bimix_tracking.tracking.ports import wanted_of

OnError = Literal["warn", "raise"]


class Once:
    """Analyse a source at most once.

    Args:
        source: A URI, such as `mlflow:my-sweep`.
        tokens: As in `analyze`.
        sweep: Only the runs whose manifest names that sweep.
        write_back: As in `analyze`, but on.
        on_error: What becomes of an error: a warning (the training was paid for, and `bimix analyze` can be run by
            hand), or itself.
        options: As in `analyze`.

    Raises:
        TypeError: An option that `analyze` doesn't have: said now, not when the sweep has ended.
        BimixError: `on_error` or the URI make no sense, or the tracker isn't installed.
    """

    def __init__(
        self,
        source: str,
        tokens: float,
        *,
        sweep: str | None = None,
        write_back: bool = True,
        on_error: OnError = "warn",
        **options: Any,
    ) -> None:
        if on_error not in ("warn", "raise"):
            raise BimixError(f"on_error is {on_error!r}: it is 'warn' or 'raise'")
        inspect.signature(analyze).bind(source, tokens, write_back=write_back, **options)
        open_source(source)  # only to see that it can be; it may be pickled before it is used
        self.source, self.tokens, self.sweep, self.write_back = source, tokens, sweep, write_back
        self.on_error, self.options = on_error, options
        self.analysis: Analysis | None = None

    def run(self) -> bool:
        """Analyse unless that has been done; return whether there is an analysis now."""
        if self.analysis is None:
            try:
                self.analysis = self._analyse()
            except Exception as error:  # noqa: BLE001  # the launcher has more to do than what failed here
                self.fail(error)
        return self.analysis is not None

    def fail(self, error: Exception) -> None:
        """Raise an error, or say that there is no analysis, and how to make one."""
        if self.on_error == "raise":
            raise error
        why, source = without_credentials(f"{type(error).__name__}: {error}"), without_credentials(self.source)
        again = f"bimix analyze {source} --tokens {self.tokens:g}{' --write-back' if self.write_back else ''}"
        warnings.warn(f"the sweep was not analysed. {why}. Once that is fixed: {again}", stacklevel=3)

    def _analyse(self) -> Analysis:
        opened = open_source(self.source)
        into = opened if self.write_back else False
        if self.sweep is None:
            return analyze(opened, self.tokens, write_back=into, **self.options)
        records = [record for record in opened.records() if record.manifest.sweep == self.sweep]
        obs = wanted_of(opened).pooled(records, opened.uri)
        return analyze(obs, self.tokens, write_back=into, **self.options)

"""Numbers as training loops have them: Python's, NumPy's and torch's are numbers at the door; text and None are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.data.model_sizes import read_schedule, read_size
from bimix_tracking.data.targets import Targets, targets_of
from bimix_tracking.errors import RecorderError, shown
from bimix_tracking.mixture import Mixture
from bimix_tracking.recording.sums import DomainSums, check_ids, check_total

Numbers = Mapping[str, Any]
"""Name → number, of Python, NumPy or torch."""


def number(name: str, value: Any) -> float:
    """Return a value as a float; of a tensor that waits on a device, this waits for the device.

    Raises:
        RecorderError: It is no single number; the text has its name.

    >>> import numpy as np
    >>> number("lr", np.float32(0.5)), number("n", 3)
    (0.5, 3.0)
    >>> number("optimizer", "adam")
    Traceback (most recent call last):
    bimix_tracking.errors.RecorderError: 'optimizer' must be a number, got 'adam'
    """
    if not isinstance(value, str | bytes | bytearray | complex) and getattr(value, "ndim", 0) == 0:
        try:
            return float(value.detach() if hasattr(value, "detach") else value)  # torch warns of a graph
        except (TypeError, ValueError, OverflowError, RuntimeError):
            pass
    raise RecorderError(f"{name!r} must be a number, got {shown(value)}")


def step_number(value: Any) -> int:
    """Return a number of optimizer steps as an int.

    Raises:
        RecorderError: It is no whole number from 0 on.

    >>> step_number(3.0)
    3
    """
    given = number("step", value)
    if not (given >= 0 and given.is_integer()):
        raise RecorderError(f"'step' must be a whole number of optimizer steps from 0 on, got {shown(value)}")
    return int(given)


def mixture_of(given: Mapping[str, float]) -> Mixture:
    """Return proportions as a mixture.

    Raises:
        MixtureError: They are none.
    """
    return given if isinstance(given, Mixture) else Mixture(given)


def manifest_of(
    domains: Sequence[str],
    mixture: Mapping[str, float] | None,
    schedule: Mapping[int, Mapping[str, float]] | None,
    targets: Targets | None,
    more: Mapping[str, Any],
) -> RunManifest:
    """Return the manifest of a recorder's arguments; see `DomainLossRecorder`.

    Raises:
        MixtureError: Bad names, or a mixture over other domains.
        RecorderError: A model size or a schedule's length that is none.
    """
    return RunManifest(
        tuple(domains),
        mixture=None if mixture is None else mixture_of(mixture),
        schedule=tuple((step, mixture_of(one)) for step, one in sorted((schedule or {}).items())),
        targets=tuple(targets_of(targets).values()),
        **{**more, **sizes_in(more)},
    )


def sizes_in(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Return the model's size and the schedule's length, where fields of a manifest have them, as whole numbers.

    Raises:
        RecorderError: One is none; the text has its name.

    >>> sizes_in({"model_size": "7B", "schedule_tokens": 2e9, "sweep": "pilot"})
    {'model_size': 7000000000, 'schedule_tokens': 2000000000}
    """
    readers = {"model_size": read_size, "total_parameters": read_size, "schedule_tokens": read_schedule}
    try:
        return {name: read(manifest[name], name) for name, read in readers.items() if manifest.get(name) is not None}
    except ValueError as error:
        raise RecorderError(str(error)) from None


def metrics(more: Mapping[str, Any] | None, taken: Mapping[str, float]) -> dict[str, float]:
    """Return further metrics of a row as floats.

    Args:
        more: Name → number.
        taken: The row that they go into: its names are not to be had.

    Raises:
        RecorderError: A name that isn't text or is the row's own, or a value that isn't a number; names it.
    """
    found: dict[str, float] = {}
    for name, value in (more or {}).items():
        if not isinstance(name, str) or not name.strip():
            raise RecorderError(f"a metric's name must be a text, got {shown(name)}")
        if name in taken:
            raise RecorderError(f"the recorder logs a metric {name!r} itself: give yours another name")
        found[name] = number(name, value)
    return found


def counts(what: str, given: npt.ArrayLike, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Return one whole number a loss."""
    exact = np.asarray(given)
    try:
        as_floats = exact.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise RecorderError(f"{what} must be whole numbers from 0 on: {error}") from None
    whole = (as_floats >= 0) & (as_floats < 2.0**63) & (as_floats == np.floor(as_floats))
    if not whole.all():
        bad = as_floats[~whole].ravel()[0]
        below = ", below 2**63" if bad >= 2.0**63 else ""
        raise RecorderError(f"{what} must be whole numbers from 0 on{below}, got {bad:g}")
    return from_left(what, exact, shape).astype(np.int64)


def from_left(what: str, values: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return one value a loss: values of shape (batch,) go with losses of shape (batch, time)."""
    if values.shape != shape[: values.ndim]:
        raise RecorderError(f"{what} of shape {values.shape} don't fit losses of shape {shape}")
    return np.broadcast_to(values.reshape(values.shape + (1,) * (len(shape) - values.ndim)), shape).ravel()


def sums_of(
    domain_ids: npt.ArrayLike,
    loss_sums: npt.ArrayLike,
    token_counts: npt.ArrayLike,
    byte_counts: npt.ArrayLike,
    domains: Sequence[str],
) -> DomainSums:
    """Return losses of tokens, or of sequences, summed by domain; see `DomainLossRecorder.add`.

    Raises:
        RecorderError: An id that is no integer or outside the list, a count below 0, or shapes that don't fit.

    >>> sums = sums_of([0, 1], [[1.0, 2.0], [4.0, float("nan")]], [[1, 1], [1, 1]], 0, ["code", "web"])
    >>> sums.loss.tolist(), sums.tokens.tolist(), sums.nonfinite.tolist()
    ([3.0, 4.0], [2, 1], [0, 1])
    """
    nats = np.asarray(loss_sums, np.float64)
    ids = np.asarray(domain_ids)
    if ids.size and not np.issubdtype(ids.dtype, np.integer):
        raise RecorderError(f"domain ids must be integers, got {ids.dtype}; names go to `domains`")
    of_tokens = counts("token counts", token_counts, nats.shape)
    of_text = counts("byte counts", byte_counts, nats.shape)
    ids = from_left("domain ids", ids, nats.shape)
    check_ids(ids.min(initial=0), ids.max(initial=0), domains)
    nats = nats.ravel()
    bad = ~np.isfinite(nats) & (of_tokens > 0)
    good = np.where(bad, 0, of_tokens)
    sums = DomainSums.zeros(len(domains))
    check_total(sums.tokens, np.bincount(ids, of_tokens.astype(float), len(domains)), domains)
    np.add.at(sums.loss, ids, np.where(good > 0, nats, 0.0))
    np.add.at(sums.tokens, ids, good)
    np.add.at(sums.nonfinite, ids, np.where(bad, of_tokens, 0))
    np.add.at(sums.bytes, ids, np.where(bad, 0, of_text))
    return sums

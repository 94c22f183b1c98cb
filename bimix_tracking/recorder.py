"""DomainLossRecorder: per-domain sums in, rows of metrics out. The arithmetic of every trainer adapter.

Sums and counts stay sums and counts until a row is made; the only divisions are in `_row`. So a record is
the token mean whatever the batch size, padding or gradient accumulation were.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from bimix_tracking import keys
from bimix_tracking.errors import RecorderError
from bimix_tracking.mixture import Mixture
from bimix_tracking.tracking import CURVES, SCHEMA, RunManifest, Tracker


@dataclass
class DomainSums:
    """Sums by domain over some tokens; they add.

    Args:
        loss: Σ of the finite losses, nats, float64, shape (domains,).
        tokens: How many losses that is, int64, shape (domains,).
        nonfinite: How many losses were NaN or infinite and are in neither, int64, shape (domains,).
        labels: Σ of the target token ids, int64, shape (domains,): tells evaluation sets apart.
    """

    loss: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]
    nonfinite: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]

    @classmethod
    def zeros(cls, domains: int) -> DomainSums:
        """Return empty sums over `domains` domains."""
        return cls(np.zeros(domains), *(np.zeros(domains, np.int64) for _ in range(3)))

    def __iadd__(self, other: DomainSums) -> Self:
        self.loss = self.loss + other.loss
        self.tokens = self.tokens + other.tokens
        self.nonfinite = self.nonfinite + other.nonfinite
        self.labels = self.labels + other.labels
        return self

    def to_lists(self) -> dict[str, list[float]]:
        """Return the sums as JSON types."""
        return {name: values.tolist() for name, values in vars(self).items()}

    @classmethod
    def from_lists(cls, lists: Mapping[str, Sequence[float]]) -> DomainSums:
        """Read what `to_lists` wrote."""
        names = ("tokens", "nonfinite", "labels")
        return cls(np.array(lists["loss"], float), *(np.array(lists[name], np.int64) for name in names))


class DomainLossRecorder:
    """Token-weighted losses, tokens and realised shares of each domain, from sums to rows to a tracker.

    For domain i: loss_i = Σ nll / Σ tokens over the tokens since the last record; tokens_i is cumulative over
    training; share_i = tokens_i / Σ_j tokens_j. A domain without tokens emits nothing.

    Args:
        domains: Names, in the order of the domain ids.
        mixture: The nominal mixture of the run.
        tracker: Where rows go; without one they are only returned.
        manifest: More fields of `RunManifest`: `sweep`, `tokenizer`, `eval_set`, `model_size`, `batch_tokens`.

    Raises:
        MixtureError: Bad names, or a mixture over other domains.

    >>> recorder = DomainLossRecorder(["code", "web"], {"code": 0.5, "web": 0.5})
    >>> recorder.add([0, 0, 1], [2.0, 4.0, 1.0])
    >>> row = recorder.log_train(step=1)
    >>> row["bimix_train_loss/code"], row["bimix_share/web"], row["bimix/tokens"]
    (3.0, 0.3333333333333333, 3.0)
    """

    def __init__(
        self,
        domains: Sequence[str],
        mixture: Mapping[str, float] | None = None,
        tracker: Tracker | None = None,
        **manifest: Any,
    ) -> None:
        nominal = mixture if mixture is None or isinstance(mixture, Mixture) else Mixture(mixture)
        self.manifest = RunManifest(domains=tuple(domains), mixture=nominal, **manifest)
        self.tracker = tracker
        self._slugs = list(keys.slugs(self.manifest.domains))
        self._train = DomainSums.zeros(len(domains))
        self._eval = DomainSums.zeros(len(domains))
        self._tokens = np.zeros(len(domains), np.int64)
        self._curves: dict[int, dict[str, float]] = {}
        self._undelivered: list[tuple[dict[str, float], int]] = []
        self._started = False
        self._warned: set[str] = set()

    @property
    def domains(self) -> tuple[str, ...]:
        """The domain names, in the order of the domain ids."""
        return self.manifest.domains

    def start(self) -> None:
        """Open the run at the tracker now, rather than at the first row."""
        self._redeliver()

    def add(
        self,
        domain_ids: npt.ArrayLike,
        loss_sums: npt.ArrayLike,
        token_counts: npt.ArrayLike = 1,
        *,
        split: str = "train",
    ) -> None:
        """Add losses of tokens, or of sequences.

        Args:
            domain_ids: Integers in [0, domains), any shape; broadcast from the left, so that ids of shape
                (batch,) go with losses of shape (batch, time).
            loss_sums: Σ of token losses in nats, for each id. For single tokens, their losses.
            token_counts: How many tokens that is, for each id; broadcast likewise. For single tokens, 1; masked, 0.
            split: `train` or `eval`.

        Raises:
            RecorderError: An id that is no integer or outside the list, a count below 0, or shapes that don't fit.
        """
        losses = np.asarray(loss_sums, np.float64)
        ids = np.asarray(domain_ids)
        if ids.size and not np.issubdtype(ids.dtype, np.integer):
            raise RecorderError(f"domain ids must be integers, got {ids.dtype}; names go to `domains`")
        counts = np.asarray(token_counts, np.float64)
        whole = np.isfinite(counts) & (counts >= 0) & (counts == np.floor(counts))
        if not whole.all():
            raise RecorderError(f"token counts must be whole numbers from 0 on, got {counts[~whole].ravel()[0]:g}")
        ids = _from_left("domain ids", ids, losses.shape)
        counts = _from_left("token counts", counts, losses.shape).astype(np.int64)
        check_ids(ids.min(initial=0), ids.max(initial=0), self.domains)
        losses = losses.ravel()
        bad = ~np.isfinite(losses) & (counts > 0)
        good = np.where(bad, 0, counts)
        size = len(self.domains)
        sums = DomainSums.zeros(size)
        np.add.at(sums.loss, ids, np.where(good > 0, losses, 0.0))
        np.add.at(sums.tokens, ids, good)
        np.add.at(sums.nonfinite, ids, np.where(bad, counts, 0))
        self.add_sums(sums, split=split)

    def add_sums(self, sums: DomainSums, *, split: str = "train") -> None:
        """Add sums that were made elsewhere, such as on an accelerator."""
        if split == "train":
            self._train += sums
            self._tokens = self._tokens + sums.tokens
        elif split == "eval":
            self._eval += sums
        else:
            raise RecorderError(f"split must be 'train' or 'eval', got {split!r}")

    def log_train(self, step: int) -> dict[str, float]:
        """Emit the training losses since the last such row, tokens and shares so far, and forget the window."""
        row = self._row(step, keys.TRAIN_LOSS, self._train)
        total = float(self._tokens.sum())
        for short, tokens in zip(self._slugs, self._tokens.tolist(), strict=True):
            if total > 0:
                row[f"{keys.DOMAIN_TOKENS}/{short}"] = float(tokens)
                row[f"{keys.SHARE}/{short}"] = tokens / total
        self._train = DomainSums.zeros(len(self.domains))
        self._deliver(row, step)
        return row

    def log_eval(self, step: int) -> dict[str, float]:
        """Emit the evaluation losses of all domains as one row, and forget them.

        Returns:
            The row; empty where nothing was evaluated.
        """
        if not (self._eval.tokens.any() or self._eval.nonfinite.any()):
            return {}
        if self.manifest.eval_set is None:
            self.manifest = dataclasses.replace(self.manifest, eval_set=self._fingerprint())
            self._started = False  # the manifest has grown
        row = self._row(step, keys.EVAL_LOSS, self._eval)
        for short, tokens in zip(self._slugs, self._eval.tokens.tolist(), strict=True):
            if tokens:
                row[f"{keys.EVAL_TOKENS}/{short}"] = float(tokens)
        self._eval = DomainSums.zeros(len(self.domains))
        self._curves.setdefault(step, {}).update(row)
        self._deliver(row, step)
        return row

    def finish(self, step: int | None = None) -> None:
        """Emit what is left, write `bimix/curves.json`, and end the run at the tracker.

        Args:
            step: The last optimizer step, for sums that no row holds yet.
        """
        if step is not None:
            self.log_eval(step)
            if self._train.tokens.any():
                self.log_train(step)
        if self.tracker is None:
            return
        tracker = self.tracker
        self._redeliver()
        curves = json.dumps(self.curves(), indent=1)
        delivered = not self._undelivered and self._guarded(lambda: tracker.write_artifact(CURVES, curves))
        if not (self._guarded(tracker.finish) and delivered):
            self._save_locally(curves)

    def curves(self) -> dict[str, Any]:
        """Return the run's manifest and every row with an evaluation: the content of `bimix/curves.json`."""
        rows = [self._curves[step] for step in sorted(self._curves)]
        return {"schema": SCHEMA, "manifest": self.manifest.to_dict(), "rows": rows}

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs, as JSON types."""
        return {
            "manifest": self.manifest.to_dict(),
            "train": self._train.to_lists(),
            "eval": self._eval.to_lists(),
            "tokens": self._tokens.tolist(),
            "curves": [[step, row] for step, row in self._curves.items()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict` of a recorder over the same domains.

        Raises:
            RecorderError: The state is of other domains.
        """
        manifest = RunManifest.from_dict(state["manifest"])
        if manifest.domains != self.domains:
            raise RecorderError(f"the checkpoint has domains {manifest.domains}, this run {self.domains}")
        self.manifest = dataclasses.replace(self.manifest, eval_set=manifest.eval_set)
        self._train = DomainSums.from_lists(state["train"])
        self._eval = DomainSums.from_lists(state["eval"])
        self._tokens = np.array(state["tokens"], np.int64)
        self._curves = {int(step): dict(row) for step, row in state["curves"]}

    def _row(self, step: int, quantity: str, sums: DomainSums) -> dict[str, float]:
        row = {keys.STEP: float(step), keys.TOKENS: float(self._tokens.sum())}
        columns = (
            self._slugs,
            self.domains,
            sums.loss.tolist(),
            sums.tokens.tolist(),
            sums.nonfinite.tolist(),
        )
        for short, name, loss, tokens, nonfinite in zip(*columns, strict=True):
            if tokens:
                row[f"{quantity}/{short}"] = loss / tokens
            if nonfinite:
                row[f"{keys.NONFINITE}/{short}"] = float(nonfinite)
                self._warn_once(
                    f"nonfinite {short}",
                    f"{nonfinite} losses of domain {name!r} up to step {step} were NaN or infinite; they are left out "
                    f"and counted in {keys.NONFINITE}/{short}",
                )
        return row

    def _fingerprint(self) -> str:
        """Name the evaluation data by its tokens: any other set has another name, bar a coincidence."""
        evaluated = self._eval.tokens + self._eval.nonfinite  # a loss that was no number is of the same tokens
        content = repr([self.domains, evaluated.tolist(), self._eval.labels.tolist()])
        return "sums:" + hashlib.sha256(content.encode()).hexdigest()[:12]

    def _deliver(self, row: dict[str, float], step: int) -> None:
        if self.tracker is None:
            return
        self._undelivered.append((row, step))
        # After a failure training isn't held up again: rows wait for `finish`.
        if "tracker" not in self._warned:
            self._redeliver()

    def _redeliver(self) -> None:
        tracker = self.tracker
        if tracker is None:
            return
        if not self._started:
            self._started = self._guarded(lambda: tracker.start(self.manifest))
        while self._started and self._undelivered:
            row, step = self._undelivered[0]
            if not self._guarded(lambda row=row, step=step: tracker.log(row, step)):  # type: ignore[misc]
                return
            self._undelivered.pop(0)

    def _guarded(self, call: Callable[[], None]) -> bool:
        """Return whether the tracker took the call: a training run must not die because its tracker did."""
        try:
            call()
        except Exception as error:  # noqa: BLE001  # whatever a tracker raises, training goes on
            self._warn_once(
                "tracker",
                f"the tracker failed ({type(error).__name__}: {error}). Training goes on; "
                "rows are kept and sent again when the run finishes",
            )
            return False
        return True

    def _save_locally(self, curves: str) -> None:
        directory = Path("bimix-undelivered") / uuid.uuid4().hex[:12]
        rows = "".join(json.dumps({keys.STEP: step, **row}) + "\n" for row, step in self._undelivered)
        what = f"the run's evaluations and {len(self._undelivered)} undelivered rows"
        said = f"{what} are in {directory}; jsonl:{directory.parent} reads them"
        try:
            directory.mkdir(parents=True)
            (directory / Path(CURVES).name).write_text(curves, encoding="utf-8")
            (directory / "rows.jsonl").write_text(rows, encoding="utf-8")
        except OSError as error:  # nor does training die because a disk is full
            said = f"{what} could not be saved in {directory.parent} and are lost: {error}"
        warnings.warn(f"the tracker didn't take everything: {said}", stacklevel=3)

    def _warn_once(self, topic: str, message: str) -> None:
        if topic not in self._warned:
            self._warned.add(topic)
            warnings.warn(message, stacklevel=4)


def _from_left(what: str, values: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return one value a loss: values of shape (batch,) go with losses of shape (batch, time)."""
    if values.shape != shape[: values.ndim]:
        raise RecorderError(f"{what} of shape {values.shape} don't fit losses of shape {shape}")
    return np.broadcast_to(values.reshape(values.shape + (1,) * (len(shape) - values.ndim)), shape).ravel()


def check_ids(lowest: int, highest: int, domains: Sequence[str]) -> None:
    """Raise if a domain id is outside the list.

    Raises:
        RecorderError: Names the id and the list.

    >>> check_ids(0, 2, ["code", "web"])
    Traceback (most recent call last):
    bimix_tracking.errors.RecorderError: domain id 2 is outside 0..1 (0 'code', 1 'web')
    """
    for id_ in (lowest, highest):
        if not 0 <= id_ < len(domains):
            named = ", ".join(f"{i} {name!r}" for i, name in enumerate(domains[:8]))
            more = ", …" if len(domains) > 8 else ""
            raise RecorderError(f"domain id {id_} is outside 0..{len(domains) - 1} ({named}{more})")

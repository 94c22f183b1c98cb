"""DomainLossRecorder: per-domain sums in, rows of metrics out. The arithmetic of every trainer adapter.

Sums and counts stay sums and counts until a row is made; the only divisions are in `_row`. So a record is
the token mean whatever the batch size, padding or gradient accumulation were.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bimix_tracking import keys
from bimix_tracking.delivery import Delivery
from bimix_tracking.drift import Drift
from bimix_tracking.errors import RecorderError
from bimix_tracking.manifest import SCHEMA, RunManifest
from bimix_tracking.mixture import Mixture
from bimix_tracking.sums import DomainSums, check_ids
from bimix_tracking.tracking import Tracker


class DomainLossRecorder:
    """Token-weighted losses, tokens and realised shares of each domain, from sums to rows to a tracker.

    For domain i: loss_i = Σ nll / Σ tokens over the tokens since the last record; tokens_i is cumulative over
    training; share_i = tokens_i / Σ_j tokens_j. A domain without tokens emits nothing. If the realised shares leave
    the nominal mixture by more than sampling noise, a warning says so, once.

    Args:
        domains: Names, in the order of the domain ids.
        mixture: The nominal mixture of the run.
        tracker: Where rows go; without one they are only returned.
        schedule: Changes of the mixture in mid-run, {step: mixture}: in force after that many steps. Also see
            `set_mixture`.
        manifest: More fields of `RunManifest`: `sweep`, `tokenizer`, `eval_set`, `model_size`, `batch_tokens`.

    Raises:
        MixtureError: Bad names, or a mixture over other domains.

    >>> recorder = DomainLossRecorder(["code", "web"], {"code": 0.5, "web": 0.5})
    >>> recorder.add([0, 0, 1], [2.0, 4.0, 1.0])
    >>> row = recorder.log_train(step=1)
    >>> row["bimix_train_loss/code"], row["bimix_share/web"], row["bimix_nominal/web"], row["bimix/tokens"]
    (3.0, 0.3333333333333333, 0.5, 3.0)
    """

    def __init__(
        self,
        domains: Sequence[str],
        mixture: Mapping[str, float] | None = None,
        tracker: Tracker | None = None,
        *,
        schedule: Mapping[int, Mapping[str, float]] | None = None,
        **manifest: Any,
    ) -> None:
        changes = tuple((step, _mixture(changed)) for step, changed in sorted((schedule or {}).items()))
        nominal = None if mixture is None else _mixture(mixture)
        self.manifest = RunManifest(domains=tuple(domains), mixture=nominal, schedule=changes, **manifest)
        self._delivery = Delivery(tracker)
        self._slugs = list(keys.slugs(self.manifest.domains))
        self._train = DomainSums.zeros(len(domains))
        self._eval = DomainSums.zeros(len(domains))
        self._tokens = np.zeros(len(domains), np.int64)
        self._drift = Drift(len(domains))
        self._curves: dict[int, dict[str, float]] = {}
        self._step = 0
        self._later: list[Mapping[str, float]] = []
        self._warned: set[str] = set()

    @property
    def domains(self) -> tuple[str, ...]:
        """The domain names, in the order of the domain ids."""
        return self.manifest.domains

    @property
    def tracker(self) -> Tracker | None:
        """Where rows go."""
        return self._delivery.tracker

    @property
    def step(self) -> int:
        """The step of the last training row."""
        return self._step

    @property
    def evaluated(self) -> bool:
        """Whether there are evaluation losses that no row holds yet."""
        return bool(self._eval)

    def mute(self) -> None:
        """Write nothing from here on: of several processes with the same sums, one other writes."""
        self._delivery = Delivery(None)

    def start(self) -> None:
        """Open the run at the tracker now, rather than at the first row."""
        self._delivery.start(self.manifest)

    def set_mixture(self, mixture: Mapping[str, float], step: int) -> None:
        """Say that training goes on with another mixture after `step` steps: logged, and told to the analyzer.

        Raises:
            MixtureError: A mixture over other domains, or a step before an earlier change.
        """
        change = (step, _mixture(mixture))
        self.manifest = dataclasses.replace(self.manifest, schedule=(*self.manifest.schedule, change))
        self.start()

    def add(
        self,
        domain_ids: npt.ArrayLike,
        loss_sums: npt.ArrayLike,
        token_counts: npt.ArrayLike = 1,
        *,
        byte_counts: npt.ArrayLike = 0,
        split: str = "train",
    ) -> None:
        """Add losses of tokens, or of sequences.

        Args:
            domain_ids: Integers in [0, domains), any shape; broadcast from the left, so that ids of shape
                (batch,) go with losses of shape (batch, time).
            loss_sums: Σ of token losses in nats, for each id. For single tokens, their losses.
            token_counts: How many tokens that is, for each id; broadcast likewise. For single tokens, 1; masked, 0.
            byte_counts: How many bytes of text these tokens are, for each id: gives bits per byte.
            split: `train` or `eval`.

        Raises:
            RecorderError: An id that is no integer or outside the list, a count below 0, or shapes that don't fit.
        """
        losses = np.asarray(loss_sums, np.float64)
        ids = np.asarray(domain_ids)
        if ids.size and not np.issubdtype(ids.dtype, np.integer):
            raise RecorderError(f"domain ids must be integers, got {ids.dtype}; names go to `domains`")
        counts = _counts("token counts", token_counts, losses.shape)
        of_text = _counts("byte counts", byte_counts, losses.shape)
        ids = _from_left("domain ids", ids, losses.shape)
        check_ids(ids.min(initial=0), ids.max(initial=0), self.domains)
        losses = losses.ravel()
        bad = ~np.isfinite(losses) & (counts > 0)
        good = np.where(bad, 0, counts)
        sums = DomainSums.zeros(len(self.domains))
        np.add.at(sums.loss, ids, np.where(good > 0, losses, 0.0))
        np.add.at(sums.tokens, ids, good)
        np.add.at(sums.nonfinite, ids, np.where(bad, counts, 0))
        np.add.at(sums.bytes, ids, np.where(bad, 0, of_text))
        self.add_sums(sums, split=split)

    def add_sums(self, sums: DomainSums, *, split: str = "train") -> None:
        """Add sums that were made elsewhere, such as on an accelerator."""
        if split == "train":
            self._train += sums
            self._tokens = self._tokens + sums.tokens + sums.unmeasured
        elif split == "eval":
            self._eval += sums
        else:
            raise RecorderError(f"split must be 'train' or 'eval', got {split!r}")

    def forget_evaluation(self) -> None:
        """Forget the evaluation losses that no row holds yet."""
        self._eval = DomainSums.zeros(len(self.domains))

    def log_train(self, step: int, more: Mapping[str, float] | None = None) -> dict[str, float]:
        """Emit the training losses since the last such row, tokens and shares so far, and forget the window.

        Args:
            step: Optimizer steps taken.
            more: Metrics to go into the same row.
        """
        row = self._row(step, keys.TRAIN_LOSS, self._train)
        nominal = self.manifest.nominal(self._step, step)
        row |= self._shares()
        if self._tokens.any():
            seen = zip(self._slugs, self._tokens.tolist(), strict=True)
            row |= {f"{keys.DOMAIN_TOKENS}/{short}": float(tokens) for short, tokens in seen}
        if nominal is not None:
            row |= {f"{keys.NOMINAL}/{short}": share for short, share in zip(self._slugs, nominal, strict=True)}
            self._drift.add(self._train.tokens + self._train.unmeasured, np.array(nominal))
            told = None if "drift" in self._warned else self._drift.told(self.domains)
            if told:
                self._warn_once("drift", f"at step {step}, {told}")
        row |= more or {}
        self._train = DomainSums.zeros(len(self.domains))
        self._step = step
        self._delivery.add(row, step, self.manifest)
        return row

    def log_eval(self, step: int) -> dict[str, float]:
        """Emit the evaluation losses of all domains as one row, and forget them.

        Returns:
            The row; empty where nothing was evaluated.
        """
        if not self._eval:
            return {}
        if self.manifest.eval_set is None:
            self.manifest = dataclasses.replace(self.manifest, eval_set=self._fingerprint())
            self._delivery.start(self.manifest)  # the manifest has grown
        row = self._row(step, keys.EVAL_LOSS, self._eval)
        columns = (self._slugs, self._eval.loss.tolist(), self._eval.tokens.tolist(), self._eval.bytes.tolist())
        for short, loss, tokens, of_text in zip(*columns, strict=True):
            if tokens:
                row[f"{keys.EVAL_TOKENS}/{short}"] = float(tokens)
            if tokens and of_text:
                row[f"{keys.EVAL_BPB}/{short}"] = loss / math.log(2) / of_text
        self._eval = DomainSums.zeros(len(self.domains))
        # The curves are what a law is fitted to: they say what the proportions really were, too.
        self._curves.setdefault(step, {}).update(row | self._shares())
        self._delivery.add(row, step, self.manifest)
        return row

    def finish(self, step: int | None = None) -> None:
        """Emit what is left, write `bimix/curves.json`, and end the run at the tracker.

        Args:
            step: The last optimizer step, for sums that no row holds yet.
        """
        if step is not None:
            self.log_eval(step)
            if self._train:
                self.log_train(step)
        self._delivery.finish(self.manifest, self.curves())

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
            "drift": self._drift.to_lists(),
            "step": self._step,
            "warned": sorted(self._warned),
            "curves": [[step, row] for step, row in self._curves.items()],
            "delivery": self._delivery.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict` of a recorder over the same domains, in the same run at the tracker.

        Raises:
            RecorderError: The state is of other domains.
        """
        manifest = RunManifest.from_dict(state["manifest"])
        if manifest.domains != self.domains:
            raise RecorderError(f"the checkpoint has domains {manifest.domains}, this run {self.domains}")
        known = {name: getattr(manifest, name) for name in ("eval_set", "schedule")}
        self.manifest = dataclasses.replace(
            self.manifest, **{n: v or getattr(self.manifest, n) for n, v in known.items()}
        )
        self._train = DomainSums.from_lists(state["train"])
        self._eval = DomainSums.from_lists(state["eval"])
        self._tokens = np.array(state["tokens"], np.int64)
        self._drift = Drift.from_lists(state["drift"])
        self._step = int(state["step"])
        self._warned = set(state["warned"])
        self._curves = {int(step): dict(row) for step, row in state["curves"]}
        self._later = self._delivery.load_state_dict(state["delivery"])

    def keep_evaluation(self, step: int) -> None:
        """Keep the evaluation of the checkpoint's own step, where the interrupted process made it after saving.

        To be called once after `load_state_dict`: a trainer that saves before it evaluates doesn't evaluate again.

        Args:
            step: The step that training goes on from.
        """
        later, self._later = self._later, []
        wanted = (keys.STEP, keys.TOKENS, keys.EVAL_LOSS, keys.EVAL_TOKENS, keys.EVAL_BPB)
        row: dict[str, float] = {}
        for found in (found for found in later if found[keys.STEP] == step):
            row |= {name: v for name, v in found.items() if name in wanted or name.partition("/")[0] in wanted}
        if any(name.startswith(f"{keys.EVAL_LOSS}/") for name in row) and not self._eval and step not in self._curves:
            self._curves[step] = row | self._shares()
            self._delivery.add(row, step, self.manifest)

    def _shares(self) -> dict[str, float]:
        total = float(self._tokens.sum())
        shares = zip(self._slugs, self._tokens.tolist(), strict=True)
        return {f"{keys.SHARE}/{short}": tokens / total for short, tokens in shares} if total else {}

    def _row(self, step: int, quantity: str, sums: DomainSums) -> dict[str, float]:
        row = {keys.STEP: float(step), keys.TOKENS: float(self._tokens.sum())}
        columns = (self._slugs, self.domains, sums.loss.tolist(), sums.tokens.tolist(), sums.nonfinite.tolist())
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
        """Name the evaluation data by its tokens: any other set has another name, bar a coincidence.

        By the domains' names: runs that have them in another order evaluate the same set.
        """
        evaluated = self._eval.tokens + self._eval.nonfinite  # a loss that was no number is of the same tokens
        by_name = sorted(zip(self.domains, evaluated.tolist(), self._eval.labels.tolist(), strict=True))
        content = repr([tuple(column) for column in zip(*by_name, strict=True)])
        return "sums:" + hashlib.sha256(content.encode()).hexdigest()[:12]

    def _warn_once(self, topic: str, message: str) -> None:
        if topic not in self._warned:
            self._warned.add(topic)
            warnings.warn(message, stacklevel=4)


def _mixture(mixture: Mapping[str, float]) -> Mixture:
    return mixture if isinstance(mixture, Mixture) else Mixture(mixture)


def _counts(what: str, counts: npt.ArrayLike, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Return one whole number a loss."""
    given = np.asarray(counts, np.float64)
    whole = np.isfinite(given) & (given >= 0) & (given == np.floor(given))
    if not whole.all():
        raise RecorderError(f"{what} must be whole numbers from 0 on, got {given[~whole].ravel()[0]:g}")
    return _from_left(what, given, shape).astype(np.int64)


def _from_left(what: str, values: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return one value a loss: values of shape (batch,) go with losses of shape (batch, time)."""
    if values.shape != shape[: values.ndim]:
        raise RecorderError(f"{what} of shape {values.shape} don't fit losses of shape {shape}")
    return np.broadcast_to(values.reshape(values.shape + (1,) * (len(shape) - values.ndim)), shape).ravel()

"""`FitProblem`: a law's least-squares problems on a grid, one a target, solved for any weights of the runs.

Which losses count is decided here, and said in the notes: shares near 0, the warm-up, a last checkpoint that
is the one before it once more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from bimix_tracking.data.observations import Observations
from bimix_tracking.data.pooling import Note
from bimix_tracking.fitting.engine.grid import Grid, grid_of, mixture_codes, near_codes, volume_codes
from bimix_tracking.fitting.engine.least_squares import ARRIVED, Minimum, huber_weight, minimize, normal
from bimix_tracking.fitting.engine.threads import in_threads
from bimix_tracking.fitting.law_fit import SAME_SHARE
from bimix_tracking.fitting.levels import SAME_VOLUME
from bimix_tracking.fitting.options import FitOptions
from bimix_tracking.laws.protocol import Array, Blocks, Box, Index, Law, Prior
from bimix_tracking.messages import said
from bimix_tracking.quantities import tokens

SAME_CHECKPOINT = 0.005
"""Checkpoints of one run nearer than this in log tokens are one point: its loss would count twice."""
PRIOR_NOISE = 0.003
"""A law's error on a run, in log loss, when its prior is weighed against the data."""
_BATCH = 600_000
"""Numbers of an array held at once (5 MB): more problems than that are solved one batch after another."""
_PLAIN_ARRIVED = 1e-6
"""Offset of a law that shrinks nothing: it has few parameters, and gets to its last digits in a step or two."""


class FitProblem:
    """The problems of one law on one sweep: minimise Σ w ρ_δ(log L − log L̂(θ)) + the prior, for each target.

    Args:
        law: The law.
        grid: The sweep, with all its targets.
        options: How laws are fitted; the warm-up is known.
        runs: Names of the runs, for the notes.
        notes: Added to: what was excluded or adjusted; None: not needed.
    """

    def __init__(
        self, law: Law, grid: Grid, options: FitOptions, *, runs: Sequence[str] = (), notes: list[Note] | None = None
    ) -> None:
        notes = [] if notes is None else notes
        kept = np.flatnonzero((grid.own >= 0) | (not law.traits.needs_own))
        reason = said("{law} fits only losses of domains of the mixture", law=law.name)
        notes += [
            Note(said("excluded"), reason, 1, domain=target, target=True)
            for i, target in enumerate(grid.targets)
            if i not in kept.tolist()
        ]
        self.law, self.options = law, options
        grid = grid.only(kept)
        if not law.traits.needs_own:
            grid = _never_varied(grid, notes)
        self.grid = _counted(grid, law, options, runs, notes)
        # A law that isn't made of blocks sees each point as a mixture of its own.
        self._solved = self.grid if law.traits.separable else self.grid.points()
        self._row_of = np.repeat(np.arange(len(grid.shares)), len(self._solved.shares) // max(len(grid.shares), 1))
        self.inputs = self._solved.inputs(options.floor)
        domains = grid.shares.shape[1]
        self.box: Box = law.box(self.grid.own, self.grid.inputs(options.floor), self.grid.log_loss, self.grid.weight)
        own_prior = law.prior(self.grid.own, domains)
        # Weighed as one run with that error.
        self.prior = Prior(own_prior.mean, own_prior.precision * (PRIOR_NOISE**2 * self.grid.per_run())[:, None, None])
        self.shrinks = bool(self.prior.precision.any())

    @classmethod
    def of(cls, obs: Observations, law: Law, options: FitOptions, notes: list[Note] | None = None) -> FitProblem:
        """Return the problem of a sweep."""
        return cls(law, grid_of(obs), options, runs=obs.runs, notes=notes)

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets that the law can have."""
        return self.grid.targets

    def predict(self, theta: Array, which: Index) -> Array:
        """Return log L on the grid, shape (problems, runs, volumes).

        Args:
            theta: Shape (problems, parameters).
            which: Target of each problem.
        """
        found = self.law.blocks(theta, self.grid.own[which], self.inputs).log_loss
        return found.reshape(len(theta), *self.grid.log_loss.shape[1:])

    def solve(
        self,
        which: Index,
        start: Array,
        identifiable: npt.NDArray[np.bool_],
        run_weights: Array | None = None,
        *,
        offset: float | None = None,
        steps: int = 150,
        persistent: bool = True,
        after: Callable[[int], None] | None = None,
    ) -> Minimum:
        """Minimise problems, each of one target with weights of the runs of its own; in threads where it pays.

        Args:
            which: Target of each problem.
            start: Shape (problems, parameters).
            identifiable: Which parameters its runs identify, of that shape; the others are held.
            run_weights: How often each run counts, (problems, runs); None: once.
            offset: Relative offset at which a problem has arrived; None: as good as it counts for the law.
            steps: As in `minimize`.
            persistent: As in `minimize`.
            after: Called with the number of problems solved since its last call.
        """
        if offset is None:
            offset = ARRIVED if self.shrinks else _PLAIN_ARRIVED
        size = self._batch_size(start.shape[1])
        parts = [slice(i, i + size) for i in range(0, len(which), size)]

        def one(rows: slice) -> Minimum:
            weights = None if run_weights is None else run_weights[rows]
            found = self._minimize(
                which[rows], start[rows], identifiable[rows], weights, offset, steps, persistent=persistent
            )
            if after is not None:
                after(len(found.cost))
            return found

        found = in_threads(one, parts)
        if not found:
            return Minimum(np.empty((0, start.shape[1])), np.empty(0), np.empty(0))
        return Minimum(*(np.concatenate([getattr(part, n) for part in found]) for n in ("theta", "cost", "offset")))

    def _batch_size(self, parameters: int) -> int:
        rows, volumes = self._solved.log_loss.shape[1:]
        return max(1, int(_BATCH // max(1, rows * max(parameters, volumes))))

    def _minimize(
        self,
        which: Index,
        start: Array,
        identifiable: npt.NDArray[np.bool_],
        run_weights: Array | None,
        offset: float,
        steps: int,
        *,
        persistent: bool,
    ) -> Minimum:
        weight, observed, own = self._solved.weight[which], self._solved.log_loss[which], self._solved.own[which]
        if run_weights is not None:
            weight = weight * run_weights[:, self._row_of, None]
        lower, upper = (np.where(identifiable, side[which], self.box.held) for side in (self.box.lower, self.box.upper))

        def residuals(theta: Array, of: Index) -> Blocks:
            found = self.law.blocks(theta, own[of], self.inputs)
            return replace(found, log_loss=found.log_loss - observed[of])

        return minimize(
            residuals,
            start,
            weight,
            lower=lower,
            upper=upper,
            delta=self.options.huber_delta,
            prior=Prior(self.prior.mean[which], self.prior.precision[which]) if self.shrinks else None,
            offset=offset,
            steps=steps,
            persistent=persistent,
        )

    def cost_at(self, theta: Array, which: Index) -> tuple[Array, Array, Array]:
        """Return cost, gradient and relative offset of problems at θ, the prior's among them.

        Args:
            theta: Shape (problems, parameters).
            which: Target of each.

        Returns:
            Shapes (problems,), (problems, parameters) and (problems,).
        """
        every = np.ones(theta.shape, bool)
        found = self._minimize(which, theta, every, None, 0.0, 0, persistent=False)
        blocks = self.law.blocks(theta, self.grid.own[which], self.inputs)
        residual = replace(blocks, log_loss=blocks.log_loss - self._solved.log_loss[which])
        weight = self._solved.weight[which] * huber_weight(residual.log_loss, self.options.huber_delta)
        pull = self.prior.precision[which] @ (theta - self.prior.mean[which])[..., None]
        return found.cost, normal(residual, weight)[0] + pull[..., 0], found.offset

    def by_run(self, theta: Array, target: int) -> tuple[Array, Array]:
        """Return each run's part of gradient and curvature of one target at θ, without the prior's.

        The curvature is JᵀJ over the losses within δ: beyond it the Huber loss has none. (Its weight δ / |e|, which
        makes a minimiser's steps safe, would make what many outliers leave uncertain look sure.)

        Args:
            theta: Shape (parameters,).
            target: Place of the target.

        Returns:
            Shapes (runs, parameters) and (runs, parameters, parameters).
        """
        one = slice(target, target + 1)
        jacobian = self.law.blocks(theta[None], self._solved.own[one], self.inputs)
        residual = (jacobian.log_loss - self._solved.log_loss[one])[0]
        delta, weight = self.options.huber_delta, self._solved.weight[target]
        rows = jacobian.jacobian()[0]
        scores = np.matmul((weight * huber_weight(residual, delta) * residual)[:, None, :], rows)[:, 0]
        inner = rows * (weight * (np.abs(residual) <= delta))[..., None]
        curvature = np.matmul(np.swapaxes(inner, 1, 2), rows)
        runs = len(self.grid.shares)
        return (
            scores.reshape(runs, -1, len(theta)).sum(1),
            curvature.reshape(runs, -1, len(theta), len(theta)).sum(1),
        )

    def identifiable(self, counted: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return which θ the runs of each replicate identify, (replicates, targets, parameters).

        Args:
            counted: Which runs a replicate has, (replicates, runs).
        """
        grid = self.grid
        mixture = mixture_codes(grid.shares)
        volume = np.zeros(grid.log_loss.shape[1:], np.intp)
        volume[grid.cells] = volume_codes(grid.at_u, SAME_VOLUME)
        found = np.zeros((len(counted), len(grid.targets), 3), np.intp)
        alike: dict[bytes, int] = {}
        for i, own in enumerate(grid.own):
            measured = grid.weight[i] > 0
            runs = measured.any(1)
            present = counted & runs
            # A target outside has no own share; an effective one is as often different as the mixtures are.
            of_shares = near_codes(grid.shares[:, own]) if own >= 0 else mixture
            found[:, i, 0] = _distinct(present, of_shares)
            # Most targets are measured at the same cells.
            same = alike.setdefault(measured.tobytes(), i)
            if same < i:
                found[:, i, 1:] = found[:, same, 1:]
                continue
            found[:, i, 1] = _distinct(present, mixture)
            at = np.zeros((len(grid.shares), int(volume.max(initial=0)) + 1))
            at[np.nonzero(measured)[0], volume[measured]] = 1
            found[:, i, 2] = (present.astype(float) @ at > 0).sum(-1)
        kinds, each = np.unique(found.reshape(-1, 3), axis=0, return_inverse=True)
        domains = grid.shares.shape[1]
        table = np.stack(
            [self.law.identifiable(shares, mixtures, volumes, domains) for shares, mixtures, volumes in kinds.tolist()]
        )
        return np.asarray(table[each.reshape(-1)].reshape(*found.shape[:2], -1))


def _distinct(present: npt.NDArray[np.bool_], codes: Index) -> Index:
    """Return how many distinct codes the runs present have, (replicates,)."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(codes[order]) > 0])
    return np.asarray(np.logical_or.reduceat(present[:, order], starts, axis=1).sum(1), np.intp)


def _never_varied(grid: Grid, notes: list[Note]) -> Grid:
    """Return the grid with −1 for the own domain of a target whose proportion never varied, as `LawFit.own` has it."""
    alike = (np.ptp(grid.shares, axis=0)[grid.own] <= SAME_SHARE) & (grid.own >= 0)
    reason = said("its proportion is the same in all runs: its effect is taken to be that of an average domain")
    notes += [Note(said("adjusted"), reason, len(grid.shares), domain=grid.targets[i]) for i in np.flatnonzero(alike)]
    return replace(grid, own=np.where(alike, -1, grid.own))


def _counted(grid: Grid, law: Law, options: FitOptions, runs: Sequence[str], notes: list[Note]) -> Grid:
    """Return the grid in which what doesn't count has weight 0."""
    weight = grid.weight.copy()
    if law.traits.infinite_at_zero:
        _near_zero(grid, weight, options, notes)
    _warm_up(grid, weight, options.warmup_end, notes)
    _repeated_checkpoints(grid, weight, len(runs), notes)
    return replace(grid, weight=weight)


def _near_zero(grid: Grid, weight: Array, options: FitOptions, notes: list[Note]) -> None:
    floor = options.floor
    for i, (target, own) in enumerate(zip(grid.targets, grid.own.tolist(), strict=True)):
        low = (grid.shares[:, own] < floor) & weight[i].any(1) if own >= 0 else np.zeros(len(grid.shares), bool)
        runs = int(low.sum())
        if runs and not options.clamped:
            reason = said("the run's proportion of the domain is 0, or below the proportion floor")
            notes.append(Note(said("excluded"), reason, runs, domain=target))
            weight[i, low] = 0.0
        elif runs:
            text = said("proportions below the proportion floor, {least:g}, count as the floor", least=options.floor)
            notes.append(Note(said("adjusted"), text, runs, domain=target))


def _warm_up(grid: Grid, weight: Array, warmup: float, notes: list[Note]) -> None:
    early = np.zeros(weight.shape[1:], bool)
    early[grid.cells] = grid.at_u <= np.log(max(warmup, 1e-300) / grid.scale) + 1e-9
    hit = early & (weight > 0)
    if hit.any():
        text = said(
            "losses up to {warmup} tokens, within the warm-up, where no power law holds yet", warmup=tokens(warmup)
        )
        notes.append(Note(said("excluded"), text, int(hit.any(0).sum())))
        weight[hit] = 0.0


def _repeated_checkpoints(grid: Grid, weight: Array, runs: int, notes: list[Note]) -> None:
    near = np.zeros(len(grid.run), bool)
    near[:-1] = (np.diff(grid.at_u) < SAME_CHECKPOINT) & (np.diff(grid.run) == 0)
    counts = grid.at(weight) > 0
    hit = near & counts
    # Only where the later one is there to stand for both.
    hit[:, :-1] &= counts[:, 1:]
    if hit.any():
        count = len(np.unique(grid.run[hit.any(0)]))
        text = said(
            "checkpoints within {near:.1%} of the tokens of the next, in {count} of {runs} runs",
            near=SAME_CHECKPOINT,
            count=count,
            runs=runs,
        )
        notes.append(Note(said("excluded"), text, int(hit.any(0).sum())))
        for i in range(len(weight)):
            weight[i, grid.cells[0][hit[i]], grid.cells[1][hit[i]]] = 0.0

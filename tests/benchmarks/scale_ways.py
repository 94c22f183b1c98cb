"""Sweeps at several sizes, their random splits, and the ways to predict the largest: the bridge and its rivals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pandas as pd
from scale_rivals import additive, affine, factor
from scipy.stats import spearmanr
from sweeps import reference

from bimix_tracking import LawFit, Observations, select_law

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sweeps:
    """The same mixtures at a few sizes; the last one is asked for.

    Args:
        table: A row a checkpoint, without each run's first, with `run`, `mixture`, `size` and `schedule`.
        domains: Of the mixtures, and the targets.
    """

    table: pd.DataFrame
    domains: list[str]

    @classmethod
    def read(cls, files: list[str]) -> Sweeps:
        """Read sweeps like slimpajama_122m.csv; `weight_<domain>`, `model_size`, `n_tokens`, `<domain>_loss`."""
        table = pd.concat([reference(name) for name in files], ignore_index=True)
        shares = [c for c in table.columns if c.startswith("weight_")]
        key = table[shares].round(6)
        table = table.assign(mixture=key.groupby(shares, sort=False).ngroup(), size=table["model_size"])
        table["run"] = table["size"].map("{:g}".format) + " " + table["mixture"].astype(str)
        tokens = table.groupby("run")["n_tokens"]
        table = table.assign(schedule=tokens.transform("max"))[table["n_tokens"] > tokens.transform("min")]
        return cls(table, [c.removeprefix("weight_") for c in shares])

    @property
    def target(self) -> float:
        """The size that is asked for: that of the last file."""
        return float(self.table["size"].iloc[-1])

    def rows(self, mixtures: npt.ArrayLike, *, large: bool, part: float = 1.0) -> pd.DataFrame:
        """Return the rows of some mixtures at the size asked for or at all others, up to a part of their schedule."""
        at = self.table["size"].eq(self.target) == large
        cut = self.table["n_tokens"] <= part * self.table["schedule"]
        return self.table[at & cut & self.table["mixture"].isin(np.asarray(mixtures).tolist())]

    def observe(self, *parts: pd.DataFrame, bare: bool = False) -> Observations:
        """Return the observations of some rows; `bare` without sizes and schedules."""
        return Observations.from_wide(
            pd.concat(parts),
            proportions={d: f"weight_{d}" for d in self.domains},
            losses={d: f"{d}_loss" for d in self.domains},
            tokens="n_tokens",
            run="run",
            model_size=None if bare else "size",
            schedule_tokens=None if bare else "schedule",
        )

    def shares(self, rows: pd.DataFrame) -> Array:
        """Return the mixtures of rows, (rows, domains)."""
        return rows[[f"weight_{d}" for d in self.domains]].to_numpy(float)

    def losses(self, rows: pd.DataFrame) -> Array:
        """Return the losses of rows, (rows, domains)."""
        return rows[[f"{d}_loss" for d in self.domains]].to_numpy(float)


def last(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each run's last checkpoint."""
    return rows[rows["n_tokens"] == rows.groupby("run")["n_tokens"].transform("max")]


@dataclass(frozen=True, eq=False)
class Split:
    """A draw of mixtures: those of the small sweep, those that anchors are of, and unseen ones."""

    number: int
    small: Array
    anchored: Array
    unseen: Array


def splits(sweeps: Sweeps, mixtures: int, count: int, unpaired: int = 0) -> Iterator[Split]:
    """Return random splits.

    Args:
        sweeps: The sweeps.
        mixtures: Of the small sweep.
        count: Splits.
        unpaired: So many anchors have mixtures of their own; 0: they have those of the small sweep, in turn.
    """
    rng = np.random.default_rng(mixtures)
    for number in range(count):
        drawn = rng.permutation(sweeps.table["mixture"].unique())
        end = mixtures + unpaired
        yield Split(number, drawn[:mixtures], drawn[mixtures:end] if unpaired else drawn[:mixtures], drawn[end:])


def score(predicted: Array, observed: Array) -> tuple[float, float]:
    """Return the mean relative error, per cent, and the rank correlation of the mean loss."""
    error = 100 * float(np.nanmean(np.abs(predicted / observed - 1)))
    if np.ptp(predicted.mean(1)) == 0:
        return error, float("nan")
    return error, float(spearmanr(predicted.mean(1), observed.mean(1), nan_policy="omit").statistic)


# --- the ways to predict ------------------------------------------------------------------------------------------

Way = Callable[[Sweeps, Split, pd.DataFrame, pd.DataFrame], Array]
"""(sweeps, split, rows of the anchors, rows asked for) → losses, (rows, domains)."""


def bridged(sweeps: Sweeps, split: Split, anchors: pd.DataFrame) -> tuple[Observations, LawFit]:
    """Return the observations of a split and the chosen law with its bridge."""
    obs = sweeps.observe(sweeps.rows(split.small, large=False), anchors)
    return obs, select_law(obs, seed=split.number, model_size=sweeps.target).fit


def _by_tokens(sweeps: Sweeps, split: Split, anchors: pd.DataFrame, asked: pd.DataFrame) -> Array:
    """The bridge, as if all schedules were as long as the longest."""
    table = sweeps.table.assign(schedule=sweeps.table["schedule"].max())
    return _bridge(replace(sweeps, table=table), split, table.loc[anchors.index], asked)


def _from_largest(sweeps: Sweeps, split: Split, anchors: pd.DataFrame, asked: pd.DataFrame) -> Array:
    """The bridge, from the largest of the small sizes alone."""
    rows = pd.concat([largest(sweeps, split), sweeps.rows(sweeps.table["mixture"].unique(), large=True)])
    return _bridge(replace(sweeps, table=rows), split, anchors, asked)


def _bridge(sweeps: Sweeps, split: Split, anchors: pd.DataFrame, asked: pd.DataFrame) -> Array:
    fit = bridged(sweeps, split, anchors)[1]
    found = fit.predict(sweeps.shares(asked), asked["n_tokens"].to_numpy(float), model_size=sweeps.target)
    return found[sweeps.domains].to_numpy(float)


@cache
def _small(sweeps: Sweeps, split: Split) -> LawFit:
    """Return the law chosen for the largest of the small sizes alone."""
    return select_law(sweeps.observe(largest(sweeps, split), bare=True), seed=split.number).fit


def largest(sweeps: Sweeps, split: Split) -> pd.DataFrame:
    """Return the rows of the largest of the small sizes."""
    rows = sweeps.rows(split.small, large=False)
    found: pd.DataFrame = rows.loc[rows["size"] == rows["size"].max()]
    return found


def _ask(sweeps: Sweeps, split: Split, rows: pd.DataFrame, *, by: str) -> Array:
    """Return the small law's losses at the rows' own tokens, or at the same share of the small schedule."""
    fit, tokens = _small(sweeps, split), rows["n_tokens"].to_numpy(float)
    if by == "progress":
        tokens = tokens / rows["schedule"].to_numpy(float) * fit.tokens[1]
    return fit.predict(sweeps.shares(rows), tokens)[sweeps.domains].to_numpy(float)


def _linked(link: Callable[[Array, Array, Array], Array], by: str = "progress") -> Way:
    def way(sweeps: Sweeps, split: Split, anchors: pd.DataFrame, asked: pd.DataFrame) -> Array:
        ends = last(anchors)
        seen = _ask(sweeps, split, ends, by=by), sweeps.losses(ends)
        return link(*seen, _ask(sweeps, split, asked, by=by))

    return way


def _paired(sweeps: Sweeps, split: Split, anchors: pd.DataFrame, asked: pd.DataFrame) -> Array:
    """One factor a domain, from anchors and small runs of the same mixture."""
    small, ends = largest(sweeps, split), last(anchors)
    before = []
    for mixture, progress in zip(ends["mixture"], ends["n_tokens"] / ends["schedule"], strict=True):
        run = small[small["mixture"] == mixture]
        own = np.log((run["n_tokens"] / run["schedule"]).to_numpy(float))
        before.append([np.interp(np.log(progress), own, column) for column in sweeps.losses(run).T])
    return factor(np.array(before), sweeps.losses(ends), _ask(sweeps, split, asked, by="progress"))


def _alone(sweeps: Sweeps, split: Split, anchors: pd.DataFrame, asked: pd.DataFrame) -> Array:
    """The law of the anchors alone; their mean where they are too few for one."""
    if anchors["run"].nunique() < 5:
        mean = np.nanmean(sweeps.losses(last(anchors)), 0)
        return np.broadcast_to(mean, (len(asked), len(mean)))
    fit = select_law(sweeps.observe(anchors, bare=True), seed=split.number).fit
    return fit.predict(sweeps.shares(asked), asked["n_tokens"].to_numpy(float))[sweeps.domains].to_numpy(float)


def _joint(sweeps: Sweeps, split: Split, anchors: pd.DataFrame, asked: pd.DataFrame) -> Array:
    rows = pd.concat([sweeps.rows(split.small, large=False), anchors])
    size, tokens = rows["size"].to_numpy(float), rows["n_tokens"].to_numpy(float)
    found = additive(sweeps.shares(rows), size, tokens, sweeps.losses(rows), seed=split.number)
    return found.predict(sweeps.shares(asked), sweeps.target, asked["n_tokens"].to_numpy(float))


WAYS: dict[str, Way] = {
    "the bridge": _bridge,
    "the bridge, by tokens": _by_tokens,
    "the bridge, largest small size": _from_largest,
    "small law, one factor a domain": _linked(factor),
    "one factor, by pairs": _paired,
    "one factor, by tokens": _linked(factor, "tokens"),
    "affine link a domain": _linked(affine),
    "joint additive law": _joint,
    "law of the anchors alone": _alone,
}

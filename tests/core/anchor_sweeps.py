"""Sweeps at two model sizes, and what anchors were expected to buy there against what they bought."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bimix_tracking import Observations, bootstrap, select_law
from bimix_tracking.design.anchor_worth import expected_errors
from bimix_tracking.design.stopping import SUM

SMALL, LARGE = 1e8, 1e9
_PROGRESS = (0.1, 0.25, 0.5, 0.75, 1.0)


def made_up(
    mixtures: int, *, noise: float, seed: int, domains: int = 3, level: float = -0.25
) -> tuple[pd.DataFrame, list[str]]:
    """Return runs of the same mixtures at two sizes: BiMix, a level and noise of each run, which its losses share.

    Args:
        mixtures: How many, at either size.
        noise: Standard deviation of a run's log loss, by target.
        seed: Of all draws.
        domains: How many.
        level: Of the larger size, log loss.
    """
    rng = np.random.default_rng(seed)
    names = [f"d{i}" for i in range(domains)]
    shares = rng.dirichlet(np.full(domains, 4.0), mixtures)
    alpha, floor = rng.uniform(0.05, 0.2, domains), rng.uniform(1.5, 3, domains)
    rows = []
    for size, tokens in ((SMALL, 2e9), (LARGE, 2e10)):
        for number, share in enumerate(shares):
            luck = np.exp(noise * rng.standard_normal(domains))
            for progress in _PROGRESS:
                loss = share**-alpha * (floor + 0.5 * progress**-0.4) * luck * np.exp(level * (size == LARGE))
                rows.append(
                    {"run": f"{number}-{size:g}", "mixture": number, "tokens": progress * tokens, "model_size": size}
                    | {f"p_{name}": value for name, value in zip(names, share, strict=True)}
                    | dict(zip(names, loss, strict=True))
                )
    return pd.DataFrame(rows), names


def observed(table: pd.DataFrame, names: Sequence[str]) -> Observations:
    """Return the observations of runs as `made_up` has them."""
    return Observations.from_wide(
        table,
        proportions={name: f"p_{name}" for name in names},
        losses=list(names),
        tokens="tokens",
        run="run",
        model_size="model_size",
    )


def compared(
    table: pd.DataFrame, names: Sequence[str], small: Sequence[int], anchors: Sequence[int], asked: Sequence[int]
) -> dict[str, float]:
    """Return the expected and the found error of predicted losses at the larger size, relative.

    Args:
        table: As `made_up` has it.
        names: Of the domains.
        small: Mixtures run at the smaller size.
        anchors: Mixtures run at the larger size.
        asked: Mixtures predicted there.
    """
    size, mixture = table["model_size"], table["mixture"]
    proxies = table[(size == size.min()) & mixture.isin(list(small))]
    large = table[size == size.max()]
    weights = dict.fromkeys(names, 1.0)
    before = observed(proxies, names)
    law = select_law(before).fit
    expected = expected_errors(
        law, weights, model_size=size.max(), anchors=len(anchors), replicates=bootstrap(before, law)
    ).iloc[-1]
    pooled = pd.concat([proxies, large[large["mixture"].isin(list(anchors))]])
    fit = select_law(observed(pooled, names), model_size=size.max()).fit
    last = large.sort_values("tokens").drop_duplicates("run", keep="last")
    last = last[last["mixture"].isin(list(asked))]
    shares = last[[f"p_{name}" for name in fit.domains]].to_numpy(float)
    predicted = fit.predict(shares, last["tokens"].max(), model_size=size.max())[list(names)].to_numpy(float)
    truth = last[list(names)].to_numpy(float)
    off = np.log(truth / predicted)
    sums = np.log(truth.sum(1) / predicted.sum(1))
    return {
        "expected": float(np.sqrt((expected[list(names)] ** 2).mean())),
        "found": float(np.sqrt(np.nanmean(off**2))),
        "expected_sum": float(expected[SUM]),
        "found_sum": float(np.sqrt(np.nanmean(sums**2))),
    }


def on_made_up(sweeps: int, *, mixtures: int = 12, anchors: int = 1, noise: float = 0.01) -> pd.DataFrame:
    """Return expected and found errors over made-up sweeps, a row a sweep.

    Args:
        sweeps: How many.
        mixtures: Run at the smaller size.
        anchors: Of these, run at the larger size.
        noise: As in `made_up`.
    """
    rows = []
    for seed in range(sweeps):
        table, names = made_up(mixtures + 20, noise=noise, seed=seed)
        rows.append(compared(table, names, range(mixtures), range(anchors), range(mixtures, mixtures + 20)))
    return pd.DataFrame(rows)

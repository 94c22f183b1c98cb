"""Whether intervals and probabilities hold on mixtures that a real sweep held out, and on sweeps whose law is another.

python tests/benchmarks/calibration.py [--only real|external|later|simulated] [--splits 20]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import t as student
from sweeps import observe, slimpajama

from bimix_tracking import Mixture, Observations, bootstrap, recommend, select_law
from bimix_tracking.fitting.replicates import Replicates

Array = npt.NDArray[np.float64]
SIZES = (8, 12, 20, 36)
PAIRS = 400
DRAWS = 100
BINS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
MODELS = (122, 310)


def splits(
    model: int, size: int, count: int, targets: list[str], part: float = 1.0
) -> Iterator[tuple[int, Replicates, Array, Array, Array]]:
    """Return by split the replicates of the chosen fit, and unseen mixtures, their last volumes and losses.

    Args:
        model: Size of the models, millions of parameters.
        size: Training mixtures.
        count: Splits.
        targets: Whose losses count.
        part: Of the tokens, what the fit may see.
    """
    table, domains = slimpajama(f"{model}m")
    rng = np.random.default_rng(size)
    weights = {t: float(t in targets) for t in (*domains, *targets)}
    for split in range(count):
        chosen = rng.permutation(table["run"].unique())[:size]
        inside = table["run"].isin(chosen)
        seen = table[inside & (table["n_tokens"] <= part * table["n_tokens"].max())]
        obs = observe(seen, domains, list(weights))
        fit = select_law(obs, seed=split, weights=weights).fit
        drawn = bootstrap(obs, fit, replicates=DRAWS, seed=split)
        last = table[~inside & (table["n_tokens"] == table.groupby("run")["n_tokens"].transform("max"))]
        last = last.dropna(subset=[f"{t}_loss" for t in targets])
        shares = last[[f"weight_{d}" for d in domains]].to_numpy(float)
        yield (
            split,
            drawn,
            shares,
            last["n_tokens"].to_numpy(float),
            last[[f"{t}_loss" for t in targets]].to_numpy(float),
        )


def differences(
    drawn: Replicates, shares: Array, volume: Array, losses: Array, weights: dict[str, float], rng: np.random.Generator
) -> pd.DataFrame:
    """Return one row a pair of mixtures: distance, whether the interval of the sum's difference holds what was seen.

    And P(the second sum is above the first one), with the form error and by the replicates alone, and whether it is.
    """
    at = [list(drawn.fit.targets).index(t) for t in weights]
    one, other = np.triu_indices(len(shares), 1)
    picked = rng.choice(len(one), min(PAIRS, len(one)), replace=False)
    one, other = one[picked], other[picked]
    by_fit = drawn.fit.losses(shares, volume).to_numpy(float)[:, at].sum(1)
    by_draw = drawn.losses(shares, volume)[..., at].sum(-1)
    centre, values = by_fit[other] - by_fit[one], by_draw[:, other] - by_draw[:, one]
    form = drawn.form(weights)
    variance = np.zeros(len(one)) if form is None else form.between(shares[one], shares[other])
    below, above = drawn.sides(values - centre, weights, variance, 0.9)
    seen = losses[other].sum(1) - losses[one].sum(1)
    side = np.where(centre > 0, -below, above)
    return pd.DataFrame(
        {
            "distance": np.abs(shares[one] - shares[other]).sum(1) / 2,
            "held": (centre + below <= seen) & (seen <= centre + above),
            "p": student.cdf(centre / (side / drawn.times(weights, 0.9)), drawn.free(weights)),
            "today": ((values > 0).sum(0) + 0.5) / (len(values) + 1),
            "better": (seen > 0).astype(float),
        }
    )


def real(count: int, targets: list[str] | None = None, part: float = 1.0) -> None:
    """Print coverage of differences and of single losses at unseen mixtures, and how P is calibrated."""
    targets = targets or slimpajama(f"{MODELS[0]}m")[1]
    weights = dict.fromkeys(targets, 1.0)
    print(
        "| parameters, M | mixtures | difference of two unseen, % | of near pairs | of far ones | one loss, % "
        "| by the bootstrap alone |"
    )
    print("|---|---|---|---|---|---|---|")
    said = []
    for model in MODELS:
        for size in SIZES:
            rows = []
            for split, drawn, shares, volume, losses in splits(model, size, count, targets, part):
                rng = np.random.default_rng([split, size])
                at = [list(drawn.fit.targets).index(t) for t in targets]
                low, high = (end.to_numpy(float)[:, at] for end in drawn.interval(shares, volume))
                found = differences(drawn, shares, volume, losses, weights, rng)
                said.append(found.assign(split=f"{model} {size} {split}"))
                near, far = found["distance"].quantile([0.1, 0.9])
                drawn_low, drawn_high = np.nanquantile(drawn.losses(shares, volume)[..., at], [0.05, 0.95], axis=0)
                rows.append(
                    {
                        "pair": found["held"].mean(),
                        "near": found["held"][found["distance"] <= near].mean(),
                        "far": found["held"][found["distance"] >= far].mean(),
                        "one": ((low <= losses) & (losses <= high)).mean(),
                        "plain": ((drawn_low <= losses) & (losses <= drawn_high)).mean(),
                    }
                )
            mean, error = 100 * pd.DataFrame(rows).mean(), 100 * pd.DataFrame(rows).std() / len(rows) ** 0.5
            cells = " | ".join(f"{mean[n]:.1f} ± {error[n]:.1f}" for n in ("pair", "near", "far", "one", "plain"))
            print(f"| {model} | {size} | {cells} |", flush=True)
    probabilities(pd.concat(said, ignore_index=True))


def probabilities(found: pd.DataFrame) -> None:
    """Print Brier scores, and how often what was said with a probability came true; errors over splits."""
    for name in ("p", "today"):
        print(f"\nBrier score, {name}: {((found[name] - found['better']) ** 2).mean():.4f}")
        sure = found[name].clip(lower=1 - found[name])
        right = np.where(found[name] >= 0.5, found["better"], 1 - found["better"])
        rows = pd.DataFrame({"said": sure, "right": right, "split": found["split"], "bin": pd.cut(sure, list(BINS))})
        print("\n| probability said | pairs | mean said | came true | standard errors apart |\n|---|---|---|---|---|")
        for where, part in rows.groupby("bin", observed=True):
            apart = (part["right"] - part["said"]).groupby(part["split"]).sum()
            error = float(np.sqrt((apart**2).sum())) / len(part)
            off = (part["right"].mean() - part["said"].mean()) / error
            print(f"| {where} | {len(part)} | {part['said'].mean():.3f} | {part['right'].mean():.3f} | {off:+.1f} |")


# --- sweeps whose truth is known ----------------------------------------------------------------------------------

TRUTHS: dict[str, Callable[[Array, Array], Array]] = {
    "bimix": lambda r, _: r**-0.1,
    "exponential": lambda r, helps: np.exp(-0.6 * r - 0.5 * r @ helps.T) + 0.4,
}


def invented(
    law: str, runs: int, repeats: int, noise: float, rng: np.random.Generator
) -> tuple[Observations, Callable[[Array], Array]]:
    """Return a sweep of four domains, each mixture run so often, and the expected sum of losses of mixtures."""
    names = [f"domain {i}" for i in range(4)]
    helps = rng.uniform(0, 1, (4, 4)) * (1 - np.eye(4))
    fall, floor = rng.uniform(0.3, 1, 4), rng.uniform(1.5, 3, 4)
    tokens = np.geomspace(1e9, 2e10, 5)

    def loss(shares: Array, volume: float) -> Array:
        return np.asarray(TRUTHS[law](shares, helps) * (floor + fall * (volume / 5e9) ** -0.5))

    shares = np.repeat(rng.dirichlet(np.full(4, 2.0), runs // repeats) * 0.96 + 0.01, repeats, axis=0)
    rows = []
    for run, row in enumerate(shares):
        luck = noise * rng.standard_normal(4)
        for volume in tokens:
            values = loss(row[None], volume)[0] * np.exp(luck + noise / 2 * rng.standard_normal(4))
            rows.append([run, volume, *row, *values])
    columns = ["run", "tokens", *(f"p {n}" for n in names), *(f"l {n}" for n in names)]
    obs = Observations.from_wide(
        pd.DataFrame(rows, columns=columns),
        proportions={n: f"p {n}" for n in names},
        losses={n: f"l {n}" for n in names},
        tokens="tokens",
        run="run",
    )
    return obs, lambda mixtures: loss(np.atleast_2d(mixtures), float(tokens[-1])).sum(1)


def simulated(count: int) -> None:
    """Print how often the gain's interval holds the expected gain, where the law fitted is and isn't the true one."""
    print("| truth | fitted | runs | of each mixture | noise, % | gain in its interval, % | P | truly better |")
    print("|---|---|---|---|---|---|---|---|")
    for law, fitted in (("bimix", "bimix"), ("exponential", "bimix"), ("exponential", "auto")):
        for runs, repeats in ((12, 1), (24, 1), (24, 2)):
            for noise in (0.002, 0.01):
                rows = []
                for seed in range(count):
                    rng = np.random.default_rng([seed, runs, repeats, len(law)])
                    obs, total = invented(law, runs, repeats, noise, rng)
                    found = select_law(obs, [fitted] if fitted != "auto" else None, seed=seed)
                    at = rng.dirichlet(np.full(4, 2.0)) * 0.96 + 0.01
                    away = Mixture.normalized(dict(zip(obs.domains, at.tolist(), strict=True)))
                    drawn = bootstrap(obs, found.fit, replicates=DRAWS, seed=seed)
                    rec = recommend(found.fit, 2e10, reference=away, replicates=drawn)
                    if rec.uncertainty is None:
                        continue
                    ours, theirs = total(np.stack([rec.mixture.array(obs.domains), at]))
                    low, high = rec.uncertainty.gain
                    rows.append((low <= theirs - ours <= high, rec.uncertainty.probability, theirs > ours))
                held, chance, better = np.array(rows, float).mean(0)
                print(
                    f"| {law} | {fitted} | {runs} | {repeats} | {100 * noise:g} | {100 * held:.0f} | {chance:.2f} "
                    f"| {better:.2f} |",
                    flush=True,
                )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["real", "external", "later", "simulated"])
    parser.add_argument("--splits", type=int, default=20)
    asked = parser.parse_args()
    parts: dict[str, Callable[[], None]] = {
        "real": lambda: real(asked.splits),
        "external": lambda: real(asked.splits, ["openhermes"]),
        "later": lambda: real(asked.splits, part=0.5),
        "simulated": lambda: simulated(2 * asked.splits),
    }
    for name, part in parts.items():
        if asked.only in {None, name}:
            print(f"\n{name}\n")
            part()


if __name__ == "__main__":
    main()

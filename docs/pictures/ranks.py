"""Draw what carries over between model sizes and what doesn't: `python docs/pictures/ranks.py`, beside this script.

Of the reference sweeps at 122M and 310M parameters (Shukor et al., arXiv 2507.09404), the same 60 mixtures: the mean of
their seven losses at the end, and the ranks of these. The data aren't in the repository; `BIMIX_REFERENCE_DATA` says
where they are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent
DATA = Path(os.environ.get("BIMIX_REFERENCE_DATA", HERE.parents[2] / "shared" / "data"))
SIDE, LEFT, TOP, GAP = 300, 64, 44, 100
"""Of a panel, and around it, in pixels."""
INK, SOFT, DOT = "#334155", "#94a3b8", "#4f46e5"


def last_means() -> pd.DataFrame:
    """Return the mean final loss of each mixture, nats per token; a column a size."""
    columns = {}
    for size in ("122m", "310m"):
        table = pd.read_csv(DATA / f"slimpajama_{size}.csv")
        shares = [name for name in map(str, table.columns) if name.startswith("weight_")]
        losses = [f"{name.removeprefix('weight_')}_loss" for name in shares]
        whole = table.dropna(subset=losses)
        last = whole.sort_values("n_tokens").groupby(whole[shares].round(6).apply(tuple, axis=1), sort=False).last()
        columns[size.upper()] = last[losses].mean(axis=1)
    return pd.DataFrame(columns).dropna()


def panel(number: int, found: pd.DataFrame, title: str, ticks: Sequence[float], shown: str) -> str:
    """Return a square scatter of one size against the other, with the line on which both are equal."""
    low, high = ticks[0], ticks[-1]
    left = LEFT + number * (SIDE + GAP)

    def place(value: float) -> float:
        return (value - low) / (high - low) * SIDE

    parts = [f'<text x="{left}" y="24" font-size="15" font-weight="600" fill="{INK}">{title}</text>']
    for tick in ticks:
        x, y, text = left + place(tick), TOP + SIDE - place(tick), shown.format(tick)
        parts.append(f'<path d="M{x:.1f} {TOP}v{SIDE}M{left} {y:.1f}h{SIDE}" stroke="#e2e8f0" fill="none"/>')
        parts.append(f'<text x="{x:.1f}" y="{TOP + SIDE + 18}" text-anchor="middle">{text}</text>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    parts.append(f'<path d="M{left} {TOP + SIDE}l{SIDE} -{SIDE}" stroke="{SOFT}" stroke-dasharray="4 4" fill="none"/>')
    parts.append(f'<text x="{left + SIDE / 2}" y="{TOP + SIDE + 38}" text-anchor="middle">122M parameters</text>')
    turned = f"rotate(-90 {left - 44} {TOP + SIDE / 2})"
    parts.append(f'<text transform="{turned}" x="{left - 44}" y="{TOP + SIDE / 2}" text-anchor="middle">310M</text>')
    parts += [
        f'<circle cx="{left + place(x):.1f}" cy="{TOP + SIDE - place(y):.1f}" r="4" fill="{DOT}" opacity=".75"/>'
        for x, y in found.to_numpy()
    ]
    return "\n".join(parts)


def main() -> None:
    """Write the picture beside this script, and print the figure that stands in its title."""
    found = last_means()
    ranks = found.rank()
    correlation = float(ranks.corr().to_numpy()[0, 1])
    width, height = LEFT + 2 * SIDE + GAP + 24, TOP + SIDE + 52
    panels = [  # of the same mixtures, on the same axes
        panel(0, ranks, f"Ranks carry over: correlation {correlation:.2f}", range(0, 61, 10), "{:.0f}"),
        panel(1, found, "Levels don't: mean loss in nats", [2.3, 2.35, 2.4, 2.45, 2.5, 2.55, 2.6], "{:.2f}"),
    ]
    described = f"{len(found)} mixtures at 122M and 310M parameters: ranks are near one line, losses lie below it"
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{described}">\n'
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n<g font-family="system-ui, sans-serif" font-size="12" '
        f'fill="{INK}">\n' + "\n".join(panels) + "\n</g>\n</svg>\n"
    )
    (HERE / "ranks.svg").write_text(svg, encoding="utf-8")
    fall = found["122M"] - found["310M"]
    print(f"{len(found)} mixtures, rank correlation {correlation:.3f}")
    print(f"the mean loss falls by {fall.mean():.3f} nats ± {fall.std():.3f}")


if __name__ == "__main__":
    main()

"""What the scale bridge is compared with: one factor a domain, pairs, an affine link, joint laws in N, D and h."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

Array = npt.NDArray[np.float64]
STARTS = 3
NOISE = 0.005
"""Of a run, in log loss: how much the priors count."""
EXPONENTS, TRANSFER, GAMMA = 0.2, 0.3, (0.3, 0.5)
"""Spreads of the priors: log α and log β, t, and log γ in common and of each domain; the last two are the product's."""


def factor(predicted: Array, observed: Array, at: Array) -> Array:
    """Return predictions times one factor a domain: the mean of log observed − log predicted over the anchors.

    Args:
        predicted: Of the small law on the anchors, (anchors, domains).
        observed: Of the anchors, likewise.
        at: Of the small law where it is asked, (mixtures, domains).
    """
    apart = np.ma.masked_invalid(np.log(observed) - np.log(predicted)).mean(0)
    return np.asarray(at * np.exp(np.ma.filled(apart, np.nan)))


def affine(predicted: Array, observed: Array, at: Array) -> Array:
    """Return predictions by log L = a + b log L_small, a domain each; b is 1 with fewer than three anchors."""
    if len(predicted) < 3:
        return factor(predicted, observed, at)
    result = np.empty_like(at)
    for i in range(at.shape[1]):
        known = np.isfinite(observed[:, i])
        slope, level = np.polyfit(np.log(predicted[known, i]), np.log(observed[known, i]), 1)
        result[:, i] = np.exp(level + slope * np.log(at[:, i]))
    return result


def additive(shares: Array, size: Array, tokens: Array, losses: Array, seed: int = 0) -> Additive:
    """Fit the joint additive law to rows of all sizes, each target by itself.

    L = E + 1 / Σ_j C_j h_j^γ_j + A / N^α + B / D^β (arXiv 2507.09404, eq. 6), least squares on log losses, the best of
    several starts. E, C, A, B > 0 by their logarithms; N and D are in units of their geometric means. C and γ
    have the priors that the product's law has at one size.

    Args:
        shares: h, (rows, domains).
        size: N, (rows,).
        tokens: D, (rows,).
        losses: (rows, targets).
        seed: Of the starts.
    """
    units = np.exp(np.log(size).mean()), np.exp(np.log(tokens).mean())
    found = []
    for own, column in enumerate(losses.T):
        known = np.isfinite(column)
        parts = shares[known], size[known] / units[0], tokens[known] / units[1], column[known]
        found.append(_fitted(*parts, own, seed))
    return Additive(np.stack(found), units)


class Additive:
    """The joint additive law, fitted."""

    def __init__(self, theta: Array, units: tuple[float, float]) -> None:
        """Keep log parameters, (targets, parameters), and the units of N and D."""
        self.theta, self.units = theta, units

    def predict(self, shares: Array, size: float, tokens: Array) -> Array:
        """Return losses, (rows, targets)."""
        n, d = np.full(len(shares), size / self.units[0]), tokens / self.units[1]
        return np.stack(
            [
                np.exp(_log_loss(theta, np.arange(shares.shape[1]) == own, shares, n, d)[0])
                for own, theta in enumerate(self.theta)
            ],
            1,
        )


def _fitted(shares: Array, n: Array, d: Array, losses: Array, own: int, seed: int) -> Array:
    rng, k = np.random.default_rng(seed), shares.shape[1]
    mean, observed, hot = float(losses.mean()), np.log(losses), np.arange(k) == own
    # The order: log E, A, B, α, β, c; t_j; log γ_j; with C_j = c (t_j + [j is the own domain]).
    fixed = np.log([0.6 * mean, 0.1 * mean, 0.1 * mean, 0.3, 0.4, 4 / mean])
    centre = np.r_[fixed, np.zeros(k), np.full(k, np.log(0.7))]
    covariance = GAMMA[0] ** 2 + GAMMA[1] ** 2 * np.diag(~hot)
    pull = np.zeros((len(centre), len(centre)))
    pull[:6, :6] = np.diag(1 / np.r_[np.full(3, 5.0), EXPONENTS, EXPONENTS, 5.0])
    pull[6 : 6 + k, 6 : 6 + k] = np.eye(k) / TRANSFER
    pull[6 + k :, 6 + k :] = np.linalg.cholesky(np.linalg.inv(covariance)).T
    pull *= NOISE
    lower = np.r_[fixed - 8, np.where(hot, -0.5, 0.01), np.full(k, -4.0)]
    upper = np.r_[fixed + 4, np.full(k, 20.0), np.full(k, 2.0)]

    def residuals(theta: Array) -> Array:
        return np.concatenate([_log_loss(theta, hot, shares, n, d)[0] - observed, pull @ (theta - centre)])

    def jacobian(theta: Array) -> Array:
        return np.vstack([_log_loss(theta, hot, shares, n, d)[1], pull])

    best = None
    for start in range(STARTS):
        begin = centre + (0.0 if start == 0 else 0.5) * rng.standard_normal(len(centre))
        begin[6 : 6 + k] = np.where(hot, 0.0, rng.uniform(0.05, 0.3, k))
        begin = np.clip(begin, lower + 1e-3, upper - 1e-3)
        found = least_squares(
            residuals, begin, jacobian, bounds=(lower, upper), loss="huber", f_scale=NOISE, max_nfev=200
        )
        best = found if best is None or found.cost < best.cost else best
    assert best is not None
    return np.asarray(best.x)


def _log_loss(theta: Array, hot: npt.NDArray[np.bool_], shares: Array, n: Array, d: Array) -> tuple[Array, Array]:
    """Return log L, (rows,), and its slopes by θ, (rows, parameters)."""
    k = shares.shape[1]
    e, a, b, alpha, beta, c = np.exp(theta[:6])
    gamma, logs = np.exp(theta[6 + k :]), np.log(np.maximum(shares, 1e-4))
    powers = c * np.exp(gamma * logs)
    helps = (theta[6 : 6 + k] + hot) * powers
    total = helps.sum(1)
    by_size, by_data = a * n**-alpha, b * d**-beta
    loss = e + 1 / total + by_size + by_data
    slopes = np.column_stack(
        [
            np.full(len(n), e),
            by_size,
            by_data,
            -by_size * alpha * np.log(n),
            -by_data * beta * np.log(d),
            -1 / total,
            -powers / total[:, None] ** 2,
            -helps * gamma * logs / total[:, None] ** 2,
        ]
    )
    return np.log(loss), slopes / loss[:, None]

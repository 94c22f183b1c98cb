"""Observations of several model sizes → one level and one axis, with the bridge that says how.

The law of the group with the most mixtures is fitted first. The level of every other group is told from it; then the
runs of all groups with mixtures enough are brought to the reference's level, and one law is fitted to them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bimix_tracking.data.model_sizes import MEANT, checked_size, nearest
from bimix_tracking.data.observations import Observations
from bimix_tracking.errors import ObservationsError
from bimix_tracking.fitting.alignment.base_law import BaseLaw
from bimix_tracking.fitting.alignment.checks import contradiction, far_anchors, far_sentence
from bimix_tracking.fitting.alignment.groups import Group, grouped, knots
from bimix_tracking.fitting.alignment.level_curves import LevelCurve, RunLevel, level_curve, run_levels
from bimix_tracking.fitting.alignment.stretching import centres, stretched
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.scale.applied import aligned_by
from bimix_tracking.fitting.scale.bridge import Bridge
from bimix_tracking.fitting.scale.size_level import Anchor, SizeLevel
from bimix_tracking.fitting.scale.trend import Trend
from bimix_tracking.laws.registry import ENSEMBLE
from bimix_tracking.messages import said
from bimix_tracking.quantities import parameters, tokens


@dataclass(frozen=True, eq=False)  # tables have no one truth
class Alignment:
    """Runs of several sizes as if of one.

    Args:
        observations: Of the reference size's level and tokens: what a law is fitted to.
        bridge: How they got there; None: their sizes are unknown.
    """

    observations: Observations
    bridge: Bridge | None


def align(obs: Observations, model_size: float | None = None, law: str = ENSEMBLE) -> Alignment:
    """Bring runs of several model sizes to the level of one, so that one law has them all.

        log L_i(r, s, N) = law_i(r, u) + δ_i(N, p),   p = s / S_N,   u = p S_N₀

    Args:
        obs: The sweep.
        model_size: The size that is asked for, in parameters. None: the largest observed. Where its level is unknown,
            the largest observed one is the reference, and the bridge says so.
        law: From which levels are told: the ensemble of all misses least, a single one costs a tenth.

    Raises:
        ObservationsError: The size is smaller than all that were observed, or no size: names them.
    """
    if not obs.sizes or obs.reference is not None:
        return Alignment(obs, None)
    asked = None if model_size is None else _checked(model_size, obs.model_sizes)
    meant = obs.model_sizes[-1] if asked is None else nearest(asked, obs.model_sizes)
    if len(obs.model_sizes) == 1:
        return Alignment(obs, _of_one_size(obs, asked, known=meant is not None))
    groups = grouped(obs)
    base = max(groups, key=lambda one: (one.mixtures, one.size))
    first = BaseLaw.of(base, law)
    where = knots(base.curves["progress"].to_numpy(float))
    target = None if meant is None else _longest(groups, meant)
    found = [_of_group(group, first, where, is_base=group is base) for group in groups]
    trend = _trend(found)
    reference = target or _longest(groups, groups[-1].size)
    rough = target is None and trend is not None and asked is not None
    zero = next(one for one in found if one.group is reference).level
    sizes = [_relative(one.level, zero) for one in found]
    bridge = Bridge(
        reference.size,
        tuple(sizes),
        asked=asked,
        known=target is not None or rough,
        trend=_trend([replace(one, level=level) for one, level in zip(found, sizes, strict=True)]),
        notes=tuple(_notes(found)),
    )
    bridge = next(one for one in found if one.group is reference).told(bridge, first)
    if rough and asked is not None:
        bridge = _extrapolated(bridge, asked)
    return Alignment(aligned_by(obs, bridge), bridge)


def bridged(fit: LawFit, alignment: Alignment, obs: Observations) -> LawFit:
    """Return a fit to aligned runs that knows whose losses it has, and how others' follow from them.

    Args:
        fit: To the aligned runs.
        alignment: How they were aligned.
        obs: The runs as they were read: what the fit is said to be of.
    """
    if alignment.bridge is None:
        return fit
    members = {name: replace(one, data_hash=obs.data_hash) for name, one in fit.members.items()}
    size = alignment.bridge.reference
    return replace(fit, bridge=alignment.bridge, model_size=size, data_hash=obs.data_hash, members=members)


@dataclass(frozen=True, eq=False)
class _Found:
    """The level of one group, and what gave it."""

    group: Group
    level: SizeLevel
    curve: LevelCurve | None = None
    runs: Sequence[RunLevel] = ()
    far: frozenset[str] = frozenset()

    def told(self, bridge: Bridge, law: BaseLaw) -> Bridge:
        """Return a bridge that says how this group's level, its reference's, is known."""
        curve = self.curve
        if curve is None:
            return bridge
        used = [one for one in self.runs if one.run not in self.far] or list(self.runs)
        stretch = stretched(used, curve, law)
        domains = self.group.observations.domains
        last = self.group.observations.last_tokens
        anchors = tuple(
            Anchor(
                run=one.run,
                mixture=dict(zip(domains, one.shares.tolist(), strict=True)),
                tokens=last[one.run],
                progress=float(one.progress[-1]),
                paired=one.paired,
                deviation={
                    target: float(value)
                    for target, value in zip(curve.targets, curve.deviation[one.run], strict=True)
                    if np.isfinite(value)
                },
                far=one.run in self.far,
                others=len(used) - 1 if one in used else len(used),
            )
            for one in self.runs
        )
        return replace(
            bridge,
            anchors=anchors,
            slope=curve.slope,
            stretch=stretch,
            centre=centres(used, self.level.levels, law, curve.knots) if stretch else {},
            contradict=contradiction([one for one in anchors if not one.far], law),
            far=far_sentence([one for one in anchors if one.far], used=len(self.far) == len(self.runs)),
        )


def _of_group(group: Group, law: BaseLaw, where: np.ndarray, *, is_base: bool) -> _Found:
    level = SizeLevel(
        size=group.size,
        schedule=group.schedule,
        runs=group.runs,
        mixtures=group.mixtures,
        in_law=group.in_law or is_base,
        reached=max(group.reached.values()),
        exact=is_base,
    )
    if is_base:
        return _Found(group, level)
    runs = run_levels(group, law)
    far = far_anchors(runs, law.group.observations)
    used = [one for one in runs if one.run not in far] or runs
    curve = level_curve(used, law, where)
    others = level_curve(runs, law, where).deviation if far else {}
    curve = replace(curve, deviation={**others, **curve.deviation})
    error = {t: float(sd) for t, sd in zip(curve.targets, curve.extended, strict=True) if sd > 0}
    return _Found(group, replace(level, levels=curve.levels(), error=error), curve, runs, far)


def _of_one_size(obs: Observations, asked: float | None, *, known: bool) -> Bridge:
    """Return the bridge of runs of one size: by tokens, whatever their lengths, as if no size were known."""
    (size,) = obs.model_sizes
    whole = Group(size, max(map(obs.schedule_of, obs.runs)), obs)
    alone = SizeLevel(size, whole.schedule, whole.runs, whole.mixtures, in_law=True, exact=True)
    return Bridge(size, (alone,), asked=asked, known=known, axis="tokens")


def _checked(size: float, known: Sequence[float]) -> float:
    try:
        asked = checked_size(size)
    except ValueError as error:
        raise ObservationsError(str(error)) from None
    if asked * MEANT < known[0]:
        listing = ", ".join(parameters(one) for one in known)
        raise ObservationsError(
            f"the target size of {parameters(asked)} parameters is smaller than all that were run ({listing}). "
            "Mixtures are sought for models at least as large as the smallest"
        )
    return asked


def _longest(groups: Sequence[Group], size: float) -> Group:
    return max((one for one in groups if one.size == size), key=lambda one: one.schedule)


def _relative(level: SizeLevel, zero: SizeLevel) -> SizeLevel:
    """Return a level above another one's, at the knots of both."""
    targets = list(dict.fromkeys([*level.levels, *zero.levels]))
    if level is zero:
        return replace(level, levels=dict.fromkeys(targets, ()))
    levels = {}
    for target in targets:
        at = sorted({knot for one in (level, zero) for knot, _ in one.levels.get(target, ())})
        if at:
            where = np.array(at)
            apart = level.at(target, where) - zero.at(target, where)
            levels[target] = tuple(zip(at, apart.tolist(), strict=True))
    return replace(level, levels=levels)


def _trend(found: Sequence[_Found]) -> Trend | None:
    longest: dict[float, SizeLevel] = {}
    for one in found:
        longest[one.level.size] = one.level  # groups rise with their schedules
    levels = list(longest.values())
    told = [set(one.levels) for one in levels if not one.exact]
    targets = set.intersection(*told) if told else set[str]()
    by_target = {target: [one.at_end(target) for one in levels] for target in sorted(targets)}
    return Trend.of([one.size for one in levels], [one.schedule for one in levels], by_target)


def _extrapolated(bridge: Bridge, asked: float) -> Bridge:
    """Return the bridge with a size that no run has as its reference."""
    beyond = bridge.extrapolated(asked)
    sizes = [_relative(one, beyond) for one in bridge.sizes]
    return replace(
        bridge,
        reference=asked,
        trend=None if bridge.trend is None else bridge.trend.above(asked),
        sizes=(*sizes, replace(beyond, levels=dict.fromkeys(beyond.levels, ()))),
        rough=True,
        anchors=(),
        slope=None,
        stretch={},
        centre={},
    )


def _notes(found: Sequence[_Found]) -> list[str]:
    """Return what is to be known of groups that aren't in the law though their size has others."""
    notes = []
    for one in found:
        rest = [other for other in found if other is not one and other.level.size == one.level.size]
        if rest and not one.level.in_law:
            notes.append(
                said(
                    "{count} runs of {size} with a schedule of {tokens} tokens have too few mixtures to be in the law",
                    count=len(one.level.runs),
                    size=parameters(one.level.size),
                    tokens=tokens(one.level.schedule),
                )
            )
    return notes

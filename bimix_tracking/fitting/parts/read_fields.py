"""The fields of a fit, read from its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bimix_tracking.data.links import Link
from bimix_tracking.data.pooling import Note
from bimix_tracking.data.targets import Target
from bimix_tracking.fitting.domain_fit import DomainFit
from bimix_tracking.fitting.held_out_errors import HeldOutErrors
from bimix_tracking.fitting.scale.bridge import Bridge

_AS_THEY_ARE = ("law", "scale", "huber_delta", "zero_share", "warmup", "data_hash", "source")


def fields_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a fit but its members, from what `LawFit.to_dict` wrote."""
    held_out, bridge = content.get("held_out"), content.get("bridge")
    return {
        "domains": tuple(content["domains"]),
        "targets": {name: DomainFit.from_dict(fitted) for name, fitted in content["targets"].items()},
        "tokens": tuple(content["tokens"]),
        "notes": tuple(Note(**note) for note in content["notes"]),
        "levels": {target: tuple((at, level) for at, level in knots) for target, knots in content["levels"].items()},
        "shares": {domain: (low, high) for domain, (low, high) in content.get("shares", {}).items()},
        "described": {one["name"]: Target.from_dict(one) for one in content.get("described", [])},
        "links": {target: Link.from_dict(one) for target, one in content.get("links", {}).items()},
        "unfit": dict(content.get("unfit", {})),
        "model_size": content.get("model_size"),
        "held_out": None if held_out is None else HeldOutErrors.from_dict(held_out),
        "bridge": None if bridge is None else Bridge.from_dict(bridge),
        **{name: content[name] for name in _AS_THEY_ARE},
    }

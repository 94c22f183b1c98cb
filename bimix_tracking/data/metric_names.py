"""What is logged, and metric names ↔ (quantity, domain): the only place that knows how a domain's name is spelt.

A key is `<quantity>/<slug>` with one slash, so that MLflow and W&B both make the quantity a section of the
page. Trackers disagree on what else a key may hold, so a slug is plain ASCII; the map from slug to name is
kept in the run's manifest.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bimix_tracking.errors import MixtureError
from bimix_tracking.mixture import check_domains


@dataclass(frozen=True)
class Quantity:
    """Something that is logged.

    Args:
        name: The metric's; of one by domain, what stands before the slash.
        about: Unit and meaning, as docs/reference/metrics.md has it.
        by_domain: Whether each domain has one.
        evaluation: Whether it belongs to an evaluation.
        training: Whether it belongs to training; neither: to a corpus, or to the row itself.
        numerator: The field of `DomainSums` that a domain's value is the sum of; empty: it isn't made of these alone.
        denominator: The field that the sum is divided by, per token, say; empty: it is the sum itself.
        unit: What the quotient is divided by: ln 2 turns nats into bits.
        shown: Its name in the report's table of evaluations; empty: it has no row there.
    """

    name: str
    about: str
    by_domain: bool = True
    evaluation: bool = False
    training: bool = False
    numerator: str = ""
    denominator: str = ""
    unit: float = 1.0
    shown: str = ""


QUANTITIES: dict[str, Quantity] = {}
"""All that is logged, by name: what belongs to an evaluation is said here and nowhere else."""


def _quantity(name: str, about: str, **more: Any) -> str:
    QUANTITIES[name] = Quantity(name, about, **more)
    return name


_BOTH = {"evaluation": True, "training": True}
_AXIS = {"by_domain": False, **_BOTH}
STEP = _quantity("bimix/step", "an x-axis: optimizer steps taken; MLflow has it of each point", **_AXIS)
TOKENS = _quantity(
    "bimix/tokens", "an x-axis: training tokens with a loss, all domains together (the law's s)", **_AXIS
)
TIME = _quantity(
    "bimix/time",
    "when a row was made, seconds since 1970: of two values of a step, the later one counts",
    by_domain=False,
)
OTHER_SET = _quantity(
    "bimix/other_set",
    "how many domains were evaluated at this step on other tokens than the run's held-out set; their losses aren't "
    "logged",
    by_domain=False,
    evaluation=True,
)
TRAIN_LOSS = _quantity(
    "bimix_train_loss",
    "nats per token: Σ loss / Σ tokens of training, since the last record",
    training=True,
    numerator="loss",
    denominator="tokens",
)
EVAL_LOSS = _quantity(
    "bimix_eval_loss",
    "nats per token of the evaluation: what laws are fitted to",
    evaluation=True,
    numerator="loss",
    denominator="tokens",
)
EVAL_TOKENS = _quantity(
    "bimix_eval_tokens", "tokens that an evaluation loss is the mean of", evaluation=True, numerator="tokens"
)
EVAL_BPB = _quantity(
    "bimix_eval_bpb",
    "bits per byte of text, with `token_bytes=`",
    evaluation=True,
    numerator="loss",
    denominator="bytes",
    unit=math.log(2),
)
TARGET = _quantity(
    "bimix_target",
    "the value of a target that is no domain's loss, in its own unit; the manifest says its kind",
    evaluation=True,
)
QUESTIONS = _quantity("bimix_questions", "how many questions an accuracy is the mean of", evaluation=True)
DOMAIN_TOKENS = _quantity("bimix_tokens", "training tokens with a loss, since the start of the run", training=True)
SHARE = _quantity(
    "bimix_share", "realised proportion: tokens over all tokens, since the start of the run", training=True
)
NOMINAL = _quantity("bimix_nominal", "the proportion that the mixture asked for, since the last record", training=True)
_SAMPLED = "of the tokens of every n-th batch, with `entropy_every=n`"
ENTROPIES = (
    _quantity("bimix_entropy_shannon", f"nats: entropy of a token, {_SAMPLED}", training=True),
    _quantity("bimix_entropy_joint", f"nats: entropy of two neighbours, {_SAMPLED}", training=True),
    _quantity("bimix_entropy_conditional", f"nats: entropy of a token given the last, {_SAMPLED}", training=True),
)
VON_NEUMANN = _quantity("bimix_entropy_von_neumann", "nats: of a corpus's embeddings (`bimix entropy --tracker`)")
NONFINITE = _quantity("bimix_nonfinite", "NaN or infinite losses excluded since the last record", **_BOTH)

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}")
_HASHED = re.compile(r".*_[0-9a-f]{8}")


def slug(domain: str) -> str:
    """Return the domain's name as `[A-Za-z_][A-Za-z0-9_]*`, at most 57 characters, distinct for distinct names.

    A name that already is of that form stays as it is; of any other, what can be kept is kept and eight
    hexadecimal digits of its SHA-1 are added.

    >>> slug("code"), slug("c++"), slug("c#"), slug("web/en")
    ('code', 'c_372946aa', 'c_2e26e622', 'web_en_5039ccde')
    """
    # A plain name that looks like a hashed one is hashed too: else it could equal another name's slug.
    if _PLAIN.fullmatch(domain) and not _HASHED.fullmatch(domain):
        return domain
    ascii_name = unicodedata.normalize("NFKD", domain).encode("ascii", "ignore").decode()
    kept = re.sub(r"[^A-Za-z0-9]+", "_", ascii_name).strip("_")[:47]
    if not kept or kept[0].isdigit():
        kept = f"d{kept}"
    return f"{kept}_{hashlib.sha1(domain.encode(), usedforsecurity=False).hexdigest()[:8]}"


def slugs(domains: Iterable[str]) -> dict[str, str]:
    """Return the map slug → name of the domains, in their order.

    Raises:
        MixtureError: Names that cannot be domains, or (2⁻³² likely) two of one slug.

    >>> slugs(["code", "c++"])
    {'code': 'code', 'c_372946aa': 'c++'}
    """
    result: dict[str, str] = {}
    for name in check_domains(domains):
        short = slug(name)
        if short in result:
            raise MixtureError(f"domains {result[short]!r} and {name!r} get the same slug {short!r}: rename one")
        result[short] = name
    return result


def key(quantity: str, domain: str) -> str:
    """Return the metric's name for a quantity of a domain.

    >>> key(EVAL_LOSS, "c++")
    'bimix_eval_loss/c_372946aa'
    """
    return f"{quantity}/{slug(domain)}"


def parse(metric: str, domains: Mapping[str, str]) -> tuple[str, str] | None:
    """Return (quantity, domain) of a metric's name, or None where it isn't one of this package's.

    Args:
        metric: The name as the tracker holds it.
        domains: The run's map slug → name, from its manifest.

    >>> parse("bimix_eval_loss/c_372946aa", {"c_372946aa": "c++"})
    ('bimix_eval_loss', 'c++')
    >>> parse("eval_loss", {}) is None
    True
    """
    quantity, slash, short = metric.partition("/")
    if slash and quantity in QUANTITIES and short in domains:
        return quantity, domains[short]
    return None


def is_evaluation(metric: str) -> bool:
    """Return whether a metric is a domain's, of an evaluation and of nothing else: what a curve is made of.

    >>> is_evaluation("bimix_eval_bpb/web"), is_evaluation("bimix_nonfinite/web"), is_evaluation("bimix/other_set")
    (True, False, False)
    """
    found = QUANTITIES.get(metric.partition("/")[0])
    return found is not None and found.evaluation and not found.training


def is_value(metric: str) -> bool:
    """Return whether a metric is what laws are fitted to: a domain's evaluation loss, or another target's value.

    >>> is_value("bimix_eval_loss/web"), is_value("bimix_target/mmlu"), is_value("bimix_eval_tokens/web")
    (True, True, False)
    """
    return metric.partition("/")[0] in (EVAL_LOSS, TARGET)


def is_of_target(metric: str) -> bool:
    """Return whether a metric is of a target that is no domain's loss.

    >>> is_of_target("bimix_questions/mmlu"), is_of_target("bimix_eval_loss/web")
    (True, False)
    """
    return metric.partition("/")[0] in (TARGET, QUESTIONS)


def belongs_to_evaluation(metric: str) -> bool:
    """Return whether a metric belongs to an evaluation, whatever else it belongs to.

    >>> belongs_to_evaluation("bimix_nonfinite/web"), belongs_to_evaluation("bimix/step")
    (True, True)
    >>> belongs_to_evaluation("bimix_share/web"), belongs_to_evaluation("loss")
    (False, False)
    """
    found = QUANTITIES.get(metric.partition("/")[0]) or QUANTITIES.get(metric)
    return found is not None and found.evaluation


def has_evaluation(row: Iterable[str]) -> bool:
    """Return whether a row, or its names, is that of an evaluation, be it one whose losses were excluded.

    >>> has_evaluation({"bimix/step": 1.0, "bimix/other_set": 2.0}), has_evaluation({"bimix/step": 1.0})
    (True, False)
    """
    return any(name == OTHER_SET or is_evaluation(name) for name in row)


def shown() -> tuple[Quantity, ...]:
    """Return what an evaluation measures beside losses, and the report shows."""
    return tuple(each for each in measured_beside() if each.shown)


def measured_beside() -> tuple[Quantity, ...]:
    """Return what an evaluation measures of a domain beside its loss and is made of sums."""
    found = (each for each in QUANTITIES.values() if is_evaluation(each.name))
    return tuple(each for each in found if each.numerator and each.name != EVAL_LOSS)

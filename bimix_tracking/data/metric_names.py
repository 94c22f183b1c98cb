"""Metric names ↔ (quantity, domain): the only place that knows how a domain's name is spelt in a tracker.

A key is `<quantity>/<slug>` with one slash, so that MLflow and W&B both make the quantity a section of the
page. Trackers disagree on what else a key may hold, so a slug is plain ASCII; the map from slug to name is
kept in the run's manifest.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping

from bimix_tracking.errors import MixtureError
from bimix_tracking.mixture import check_domains

STEP = "bimix/step"
"""Optimizer steps taken: an x-axis."""
TOKENS = "bimix/tokens"
"""Loss-bearing training tokens seen, all domains together: an x-axis, and the law's s."""
TIME = "bimix/time"
"""When a row was made, seconds since 1970: of two values of a step, the later one counts."""

OTHER_SET = "bimix/other_set"
"""How many domains were evaluated at a step on other tokens than the held-out set's: their losses aren't logged."""

TRAIN_LOSS = "bimix_train_loss"
"""Token-weighted training loss of a domain since the last record, nats per token."""
EVAL_LOSS = "bimix_eval_loss"
"""Token-weighted evaluation loss of a domain, nats per token."""
EVAL_TOKENS = "bimix_eval_tokens"
"""Tokens that an evaluation loss is the mean of."""
DOMAIN_TOKENS = "bimix_tokens"
"""Loss-bearing training tokens of a domain, since the start of the run."""
SHARE = "bimix_share"
"""Realised proportion of a domain: its tokens over all tokens, since the start of the run."""
NOMINAL = "bimix_nominal"
"""Proportion of a domain that the mixture asked for since the last record."""
EVAL_BPB = "bimix_eval_bpb"
"""Evaluation loss of a domain in bits per byte of its text."""
ENTROPIES = ("bimix_entropy_shannon", "bimix_entropy_joint", "bimix_entropy_conditional")
"""Entropies of a domain's tokens as sampled so far, nats: of a token, of two neighbours, of a token given the last."""
VON_NEUMANN = "bimix_entropy_von_neumann"
"""Von Neumann entropy of a domain's embeddings, nats; of a corpus, not of a training stream."""
NONFINITE = "bimix_nonfinite"
"""Loss values of a domain that were NaN or infinite and therefore left out, since the last record."""

QUANTITIES = (
    TRAIN_LOSS,
    EVAL_LOSS,
    EVAL_TOKENS,
    EVAL_BPB,
    DOMAIN_TOKENS,
    SHARE,
    NOMINAL,
    *ENTROPIES,
    VON_NEUMANN,
    NONFINITE,
)

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

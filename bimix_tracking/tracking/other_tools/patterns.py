"""How other tools spell a domain's loss: a run's metric names → the tool that logged them, and the domains.

| tool | evaluation loss of a domain | read in |
|---|---|---|
| HF Trainer with MLflow | `eval_<d>_loss` | transformers, `Trainer.evaluate` with a dict of datasets |
| HF Trainer with W&B | `eval/<d>_loss` | transformers, `integration_utils.rewrite_logs` |
| ms-swift | `eval_loss_<d>`, W&B `eval/loss_<d>`; while training `loss_<d>`, `train/loss_<d>` | `enable_channel_loss` |
| Levanter | `eval/<d>/loss` | `levanter.eval`, tagged evaluation |
| OLMo-core | `eval/lm/<d>/CE loss` | `LMEvaluator`, evaluator callback |
| Composer, LLM Foundry | `metrics/<d>/LanguageCrossEntropy`, `metrics/eval/<d>/…` | evaluators by label |
| RegMix | `metric/<d>_val_loss` | `pretrain/tinyllama.py` |
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bimix_tracking.errors import MixtureError, SourceError, listed
from bimix_tracking.mixture import check_domains

STEP_METRICS = ("train/global_step", "trainer/global_step", "global_step")
"""Optimizer steps as HF's, Lightning's and others' loggers write them beside W&B's own count of calls."""
TOKEN_METRICS = (
    "num_input_tokens_seen",  # HF Trainer with MLflow
    "train/num_input_tokens_seen",  # HF Trainer with W&B
    "throughput/total_tokens",  # Levanter
    "throughput/total tokens",  # OLMo-core
    "time/token",  # Composer
    "total_tokens",  # RegMix
)
"""Training tokens seen, by the tools' own names."""
BATCH_MEANS = (
    "the losses are means of batch means, which depend on the batch size; set `token_weighted: true` if all sequences "
    "have one length"
)
NOT_SAID = "it is unknown whether this tool weights losses by tokens; set `token_weighted` if you know"
TRAINING = "the losses are of training batches, not of held-out data"


@dataclass(frozen=True)
class Tool:
    """A tool's spelling of the loss of a domain.

    Args:
        name: What people call the tool.
        pattern: Of the metric's name, whole, with a group `domain`.
        flaw: What is to be said of its losses; nothing where they are means over tokens of held-out data.
        averages: Names in the place of a domain's that are averages over domains, or something else; also as the last
            part of a path.
        companion: Of HF's losses, what it logs beside every one of them; other names that end alike have none.
    """

    name: str
    pattern: re.Pattern[str]
    flaw: str | None = None
    averages: frozenset[str] = frozenset()
    companion: str | None = None

    def domain(self, metric: str) -> str | None:
        """Return the domain of a metric, None where it isn't one of this tool's losses.

        >>> EVALUATIONS[3].domain("eval/paloma/c4_en/loss"), EVALUATIONS[3].domain("eval/loss")
        ('paloma/c4_en', None)
        """
        found = self.pattern.fullmatch(metric)
        if found is None or found["domain"].rpartition("/")[2] in self.averages:
            return None
        return str(found["domain"])


def _tool(
    name: str, pattern: str, flaw: str | None, averages: Iterable[str] = (), companion: str | None = None
) -> Tool:
    return Tool(name, re.compile(pattern), flaw, frozenset(averages), companion)


EVALUATIONS = (
    # `eval/macro_loss` and `eval/<tag>/macro_loss` are Levanter's averages over tags.
    _tool("HF Trainer", r"eval_(?P<domain>.+)_loss", BATCH_MEANS, ("macro", "micro"), "eval_{}_runtime"),
    _tool("HF Trainer", r"eval/(?P<domain>.+)_loss", BATCH_MEANS, ("macro", "micro"), "eval/{}_runtime"),
    _tool("ms-swift", r"eval[_/]loss_(?P<domain>.+)", None),
    _tool("Levanter", r"eval/(?P<domain>.+)/loss", None),
    _tool("OLMo-core", r"eval/lm/(?P<domain>.+)/CE loss", None),
    # LLM Foundry writes `eval/` before the labels of several evaluators, and `eval` for a single one.
    _tool("Composer", r"metrics/(?:eval/)?(?P<domain>.+)/LanguageCrossEntropy", None, ("train", "eval")),
    _tool("RegMix", r"metric/(?P<domain>.+)_val_loss", NOT_SAID),
)
"""In this order; the first two and ms-swift's can read one name in two ways, see `recognise`."""
_STEPPED = frozenset({"HF Trainer", "ms-swift", "Levanter", "OLMo-core", "Composer"})
"""Tools that give a tracker the optimizer step, or log it beside."""
TRAININGS = (_tool("ms-swift", r"(?:train/)?loss_(?P<domain>.+)", TRAINING),)
"""Losses of training batches: only where a run has none of held-out data."""


@dataclass(frozen=True)
class Recognised:
    """What a run's metrics are.

    Args:
        tool: The tool that logged them.
        flaw: What is to be said of its losses.
        domains: Metric → domain, as the tool calls it.
        others: Metrics of the tool's form that are no domain's loss.
    """

    tool: str
    flaw: str | None
    domains: Mapping[str, str]
    others: Sequence[str] = ()

    def counts_steps(self, metrics: Iterable[str]) -> bool:
        """Return whether the tracker's steps are optimizer steps: else they may be W&B's, which count calls."""
        return self.tool in _STEPPED or not {*STEP_METRICS}.isdisjoint(metrics)


def recognise(metrics: Iterable[str], own: Tool | None = None) -> Recognised | None:
    """Return which tool logged a run, and the domains of its losses; None where no tool did.

    Where a name could be of two tools, the tool counts that explains all names that any tool explains.

    Args:
        metrics: The names of a run's metrics.
        own: A pattern to go by instead.

    Raises:
        SourceError: Two metrics give one domain, or no one tool explains all of them; the text names two.

    >>> recognise(["eval/web_loss", "eval/code_loss", "eval/loss"]).domains
    {'eval/code_loss': 'code', 'eval/web_loss': 'web'}
    """
    names = sorted(set(metrics))
    for tools in (EVALUATIONS, TRAININGS) if own is None else ((own,),):
        found = {tool: domains for tool in tools if (domains := _domains(tool, names))}
        if found:
            return _whole(*_one(found), names)
    return None


def unrecognised(metrics: Iterable[str], most: int = 8) -> str:
    """Return a sentence on runs in whose metrics no tool was recognised, with their names and the remedy; or nothing.

    >>> print(unrecognised(["lr", "val/code_nll", "val/loss"]))
     Their metrics are 'val/loss', 'lr', 'val/code_nll'. If losses of domains are among them, give their `pattern` in a
    mixtures file (--mixtures), such as pattern: 'val/(?P<domain>.+)_nll'
    """
    names = sorted(set(metrics), key=lambda name: ("loss" not in name.lower(), name))
    if not names:
        return ""
    return (
        f" Their metrics are {listed(names, most)}. If losses of domains are among them, give their `pattern` in a "
        "mixtures file (--mixtures), such as pattern: 'val/(?P<domain>.+)_nll'"
    )


def _domains(tool: Tool, names: Sequence[str]) -> dict[str, str]:
    return {name: domain for name in names if (domain := tool.domain(name)) is not None}


def _one(found: Mapping[Tool, Mapping[str, str]]) -> tuple[Tool, Mapping[str, str]]:
    """Return the one tool that explains everything."""
    explained = {name for domains in found.values() for name in domains}
    whole = [(tool, domains) for tool, domains in found.items() if len(domains) == len(explained)]
    if len(whole) == 1:
        return whole[0]
    if whole:
        (tool, domains), (other, others) = whole[:2]
        name = min(domains)
        raise SourceError(
            f"metric {name!r} can be {tool.name}'s loss of {domains[name]!r} or {other.name}'s of {others[name]!r}. "
            f"Give a `pattern` in the mixtures file, such as {tool.pattern.pattern!r}"
        )
    tool, domains = max(found.items(), key=lambda entry: len(entry[1]))
    name = min(domains)
    other_name = min(explained - domains.keys())
    other = next(other for other, others in found.items() if other_name in others)
    raise SourceError(
        f"metric {name!r} looks like {tool.name}'s loss of {domains[name]!r}, but {other_name!r} like {other.name}'s "
        f"of {found[other][other_name]!r}. Give a `pattern` in the mixtures file, such as {tool.pattern.pattern!r}"
    )


def _whole(tool: Tool, domains: Mapping[str, str], names: Sequence[str]) -> Recognised:
    """Return what a tool logged, without what only looks like a loss of a domain."""
    taken = {name: domain for name, domain in domains.items() if is_name(domain)}
    if tool.companion is not None:
        there = set(names)
        with_one = {name: domain for name, domain in taken.items() if tool.companion.format(domain) in there}
        taken = with_one or taken
    by_domain: dict[str, str] = {}
    for name, domain in taken.items():
        if domain in by_domain:
            raise SourceError(
                f"metrics {by_domain[domain]!r} and {name!r} are both the loss of domain {domain!r}: give "
                "a `pattern` in the mixtures file"
            )
        by_domain[domain] = name
    return Recognised(tool.name, tool.flaw, taken, [name for name in domains if name not in taken])


def is_name(domain: str) -> bool:
    """Return whether a text can be the name of a domain or a target."""
    try:
        check_domains([domain])
    except MixtureError:
        return False
    return True

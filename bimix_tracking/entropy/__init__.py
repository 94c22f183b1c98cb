"""Entropy proxies of corpora: tokens, their pairs and embeddings counted in sums that add, entropies estimated from
these with their errors, compared between domains, and the mixtures and the page that follow.
"""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.entropy.counter import Entropies as Entropies
    from bimix_tracking.entropy.counter import EntropyCounter as EntropyCounter
    from bimix_tracking.entropy.counter import entropy_mixture as entropy_mixture
    from bimix_tracking.entropy.domain_counts import DomainCounts as DomainCounts
    from bimix_tracking.entropy.domain_counts import EntropySettings as EntropySettings
    from bimix_tracking.entropy.log import log_entropies as log_entropies
    from bimix_tracking.entropy.measuring import corpus_entropies as corpus_entropies
    from bimix_tracking.entropy.result import CorpusEntropies as CorpusEntropies

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "counter": ["Entropies", "EntropyCounter", "entropy_mixture"],
        "domain_counts": ["DomainCounts", "EntropySettings"],
        "log": ["log_entropies"],
        "measuring": ["corpus_entropies"],
        "result": ["CorpusEntropies"],
    },
)

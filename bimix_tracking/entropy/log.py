"""Entropies of corpora into a tracker, as a run of role `entropy` that no analysis takes for a run of the sweep."""

from __future__ import annotations

import hashlib
import time
from typing import Unpack

from bimix_tracking.data import metric_names
from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.entropy.comparison import HowMixed
from bimix_tracking.entropy.domain_entropies import PROXIES
from bimix_tracking.entropy.result import CorpusEntropies
from bimix_tracking.tracking.ports import Row, open_tracker

_KEYS = dict(zip(PROXIES, (*metric_names.ENTROPIES, metric_names.VON_NEUMANN), strict=True))


def log_entropies(
    found: CorpusEntropies, tracker: str, *, sweep: str | None = None, lang: str = "en", **how: Unpack[HowMixed]
) -> str:
    """Log entropies as `bimix_entropy_<proxy>/<domain>` and all files under `bimix/`; return the run's id.

    Args:
        found: What was measured.
        tracker: URI of a tracker, as `open_tracker` takes it. A run that is open there stays as it is.
        sweep: The sweep that the run belongs to.
        lang: As in `CorpusEntropies.files`.
        how: As in `CorpusEntropies.mixture`: what metrics and files are of. The mixture by conditional entropy is the
            run's.

    Raises:
        SourceError: The tracker cannot be reached.
        MissingDependencyError: Jinja2 isn't installed, for the page.
    """
    files, one = found.files(lang=lang, **how), found.compared(**how)
    # The same entropies get the same name: plain files are then written over, not beside.
    name = f"bimix-entropy-{hashlib.sha256(files['entropy.json'].encode()).hexdigest()[:8]}"
    opened = open_tracker(tracker, run_name=name)
    opened.adopt_active()
    opened.start(
        RunManifest(
            domains=tuple(found.domains),
            mixture=one.mixture("conditional"),
            sweep=sweep,
            role="entropy",
            tokenizer=found.tokenizer,
        )
    )
    metrics = {
        metric_names.key(_KEYS[proxy], domain): value
        for proxy in found.proxies
        for domain, value in one.entropies(proxy).items()
    }
    opened.log([Row(0, time.time(), metrics)])
    for path, text in files.items():
        opened.write_artifact(f"bimix/{path}", text)
    opened.finish()
    return str(opened.run_id)

"""From corpora to the entropies of their domains: find the blocks, have them counted, compare at equal tokens."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

from bimix_tracking.entropy.block_counts import DEFAULT_TOKENIZER, count_blocks
from bimix_tracking.entropy.corpora.documents import Block
from bimix_tracking.entropy.corpora.opening import find_blocks
from bimix_tracking.entropy.domain_counts import (
    SKETCH,
    DomainCounts,
    EntropySettings,
    embedder_of,
    shared,
    tokenizer_of,
)
from bimix_tracking.entropy.domain_entropies import DomainEntropies, Overlap
from bimix_tracking.entropy.estimators import ESTIMATORS
from bimix_tracking.entropy.result import CorpusEntropies
from bimix_tracking.entropy.sample_error import token_curves, von_neumann_curve
from bimix_tracking.errors import CorpusError, did_you_mean, shown
from bimix_tracking.mixture import check_domains
from bimix_tracking.progress import Progress

Paths = str | Path | Sequence[str | Path]
Engine = Callable[[Mapping[str, Sequence[Block]], EntropySettings, Progress], Mapping[str, DomainCounts]]
"""What counts the blocks of all domains: threads here, or a cluster."""
_NO_FIELDS = {"text", "megatron", "tokens"}
"""Formats of files that hold nothing but text or token ids."""
OVERLAP = 0.01
"""Documents that two domains share are worth a warning from this part of the smaller one on."""


def corpus_entropies(
    corpora: Mapping[str, Paths],
    settings: EntropySettings | None = None,
    *,
    format: str | None = None,  # noqa: A002  # as `open` and pandas call it
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> CorpusEntropies:
    """Measure Shannon, joint, conditional and von Neumann entropy of domains' text, in nats (arXiv 2405.14908v4, §4).

    Files are streamed. Every token is counted, exactly; and of each domain a random sample of sequences, as many tokens
    as the smallest domain has, up to `settings.sample_tokens`, is what domains are compared by: the entropy of a few
    tokens comes out too low, and of more domains' tokens less so.

    Args:
        corpora: By domain, a file or folder, or several.
        settings: How they are measured.
        format: Of the files, where their names don't show it.
        engine: What counts the blocks: `Threads()` of this process by default, or
            `bimix_integrations.engines.ray.RayEngine`.
        progress: Called as (what, done, total), in MB of files.

    Raises:
        CorpusError: A file cannot be read; a domain has no two neighbouring tokens; some domains are text and others
            token ids.

    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "a.txt").write_text("ab" * 500), (folder / "b.txt").write_text("abcd" * 250)
    >>> found = corpus_entropies({"a": folder / "a.txt", "b": folder / "b.txt"}, EntropySettings(embedder=None))
    >>> found.mixture("shannon", estimator="plug-in")
    Mixture({'a': 0.333333, 'b': 0.666667})
    """
    settings, progress = settings or EntropySettings(), progress or _quiet
    names = check_domains(corpora)
    for name in settings.reading.text_fields.keys() - set(names):
        raise CorpusError(f"text field of unknown domain {shown(name)}; {did_you_mean(name, names)}")
    blocks = {name: _blocks(name, corpora[name], settings, format) for name in names}
    counts = (engine or Threads())(blocks, settings, progress)
    _check(counts, blocks)
    text = any(counts[name].text_bytes for name in names)
    tokenizer = settings.tokenizer or (DEFAULT_TOKENIZER if text else None)
    least = min(*(counts[name].sample.elements for name in names), settings.sample_tokens)
    embedder = embedder_of(settings.embedder) if settings.embedder and text else None
    numbers = min(counts[name].embedded.elements for name in names) if embedder else 0
    found = {}
    for number, name in enumerate(names):
        progress("comparing domains", number, len(names))
        found[name] = _domain(counts[name], least, numbers, blocks[name])
    progress("comparing domains", len(names), len(names))
    return CorpusEntropies(
        domains=found,
        tokens=least,
        passages=numbers // embedder.dimensions if embedder else 0,
        tokenizer=tokenizer_of(tokenizer).spec if tokenizer else "token ids as stored",
        embedder=embedder.spec if embedder else None,
        sequence_length=settings.sequence_length,
        seed=settings.seed,
        overlaps=_overlaps(counts),
    )


class Threads:
    """Count blocks in threads of this process: sorting and tokenising leave the interpreter free.

    Args:
        workers: How many.
    """

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers

    def __call__(
        self, blocks: Mapping[str, Sequence[Block]], settings: EntropySettings, progress: Progress
    ) -> Mapping[str, DomainCounts]:
        """Return the counts of each domain."""
        # Each domain's counts stay, and each thread has those of a block.
        own = replace(settings, memory=settings.memory // (len(blocks) + self.workers))
        totals = {name: DomainCounts.empty(own) for name in blocks}
        size = sum(block.size for part in blocks.values() for block in part)
        done = 0
        lock = threading.Lock()

        def count(name: str, block: Block) -> None:
            nonlocal done
            counted = count_blocks([block], own, totals[name])
            with lock:
                totals[name] += counted
                done += block.size
                progress("counting, MB", done // 10**6, size // 10**6)
            totals[name].entropy.settle()

        progress("counting, MB", 0, size // 10**6)
        with ThreadPoolExecutor(self.workers) as pool:
            waiting: set[Future[None]] = set()
            try:
                for name, block in ((name, block) for name, part in blocks.items() for block in part):
                    # No more results than threads wait to be added: a block's counts take memory.
                    if len(waiting) > 2 * self.workers:
                        waiting = _result(waiting)
                    waiting.add(pool.submit(count, name, block))
                while waiting:
                    waiting = _result(waiting)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        for total in totals.values():
            total.entropy.unite(self.workers)
        return totals


def _result(waiting: set[Future[None]]) -> set[Future[None]]:
    """Wait for one of them, and return the others; its error is raised."""
    over, others = wait(waiting, return_when=FIRST_COMPLETED)
    for future in over:
        future.result()
    return others


def _quiet(what: str, done: int, total: int) -> None:
    """Show nothing."""


def _blocks(name: str, paths: Paths, settings: EntropySettings, file_format: str | None) -> list[Block]:
    several = [paths] if isinstance(paths, str | Path) else list(paths)
    if not several:
        raise CorpusError(f"domain {name!r} has no file")
    try:
        found = [find_blocks(path, settings.reading.of(name), format=file_format) for path in several]
    except CorpusError as error:
        raise CorpusError(f"domain {name!r}: {error}") from error
    formats = {block.format for part in found for block in part}
    if name in settings.reading.text_fields and formats <= _NO_FIELDS:
        raise CorpusError(
            f"domain {name!r} has a text field, but its files are {' and '.join(sorted(formats))}, without "
            "fields: drop the text field, or give their format"
        )
    if len(several) > 1:
        # Files of one name in several folders are different files.
        found = [
            [replace(b, name=f"{n}/{b.name}") for b in part] for n, part in zip(itertools.count(), found, strict=False)
        ]
    return [replace(block, domain=name) for part in found for block in part]


def _check(counts: Mapping[str, DomainCounts], blocks: Mapping[str, Sequence[Block]]) -> None:
    for name, found in counts.items():
        if not found.entropy.pairs:
            skipped = f"; {found.problems.count} documents could not be read" if found.problems.count else ""
            raise CorpusError(
                f"domain {name!r} has no two neighbouring tokens: {found.entropy.tokens} tokens in {found.documents} "
                f"documents of {len({b.path for b in blocks[name]})} files{skipped}. Give it more text, or drop it"
            )
    stored = [name for name, found in counts.items() if found.stored_tokens]
    text = [name for name, found in counts.items() if found.text_bytes]
    if stored and text:
        raise CorpusError(
            f"domain {stored[0]!r} holds token ids and domain {text[0]!r} text: entropies of different units cannot be "
            "compared. Give all as text, or all as ids of one tokenizer"
        )


def _domain(counts: DomainCounts, tokens: int, numbers: int, blocks: Sequence[Block]) -> DomainEntropies:
    """Return the entropies of a domain, by samples of so many tokens, and so many numbers of embeddings."""
    vectors = counts.embedded.sequences(numbers)
    sample = counts.sample.sequences(tokens)
    density = counts.density
    return DomainEntropies(
        files=len({block.path for block in blocks}),
        documents=counts.documents,
        tokens=counts.entropy.tokens,
        text_bytes=counts.text_bytes,
        distinct_pairs=counts.entropy.spectra()[1].distinct,
        exact={name: counts.entropy.entropies(name) for name in ESTIMATORS},
        curves=token_curves(sample),
        von_neumann=von_neumann_curve(vectors) if len(vectors) > 1 else None,
        all_von_neumann=density.entropy if density is not None and density.count else None,
        passages=counts.passages,
        blank_passages=counts.blank_passages,
        unreadable=counts.problems.count,
        problems=tuple(f"{p.where}: {p.what}" for p in counts.problems.first),
        copies=_copies(counts),
        sampled=len(sample),
    )


def _copies(counts: DomainCounts) -> float:
    """Return about which part of the documents are copies of others of the domain."""
    if not counts.documents:
        return 0.0
    hashes = counts.sketch
    # Of n random numbers below 2⁶⁴, the k-th lowest is about 2⁶⁴ k/n.
    distinct = len(hashes) if len(hashes) < SKETCH else (len(hashes) - 1) * 2.0**64 / float(hashes[-1])
    return max(0.0, 1 - distinct / counts.documents)


def _overlaps(counts: Mapping[str, DomainCounts]) -> tuple[Overlap, ...]:
    found = [
        Overlap(one, other, shared(counts[one].sketch, counts[other].sketch))
        for one, other in itertools.combinations(counts, 2)
    ]
    return tuple(overlap for overlap in found if overlap.share >= OVERLAP)

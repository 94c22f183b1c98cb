"""From files to entropies and mixtures: one exact count however the work is divided, equal samples, honest warnings."""

from __future__ import annotations

import json
import math
import sysconfig
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bimix_tracking.entropy import block_counts, domain_counts, measuring
from bimix_tracking.entropy.block_counts import count_blocks
from bimix_tracking.entropy.corpora import find_blocks
from bimix_tracking.entropy.corpora.documents import Block, Reading
from bimix_tracking.entropy.counter import EntropyCounter, entropy_mixture
from bimix_tracking.entropy.domain_counts import DomainCounts, EntropySettings, shared
from bimix_tracking.entropy.measuring import Threads, corpus_entropies
from bimix_tracking.entropy.result import CorpusEntropies
from bimix_tracking.errors import CorpusError
from bimix_tracking.mixture import Mixture

SETTINGS = EntropySettings(sample_tokens=1 << 15, sample_passages=200, reading=Reading(block_bytes=1 << 14))


@pytest.fixture(scope="module", name="corpora")
def _corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write real text of three kinds: Python, its pages of text, and prose in one line a document."""
    folder = tmp_path_factory.mktemp("corpora")
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    (folder / "code").mkdir()
    for path in sorted(stdlib.glob("*.py"))[:15]:
        (folder / "code" / path.name).write_bytes(path.read_bytes())
    words = "".join(path.read_text(encoding="utf-8") for path in sorted((stdlib / "email").glob("*.py"))).split()
    lines = [json.dumps({"text": " ".join(words[i : i + 90])}) for i in range(0, len(words), 90)]
    (folder / "mail.jsonl").write_text("\n".join(lines))
    (folder / "noise.txt").write_text("".join(np.random.default_rng(0).choice(list("abcdefgh \n"), 100_000)))
    return {"code": folder / "code", "mail": folder / "mail.jsonl", "noise": folder / "noise.txt"}


@pytest.fixture(scope="module", name="found")
def _found(corpora: dict[str, Path]) -> CorpusEntropies:
    return corpus_entropies(corpora, SETTINGS)


def test_all_tokens_are_counted_in_sequences_of_the_papers_length(
    corpora: dict[str, Path], found: CorpusEntropies
) -> None:
    text = (corpora["noise"]).read_bytes()
    expected = EntropyCounter()
    # Packed within a block of the file, in sequences of 1,024, the last of which is shorter. Blocks end at line ends.
    starts = [0, *(text.index(b"\n", border - 1) + 1 for border in range(1 << 14, len(text), 1 << 14))]
    for first, last in zip(starts, [*starts[1:], len(text)], strict=True):
        block = np.frombuffer(text[first:last], np.uint8)
        for start in range(0, len(block), 1024):
            expected.add(block[start : start + 1024])

    noise = found.domains["noise"]
    assert noise.tokens == len(text) == noise.text_bytes
    assert found.entropies("joint", compare="all")["noise"] == pytest.approx(expected.joint, abs=1e-12)
    assert found.entropies("conditional", compare="all")["noise"] == pytest.approx(math.log(10), abs=0.01)
    assert noise.distinct_pairs == 100


def test_documents_can_be_sequences(corpora: dict[str, Path]) -> None:
    settings = replace(SETTINGS, sequence_length=0, embedder=None)
    counts = count_blocks(find_blocks(corpora["mail"], settings.reading), settings)
    expected = EntropyCounter()
    for line in corpora["mail"].read_text().splitlines():
        expected.add(np.frombuffer(json.loads(line)["text"].encode(), np.uint8))

    assert counts.entropy.to_bytes() == expected.to_bytes()
    assert counts.sample.elements >= 1 << 15


def test_whoever_counts_which_block_the_counts_are_the_same(corpora: dict[str, Path], found: CorpusEntropies) -> None:
    blocks = find_blocks(corpora["code"], SETTINGS.reading) + find_blocks(corpora["mail"], SETTINGS.reading)
    settings = replace(SETTINGS, embed_all=True)
    whole = count_blocks(blocks, settings).to_bytes()
    parts = [DomainCounts.from_bytes(count_blocks([block], settings).to_bytes()) for block in blocks]
    for seed in range(3):
        total = DomainCounts.empty(settings)
        for place in np.random.default_rng(seed).permutation(len(parts)):
            total += parts[place]
        assert total.to_bytes() == whole

    for place in range(len(parts)):
        if place:
            total += count_blocks([blocks[place]], settings, total)
        else:
            total = count_blocks([blocks[0]], settings)
    assert total.to_bytes() == whole
    assert corpus_entropies(corpora, SETTINGS, engine=Threads(3)).to_dict() == found.to_dict()
    assert corpus_entropies(corpora, replace(SETTINGS, memory=100_000)).to_dict() == found.to_dict()


def test_domains_are_compared_by_equally_many_tokens(corpora: dict[str, Path], found: CorpusEntropies) -> None:
    assert found.tokens == 1 << 15
    assert {curve.sizes[-1] for d in found.domains.values() for c in d.curves.values() for curve in c.values()} == {
        1 << 15
    }
    # More tokens, and a smaller domain than asked for: all have as many as it.
    small = corpus_entropies(corpora, replace(SETTINGS, sample_tokens=1 << 30))
    assert small.tokens == min(domain.tokens for domain in small.domains.values())
    smallest = min(small.domains, key=lambda name: small.domains[name].tokens)
    assert any(f"domain '{smallest}' has {small.tokens:,} tokens" in text for text in small.warnings())
    # All of a domain's tokens are its own sample then.
    assert small.domains[smallest].curve("joint", "plug-in").value == pytest.approx(  # type: ignore[union-attr]  # it has one
        small.entropies("joint", compare="all")[smallest], abs=1e-3
    )


def test_another_seed_draws_another_sample_of_the_same(corpora: dict[str, Path], found: CorpusEntropies) -> None:
    other = corpus_entropies(corpora, replace(SETTINGS, seed=1))

    assert other.entropies("joint", compare="all") == found.entropies("joint", compare="all")
    for proxy in found.proxies:
        for name in found.domains:
            one, two = found.domains[name].curve(proxy), other.domains[name].curve(proxy)
            assert one is not None
            assert two is not None
            assert one.value != two.value
            assert abs(one.value - two.value) < 6 * math.hypot(one.error, two.error)


def test_mixtures_are_those_of_eq_13(found: CorpusEntropies) -> None:
    assert found.proxies == ("shannon", "joint", "conditional", "von_neumann")
    for proxy in found.proxies:
        entropies = found.entropies(proxy)
        assert found.mixture(proxy) == entropy_mixture(entropies)
        assert found.mixture(proxy, temperature=2) == entropy_mixture(entropies, temperature=2)
    tokens = {"code": 1.0, "mail": 2.0, "noise": 3.0}
    weighed = found.mixture("joint", available_tokens=tokens)
    assert weighed.array() == pytest.approx((found.mixture("joint") * Mixture.normalized(tokens)).array(), rel=1e-9)
    product = found.mixture("shannon") * found.mixture("conditional")
    # But for the last tokens of sequences, one in 1,024.
    assert found.mixture("joint").array() == pytest.approx(product.array(), abs=1e-4)


def test_a_proportions_error_is_that_of_entropies_drawn_again(found: CorpusEntropies) -> None:
    rng = np.random.default_rng(0)
    curves = {name: domain.curve("conditional") for name, domain in found.domains.items()}
    drawn = []
    for _ in range(2000):
        noisy = {name: c.value + c.error * rng.normal() for name, c in curves.items() if c}
        drawn.append(entropy_mixture(noisy).array())

    expected = np.std(drawn, axis=0)
    assert list(found.proportion_errors("conditional").values()) == pytest.approx(expected, rel=0.1)


def test_all_of_it_is_written(found: CorpusEntropies, tmp_path: Path) -> None:
    paths = {str(path.relative_to(tmp_path)) for path in found.save(tmp_path)}

    mixtures = {f"mixtures/{proxy}.yaml" for proxy in found.proxies}
    assert paths == {"entropy.json", "entropy.csv", "entropy.html", *mixtures}
    assert Mixture.from_yaml(tmp_path / "mixtures/conditional.yaml") == found.mixture("conditional")
    table = pd.read_csv(tmp_path / "entropy.csv")
    assert len(table) == len(found.domains) * len(found.proxies)
    read = json.loads((tmp_path / "entropy.json").read_text())
    assert read["mixtures"]["joint"] == dict(found.mixture("joint"))
    assert read["tokenizer"] == "bytes"
    assert read["embedder"] == "hashing of 4-byte strings, 256 dimensions"
    assert "conditional entropy" in (tmp_path / "entropy.html").read_text()
    with pytest.raises(CorpusError, match="cannot write"):
        found.save(tmp_path / "entropy.json" / "below")


def test_names_and_problems_stay_text_in_the_page(corpora: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "<b>.jsonl").write_text(
        '{"text": "enough text to be counted"}\nno json <script>alert(1)</script>\n' * 30
    )
    settings = replace(SETTINGS, reading=Reading(skip_bad=True))
    named = {"<script>alert(2)</script>": corpora["mail"], "b&c": tmp_path / "<b>.jsonl"}

    found = corpus_entropies(named, settings)

    page = found.files()["entropy.html"]
    assert "<script" not in page
    assert "&lt;script&gt;alert(2)" in page
    assert found.domains["b&c"].unreadable == 30
    assert any("'b&c': 30 unreadable documents were excluded, the first: " in text for text in found.warnings())


def test_what_two_domains_share_is_told(corpora: dict[str, Path], tmp_path: Path) -> None:
    lines = corpora["mail"].read_text().splitlines()
    (tmp_path / "half.jsonl").write_text("\n".join(lines[: len(lines) // 2]) + "\n" + '{"text": "its own"}\n')

    found = corpus_entropies({**corpora, "half": tmp_path / "half.jsonl"}, SETTINGS)

    assert [(o.one, o.other) for o in found.overlaps] == [("mail", "half")]
    assert found.overlaps[0].share == pytest.approx(1, abs=0.01)
    assert any("'mail' and 'half' share documents: about 100 %" in text for text in found.warnings())


def test_the_same_file_under_two_names_is_told_for_token_ids_too(tmp_path: Path) -> None:
    for name, start in (("a", 0), ("b", 0), ("c", 5)):
        np.save(tmp_path / f"{name}.npy", np.arange(start, start + 3000, dtype=np.uint16) % 97)

    found = corpus_entropies({name: tmp_path / f"{name}.npy" for name in "abc"})

    assert [(o.one, o.other, o.share) for o in found.overlaps] == [("a", "b", 1.0)]
    assert found.proxies == ("shannon", "joint", "conditional")
    assert found.tokenizer == "token ids as stored"
    with pytest.raises(CorpusError, match="no proxy 'von_neumann': texts were not embedded"):
        found.mixture("von_neumann")


def test_rows_of_a_table_are_sequences_and_documents(tmp_path: Path) -> None:
    table = np.random.default_rng(0).integers(0, 30, (50, 40)).astype(np.uint16)
    np.save(tmp_path / "a.npy", table)
    expected = EntropyCounter()
    expected.add(table)

    counts = count_blocks(find_blocks(tmp_path / "a.npy", Reading()), EntropySettings(sample_tokens=400))

    assert counts.entropy.to_bytes() == expected.to_bytes()
    assert (counts.documents, counts.stored_tokens, len(counts.sketch)) == (50, 2000, 50)
    assert {tuple(row) for row in counts.sample.sequences()} <= {tuple(row) for row in table}
    assert counts.sample.elements == 400


def test_a_share_is_told_from_the_lowest_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain_counts, "SKETCH", 500)
    rng = np.random.default_rng(0)
    common, own, more = (rng.integers(0, 2**64, size, np.uint64, endpoint=False) for size in (20_000, 20_000, 400_000))
    one = np.unique(np.concatenate([common, own]))[:500]
    other = np.unique(np.concatenate([common, more]))[:500]

    assert shared(one, other) == pytest.approx(0.5, abs=0.12)  # of 40,000, 20,000 are in both
    assert shared(one, one) == 1
    assert shared(one, np.zeros(0, np.uint64)) == 0


def test_copies_within_a_domain_are_told(corpora: dict[str, Path], tmp_path: Path) -> None:
    lines = corpora["mail"].read_text().splitlines()[:100]
    (tmp_path / "twice.jsonl").write_text("\n".join(lines * 2))

    found = corpus_entropies({**corpora, "twice": tmp_path / "twice.jsonl"}, SETTINGS)

    assert found.domains["twice"].copies == pytest.approx(0.5)
    assert found.domains["code"].copies == 0
    assert any("'twice': about 50 % of its documents are copies" in text for text in found.warnings())


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('{"text": ""}\n', "domain 'bad' has no two neighbouring tokens: 0 tokens in 1 documents of 1 files"),
        ('{"text": "x"}\n', "domain 'bad' has no two neighbouring tokens: 1 tokens in 1 documents of 1 files"),
        ("no json\n", "bad.jsonl, line 1 at byte 0 is not JSON"),
        ('{"text": [1, 2, 3]}\n', "domain 'bad' holds token ids and domain 'mail' text"),
        ('{"text": [1, -2, 3]}\n', r"bad.jsonl: token ids must be integers from 0 on"),
    ],
)
def test_a_domain_of_which_nothing_can_be_said(
    corpora: dict[str, Path], tmp_path: Path, content: str, text: str
) -> None:
    (tmp_path / "bad.jsonl").write_text(content)

    with pytest.raises(CorpusError, match=text):
        corpus_entropies({"mail": corpora["mail"], "bad": tmp_path / "bad.jsonl"}, SETTINGS)


def test_ids_beyond_the_vocabulary_name_the_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(300, dtype=np.int32))

    with pytest.raises(
        CorpusError, match=r"a.npy: token id 299 is beyond the vocabulary of 256: is this its tokenizer"
    ):
        corpus_entropies({"a": tmp_path / "a.npy"}, EntropySettings(tokenizer="bytes"))
    with pytest.raises(CorpusError, match=r"a.npy: token id 299 is beyond the vocabulary of 100"):
        corpus_entropies({"a": tmp_path / "a.npy"}, EntropySettings(vocabulary=100))


def test_no_file_and_no_such_file_name_the_domain(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="domain 'a' has no file"):
        corpus_entropies({"a": []})
    with pytest.raises(CorpusError, match=r"domain 'a': .*nowhere is not there"):
        corpus_entropies({"a": tmp_path / "nowhere"})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"compare": "some"}, "domains are compared 'equal' or 'all', not 'some'"),
        ({"estimator": "guess"}, "no estimator 'guess'; choose from 'plug-in"),
        ({"proxy": "renyi"}, "no proxy 'renyi'; choose from 'shannon"),
    ],
)
def test_questions_that_have_no_answer(found: CorpusEntropies, options: dict[str, str], text: str) -> None:
    with pytest.raises(CorpusError, match=text):
        found.entropies(**{"proxy": "joint", **options})  # type: ignore[arg-type]  # they are wrong on purpose


def test_an_embedder_that_gives_no_number_is_refused(corpora: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        spec, dimensions = "broken", 2

        def __call__(self, texts: list[str]) -> np.ndarray:
            return np.full((len(texts), 2), np.nan)

    for module in (block_counts, domain_counts):
        monkeypatch.setattr(module, "embedder_of", lambda _: Broken())

    with pytest.raises(CorpusError, match=r"mail.jsonl: embedding 0 of \d+ has NaN or infinity"):
        count_blocks(find_blocks(corpora["mail"], SETTINGS.reading), SETTINGS)


def test_passages_the_embedder_knows_nothing_of_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "abc"}\n{"text": "abcdefgh"}\n{"text": "  "}\n')

    counts = count_blocks(find_blocks(tmp_path / "a.jsonl", Reading()), EntropySettings(embed_all=True))

    assert (counts.documents, counts.passages, counts.blank_passages) == (3, 2, 1)
    assert counts.density is not None
    assert counts.density.count == 1


def test_progress_is_told_in_megabytes_of_files(corpora: dict[str, Path]) -> None:
    told: list[tuple[str, int, int]] = []

    corpus_entropies(corpora, SETTINGS, progress=lambda *what: told.append(what))

    counting_ = [(done, total) for what, done, total in told if what == "counting, MB"]
    assert [done for done, _ in counting_] == sorted(done for done, _ in counting_)
    assert counting_[-1][0] == counting_[-1][1]
    assert ("comparing domains", 3, 3) in told


def test_an_error_in_a_thread_stops_the_rest(
    corpora: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(60):
        (tmp_path / f"{number:02}.jsonl").write_text("no json" if number == 3 else '{"text": "some text"}\n')
    counted: list[list[Block]] = []
    count = block_counts.count_blocks

    def counting_too(blocks: list[Block], settings: EntropySettings, before: DomainCounts) -> DomainCounts:
        counted.append(blocks)
        return count(blocks, settings, before)

    monkeypatch.setattr(measuring, "count_blocks", counting_too)

    with pytest.raises(CorpusError, match=r"03.jsonl, line 1 at byte 0 is not JSON"):
        corpus_entropies({"a": tmp_path, "b": corpora["mail"]}, SETTINGS, engine=Threads(2))
    assert len(counted) < 30

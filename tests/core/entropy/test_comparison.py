"""Entropies, proportions, errors and warnings that stand beside each other are of one sample, and say of which."""

from __future__ import annotations

import json
import math
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from bimix_tracking.cli.entropy import print_entropies
from bimix_tracking.entropy.counter import entropy_mixture
from bimix_tracking.entropy.domain_counts import EntropySettings
from bimix_tracking.entropy.log import log_entropies
from bimix_tracking.entropy.measuring import corpus_entropies
from bimix_tracking.entropy.result import CorpusEntropies
from bimix_tracking.mixture import Mixture
from bimix_tracking.quantities import percent


@pytest.fixture(scope="module", name="found")
def _found(tmp_path_factory: pytest.TempPathFactory) -> CorpusEntropies:
    folder = tmp_path_factory.mktemp("corpora")
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    (folder / "code.txt").write_text("".join(path.read_text() for path in sorted((stdlib / "email").glob("*.py"))))
    texts = [path.read_text() for path in sorted((stdlib / "json").glob("*.py"))]
    (folder / "mail.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    digits = np.random.default_rng(0).integers(48, 58, 70_000, np.uint8)
    (folder / "noise.txt").write_bytes(digits.tobytes())
    paths = {path.stem: path for path in sorted(folder.iterdir())}
    return corpus_entropies(paths, EntropySettings(sample_tokens=1 << 14, sample_passages=20))


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"compare": "all"},
        {"estimator": "chao-shen"},
        {"compare": "all", "estimator": "miller-madow", "temperature": 2.0},
        {"temperature": 0.5, "available_tokens": {"code": 1.0, "mail": 2.0, "noise": 3.0}},
    ],
)
def test_what_stands_side_by_side_is_of_one_sample(
    found: CorpusEntropies, how: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = {name: value for name, value in how.items() if name in {"temperature", "available_tokens"}}
    one = found.compared(**how)
    found.save(tmp_path, **how)
    log_entropies(found, f"jsonl:{tmp_path}/runs", **how)
    print_entropies(one)

    read = json.loads((tmp_path / "entropy.json").read_text())
    table = pd.read_csv(tmp_path / "entropy.csv").set_index(["proxy", "domain"])
    row = json.loads(next((tmp_path / "runs").rglob("rows.jsonl")).read_text().splitlines()[0])
    page, printed = (tmp_path / "entropy.html").read_text(), capsys.readouterr().out
    for proxy in found.proxies:
        mixture = Mixture.from_yaml(tmp_path / "mixtures" / f"{proxy}.yaml")
        origin = yaml.safe_load((tmp_path / "mixtures" / f"{proxy}.yaml").read_text())["from"]
        of_rows = {name: row[f"bimix_entropy_{proxy}/{name}"] for name in found.domains}
        for entropies in (read["entropies"][proxy], table["entropy"][proxy].to_dict(), origin["nats"], of_rows):
            assert entropy_mixture(entropies, **mixed).array() == pytest.approx(mixture.array(), abs=1e-12)
        assert read["mixtures"][proxy] == pytest.approx(dict(mixture))
        assert table["proportion"][proxy].to_dict() == pytest.approx(dict(mixture))
        for name in found.domains:
            assert f"{one.entropies(proxy)[name]:.3f}" in printed
            assert percent(mixture[name]) in printed
            assert f"<td>{one.entropies(proxy)[name]:.3f}</td>" in page
    assert one.sample() in " ".join(printed.split())
    assert one.sample() in page
    assert one.sample() == read["sample"]
    assert ("±" in printed) == (how.get("compare") != "all" or "von_neumann" in found.proxies)


def test_what_entropies_are_of_is_said(found: CorpusEntropies) -> None:
    counts = sorted({domain.sampled for domain in found.domains.values()})
    assert counts[0] >= 16
    assert found.compared().sample() == (
        f"Entropies and proportions are of a random sample of 16,384 tokens of each domain ({counts[0]} to "
        f"{counts[-1]} sequences of up to 1,024), by grassberger; von Neumann entropies of {found.passages} random "
        "passages of each."
    )
    assert found.compared(compare="all", temperature=2.0).sample() == (
        "Entropies and proportions are of all tokens of each domain, by plug-in; von Neumann entropies of "
        f"{found.passages} random passages of each; temperature 2."
    )
    assert all(math.isnan(error) for error in found.compared(compare="all").errors("joint").values())
    assert found.compared(compare="all").sizes("joint") == {n: d.tokens for n, d in found.domains.items()}
    assert any("by all their tokens" in text for text in found.warnings(compare="all"))
    assert not any("by all their tokens" in text for text in found.warnings())


def test_short_documents_have_the_entropy_of_all_their_tokens(tmp_path: Path) -> None:
    (tmp_path / "ab.jsonl").write_text('{"text": "ab"}\n' * 100)
    (tmp_path / "cd.jsonl").write_text('{"text": "cdcdcdcdcd"}\n' * 20)
    (tmp_path / "one.jsonl").write_text('{"text": "x"}\n{"text": "y"}\n{"text": "zz"}\n' * 50)
    corpora = {name: tmp_path / f"{name}.jsonl" for name in ("ab", "cd", "one")}

    found = corpus_entropies(corpora, EntropySettings(sequence_length=0, embedder=None))

    entropies = found.entropies("shannon", compare="all")
    assert entropies["ab"] == pytest.approx(math.log(2), abs=1e-12)
    assert entropies["cd"] == pytest.approx(math.log(2), abs=1e-12)
    assert entropies["one"] == pytest.approx(1.5 * math.log(2), abs=1e-12)
    assert found.entropies("shannon")["ab"] == pytest.approx(math.log(2), abs=1e-3)
    assert "(20 to 150 documents)" in found.compared().sample()

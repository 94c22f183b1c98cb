"""`bimix entropy` as a user meets it: a table, files, a run in MLflow, candidates of a pilot."""

from __future__ import annotations

import gzip
import json
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from bimix_tracking import Mixture, open_source
from bimix_tracking.errors import SourceError
from bimix_tracking.quantities import percent
from tests.warm import program


def bimix(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [program("bimix"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=cwd)


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    (folder / "code").mkdir()
    for path in sorted(stdlib.glob("*.py"))[:12]:
        (folder / "code" / path.name).write_bytes(path.read_bytes())
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((stdlib / "email").glob("*.py"))[:6])
    rows = [json.dumps({"body": part}) for part in text.split("\n\n") if part]
    (folder / "web.v1.jsonl.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    return folder


def test_from_files_to_the_candidates_of_a_pilot(folder: Path, tmp_path: Path) -> None:
    store = f"mlflow+sqlite:///{tmp_path}/m.db#sweep"
    done = bimix(
        "entropy", f"code={folder / 'code'}", folder / "web.v1.jsonl.gz", "--text-field", "body", "--format", "jsonl",
        "--out", tmp_path / "out", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 3
    assert "is not JSON" in done.stderr  # code isn't

    (folder / "web.txt").write_text(gzip.decompress((folder / "web.v1.jsonl.gz").read_bytes()).decode())
    done = bimix(
        "entropy", f"code={folder / 'code'}", "web.txt", "--out", tmp_path / "out", "--tracker", store, "--workers", 2,
        "--sample-tokens", 65536, cwd=folder,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Entropy in nats ± standard error, and the proportion by it\n")
    assert "65,536 tokens" in done.stdout
    mixtures = {path.stem: Mixture.from_yaml(path) for path in (tmp_path / "out" / "mixtures").iterdir()}
    assert set(mixtures) == {"shannon", "joint", "conditional", "von_neumann"}
    assert all(mixture.domains == ("code", "web") for mixture in mixtures.values())
    assert percent(mixtures["conditional"]["code"]) in done.stdout
    client = MlflowClient(f"sqlite:///{tmp_path}/m.db")
    (run,) = client.search_runs([client.get_experiment_by_name("sweep").experiment_id])  # type: ignore[union-attr]  # there
    table = pd.read_csv(tmp_path / "out" / "entropy.csv").set_index(["proxy", "domain"])["entropy"]
    for proxy in mixtures:
        for domain in ("code", "web"):
            assert run.data.metrics[f"bimix_entropy_{proxy}/{domain}"] == pytest.approx(table[proxy, domain], rel=1e-9)
    files = {file.path for file in client.list_artifacts(run.info.run_id, "bimix")}
    assert {"bimix/entropy.html", "bimix/entropy.json", "bimix/mixtures"} <= files
    assert run.info.status == "FINISHED"
    with pytest.raises(SourceError, match=r"no finished training run \(0 unfinished, 1 others\)"):
        open_source(store).observations()

    planned = bimix(
        "plan", "code", "web", "--runs", 4, "--out", tmp_path / "plan",
        "--candidate", tmp_path / "out/mixtures/conditional.yaml",
        "--candidate", tmp_path / "out/mixtures/shannon.yaml",
    )  # fmt: skip
    assert planned.returncode == 0, planned.stderr
    found = [json.loads(line)["mixture"] for line in (tmp_path / "plan" / "plan.jsonl").read_text().splitlines()]
    assert found[1] == pytest.approx(dict(mixtures["conditional"]))
    assert found[2] == pytest.approx(dict(mixtures["shannon"]))


def test_sizes_temperature_and_the_papers_way(folder: Path, tmp_path: Path) -> None:
    def mixture(*options: object) -> Mixture:
        done = bimix("entropy", f"a={folder / 'code'}", f"b={folder / 'web.v1.jsonl.gz'}", "--embedder", "none",
                     "--format", "text", "--out", tmp_path / "out", *options)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "von Neumann" not in done.stdout
        return Mixture.from_yaml(tmp_path / "out" / "mixtures" / "joint.yaml")

    entropies = json.loads
    plain, paper = mixture(), mixture("--compare", "all")
    read = entropies((tmp_path / "out" / "entropy.json").read_text())["domains"]
    h = {name: found["all_tokens"]["plug-in"]["joint"] for name, found in read.items()}
    weights = {name: np.exp(value - h["a"]) for name, value in h.items()}
    assert paper.array() == pytest.approx(Mixture.normalized(weights).array(), rel=1e-9)
    assert plain.array() != pytest.approx(paper.array(), rel=1e-6)
    sharper = mixture("--temperature", "0.5")
    assert sharper.array() == pytest.approx((plain * plain).array(), rel=1e-9)
    weighed = mixture("--available", "a=3", "--available", "b=1")
    assert weighed.array() == pytest.approx((plain * Mixture({"a": 0.75, "b": 0.25})).array(), rel=1e-9)
    tokens = Mixture.normalized({name: found["tokens"] for name, found in read.items()})
    assert mixture("--by-size").array() == pytest.approx((plain * tokens).array(), rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["a=x.txt"], 2, "name the text of at least two domains"),
        (["a=nowhere", "b=x.txt"], 3, "domain 'a': nowhere is not there"),
        (["a=x.txt", "b=empty.txt"], 3, "domain 'b': empty.txt holds no text"),
        (["a=x.txt", "b=bad.jsonl"], 3, "bad.jsonl, line 2 at byte 17 is not JSON"),
        (["a=x.txt", "b=other.jsonl"], 3, "domain 'b': other.jsonl, line 1 at byte 0 has no field 'text'; there are "),
        (["a=x.txt", "b=x.txt", "--text-field", "c=body"], 2, "'c' is no domain here: 'a', 'b'"),
        (["a=x.txt", "b=x.txt", "--text-field", "a=t", "--text-field", "a=u"], 2, "give one text field for domain 'a'"),
        (["a=x.txt", "b=x.txt", "--text-field", "t", "--text-field", "u"], 2, "give one text field for all domains"),
        (
            ["a=x.txt", "b=x.txt", "--text-field", "a=t"],
            3,
            "domain 'a' has a text field, but its files are text, without fields",
        ),
        (["a=x.txt", "b=x.txt", "--text-field", "a="], 2, "give one text field for domain 'a'"),
        (["a=x.txt", "b=ids.npy"], 3, "domain 'b' holds token ids and domain 'a' text"),
        (["a=x.txt", "b=x.txt", "--tokenizer", "runes"], 3, "no tokenizer 'runes': it is not bytes"),
        (["a=x.txt", "b=x.txt", "--embedder", "feeling"], 3, "no embedder 'feeling'"),
        (["a=x.txt", "b=x.txt", "--compare", "some"], 2, "no comparison 'some'; choose from 'equal', 'all'"),
        (["a=x.txt", "b=x.txt", "--estimator", "mean"], 2, "no estimator 'mean'; choose from 'plug-in'"),
        (["a=x.txt", "b=x.txt", "--temperature", "0"], 2, "the temperature must be positive"),
        (["a=x.txt", "b=x.txt", "--available", "c=1"], 2, "no domain 'c'; choose from 'a', 'b'"),
        (["a=x.txt", "b=x.txt", "--available", "a=1B"], 2, "needs the tokens of 'b' too"),
        (["a=x.txt", "b=x.txt", "--available", "a=-1"], 2, "'a=-1': '-1' is not a number of tokens"),
        (["a=x.txt", "b=x.txt", "--available", "a=1", "--by-size"], 2, "give one"),
        (["a=x.txt", "b=x.txt", "--tracker", "nowhere:x"], 4, "no tracker for 'nowhere'"),
        (["a=x.txt", "b=x.txt", "--out", "x.txt/below"], 3, "cannot write"),
    ],
)
def test_what_cannot_be_measured_is_one_line(tmp_path: Path, arguments: list[str], code: int, text: str) -> None:
    (tmp_path / "x.txt").write_text("some text to count " * 20)
    (tmp_path / "empty.txt").touch()
    (tmp_path / "bad.jsonl").write_text('{"text": "good"}\nbad\n')
    (tmp_path / "other.jsonl").write_text('{"data": {"text": "x"}, "id": 3}\n')
    np.save(tmp_path / "ids.npy", np.arange(99))

    done = bimix("entropy", *arguments, cwd=tmp_path)

    assert done.returncode == code, done.stderr
    assert text in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


def test_each_domain_has_its_text_in_a_field_of_its_own(tmp_path: Path) -> None:
    words = [f"the text of document {number}" for number in range(40)]
    for name, rows in (
        ("plain", [{"text": word} for word in words]),
        ("code", [{"content": word, "text": 1} for word in words]),
        ("web", [{"data": {"text": word}} for word in words]),
        ("book=s", [{"a=b": word} for word in words]),
    ):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    fields = ("code=content", "web=data.text", "book=s=a=b")
    options = [option for field in fields for option in ("--text-field", field)]
    files = [f"{name}.jsonl" for name in ("plain", "code", "web", "book=s")]
    done = bimix("entropy", *files, "--embedder", "none", "--out", "out", *options, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "entropy.json").read_text())["domains"]
    assert set(found) == {"plain", "code", "web", "book=s"}
    assert {domain["text_bytes"] for domain in found.values()} == {len("".join(words))}
    # One for all, and another for one.
    done = bimix("entropy", "web.jsonl", "code.jsonl", "--text-field", "data.text", "--text-field", "code=content",
                 cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_bad_lines_can_be_skipped_and_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("some text to count " * 20)
    (tmp_path / "bad.jsonl").write_text('{"text": "good text of a domain, long enough"}\nbad\n')

    done = bimix("entropy", "x.txt", "bad.jsonl", "--skip-bad", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "Warning: domain 'bad': 1 unreadable documents were excluded, the first: " in done.stderr
    assert "bad.jsonl, line 2 at byte 47" in done.stderr

"""Tokenizers from files: a BPE trained on real text, read by both libraries."""

from __future__ import annotations

import json
import shutil
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import transformers

from bimix_tracking.entropy.corpora import tokenizers as ours
from bimix_tracking.entropy.corpora.tokenizers import open_tokenizer
from bimix_tracking.errors import CorpusError


@pytest.fixture(scope="module", name="texts")
def _texts() -> list[str]:
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    return [path.read_text(encoding="utf-8") for path in sorted(stdlib.glob("a*.py"))[:4]]


@pytest.fixture(scope="module", name="folder")
def _folder(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=600, special_tokens=["<s>"], show_progress=False)
    trained.train_from_iterator(texts, trainer)
    trained.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    trained.enable_truncation(5)  # as files of models with a length have it
    trained.enable_padding()
    folder = tmp_path_factory.mktemp("tokenizer")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=trained)
    fast.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("spec", ["{}", "{}/tokenizer.json", "tokenizers:{}/tokenizer.json", "transformers:{}"])
def test_ids_are_the_texts_own_nothing_added_nothing_cut(folder: Path, texts: list[str], spec: str) -> None:
    tokenizer = open_tokenizer(spec.format(folder))
    plain = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    plain.no_truncation()
    plain.no_padding()

    found = tokenizer([*texts, ""])

    assert [ids.tolist() for ids in found] == [plain.encode(t, add_special_tokens=False).ids for t in [*texts, ""]]
    assert plain.decode(found[0].tolist()) == texts[0]
    assert tokenizer.vocabulary == plain.get_vocab_size() >= 600
    assert {ids.dtype for ids in found} == {np.dtype(np.uint16)}
    assert tokenizer([]) == []
    assert f"{tokenizer.vocabulary} ids" in tokenizer.spec
    assert str(folder.parent) not in tokenizer.spec


@pytest.mark.parametrize("spec", ["{}/tokenizer.json", "transformers:{}"])
def test_long_texts_have_the_tokens_that_they_have_at_once(
    folder: Path, texts: list[str], spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "PIECE", 1 << 18)  # less to do, and as few cuts
    long = "".join(texts) * (1 + 3 * ours.PIECE // (2 * sum(map(len, texts))))
    plain = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    plain.no_truncation()
    plain.no_padding()

    found = open_tokenizer(spec.format(folder))([long, texts[0]])

    assert len(long) > ours.PIECE
    assert found[0].tolist() == plain.encode(long, add_special_tokens=False).ids
    assert found[1].tolist() == plain.encode(texts[0], add_special_tokens=False).ids


def test_all_checkpoints_of_a_training_have_one_tokenizer(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "trainer_state.json").write_text("{}")

    assert (
        open_tokenizer(f"transformers:{tmp_path}").spec.split("(")[1]
        == (open_tokenizer(f"transformers:{folder}").spec.split("(")[1])
    )


def test_another_file_is_another_spec(folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "Lowercase"}
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))

    for kind in ("", "transformers:"):
        assert (
            open_tokenizer(f"{kind}{tmp_path}").spec.split("(")[1]
            != (open_tokenizer(f"{kind}{folder}").spec.split("(")[1])
        )


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("tokenizers:nowhere.json", "nowhere.json cannot be read: No such file"),
        ("tokenizers:{}/bad.json", "bad.json is not a tokenizer.json"),
        ("tokenizers", "which one\\? Give its file: tokenizers:FOLDER/tokenizer.json"),
        ("transformers:", "which tokenizer\\? Give its folder: transformers:FOLDER"),
        ("transformers:gpt2", "transformers:gpt2: there is no such folder. Fetch the tokenizer first"),
        ("transformers:{}", "no tokenizer can be read there"),
    ],
)
def test_what_is_no_tokenizer_is_named(tmp_path: Path, spec: str, text: str) -> None:
    (tmp_path / "bad.json").write_text("{}")

    with pytest.raises(CorpusError, match=text):
        open_tokenizer(spec.format(tmp_path))

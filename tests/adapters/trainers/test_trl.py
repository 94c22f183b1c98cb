"""TRL's SFTTrainer: a fused head without logits, padding-free batches, packing, PEFT."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import peft
import pytest
import torch
from bimix_integrations.trainers.transformers import DomainCollator, DomainLossCallback
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch.utils.data import SequentialSampler
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl.data_utils import pack_dataset
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling, SFTTrainer

from bimix_tracking.errors import RecorderError
from tests.adapters.trainers.toys import BATCH, DOMAINS, STEPS, VOCABULARY, Rows, by_step

pytestmark = [
    pytest.mark.filterwarnings("ignore:`label_smoothing_factor` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing.*deprecated:FutureWarning"),
]
SLUGS = dict(zip(DOMAINS, ("code", "web", "c_372946aa"), strict=True))
Features = list[dict[str, Any]]


class InOrder(SFTTrainer):
    """A trainer that takes examples as they come."""

    def _get_train_sampler(self, *args: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]


def model() -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=256, bos_token_id=0, eos_token_id=0, pad_token_id=0,
        )
    )  # fmt: skip


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))  # noqa: S106
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", eos_token="w1", unk_token="w0")  # noqa: S106


def examples(count: int, seed: int) -> Features:
    """Return tokenised examples of uneven lengths; some of their tokens, a prompt, bear no loss."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        tokens = rng.integers(2, VOCABULARY, size=rng.integers(4, 13)).tolist()
        prompt = int(rng.integers(0, 3))
        labels = [-100] * prompt + tokens[prompt:]
        made.append({"input_ids": tokens, "labels": labels, "domain": str(rng.choice(DOMAINS))})
    return made


def train(folder: Path, rows: Rows | None, train_on: Any = None, **options: Any) -> Any:
    # SFTConfig(padding_free=True) takes no collator but its own; a padding-free collator is all that it would be.
    inner = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=options.pop("flat", False))
    given: dict[str, Any] = {
        "output_dir": str(folder), "max_steps": STEPS, "per_device_train_batch_size": BATCH,
        "per_device_eval_batch_size": 5, "learning_rate": 1e-2, "lr_scheduler_type": "constant", "max_grad_norm": 0.0,
        "eval_strategy": "steps", "eval_steps": 3, "logging_steps": 2, "save_strategy": "no", "report_to": "none",
        "use_cpu": True, "remove_unused_columns": False, "disable_tqdm": True, "log_level": "error", "bf16": False,
        "max_length": None, "dataloader_pin_memory": False, "gradient_checkpointing": False,
    }  # fmt: skip
    adapter = options.pop("peft_config", None)
    collator = options.pop("data_collator", DomainCollator(inner, DOMAINS))
    watch: list[Any] = [] if rows is None else [DomainLossCallback(DOMAINS, tracker=rows)]
    trainer = InOrder(
        model=model(), args=SFTConfig(**given | options), data_collator=collator, processing_class=tokenizer(),
        train_dataset=datasets.Dataset.from_list(train_on or examples(60, 1)),
        eval_dataset=datasets.Dataset.from_list(examples(23, 2)), callbacks=watch, peft_config=adapter,
    )  # fmt: skip
    trainer.train()
    return trainer


def token_means(net: Any, features: Features) -> dict[str, tuple[float, int]]:
    """Return the mean loss of each domain's tokens and how many there are, example by example, in float64."""
    found: dict[str, list[float]] = {}
    for feature in features:
        with torch.no_grad():
            said = net.eval()(torch.tensor([feature["input_ids"]])).logits[0].double().log_softmax(-1)
        for time, label in enumerate(feature["labels"][1:]):
            if label != -100:
                found.setdefault(feature["domain"], []).append(-said[time, label].item())
    return {domain: (float(np.mean(values)), len(values)) for domain, values in found.items()}


def agrees(row: dict[str, float], net: Any, features: Features, split: str = "eval") -> None:
    for domain, (loss, tokens) in token_means(net, features).items():
        assert row[f"bimix_{split}_loss/{SLUGS[domain]}"] == pytest.approx(loss, rel=2e-6)
        if split == "eval":
            assert row[f"bimix_eval_tokens/{SLUGS[domain]}"] == tokens


def parameters(trainer: Any) -> list[torch.Tensor]:
    return [parameter.detach() for parameter in trainer.model.parameters()]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_fused_head_s_log_probs_are_read_and_no_bit_changes(
    tmp_path: Path, accumulate: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="bimix_integrations")
    rows = Rows()
    watched = train(tmp_path, rows, gradient_accumulation_steps=accumulate)
    told = [record.getMessage() for record in caplog.records if record.name.startswith("bimix")]
    alone = train(
        tmp_path, None, gradient_accumulation_steps=accumulate, data_collator=DataCollatorForLanguageModeling(0)
    )

    assert all(torch.equal(a, b) for a, b in zip(parameters(watched), parameters(alone), strict=True))
    assert told == ["token losses by domain come from its log_probs"]
    agrees(by_step(rows)[STEPS], watched.model, examples(23, 2))
    counted = sum(tokens for _, tokens in token_means(watched.model, examples(60, 1)[: STEPS * BATCH]).values())
    if accumulate == 1:
        assert by_step(rows)[STEPS]["bimix/tokens"] == counted


def test_padding_free_batches_are_split_by_document(tmp_path: Path) -> None:
    padded, flat = Rows(), Rows()
    changes = {"learning_rate": 0.0, "logging_steps": STEPS}
    train(tmp_path, padded, **changes)
    watched = train(tmp_path, flat, flat=True, **changes)

    # The attention of a CPU looks across the bounds of examples in one row, so losses are those of such rows.
    counts = [name for name in by_step(padded)[STEPS] if "tokens" in name or "share" in name]
    assert len(counts) == 1 + 3 * len(DOMAINS)
    for name in counts:
        assert by_step(flat)[STEPS][name] == by_step(padded)[STEPS][name]
    batch_of = DataCollatorForLanguageModeling(0, padding_free=True)
    sums: dict[int, list[float]] = {}
    for first in range(0, 23, 5):
        part = examples(23, 2)[first : first + 5]
        made = batch_of([{k: v for k, v in e.items() if k != "domain"} for e in part])
        owners = [DOMAINS.index(e["domain"]) for e in part for _ in e["input_ids"]]
        with torch.no_grad():
            inputs = {k: v for k, v in made.items() if k != "labels"}
            said = watched.model.eval()(**inputs, use_cache=False).logits[0].double().log_softmax(-1)
        for time, label in enumerate(made["labels"][0, 1:].tolist()):
            if label != -100:
                sums.setdefault(owners[time + 1], []).append(-said[time, label].item())
    for domain, values in sums.items():
        slug = SLUGS[DOMAINS[domain]]
        assert by_step(flat)[STEPS][f"bimix_eval_loss/{slug}"] == pytest.approx(np.mean(values), rel=2e-6)


def test_rows_packed_beforehand_keep_the_domain_of_each_token(tmp_path: Path) -> None:
    loose = examples(60, 1)
    per_token = [e | {"domain": [DOMAINS.index(e["domain"])] * len(e["input_ids"])} for e in loose]
    packed = pack_dataset(datasets.Dataset.from_list(per_token), 32, "bfd")
    assert {"input_ids", "labels", "domain", "seq_lengths"} <= set(packed.column_names)
    held: dict[str, int] = {}
    steps = min(STEPS, len(packed) // BATCH)
    for row in packed.to_list()[: steps * BATCH]:
        starts = {0, *np.cumsum(row["seq_lengths"]).tolist()}
        for place, (label, id_) in enumerate(zip(row["labels"], row["domain"], strict=True)):
            if label != -100 and place not in starts:
                held[DOMAINS[id_]] = held.get(DOMAINS[id_], 0) + 1

    rows = Rows()
    train(
        tmp_path, rows, packed.to_list(), flat=True, dataset_kwargs={"skip_prepare_dataset": True},
        max_steps=steps, eval_strategy="no", logging_steps=1,
    )  # fmt: skip

    last = by_step(rows)[steps]
    assert last["bimix/tokens"] == sum(held.values()) > 0
    for domain, tokens in held.items():
        assert last[f"bimix_tokens/{SLUGS[domain]}"] == tokens


def test_packing_by_the_trainer_drops_the_domain_and_that_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecorderError, match=r"no 'domain'; it has \['input_ids', 'labels'\]"):
        train(tmp_path, Rows(), packing=True, packing_strategy="wrapped", max_length=32)


def test_lora_is_trained_and_watched(tmp_path: Path) -> None:
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    rows = Rows()
    torch.manual_seed(1)
    watched = train(tmp_path, rows, peft_config=config)
    torch.manual_seed(1)
    alone = train(tmp_path, None, peft_config=config, data_collator=DataCollatorForLanguageModeling(0))

    assert isinstance(watched.model, peft.PeftModel)
    assert all(torch.equal(a, b) for a, b in zip(parameters(watched), parameters(alone), strict=True))
    agrees(by_step(rows)[STEPS], watched.model, examples(23, 2))
    assert rows.manifest.total_parameters == sum(p.numel() for p in watched.model.parameters())
    assert rows.manifest.tokenizer.endswith(f"({VOCABULARY} tokens)")


def test_label_smoothing_has_the_losses_without_it(tmp_path: Path) -> None:
    rows = Rows()
    watched = train(tmp_path, rows, label_smoothing_factor=0.1)

    agrees(by_step(rows)[STEPS], watched.model, examples(23, 2))
    assert "bimix_train_loss/web" in by_step(rows)[STEPS]

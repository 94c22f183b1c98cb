"""Lightning's callback: the same toy as everywhere, the same numbers, and what is Lightning's own."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
import torch
import yaml
from bimix_integrations.trainers.collate import DomainCollator
from bimix_integrations.trainers.lightning import DomainLossCallback
from bimix_integrations.trainers.torch import align, token_losses
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger
from mlflow.tracking import MlflowClient
from torch import Tensor
from torch.utils.data import DataLoader

from bimix_tracking import Observations
from bimix_tracking.errors import RecorderError
from tests.adapters.toys import (
    BATCH,
    DOMAINS,
    STEPS,
    Features,
    Rows,
    by_step,
    collate,
    examples,
    model,
    plain_loop,
    run_trainer,
)
from tests.adapters.toys import callback as of_transformers

MIXTURE = {"code": 0.4, "web": 0.4, "c++": 0.2}
Loaders = Any

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*",
    "ignore:You defined a `validation_step` but have no `val_dataloader`.*",
    "ignore:.*`isinstance.treespec, LeafSpec.*",
    "ignore:.*number of training batches.*is smaller than the logging interval.*",
    "ignore:Checkpoint directory .* exists and is not empty",
    "ignore:.*treespec.*:DeprecationWarning",
)


class Module(LightningModule):
    """The toy, trained as the trainer of transformers does.

    Args:
        shows: How callbacks get to see the losses: `hooks` of the model inside, or what the steps return.
        accumulate: Micro-batches of a step, by whose labels together the loss is divided.
    """

    def __init__(self, shows: str = "hooks", accumulate: int = 1) -> None:
        super().__init__()
        self.model = model()
        self.shows = shows
        labels = [sum(label != -100 for label in example["labels"]) for example in examples(100, 1)]
        self.counted = [
            sum(labels[first : first + BATCH * accumulate]) / accumulate
            for first in range(0, 100, BATCH * accumulate)
            for _ in range(accumulate)
        ]

    def _step(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        if self.shows == "hooks":
            items = self.model(**batch).loss
            batch.pop("domain_ids", None)
            return items * (align(batch["labels"], batch["labels"])[0] != -100).sum(), {}
        logits = self.model(batch["input_ids"]).logits
        losses = token_losses(logits, align(batch["labels"], batch["labels"])[0])
        return losses.sum(), {"logits": logits} if self.shows == "logits" else {"token_losses": losses}

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        total, more = self._step(batch)
        return {"loss": total / self.counted[batch_idx], **more}

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        return self._step(batch)[1]

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2, weight_decay=0.0, eps=1e-8)


def loader(features: Features, size: int, **options: Any) -> DataLoader[Any]:
    return DataLoader(features, batch_size=size, collate_fn=DomainCollator(collate, DOMAINS), **options)  # type: ignore[arg-type]


def fit(
    folder: Path, rows: Rows | str | None, *, module: Module | None = None, loaders: Loaders = None, **options: Any
) -> tuple[Trainer, DomainLossCallback]:
    accumulate = options.get("accumulate_grad_batches", 1)
    watcher = DomainLossCallback(DOMAINS, MIXTURE, rows)
    resume = options.pop("ckpt_path", None)
    given: dict[str, Any] = {
        "max_steps": STEPS, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 2,
        "val_check_interval": 3 * accumulate, "default_root_dir": folder, "callbacks": [watcher],
    }  # fmt: skip
    trainer = Trainer(**given | options)
    validation = loader(examples(23, 2), 7) if loaders is None else loaders
    trainer.fit(module or Module(accumulate=accumulate), loader(examples(100, 1), BATCH), validation, ckpt_path=resume)
    return trainer, watcher


@pytest.mark.parametrize("shows", ["hooks", "token_losses", "logits"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_plain_loop_the_trainer_of_transformers_and_lightning_log_the_same_numbers(
    tmp_path: Path, shows: str, accumulate: int
) -> None:
    plain, transformers_, ours = Rows(), Rows(), Rows()
    plain_loop(plain, accumulate)
    run_trainer(tmp_path, of_transformers(transformers_), arguments={"gradient_accumulation_steps": accumulate})
    fit(tmp_path, ours, module=Module(shows, accumulate), accumulate_grad_batches=accumulate)

    expected, theirs, found = by_step(plain), by_step(transformers_), by_step(ours)
    assert set(expected) == set(theirs) == set(found) == {2, 3, 4, 6}
    for step, row in expected.items():
        assert set(row) == set(theirs[step]) == set(found[step])
        assert theirs[step] == pytest.approx(row, rel=2e-5)
        assert found[step] == pytest.approx(row, rel=2e-5)


@pytest.mark.parametrize("shows", ["hooks", "token_losses"])
def test_training_is_not_perturbed(tmp_path: Path, shows: str) -> None:
    modules = [Module(shows) for _ in range(2)]
    fit(tmp_path, Rows(), module=modules[0])
    bare = Trainer(
        max_steps=STEPS, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    without = [{k: v for k, v in e.items() if k != "domain"} for e in examples(100, 1)]
    bare.fit(modules[1], DataLoader(without, batch_size=BATCH, collate_fn=collate))  # type: ignore[arg-type]

    pairs = zip(modules[0].parameters(), modules[1].parameters(), strict=True)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in pairs)


@pytest.mark.parametrize("as_dict", [False, True])
def test_several_validation_sets_are_one_row(tmp_path: Path, as_dict: bool) -> None:
    together, apart = Rows(), Rows()
    features = examples(23, 2)
    fit(tmp_path, together)
    loaders: Loaders = [loader([e for e in features if e["domain"] == domain], 4) for domain in DOMAINS]
    fit(tmp_path, apart, loaders=dict(zip(DOMAINS, loaders, strict=True)) if as_dict else loaders)

    rows = [row for row in apart if "bimix_eval_loss/web" in row]
    assert [row["bimix/step"] for row in rows] == [3, 6]
    assert by_step(apart)[6] == pytest.approx(by_step(together)[6], rel=1e-6)


def test_the_sanity_check_and_tests_leave_no_trace_and_a_validation_does(tmp_path: Path) -> None:
    checked, plain = Rows(), Rows()
    fit(tmp_path, plain, num_sanity_val_steps=0)
    trainer, _ = fit(tmp_path, checked, num_sanity_val_steps=2)
    assert by_step(checked) == by_step(plain)

    trainer.test(Module(), loader(examples(9, 5), 4), verbose=False)
    assert by_step(checked) == by_step(plain)
    trainer.validate(trainer.lightning_module, loader(examples(23, 2), 5), verbose=False)
    assert checked[-1]["bimix_eval_tokens/web"] == by_step(plain)[6]["bimix_eval_tokens/web"]


def test_a_run_cut_in_two_is_one_run(tmp_path: Path) -> None:
    _, whole = fit(tmp_path, f"jsonl:{tmp_path / 'whole'}")
    first, _ = fit(tmp_path, f"jsonl:{tmp_path / 'cut'}", max_steps=3, limit_train_batches=3)
    first.save_checkpoint(tmp_path / "at-3.ckpt")
    state = torch.load(tmp_path / "at-3.ckpt", weights_only=True)["callbacks"]["DomainLossCallback"]
    assert json.loads(json.dumps(state)) == state

    rest = DomainLossCallback(DOMAINS, MIXTURE, f"jsonl:{tmp_path / 'cut'}")
    rest.load_state_dict(state)
    assert rest.recorder.state_dict()["tokens"] == state["tokens"]
    assert sum(state["tokens"]) < sum(whole.recorder.state_dict()["tokens"])


class Environment:
    """What a Trainer of a fresh process has, with this or that environment."""

    code = (
        "import json, sys\n"
        "from {package} import Trainer\n"
        "trainer = Trainer(logger=False, enable_checkpointing=False, accelerator='cpu')\n"
        "ours = [type(c).__module__ for c in trainer.callbacks if type(c).__name__ == 'DomainLossCallback']\n"
        "print(json.dumps([ours, 'bimix_integrations.trainers.lightning' in sys.modules]))\n"
    )

    def __call__(self, package: str, **variables: str) -> list[Any]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("BIMIX_")} | variables
        command = [sys.executable, "-W", "ignore", "-c", self.code.format(package=package)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
        found: list[Any] = json.loads(done.stdout.splitlines()[-1])
        return found


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_without_a_line_of_code_the_environment_switches_it_on(tmp_path: Path, package: str) -> None:
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump({"mixture": MIXTURE}), encoding="utf-8")
    switched = {"BIMIX_MIXTURE": str(tmp_path / "mixture.yaml"), "BIMIX_TRACKER": f"jsonl:{tmp_path}"}
    look = Environment()

    assert look(package, BIMIX_AUTOLOG="1", **switched) == [["bimix_integrations.trainers.lightning"], True]
    if package == "lightning.pytorch":
        assert look(package, **switched) == [[], False]


def test_the_environment_configures_it_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump({"mixture": MIXTURE}), encoding="utf-8")
    for name, value in (
        ("AUTOLOG", "1"), ("MIXTURE", str(tmp_path / "mixture.yaml")), ("TRACKER", f"jsonl:{tmp_path / 'runs'}"),
        ("DOMAINS", ",".join(DOMAINS)), ("SWEEP", "pilot-3"),
    ):  # fmt: skip
        monkeypatch.setenv(f"BIMIX_{name}", value)
    trainer = Trainer(
        max_steps=STEPS, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, val_check_interval=3,
    )  # fmt: skip
    trainer.fit(Module(), loader(examples(100, 1), BATCH), loader(examples(23, 2), 7))

    obs = Observations.from_source(f"jsonl:{tmp_path / 'runs'}")
    assert obs.losses["step"].unique().tolist() == [3, 6]
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "manifest.json").read_text(encoding="utf-8"))["sweep"] == "pilot-3"


def test_switched_on_without_domains_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIMIX_AUTOLOG", "1")
    monkeypatch.delenv("BIMIX_MIXTURE", raising=False)
    with pytest.raises(RecorderError, match="set BIMIX_MIXTURE to a mixture file, or BIMIX_DOMAINS"):
        Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")


def test_it_works_under_lightning_s_other_name(tmp_path: Path) -> None:
    class Other(pytorch_lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Module("token_losses")

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.inner.training_step(batch, batch_idx)

        def configure_optimizers(self) -> Any:
            return self.inner.configure_optimizers()

    rows = Rows()
    trainer = pytorch_lightning.Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, log_every_n_steps=2,
        callbacks=[DomainLossCallback(DOMAINS, MIXTURE, rows)],  # type: ignore[list-item]  # of the other name
    )  # fmt: skip
    trainer.fit(Other(), loader(examples(100, 1), BATCH))

    expected = Rows()
    plain_loop(expected)
    assert rows[0] == pytest.approx(expected[0], rel=2e-5)


def test_beside_lightning_s_loggers_there_is_no_second_run_of_theirs(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    logger = MLFlowLogger("shared", tracking_uri=uri)
    fit(tmp_path, f"mlflow+{uri}#shared", logger=[logger, CSVLogger(tmp_path)])

    client = MlflowClient(uri)
    (run,) = client.search_runs([logger.experiment_id or ""])
    assert run.info.run_id == logger.run_id
    assert run.info.status == "FINISHED"
    assert "bimix_eval_loss/web" in run.data.metrics
    assert len(Observations.from_source(f"mlflow+{uri}#shared").mixtures) == 1


def _batches_without(entry: str) -> Iterator[Any]:
    for batch in loader(examples(100, 1), BATCH):
        yield {name: values for name, values in batch.items() if name != entry}


@pytest.mark.parametrize(
    ("entry", "shows", "said"),
    [
        ("domain_ids", "hooks", r"labels, and no 'domain_ids'.*DomainCollator"),
        ("domain_ids", "token_losses", r"labels, and no 'domain_ids'.*DomainCollator"),
    ],
)
def test_a_batch_without_domains_is_told_with_what_helps(tmp_path: Path, entry: str, shows: str, said: str) -> None:
    trainer = Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=[DomainLossCallback(DOMAINS, MIXTURE, None)],
    )  # fmt: skip
    with pytest.raises(RecorderError, match=said):
        trainer.fit(Module(shows), DataLoader(list(_batches_without(entry)), batch_size=None))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (torch.tensor([0, 9, 1, 0]), r"domain id 9 is outside 0\.\.2 .*after step 0, up to step 2"),
        (torch.tensor([0.0, 1.0, 1.0, 0.0]), "must be integers, got torch.float32"),
        (torch.tensor([0, 1]), r"must be \(batch,\) or \(batch, time\)"),
    ],
)
def test_ids_that_are_none_are_named(tmp_path: Path, ids: Tensor, said: str) -> None:
    bad = copy.deepcopy(next(iter(loader(examples(100, 1), BATCH)))) | {"domain_ids": ids}
    trainer = Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=[DomainLossCallback(DOMAINS, MIXTURE, None)],
        log_every_n_steps=2,
    )  # fmt: skip
    with pytest.raises(RecorderError, match=said):
        trainer.fit(Module("token_losses"), DataLoader([bad, bad], batch_size=None))  # type: ignore[arg-type]

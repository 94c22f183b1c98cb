"""One function a format: the text that a trainer's own parser reads. What stands above it is all that lists it."""

from __future__ import annotations

import csv
import io
import json
import math
import shlex
from collections.abc import Callable

from bimix_tracking.errors import MixtureError
from bimix_tracking.exports.request import Format, Request
from bimix_tracking.files.spreadsheet import defused
from bimix_tracking.files.yaml_json import dump_yaml

FORMATS: dict[str, Format] = {}
"""The formats of this package by name, in the order they are listed, which is that of this file."""
_Write = Callable[[Request], str]


def _format(name: str, file: str, about: str) -> Callable[[_Write], _Write]:
    """List the function below as a format; see `Format`."""

    def listed(write: _Write) -> _Write:
        FORMATS[name] = Format(file, about, write)
        return write

    return listed


_BY_SEQUENCE = (
    "the trainer draws sequences (or rows): these are proportions of tokens if all sequences have as many tokens, as "
    "packed ones do"
)
_BY_DOCUMENT = (
    "LLaMA-Factory draws documents and packs them after mixing. For proportions of tokens, divide each probability by "
    "its domain's mean tokens per document, and rescale to a sum of 1"
)


@_format(
    "megatron",
    "megatron.sh",
    "Megatron-LM --data-path, weights and prefixes (megatron/core/datasets/utils.py, get_blend_from_list)",
)
def megatron(of: Request) -> str:
    """Write a bash array for `--data-path` (NVIDIA/Megatron-LM, megatron/core/datasets/utils.py, get_blend_from_list).

    A weight of 0 would build an empty data set, so it is excluded. Read back with megatron-core 0.16.1.
    """
    for domain in of.used:
        if of.path(domain).startswith("-"):
            raise MixtureError(
                f"Megatron takes {of.path(domain)!r}, the path of domain {domain!r}, for an option: "
                "give a path that doesn't start with '-' with --path"
            )
    pairs = "".join(f"  {share!r} {shlex.quote(of.path(domain))}\n" for domain, share in of.used.items())
    return of.commented(
        f"DATA_PATH=(--data-path\n{pairs})\n",
        "weights count sequences of --seq-length tokens each, so they are proportions of tokens",
        'source this file in bash, then: pretrain_gpt.py "${DATA_PATH[@]}"',
    )


@_format("nemo", "nemo.yaml", "NeMo and Megatron-Bridge data_prefix list (Megatron's get_blend_from_list)")
def nemo(of: Request) -> str:
    """Write the list of weights and prefixes (NVIDIA/NeMo, collections/llm/gpt/data/pre_training.py, and its examples).

    NeMo hands it to Megatron's get_blend_from_list, which takes numbers as well as their text.
    """
    of.refuse_references("NeMo")
    prefix = [item for domain, share in of.used.items() for item in (share, of.path(domain))]
    return of.commented(
        dump_yaml({"data_prefix": prefix}),
        "weights and prefixes in turn, as Megatron's --data-path; weights count sequences of equal length",
        "it belongs under model.data; the list alone is `paths` of NeMo 2's PreTrainingDataModule and `data_paths` of "
        "Megatron-Bridge's recipes",
    )


@_format(
    "streaming",
    "streaming.yaml",
    "MosaicML Streaming streams, as llm-foundry reads them (streaming/base/stream.py)",
)
def streaming(of: Request) -> str:
    """Write `streams` (mosaicml/llm-foundry, data/text_data.py; mosaicml/streaming, streaming/base/stream.py).

    Each entry is what `Stream` takes by keyword. Run with mosaicml-streaming 0.13.0 over local shards.
    """
    of.refuse_references("llm-foundry")
    streams = {}
    for domain, share in of.used.items():
        # `remote` alone is copied into a temporary folder, which a second start finds and refuses.
        where = "remote" if "://" in of.path(domain) else "local"
        streams[domain] = {where: of.path(domain), "proportion": share}
    remote = any("remote" in stream for stream in streams.values())
    return of.commented(
        dump_yaml({"train_loader": {"dataset": {"streams": streams}}}),
        _BY_SEQUENCE,
        "proportions don't set the size of an epoch: set epoch_size, in samples, next to streams",
        *(["set `local`, a cache folder, for each `remote`: a restart refuses its temporary one"] if remote else []),
    )


@_format(
    "levanter",
    "levanter.yaml",
    "Levanter and Marin train_weights (levanter/data/text, LmDataConfig; data/mixture.py)",
)
def levanter(of: Request) -> str:
    """Write `train_weights` (marin-community/levanter, data/text, LmDataConfig, and data/mixture.py, MixtureDataset).

    Older releases want a weight for every data set, and all skip those of 0, so those of 0 stay.
    """
    return of.commented(
        dump_yaml({"data": {"train_weights": of.named()}}),
        "the names are those of the data components; weights count sequences of equal length",
        "a block of mixture_block_size sequences (default 2048) holds whole sequences only: raise it for weights below "
        "1/mixture_block_size",
        places=False,
        zeros=True,
    )


@_format("olmo-core", "olmo-core.yaml", "OLMo-core SourceMixtureList (olmo_core/data/source_mixture.py)")
def olmo_core(of: Request) -> str:
    """Write a `SourceMixtureList` (allenai/OLMo-core, src/olmo_core/data/source_mixture.py).

    A source of ratio 0 could be given the sequences that rounding leaves over, so it is excluded. Read and validated
    with ai2-olmo-core 3.0.0.
    """
    sources = [
        {"source_name": domain, "target_ratio": share, "paths": [of.path(domain)]} for domain, share in of.used.items()
    ]
    asked = "" if of.tokens is None else f"; requested_tokens={math.ceil(of.tokens)}"
    return of.commented(
        dump_yaml({"sources": sources}),
        f"read by SourceMixtureList.from_yaml, for a SourceMixtureDatasetConfig{asked}; ratios are of tokens",
        "max_repetition_ratio is 1 unless set: raise it where a source has fewer tokens than its part of the run",
    )


@_format(
    "torchtitan",
    "torchtitan.py",
    "weights for torchtitan DatasetMixConfig (torchtitan/components/data/dataset.py)",
)
def torchtitan(of: Request) -> str:
    """Write names, data sets and weights (pytorch/torchtitan, torchtitan/components/data/dataset.py, DatasetMixConfig).

    torchtitan is configured in Python, and weights of 0 are refused there. The file imports nothing of it.
    """
    lines = "".join(f"    ({domain!r}, {of.path(domain)!r}, {share!r}),\n" for domain, share in of.used.items())
    return of.commented(
        f"MIXTURE = [  # domain, data set, weight\n{lines}]\n",
        "weights count what is mixed: rows of equal length, and so tokens, if each data set is packed before",
        "with rows = {domain: ConcatThenSplitPackingConfig(dataset=…), …}: DatasetMixConfig(datasets=tuple("
        "WeightedDataset(dataset=rows[domain], weight=weight) for domain, _, weight in MIXTURE))",
    )


@_format("llamafactory", "llamafactory.yaml", "LLaMA-Factory dataset and interleave_probs (hparams/data_args.py)")
def llamafactory(of: Request) -> str:
    """Write `dataset` and `interleave_probs` (hiyouga/LLaMA-Factory, src/llamafactory/hparams/data_args.py).

    interleave_over waits until every data set is exhausted, so a probability of 0 is excluded. Read back with
    llamafactory 0.9.5.
    """
    of.refuse_references("LLaMA-Factory")
    names = [of.path(domain) for domain in of.used]
    for domain, name in zip(of.used, names, strict=True):
        if "," in name:
            raise MixtureError(
                f"LLaMA-Factory separates dataset names by commas, so domain {domain!r} cannot be called {name!r} "
                "there: give it a dataset name with --path"
            )
    body = {
        "dataset": ",".join(names),
        "mix_strategy": "interleave_over",
        "interleave_probs": ",".join(repr(share) for share in of.used.values()),
    }
    return of.commented(dump_yaml(body), _BY_DOCUMENT)


@_format("hf", "hf.json", "arguments of Hugging Face datasets.interleave_datasets")
def hf(of: Request) -> str:
    """Write arguments of `interleave_datasets` (huggingface/datasets), which refuses a 0 under `all_exhausted`.

    Its draw wants probabilities that sum to 1 within 1.5e-8.
    """
    return _json(
        {
            "domains": list(of.used),
            "paths": [of.path(domain) for domain in of.used],
            "probabilities": list(of.used.values()),
            "notes": of.said(_BY_SEQUENCE),
        }
    )


@_format("doremi", "doremi.json", "DoReMi configs/*.json domain weights (doremi/train.py)")
def doremi(of: Request) -> str:
    """Write a `configs/*.json` (sangmichaelxie/doremi, doremi/train.py), whose other keys nothing reads.

    An evaluation there ends when every domain's data have: never with a weight of 0, and late with a small one, so it
    has equal parts.
    """
    names = of.named()
    notes = of.said(
        "names are folders of --dataset_dir; DoReMi sorts them", "evaluated in equal parts", places=False, zeros=True
    )
    return _json(
        {
            "train_domain_weights": names,
            "eval_domain_weights": dict.fromkeys(names, 1 / len(names)),
            "notes": notes,
        }
    )


@_format("yaml", "mixture.yaml", "the mixture alone; Mixture.from_yaml reads it back")
def plain_yaml(of: Request) -> str:
    """Write what `Mixture.from_yaml` reads."""
    content: dict[str, object] = {"mixture": dict(of.mixture)}
    if of.paths:
        content["paths"] = dict(of.paths)
    return of.commented(dump_yaml(content), places=False, zeros=True)


@_format("json", "mixture.json", "the mixture alone")
def plain_json(of: Request) -> str:
    """Write the mixture, its order, and where the data are if that was said."""
    content: dict[str, object] = {"domains": list(of.mixture), "mixture": dict(of.mixture)}
    if of.paths:
        content["paths"] = dict(of.paths)
    return _json(content | {"notes": of.said(places=False, zeros=True)})


@_format("csv", "mixture.csv", "the mixture alone, one row a domain, in its order")
def plain_csv(of: Request) -> str:
    """Write one row a domain."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["domain", "proportion", "path"] if of.paths else ["domain", "proportion"])
    for domain, share in of.mixture.items():
        named, path = defused(domain), [defused(of.paths.get(domain, ""))] if of.paths else []
        rows.writerow([named, repr(share), *path])
    return text.getvalue()


def _json(content: object) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

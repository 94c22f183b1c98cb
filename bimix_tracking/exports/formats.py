"""A mixture in the form that each trainer reads, with the domain order it has written in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bimix_tracking.errors import MixtureError
from bimix_tracking.exports import trainers
from bimix_tracking.exports.request import Request, checked
from bimix_tracking.mixture import Mixture


@dataclass(frozen=True)
class Format:
    """One way to write a mixture.

    Args:
        file: What the file is called.
        about: What reads it, and where its schema is from.
        write: Writes it.
    """

    file: str
    about: str
    write: Callable[[Request], str]


FORMATS: Mapping[str, Format] = {
    "megatron": Format(
        "megatron.sh",
        "Megatron-LM --data-path, weights and prefixes (megatron/core/datasets/utils.py, get_blend_from_list)",
        trainers.megatron,
    ),
    "nemo": Format(
        "nemo.yaml", "NeMo and Megatron-Bridge data_prefix list (Megatron's get_blend_from_list)", trainers.nemo
    ),
    "streaming": Format(
        "streaming.yaml",
        "MosaicML Streaming streams, as llm-foundry reads them (streaming/base/stream.py)",
        trainers.streaming,
    ),
    "levanter": Format(
        "levanter.yaml",
        "Levanter and Marin train_weights (levanter/data/text, LmDataConfig; data/mixture.py)",
        trainers.levanter,
    ),
    "olmo-core": Format(
        "olmo-core.yaml", "OLMo-core SourceMixtureList (olmo_core/data/source_mixture.py)", trainers.olmo_core
    ),
    "torchtitan": Format(
        "torchtitan.py",
        "weights for torchtitan DatasetMixConfig (torchtitan/components/data/dataset.py)",
        trainers.torchtitan,
    ),
    "llamafactory": Format(
        "llamafactory.yaml", "LLaMA-Factory dataset and interleave_probs (hparams/data_args.py)", trainers.llamafactory
    ),
    "hf": Format("hf.json", "arguments of Hugging Face datasets.interleave_datasets", trainers.hf),
    "doremi": Format("doremi.json", "DoReMi configs/*.json domain weights (doremi/train.py)", trainers.doremi),
    "yaml": Format("mixture.yaml", "the mixture alone; Mixture.from_yaml reads it back", trainers.plain_yaml),
    "json": Format("mixture.json", "the mixture alone", trainers.plain_json),
    "csv": Format("mixture.csv", "the mixture alone, one row a domain, in its order", trainers.plain_csv),
}
"""By name, in the order they are listed."""


def export(
    mixture: Mixture,
    fmt: str,
    *,
    paths: Mapping[str, str] | None = None,
    tokens: float | None = None,
    provenance: str | None = None,
) -> str:
    """Return a mixture as the text that a trainer reads.

    Proportions are printed to the last digit. A domain with proportion 0 is left out where the trainer refuses a
    weight of 0 (or would wait for its data for ever), and the file says so.

    Args:
        mixture: The mixture.
        fmt: A name of `FORMATS`.
        paths: Where a domain's data are: a path, prefix or data-set name, as the trainer wants it. A domain that isn't
            named stands with its own name.
        tokens: Training tokens the mixture is for; only said.
        provenance: One line on where the mixture is from.

    Returns:
        The file's text. It says its domain order (CSV: the order of its rows).

    Raises:
        MixtureError: No such format, a path of an unknown domain or of two, or a name that the format cannot hold.

    >>> print(export(Mixture({"code": 0.25, "web/en": 0.75}), "megatron", paths={"code": "/data/the code"}), end="")
    # domain order: ["code", "web/en"]
    # a domain's name stands where its data's path belongs, unless --path said it
    # weights count sequences of --seq-length tokens each, so they are proportions of tokens
    # source this file in bash, then: pretrain_gpt.py "${DATA_PATH[@]}"
    DATA_PATH=(--data-path
      0.25 '/data/the code'
      0.75 web/en
    )
    """
    if fmt not in FORMATS:
        raise MixtureError(f"no format {fmt!r}; there are {', '.join(FORMATS)}")
    return FORMATS[fmt].write(checked(mixture, paths, tokens, provenance))


def write_exports(
    mixture: Mixture,
    folder: str | Path,
    *,
    paths: Mapping[str, str] | None = None,
    tokens: float | None = None,
    provenance: str | None = None,
) -> list[Path]:
    """Write a mixture in every format that can hold it; return the files.

    A format whose trainer cannot have one of the names is left out; `export` says why.

    Args:
        mixture: The mixture.
        folder: Where to; a file of the same name there is replaced.
        paths: As in `export`.
        tokens: As in `export`.
        provenance: As in `export`.

    Returns:
        The files written, in the order of `FORMATS`.

    Raises:
        MixtureError: A path of an unknown domain or of two.

    >>> from tempfile import mkdtemp
    >>> [file.name for file in write_exports(Mixture({"a, b": 1.0}), mkdtemp())][-4:]
    ['doremi.json', 'mixture.yaml', 'mixture.json', 'mixture.csv']
    """
    request = checked(mixture, paths, tokens, provenance)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for form in FORMATS.values():
        try:
            text = form.write(request)
        except MixtureError:
            continue  # a name this trainer cannot have is no reason to lose the others
        (target / form.file).write_text(text, encoding="utf-8")
        written.append(target / form.file)
    return written

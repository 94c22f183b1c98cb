"""A mixture in the form that each trainer reads, with the domain order it has written in it."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from bimix_tracking.errors import MixtureError
from bimix_tracking.mixture import Mixture

_BY_SEQUENCE = (
    "the trainer draws sequences (or rows), not tokens: the proportions of tokens are these if all domains' sequences "
    "have as many tokens, as packed ones do"
)


@dataclass(frozen=True)
class _Request:
    """What a format is written from: proportions above 0, unless a format keeps all."""

    mixture: Mixture
    paths: Mapping[str, str]
    provenance: str | None

    @property
    def used(self) -> dict[str, float]:
        """The domains with a proportion above 0."""
        return {domain: share for domain, share in self.mixture.items() if share > 0}

    def path(self, domain: str) -> str:
        """Return where a domain's data are; its name where that wasn't said."""
        return self.paths.get(domain, domain)

    def said(self, note: str = "", *, places: bool = True) -> list[str]:
        """Return what a file says of itself: order, left-out domains, placeholders, provenance."""
        lines = [f"domain order: {json.dumps(list(self.used), ensure_ascii=False)}"]
        left_out = [domain for domain in self.mixture if domain not in self.used]
        if left_out:
            lines.append(f"left out, for their proportion is 0: {json.dumps(left_out, ensure_ascii=False)}")
        if places and any(domain not in self.paths for domain in self.used):
            lines.append("a domain's name stands where its data's path belongs, unless --path said it")
        return [*lines, *([note] if note else []), *([f"from {self.provenance}"] if self.provenance else [])]

    def commented(self, body: str, note: str = "", *, places: bool = True) -> str:
        """Return a text with these lines above it as comments."""
        lines = [" ".join(line.split()) for line in self.said(note, places=places)]
        return "".join(f"# {line}\n" for line in lines) + body


def _megatron(of: _Request) -> str:
    pairs = "".join(f"  {share!r} {shlex.quote(of.path(domain))}\n" for domain, share in of.used.items())
    return of.commented(
        f"DATA_PATH=(--data-path\n{pairs})\n", 'source this file, then: pretrain_gpt.py "${DATA_PATH[@]}"'
    )


def _nemo(of: _Request) -> str:
    prefix = [item for domain, share in of.used.items() for item in (share, of.path(domain))]
    return of.commented(_yaml({"data_prefix": prefix}), "weights and prefixes in turn, as Megatron's --data-path")


def _streaming(of: _Request) -> str:
    streams = {domain: {"remote": of.path(domain), "proportion": share} for domain, share in of.used.items()}
    return of.commented(_yaml({"train_loader": {"dataset": {"streams": streams}}}), _BY_SEQUENCE)


def _levanter(of: _Request) -> str:
    weights = {"train_weights": dict(of.mixture)}
    return of.commented(_yaml({"data": weights}), "the names are those of the data components", places=False)


def _olmo_core(of: _Request) -> str:
    sources = [
        {"source_name": domain, "target_ratio": share, "paths": [of.path(domain)]} for domain, share in of.used.items()
    ]
    note = "max_repetition_ratio is 1 unless set: raise it where a source has fewer tokens than its part of the run"
    return of.commented(_yaml({"sources": sources}), note)


def _torchtitan(of: _Request) -> str:
    lines = "".join(
        f"        HFDataSource(dataset={of.path(domain)!r}, weight={share!r}, infinite=True),\n"
        for domain, share in of.used.items()
    )
    body = (
        "from torchtitan.hf_datasets.text_datasets import HFDataSource, InterleavedHuggingFaceTextDataLoader\n\n"
        f"dataloader = InterleavedHuggingFaceTextDataLoader.Config(\n    sources=[\n{lines}    ],\n)\n"
    )
    return of.commented(body, _BY_SEQUENCE)


def _llamafactory(of: _Request) -> str:
    names = [of.path(domain) for domain in of.used]
    for domain, name in zip(of.used, names, strict=True):
        if "," in name or name != name.strip():
            raise MixtureError(
                f"LLaMA-Factory separates dataset names by commas, so domain {domain!r} cannot be called {name!r} "
                "there: give it a dataset name with --path"
            )
    body = {
        "dataset": ",".join(names),
        "mix_strategy": "interleave_over",
        "interleave_probs": ",".join(repr(share) for share in of.used.values()),
    }
    return of.commented(_yaml(body), _BY_SEQUENCE)


def _hf(of: _Request) -> str:
    return _json(
        {
            "domains": list(of.used),
            "paths": [of.path(domain) for domain in of.used],
            "probabilities": list(of.used.values()),
            "notes": of.said(_BY_SEQUENCE),
        }
    )


def _doremi(of: _Request) -> str:
    weights = dict(of.mixture)
    return _json({"train_domain_weights": weights, "eval_domain_weights": weights})


def _plain_yaml(of: _Request) -> str:
    return of.commented(_yaml({"mixture": dict(of.mixture)}), places=False)


def _plain_json(of: _Request) -> str:
    return _json({"domains": list(of.mixture), "mixture": dict(of.mixture)})


def _plain_csv(of: _Request) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["domain", "proportion"])
    rows.writerows([domain, repr(share)] for domain, share in of.mixture.items())
    return text.getvalue()


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
    write: Callable[[_Request], str]


FORMATS: Mapping[str, Format] = {
    "megatron": Format(
        "megatron.sh", "Megatron-LM --data-path, weights and prefixes (megatron/training/utils)", _megatron
    ),
    "nemo": Format("nemo.yaml", "NeMo and Megatron-Bridge data_prefix list (Megatron's get_blend_from_list)", _nemo),
    "streaming": Format(
        "streaming.yaml", "MosaicML Streaming streams, as llm-foundry reads them (streaming/base/stream.py)", _streaming
    ),
    "levanter": Format("levanter.yaml", "Levanter and Marin train_weights (levanter data/text)", _levanter),
    "olmo-core": Format("olmo-core.yaml", "OLMo-core SourceMixtureList (olmo_core/data/source_mixture.py)", _olmo_core),
    "torchtitan": Format(
        "torchtitan.py", "torchtitan interleaved text data loader (docs/datasets.md, pull request 3063)", _torchtitan
    ),
    "llamafactory": Format(
        "llamafactory.yaml", "LLaMA-Factory dataset and interleave_probs (hparams/data_args.py)", _llamafactory
    ),
    "hf": Format("hf.json", "arguments of Hugging Face datasets.interleave_datasets", _hf),
    "doremi": Format("doremi.json", "DoReMi configs/*.json domain weights (README)", _doremi),
    "yaml": Format("mixture.yaml", "the mixture alone; Mixture.from_yaml reads it back", _plain_yaml),
    "json": Format("mixture.json", "the mixture alone", _plain_json),
    "csv": Format("mixture.csv", "the mixture alone, one row a domain", _plain_csv),
}
"""By name, in the order they are listed."""


def export(
    mixture: Mixture,
    fmt: str,
    *,
    paths: Mapping[str, str] | None = None,
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
        provenance: One line on where the mixture is from.

    Raises:
        MixtureError: No such format, a path of an unknown domain, or a name that the format cannot hold.

    >>> print(export(Mixture({"code": 0.25, "web/en": 0.75}), "megatron", paths={"code": "/data/the code"}), end="")
    # domain order: ["code", "web/en"]
    # a domain's name stands where its data's path belongs, unless --path said it
    # source this file, then: pretrain_gpt.py "${DATA_PATH[@]}"
    DATA_PATH=(--data-path
      0.25 '/data/the code'
      0.75 web/en
    )
    """
    if fmt not in FORMATS:
        raise MixtureError(f"no format {fmt!r}; there are {', '.join(FORMATS)}")
    unknown = [domain for domain in paths or {} if domain not in mixture]
    if unknown:
        raise MixtureError(f"paths of unknown domains {unknown}; the domains are {list(mixture)}")
    return FORMATS[fmt].write(_Request(mixture, paths or {}, provenance))


def write_exports(
    mixture: Mixture, folder: str | Path, *, paths: Mapping[str, str] | None = None, provenance: str | None = None
) -> list[Path]:
    """Write a mixture in every format that can hold it; return the files.

    Args:
        mixture: The mixture.
        folder: Where to.
        paths: As in `export`.
        provenance: As in `export`.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for name, form in FORMATS.items():
        try:
            text = export(mixture, name, paths=paths, provenance=provenance)
        except MixtureError:
            continue  # a name this trainer cannot have is no reason to lose the others
        (target / form.file).write_text(text, encoding="utf-8")
        written.append(target / form.file)
    return written


def _yaml(content: object) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _json(content: object) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

"""`bimix entropy`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from bimix_tracking.cli.console import Cells, answer, print_in_tables, progress_shown, say, speak, translated
from bimix_tracking.cli.entries import one_of, tokens_by_domain
from bimix_tracking.cli.question import Lang, known_lang
from bimix_tracking.cli.teaching import AIM, METHOD, OUTPUT, READING, among, trackers
from bimix_tracking.cli.teaching import corpora as corpora_formats
from bimix_tracking.credentials import without_credentials
from bimix_tracking.errors import listed
from bimix_tracking.messages import joined, said
from bimix_tracking.quantities import percent

if TYPE_CHECKING:
    from bimix_tracking.entropy.comparison import Comparison
    from bimix_tracking.entropy.measuring import Engine


def entropy(
    corpora: Annotated[
        list[str],
        typer.Argument(
            metavar="CORPUS…",
            help="A file or folder a domain, as DOMAIN=PATH, or PATH: then the domain is its name without suffixes. "
            "A domain given again gets more files.",
        ),
    ],
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="bytes, a tokenizer.json, or tokenizers:FILE, transformers:FOLDER; bytes if not given. "
            "Of token ids: the tokenizer they are of, to check them against its vocabulary.",
            rich_help_panel=READING,
        ),
    ] = None,
    vocabulary: Annotated[
        int | None,
        typer.Option(min=1, help="Of token ids without a tokenizer: how many there are.", rich_help_panel=READING),
    ] = None,
    embedder: Annotated[
        str,
        typer.Option(
            help="For von Neumann entropy: hashing (of character strings, no download), model2vec:FOLDER, "
            "sentence-transformers:FOLDER, fasttext:FILE, transformers:FOLDER (hidden states); none for none.",
            rich_help_panel=METHOD,
        ),
    ] = "hashing",
    embed_all: Annotated[
        bool,
        typer.Option(
            "--embed-all", help="Embed every passage of 2,000 characters, not a sample.", rich_help_panel=METHOD
        ),
    ] = False,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="text, jsonl, parquet, datasets, megatron or tokens, where file names don't show it.",
            autocompletion=corpora_formats,
            rich_help_panel=READING,
        ),
    ] = None,
    text_field: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[DOMAIN=]FIELD",
            help="Field or column that holds the text, or the token ids; `text` if not given. `data.text` is that of "
            "an object or struct. With DOMAIN=, of that domain alone. Repeatable.",
            rich_help_panel=READING,
        ),
    ] = None,
    encoding: Annotated[str, typer.Option(help="Of text and JSONL files.", rich_help_panel=READING)] = "utf-8",
    token_dtype: Annotated[
        str | None,
        typer.Option(
            help="Of raw token ids in .bin files, such as uint16; .npy and Megatron files say it.",
            rich_help_panel=READING,
        ),
    ] = None,
    sequence_length: Annotated[
        int,
        typer.Option(
            min=0,
            help="Tokens of the sequences that documents are packed into; 0: pairs don't cross documents.",
            rich_help_panel=READING,
        ),
    ] = 1024,
    compare: Annotated[
        str,
        typer.Option(
            help="equal: by samples of equally many tokens, corrected for their size. all: by all, as in the paper.",
            autocompletion=among("equal", "all"),
            rich_help_panel=AIM,
        ),
    ] = "equal",
    estimator: Annotated[
        str | None,
        typer.Option(
            help="plug-in, miller-madow, chao-shen or grassberger; by default grassberger for equal, plug-in for all.",
            autocompletion=among("plug-in", "miller-madow", "chao-shen", "grassberger"),
            rich_help_panel=AIM,
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="Of the mixtures: above 1 flatter, below 1 sharper.", rich_help_panel=AIM)
    ] = 1.0,
    available: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DOMAIN=TOKENS",
            help="Weigh a domain's exp(H) by the tokens it has. Repeatable.",
            rich_help_panel=AIM,
        ),
    ] = None,
    by_size: Annotated[
        bool, typer.Option("--by-size", help="Weigh each by the tokens counted here.", rich_help_panel=AIM)
    ] = False,
    sample_tokens: Annotated[
        int,
        typer.Option(min=1, help="Most tokens of a domain that domains are compared by.", rich_help_panel=METHOD),
    ] = 1 << 22,
    sample_passages: Annotated[
        int,
        typer.Option(min=2, help="Most passages of a domain that are embedded and compared.", rich_help_panel=METHOD),
    ] = 1 << 13,
    memory: Annotated[
        float,
        typer.Option(
            min=0.01, help="GB that counts may take in memory; more go to temporary files.", rich_help_panel=METHOD
        ),
    ] = 1.0,
    workers: Annotated[int, typer.Option(min=1, help="Threads.", rich_help_panel=METHOD)] = 1,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Count on a Ray cluster: its address, or `local`. Files must be where its workers see them.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad",
            help="Exclude documents that can't be read; they are counted and named.",
            rich_help_panel=READING,
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples.", rich_help_panel=METHOD)] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write entropy.json, entropy.csv, entropy.html and mixtures/PROXY.yaml into this folder.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    tracker: Annotated[
        str | None,
        typer.Option(
            help="Log all of it there as a run of its own, such as mlflow:my-sweep.",
            autocompletion=trackers,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    lang: Lang = "en",
) -> None:
    r"""Measure the entropy of domains' text: mixtures without training.

    \b
    Examples:
      bimix entropy code=data/code web=data/web.jsonl.zst \
        --tokenizer tokenizer.json --out entropy
      # token ids, on four threads
      bimix entropy code=code.npy web=web.npy --vocabulary 50257 --workers 4
      # then run one of the mixtures in a pilot
      bimix plan code web --candidate entropy/mixtures/conditional.yaml
    """
    paths = _paths(corpora)
    field, fields = _fields(text_field or [], list(paths))
    weights = tokens_by_domain(available)
    if weights and by_size:
        raise typer.BadParameter("--available and --by-size both weigh: give one", param_hint="--by-size")
    _sensible(compare, estimator, temperature)
    for name in weights or ():
        one_of(name, paths, "--available", "domain")
    lacking = [name for name in paths if weights and name not in weights]
    if lacking:
        raise typer.BadParameter(f"needs the tokens of {listed(lacking)} too", param_hint="--available")
    speak(known_lang(lang))
    from bimix_tracking.entropy.corpora.documents import Reading  # noqa: PLC0415  # --help must not wait for NumPy
    from bimix_tracking.entropy.domain_counts import EntropySettings  # noqa: PLC0415  # likewise
    from bimix_tracking.entropy.measuring import corpus_entropies  # noqa: PLC0415  # likewise

    settings = EntropySettings(
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        embedder=None if embedder == "none" else embedder,
        embed_all=embed_all,
        sequence_length=sequence_length,
        sample_tokens=sample_tokens,
        sample_passages=sample_passages,
        seed=seed,
        memory=int(memory * 1e9),
        reading=Reading(field, encoding, token_dtype, skip_bad=skip_bad, text_fields=fields),
    )
    with progress_shown() as progress:
        found = corpus_entropies(paths, settings, format=format_, engine=_engine(ray, workers), progress=progress)
    counted = {name: float(domain.tokens) for name, domain in found.domains.items()}
    how: dict[str, Any] = {
        "compare": compare,
        "estimator": estimator,
        "temperature": temperature,
        "available_tokens": counted if by_size else weights,
    }
    print_entropies(found.compared(**how))
    if out is not None:
        found.save(out, lang=lang, **how)
        say(f"\nArtifacts: {out} (entropy.html, entropy.json, entropy.csv, mixtures/)", whole=True)
    run = None
    if tracker is not None:
        from bimix_tracking.entropy.log import log_entropies  # noqa: PLC0415  # likewise

        run = log_entropies(found, tracker, lang=lang, **how)
        say(f"Logged to {without_credentials(tracker)}, run {run}", whole=True)
    answer(found.to_dict(**how) | {"artifacts": out, "run": run})


def _sensible(compare: str, estimator: str | None, temperature: float) -> None:
    """Refuse now what would be refused when all is counted, which may be hours later."""
    from bimix_tracking.entropy.domain_entropies import Compared  # noqa: PLC0415  # --help must not wait for NumPy
    from bimix_tracking.entropy.estimators import ESTIMATORS  # noqa: PLC0415  # likewise

    one_of(compare, get_args(Compared), "--compare", "comparison")
    if estimator is not None:
        one_of(estimator, ESTIMATORS, "--estimator", "estimator")
    if not (math.isfinite(temperature) and temperature > 0):
        raise typer.BadParameter(f"the temperature must be positive, got {temperature:g}", param_hint="--temperature")


def _paths(corpora: list[str]) -> dict[str, list[str]]:
    """Return the files of each domain; a path may hold `=` too, if it is there."""
    found: dict[str, list[str]] = {}
    for corpus in corpora:
        name, equals, path = corpus.partition("=")
        if not equals or Path(corpus).exists():
            name, path = Path(corpus).name.partition(".")[0] or Path(corpus).resolve().name, corpus
        found.setdefault(name, []).append(path)
    if len(found) < 2:
        raise typer.BadParameter("name the text of at least two domains", param_hint="CORPUS")
    return found


def _fields(given: list[str], domains: list[str]) -> tuple[str, dict[str, str]]:
    """Return the field of all domains, and those of single ones; a field's name may hold `=` where a domain has it."""
    everywhere: list[str] = []
    of_domains: dict[str, str] = {}
    for text in given:
        domain = max((name for name in domains if text.startswith(f"{name}=")), key=len, default=None)
        field = text if domain is None else text.removeprefix(f"{domain}=")
        if domain is None and "=" in field:
            raise typer.BadParameter(
                f"{field.partition('=')[0]!r} is no domain here: {', '.join(map(repr, domains))}. A field whose name "
                "holds = is given for each domain, as DOMAIN=FIELD",
                param_hint="--text-field",
            )
        if not field or (domain in of_domains if domain is not None else everywhere):
            whose = "all domains" if domain is None else f"domain {domain!r}"
            raise typer.BadParameter(f"give one text field for {whose}, got {text!r}", param_hint="--text-field")
        if domain is None:
            everywhere.append(field)
        else:
            of_domains[domain] = field
    return (everywhere or ["text"])[0], of_domains


def _engine(ray: str | None, workers: int) -> Engine:
    from bimix_tracking.entropy.measuring import Threads  # noqa: PLC0415  # --help must not wait for NumPy
    from bimix_tracking.errors import CorpusError  # noqa: PLC0415  # only here
    from bimix_tracking.plugins import named  # noqa: PLC0415  # likewise

    if ray is None:
        return Threads(workers)
    engine: Engine = named("engine", "ray", CorpusError)(ray)
    return engine


def print_entropies(one: Comparison) -> None:
    """Print tables of entropies and proportions, what they are of, and warnings."""
    from bimix_tracking.display.texts import isolated, printable  # noqa: PLC0415  # likewise
    from bimix_tracking.entropy.checks import warnings_of  # noqa: PLC0415  # --help must not wait for SciPy
    from bimix_tracking.entropy.page import NAMES  # noqa: PLC0415  # likewise

    found, mixtures = one.found, one.mixtures()
    if one.sampled("shannon"):
        say(said("Entropy in nats ± standard error, and the proportion by it"))
    else:
        say(said("Entropy in nats of all tokens, and the proportion by it"))
    first: Sequence[Cells] = [
        ((said("domain"), "left"), [isolated(printable(name)) for name in found.domains]),
        ((said("all tokens"), "right"), [f"{domain.tokens:,}" for domain in found.domains.values()]),
    ]
    proxies = []
    for proxy in found.proxies:
        entropies, errors, mixture = one.entropies(proxy), one.errors(proxy), mixtures[proxy]
        cells = [f"{entropies[n]:.3f}{'' if math.isnan(errors[n]) else f' ±{errors[n]:.3f}'}" for n in found.domains]
        columns: Sequence[Cells] = [
            ((NAMES[proxy], "right"), cells),
            ((said("proportion"), "right"), [percent(mixture[name]) for name in found.domains]),
        ]
        proxies.append(columns)
    print_in_tables(first, proxies)
    say(one.sample())
    for text in warnings_of(one):
        typer.echo(translated(joined([said("Warning:"), text])), err=True)

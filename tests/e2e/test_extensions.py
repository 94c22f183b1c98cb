"""What another package adds, installed and then used as ours is: a law, an export, a language, a tracker, a trainer.

`extension` beside this file is that package; `docs/how-to/extend.md` tells how it came about.
"""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from bimix_tracking import (
    DomainLossRecorder,
    Mixture,
    Observations,
    analyze,
    export,
    fit_law,
    open_tracker,
    plan_pilot,
    select_law,
    write_exports,
)
from bimix_tracking.analysis.result import Analysis
from bimix_tracking.cli import app
from bimix_tracking.cli.teaching import filled, languages, laws, sources, trackers, trainers
from bimix_tracking.data import metric_names
from bimix_tracking.errors import MixtureError, PluginError
from bimix_tracking.exports import all_formats
from bimix_tracking.laws import check_law, law, names
from bimix_tracking.recording.sums import DomainSums
from bimix_tracking.report import language
from tests.e2e.test_report_page import Opened, browser  # noqa: F401  # the fixture

DOMAINS = ("code", "web", "math")
CACHED: Sequence[Any] = (names, law, all_formats, language.languages, language.catalogue)


@pytest.fixture(scope="module", autouse=True)
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Install the package into a folder of its own, and have Python look there as long as these tests run."""
    folder = tmp_path_factory.mktemp("extension")
    source = shutil.copytree(Path(__file__).with_name("extension"), folder / "source")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    command += ["--disable-pip-version-check", "--target", str(folder / "site"), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    sys.path.insert(0, str(folder / "site"))
    for found in CACHED:
        found.cache_clear()
    yield folder / "site"
    sys.path.remove(str(folder / "site"))
    for found in CACHED:
        found.cache_clear()
    for module in [module for module in sys.modules if module.partition(".")[0] == "bimix_extension"]:
        del sys.modules[module]


def sweep(runs: int = 10, seed: int = 3) -> Observations:
    """Return losses of which the terms of the proportion and of the tokens add."""
    draw = np.random.default_rng(seed)
    shares = draw.dirichlet(np.full(3, 2.0), size=runs)
    volumes = np.geomspace(1e8, 1e10, 7).round()
    rows = []
    for run, mixture in enumerate(shares):
        for volume in volumes:
            fall = np.array([400.0, 300.0, 500.0]) * volume**-0.35
            losses = (
                np.array([1.2, 2.0, 1.5]) + np.array([0.5, 0.6, 0.4]) * mixture ** -np.array([0.4, 0.3, 0.5]) + fall
            )
            losses *= 1 + 1e-3 * draw.standard_normal(3)
            rows.append({"run": f"run-{run}", "tokens": volume, **dict(zip(DOMAINS, mixture, strict=True))})
            rows[-1] |= {f"l {d}": loss for d, loss in zip(DOMAINS, losses, strict=True)}
    return Observations.from_wide(
        pd.DataFrame(rows), proportions=DOMAINS, losses={d: f"l {d}" for d in DOMAINS}, tokens="tokens", run="run"
    )


@pytest.fixture(scope="module")
def obs() -> Observations:
    return sweep()


@pytest.fixture(scope="module")
def found(obs: Observations) -> Analysis:
    return analyze(obs, tokens=3e10, law="separable", lang="fr", replicates=100)


def bimix(*words: str) -> Any:
    return CliRunner().invoke(app, [*words])


def test_a_law_competes_and_is_stacked_without_being_asked_for(obs: Observations) -> None:
    chosen = select_law(obs)

    assert {"separable", "unscripted"} <= set(chosen.validations)
    assert {"separable", "bimix"} <= set(chosen.fits["ensemble"].members)
    errors = chosen.scores.set_index("law")["error"]
    assert errors["separable"] == min(errors[["bimix", "transfer", "additive", "exponential", "separable"]])
    assert sum(fit.parameters["separable"] for fit in chosen.fits["ensemble"].targets.values()) > 0
    # A law that cannot be used is no crash of every analysis: it is left out, and the report says what to do.
    assert "broken" not in chosen.fits
    assert chosen.excluded["broken"] == (
        "law 'broken' of package bimix-extension cannot be used: ModuleNotFoundError: No module named "
        "'bimix_extension.gone'. Update the package, or remove it: pip uninstall bimix-extension"
    )


def test_a_law_is_fitted_recommended_from_and_planned_for_by_its_name(obs: Observations, found: Analysis) -> None:
    fitted = found.fit.targets["code"].parameters
    assert fitted["alpha"] == pytest.approx(0.4, rel=0.25)
    assert fitted["beta"] == pytest.approx(0.35, rel=0.1)
    assert found.recommendation.gain > 0

    planned = plan_pilot(["code", "web"], runs=6, tokens=1e9, laws=("separable",)).identifiable()
    assert planned.laws.loc["separable", "enough"]
    assert "broken" not in planned.laws.index
    check_law(law("separable"))
    with pytest.raises(PluginError, match=r"'broken' of package bimix-extension .* pip uninstall bimix-extension"):
        fit_law(obs, "broken")
    with pytest.raises(ValueError, match=r"choose from 'bimix', .*'broken', 'separable', 'unscripted', 'ensemble'"):
        law("nothing")


def test_help_completion_and_errors_list_what_is_there(tmp_path: Path) -> None:
    said = " ".join(bimix("analyze", "--help").output.split())
    assert "bimix, transfer, additive, exponential, broken, separable, unscripted or ensemble." in said
    assert "Language of the answer and the reports: en, ja, de or fr." in said
    assert filled("{laws}").endswith("separable, unscripted or ensemble")
    assert laws("sep") == ["separable"]
    assert languages("f") == ["fr"]
    assert trainers("ling") == [("lingua", "Meta Lingua data.sources")]
    assert sources("mem") == trackers("mem") == ["memory:"]

    (tmp_path / "mixture.yaml").write_text(export(Mixture({"code": 0.25, "web": 0.75}), "yaml"))
    listed = bimix("export", str(tmp_path / "mixture.yaml"), "--format", "list").output
    assert "lingua        Meta Lingua data.sources (lingua/data.py, DataArgs)" in listed
    assert "sloppy        export 'sloppy' of package bimix-extension cannot be used: TypeError: it is a dict" in listed
    for words, expected in (
        (("export", str(tmp_path / "mixture.yaml"), "--format", "no"), "'csv', 'lingua', 'sloppy'"),
        (("analyze", "memory:x", "--tokens", "1e9", "--lang", "no"), "'en', 'ja', 'de', 'fr'"),
        (("analyze", "memory:x", "--tokens", "1e9", "--law", "no"), "'separable', 'unscripted', 'ensemble'"),
    ):
        refused = bimix(*words)
        assert refused.exit_code == 2
        assert expected in " ".join(refused.output.replace("│", " ").split())


def test_an_export_is_written_on_request_and_with_each_analysis_and_is_cleaned(found: Analysis, tmp_path: Path) -> None:
    mixture = Mixture({"code": 0.25, "web": 0.75})
    text = export(mixture, "lingua", paths={"code": "the_code"})
    assert text.endswith("data:\n  sources:\n    the_code: 0.25\n    web: 0.75\n")
    (tmp_path / "mixture.yaml").write_text(export(mixture, "yaml"))
    written = bimix("export", str(tmp_path / "mixture.yaml"), "--format", "lingua", "--path", "code=the_code").output
    assert written.replace("\n# from mixture.yaml, by bimix export", "") == text
    with pytest.raises(MixtureError, match="Lingua looks for '/code'"):
        export(mixture, "lingua", paths={"code": "/code"})
    with pytest.raises(PluginError, match=r"'sloppy' of package bimix-extension .* is a dict, not a .*Format"):
        export(mixture, "sloppy")
    assert "lingua.yaml" not in {file.name for file in write_exports(Mixture({"/a": 1.0}), tmp_path / "refused")}

    folder = tmp_path / "analysis"
    found.save(folder)
    assert "sources:" in (folder / "exports" / "lingua.yaml").read_text(encoding="utf-8")
    (folder / "exports" / "mine.txt").write_text("a person's")
    found.save_undecided(folder, "no reason")
    assert [file.name for file in (folder / "exports").iterdir()] == ["mine.txt"]


def test_a_report_is_in_the_language_of_a_package(found: Analysis, tmp_path: Path) -> None:
    found.save(tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")

    assert '<html lang="fr">' in page
    assert "Mélange de données pour 30B jetons" in page
    assert "predicted gain" in page  # what a catalogue lacks stays English
    with pytest.raises(PluginError, match=r"'de' of package bimix-extension .* has other fields"):
        language.Language("de")


def test_the_explorer_computes_another_package_s_law(browser: Any, found: Analysis, tmp_path: Path) -> None:  # noqa: F811
    found.save(tmp_path)
    opened = Opened(browser, tmp_path / "report.html")
    opened.root.locator("#explorer").wait_for()

    opened.slide(0, 0.45)
    tokens = opened.values("#volume-text")[0]

    expected = found.fit.predict(opened.mixture(), tokens)[list(DOMAINS)].to_numpy(float).ravel()
    assert opened.values("td.loss") == pytest.approx(expected.tolist(), rel=1e-9)
    assert opened.complaints == []


def test_a_page_of_a_law_without_a_script_names_it_and_keeps_the_rest(
    browser: Any,  # noqa: F811
    obs: Observations,
    tmp_path: Path,
) -> None:
    analyze(obs, tokens=3e10, law="unscripted", replicates=0).save(tmp_path)
    opened = Opened(browser, tmp_path / "report.html")

    text = opened.page.locator("body").inner_text()
    assert text.count("No mixture explorer: the law unscripted has no page script.") == 1
    assert opened.page.locator("#explorer").count() == 0
    for kept in ("Mixture", "Along training", "By proportion"):
        assert kept in text
    assert opened.page.locator("svg").count() >= 2 * len(DOMAINS)
    assert opened.complaints == []


def test_a_trainer_logs_into_a_tracker_of_a_package_and_its_source_is_analysed(tmp_path: Path) -> None:
    loop = importlib.import_module("bimix_extension.loop")
    for code in (0.2, 0.4, 0.6, 0.8):
        mixture = {"code": code, "web": 1 - code}
        recorder = DomainLossRecorder(["code", "web"], mixture, open_tracker("memory:x", run_name=f"run-{code}"))
        callback = loop.LoopCallback(recorder)
        callback.on_train_begin()
        for step in range(1, 7):
            tokens = [round(1000 * share) for share in mixture.values()]
            losses = [
                (k + 1) * share**-0.1 * (20 / (1000 * step) ** 0.5 + 1) for k, share in enumerate(mixture.values())
            ]
            callback.on_batch(np.multiply(losses, tokens).tolist(), tokens, [0, 1], train=True)
            callback.on_step_end(step)
            callback.on_batch(np.multiply(losses, 64).tolist(), [64, 64], [0, 1], train=False)
            callback.on_evaluate_end(step)
        callback.on_train_end()

    done = bimix("analyze", "memory:x", "--tokens", "1e6", "--replicates", "0", "--out", str(tmp_path / "a"), "--json")

    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "a" / "lineage.json").read_text(encoding="utf-8"))["source"] == "memory:x"
    assert (tmp_path / "a" / "exports" / "lingua.yaml").exists()


@pytest.mark.parametrize("tracker", ["jsonl", "mlflow", "memory"])
def test_a_quantity_goes_from_the_recorder_to_the_report(
    tracker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = metric_names.Quantity(
        "bimix_eval_width",
        "tokens per byte of the evaluation's text",
        evaluation=True,
        numerator="tokens",
        denominator="bytes",
        shown="tokens per byte",
    )
    monkeypatch.setitem(metric_names.QUANTITIES, entry.name, entry)
    place = {
        "jsonl": f"jsonl:{tmp_path}/runs",
        "mlflow": f"mlflow+sqlite:///{tmp_path}/m.db#x",
        "memory": "memory:width",
    }[tracker]
    if tracker == "memory":
        importlib.import_module("bimix_extension.memory").RUNS.clear()
    for code in (0.2, 0.4, 0.6, 0.8):
        recorder = DomainLossRecorder(
            ["code", "web"], {"code": code, "web": 1 - code}, open_tracker(place, run_name=f"run-{code}")
        )
        for step in range(1, 7):
            sums = DomainSums.zeros(2)
            sums.tokens[:] = 64
            sums.loss[:] = [64 * r**-0.1 * (1 + step**-0.5) for r in (code, 1 - code)]
            sums.bytes[:] = round(64 * (2 + code)), 0  # the second domain's aren't known
            recorder.add([0, 1], [code * 300.0, (1 - code) * 200.0], [round(code * 100), round((1 - code) * 100)])
            recorder.add_sums(sums, split="eval")
            recorder.log_train(step)
            recorder.log_eval(step)
        recorder.finish()

    obs = Observations.from_source(place)
    analyze(obs, tokens=1e6, law="bimix", replicates=0).save(tmp_path / "a")

    last = obs.losses.drop_duplicates(["run", "domain"], keep="last").set_index(["domain", "run"])[entry.name]
    assert last["code"].to_dict() == {f"run-{c}": 64 / round(64 * (2 + c)) for c in (0.2, 0.4, 0.6, 0.8)}
    assert np.isfinite(last["web"]).sum() == 0
    table = (tmp_path / "a" / "report.md").read_text(encoding="utf-8")
    assert "| code | tokens per byte | 0.3575 | 80.00 % | 0.4539 | 20.00 % |" in table
    page = (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    assert '<td class="text">tokens per byte</td><td>0.3575</td>' in page
    assert f"{entry.name}/code" in (tmp_path / "a" / "observations.csv").read_text(encoding="utf-8").splitlines()[0]


def test_the_page_s_package_is_the_one_that_is_tested() -> None:
    root, extension = Path(__file__).parents[2], Path(__file__).with_name("extension")
    page = (root / "docs" / "how-to" / "extend.md").read_text(encoding="utf-8")
    assert [n for n in re.findall(r"`bimix_extension/[\w.]+`", page) if not (extension / n.strip("`")).is_file()] == []
    block = next(part for part in page.split("```") if part.startswith("toml"))
    told = tomllib.loads(block.partition("\n")[2])["project"]["entry-points"]
    tested = tomllib.loads((extension / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    assert {group: told[group].items() <= tested[group].items() for group in told} == dict.fromkeys(tested, True)

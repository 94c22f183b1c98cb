"""Every example of examples/, as a user runs it: a process of its own, offline, small; and what it leaves."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from bimix_tracking import Mixture, Observations, open_source, recommended_mixture
from bimix_tracking.mixture import Advice
from tests.warm import program

# Its sweeps are small, and their mixtures come with warnings.
pytestmark = pytest.mark.filterwarnings("ignore::bimix_tracking.errors.RecommendationWarning")

_ROOT = Path(__file__).parents[3]
_EXAMPLES = _ROOT / "examples"
_RUNS, _STEPS = 3, 16
_SWEEPS = {
    "plain_loop.py": "jsonl:{}/runs",
    "hf_trainer_mlflow.py": "mlflow+sqlite:///{}/mlflow.db#sweep",
    "lightning_wandb_offline.py": "wandb-offline:{}/wandb",
    "torchtitan_style.py": "jsonl:{}/runs",
    "ray_tune_sweep.py": "jsonl:{}/runs",
}
"""Examples that train, and where their runs are then."""
_UNTRAINED = {"csv_sweep.py": ("--replicates", "4"), "entropy_only.py": ()}
_WRITES_BACK = ("hf_trainer_mlflow.py", "ray_tune_sweep.py")
_SAME_AS_PLAIN = ("lightning_wandb_offline.py", "torchtitan_style.py", "ray_tune_sweep.py")
_TESTED_IN = {
    "benchmarks": "test_benchmarks_example.py",
    "notebook": "test_notebook.py",
    "pilot": "test_pilot.py",
    "recipes": "test_recipes.py",
    "scale": "test_scale_example.py",
    "ray_entropy.py": "../test_ray_entropy.py",
}
_NOTHING_TO_RUN = {"README.md", "data", "tiny.py"}
Ran = Callable[[str], tuple[Path, str]]


def run(name: str, *arguments: str, folder: Path, python: str) -> subprocess.CompletedProcess[str]:
    """Run an example offline, from a folder elsewhere: it needs nothing of where it is started."""
    command = [python, str(_EXAMPLES / name), *arguments]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Return what runs an example, once, and tells its folder and what it printed."""
    done: dict[str, tuple[Path, str]] = {}

    def of(name: str) -> tuple[Path, str]:
        if name not in done:
            folder = tmp_path_factory.mktemp(name.removesuffix(".py"))
            (folder / "tiny.py").touch()  # Ray's workers would take it for that of the examples
            small = _UNTRAINED.get(name, ("--runs", str(_RUNS), "--steps", str(_STEPS)))
            ended = run(name, "--out", "results", *small, folder=folder, python=program("python", training=True))
            assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
            assert "Traceback" not in ended.stderr
            assert {path.name for path in folder.iterdir()} == {"tiny.py", "results"}
            done[name] = folder / "results", ended.stdout
        return done[name]

    return of


def losses(ran: Ran, name: str) -> pd.DataFrame:
    """Return the losses that an example's analysis was of, by run, volume and domain."""
    table = Observations.from_csv(ran(name)[0] / "analysis" / "observations.csv").losses
    return table.set_index(["run", "tokens", "domain"])[["loss"]].sort_index()


@pytest.mark.parametrize("name", _SWEEPS)
def test_a_sweep_is_trained_analysed_and_told(ran: Ran, name: str) -> None:
    folder, printed = ran(name)
    source = open_source(_SWEEPS[name].format(folder))

    records = source.records()
    assert [state.status for state in source.states()] == ["finished"] * _RUNS
    assert {record.name for record in records} == {f"pilot-0{number}" for number in range(1, _RUNS + 1)}
    assert {record.manifest.domains for record in records} == {("python", "bible", "metamath")}
    assert len(losses(ran, name)) == _RUNS * 8 * 3  # evaluations, domains
    mixture = Mixture.from_yaml(folder / "analysis" / "mixture.yaml")
    assert f"tokens: {mixture}\n" in printed
    verdict = Advice.from_yaml(folder / "analysis" / "mixture.yaml")
    assert verdict.why in printed.splitlines()
    assert "A demonstration, not a result" in printed
    assert (folder / "analysis" / "report.html").stat().st_size
    if name in _WRITES_BACK:
        # So short a sweep may be no better than a guess: it is taken all the same, and that is said.
        assert recommended_mixture(source, accept_warnings=True) == mixture


@pytest.mark.parametrize("name", _SAME_AS_PLAIN)
def test_the_same_model_on_the_same_text_has_the_same_losses_in_every_loop(ran: Ran, name: str) -> None:
    # torchtitan_style.py has been cut off and has gone on, too; and a sum in another order is another in its last bits.
    pd.testing.assert_frame_equal(losses(ran, name), losses(ran, "plain_loop.py"), rtol=1e-5)


def test_a_table_is_analysed(ran: Ran) -> None:
    folder, printed = ran("csv_sweep.py")

    mixture = Mixture.from_yaml(folder / "analysis" / "mixture.yaml")
    assert len(mixture) == 17
    assert (folder / "analysis" / "report.html").stat().st_size
    for domain, share in mixture.items():
        assert re.search(rf"^ *{100 * share:.1f}  {domain}( |$)", printed, re.MULTILINE)
    chosen = re.search(r"^ *(\w+) .* True$", printed, re.MULTILINE)
    assert chosen is not None
    assert f"law: {chosen[1]}\n" in (folder / "analysis" / "mixture.yaml").read_text(encoding="utf-8")


def test_the_table_is_the_part_of_regmix_that_it_says_it_is() -> None:
    folder = Path(os.environ.get("BIMIX_REFERENCE_DATA", _ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the reference sweeps are not in {folder}; BIMIX_REFERENCE_DATA names another folder")
    shares, evaluated = (pd.read_csv(folder / f"regmix_train_{name}_1m.csv") for name in ("mixture", "pile_loss"))

    table = pd.read_csv(_EXAMPLES / "data" / "regmix_64_runs.csv")

    pd.testing.assert_frame_equal(table, shares.merge(evaluated, on="index").head(64).round(5))


def test_text_alone_gives_a_mixture_and_a_plan_that_has_it(ran: Ran) -> None:
    folder, printed = ran("entropy_only.py")

    mixtures = {path.stem: Mixture.from_yaml(path) for path in (folder / "entropy" / "mixtures").iterdir()}
    assert set(mixtures) == {"shannon", "joint", "conditional", "von_neumann"}
    planned = [Mixture.from_yaml(path) for path in sorted((folder / "plan" / "mixtures").iterdir())]
    assert len(planned) == 8
    assert planned[1].array(planned[0].domains) == pytest.approx(mixtures["conditional"].array(planned[0].domains))
    assert (folder / "entropy" / "entropy.html").stat().st_size
    for name, mixture in mixtures.items():
        (line,) = (line for line in printed.splitlines() if line.startswith(name))
        assert all(f"→ {share:.3f}" in line for share in mixture.values())


@pytest.mark.parametrize("name", [*_SWEEPS, "csv_sweep.py"])
def test_the_next_command_that_is_printed_is_one(ran: Ran, name: str) -> None:
    folder, printed = ran(name)
    found = re.search(r"^Next: bimix (.*)$", printed, re.MULTILINE)
    assert found is not None

    command = [program("bimix"), *shlex.split(found[1])]
    done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr


def test_results_that_are_there_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "there" / "runs").mkdir(parents=True)

    done = run("plain_loop.py", "--out", "there", folder=tmp_path, python=sys.executable)

    assert done.returncode != 0
    assert done.stderr == "there holds something already: remove it, or choose another folder with --out\n"


def test_every_example_is_in_the_table_and_is_run_by_a_test() -> None:
    table = (_EXAMPLES / "README.md").read_text(encoding="utf-8")
    there = {path.name for path in _EXAMPLES.iterdir() if not path.name.startswith(("__", "."))}

    assert there == _NOTHING_TO_RUN | set(_SWEEPS) | set(_UNTRAINED) | set(_TESTED_IN)
    for name in there - {"README.md"}:
        assert f"[`{name}`]" in table
    for name, test in _TESTED_IN.items():
        assert f'"{name}"' in (Path(__file__).parent / test).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(_EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short_and_says_how_it_is_run(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert len(text.splitlines()) <= 120
    if path.name not in _NOTHING_TO_RUN:
        assert f"\npython examples/{path.name}" in text

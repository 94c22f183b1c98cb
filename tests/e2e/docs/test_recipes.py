"""The recipes of examples/recipes: run where what they need is here, else held against what they are made from."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from bimix_tracking import open_source, recommended_mixture
from bimix_tracking.design.run_files import PlannedRuns
from bimix_tracking.mixture import Mixture
from tests.core.proxies import analyses
from tests.warm import programs

# Its sweeps are small, and their mixtures come with warnings.
pytestmark = pytest.mark.filterwarnings("ignore::bimix_tracking.errors.RecommendationWarning")

_RECIPES = Path(__file__).parents[3] / "examples" / "recipes"
_SBATCH = '''\
#!{python}
"""Stands for Slurm's sbatch: runs a job at once, an array task by task, if what it depends on has ended well."""
import os, pathlib, re, subprocess, sys

queue = pathlib.Path({queue!r})
options = dict(a.removeprefix("--").split("=", 1) for a in sys.argv[1:] if re.match("--[a-z-]+=", a))
plain = [a for a in sys.argv[1:] if not re.match("--[a-z-]+=", a)]
assert plain[0] == "--parsable" and len(plain) in (2, 3), plain
job = str(100 + len(list(queue.iterdir())))
if plain[1] == "--wrap":
    script = "#!/bin/sh\\n" + plain[2]
else:
    script = pathlib.Path(plain[1]).read_text()
spooled = queue / f"{{job}}.sh"  # as Slurm does: the job sees a copy, elsewhere
spooled.write_text(script)
kind, _, other = options.get("dependency", "").partition(":")
if kind:
    assert (kind, options["kill-on-invalid-dep"]) == ("afterok", "yes"), options
    if (queue / f"{{other}}.state").read_text() != "COMPLETED":
        (queue / f"{{job}}.state").write_text("CANCELLED")
        print(job + ";cluster")
        sys.exit()
array = re.search(r"^#SBATCH --array=(\\d+)-(\\d+)$", script, re.MULTILINE)
tasks = range(int(array[1]), int(array[2]) + 1) if array else [None]
interpreter = script.splitlines()[0].removeprefix("#!").split()
states = []
for task in tasks:
    environment = os.environ | ({{}} if task is None else {{"SLURM_ARRAY_TASK_ID": str(task)}})
    with (queue / f"{{job}}_{{task}}.out").open("w") as out:
        done = subprocess.run([*interpreter, str(spooled)], env=environment, stdout=out, stderr=out, cwd=queue)
    states.append(done.returncode == 0)
(queue / f"{{job}}.state").write_text("COMPLETED" if all(states) else "FAILED")
print(job + ";cluster")
'''


def shell(command: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command with this environment's programs, and those in `folder`, first in the path."""
    path = os.pathsep.join([str(folder), programs(), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path} | variables
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture
def slurm(tmp_path: Path) -> Path:
    """Return a folder with a stand-in for `sbatch`, and its queue."""
    (tmp_path / "queue").mkdir()
    program = tmp_path / "sbatch"
    program.write_text(_SBATCH.format(python=sys.executable, queue=str(tmp_path / "queue")), encoding="utf-8")
    program.chmod(0o755)
    return tmp_path


def states(slurm: Path) -> list[str]:
    return [path.read_text() for path in sorted((slurm / "queue").glob("*.state"))]


def test_slurm_trains_the_array_and_then_analyses(slurm: Path) -> None:
    source = f"jsonl:{slurm}/the runs"

    done = shell(
        ["bash", str(_RECIPES / "slurm.sh"), "code", "c++"], slurm, BIMIX_SOURCE=source, RUNS="4", TOKENS="1e9"
    )

    assert done.returncode == 0, done.stderr
    assert states(slurm) == ["COMPLETED", "COMPLETED"], [p.read_text() for p in (slurm / "queue").glob("*.out")]
    assert [state.status for state in open_source(source).states()] == ["finished"] * 4
    assert list(recommended_mixture(source)) == ["code", "c++"]
    assert source not in "".join(path.read_text() for path in (slurm / "queue").glob("*.sh"))


def test_slurm_does_not_analyse_an_array_of_which_a_run_failed(slurm: Path) -> None:
    proxy = f"python {_RECIPES}/proxy.py"
    train = f'test {{index}} != 1 && {proxy} --tracker "$BIMIX_SOURCE" --mixture {{mixture}} --name {{name}}'

    done = shell(
        ["bash", str(_RECIPES / "slurm.sh"), "code", "web"],
        slurm, BIMIX_SOURCE=f"jsonl:{slurm}/runs", RUNS="3", TRAIN=train,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert states(slurm) == ["FAILED", "CANCELLED"]
    assert len(open_source(f"jsonl:{slurm}/runs").states()) == 2
    assert analyses(slurm / "runs") == []


def test_slurm_needs_to_be_told_where_the_runs_are_logged(slurm: Path) -> None:
    done = shell(["bash", str(_RECIPES / "slurm.sh"), "code", "web"], slurm)

    assert done.returncode != 0
    assert "BIMIX_SOURCE: where the runs are logged" in done.stderr


def test_the_wandb_sweep_is_what_plan_writes_and_a_training_can_be_called_with_it(tmp_path: Path) -> None:
    sweep: dict[str, Any] = yaml.safe_load((_RECIPES / "wandb_sweep.yaml").read_text(encoding="utf-8"))
    runs = json.loads(sweep["parameters"]["runs"]["value"])
    names = tuple(runs)
    planned = PlannedRuns(
        names, tuple(Mixture(runs[name]["mixture"]) for name in names), tuple(runs[name]["seed"] for name in names)
    )

    assert sweep == yaml.safe_load(planned.to_wandb_sweep("proxy.py"))
    for name in sweep["parameters"]["run"]["values"]:
        parameters = {"run": {"value": name}, "runs": sweep["parameters"]["runs"]}
        arguments = create_sweep_command_args({"args": parameters})["args"]
        tracker = f"jsonl:{tmp_path}/runs"
        done = shell(["python", str(_RECIPES / sweep["program"]), "--tracker", tracker, *arguments], tmp_path)
        assert done.returncode == 0, done.stderr
    records = {record.name: record.manifest.mixture for record in open_source(f"jsonl:{tmp_path}/runs").records()}
    assert records == dict(zip(names, planned.mixtures, strict=True))


def test_the_commands_of_the_airflow_dag_do_its_work(tmp_path: Path) -> None:
    path = _RECIPES / "airflow_dag.py"
    namespace: dict[str, Any] = {"RUNS": 3}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id != "RUNS":  # type: ignore[attr-defined]  # all are names
            exec(compile(ast.Module([node], []), str(path), "exec"), namespace)  # noqa: S102  # our own file
    source = f"jsonl:{tmp_path}/runs"
    train = f"python {_RECIPES}/proxy.py --tracker {source} --mixture {{mixture}} --name {{name}} --seed {{seed}}"
    told = {"BIMIX_SOURCE": source, "BIMIX_PLAN": str(tmp_path / "plan"), "BIMIX_TRAIN": train}

    tasks = [("PLAN", None), *(("TRAIN", str(index)) for index in range(namespace["RUNS"])), ("ANALYZE", None)]
    for task, index in tasks:
        variables = told if index is None else told | {"INDEX": index}
        done = shell(["bash", "-c", namespace[task]], tmp_path, **variables)
        assert done.returncode == 0, f"{task} {index}: {done.stderr}"

    assert len(open_source(source).states()) == 3
    assert len(analyses(tmp_path / "runs")) == 1


def test_the_wandb_script_is_a_script() -> None:
    assert subprocess.run(["bash", "-n", str(_RECIPES / "wandb_sweep.sh")], check=True).returncode == 0

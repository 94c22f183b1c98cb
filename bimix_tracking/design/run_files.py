"""Runs that are yet to be made: their mixtures, and the files that a training script or a scheduler reads them from."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bimix_tracking.display.card import Card, Shown
from bimix_tracking.files.atomic_folder import staged
from bimix_tracking.files.spreadsheet import defused
from bimix_tracking.files.yaml_json import dump_yaml
from bimix_tracking.mixture import Mixture
from bimix_tracking.quantities import about

_FEW = 4
COMMAND = "python train.py --mixture {mixture} --name {name} --seed {seed}"
"""The training command unless another is given: it gets the mixture as JSON."""
_PLACEHOLDERS = {
    "{mixture}": "BIMIX_MIXTURE",
    "{file}": "BIMIX_FILE",
    "{name}": "BIMIX_NAME",
    "{index}": "BIMIX_INDEX",
    "{seed}": "BIMIX_SEED",
}
_PIECES = re.compile(r"\\.|'|\"|" + "|".join(map(re.escape, _PLACEHOLDERS)), re.DOTALL)


@dataclass(frozen=True, repr=False)
class PlannedRuns(Shown):
    """Mixtures to run, each with a name and a seed for the training.

    Args:
        names: Of the runs, safe in file names and shells.
        mixtures: One a run.
        seeds: Of the training: 0, and counted up where a mixture is run again.
    """

    names: tuple[str, ...]
    mixtures: tuple[Mixture, ...]
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains, in the order of the first mixture."""
        return self.mixtures[0].domains

    def to_frame(self) -> pd.DataFrame:
        """Return the proportions, one row a run and one column a domain."""
        return pd.DataFrame([dict(mixture) for mixture in self.mixtures], index=list(self.names))

    def _card(self) -> Card:
        repeats = len(self) - len(set(self.mixtures))
        extent = [
            f"{about(min(shares))} to {about(max(shares))} {name}"
            for name, shares in ((name, [mixture[name] for mixture in self.mixtures]) for name in self.domains[:_FEW])
        ]
        more = ", …" if len(self.domains) > _FEW else ""
        return Card(
            f"{len(self)} runs over {len(self.domains)} domains",
            f"{len(self) - repeats} mixtures, {repeats} of them run again",
            f"{', '.join(extent)}{more}",
            head=["run", *self.domains],
            rows=[[name, *(about(mixture[d]) for d in self.domains)] for name, mixture, _ in self._rows()],
            notes=getattr(self, "notes", ()),
        )

    def to_jsonl(self) -> str:
        r"""Return one JSON object a line: `index`, `name`, `seed`, `mixture`.

        >>> PlannedRuns(("pilot-01",), (Mixture({"a": 0.25, "b": 0.75}),), (0,)).to_jsonl()
        '{"index": 0, "name": "pilot-01", "seed": 0, "mixture": {"a": 0.25, "b": 0.75}}\n'
        """
        lines = [
            json.dumps({"index": i, "name": name, "seed": seed, "mixture": dict(mixture)}, ensure_ascii=False)
            for i, (name, mixture, seed) in enumerate(self._rows())
        ]
        return "".join(f"{line}\n" for line in lines)

    def to_csv(self) -> str:
        """Return a table with columns `index`, `name`, `seed` and `proportion/<domain>`, the name a sweep has it by."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["index", "name", "seed", *(f"proportion/{d}" for d in self.domains)])
        for i, (name, mixture, seed) in enumerate(self._rows()):
            writer.writerow([i, defused(name), seed, *(repr(mixture[d]) for d in self.domains)])
        return text.getvalue()

    def to_yaml(self, index: int) -> str:
        """Return one run's file, as `Mixture.from_yaml` reads it."""
        content = {"mixture": dict(self.mixtures[index]), "name": self.names[index], "seed": self.seeds[index]}
        return dump_yaml(content)

    def to_wandb_sweep(self, program: str = "train.py") -> str:
        """Return a W&B sweep over the runs' names; every agent also gets what the names stand for.

        A training script reads `run = json.loads(wandb.config["runs"])[wandb.config["run"]]` and has `run["mixture"]`
        and `run["seed"]`: no file needs to be where the agent is.

        Args:
            program: The training script.
        """
        runs = {name: {"mixture": dict(mixture), "seed": seed} for name, mixture, seed in self._rows()}
        sweep = {
            "name": "bimix-" + self.names[0].rpartition("-")[0],
            "program": program,
            "method": "grid",
            "parameters": {"run": {"values": list(self.names)}, "runs": {"value": json.dumps(runs)}},
        }
        return "# wandb sweep sweep.yaml, then one agent or many: wandb agent ID\n" + dump_yaml(sweep, width=10**9)

    def to_shell(self, command: str = COMMAND, folder: str | Path = ".") -> str:
        """Return a script that is a Slurm array, and without Slurm runs one after another, or those asked for.

        A run that fails doesn't stop the ones after it; they are named at the end, and the exit code is 1.

        Args:
            command: A shell command in which `{mixture}` (as JSON), `{file}` (its YAML file), `{name}`, `{index}` and
                `{seed}` are each filled in as one word. The same are in the environment, as BIMIX_MIXTURE and so on.
            folder: Where `write` put the files.

        Raises:
            ValueError: An empty command, or one whose quotes don't close.
        """
        rows = self._rows()
        quoted = {
            "names": [shlex.quote(name) for name, _, _ in rows],
            "seeds": [str(seed) for _, _, seed in rows],
            "mixtures": [shlex.quote(json.dumps(dict(mixture))) for _, mixture, _ in rows],
        }
        arrays = "".join(f"{n}=(\n" + "".join(f"  {v}\n" for v in values) + ")\n" for n, values in quoted.items())
        return _SCRIPT.format(
            last=len(rows) - 1,
            job="bimix-" + self.names[0].rpartition("-")[0],
            arrays=arrays,
            folder=shlex.quote(str(Path(folder).resolve())),
            command=filled(command),
        )

    def write(self, folder: str | Path, command: str = COMMAND) -> list[Path]:
        """Write `plan.jsonl`, `plan.csv`, `sweep.yaml`, `runs.sh` and `mixtures/NAME.yaml`; return what was written.

        Args:
            folder: Made where it isn't there; the files of an earlier plan in it go, all others stay.
            command: As in `to_shell`.
        """
        root = Path(folder)
        program = next((word for word in shlex.split(command) if word.endswith(".py")), "train.py")
        texts = {
            "plan.jsonl": self.to_jsonl(),
            "plan.csv": self.to_csv(),
            "sweep.yaml": self.to_wandb_sweep(program),
            "runs.sh": self.to_shell(command, root),
            **{f"mixtures/{name}.yaml": self.to_yaml(i) for i, name in enumerate(self.names)},
        }
        with staged(root, {*texts, *_of_earlier(root)}) as new:
            (new / "mixtures").mkdir()
            for name, text in texts.items():
                (new / name).write_text(text, encoding="utf-8")
            (new / "runs.sh").chmod(0o755)
        return [root / name for name in texts]

    def _rows(self) -> list[tuple[str, Mixture, int]]:
        return list(zip(self.names, self.mixtures, self.seeds, strict=True))


def _of_earlier(folder: Path) -> Iterator[str]:
    """Yield the mixtures' files of the plan that is in a folder."""
    try:
        names = [json.loads(line)["name"] for line in (folder / "plan.jsonl").read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):  # there is none, or it isn't ours
        return
    for name in names:
        if isinstance(name, str) and re.fullmatch(r"[\w-][\w.-]*", name):
            yield f"mixtures/{name}.yaml"


def filled(command: str) -> str:
    """Return a command with variables for the placeholders, quoted as the place asks for."""
    if not command.strip():
        raise ValueError("the training command is empty")
    inside = ""

    def piece(match: re.Match[str]) -> str:
        nonlocal inside
        text = match.group()
        if text in ("'", '"'):
            inside = "" if inside == text else inside or text
        if text not in _PLACEHOLDERS:
            return text
        variable = f"${{{_PLACEHOLDERS[text]}}}"
        return {"": f'"{variable}"', '"': variable, "'": f"'\"{variable}\"'"}[inside]

    result = _PIECES.sub(piece, command)
    if inside:
        raise ValueError(f"the training command has a {inside} that isn't closed: {command}")
    return result


_SCRIPT = """\
#!/usr/bin/env bash
#SBATCH --job-name={job}
#SBATCH --array=0-{last}
# On Slurm: sbatch runs.sh. Anywhere else: bash runs.sh, or some of the runs: bash runs.sh 0 3
set -uo pipefail

{arrays}folder=${{BIMIX_PLAN:-{folder}}}

run() {{
  export BIMIX_INDEX=$1 BIMIX_NAME=${{names[$1]}} BIMIX_SEED=${{seeds[$1]}} BIMIX_MIXTURE=${{mixtures[$1]}}
  export BIMIX_FILE=$folder/mixtures/$BIMIX_NAME.yaml
  {command}
}}

if [ -n "${{SLURM_ARRAY_TASK_ID:-}}" ]; then
  set -- "$SLURM_ARRAY_TASK_ID"
elif [ $# -eq 0 ]; then
  set -- "${{!names[@]}}"
fi
failed=""
for i in "$@"; do
  echo "${{names[$i]}}" >&2
  (run "$i") || failed="$failed ${{names[$i]}}"
done
if [ -n "$failed" ]; then
  echo "failed:$failed" >&2
  exit 1
fi
"""

"""Runs that are yet to be made: their mixtures, and the files that a training script or a scheduler reads them from."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
_OF_SCALE = {
    "{model_size}": "BIMIX_MODEL_SIZE",
    "{schedule_tokens}": "BIMIX_SCHEDULE_TOKENS",
    "{tokens}": "BIMIX_TOKENS",
}
"""Filled in where the plan says what size its runs have."""


@dataclass(frozen=True)
class RunScale:
    """How large and how long a run is.

    Args:
        model_size: Parameters.
        schedule_tokens: Tokens that its learning-rate schedule is made for.
        tokens: Tokens it is trained for: fewer, where it stops early.
    """

    model_size: float
    schedule_tokens: float
    tokens: float

    def whole(self) -> dict[str, int]:
        """Return the numbers as a run's manifest has them.

        >>> RunScale(7e9, 1e12, 3e11).whole()
        {'model_size': 7000000000, 'schedule_tokens': 1000000000000, 'tokens': 300000000000}
        """
        return {name: round(number) for name, number in vars(self).items()}


@dataclass(frozen=True, repr=False)
class PlannedRuns(Shown):
    """Mixtures to run, each with a name and a seed for the training.

    Args:
        names: Of the runs, safe in file names and shells.
        mixtures: One a run.
        seeds: Of the training: 0, and counted up where a mixture is run again.
        scales: Size and length of each; empty: left to the training script.
    """

    names: tuple[str, ...]
    mixtures: tuple[Mixture, ...]
    seeds: tuple[int, ...]
    scales: tuple[RunScale, ...] = field(default=(), kw_only=True)

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
        r"""Return one JSON object a line: `index`, `name`, `seed`, `mixture`; with scales `model_size` and so on.

        >>> PlannedRuns(("pilot-01",), (Mixture({"a": 0.25, "b": 0.75}),), (0,)).to_jsonl()
        '{"index": 0, "name": "pilot-01", "seed": 0, "mixture": {"a": 0.25, "b": 0.75}}\n'
        """
        lines = [
            json.dumps(
                {"index": i, "name": name, "seed": seed, "mixture": dict(mixture)} | self._scale(i), ensure_ascii=False
            )
            for i, (name, mixture, seed) in enumerate(self._rows())
        ]
        return "".join(f"{line}\n" for line in lines)

    def to_csv(self) -> str:
        """Return a table with columns `index`, `name`, `seed` and `proportion/<domain>`, the name a sweep has it by.

        With scales there are `model_size`, `schedule_tokens` and `tokens` before the proportions.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        scale = list(self._scale(0))
        writer.writerow(["index", "name", "seed", *scale, *(f"proportion/{d}" for d in self.domains)])
        for i, (name, mixture, seed) in enumerate(self._rows()):
            numbers = self._scale(i).values()
            writer.writerow([i, defused(name), seed, *numbers, *(repr(mixture[d]) for d in self.domains)])
        return text.getvalue()

    def to_yaml(self, index: int) -> str:
        """Return one run's file, as `Mixture.from_yaml` reads it."""
        content = {"mixture": dict(self.mixtures[index]), "name": self.names[index], "seed": self.seeds[index]}
        return dump_yaml(content | self._scale(index))

    def to_wandb_sweep(self, program: str = "train.py") -> str:
        """Return a W&B sweep over the runs' names; every agent also gets what the names stand for.

        A training script reads `run = json.loads(wandb.config["runs"])[wandb.config["run"]]` and has `run["mixture"]`
        and `run["seed"]`, with scales also `run["model_size"]`: no file needs to be where the agent is.

        Args:
            program: The training script.
        """
        runs = {
            name: {"mixture": dict(mixture), "seed": seed} | self._scale(i)
            for i, (name, mixture, seed) in enumerate(self._rows())
        }
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
                `{seed}` are each filled in as one word, with scales also `{model_size}`, `{schedule_tokens}` and
                `{tokens}`. The same are in the environment, as BIMIX_MIXTURE and so on.
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
        for key in self._scale(0):
            quoted[key] = [str(self._scale(i)[key]) for i in range(len(rows))]
        scale = "".join(f" BIMIX_{key.upper()}=${{{key}[$1]}}" for key in self._scale(0))
        arrays = "".join(f"{n}=(\n" + "".join(f"  {v}\n" for v in values) + ")\n" for n, values in quoted.items())
        return _SCRIPT.format(
            last=len(rows) - 1,
            job="bimix-" + self.names[0].rpartition("-")[0],
            arrays=arrays,
            folder=shlex.quote(str(Path(folder).resolve())),
            scale=f"\n  export{scale}" if scale else "",
            command=filled(command, sized=bool(scale)),
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

    def _scale(self, index: int) -> dict[str, Any]:
        """Return a run's size and length; nothing where the plan doesn't say them."""
        return self.scales[index].whole() if self.scales else {}

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


def filled(command: str, *, sized: bool = False) -> str:
    """Return a command with variables for the placeholders, quoted as the place asks for.

    Args:
        command: As in `PlannedRuns.to_shell`.
        sized: Whether the runs have a size and a length, which have placeholders of their own.
    """
    if not command.strip():
        raise ValueError("the training command is empty")
    inside = ""
    known = _PLACEHOLDERS | (_OF_SCALE if sized else {})
    pieces = re.compile(r"\\.|'|\"|" + "|".join(map(re.escape, known)), re.DOTALL)

    def piece(match: re.Match[str]) -> str:
        nonlocal inside
        text = match.group()
        if text in ("'", '"'):
            inside = "" if inside == text else inside or text
        if text not in known:
            return text
        variable = f"${{{known[text]}}}"
        return {"": f'"{variable}"', '"': variable, "'": f"'\"{variable}\"'"}[inside]

    result = pieces.sub(piece, command)
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
  export BIMIX_FILE=$folder/mixtures/$BIMIX_NAME.yaml{scale}
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

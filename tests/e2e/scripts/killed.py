"""Training processes killed at random steps, again and again: `killed.py resume|replay|write TRACKER FOLDER KILLS`.

One process loads everything and forks a training for each life, so that a life costs its steps, not its imports.

resume: one run; each life goes on from the last checkpoint, until it has its steps.
replay: each life is a run of its own, and nobody goes on with it; what it said it had logged goes into FOLDER/said.
write: nobody is killed; the training begins when a line comes in.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path

import bimix_integrations.trackers.mlflow
import bimix_integrations.trackers.wandb  # noqa: F401  # both: imported before the forks

from bimix_tracking import DomainLossRecorder, open_tracker

STEPS = 400
EVERY = 5
"""Steps between checkpoints."""
MIXTURE = {"a": 0.25, "b": 0.75}


def loss(step: int, domain: int) -> float:
    return 2.0 + domain + 1.0 / step


def evaluate(recorder: DomainLossRecorder, step: int) -> None:
    recorder.add([0, 1], [250 * 3.0, 750 * 2.0], [250, 750])
    recorder.add([0, 1], [10 * loss(step, 0), 10 * loss(step, 1)], 10, split="eval")
    recorder.log_train(step)
    recorder.log_eval(step)


def main() -> None:
    mode, tracker, folder, kills = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    if mode == "write":
        sys.stdout.write("there\n")
        sys.stdout.flush()
        sys.stdin.readline()
        train(mode, tracker, folder, os.getpid(), os.open(os.devnull, os.O_WRONLY))
        return
    rng = random.Random(7)
    killed = life = 0
    while (mode == "replay" and killed < kills) or mode == "resume":
        life += 1
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            try:
                train(mode, tracker, folder, life, writer)
            finally:
                os._exit(0)
        os.close(writer)
        lives = killed < kills
        until = rng.randint(1, 2 * STEPS // kills) if mode == "resume" else rng.randint(1, 20)
        steps = 0
        while os.read(reader, 1):
            steps += 1
            if lives and steps == until:
                os.kill(child, signal.SIGKILL)
                killed += 1
        os.close(reader)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            break
    sys.stdout.write(json.dumps({"killed": killed, "lives": life}) + "\n")


def train(mode: str, tracker: str, folder: Path, life: int, tell: int) -> None:
    recorder = DomainLossRecorder(list(MIXTURE), MIXTURE, open_tracker(tracker, run_name=f"life-{life}"), eval_set="e")
    checkpoint = folder / "checkpoint.json"
    first = 1
    if mode == "resume" and checkpoint.exists():
        state = json.loads(checkpoint.read_text())
        recorder.load_state_dict(state["recorder"])
        first = state["step"] + 1
    recorder.start()
    if first > 1:
        recorder.keep_evaluation(first - 1)
    for step in range(first, STEPS + 1):
        evaluate(recorder, step)
        if mode == "replay":
            with (folder / "said").open("a") as said:
                said.write(f"life-{life} {step}\n")
        elif mode == "resume" and step % EVERY == 0:
            part = checkpoint.with_suffix(".part")
            part.write_text(json.dumps({"step": step, "recorder": recorder.state_dict()}))
            part.replace(checkpoint)
        os.write(tell, b".")
    recorder.finish()


if __name__ == "__main__":
    main()

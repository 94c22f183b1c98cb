"""What is told of an evaluation comes back from MLflow as from files: with losses that were no numbers, too."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bimix_tracking import DomainLossRecorder, Observations, open_tracker
from bimix_tracking.recording.sums import DomainSums


def evaluation(loss: float, *, tokens: int = 64, nonfinite: int = 0) -> DomainSums:
    sums = DomainSums.zeros(2)
    sums.tokens[:] = tokens
    sums.tokens[0] -= nonfinite
    sums.nonfinite[0] = nonfinite
    sums.loss[:] = loss * sums.tokens
    return sums


def train(uri: str, name: str, code: float) -> None:
    recorder = DomainLossRecorder(["code", "web"], {"code": code, "web": 1 - code}, open_tracker(uri, run_name=name))
    for step in range(1, 7):
        recorder.add([0, 1], [code * 300.0, (1 - code) * 200.0], [round(code * 100), round((1 - code) * 100)])
        # At step 3 some losses of the same set are not numbers; at step 5 it is another set.
        sums = evaluation(3.0 / step, nonfinite=8 if step == 3 else 0, tokens=32 if step == 5 else 64)
        recorder.add_sums(sums, split="eval")
        recorder.log_train(step)
        recorder.log_eval(step)
    recorder.finish()


@pytest.mark.filterwarnings("ignore::UserWarning")  # the recorder says both of it: tests/core/recording
def test_losses_that_were_no_numbers_and_other_sets_read_as_from_files(tmp_path: Path) -> None:
    places = f"mlflow+sqlite:///{tmp_path}/m.db#x", f"jsonl:{tmp_path}/runs"
    for place in places:
        for code in (0.2, 0.5, 0.8):
            train(place, f"run-{code}", code)

    back, expected = (Observations.from_source(place) for place in places)

    order = ["run", "step", "domain"]
    assert sorted(set(expected.losses["step"])) == [1, 2, 3, 4, 6]
    pd.testing.assert_frame_equal(
        back.losses.sort_values(order, ignore_index=True), expected.losses.sort_values(order, ignore_index=True)
    )
    assert sorted(map(str, back.notes)) == sorted(map(str, expected.notes)) != []

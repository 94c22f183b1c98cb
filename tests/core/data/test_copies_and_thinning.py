"""Copies of a run tell nothing new and are excluded; a run of very many evaluations is thinned, and both are said."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimix_tracking import Observations, fit_law, open_source
from bimix_tracking.data.manifest import RunManifest, RunRecord
from bimix_tracking.data.thinning import MOST, WIDTH, Thinner, thinned
from bimix_tracking.mixture import Mixture
from bimix_tracking.selection.repeats import noise_floor
from tests.core.conftest import loss
from tests.core.proxies import train

MakeSweep = Callable[..., Observations]
LAWS = {"code": (0.05, 0.3, 120.0, 1.1), "web": (0.1, 0.5, 900.0, 2.7)}


def copied(obs: Observations, *runs: str) -> pd.DataFrame:
    """Return a sweep as a table, with copies of some of its runs at its end."""
    table = obs.to_wide()
    return pd.concat([table, *(table[table["run"] == run].assign(run=f"{run} again") for run in runs)])


def read(table: pd.DataFrame) -> Observations:
    columns = [str(column) for column in table.columns]
    shares = {c.removeprefix("proportion/"): c for c in columns if c.startswith("proportion/")}
    losses = {c.removeprefix("loss/"): c for c in columns if c.startswith("loss/")}
    return Observations.from_wide(table, proportions=shares, losses=losses, tokens="tokens", run="run")


def excluded(obs: Observations) -> dict[str | None, str]:
    return {note.run: note.reason for note in obs.notes if note.action == "excluded"}


def test_copies_of_runs_leave_the_fit_as_it_was(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, noise=0.003)
    with_copies = read(copied(obs, *obs.runs, "run-2"))

    assert with_copies.runs == obs.runs
    assert with_copies.data_hash == obs.data_hash
    assert fit_law(with_copies).targets["web"].parameters == pytest.approx(fit_law(obs).targets["web"].parameters)
    assert set(excluded(with_copies)) == {f"{run} again" for run in obs.runs}
    assert excluded(with_copies)["run-3 again"] == (
        "its losses equal those of run 'run-3', value for value: a copy adds no information"
    )
    assert noise_floor(with_copies) is None


def test_folders_that_were_copied_are_one_run_and_so_are_links_to_them(tmp_path: Path) -> None:
    train(f"jsonl:{tmp_path}")
    whole = open_source(f"jsonl:{tmp_path}").observations()
    shutil.copytree(tmp_path / "run-1", tmp_path / "run-1-copy")
    (tmp_path / "the-newest").symlink_to("run-2")

    obs = open_source(f"jsonl:{tmp_path}").observations()

    assert obs.data_hash == whole.data_hash
    assert set(excluded(obs)) == {"run-1-copy", "the-newest"}


def test_of_copies_the_one_that_is_whole_counts(tmp_path: Path) -> None:
    train(f"jsonl:{tmp_path}")
    shutil.copytree(tmp_path / "run-0", tmp_path / "a-copy")
    (tmp_path / "a-copy" / "curves.json").write_text("", encoding="utf-8")

    obs = open_source(f"jsonl:{tmp_path}").observations()

    assert obs.runs == ("run-0", "run-1", "run-2")
    assert set(excluded(obs)) == {"a-copy"}


def test_of_a_run_and_a_copy_that_was_cut_short_the_longer_one_counts(sweep: MakeSweep) -> None:
    table = copied(sweep(LAWS, noise=0.003), "run-2")
    short = table[(table["run"] != "run-2") | (table["tokens"] < 1e7)]

    assert set(excluded(read(short))) == {"run-2"}


def test_a_single_volume_with_several_targets_is_enough(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, tokens=(1e9,), noise=0.003)

    assert set(excluded(read(copied(obs, "run-0")))) == {"run-0 again"}


def test_repeats_are_no_copies_though_their_mixture_is_the_same(sweep: MakeSweep) -> None:
    obs = sweep(LAWS, mixtures=[(0.2, 0.8)] * 3 + [(0.5, 0.5)] * 3 + [(0.7, 0.3)], noise=0.003)

    assert not excluded(obs)
    assert len(obs.runs) == 7
    found = noise_floor(obs)
    assert found is not None
    assert found.error == pytest.approx(0.0024, rel=0.5)
    assert found.repeats == 4


def test_rounded_losses_that_coincide_are_no_copy_nor_is_a_run_that_differs_once(sweep: MakeSweep) -> None:
    single = copied(sweep(LAWS, tokens=(1e9,), noise=0.003), "run-0").drop(columns="loss/code")
    assert set(excluded(read(single))) == {"run-0 again"}

    assert not excluded(read(single.round({"loss/web": 2})))
    curves = copied(sweep(LAWS, noise=0.003), "run-0")
    last = (curves["run"] == "run-0 again") & (curves["tokens"] == curves["tokens"].max())
    curves["loss/web"] *= np.where(last, 1.0001, 1.0)
    assert not excluded(read(curves))


def test_the_same_losses_under_another_mixture_are_said_to_contradict(sweep: MakeSweep) -> None:
    table = copied(sweep(LAWS, noise=0.003), "run-0")
    again = table["run"] == "run-0 again"
    table.loc[again, ["proportion/code", "proportion/web"]] = (0.45, 0.55)

    obs = read(table)

    (note,) = obs.notes
    assert note.run == "run-0 again"
    assert note.reason == (
        "its losses equal those of run 'run-0', value for value, but its mixture differs: one of the two is wrong"
    )
    assert len(obs.runs) == 9


def curve(steps: int, share: float = 0.3) -> RunRecord:
    """Return a run that evaluates at each of its steps."""
    rows = [
        {
            "bimix/step": float(step),
            "bimix/tokens": step * 1e3,
            **{
                f"bimix_eval_loss/{d}": loss(law, s, step * 1e3)
                for (d, law), s in zip(LAWS.items(), (share, 1 - share), strict=True)
            },
        }
        for step in range(1, steps + 1)
    ]
    manifest = RunManifest(tuple(LAWS), Mixture({"code": share, "web": 1 - share}))
    return RunRecord(f"r{steps}", f"r{steps}", manifest, rows)


def test_a_long_run_is_thinned_evenly_in_log_tokens_and_its_ends_are_kept() -> None:
    run = thinned(curve(30_000))
    steps = [row["bimix/step"] for row in run.rows]

    assert (steps[0], steps[-1]) == (1, 30_000)
    assert MOST / 3 < len(steps) <= MOST + 1
    assert steps == sorted(set(steps))
    assert max(np.diff(np.log(steps[100:]))) < 4 * WIDTH
    assert dict(run.notes) == {
        "thinned for the fit to at most 1000 evaluations, evenly spaced in log tokens": 30_000 - len(steps)
    }
    short = curve(MOST)
    assert thinned(short) is short


def test_runs_of_other_lengths_keep_the_same_checkpoints() -> None:
    long, short = ({row["bimix/step"] for row in thinned(curve(steps)).rows} for steps in (40_000, 3_000))

    assert {step for step in long if step < 2_900} <= short


@given(st.lists(st.one_of(st.floats(), st.floats(1, 1e4)), max_size=3000), st.integers(1, 3))
def test_however_many_come_no_more_are_kept_and_the_first_and_last_are(tokens: list[float], kinds: int) -> None:
    thinner = Thinner[tuple[int, float]](lambda item: (item[0] % kinds, item[1]))
    for item in enumerate(tokens):
        thinner.add(item)

    kept = thinner.kept()

    places = [place for place, _ in kept]
    assert places == sorted(places)
    assert len(kept) + sum(thinner.dropped().values()) == len(tokens)
    for kind in range(kinds):
        of_kind = [place for place in range(len(tokens)) if place % kinds == kind]
        there = [place for place in places if place % kinds == kind]
        assert len(there) <= MOST + 1
        assert there[:1] == of_kind[:1]
        assert there[-1:] == of_kind[-1:] or not 0 < tokens[of_kind[-1]] < math.inf or there[-1] <= of_kind[-1]
        if len(of_kind) <= MOST + 1:
            assert there == of_kind


def test_a_table_and_a_folder_of_a_long_run_are_thinned_alike_and_said(tmp_path: Path) -> None:
    records = [curve(20_000), curve(7, 0.2), curve(9, 0.5)]
    for record in records:
        folder = tmp_path / "runs" / record.name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps(record.manifest.to_dict()), encoding="utf-8")
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in record.rows), encoding="utf-8")
        (folder / "FINISHED").touch()
    pooled = Observations.from_records([thinned(record) for record in records], source="memory")
    rows = [
        {"run": r.name, "tokens": row["bimix/tokens"], "step": row["bimix/step"]}
        | {f"proportion/{d}": share for d, share in (r.manifest.mixture or {}).items()}
        | {f"loss/{d}": row[f"bimix_eval_loss/{d}"] for d in LAWS}
        for r in records
        for row in r.rows
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "long.csv", index=False)

    from_folder = open_source(f"jsonl:{tmp_path / 'runs'}").observations()
    from_table = open_source(f"csv:{tmp_path / 'long.csv'}").observations()

    for obs in (from_folder, from_table):
        pd.testing.assert_frame_equal(
            obs.losses.drop(columns="eval_tokens").sort_values(["run", "tokens", "domain"], ignore_index=True),
            pooled.losses.drop(columns="eval_tokens").sort_values(["run", "tokens", "domain"], ignore_index=True),
        )
        (note,) = obs.notes
        assert (note.run, note.reason.startswith("thinned for the fit")) == ("r20000", True)
    assert len(from_folder.losses) < 2 * (MOST + 1 + 16)

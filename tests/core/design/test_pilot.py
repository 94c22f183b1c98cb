"""Planned runs: within the constraints, telling more than chance does, in files that hand over the right mixture."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bimix_tracking import Mixture, Observations, bootstrap, fit_law, next_runs, plan_pilot, recommend
from bimix_tracking.design.run_files import PlannedRuns
from bimix_tracking.design.space_filling import distances
from bimix_tracking.errors import BimixError, ConstraintError, MixtureError, ObservationsError, RecommendationError
from bimix_tracking.recommendation.constraints import constrain

HOSTILE = ("c++ #1", "it's $HOME `x`", 'ä"')


@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(2, 6), more=st.integers(1, 6), cap=st.floats(0.4, 1.0), seed=st.integers(0, 99),
    method=st.sampled_from(["informative", "space-filling"]),
)  # fmt: skip
def test_a_plan_keeps_to_the_box_and_every_domain_varies(
    count: int, more: int, cap: float, seed: int, method: str
) -> None:
    domains = [f"d{i}" for i in range(count)]
    bounds = {"d0": (0.01, max(cap, 1.2 / count))}

    plan = plan_pilot(domains, count + more, bounds=bounds, method=method, seed=seed, repeats=0)  # type: ignore[arg-type]  # of the two

    assert len(plan) == count + more
    for mixture in plan.mixtures:
        assert sum(mixture.values()) == pytest.approx(1, abs=1e-12)
        assert not constrain(domains, bounds=bounds).broken_by(mixture, slack=1e-6)
    for domain in domains:
        assert len({mixture[domain] for mixture in plan.mixtures}) >= count + 1


def test_the_reference_is_the_first_run_and_is_repeated_with_another_seed() -> None:
    plan = plan_pilot(["a", "b"], 6, tokens=1e9, available_tokens={"a": 1e9, "b": 3e9})

    assert dict(plan.mixtures[0]) == {"a": 0.25, "b": 0.75}
    (again,) = [i for i, mixture in enumerate(plan.mixtures[1:], 1) if mixture == plan.mixtures[0]]
    assert plan.seeds[again] == 1
    assert set(plan.seeds[:again]) == {0}


def test_wanted_mixtures_are_among_the_runs() -> None:
    mine = Mixture({"a": 0.15, "b": 0.85})

    assert mine in plan_pilot(["a", "b"], 5, candidates=[mine]).mixtures


def test_the_same_seed_is_the_same_plan() -> None:
    one, same, other = (plan_pilot(["a", "b", "c"], 7, seed=seed) for seed in (1, 1, 2))

    assert one.mixtures == same.mixtures
    assert one.mixtures != other.mixtures


def test_what_can_be_told_is_said_before_a_run_is_paid_for() -> None:
    few, many = (plan_pilot(["a", "b", "c"], runs, seed=0).identifiable() for runs in (3, 12))

    assert any("bimix" in text for text in many.sentences())
    assert few.sentences() != many.sentences()
    assert (few.domains["shares"] <= 3).all()
    assert (many.domains["shares"] >= 4).all()
    assert (many.domains["alpha_error"] < few.domains["alpha_error"]).all()


def test_a_plan_tells_exponents_better_than_random_runs() -> None:
    rng = np.random.default_rng(0)
    planned = plan_pilot(["a", "b", "c"], 8, seed=0, repeats=0)
    error = float(planned.identifiable().domains["alpha_error"].mean())

    logs = [np.log(rng.dirichlet(np.ones(3) * 3, 8)) for _ in range(200)]
    random = np.mean([0.005 / np.sqrt(((x - x.mean(0)) ** 2).sum(0)) for x in logs])
    assert error < 0.8 * random


@pytest.mark.parametrize(
    ("domains", "runs", "options", "said"),
    [
        (["a"], 4, {}, "domain"),
        (["a", "b"], 0, {}, "0"),
        (["a", "b"], 4, {"bounds": {"a": 0.3}}, "one"),
        (["a", "b"], 4, {"bounds": {"c": (0.1, 0.2)}}, "unknown domain 'c'"),
        (["a", "b"], 4, {"tokens": 1e12, "available_tokens": {"a": 1e9, "b": 1e9}}, "at most 0.008"),
    ],
)
def test_what_cannot_be_planned_is_named(domains: list[str], runs: int, options: dict[str, object], said: str) -> None:
    with pytest.raises((BimixError, ConstraintError, MixtureError)) as told:
        plan_pilot(domains, runs, **options)  # type: ignore[arg-type]  # each case's own
    assert said in str(told.value)


PLANNED = PlannedRuns(
    ("pilot-01", "pilot-02"),
    tuple(Mixture(dict(zip(HOSTILE, shares, strict=True))) for shares in ((0.1, 0.2, 0.7), (0.5, 0.25, 0.25))),
    (0, 1),
)  # fmt: skip


def test_the_files_read_back_exactly(tmp_path: Path) -> None:
    PLANNED.write(tmp_path)

    lines = [json.loads(line) for line in (tmp_path / "plan.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [Mixture(line["mixture"]) for line in lines] == list(PLANNED.mixtures)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "plan.csv").read_text(encoding="utf-8"))))
    assert [float(rows[0][f"proportion/{d}"]) for d in HOSTILE] == list(PLANNED.mixtures[0].values())
    for name, mixture in zip(PLANNED.names, PLANNED.mixtures, strict=True):
        assert Mixture.from_yaml(tmp_path / "mixtures" / f"{name}.yaml") == mixture
    sweep = yaml.safe_load((tmp_path / "sweep.yaml").read_text(encoding="utf-8"))
    runs = json.loads(sweep["parameters"]["runs"]["value"])
    assert sweep["method"] == "grid"
    assert [Mixture(runs[name]["mixture"]) for name in sweep["parameters"]["run"]["values"]] == list(PLANNED.mixtures)


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(folder / "runs.sh")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_the_script_hands_each_run_its_mixture_alone_and_in_a_slurm_array(tmp_path: Path) -> None:
    PLANNED.write(tmp_path, command="printf '%s\\n' {mixture} {name} {index} {seed} {file}")

    alone, array = run(tmp_path), run(tmp_path, SLURM_ARRAY_TASK_ID="1")

    assert alone.returncode == array.returncode == 0, alone.stderr
    words = alone.stdout.splitlines()
    assert [Mixture(json.loads(words[i])) for i in (0, 5)] == list(PLANNED.mixtures)
    assert words[6:9] == ["pilot-02", "1", "1"]
    assert words[5:] == array.stdout.splitlines()
    assert Mixture.from_yaml(words[9]) == PLANNED.mixtures[1]


def test_a_run_that_fails_is_named_and_the_others_are_made(tmp_path: Path) -> None:
    PLANNED.write(tmp_path, command='test {name} = pilot-02 && echo "made $BIMIX_NAME"')

    done = run(tmp_path)

    assert done.returncode == 1
    assert "made pilot-02" in done.stdout
    assert "failed: pilot-01" in done.stderr


def sweep(shares: np.ndarray, noise: float, seed: int) -> Observations:
    """Return runs on mixtures of three domains that follow BiMix."""
    rng = np.random.default_rng(seed)
    alpha, level = np.array([0.05, 0.1, 0.2]), np.array([3.0, 2.0, 1.0])
    loss = level * shares**-alpha * np.exp(noise * rng.standard_normal(shares.shape))
    table = pd.DataFrame(np.c_[shares, loss], columns=["a", "b", "c", "la", "lb", "lc"])
    return Observations.from_wide(
        table.assign(tokens=1e9, run=[f"r{i}" for i in range(len(shares))]),
        proportions=["a", "b", "c"], losses={"a": "la", "b": "lb", "c": "lc"}, tokens="tokens", run="run",
    )  # fmt: skip


def test_next_runs_make_the_decision_surer_than_repeating_what_was_run() -> None:
    alpha, level = np.array([0.05, 0.1, 0.2]), np.array([3.0, 2.0, 1.0])
    regrets: dict[str, list[float]] = {"next": [], "again": []}
    for seed in range(12):
        first = np.random.default_rng(seed).dirichlet([30, 30, 30], 5)
        obs = sweep(first, 0.01, seed)
        found = next_runs(obs, fit_law(obs), 4, tokens=1e9, seed=seed)
        chosen = np.array([mixture.array(("a", "b", "c")) for mixture in found.mixtures])
        for kind, more in (("next", chosen), ("again", first[:4])):
            both = sweep(np.concatenate([first, more]), 0.01, seed)
            mixture = recommend(fit_law(both), 1e9).mixture.array(("a", "b", "c"))
            best = alpha * level
            ideal = (best / best.sum()) ** (1 / (1 + alpha))
            ideal /= ideal.sum()
            regrets[kind].append(float((level * mixture**-alpha).sum() - (level * ideal**-alpha).sum()))

    assert np.mean(regrets["next"]) < np.mean(regrets["again"])


def test_what_next_runs_promise_falls_with_each_run() -> None:
    obs = sweep(np.random.default_rng(1).dirichlet([5, 5, 5], 6), 0.01, 1)

    found = next_runs(obs, fit_law(obs), 3, tokens=1e9)

    errors = [found.error, *found.expected["error"]]
    assert errors == sorted(errors, reverse=True)
    assert found.sentences()
    for i, domain in enumerate(obs.domains):
        tried = obs.mixtures.to_numpy(float)[:, i]
        for mixture in found.mixtures:
            assert tried.min() / 1.6 <= mixture[domain] <= tried.max() * 1.6


def test_next_runs_are_members_of_a_pool_that_were_not_run() -> None:
    ran = np.random.default_rng(1).dirichlet([5, 5, 5], 6)
    obs = sweep(ran, 0.01, 1)
    fresh = np.random.default_rng(2).dirichlet([5, 5, 5], 12)
    pool = [Mixture(dict(zip("abc", row.tolist(), strict=True))) for row in (*ran[:3], *fresh)]

    found = next_runs(obs, fit_law(obs), 4, tokens=1e9, pool=pool, bounds={"a": (0.0, 0.6)})

    assert len(set(found.mixtures)) == 4
    assert set(found.mixtures) <= {mixture for mixture in pool[3:] if mixture["a"] <= 0.6}
    over = sum(mixture["a"] > 0.6 for mixture in pool)
    assert "already among the runs" in found.sentences()[-1]
    assert f"of 15 mixtures of the pool were excluded: {over} breaking" in found.sentences()[-1] or not over
    with pytest.raises(ConstraintError, match="13 runs are to be chosen, but the pool has 12 mixtures"):
        next_runs(obs, fit_law(obs), 13, tokens=1e9, pool=pool)


def test_next_runs_fill_what_the_sweep_left_out_and_repeat_nothing() -> None:
    rng = np.random.default_rng(4)
    # Nothing was run with much of c, which is most of a good mixture's last domain.
    ran = np.c_[rng.uniform(0.3, 0.6, (6, 1)), rng.uniform(0.2, 0.3, (6, 1))]
    ran = np.c_[ran, 1 - ran.sum(1)]
    obs = sweep(ran, 0.005, 4)

    found = next_runs(obs, fit_law(obs), 4, tokens=1e9)

    chosen = np.array([mixture.array(("a", "b", "c")) for mixture in found.mixtures])
    both = np.concatenate([ran, chosen])
    spread = np.log(both).std(0)
    assert (spread > 1.1 * np.log(ran).std(0)).all()
    apart = distances(both, both)[len(ran) :]
    assert np.sort(apart, axis=1)[:, 1].min() > 0.02
    assert set(found.seeds) == {0}


def test_a_law_that_runs_hardly_tell_promises_no_more_than_its_refits() -> None:
    table = pd.read_csv(Path(__file__).parents[3] / "examples" / "data" / "regmix_64_runs.csv").assign(tokens=1e9)
    columns = list(map(str, table))
    shares, losses = (
        {c.removeprefix(first).removesuffix(last): c for c in columns if c.startswith(first) and c.endswith(last)}
        for first, last in (("train_the_pile_", ""), ("metric/the_pile_", "_val_loss"))
    )
    losses = {domain: losses[domain] for domain in ("arxiv", "freelaw", "pubmed_central", "wikipedia_en")}
    obs = Observations.from_wide(table, proportions=shares, losses=losses, tokens="tokens", run="index")
    fit, weights = fit_law(obs, "additive"), {domain: float(domain in losses) for domain in shares}

    found = next_runs(obs, fit, 2, tokens=1e9, weights=weights)

    # ±25 nats with one step a replicate, ±0.009 with 100 whole refits.
    assert found.error == pytest.approx(0.008, abs=0.003)
    one_step = bootstrap(obs, fit, replicates=20, method="linearised")
    with pytest.raises(RecommendationError, match="linearised replicates have no optimum"):
        recommend(fit, 1e9, weights=weights, replicates=one_step)


def test_two_runs_are_too_few_to_go_on_from() -> None:
    obs = sweep(np.array([[0.2, 0.3, 0.5], [0.5, 0.3, 0.2]]), 0.01, 1)

    with pytest.raises(ObservationsError, match=r"at least 3 are needed. Plan a pilot"):
        next_runs(obs, fit_law(obs), 2, tokens=1e9)


@pytest.mark.parametrize("seed", range(6))
def test_each_domain_is_tried_at_twice_its_reference_for_what_is_recommended_lies_among_the_tried(seed: int) -> None:
    shares = plan_pilot([f"d{i}" for i in range(7)], 8, seed=seed).shares

    assert (shares.max(0) >= 0.9 * 2 / 7).all()
    assert (shares.min(0) <= 1.1 / 14).all()

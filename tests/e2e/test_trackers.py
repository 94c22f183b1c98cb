"""One contract for every tracker: what is logged comes back the same, an analysis goes back once and is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wandb

from bimix_tracking import (
    DomainLossRecorder,
    EntropySettings,
    Mixture,
    Observations,
    analyze,
    corpus_entropies,
    log_entropies,
    open_source,
    open_tracker,
    recommended_mixture,
)
from bimix_tracking.errors import SourceError
from tests.adapters.trainers.toys import callback, run_trainer
from tests.adapters.wandb.wandb_server import serving

# Its sweeps are small, and their mixtures come with warnings.
pytestmark = pytest.mark.filterwarnings("ignore::bimix_tracking.errors.RecommendationWarning")

DOMAINS = ("c++", "web/en", '"><img src=x>')


@pytest.fixture(params=["jsonl", "mlflow", "wandb", "wandb-offline"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Return the URI to write to and the one to read from."""
    if request.param == "jsonl":
        yield f"jsonl:{tmp_path}/runs", f"jsonl:{tmp_path}/runs"
    elif request.param == "mlflow":
        yield f"mlflow+sqlite:///{tmp_path}/m.db#x", f"mlflow+sqlite:///{tmp_path}/m.db#x"
    else:
        offline = request.param == "wandb-offline"
        with serving(tmp_path, WANDB_MODE="offline" if offline else "online"):
            yield "wandb:x", f"wandb-offline:{tmp_path}" if offline else "wandb:local/x"


def train(uri: str, name: str, first: float) -> None:
    mixture = Mixture.normalized(dict(zip(DOMAINS, (first, 0.4, 0.3), strict=True)))
    recorder = DomainLossRecorder(DOMAINS, mixture, open_tracker(uri, run_name=name), sweep="s", model_size=1000)
    recorder.start()
    tokens = np.array([round(1000 * share) for share in mixture.values()])
    for step in range(1, 6):
        recorder.add([0, 1, 2], 3.0 * tokens, tokens)
        seen = 1000 * step
        losses = [(i + 1) * r ** -(0.1 + 0.05 * i) * (20 / seen**0.5 + 1) for i, r in enumerate(mixture.values())]
        recorder.add([0, 1, 2], 64 * np.array(losses), 64, split="eval")
        recorder.log_train(step)
        recorder.log_eval(step)
    recorder.finish()


def test_the_way_of_a_sweep_through_a_tracker_and_back(places: tuple[str, str], tmp_path: Path) -> None:
    to, back = places
    for place in (to, f"jsonl:{tmp_path}/reference"):
        for name, first in (("one", 0.1), ("two", 0.3), ("three", 0.55)):
            train(place, name, first)

    # The domains' entropies are a run too, but none of the sweep.
    texts = {domain: tmp_path / f"{number}.txt" for number, domain in enumerate(DOMAINS)}
    for number, path in enumerate(texts.values()):
        path.write_text("some text of a domain\n" * 50 + "abc" * number)
    log_entropies(corpus_entropies(texts, EntropySettings(embedder=None)), to)

    source = open_source(back)
    obs, expected = (Observations.from_source(place) for place in (source, f"jsonl:{tmp_path}/reference"))
    order = ["run", "step", "domain"]
    pd.testing.assert_frame_equal(
        obs.losses.sort_values(order, ignore_index=True), expected.losses.sort_values(order, ignore_index=True)
    )
    pd.testing.assert_frame_equal(obs.mixtures.sort_index(), expected.mixtures.sort_index())
    assert obs.notes == ()
    assert obs.shared == expected.shared
    states = {state.name: (state.status, state.sweep) for state in source.states()}
    assert states == dict.fromkeys(("one", "two", "three"), ("finished", "s"))

    with pytest.raises(SourceError, match="holds no analysis"):
        recommended_mixture(back)
    found, again = (analyze(back, 1e6, replicates=0, write_back=True) for _ in range(2))
    assert found.location == again.location
    assert recommended_mixture(back) == found.recommendation.mixture
    third = analyze(back, 1e9, replicates=0, weights={"c++": 3.0}, write_back=True)
    assert recommended_mixture(back) == third.recommendation.mixture != found.recommendation.mixture
    analyze(back, 1e6, replicates=0, write_back=True)  # what was there is the newest again
    assert recommended_mixture(back) == found.recommendation.mixture
    assert set(Observations.from_source(back).runs) == {"one", "two", "three"}


def test_beside_the_trainer_s_own_wandb_callback_there_is_one_run(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, WANDB_MODE="offline"):
        run_trainer(tmp_path / "out", callback(open_tracker("wandb:")), arguments={"report_to": ["wandb"]})
        host = wandb.run
        assert host is not None  # ours to write to, not to end
        host.finish()
        (record,) = open_source(f"wandb-offline:{tmp_path}").records()

    assert record.run_id == host.id
    assert [row["bimix/step"] for row in record.rows if "bimix_eval_loss/code" in row] == [3, 6]
    assert record.manifest.model_size is not None

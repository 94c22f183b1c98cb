"""What a sweep took in FLOPs, beside the same runs at the target size."""

from __future__ import annotations

from dataclasses import dataclass

from bimix_tracking.data.model_sizes import nearest
from bimix_tracking.data.observations import Observations
from bimix_tracking.messages import said
from bimix_tracking.quantities import about, count, digits, parameters
from bimix_tracking.recommendation.investment.flops import Compute, compute_of


@dataclass(frozen=True)
class Beside:
    """The compute of a sweep, C = 6 N D, beside what its proxy runs would take at the target size.

    Args:
        compute: Of all runs, anchor runs among them, and of one run at the target size.
        anchors: How many of the runs are at the target size.
    """

    compute: Compute
    anchors: int

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return sum(len(each) for _, each in self.compute.runs)

    @property
    def others(self) -> int:
        """How many of them are at another size than the target's."""
        return self.runs - self.anchors

    @property
    def part(self) -> str:
        """What all runs took of as many runs as the others at the target size, as printed."""
        part = self.compute.spent / (self.others * self.compute.target)
        return about(part) if part < 2 else said("{times}×", times=count(part))

    def sentence(self) -> str:
        """Return it in words."""
        return said(
            "Compute: {spent} FLOPs (6 N D) for all {runs} runs, {part} of that of {others} runs at {size}.",
            spent=digits(float(f"{self.compute.spent:.3g}")),
            runs=self.runs,
            part=self.part,
            others=self.others,
            size=parameters(self.compute.model_size),
        )

    def short(self) -> str:
        """Return it in the words that follow a forecast."""
        return said("It took {part} of the compute of {others} runs at that size.", part=self.part, others=self.others)


def beside(obs: Observations, size: float | None, tokens: float) -> Beside | None:
    """Return the compute of a sweep beside as many runs at the target size; None where a size isn't known.

    None too where all runs are at the target size.

    Args:
        obs: The runs of all sizes, as read.
        size: The target size, parameters.
        tokens: Of the large run.
    """
    found = compute_of(obs.sizes, obs.last_tokens, size, tokens)
    if found is None:
        return None
    at_target = sum(len(each) for one, each in found.runs if nearest(one, [found.model_size]) is not None)
    result = Beside(found, at_target)
    return result if result.others else None

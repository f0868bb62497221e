"""Whether one side of a comparison is slower than the other, from samples that were taken in turns."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Ratio:
    """Median time of the second side over that of the first; above 1 the second is slower.

    Attributes:
        low, high: 95% confidence interval, by bootstrap over the rounds: both samples of a round are drawn together,
            so that what slows down a whole round leaves the interval alone.
    """

    value: float
    low: float
    high: float

    def is_slower(self, threshold: float) -> bool:
        """Whether it is above 1 + threshold, and above 1 beyond the noise."""
        return self.value > 1 + threshold and self.low > 1


def ratio(first: Sequence[float], second: Sequence[float]) -> Ratio:
    """The ratio of two sides' times, a pair for each round."""
    pairs = np.array([first, second])
    rounds = np.random.default_rng(0).integers(pairs.shape[1], size=(_RESAMPLES, pairs.shape[1]))
    medians = np.median(pairs[:, rounds], axis=2)
    low, high = np.quantile(medians[1] / medians[0], [0.025, 0.975])
    return Ratio(statistics.median(second) / statistics.median(first), float(low), float(high))

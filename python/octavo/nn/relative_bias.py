"""A bias of attention by distance, learned in buckets (T5, https://arxiv.org/abs/1910.10683)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from octavo.nn.trace import Trace


@dataclass(frozen=True)
class RelativeBias:
    """What Attention takes as its ``bias``, made of the table ``{name}.weight`` (buckets, heads).

    Attributes:
        farthest: All distances from here on share a bucket.
        longest: Tokens of the longest sequence.
    """

    name: str
    buckets: int
    farthest: int
    longest: int

    def __call__(self, trace: Trace) -> npt.NDArray[np.float32]:
        """(heads, 2 * longest - 1), by key - query."""
        table = trace.weights.floats(f"{self.name}.weight").reshape(self.buckets, -1)
        distances = np.arange(1 - self.longest, self.longest)
        return np.ascontiguousarray(table[distance_buckets(distances, self.buckets, self.farthest)].T)


def distance_buckets(distances: npt.NDArray[np.int64], buckets: int, farthest: int) -> npt.NDArray[np.int64]:
    """The bucket of each key - query: one for each small distance, then logarithmic ones; half of them for either sign.

    The arithmetic is that of transformers in float32, so that borders fall alike.
    """
    half, exact = buckets // 2, buckets // 4
    far = np.abs(distances)
    logs = np.log(np.maximum(far, 1).astype(np.float32) / np.float32(exact)) / np.float32(math.log(farthest / exact))
    wide = np.minimum(exact + (logs * np.float32(half - exact)).astype(np.int64), half - 1)
    chosen: npt.NDArray[np.int64] = np.where(far < exact, far, wide) + half * (distances > 0)
    return chosen

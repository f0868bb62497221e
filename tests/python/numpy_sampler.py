"""Sampling as it is written down, in numpy and float64: what the core's sampler is held against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from octavo import SamplingParams

Row = npt.NDArray[np.float64]  # (vocabulary)


def processed(
    logits: npt.ArrayLike, params: SamplingParams, prompt: Sequence[int], output: Sequence[int], ends: Sequence[int]
) -> Row:
    """The logits after allowed ids, min_tokens, bias and penalties; `ends` are the ids that may end the output."""
    row = np.array(logits, np.float64)
    if params.allowed_token_ids:
        kept = np.full_like(row, -np.inf)
        kept[list(params.allowed_token_ids)] = row[list(params.allowed_token_ids)]
        row = kept
    if len(output) < params.min_tokens:
        row[list(ends)] = -np.inf
    for token, bias in (params.logit_bias or {}).items():
        row[token] += bias
    for token in {*prompt, *output}:
        row[token] = (
            row[token] / params.repetition_penalty if row[token] > 0 else row[token] * params.repetition_penalty
        )
    counts = np.bincount(np.array(output, np.int64), minlength=len(row))
    return row - params.frequency_penalty * counts - params.presence_penalty * (counts > 0)


def distribution(row: Row, params: SamplingParams) -> Row:
    """The probabilities that a token is drawn with, from processed logits."""
    scaled = row / params.temperature
    p = np.exp(scaled - scaled.max())
    keep = p >= params.min_p  # the largest is 1
    if 0 < params.top_k < len(p):
        keep &= p >= np.sort(p)[-params.top_k]
    p = np.where(keep, p, 0)
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    before = np.cumsum(p[order]) - p[order]
    p[order[before >= params.top_p]] = 0
    return np.asarray(p / p.sum())


def chi_square(counts: npt.ArrayLike, expected: npt.ArrayLike) -> tuple[float, float]:
    """The statistic, and the value that one draw in 30,000 exceeds (Wilson and Hilferty's approximation).

    Cells that expect fewer than 5 are taken together.
    """
    found, want = np.array(counts, np.float64), np.array(expected, np.float64)
    rare = want < 5
    found = np.append(found[~rare], found[rare].sum())
    want = np.append(want[~rare], want[rare].sum())
    found, want = found[want > 0], want[want > 0]
    df = max(len(want) - 1, 1)
    z = 4.0
    return float(((found - want) ** 2 / want).sum()), df * (1 - 2 / (9 * df) + z * (2 / (9 * df)) ** 0.5) ** 3

"""Codes of a matrix for given codebooks: group by group, each making up for the errors of those before it.

With H = R R^T and R upper triangular, the error of the outputs is the sum of squares of E R. Columns of E R that
belong to a group depend on the errors of this group and of earlier ones alone, so a search from left to right sees the
whole error of a choice, but for what later groups can make up for. This is the rounding of QuIP (LDLQ,
https://arxiv.org/abs/2307.13304) and GPTQ, with groups of columns in the place of single ones.
"""

from __future__ import annotations

from typing import Any

from octavo._core import search_aqlm

GROUP = 8  # weights that a code stands for


def groups_of(weight: Any, scales: Any) -> Any:
    """(n, k / GROUP, GROUP) the rows over their scales; a row of zeros stays one."""
    return (weight / scales.masked_fill(scales == 0, 1)[:, None]).unflatten(1, (-1, GROUP))


def sums(vectors: Any, codes: Any) -> Any:
    """(..., GROUP) what the codes (..., codebooks) stand for."""
    total = vectors[0][codes[..., 0]]
    for c in range(1, len(vectors)):
        total += vectors[c][codes[..., c]]
    return total


def codes_with_feedback(weight: Any, triangle: Any, vectors: Any, scales: Any) -> Any:
    """(n, k / GROUP, codebooks) the codes for ``weight`` (n, k), with R (k, k) as ``triangle``."""
    import torch

    n, k = weight.shape
    errors = torch.zeros(k, n)
    codes = []
    for start in range(0, k, GROUP):
        here = slice(start, start + GROUP)
        wanted = weight[:, here] @ triangle[here, here] + errors[:start].T @ triangle[:start, here]
        found = nearest_sums(groups_of(wanted, scales)[:, 0], vectors @ triangle[here, here])
        errors[here] = (weight[:, here] - scales[:, None] * sums(vectors, found)).T
        codes.append(found)
    return torch.stack(codes, 1)


def nearest_sums(x: Any, vectors: Any) -> Any:
    """(rows, codebooks) codes so that the sums of ``vectors`` (codebooks, size, GROUP) are near the rows of x.

    Of one codebook it is the nearest vector; of more, what a search finds that keeps eight sums after each codebook.
    """
    import torch

    codes = search_aqlm(x.contiguous().numpy(), vectors.contiguous().numpy(), torch.get_num_threads())
    return torch.from_numpy(codes).long()

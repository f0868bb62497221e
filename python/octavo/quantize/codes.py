"""Codes of a matrix for given codebooks: group by group, each making up for the errors of those before it.

With H = R R^T and R upper triangular, the error of the outputs is the sum of squares of E R. Columns of E R that
belong to a group depend on the errors of this group and of earlier ones alone, so a search from left to right sees the
whole error of a choice, but for what later groups can make up for. This is the rounding of QuIP (LDLQ,
https://arxiv.org/abs/2307.13304) and GPTQ, with groups of columns in the place of single ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

GROUP = 8  # weights that a code stands for
_BEAMS = 8
_CHUNK = 1 << 20  # scores that are in memory at once: about what a cache holds


def groups_of(weight: Any, scales: Any) -> Any:
    """(n, k / GROUP, GROUP) the rows over their scales; a row of zeros stays one."""
    return (weight / scales.masked_fill(scales == 0, 1)[:, None]).unflatten(1, (-1, GROUP))


def chunks(n_rows: int, n_scores: int) -> Iterator[slice]:
    """Slices of the rows, so that those of a slice have few enough scores, of which each row has ``n_scores``.

    What is found for a slice belongs into a tensor made before: kept by itself, it would keep the memory around it
    from being used again.
    """
    step = max(1, _CHUNK // n_scores)
    for start in range(0, n_rows, step):
        yield slice(start, start + step)


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
        found = _best_codes(groups_of(wanted, scales)[:, 0], vectors @ triangle[here, here])
        errors[here] = (weight[:, here] - scales[:, None] * sums(vectors, found)).T
        codes.append(found)
    return torch.stack(codes, 1)


def _best_codes(x: Any, vectors: Any) -> Any:
    """(rows, codebooks) the codes for each row of x, by a search that keeps _BEAMS sums after each codebook."""
    import torch

    # With these columns and a 1 and half a square beside it, a product is half the squared error.
    half_squares = vectors.square().sum(2, keepdim=True) / 2
    books = torch.cat([-vectors, half_squares, torch.ones_like(half_squares)], 2).mT.contiguous()
    found = torch.empty(len(x), len(vectors), dtype=torch.long)
    for rows in chunks(len(x), min(len(vectors), _BEAMS) * vectors.shape[1]):
        found[rows] = _search(x[rows], vectors, books)
    return found


def _search(x: Any, vectors: Any, books: Any) -> Any:
    import torch

    n_books, size, group = vectors.shape
    rest = x[:, None]  # (rows, beams, GROUP) what the sums leave over
    codes = x.new_empty(len(x), 1, 0).long()  # (rows, beams, codebooks so far)
    for c, book in enumerate(books):
        half_squares = rest.square().sum(2, keepdim=True) / 2
        errors = torch.cat([rest, torch.ones_like(half_squares), half_squares], 2).flatten(0, 1) @ book
        errors = errors.view(len(x), -1)
        last = c == n_books - 1
        best = errors.argmin(1, keepdim=True) if last else errors.topk(_BEAMS, largest=False, sorted=False).indices
        beam, code = best // size, best % size
        rest = rest.gather(1, beam[..., None].expand(-1, -1, group)) - vectors[c][code]
        codes = torch.cat([codes.gather(1, beam[..., None].expand(-1, -1, c)), code[..., None]], 2)
    return codes[:, 0]

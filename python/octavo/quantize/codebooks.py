"""Codebooks of a matrix: a first guess, and the best ones for given codes."""

from __future__ import annotations

from typing import Any

from octavo.quantize.codes import GROUP, nearest_sums, sums

_SAMPLES = 64  # vectors of the k-means sample, for each vector of a codebook
_MOST_SAMPLES = 1 << 18
_LLOYD_STEPS = 12
_GRADIENT_STEPS = 5


def residual_kmeans(x: Any, n_books: int, size: int, generator: Any) -> Any:
    """(n_books, size, GROUP) vectors for the rows of x (groups, GROUP): each book is for what those before it leave."""
    import torch

    vectors = [_kmeans(x, size, generator)]
    for _ in range(1, n_books):
        x = x - vectors[-1][_nearest(x, vectors[-1])]
        vectors.append(_kmeans(x, size, generator))
    return torch.stack(vectors)


def _kmeans(x: Any, size: int, generator: Any) -> Any:
    """``size`` means of a sample of the rows of x, by Lloyd's algorithm."""
    import torch

    order = torch.randperm(len(x), generator=generator)
    sample = x[order[: max(size, min(_SAMPLES * size, _MOST_SAMPLES))]]
    means = sample[torch.arange(size) % len(sample)].clone()
    for _ in range(_LLOYD_STEPS):
        nearest = _nearest(sample, means)
        counts = torch.bincount(nearest, minlength=size)
        totals = torch.zeros_like(means).index_add_(0, nearest, sample)
        means = torch.where(counts[:, None] > 0, totals / counts.clamp(min=1)[:, None], means)
    return means


def _nearest(x: Any, vectors: Any) -> Any:
    """(rows,) the number of the vector that is nearest to each row of x."""
    return nearest_sums(x, vectors[None])[:, 0]


def best_vectors(weight: Any, hessian: Any, codes: Any, vectors: Any, scales: Any) -> Any:
    """The vectors nearly with the smallest error of outputs for these codes: E H E^T is quadratic in them.

    Conjugate gradients from ``vectors``, whose unit is each vector's own weight in the error. A few steps reach almost
    all, and leave alone what the error does not determine: vectors that no code names, and shifts of one codebook
    against another.
    """
    import torch

    def gradient(errors: Any) -> Any:  # (codebooks, size, GROUP) of (n, k)
        groups = (errors * scales[:, None]).view(-1, GROUP)
        total = torch.zeros_like(vectors)
        for c, book in enumerate(total):
            book.index_add_(0, codes[..., c].flatten(), groups)
        return total

    def matrix(books: Any) -> Any:  # (n, k)
        return sums(books, codes).flatten(1) * scales[:, None]

    tiny = torch.finfo(torch.float32).tiny
    unit = gradient(scales[:, None] * hessian.diagonal()).clamp(min=tiny)
    rest = gradient((weight - matrix(vectors)) @ hessian)
    direction = rest / unit
    size = (rest * direction).sum()
    for _ in range(_GRADIENT_STEPS):
        change = gradient(matrix(direction) @ hessian)
        step = size / (direction * change).sum().clamp(min=tiny)
        vectors = vectors + step * direction
        rest = rest - step * change
        size, previous = (rest * rest / unit).sum(), size
        direction = rest / unit + size / previous.clamp(min=tiny) * direction
    return vectors

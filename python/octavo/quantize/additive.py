"""Additive quantisation of one matrix (https://arxiv.org/abs/2401.06118), by its weights alone.

A row is scaled to unit power and cut into groups; every group becomes a sum of one vector from each codebook. At first
a codebook is a k-means of what those before it leave over. Rounds then improve all of them together: codes by beam
search, vectors by least squares, scales by projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

GROUP = 8  # weights that a code stands for
_SAMPLES = 64  # vectors of the k-means sample, for each vector of a codebook
_MOST_SAMPLES = 1 << 18
_LLOYD_STEPS = 12
_BEAMS = 4
_CHUNK = 1 << 22  # scores that are in memory at once: about what a cache holds


@dataclass(frozen=True)
class Scheme:
    """``codebooks`` codes of ``bits`` bits for a group of weights, improved in so many rounds."""

    codebooks: int
    bits: int
    rounds: int

    @property
    def size(self) -> int:
        """Vectors in a codebook."""
        return 1 << self.bits

    @property
    def codebook_weights(self) -> int:
        """Numbers in all codebooks of a matrix."""
        return self.codebooks * self.size * GROUP


@dataclass(frozen=True)
class Quantised:
    """A matrix (n, k): scales[row] * sum over c of vectors[c, codes[row, group, c]]."""

    codes: Any  # (n, k / GROUP, codebooks) int64
    vectors: Any  # (codebooks, size, GROUP) float16
    scales: Any  # (n,) float16

    def weights(self) -> Any:
        """The matrix (n, k), in float32."""
        n = self.codes.shape[0]
        groups = _sums(self.vectors.float(), self.codes.flatten(0, 1))
        return groups.view(n, -1) * self.scales.float()[:, None]


def quantise(weight: Any, scheme: Scheme, seed: int = 0) -> Quantised:
    """The matrix ``weight`` (n, k), k a multiple of GROUP, in the scheme; the same bits for the same seed."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    weight = weight.float()
    n = weight.shape[0]
    scales = weight.square().mean(1).sqrt()
    x = _groups(weight, scales)
    vectors, codes = _residual_kmeans(x, scheme, generator)
    for _ in range(scheme.rounds):
        importance = scales.square().repeat_interleave(len(x) // n)
        vectors = _best_vectors(x, importance, codes, vectors)
        codes = _best_codes(x, vectors)
        scales = _best_scales(weight, _sums(vectors, codes).view(n, -1))
        x = _groups(weight, scales)
    vectors = vectors.half()
    codes = _best_codes(x, vectors.float())
    scales = _best_scales(weight, _sums(vectors.float(), codes).view(n, -1)).half()
    return Quantised(codes.view(n, -1, scheme.codebooks), vectors, scales)


def _groups(weight: Any, scales: Any) -> Any:
    """(groups, GROUP) the rows over their scales; a row of zeros stays one."""
    return (weight / scales.masked_fill(scales == 0, 1)[:, None]).reshape(-1, GROUP)


def _residual_kmeans(x: Any, scheme: Scheme, generator: Any) -> tuple[Any, Any]:
    """(codebooks, size, GROUP) vectors and (groups, codebooks) codes: each codebook is for what is left over so far."""
    import torch

    vectors, codes, rest = [], [], x
    for _ in range(scheme.codebooks):
        vectors.append(_kmeans(rest, scheme.size, generator))
        codes.append(_nearest(rest, vectors[-1]))
        rest = rest - vectors[-1][codes[-1]]
    return torch.stack(vectors), torch.stack(codes, 1)


def _kmeans(x: Any, size: int, generator: Any) -> Any:
    """``size`` means of a sample of the rows of x, by Lloyd's algorithm."""
    import torch

    order = torch.randperm(len(x), generator=generator)
    sample = x[order[: max(size, min(_SAMPLES * size, _MOST_SAMPLES))]]
    means = sample[torch.arange(size) % len(sample)].clone()
    for _ in range(_LLOYD_STEPS):
        nearest = _nearest(sample, means)
        counts = torch.bincount(nearest, minlength=size)
        sums = torch.zeros_like(means).index_add_(0, nearest, sample)
        means = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], means)
    return means


def _nearest(x: Any, vectors: Any) -> Any:
    """(rows,) the number of the vector that is nearest to each row of x."""
    import torch

    halves = vectors.square().sum(1) / -2
    step = max(1, _CHUNK // len(vectors))
    found = [torch.addmm(halves, part, vectors.T).argmax(1) for part in x.split(step)]
    return torch.cat(found)


def _sums(vectors: Any, codes: Any) -> Any:
    """(groups, GROUP) what the codes (groups, codebooks) stand for."""
    total = vectors[0][codes[:, 0]]
    for c in range(1, len(vectors)):
        total += vectors[c][codes[:, c]]
    return total


def _best_codes(x: Any, vectors: Any) -> Any:
    """(groups, codebooks) the codes for each group, by a search that keeps the _BEAMS best sums after each codebook."""
    import torch

    step = max(1, _CHUNK // (min(len(vectors), _BEAMS) * vectors.shape[1]))
    return torch.cat([_search(part, vectors) for part in x.split(step)])


def _search(x: Any, vectors: Any) -> Any:
    import torch

    n_books, size, group = vectors.shape
    rest = x[:, None]  # (groups, beams, GROUP) what the sums leave over
    codes = x.new_empty(len(x), 1, 0).long()  # (groups, beams, codebooks so far)
    for c, book in enumerate(vectors):
        errors = rest.square().sum(2, keepdim=True) / 2 - rest @ book.T + book.square().sum(1) / 2
        errors = errors.flatten(1)
        last = c == n_books - 1
        best = errors.argmin(1, keepdim=True) if last else errors.topk(_BEAMS, largest=False).indices
        beam, code = best // size, best % size
        rest = rest.gather(1, beam[..., None].expand(-1, -1, group)) - book[code]
        codes = torch.cat([codes.gather(1, beam[..., None].expand(-1, -1, c)), code[..., None]], 2)
    return codes[:, 0]


def _best_vectors(x: Any, importance: Any, codes: Any, vectors: Any) -> Any:
    """The vectors with the smallest error for these codes, by the normal equations of all codebooks together."""
    import torch

    n_books, size, group = vectors.shape
    weights = importance.double() / importance.double().mean()
    sums = torch.zeros(n_books, size, group, dtype=torch.float64)
    for c in range(n_books):
        sums[c].index_add_(0, codes[:, c], x.double() * weights[:, None])
    if n_books == 1:
        counts = torch.bincount(codes[:, 0], weights, size)[:, None]
        return torch.where(counts > 0, sums[0] / counts.clamp(min=1e-12), vectors[0])[None].float()
    gram = torch.empty(n_books, size, n_books, size, dtype=torch.float64)
    for c in range(n_books):
        for d in range(n_books):
            pairs = torch.bincount(codes[:, c] * size + codes[:, d], weights, size * size)
            gram[c, :, d] = pairs.view(size, size)
    # Codebooks may shift against each other, and vectors be unused: what is not determined stays near where it was.
    gram, damping = gram.view(n_books * size, -1), 1e-3
    gram.diagonal().add_(damping)
    solved = torch.linalg.solve(gram, (sums + damping * vectors).view(-1, group))
    return solved.view(vectors.shape).float()


def _best_scales(weight: Any, sums: Any) -> Any:
    """(n,) the scale of each row with the smallest error."""
    return (weight * sums).sum(1) / sums.square().sum(1).clamp(min=1e-30)

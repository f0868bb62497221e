"""Additive quantisation of one matrix (https://arxiv.org/abs/2401.06118), for the inputs that it meets.

A row is scaled to unit power and cut into groups; every group becomes a sum of one vector from each codebook. What
counts is the error of the outputs: E H E^T for errors E (n, k) of the weights, with the inputs' H = X^T X (k, k).
Codebooks begin as k-means of the weights. Rounds then improve them: codes by a search with feedback, vectors by least
squares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from octavo.quantize.codebooks import best_vectors, residual_kmeans
from octavo.quantize.codes import GROUP, codes_with_feedback, groups_of, sums

_DAMPING = 0.1  # share of H's mean diagonal that is added to it, so that few inputs do not decide everything


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
        return sums(self.vectors.float(), self.codes).flatten(1) * self.scales.float()[:, None]


def quantise(weight: Any, scheme: Scheme, hessian: Any = None, seed: int = 0) -> Quantised:
    """The matrix ``weight`` (n, k), k a multiple of GROUP, in the scheme; the same bits for the same seed.

    Args:
        hessian: H (k, k) of the inputs, in any unit; by default all inputs count alike.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    weight = weight.float()
    hessian = _damped(torch.eye(weight.shape[1]) if hessian is None else hessian)
    triangle = _triangle(hessian)
    scales = weight.square().mean(1).sqrt().half().float()
    vectors = residual_kmeans(groups_of(weight, scales).flatten(0, 1), scheme.codebooks, scheme.size, generator)
    for _ in range(scheme.rounds):
        codes = codes_with_feedback(weight, triangle, vectors, scales)
        vectors = best_vectors(weight, hessian, codes, vectors, scales)
    return Quantised(codes, vectors.half(), scales.half())


def relative_error(weight: Any, approximation: Any, hessian: Any = None) -> float:
    """The error of the outputs of ``approximation`` (n, k), as a share of those of ``weight``: root mean squares."""

    def power(matrix: Any) -> float:
        return float((matrix * (matrix if hessian is None else matrix @ hessian)).sum())

    return float((power(weight - approximation) / (power(weight) or 1.0)) ** 0.5)


def _damped(hessian: Any) -> Any:
    import torch

    diagonal = hessian.diagonal()
    return hessian + torch.eye(len(diagonal)) * (float(diagonal.mean()) * _DAMPING or 1.0)


def _triangle(hessian: Any) -> Any:
    """(k, k) upper triangular R with H = R R^T: what a group of columns costs, given the errors of those before it."""
    import torch

    return torch.linalg.cholesky(hessian.flip(0, 1)).flip(0, 1)

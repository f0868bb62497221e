"""One tensor of a checkpoint, whatever file it lies in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SourceTensor:
    """A tensor, or a matrix that is stored as several: then the others belong to it."""

    name: str  # Hugging Face name
    format: str  # name of a weight format, such as "BF16" or "Q4_K", or AQLM
    shape: tuple[int, ...]  # rows first
    data: Any  # buffer of the rows, in order
    mapped: bool  # the bytes belong to a file, so their pages can be dropped after use
    turned: bool = False  # already (out, in), where the checkpoint of this family has (in, out)
    aqlm: Codebooks | None = None  # what its codes mean

    @property
    def n_bytes(self) -> int:
        """Bytes in the file."""
        own = memoryview(self.data).nbytes
        return own if self.aqlm is None else own + self.aqlm.vectors.n_bytes + self.aqlm.scales.n_bytes


@dataclass(frozen=True)
class Codebooks:
    """What goes with the codes of an AQLM matrix."""

    vectors: SourceTensor  # (codebooks, 2**bits, 1, group)
    scales: SourceTensor  # (rows, 1, 1, 1)

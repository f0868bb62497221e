"""What example scripts print."""

from __future__ import annotations

from collections.abc import Sequence

_SHOWN = 4


def print_embeddings(embedding: Sequence[float], prefix: str = "Embeddings") -> None:
    """Prints the first few numbers of an embedding and how many there are."""
    shown = ", ".join(str(value) for value in embedding[:_SHOWN])
    more = ", ..." if len(embedding) > _SHOWN else ""
    print(f"{prefix}: [{shown}{more}] (size={len(embedding)})")

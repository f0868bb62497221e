"""Pooling: vectors, class probabilities and scores instead of generated text."""

from octavo.pooling.config import PoolerConfig

__all__ = ["PoolerConfig"]

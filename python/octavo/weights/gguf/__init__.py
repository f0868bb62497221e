"""The GGUF file format: octavo's own reader."""

from octavo.weights.gguf.reader import GGUFFile, GGUFTensor, is_gguf
from octavo.weights.gguf.split import open_gguf
from octavo.weights.gguf.types import GGML_TYPES, GGMLType

__all__ = ["GGML_TYPES", "GGMLType", "GGUFFile", "GGUFTensor", "is_gguf", "open_gguf"]

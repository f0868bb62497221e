"""What model files are written with: modules that record ops when they are called on traced values."""

from octavo.nn.config import ModelConfig
from octavo.nn.modules import (
    Attention,
    Block,
    CausalLM,
    Embedding,
    FusedLinear,
    Linear,
    LMHead,
    RMSNorm,
)
from octavo.nn.rope import Rope
from octavo.nn.trace import Trace, Value, silu

__all__ = [
    "Attention",
    "Block",
    "CausalLM",
    "Embedding",
    "FusedLinear",
    "LMHead",
    "Linear",
    "ModelConfig",
    "RMSNorm",
    "Rope",
    "Trace",
    "Value",
    "silu",
]

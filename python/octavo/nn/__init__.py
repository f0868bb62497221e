"""What model files are written with: modules that record ops when they are called on traced values."""

from octavo.nn.config import ModelConfig
from octavo.nn.functional import activation, sigmoid, silu, soft_cap, tanh
from octavo.nn.model import CausalLM, LMHead, Model
from octavo.nn.modules import (
    Attention,
    Block,
    Embedding,
    FusedLinear,
    HeadLayerNorm,
    LayerNorm,
    Linear,
    RMSNorm,
    interleaved_rows,
)
from octavo.nn.moe import MoE
from octavo.nn.relative_bias import RelativeBias
from octavo.nn.rope import Rope
from octavo.nn.trace import Part, Trace, Value, Weights

__all__ = [
    "Attention",
    "Block",
    "CausalLM",
    "Embedding",
    "FusedLinear",
    "HeadLayerNorm",
    "LMHead",
    "LayerNorm",
    "Linear",
    "MoE",
    "Model",
    "ModelConfig",
    "Part",
    "RMSNorm",
    "RelativeBias",
    "Rope",
    "Trace",
    "Value",
    "Weights",
    "activation",
    "interleaved_rows",
    "sigmoid",
    "silu",
    "soft_cap",
    "tanh",
]

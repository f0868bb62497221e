"""Gemma 3, text alone, and EmbeddingGemma (https://arxiv.org/abs/2503.19786, https://arxiv.org/abs/2509.20354).

Layers with a sliding window have a rope of their own; queries and keys are normalised.
"""

from __future__ import annotations

from octavo import nn
from octavo.models.gemma import Gemma, norm
from octavo.models.gemma2 import Gemma2Layer, layer_kinds


class Gemma3Layer(Gemma2Layer):
    def __init__(self, prefix: str, c: nn.ModelConfig, layer: int, rope: nn.Rope, kind: str) -> None:
        super().__init__(prefix, c, layer, rope, kind)
        self.q_norm = norm(f"{prefix}.self_attn.q_norm", c)
        self.k_norm = norm(f"{prefix}.self_attn.k_norm", c)

    def attend(self, x: nn.Value) -> nn.Value:
        q, k, v = self.qkv(x)
        return self.o_proj(self.attn(self.q_norm(q), self.k_norm(k), v))


class Gemma3(Gemma):
    renamed_prefixes = (
        ("language_model.lm_head.", "lm_head."),
        ("language_model.model.", "model."),
        ("language_model.", "model."),
        ("model.language_model.", "model."),
    )
    ignored = (*nn.Model.ignored, r"(model\.)?(vision_tower|multi_modal_projector)\..*")
    defaults = {
        **Gemma.defaults,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": 131072,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
        "use_bidirectional_attention": False,
        "vocab_size": 262208,
    }

    def make_layers(self) -> list[nn.Block]:
        c = self.config
        self.causal = not c.use_bidirectional_attention
        ropes = {kind: nn.Rope(parameters, c.head_dim) for kind, parameters in c.rope_parameters.items()}
        kinds = layer_kinds(c, every=c.sliding_window_pattern)
        return [Gemma3Layer(f"model.layers.{i}", c, i, ropes[kind], kind) for i, kind in enumerate(kinds)]

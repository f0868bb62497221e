"""Qwen1.5-MoE and Qwen2-MoE: many small experts beside one that all tokens share (https://arxiv.org/abs/2407.10671)."""

from __future__ import annotations

from octavo import nn
from octavo.models.llama import Llama, LlamaAttention, LlamaLayer, LlamaMLP

MOE_DEFAULTS = {**Llama.defaults, "use_sliding_window": False, "norm_topk_prob": False, "decoder_sparse_step": 1}


def experts(prefix: str, c: nn.ModelConfig) -> nn.MoE:
    """The experts of one layer, by the names that Qwen gives them."""
    n_experts = c.get("num_experts", None) or c.num_local_experts  # transformers 5 may write the second name
    names = [f"{prefix}.experts.{e}" for e in range(n_experts)]
    return nn.MoE(
        f"{prefix}.gate",
        [(f"{name}.gate_proj", f"{name}.up_proj", f"{name}.down_proj") for name in names],
        top_k=c.num_experts_per_tok,
        normalize=c.norm_topk_prob,
        activation=c.hidden_act,
    )


def is_sparse(c: nn.ModelConfig, layer: int) -> bool:
    """Whether a layer has experts rather than one MLP."""
    dense: list[int] = c.get("mlp_only_layers", [])
    step: int = c.decoder_sparse_step
    return layer not in dense and (layer + 1) % step == 0


class SharedMoE(nn.Block):
    def __init__(self, prefix: str, c: nn.ModelConfig) -> None:
        self.moe = experts(prefix, c)
        self.shared = LlamaMLP(f"{prefix}.shared_expert", c)
        self.shared_gate = nn.Linear(f"{prefix}.shared_expert_gate")  # (1, hidden)

    def forward(self, x: nn.Value) -> nn.Value:
        shared: nn.Value = self.shared(x)
        return self.moe(x) + shared * nn.sigmoid(self.shared_gate(x))


class Qwen2Moe(Llama):
    defaults = {
        **MOE_DEFAULTS,
        "num_experts": 60,
        "num_experts_per_tok": 4,
        "max_window_layers": 28,
        "qkv_bias": True,
    }

    def layer(self, prefix: str, index: int, rope: nn.Rope) -> nn.Block:
        c = self.config
        attention = LlamaAttention(
            f"{prefix}.self_attn", c, index, rope, window=self.window(index), qkv_bias=c.qkv_bias
        )
        return LlamaLayer(prefix, c, attention, SharedMoE(f"{prefix}.mlp", c) if is_sparse(c, index) else None)

    def window(self, layer: int) -> int:
        """The sliding window of a layer, 0 for none."""
        c = self.config
        kinds = c.get("layer_types", None)
        every_second = layer % 2 == 0 and layer < c.max_window_layers
        slides = kinds[layer] == "sliding_attention" if kinds else every_second
        width: int = c.get("sliding_window", 4096)
        return width if c.use_sliding_window and slides else 0

"""Llama 1 to 3.3 and what shares their shape (https://arxiv.org/abs/2407.21783)."""

from __future__ import annotations

from octavo import nn


class LlamaLayer(nn.Block):
    def __init__(self, prefix: str, c: nn.ModelConfig, layer: int, rope: nn.Rope) -> None:
        self.attn_norm = nn.RMSNorm(f"{prefix}.input_layernorm", c.rms_norm_eps)
        self.qkv = nn.FusedLinear(f"{prefix}.self_attn", "q_proj", "k_proj", "v_proj")
        self.attn = nn.Attention(
            layer=layer, heads=c.num_attention_heads, kv_heads=c.num_key_value_heads, head_dim=c.head_dim, rope=rope
        )
        self.o_proj = nn.Linear(f"{prefix}.self_attn.o_proj")
        self.mlp_norm = nn.RMSNorm(f"{prefix}.post_attention_layernorm", c.rms_norm_eps)
        self.gate_up = nn.FusedLinear(f"{prefix}.mlp", "gate_proj", "up_proj")
        self.act = nn.activation(c.hidden_act)
        self.down_proj = nn.Linear(f"{prefix}.mlp.down_proj")

    def forward(self, x: nn.Value) -> nn.Value:  # x: (n_tokens, hidden)
        q, k, v = self.qkv(self.attn_norm(x))
        x = x + self.o_proj(self.attn(q, k, v))
        gate, up = self.gate_up(self.mlp_norm(x))
        return x + self.down_proj(self.act(gate) * up)


class Llama(nn.CausalLM):
    def __init__(self, c: nn.ModelConfig) -> None:
        super().__init__(c)
        rope = nn.Rope(c.rope_parameters, c.head_dim)
        self.embed = nn.Embedding("model.embed_tokens")
        self.layers = [LlamaLayer(f"model.layers.{i}", c, i, rope) for i in range(c.num_hidden_layers)]
        self.norm = nn.RMSNorm("model.norm", c.rms_norm_eps)
        self.lm_head = nn.LMHead(c, "model.embed_tokens")

    def body(self, tokens: nn.Trace) -> nn.Value:
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return x

    def final_norm(self, hidden: nn.Value) -> nn.Value:
        return self.norm(hidden)

    def logits(self, hidden: nn.Value) -> nn.Value:
        return self.lm_head(hidden)

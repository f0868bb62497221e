"""OPT and Galactica (https://arxiv.org/abs/2205.01068, https://arxiv.org/abs/2211.09085)."""

from __future__ import annotations

from octavo import nn

_EPS = 1e-5
_POSITION_OFFSET = 2  # the first two rows of the table stand for no position


class OPTLayer(nn.Block):
    def __init__(self, prefix: str, c: nn.ModelConfig, layer: int) -> None:
        self.norm_first = c.do_layer_norm_before
        affine = c.layer_norm_elementwise_affine
        self.attn_norm = nn.LayerNorm(f"{prefix}.self_attn_layer_norm", _EPS, affine=affine)
        self.qkv = nn.FusedLinear(f"{prefix}.self_attn", "q_proj", "k_proj", "v_proj", bias=c.enable_bias)
        heads = c.num_attention_heads
        self.attn = nn.Attention(layer=layer, heads=heads, kv_heads=heads, head_dim=c.head_dim, rope=None)
        self.out_proj = nn.Linear(f"{prefix}.self_attn.out_proj", bias=c.enable_bias)
        self.mlp_norm = nn.LayerNorm(f"{prefix}.final_layer_norm", _EPS, affine=affine)
        self.fc1 = nn.Linear(f"{prefix}.fc1", bias=c.enable_bias)
        self.act = nn.activation(c.activation_function)
        self.fc2 = nn.Linear(f"{prefix}.fc2", bias=c.enable_bias)

    def forward(self, x: nn.Value) -> nn.Value:  # x: (n_tokens, hidden)
        if self.norm_first:
            x = x + self.attend(self.attn_norm(x))
            return x + self.fc2(self.act(self.fc1(self.mlp_norm(x))))
        x = self.attn_norm(x + self.attend(x))
        return self.mlp_norm(x + self.fc2(self.act(self.fc1(x))))

    def attend(self, x: nn.Value) -> nn.Value:
        return self.out_proj(self.attn(*self.qkv(x)))


class OPT(nn.CausalLM):
    ignored = (*nn.Model.ignored, r"model\.lm_head\..*", r"model\.decoder\.version")
    defaults = {
        "activation_function": "relu",
        "do_layer_norm_before": True,
        "enable_bias": True,
        "layer_norm_elementwise_affine": True,
        "_remove_final_layer_norm": False,
        "tie_word_embeddings": True,
    }

    def __init__(self, c: nn.ModelConfig) -> None:
        super().__init__(c)
        self.embed = nn.Embedding("model.decoder.embed_tokens")
        self.embed_positions = nn.Embedding("model.decoder.embed_positions", "positions", _POSITION_OFFSET)
        projects = c.get("word_embed_proj_dim", c.hidden_size) != c.hidden_size
        self.project_in = nn.Linear("model.decoder.project_in") if projects else None
        self.layers = [OPTLayer(f"model.decoder.layers.{i}", c, i) for i in range(c.num_hidden_layers)]
        has_norm = c.do_layer_norm_before and not c._remove_final_layer_norm
        affine = c.layer_norm_elementwise_affine
        self.norm = nn.LayerNorm("model.decoder.final_layer_norm", _EPS, affine=affine) if has_norm else None
        self.project_out = nn.Linear("model.decoder.project_out") if projects else None
        self.lm_head = nn.LMHead(c, "model.decoder.embed_tokens")

    def body(self, tokens: nn.Trace) -> nn.Value:
        x = self.embed(tokens)
        if self.project_in:
            x = self.project_in(x)
        x = x + self.embed_positions(tokens)
        for layer in self.layers:
            x = layer(x)
        return x

    def final_norm(self, hidden: nn.Value) -> nn.Value:
        if self.norm:
            hidden = self.norm(hidden)
        return self.project_out(hidden) if self.project_out else hidden

    def logits(self, hidden: nn.Value) -> nn.Value:
        return self.lm_head(hidden)

"""GPT-2 (https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf)."""

from __future__ import annotations

from octavo import nn


class GPT2Layer(nn.Block):
    """Its linears are stored as (in features, out features)."""

    def __init__(self, prefix: str, c: nn.ModelConfig, layer: int) -> None:
        heads, hidden = c.num_attention_heads, c.hidden_size
        self.ln_1 = nn.LayerNorm(f"{prefix}.ln_1", c.layer_norm_epsilon)
        thirds = [slice(i * hidden, (i + 1) * hidden) for i in range(3)]
        self.qkv = nn.FusedLinear(
            f"{prefix}.attn", *(nn.Part("c_attn", rows, transposed=True) for rows in thirds), bias=True
        )
        scale = c.head_dim**-0.5 if c.scale_attn_weights else 1.0
        if c.scale_attn_by_inverse_layer_idx:
            scale /= layer + 1
        self.attn = nn.Attention(layer=layer, heads=heads, kv_heads=heads, head_dim=c.head_dim, rope=None, scale=scale)
        self.attn_proj = nn.Linear(f"{prefix}.attn.c_proj", transposed=True, bias=True)
        self.ln_2 = nn.LayerNorm(f"{prefix}.ln_2", c.layer_norm_epsilon)
        self.fc = nn.Linear(f"{prefix}.mlp.c_fc", transposed=True, bias=True)
        self.act = nn.activation(c.activation_function)
        self.mlp_proj = nn.Linear(f"{prefix}.mlp.c_proj", transposed=True, bias=True)

    def forward(self, x: nn.Value) -> nn.Value:  # x: (n_tokens, hidden)
        x = x + self.attn_proj(self.attn(*self.qkv(self.ln_1(x))))
        return x + self.mlp_proj(self.act(self.fc(self.ln_2(x))))


class GPT2(nn.CausalLM):
    base_prefix = "transformer"
    token_classifier = "classifier"
    ignored = (*nn.Model.ignored, r"transformer\.h\.\d+\.attn\.(bias|masked_bias)")  # masks
    defaults = {
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "n_positions": 1024,
        "scale_attn_by_inverse_layer_idx": False,
        "scale_attn_weights": True,
        "tie_word_embeddings": True,
    }

    def __init__(self, c: nn.ModelConfig) -> None:
        super().__init__(c)
        c.require("add_cross_attention", False)
        self.wte = nn.Embedding("transformer.wte")
        self.wpe = nn.Embedding("transformer.wpe", "positions")
        self.layers = [GPT2Layer(f"transformer.h.{i}", c, i) for i in range(c.num_hidden_layers)]
        self.ln_f = nn.LayerNorm("transformer.ln_f", c.layer_norm_epsilon)
        self.lm_head = nn.LMHead(c, "transformer.wte")

    def body(self, tokens: nn.Trace) -> nn.Value:
        x = self.wte(tokens) + self.wpe(tokens)
        for layer in self.layers:
            x = layer(x)
        return x

    def final_norm(self, hidden: nn.Value) -> nn.Value:
        return self.ln_f(hidden)

    def logits(self, hidden: nn.Value) -> nn.Value:
        return self.lm_head(hidden)

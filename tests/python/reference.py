"""What results are held against: transformers in float32, with the weights of the same file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]  # (n_tokens, vocabulary)

TIE = 1e-4  # top logits that lie closer than this may come in either order

_GGUF_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GGUF_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


@dataclass
class Reference:
    """A transformers model in float32."""

    model: Any

    def logits(self, token_ids: Sequence[int]) -> Logits:
        """The logits after each token."""
        import torch

        with torch.inference_mode():
            logits: Logits = self.model(torch.tensor([list(token_ids)])).logits[0].numpy()
        return logits

    def check_greedy(self, prompt: Sequence[int], output: Sequence[int]) -> None:
        """Asserts that ``output`` is the greedy continuation of ``prompt``, ties aside."""
        logits = self.logits([*prompt, *output])[len(prompt) - 1 : -1]  # scalings of positions depend on the length
        for position, (token, row) in enumerate(zip(output, logits, strict=True)):
            second, best = np.argsort(row)[-2:]
            if token != best:
                gap = float(row[best] - row[second])
                assert token == second and gap <= TIE, f"{token} instead of {best} at {position}, ahead by {gap:.2e}"


def from_folder(folder: Path) -> Reference:
    """The model in a Hugging Face folder, computed in float32 whatever it is stored in."""
    import torch
    from transformers import AutoModelForCausalLM

    return Reference(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval())


def from_llama_gguf(path: Path) -> Reference:
    """A Llama GGUF with its weights dequantised by the gguf package."""
    import torch
    from gguf import GGUFReader, dequantize
    from transformers import LlamaForCausalLM

    reader = GGUFReader(path)
    config = _llama_config(reader)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    state = {}
    for tensor in reader.tensors:
        values = np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        kind = tensor.name.split(".")[-2]
        state[_hf_name(tensor.name)] = torch.from_numpy(
            _half_rotation(values, heads[kind]) if kind in heads else values
        )
    config.tie_word_embeddings = "lm_head.weight" not in state
    state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return Reference(model.eval())


def _llama_config(reader: Any) -> Any:
    from transformers import LlamaConfig

    def value(key: str) -> Any:
        return reader.get_field(f"llama.{key}").contents()

    head_dim = reader.get_field("llama.attention.key_length")
    return LlamaConfig(
        hidden_size=value("embedding_length"),
        head_dim=None if head_dim is None else head_dim.contents(),
        intermediate_size=value("feed_forward_length"),
        num_hidden_layers=value("block_count"),
        num_attention_heads=value("attention.head_count"),
        num_key_value_heads=value("attention.head_count_kv"),
        max_position_embeddings=value("context_length"),
        rms_norm_eps=value("attention.layer_norm_rms_epsilon"),
        vocab_size=len(reader.get_field("tokenizer.ggml.tokens").data),
        rope_parameters={"rope_type": "default", "rope_theta": value("rope.freq_base")},
    )


def _hf_name(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{_GGUF_LAYER[parts[2]]}.{parts[3]}"
    return f"{_GGUF_TOP[parts[0]]}.{parts[1]}"


def _half_rotation(weight: Logits, n_heads: int) -> Logits:
    """Rows as transformers rotates them (first half with second half); llama.cpp rotates neighbours."""
    rows, columns = weight.shape
    pairs = weight.reshape(n_heads, rows // n_heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows, columns))

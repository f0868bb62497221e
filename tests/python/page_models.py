"""Small random stand-ins for the Basic page's default models, in a hub cache under the page's names.

Sizes aside, their configs have the fields of the real ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aqlm_folders import Scheme, make_aqlm
from pooling_folders import save_model, write_modules, write_tokenizer

_COMMIT = "0" * 40
_TEMPLATE = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n{{ m.content }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n{% endif %}"
)
_SIZES = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64, "vocab_size": 320}
_DECODER = {**_SIZES, "num_key_value_heads": 2, "intermediate_size": 96, "hidden_act": "silu", "use_cache": True}
_NAMED = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}  # ids 0 to 3


def add_page_model(cache: Path, name: str) -> Path:
    """The folder of one of the page's default models, made in the hub cache."""
    repo = cache / f"models--{name.replace('/', '--')}"
    folder = repo / "snapshots" / _COMMIT
    folder.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(_COMMIT)
    config = _MODELS[name](folder)
    (folder / "config.json").write_text(json.dumps(config))
    missing = ("tokenizer.json", "tokenizer_config.json", "modules.json", "1_Pooling/config.json")
    for file in missing:
        if not (folder / file).is_file():
            marker = repo / ".no_exist" / _COMMIT / file
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
    return folder


def _saved(folder: Path, architecture: str, config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Writes a random model of this config; returns the config as the page's models spell it."""
    import torch
    import transformers

    family = architecture.removesuffix("ForCausalLM").removesuffix("Model").removesuffix("ForSequenceClassification")
    made = getattr(transformers, f"{family}Config")(**config)
    save_model(getattr(transformers, architecture)(made), folder, dtype=getattr(torch, dtype))
    return {"architectures": [architecture], "model_type": made.model_type, "torch_dtype": dtype, **config}


def _opt(folder: Path) -> dict[str, Any]:
    """facebook/opt-125m: weights in PyTorch's own file, the vocabulary and its merges in GPT-2's two."""
    import torch
    from safetensors.torch import load_file

    write_tokenizer(folder, **_NAMED).backend_tokenizer.model.save(str(folder))
    (folder / "tokenizer.json").unlink()
    named = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    tokens = {name: {"content": text, "normalized": True, "__type": "AddedToken"} for name, text in named.items()}
    tokenizer = {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "add_prefix_space": False, **tokens}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "special_tokens_map.json").write_text(json.dumps(named))
    ids = {"bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1, "prefix": "</s>"}
    sizes = {**_SIZES, "ffn_dim": 128, "word_embed_proj_dim": 64, "max_position_embeddings": 256}
    rest = {"activation_function": "relu", "do_layer_norm_before": True, "_remove_final_layer_norm": False}
    config = _saved(folder, "OPTForCausalLM", {**sizes, **ids, **rest, "init_std": 0.02}, "float16")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return config


def _llama(folder: Path) -> dict[str, Any]:
    """meta-llama/Llama-3.2-1B-Instruct: tied embeddings, RoPE scaled as in Llama 3."""
    marks = {"start": "<|start_header_id|>", "end": "<|end_header_id|>"}
    named = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", **{f"{k}_token": v for k, v in marks.items()}}
    tokenizer = write_tokenizer(folder, single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A $B", **named)
    tokenizer.chat_template = _TEMPLATE
    tokenizer.save_pretrained(folder)
    scaling = {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 256,
        "rope_type": "llama3",
    }
    config = {**_DECODER, "tie_word_embeddings": True, "head_dim": 16, "max_position_embeddings": 4096}
    config |= {"rope_scaling": scaling, "rope_theta": 500000.0, "rms_norm_eps": 1e-05, "mlp_bias": False}
    config |= {"attention_bias": False, "bos_token_id": 0, "eos_token_id": 1, "pretraining_tp": 1}
    generation = {"bos_token_id": 0, "eos_token_id": [1], "do_sample": True, "temperature": 0.6, "top_p": 0.9}
    saved = _saved(folder, "LlamaForCausalLM", config, "bfloat16")
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return saved


def _qwen2(folder: Path) -> dict[str, Any]:
    """jason9693/Qwen2.5-1.5B-apeach: two labels, and no tokens around a text."""
    write_tokenizer(folder, bos_token="<|endoftext|>", pad_token="<|endoftext|>", eos_token="<|im_end|>")
    config = {**_DECODER, "tie_word_embeddings": True, "max_position_embeddings": 1024, "rope_theta": 1000000.0}
    config |= {"rms_norm_eps": 1e-06, "sliding_window": None, "use_sliding_window": False, "max_window_layers": 28}
    config |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    return _saved(folder, "Qwen2ForSequenceClassification", config, "bfloat16")


def _mistral(folder: Path) -> dict[str, Any]:
    """intfloat/e5-mistral-7b-instruct: the last token is </s>, and its vector the embedding."""
    write_tokenizer(folder, single="<s> $A </s>", pair="<s> $A </s> <s> $B </s>", **_NAMED)
    write_modules(folder, "Pooling", "Normalize", pooling="lasttoken", max_seq_length=256, do_lower_case=False)
    config = {**_DECODER, "tie_word_embeddings": False, "max_position_embeddings": 1024, "rope_theta": 10000.0}
    config |= {"rms_norm_eps": 1e-05, "sliding_window": 256, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 2}
    return _saved(folder, "MistralModel", config, "float16")


def _xlm_roberta(folder: Path) -> dict[str, Any]:
    """BAAI/bge-reranker-v2-m3: one label; positions begin after the padding token's."""
    write_tokenizer(folder, single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", **_NAMED)
    config = {**_SIZES, "intermediate_size": 128, "max_position_embeddings": 130, "type_vocab_size": 1}
    config |= {"hidden_act": "gelu", "layer_norm_eps": 1e-05, "position_embedding_type": "absolute"}
    config |= {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "hidden_dropout_prob": 0.1}
    config |= {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "classifier_dropout": None}
    return _saved(folder, "XLMRobertaForSequenceClassification", config, "float32")


def _aqlm(name: str, scheme: Scheme, *, legacy: bool = False) -> Callable[[Path], dict[str, Any]]:
    """ISTA-DASLab's checkpoints: fp16, the tokenizer's files beside them, Mixtral's routers among what is kept."""

    def write(folder: Path) -> dict[str, Any]:
        write_tokenizer(folder, single="<s> $A", pair="<s> $A </s> $B", **_NAMED)
        config = {**_DECODER, "tie_word_embeddings": False, "max_position_embeddings": 256, "rms_norm_eps": 1e-05}
        config |= {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
        if name == "Mixtral":
            config |= {"num_local_experts": 3, "num_experts_per_tok": 2, "sliding_window": None}
        saved = _saved(folder, f"{name}ForCausalLM", config, "float16")
        (folder / "config.json").write_text(json.dumps(saved))
        make_aqlm(folder, folder, scheme, legacy=legacy)
        quantised: dict[str, Any] = json.loads((folder / "config.json").read_text())
        return quantised

    return write


_MODELS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "facebook/opt-125m": _opt,
    "meta-llama/Llama-3.2-1B-Instruct": _llama,
    "jason9693/Qwen2.5-1.5B-apeach": _qwen2,
    "intfloat/e5-mistral-7b-instruct": _mistral,
    "BAAI/bge-reranker-v2-m3": _xlm_roberta,
    "ISTA-DASLab/Llama-2-7b-AQLM-2Bit-1x16-hf": _aqlm("Llama", Scheme(1, 16), legacy=True),
    "ISTA-DASLab/Llama-2-7b-AQLM-2Bit-2x8-hf": _aqlm("Llama", Scheme(2, 8)),
    "ISTA-DASLab/Llama-2-13b-AQLM-2Bit-1x16-hf": _aqlm("Llama", Scheme(1, 16)),
    "ISTA-DASLab/Mixtral-8x7b-AQLM-2Bit-1x16-hf": _aqlm("Mixtral", Scheme(1, 16)),
    "BlackSamorez/TinyLlama-1_1B-Chat-v1_0-AQLM-2Bit-1x16-hf": _aqlm("Llama", Scheme(1, 16)),
}

"""What the tokenizer classes of transformers agree on without a file saying so: special tokens and their places.

Source: the classes' defaults, https://github.com/huggingface/transformers/tree/main/src/transformers/models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from tokenizers import Tokenizer

from octavo.tokenizer.vocabulary import add_template

# "ends": BOS and EOS as configured; "cls": [CLS] A [SEP] B [SEP]; "double": <s> A </s></s> B </s>.
Frame = Literal["ends", "cls", "double"]
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Family(NamedTuple):
    """One tokenizer class."""

    tokens: Mapping[str, str]  # name -> token, where no file gives another
    frame: Frame = "ends"
    mask_takes_space: bool = False  # the mask token swallows the space before it


_BERT_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
_ROBERTA_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
_BERT = Family(_BERT_TOKENS, "cls")
_ROBERTA = Family(_ROBERTA_TOKENS, "double", mask_takes_space=True)
_GPT2 = Family(dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"))
_QWEN2 = Family(dict.fromkeys(("eos_token", "pad_token"), "<|endoftext|>"))
_LLAMA = Family({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
_GEMMA = Family(
    {
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    }
)
_T5 = Family({"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"})
_UNKNOWN = Family({})

# Tokenizer class, without "Tokenizer" and "Fast" -> family.
_BY_CLASS = {
    "Bert": _BERT,
    "DistilBert": _BERT,
    "Electra": _BERT,
    "MobileBert": _BERT,
    "MPNet": Family({**_ROBERTA_TOKENS, "unk_token": "[UNK]"}, "double", mask_takes_space=True),
    "Roberta": _ROBERTA,
    "Bart": _ROBERTA,
    "Longformer": _ROBERTA,
    "XLMRoberta": _ROBERTA,
    "GPT2": _GPT2,
    "CodeGen": _GPT2,
    "GPTNeoX": _GPT2,
    "Qwen2": _QWEN2,
    "Llama": _LLAMA,
    "Gemma": _GEMMA,
    "T5": _T5,
}
# model_type of config.json -> key of _BY_CLASS, for folders that do not name the class.
_BY_MODEL_TYPE = {
    "bert": "Bert",
    "nomic_bert": "Bert",
    "distilbert": "DistilBert",
    "electra": "Electra",
    "mobilebert": "MobileBert",
    "mpnet": "MPNet",
    "roberta": "Roberta",
    "bart": "Bart",
    "longformer": "Longformer",
    "xlm-roberta": "XLMRoberta",
    **dict.fromkeys(("gpt2", "gpt_bigcode", "gpt_neo", "gptj", "opt", "phi", "starcoder2"), "GPT2"),
    "codegen": "CodeGen",
    "gpt_neox": "GPTNeoX",
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen3", "qwen3_moe"), "Qwen2"),
    **dict.fromkeys(("llama", "mistral", "mixtral", "phi3"), "Llama"),
    **dict.fromkeys(("gemma", "gemma2", "gemma3", "gemma3_text"), "Gemma"),
    "t5": "T5",
}
_NO_CLASS = ("", "PreTrained", "Tokenizers")  # a tokenizer.json and nothing else


def class_name(config: Mapping[str, Any], model_config: Mapping[str, Any]) -> str:
    """The tokenizer's class by tokenizer_config.json, else by the model's config.json: "Bert", "GPT2" and so on."""
    name = str(config.get("tokenizer_class") or "").removesuffix("Backend").removesuffix("Fast")
    name = name.removesuffix("Tokenizer")
    return _BY_MODEL_TYPE.get(str(model_config.get("model_type")), "") if name in _NO_CLASS else name


def family_of(name: str) -> Family:
    """The family of a class by its name; one without rules of its own where the class is not known."""
    return _BY_CLASS.get(name, _UNKNOWN)


def add_frame(backend: Tokenizer, frame: Frame, first: int, last: int) -> None:
    """Put the tokens ``first`` and ``last`` around a text, and what the frame says between the two of a pair."""
    if frame == "double":
        add_template(backend, [first], [last], between=[last], pair_type=0)
    else:
        add_template(backend, [first], [last], between=[])

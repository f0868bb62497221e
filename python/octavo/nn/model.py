"""What a model is: a body over all tokens, and what is made of its hidden states."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from octavo.nn.config import ModelConfig
from octavo.nn.modules import Linear
from octavo.nn.trace import Part, Trace, Value


class Model(ABC):
    """A transformer without its task: decoders and encoders alike.

    Attributes:
        base_prefix: What the names of tensors begin with in a checkpoint that has a head, and not in one of the base
            model alone, such as "model" or "bert".
        renamed_prefixes: Other beginnings of tensors' names that checkpoints have, and what the model calls them.
        causal: Whether tokens see only what came before them.
        token_classifier: The linear that classifies each token by itself.
        default_pooling: How hidden states become one vector where the model's files do not say: "LAST", "CLS", "MEAN".
        defaults: What the family's config files may leave out, by its names; null is no omission.
        ignored: Checkpoint tensors that carry no weights, or are heads for other tasks, as regular expressions.
    """

    base_prefix = "model"
    renamed_prefixes: ClassVar[tuple[tuple[str, str], ...]] = ()
    causal = True
    token_classifier = "score"
    default_pooling = "LAST"
    defaults: ClassVar[Mapping[str, Any]] = {}
    ignored: tuple[str, ...] = (r".*\.rotary_emb\.inv_freq", r"(lm_head|score)\..*")

    def __init__(self, config: ModelConfig) -> None:
        self.config = config

    @abstractmethod
    def body(self, tokens: Trace) -> Value:
        """Token ids -> hidden states (n_tokens, hidden), before the final norm."""

    def final_norm(self, hidden: Value) -> Value:
        """The norm after the last layer."""
        return hidden

    def classify(self, pooled: Value) -> Value:
        """Pooled hidden states -> a logit for each label (n_rows, labels)."""
        return Linear("score")(pooled)

    def classify_token(self, hidden: Value) -> Value:
        """Hidden states -> a logit for each label of each token (n_rows, labels)."""
        return Linear(self.token_classifier, bias=True)(hidden)

    @property
    def kv_values_per_token(self) -> int:
        """Numbers that the KV cache holds for one token, over all layers that keep them."""
        c = self.config
        layers = c.num_hidden_layers if self.causal else 1
        values: int = 2 * layers * c.num_key_value_heads * c.head_dim
        return values

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        width: int = self.config.hidden_size
        return width

    @property
    def max_positions(self) -> int:
        """Tokens of the longest sequence the model was made for."""
        longest: int = self.config.get("max_position_embeddings", 2048)
        rope = self.config.get("rope_parameters", {})
        if rope.get("rope_type") in ("dynamic", "yarn"):
            return max(longest, int(rope["original_max_position_embeddings"] * rope["factor"]))
        return longest


class CausalLM(Model):
    """A decoder that can generate: its hidden states become logits over the vocabulary."""

    @abstractmethod
    def logits(self, hidden: Value) -> Value:
        """Hidden states after the final norm -> logits (n_rows, vocabulary)."""


class LMHead:
    """Logits by ``lm_head``, or by the embedding table where the two are tied; screened unless a soft cap follows."""

    def __init__(self, config: ModelConfig, embedding: str, head: str = "lm_head") -> None:
        name = embedding if config.get("tie_word_embeddings", False) else head
        self.part = Part(name, screened=not config.get("final_logit_softcapping", 0.0))

    def __call__(self, x: Value) -> Value:
        return x.linear([self.part])[0]

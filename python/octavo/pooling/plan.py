"""What a model is run for, and how its hidden states become results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from octavo.errors import InvalidInputError
from octavo.pooling.activations import classes_activation
from octavo.pooling.config import PoolerConfig, merged
from octavo.pooling.sentence_transformers import DenseModule, SentenceTransformer, read_sentence_transformer

if TYPE_CHECKING:
    from octavo.engine_args import EngineArgs

Head = Literal["embed", "classify"]

_GENERATIVE = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_OF_TOKENS = "ForTokenClassification"
_CLASSIFYING = ("ForSequenceClassification", _OF_TOKENS)


@dataclass(frozen=True)
class PoolingPlan:
    """How a model is run for pooling.

    Attributes:
        head: Whether hidden states go through the classifier or are the result.
        classifies_tokens: The classifier was made for tokens, not for what is pooled of them.
        per_token: The model's own task gives a row for every token.
        pooling: "LAST", "CLS" or "MEAN"; None is the model's own default.
        use_activation: Whether the last step is done where a request does not say.
        activation: The last step of a classifier; see octavo.pooling.activations.
        n_labels: Classes; 0 without a classifier.
        dimensions: Leading dimensions that are kept where a request does not say.
        matryoshka: Whether embeddings may be cut.
        matryoshka_dimensions: The sizes they may be cut to; empty for any.
        max_seq_length: Most tokens of a text by the model's files; None for the model's context.
        lowercase: Texts are brought to lower case first.
        dense: Linear layers after pooling.
        label_tokens: Tokens of the vocabulary whose output rows make the classifier; empty for its own weights.
        label_difference: The classifier is one row: the second token's less the first's.
        concatenates: A pair of texts is scored as one text, without a separator.
    """

    head: Head
    classifies_tokens: bool = False
    per_token: bool = False
    pooling: str | None = None
    use_activation: bool = True
    activation: str = "identity"
    n_labels: int = 0
    dimensions: int | None = None
    matryoshka: bool = False
    matryoshka_dimensions: tuple[int, ...] = ()
    max_seq_length: int | None = None
    lowercase: bool = False
    dense: tuple[DenseModule, ...] = ()
    label_tokens: tuple[str, ...] = ()
    label_difference: bool = False
    concatenates: bool = False

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the model may be asked for: a row for a prompt, a row for a token."""
        return (f"token_{self.head}",) if self.classifies_tokens else (self.head, f"token_{self.head}")

    @property
    def task(self) -> str:
        """What the model is asked for where the caller does not say."""
        return self.tasks[-1] if self.per_token else self.tasks[0]


def resolve_pooling(
    args: EngineArgs, config: Mapping[str, Any], architecture: str, folder: Path | None, *, language_model: bool
) -> PoolingPlan | None:
    """The plan of a pooling model; None for a model that generates.

    Args:
        config: config.json in canonical form.
        architecture: The architecture that is run.
        folder: The folder with the Sentence Transformers files; None for a GGUF.
        language_model: Whether octavo's model of this family can make logits.

    Raises:
        InvalidInputError: the arguments ask for what this architecture does not give.
        ModelError: a file of the folder is damaged or asks for what octavo does not run.
    """
    modules = read_sentence_transformer(folder)
    runner, convert = args.resolve_runner()
    generates = architecture.endswith(_GENERATIVE)
    if runner == "auto":
        pools = (
            not generates or convert in ("embed", "classify") or (modules is not None and modules.pooling is not None)
        )
        runner = "pooling" if pools else "generate"
    if runner == "generate":
        _check_generative(architecture, language_model)
        return None
    return _plan(args, config, architecture, convert, modules)


def _check_generative(architecture: str, language_model: bool) -> None:
    if not language_model or architecture.endswith(_CLASSIFYING):
        raise InvalidInputError(
            f"runner='generate' was asked of {architecture}, which has no output layer for text; use runner='pooling'."
        )


def _plan(
    args: EngineArgs,
    config: Mapping[str, Any],
    architecture: str,
    convert: str,
    modules: SentenceTransformer | None,
) -> PoolingPlan:
    wanted = merged(args.pooler_config, args.override_pooler_config)
    head = _head(architecture, config, _asked_head(args, convert, wanted))
    common = {
        "per_token": wanted.per_token,
        "max_seq_length": modules.max_seq_length if modules else None,
        "lowercase": bool(modules and modules.lowercase),
    }
    if head == "classify":
        return _classifier(config, wanted, {**common, "classifies_tokens": architecture.endswith(_OF_TOKENS)})
    return _embedder(config, wanted, common, modules or SentenceTransformer(normalize=True))


def _asked_head(args: EngineArgs, convert: str, wanted: PoolerConfig) -> Head | None:
    """What the caller wants of the model; None where the architecture decides. A score can come from either head."""
    asked: Head | None = None
    if args.convert in ("embed", "classify") or (convert in ("embed", "classify") and args.task != "score"):
        asked = "embed" if convert == "embed" else "classify"
    named: Head | None = None if wanted.task is None else "embed" if wanted.task.endswith("embed") else "classify"
    if None not in (asked, named) and asked != named:
        raise InvalidInputError(
            f"pooler_config gives the task {wanted.task!r}, but {asked!r} is asked for; leave one out."
        )
    return asked or named


def _head(architecture: str, config: Mapping[str, Any], asked: Head | None) -> Head:
    has_classifier = architecture.endswith(_CLASSIFYING) or bool(config.get("classifier_from_token"))
    if asked is None:
        return "classify" if has_classifier else "embed"
    if asked == "classify" and not has_classifier:
        raise InvalidInputError(
            f"{architecture} has no classifier; give hf_overrides={{'architectures': [...ForSequenceClassification]}} "
            "where the checkpoint holds one, or classifier_from_token to make one of the output layer's rows."
        )
    return asked


def _embedder(
    config: Mapping[str, Any], wanted: PoolerConfig, common: Mapping[str, Any], modules: SentenceTransformer
) -> PoolingPlan:
    sizes = config.get("matryoshka_dimensions")
    sizes = tuple(size for size in sizes if type(size) is int) if isinstance(sizes, (list, tuple)) else ()
    matryoshka = bool(config.get("is_matryoshka") or sizes)
    normalize = modules.normalize or modules.pooling is None
    return PoolingPlan(
        head="embed",
        pooling=wanted.sequence_pooling or modules.pooling,
        use_activation=normalize if wanted.last_step is None else wanted.last_step,
        dimensions=wanted.dimensions,
        matryoshka=matryoshka,
        matryoshka_dimensions=sizes,
        dense=modules.dense,
        **common,
    )


def _classifier(config: Mapping[str, Any], wanted: PoolerConfig, common: Mapping[str, Any]) -> PoolingPlan:
    tokens = config.get("classifier_from_token")
    tokens = tuple(str(token) for token in tokens) if isinstance(tokens, (list, tuple)) else ()
    difference = bool(tokens) and bool(config.get("is_original_qwen3_reranker"))
    if difference and len(tokens) != 2:
        raise InvalidInputError(f"classifier_from_token must name two tokens, no and yes, got {len(tokens)}.")
    n_labels = 1 if difference else len(tokens) or n_labels_of(config)
    return PoolingPlan(
        head="classify",
        pooling=wanted.sequence_pooling,
        use_activation=True if wanted.last_step is None else wanted.last_step,
        activation=classes_activation(config, n_labels),
        n_labels=n_labels,
        label_tokens=tokens,
        label_difference=difference,
        concatenates=bool(tokens) or config.get("use_sep_token") is False,
        **common,
    )


def n_labels_of(config: Mapping[str, Any]) -> int:
    """Classes of a classifier, as transformers counts them: id2label, else num_labels, else two."""
    labels = config.get("id2label")
    if isinstance(labels, Mapping):
        return len(labels)
    count = config.get("num_labels")
    return count if type(count) is int and count > 0 else 2

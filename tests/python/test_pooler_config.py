"""What callers and model files say about pooling, and what becomes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from octavo.engine_args import EngineArgs
from octavo.errors import InvalidInputError, InvalidTypeError, ModelError
from octavo.pooling import PoolerConfig
from octavo.pooling.plan import PoolingPlan, resolve_pooling
from octavo.pooling.sentence_transformers import read_sentence_transformer

ST = "sentence_transformers.models"


def modules_folder(folder: Path, *kinds: str, pooling: dict[str, Any] | None = None, **files: Any) -> Path:
    """A folder with modules.json and a file for each of its modules."""
    entries = [
        {"idx": i, "path": "" if i == 0 else f"{i}_{kind}", "type": f"{ST}.{kind}"} for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(entries))
    for entry in entries[1:]:
        (folder / entry["path"]).mkdir()
        own = pooling if entry["type"].endswith("Pooling") else files.get("dense")
        (folder / entry["path"] / "config.json").write_text(json.dumps(own or {}))
    if "limits" in files:
        (folder / "sentence_bert_config.json").write_text(json.dumps(files["limits"]))
    return folder


def plan_of(
    architecture: str, config: dict[str, Any] | None = None, folder: Path | None = None, **args: Any
) -> PoolingPlan | None:
    decoder = not architecture.startswith(("Bert", "XLMRoberta"))
    return resolve_pooling(EngineArgs(**args), config or {}, architecture, folder, language_model=decoder)


def pooling_plan(*args: Any, **kwargs: Any) -> PoolingPlan:
    plan = plan_of(*args, **kwargs)
    assert plan is not None
    return plan


@pytest.mark.parametrize(
    ("architecture", "args", "expected"),
    [
        ("LlamaForCausalLM", {}, None),
        ("LlamaForCausalLM", {"task": "generate"}, None),
        ("LlamaForCausalLM", {"task": "embed"}, "embed"),
        ("LlamaForCausalLM", {"convert": "embed"}, "embed"),
        ("LlamaForCausalLM", {"runner": "pooling"}, "embed"),
        ("LlamaForCausalLM", {"task": "score"}, "embed"),
        ("LlamaModel", {}, "embed"),
        ("LlamaModel", {"task": "score"}, "embed"),
        ("BertModel", {"runner": "pooling"}, "embed"),
        ("Qwen2ForSequenceClassification", {}, "classify"),
        ("Qwen2ForSequenceClassification", {"task": "classify"}, "classify"),
        ("XLMRobertaForSequenceClassification", {"task": "score"}, "classify"),
        ("Qwen2ForSequenceClassification", {"task": "embed"}, "embed"),
        ("Qwen2ForSequenceClassification", {"pooler_config": {"task": "embed"}}, "embed"),
    ],
)
def test_what_a_model_is_run_for(architecture: str, args: dict[str, Any], expected: str | None) -> None:
    plan = plan_of(architecture, **args)
    assert (plan.head if plan else None) == expected


@pytest.mark.parametrize(
    ("architecture", "args", "message"),
    [
        ("BertModel", {"runner": "generate"}, "has no output layer for text"),
        ("Qwen2ForSequenceClassification", {"task": "generate"}, "has no output layer for text"),
        ("LlamaModel", {"task": "classify"}, "LlamaModel has no classifier"),
        ("LlamaModel", {"task": "embed", "pooler_config": {"task": "classify"}}, "leave one out"),
    ],
)
def test_what_a_model_cannot_be_run_for(architecture: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        plan_of(architecture, **args)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, (2, "softmax")),
        ({"num_labels": 3}, (3, "softmax")),
        ({"id2label": {"0": "a"}}, (1, "sigmoid")),
        ({"id2label": {"0": "a"}, "problem_type": "regression"}, (1, "identity")),
        ({"id2label": {"0": "a", "1": "b"}, "problem_type": "multi_label_classification"}, (2, "sigmoid")),
        ({"problem_type": "single_label_classification"}, (2, "softmax")),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}, (2, "sigmoid")),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, (2, "identity")),
    ],
)
def test_labels_and_their_activation(config: dict[str, Any], expected: tuple[int, str]) -> None:
    plan = pooling_plan("BertForSequenceClassification", config)
    assert (plan.n_labels, plan.activation) == expected


@pytest.mark.parametrize("name", ["os.system", "torch.nn.modules.activation.Hardtanh", "my.Sigmoid"])
def test_an_activation_is_never_imported(name: str) -> None:
    with pytest.raises(ModelError, match="octavo knows Identity, Sigmoid"):
        plan_of("BertForSequenceClassification", {"sbert_ce_default_activation_function": name})


def test_sentence_transformers_files(tmp_path: Path) -> None:
    folder = modules_folder(
        tmp_path,
        *("Transformer", "Pooling", "Dense", "Normalize"),
        pooling={"word_embedding_dimension": 8, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True},
        dense={"in_features": 8, "out_features": 4, "activation_function": "torch.nn.modules.activation.Tanh"},
        limits={"max_seq_length": 128, "do_lower_case": True},
    )
    plan = pooling_plan("BertModel", folder=folder)
    assert (plan.pooling, plan.use_activation, plan.max_seq_length, plan.lowercase) == ("MEAN", True, 128, True)
    assert [(dense.name, dense.activation) for dense in plan.dense] == [("2_Dense", "tanh")]


def test_a_causal_model_with_pooling_modules_is_for_pooling(tmp_path: Path) -> None:
    folder = modules_folder(tmp_path, "Transformer", "Pooling", "Normalize", pooling={"pooling_mode_lasttoken": True})
    assert pooling_plan("Qwen3ForCausalLM", folder=folder).pooling == "LAST"
    assert plan_of("Qwen3ForCausalLM", folder=folder, runner="generate") is None


def test_modules_without_normalize_mean_raw_embeddings(tmp_path: Path) -> None:
    folder = modules_folder(tmp_path, "Transformer", "Pooling", pooling={"pooling_mode_cls_token": True})
    assert not pooling_plan("BertModel", folder=folder).use_activation
    assert pooling_plan("BertModel", folder=folder, pooler_config={"normalize": True}).use_activation
    assert pooling_plan("BertModel").use_activation


def test_newer_spelling_of_pooling(tmp_path: Path) -> None:
    folder = modules_folder(tmp_path, "Transformer", "Pooling", pooling={"pooling_mode": "lasttoken"})
    assert pooling_plan("Qwen3ForCausalLM", folder=folder).pooling == "LAST"


@pytest.mark.parametrize(
    ("kinds", "pooling", "dense", "message"),
    [
        (("Transformer", "Pooling"), {"pooling_mode_max_tokens": True}, None, "the pooling max_tokens"),
        (
            ("Transformer", "Pooling"),
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            None,
            "cls_token with mean_tokens",
        ),
        (("Transformer", "Pooling"), {}, None, "the pooling none"),
        (("Transformer", "LSTM"), None, None, "the module LSTM, which octavo does not run"),
        (("Transformer", "Dense"), None, {"activation_function": "os.system"}, "the activation os.system"),
    ],
)
def test_modules_that_octavo_does_not_run(
    tmp_path: Path, kinds: tuple[str, ...], pooling: Any, dense: Any, message: str
) -> None:
    folder = modules_folder(tmp_path, *kinds, pooling=pooling, dense=dense)
    with pytest.raises(ModelError, match=message):
        read_sentence_transformer(folder)


@pytest.mark.parametrize("text", ["{}x", "[1]", '[{"type": "a.Pooling"}]', '[{"type": "a.Pooling", "path": "../x"}]'])
def test_damaged_modules(tmp_path: Path, text: str) -> None:
    (tmp_path / "modules.json").write_text(text)
    with pytest.raises(ModelError, match="fetch the file again"):
        read_sentence_transformer(tmp_path)


def test_arguments_go_before_files(tmp_path: Path) -> None:
    folder = modules_folder(tmp_path, "Transformer", "Pooling", pooling={"pooling_mode_cls_token": True})
    first, second = {"pooling_type": "mean", "normalize": True}, PoolerConfig(pooling_type="LAST")
    plan = pooling_plan("BertModel", folder=folder, pooler_config=first, override_pooler_config=second)
    assert (plan.pooling, plan.use_activation) == ("LAST", True)


def test_token_tasks() -> None:
    plan = pooling_plan("BertModel", pooler_config={"task": "token_embed"})
    assert (plan.tasks, plan.task) == (("embed", "token_embed"), "token_embed")
    assert pooling_plan("BertModel", pooler_config={"pooling_type": "ALL"}).task == "token_embed"
    assert pooling_plan("BertForTokenClassification").task == "token_classify"
    assert pooling_plan("BertForSequenceClassification").task == "classify"


def test_rerankers_made_of_the_output_layer() -> None:
    tokens = {"classifier_from_token": ["no", "yes"]}
    plan = pooling_plan("Qwen3ForSequenceClassification", {**tokens, "is_original_qwen3_reranker": True})
    assert (plan.n_labels, plan.activation, plan.label_difference, plan.concatenates) == (1, "sigmoid", True, True)
    plan = pooling_plan("Qwen3ForSequenceClassification", tokens)
    assert (plan.n_labels, plan.activation, plan.label_tokens) == (2, "softmax", ("no", "yes"))


def test_matryoshka() -> None:
    assert not pooling_plan("BertModel").matryoshka
    assert pooling_plan("BertModel", {"is_matryoshka": True}).matryoshka
    assert pooling_plan("BertModel", {"matryoshka_dimensions": [4, 8]}).matryoshka_dimensions == (4, 8)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"pooling_type": "STEP"}, InvalidInputError, "pooling_type must be one of LAST, CLS, MEAN, ALL"),
        ({"seq_pooling_type": "ALL"}, InvalidInputError, "seq_pooling_type must be one of LAST, CLS, MEAN"),
        ({"pooling_type": "CLS", "seq_pooling_type": "MEAN"}, InvalidInputError, "leave one out"),
        ({"normalize": True, "use_activation": False}, InvalidInputError, "give use_activation alone"),
        ({"dimensions": 0}, InvalidInputError, "dimensions"),
        ({"normalize": "yes"}, InvalidTypeError, "normalize"),
        ({"logit_bias": 1.0}, InvalidTypeError, "does not offer logit_bias"),
        ({"pooling": "CLS"}, InvalidTypeError, "did you mean 'pooling_type'"),
    ],
)
def test_wrong_pooler_configs(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        EngineArgs(pooler_config=given)

"""Embeddings, classes and scores of small random models against transformers in float32."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo import LLM, PoolingParams
from octavo.errors import InvalidInputError, InvalidTypeError, ModelError
from pooling_folders import SIZES, edit_config, save_model, write_dense, write_modules, write_tokenizer

PROMPTS = [
    "Hello, my name is",
    "The president of the United States is",
    "A",
    "The capital of France is Paris. The capital of Brazil is Brasilia. The future of AI is bread and the news.",
]
QUERY = "What is the capital of France?"
TEXTS = ["The capital of Brazil is Brasilia.", "The capital of France is Paris."]
CLOSE = {"atol": 1e-4, "rtol": 0}


def load(folder: Path, **args: Any) -> LLM:
    return LLM(folder, dtype="float32", kv_cache_memory_bytes="8M", **args)


def llama(folder: Path, kind: str, *, family: str = "Llama", **config: Any) -> Path:
    """A Llama, or a decoder like it, of a kind: "Model", "ForCausalLM" or "ForSequenceClassification"."""
    import transformers

    write_tokenizer(folder, single="<s> $A", pair="<s> $A $B", bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    config = {**SIZES, **ids, **config}
    made = getattr(transformers, f"{family}{kind}")(getattr(transformers, f"{family}Config")(**config))
    return save_model(made, folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folders of Llamas, each made once."""
    folders: dict[str, Path] = {}

    def get(kind: str, **config: Any) -> Path:
        key = f"{kind}{sorted(config.items())}"
        if key not in folders:
            folders[key] = llama(tmp_path_factory.mktemp(kind), kind, **config)
        return folders[key]

    return get


@pytest.fixture(scope="module")
def embedder(made: Callable[..., Path]) -> LLM:
    return load(made("Model"))


@pytest.fixture(scope="module")
def classifier(made: Callable[..., Path]) -> LLM:
    return load(made("ForSequenceClassification", num_labels=3))


def token_ids(folder: Path, *texts: str, **kwargs: Any) -> list[int]:
    from transformers import AutoTokenizer

    ids: list[int] = AutoTokenizer.from_pretrained(folder)(*texts, **kwargs).input_ids
    return ids


def hidden_states(folder: Path, ids: list[int]) -> Any:
    """(n_tokens, hidden) of the last layer, after the norm."""
    import torch
    from transformers import AutoModel

    with torch.inference_mode():
        return AutoModel.from_pretrained(folder, dtype=torch.float32).eval()(torch.tensor([ids])).last_hidden_state[0]


def class_logits(folder: Path, ids: list[int]) -> Any:
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0]


def unit(vector: Any) -> Any:
    import torch

    return torch.nn.functional.normalize(vector, dim=-1).numpy()


# Embeddings


@pytest.mark.parametrize(
    ("pooling", "pooled"), [("LAST", lambda h: h[-1]), ("CLS", lambda h: h[0]), ("MEAN", lambda h: h.mean(0))]
)
def test_embed(made: Any, pooling: str, pooled: Callable[[Any], Any]) -> None:
    folder = made("Model")
    llm = load(folder, task="embed", pooler_config={"pooling_type": pooling})
    outputs = llm.embed(PROMPTS, use_tqdm=False)
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        ids = token_ids(folder, prompt)
        expected = unit(pooled(hidden_states(folder, ids)))
        np.testing.assert_allclose(output.outputs.embedding, expected, **CLOSE)
        assert (output.prompt_token_ids, output.finished, output.error) == (ids, True, None)
    assert repr(outputs[0].outputs) == "EmbeddingOutput(hidden_size=64)"


def test_raw_embeddings(made: Any, embedder: LLM) -> None:
    [output] = embedder.embed("Hello, my name is", pooling_params=PoolingParams(use_activation=False), use_tqdm=False)
    folder = made("Model")
    expected = hidden_states(folder, token_ids(folder, "Hello, my name is"))[-1].numpy()
    np.testing.assert_allclose(output.outputs.embedding, expected, **CLOSE)


def test_a_language_model_embeds_when_it_is_asked_to(made: Any) -> None:
    folder = made("ForCausalLM")
    [output] = load(folder, task="embed").embed(PROMPTS[:1], use_tqdm=False)
    expected = unit(hidden_states(folder, token_ids(folder, PROMPTS[0]))[-1])
    np.testing.assert_allclose(output.outputs.embedding, expected, **CLOSE)


def test_embed_gives_the_same_bits_alone_and_in_a_batch(embedder: LLM) -> None:
    together = embedder.embed([*PROMPTS, *PROMPTS], use_tqdm=False)
    for prompt, *outputs in zip(PROMPTS, together[:4], together[4:], strict=True):
        alone = embedder.embed(prompt, use_tqdm=False)[0].outputs.embedding
        assert all(output.outputs.embedding == alone for output in outputs)


@pytest.mark.parametrize(("pooling", "task"), [("LAST", "embed"), ("MEAN", "embed"), ("LAST", "token_embed")])
def test_the_same_bits_for_any_threads_and_chunks(made: Any, pooling: str, task: str) -> None:
    variants: list[dict[str, Any]] = [{}, {"num_threads": 1}, {"num_threads": 3, "max_num_batched_tokens": 7}]
    rows = []
    for args in variants:
        llm = load(made("Model"), pooler_config={"pooling_type": pooling}, **args)
        outputs = llm.encode(PROMPTS, pooling_task=task, use_tqdm=False)
        rows.append(np.concatenate([output.outputs.data.reshape(-1) for output in outputs]))
    assert all(np.array_equal(rows[0], other) for other in rows[1:])


def test_a_gguf_embeds(smollm2_path: Path, smollm2_reference: Any) -> None:
    import torch

    llm = LLM(smollm2_path, task="embed", dtype="float32", kv_cache_memory_bytes="64M")
    assert llm.score(QUERY, TEXTS, use_tqdm=False)[1].outputs.score > 0
    [output] = llm.embed("The capital of France is", use_tqdm=False)
    with torch.inference_mode():
        hidden = smollm2_reference.model.model(torch.tensor([output.prompt_token_ids])).last_hidden_state[0, -1]
    np.testing.assert_allclose(output.outputs.embedding, unit(hidden), **CLOSE)


@pytest.mark.parametrize("on", [True, False])
def test_the_garbage_collector_is_left_as_it_was(embedder: LLM, on: bool) -> None:
    try:
        gc.enable() if on else gc.disable()
        embedder.embed("a text", use_tqdm=False)
        with pytest.raises(InvalidInputError):
            embedder.embed([], use_tqdm=False)
        assert gc.isenabled() == on
    finally:
        gc.enable()


def test_token_ids_as_prompts(embedder: LLM) -> None:
    text, ids, given = embedder.embed(["Hello", {"prompt_token_ids": [0, 5, 6]}, [0, 5, 6]], use_tqdm=False)
    assert ids.outputs == given.outputs != text.outputs
    assert given.prompt_token_ids == [0, 5, 6]


def test_matryoshka(made: Any) -> None:
    folder = made("Model")
    llm = load(folder, hf_overrides={"matryoshka_dimensions": [16, 32]})
    [output] = llm.embed("Hello", pooling_params=PoolingParams(dimensions=16), use_tqdm=False)
    expected = unit(hidden_states(folder, token_ids(folder, "Hello"))[-1][:16])
    np.testing.assert_allclose(output.outputs.embedding, expected, **CLOSE)
    with pytest.raises(InvalidInputError, match="dimensions must be one of 16, 32, got 8"):
        llm.embed("Hello", pooling_params=PoolingParams(dimensions=8))
    llm = load(folder, hf_overrides={"is_matryoshka": True}, pooler_config={"dimensions": 8})
    assert len(llm.embed("Hello", use_tqdm=False)[0].outputs.embedding) == 8
    with pytest.raises(InvalidInputError, match="dimensions must be at most 64, got 65"):
        llm.embed("Hello", pooling_params=PoolingParams(dimensions=65))


def test_dimensions_need_a_model_made_for_it(embedder: LLM) -> None:
    with pytest.raises(InvalidInputError, match="does not support Matryoshka embeddings; dimensions must be unset"):
        embedder.embed("Hello", pooling_params=PoolingParams(dimensions=8))


def test_sentence_transformers_folder(tmp_path: Path) -> None:
    folder = llama(tmp_path, "Model")
    write_modules(folder, "Pooling", "Dense", "Normalize", max_seq_length=16, do_lower_case=True)
    linear = write_dense(folder / "2_Dense", 64, 24, "torch.nn.modules.activation.Tanh")
    llm = load(folder)
    [output] = llm.embed("Hello, MY name is", use_tqdm=False)
    ids = token_ids(folder, "hello, my name is")
    expected = unit(linear(hidden_states(folder, ids).mean(0)).tanh().detach())
    np.testing.assert_allclose(output.outputs.embedding, expected, **CLOSE)
    with pytest.raises(InvalidInputError, match="maximum context length is 16 tokens"):
        llm.embed(PROMPTS[3])


def test_dense_weights_must_be_there(tmp_path: Path) -> None:
    folder = llama(tmp_path, "Model")
    write_modules(folder, "Pooling", "Dense")
    write_dense(folder / "2_Dense", 64, 24, "torch.nn.modules.linear.Identity")
    (folder / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="2_Dense lacks model.safetensors"):
        load(folder)


# Classes


def test_classify(made: Any, classifier: LLM) -> None:
    folder = made("ForSequenceClassification", num_labels=3)
    outputs = classifier.classify(PROMPTS, use_tqdm=False)
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        logits = class_logits(folder, token_ids(folder, prompt))
        np.testing.assert_allclose(output.outputs.probs, logits.softmax(-1).numpy(), **CLOSE)
    assert repr(outputs[0].outputs) == "ClassificationOutput(num_classes=3)"
    raw = classifier.classify(PROMPTS[0], pooling_params=PoolingParams(use_activation=False), use_tqdm=False)
    np.testing.assert_allclose(raw[0].outputs.probs, class_logits(folder, token_ids(folder, PROMPTS[0])), **CLOSE)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"problem_type": "regression"}, lambda logits: logits),
        ({"problem_type": "multi_label_classification"}, lambda logits: logits.sigmoid()),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"}, lambda x: x.sigmoid()),
    ],
)
def test_the_files_choose_the_activation(made: Any, config: dict[str, str], expected: Callable[[Any], Any]) -> None:
    folder = made("ForSequenceClassification", num_labels=3)
    [output] = load(folder, hf_overrides=config).classify("Hello", use_tqdm=False)
    logits = class_logits(folder, token_ids(folder, "Hello"))
    np.testing.assert_allclose(output.outputs.probs, expected(logits).numpy(), **CLOSE)


def test_a_classifier_embeds_when_it_is_asked_to(made: Any) -> None:
    folder = made("ForSequenceClassification", num_labels=3)
    [output] = load(folder, convert="embed").embed("Hello", use_tqdm=False)
    expected = unit(hidden_states(folder, token_ids(folder, "Hello"))[-1])
    np.testing.assert_allclose(output.outputs.embedding, expected, **CLOSE)


# Rows for every token


def test_token_tasks(made: Any, embedder: LLM, classifier: LLM) -> None:
    folder = made("Model")
    [output] = embedder.encode("Hello, my name is", pooling_task="token_embed", use_tqdm=False)
    expected = unit(hidden_states(folder, token_ids(folder, "Hello, my name is")))
    np.testing.assert_allclose(output.outputs.data, expected, **CLOSE)
    [output] = classifier.encode("Hello", PoolingParams(task="token_classify"), use_tqdm=False)
    assert output.outputs.data.shape == (len(output.prompt_token_ids), 3)
    [last] = classifier.encode("Hello", pooling_task="classify", use_tqdm=False)
    np.testing.assert_array_equal(output.outputs.data[-1], last.outputs.data)


def test_a_model_for_token_embeddings(made: Any) -> None:
    llm = load(made("Model"), pooler_config={"task": "token_embed"})
    [query] = llm.embed(QUERY, use_tqdm=False)
    documents = llm.embed(TEXTS, use_tqdm=False)
    assert query.outputs.data.shape == (len(query.prompt_token_ids), 64)
    scores = [output.outputs.score for output in llm.score(QUERY, TEXTS, use_tqdm=False)]
    expected = [(query.outputs.data @ d.outputs.data.T).max(1).sum() for d in documents]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    judged = [unit(hidden_states(made("Model"), token_ids(made("Model"), text))) for text in (QUERY, *TEXTS)]
    np.testing.assert_allclose(scores, [(judged[0] @ d.T).max(1).sum() for d in judged[1:]], **CLOSE)


# Scores


def test_score_by_cosine(embedder: LLM) -> None:
    outputs = embedder.score(QUERY, TEXTS, use_tqdm=False)
    query, *texts = (output.outputs.embedding for output in embedder.embed([QUERY, *TEXTS], use_tqdm=False))
    np.testing.assert_allclose([o.outputs.score for o in outputs], [np.dot(query, t) for t in texts], atol=1e-6)
    ids, other = (o.prompt_token_ids for o in embedder.embed([QUERY, TEXTS[0]], use_tqdm=False))
    assert outputs[0].prompt_token_ids == [*ids, 2, *other]
    assert "_" in outputs[0].request_id


def test_score_by_a_cross_encoder(made: Any) -> None:
    folder = made("ForSequenceClassification", num_labels=1)
    outputs = load(folder, task="score").score(QUERY, TEXTS, use_tqdm=False)
    for text, output in zip(TEXTS, outputs, strict=True):
        ids = token_ids(folder, QUERY, text)
        assert output.prompt_token_ids == ids
        assert output.outputs.score == pytest.approx(float(class_logits(folder, ids).sigmoid()), abs=1e-4)


def test_score_n_to_n(made: Any) -> None:
    llm = load(made("ForSequenceClassification", num_labels=1))
    pairs = llm.score([QUERY, PROMPTS[0]], TEXTS, use_tqdm=False)
    alone = [llm.score(a, b, use_tqdm=False)[0] for a, b in zip([QUERY, PROMPTS[0]], TEXTS, strict=True)]
    assert [p.outputs for p in pairs] == [a.outputs for a in alone]


def test_score_with_a_template(made: Any) -> None:
    folder = made("ForSequenceClassification", num_labels=1)
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    [output] = load(folder).score(QUERY, TEXTS[0], chat_template=template, use_tqdm=False)
    text = f"<query>{QUERY}\n<document>{TEXTS[0]}\n"
    assert output.prompt_token_ids == token_ids(folder, text, add_special_tokens=False)


@pytest.mark.parametrize(("family", "tied"), [("Llama", False), ("Qwen3", True)])
def test_rerankers_made_of_the_output_layer(made: Any, family: str, tied: bool) -> None:
    """Qwen3-Reranker's way: the classifier is the row of "yes" less that of "no"."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = made("ForCausalLM", family=family, head_dim=16, tie_word_embeddings=tied)
    tokens = ["a", "e"]
    overrides = {
        "architectures": [f"{family}ForSequenceClassification"],
        "classifier_from_token": tokens,
        "is_original_qwen3_reranker": True,
    }
    [output] = load(folder, hf_overrides=overrides).score(QUERY, TEXTS[0], use_tqdm=False)
    ids = token_ids(folder, QUERY + TEXTS[0])
    assert output.prompt_token_ids == ids
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0, -1][
            AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(tokens)
        ]
    assert output.outputs.score == pytest.approx(float(logits.softmax(-1)[1]), abs=1e-4)


@pytest.mark.parametrize(
    ("data_1", "data_2", "message"),
    [
        ([QUERY, QUERY], TEXTS[:1], "must be either 1:1, 1:N or N:N, got 2:1"),
        ([], TEXTS, "At least one text element must be given"),
        (QUERY, [], "At least one text_pair element must be given"),
        (QUERY, [TEXTS[0], 3], r"data_2\[1\]"),
    ],
)
def test_wrong_texts_to_score(embedder: LLM, data_1: Any, data_2: Any, message: str) -> None:
    with pytest.raises((InvalidInputError, InvalidTypeError), match=message):
        embedder.score(data_1, data_2)


def test_models_that_give_no_scores(classifier: LLM, made: Any) -> None:
    with pytest.raises(InvalidInputError, match="only enabled for num_labels == 1"):
        classifier.score(QUERY, TEXTS)
    llm = load(made("ForSequenceClassification", num_labels=1), pooler_config={"task": "token_classify"})
    with pytest.raises(InvalidInputError, match="does not support the Scoring API"):
        llm.score(QUERY, TEXTS)
    with pytest.raises(InvalidTypeError, match="pair 0 holds token ids"):
        load(made("ForSequenceClassification", num_labels=1)).score([[1, 2]], QUERY)


# What goes wrong, and long prompts


@pytest.mark.parametrize("as_argument", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_truncation(made: Any, embedder: LLM, as_argument: bool, side: str) -> None:
    folder = made("Model")
    how: dict[str, Any] = {"truncation_side": side}
    given = {"truncate_prompt_tokens": 5} if as_argument else {}
    how |= {} if as_argument else {"truncate_prompt_tokens": 5}
    text, ids = embedder.embed([PROMPTS[3], [3, 4, 5, 6, 7, 8]], tokenization_kwargs=how, use_tqdm=False, **given)
    whole = token_ids(folder, PROMPTS[3], add_special_tokens=False)
    assert text.prompt_token_ids == [0, *(whole[:4] if side == "right" else whole[-4:])]
    assert ids.prompt_token_ids == ([3, 4, 5, 6, 7] if side == "right" else [4, 5, 6, 7, 8])


def test_truncation_by_params_and_to_the_models_limit(made: Any) -> None:
    llm = load(made("Model"), max_model_len=8)
    params = [PoolingParams(truncate_prompt_tokens=3), PoolingParams(truncate_prompt_tokens=-1)]
    outputs = llm.embed([PROMPTS[3]] * 2, pooling_params=params, use_tqdm=False)
    assert [len(output.prompt_token_ids) for output in outputs] == [3, 8]
    with pytest.raises(InvalidInputError, match="truncate_prompt_tokens=9 cannot be greater than the 8 tokens"):
        llm.embed(PROMPTS[3], truncate_prompt_tokens=9)
    with pytest.raises(InvalidInputError, match="maximum context length is 8 tokens"):
        llm.embed(PROMPTS[3])


def test_bad_prompts(embedder: LLM) -> None:
    prompts = ["Hello", [999], {"text": 3}, [], "A"]
    with pytest.raises(InvalidInputError, match="prompts 1-3 cannot be used"):
        embedder.embed(prompts)
    outputs = embedder.embed(prompts, on_error="return", use_tqdm=False)
    assert [output.error is None for output in outputs] == [True, False, False, False, True]
    assert outputs[1].outputs is None and "out of vocabulary" in str(outputs[1].error)
    scores = embedder.score("Hello", ["A", [999]], on_error="return", use_tqdm=False)
    assert scores[0].error is None and scores[1].outputs is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e, c: e.encode("x"), "needs a pooling_task: 'embed'"),
        (lambda e, c: e.encode("x", pooling_task="reward"), "pooling_task must be one of embed, classify"),
        (lambda e, c: e.encode([], pooling_task="embed"), "You must pass at least one prompt"),
        (lambda e, c: e.classify("x"), "Classification API is not supported by this model.*`--convert classify`"),
        (lambda e, c: c.embed("x"), "Embedding API is not supported by this model.*`--convert embed`"),
        (lambda e, c: e.embed({"prompt_embeds": np.zeros((2, 64), np.float32)}), "which pooling does not take"),
        (lambda e, c: e.embed("x", lora_request=1), "LoRA is not enabled"),
        (lambda e, c: e.embed("x", on_error="skip"), "on_error must be"),
        (lambda e, c: e.embed(["x", "y"], pooling_params=[PoolingParams()]), "must be the same"),
        (lambda e, c: c.classify("x", pooling_params=PoolingParams(dimensions=3)), "only applies to embeddings"),
        (lambda e, c: e.generate("x"), r"LLM.generate\(\) is only supported for generative models"),
        (lambda e, c: e.chat([{"role": "user", "content": "x"}]), r"LLM.chat\(\) is only supported for generative"),
        (lambda e, c: e.stream("x"), r"LLM.stream\(\) is only supported for generative"),
    ],
)
def test_wrong_calls(embedder: LLM, classifier: LLM, call: Callable[[LLM, LLM], Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        call(embedder, classifier)


def test_wrong_parameter_types(embedder: LLM) -> None:
    from octavo import SamplingParams

    with pytest.raises(InvalidTypeError, match="The parameters of prompt 0 must be PoolingParams, not SamplingParams"):
        embedder.embed("x", pooling_params=SamplingParams())  # type: ignore[arg-type]


def test_a_generative_llm_does_not_pool(made: Any) -> None:
    llm = load(made("ForCausalLM"))
    for call in (
        lambda: llm.embed("x"),
        lambda: llm.classify("x"),
        lambda: llm.score("x", "y"),
        lambda: llm.encode("x"),
    ):
        with pytest.raises(
            InvalidInputError, match=r"is only supported for pooling models. Try passing `--runner pool"
        ):
            call()


def test_without_a_tokenizer(made: Any) -> None:
    llm = load(made("Model"), skip_tokenizer_init=True)
    assert len(llm.embed([[1, 2, 3]], use_tqdm=False)[0].outputs.embedding) == 64
    with pytest.raises(InvalidInputError, match="has no tokenizer"):
        llm.embed("Hello")


def test_progress_bar(embedder: LLM) -> None:
    bars: list[dict[str, Any]] = []

    class Bar:
        def __init__(self, **kwargs: Any) -> None:
            self.n = 0
            bars.append({"bar": self, **kwargs})

        def update(self, n: int) -> None:
            self.n += n

        def close(self) -> None:
            pass

    embedder.embed(PROMPTS, use_tqdm=Bar)
    assert (bars[0]["total"], bars[0]["bar"].n, bars[0]["desc"]) == (4, 4, "Processed prompts")


def test_a_config_with_another_number_of_labels(tmp_path: Path) -> None:
    folder = llama(tmp_path, "ForSequenceClassification", num_labels=3)
    edit_config(folder, id2label={"0": "a", "1": "b"})
    with pytest.raises(ModelError, match="2 labels, but the classifier gives 3"):
        load(folder)

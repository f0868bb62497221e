"""Against transformers in float32, on a real model and on golden files of every weight format."""

from __future__ import annotations

import numpy as np
import pytest

from octavo import LLM, SamplingParams, _core
from octavo.weights.gguf import open_gguf
from raw_runs import RAW_LOGITS, all_logits, run_views

TEXTS = ("constitution", "chinese", "code")
PROMPTS = (
    "Hello, my name is",
    "The president of the United States is",
    "The capital of France is",
    "The future of AI is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):\n",
    "Water boils at a temperature of",
    "中国的首都是",
    "Q: What is 12 plus 30?\nA:",
    "Dear Sir or Madam,\n\nI am writing to",
)
FORMATS = sorted(row["name"] for row in _core.formats())


@pytest.fixture(scope="module")
def text_ids(golden, smollm2_llm):
    """The token ids of each text."""
    tokenizer = smollm2_llm("float32").get_tokenizer()
    return {name: tokenizer.encode((golden / "texts" / f"{name}.txt").read_text("utf-8")) for name in TEXTS}


@pytest.mark.parametrize("name", TEXTS)
def test_exact_logits_at_every_position(name, text_ids, smollm2_llm, smollm2_reference):
    token_ids = text_ids[name][:400]
    assert len(token_ids) >= (300 if name == "constitution" else 200)
    logits = all_logits(smollm2_llm("float32"), token_ids)
    assert np.abs(logits - smollm2_reference.logits(token_ids)).max() <= 1e-3


def test_exact_greedy_continuations(smollm2_llm, smollm2_reference):
    params = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True)
    for output in smollm2_llm("float32").generate(PROMPTS, params, use_tqdm=False):
        assert len(output.outputs[0].token_ids) == 64
        smollm2_reference.check_greedy(output.prompt_token_ids, output.outputs[0].token_ids)


@pytest.fixture(scope="module")
def fast_mode(text_ids, smollm2_path, smollm2_reference):
    """(share of positions with the same top token, ratio of the perplexities) over passages of all texts."""
    llm = LLM(smollm2_path, kv_cache_memory_bytes="256M")
    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=1, detokenize=False)
    passages = [text_ids["constitution"][start : start + 700] for start in (0, 1200, 3600)]
    passages += [text_ids["chinese"], text_ids["code"]]
    same_top, worse = [], []
    for token_ids, [view] in zip(passages, run_views(llm, passages, params), strict=True):
        logits = smollm2_reference.logits(token_ids)[:-1]
        losses = np.array([-row[1] for row in view.prompt_logprobs[1:]])
        worse.append(losses - negative_log_likelihoods(logits, token_ids[1:]))
        same_top.append([row[3][0] for row in view.prompt_logprobs[1:]] == logits.argmax(axis=1))
    return np.concatenate(same_top).mean(), np.exp(np.concatenate(worse).mean())


def negative_log_likelihoods(logits, targets):
    """Of each row's target."""
    highest = logits.max(axis=1, keepdims=True)
    log_sums = highest[:, 0] + np.log(np.exp(logits - highest).sum(axis=1, dtype=np.float64))
    return log_sums - logits[np.arange(len(targets)), targets]


def test_fast_mode_has_the_same_top_token(fast_mode):
    assert fast_mode[0] >= 0.96


def test_fast_mode_has_the_same_perplexity(fast_mode):
    assert abs(fast_mode[1] - 1) <= 0.005


@pytest.fixture(scope="module")
def hf_tokenizer(smollm2_path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2_path.parent, gguf_file=smollm2_path.name)


def test_text_is_what_transformers_decodes(golden, smollm2_llm, hf_tokenizer):
    """Also of broken characters: only tokens of a Chinese text, many of them parts of a character, may be sampled."""
    llm = smollm2_llm("auto")
    pieces = sorted(set(llm.get_tokenizer().encode((golden / "texts" / "chinese.txt").read_text("utf-8"))))
    free = [SamplingParams(temperature=1.0, seed=seed, max_tokens=32, ignore_eos=True) for seed in range(4)]
    wild = [SamplingParams(temperature=2.0, seed=s, max_tokens=64, allowed_token_ids=pieces) for s in range(8)]
    outputs = llm.generate(["静夜思 🌙"] * 12, [*free, *wild], use_tqdm=False)
    texts = [output.outputs[0].text for output in outputs]
    decoded = [hf_tokenizer.decode(output.outputs[0].token_ids, skip_special_tokens=True) for output in outputs]
    assert texts == decoded
    assert any("\ufffd" in text for text in texts) and any(character > "\u4e00" for character in "".join(texts))


@pytest.fixture(scope="module")
def golden_logits(golden):
    with np.load(golden / "gguf" / "logits.npz") as file:
        return dict(file)


@pytest.mark.parametrize("name", FORMATS)
def test_exact_logits_of_golden_files(name, golden, golden_logits):
    path = golden / "gguf" / f"tiny-{name}.gguf"
    llm = LLM(path, dtype="float32", kv_cache_memory_bytes="8M", **RAW_LOGITS)
    logits = all_logits(llm, golden_logits["prompt_ids"].tolist())[golden_logits["positions"]]
    assert np.abs(logits - golden_logits[name]).max() <= 2e-3


FLOATS = ("F32", "F16", "BF16", "NVFP4", "Q1_0", "Q2_0")  # multiplied without rounding activations to eight bits
BLOCKS_OF_32 = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4")  # whose activations have a scale per 32
# Keys, values and the activations of BF16 weights are rounded to 2^-9 / sqrt(3) = 0.11 %. That changes scores of
# attention, which turn it into other weights: by their spread, up to 5, and twice, for queries and keys.
FLOAT_ROUNDING = 0.01
SCORE_SPREAD = 2.4  # of a query's scores in the golden model, on average


def rounding(values, block):
    """What eight bits with a scale per block do to values: a step's error is step / sqrt(12), relative to them all."""
    steps = np.abs(values.reshape(-1, block)).max(axis=1) / 127
    return np.sqrt(np.mean(steps**2) / 12 / np.mean(values**2))


def fast_bound(name):
    """Errors, relative to the logits, of a layer that rounds its activations: independent ones, so squares add up.

    Those of attention's output, of the norm's output for gate and for up, and of their product; of the norm's output
    for queries, by the spread of their scores. Keys, values and logits are computed from sixteen bits.
    """
    if name in FLOATS:
        return FLOAT_ROUNDING
    normal, gate, up = np.random.default_rng(1).standard_normal((3, 1 << 18))
    product = gate / (1 + np.exp(-gate)) * up
    block = 32 if name in BLOCKS_OF_32 else 256
    of_norms = (3 + SCORE_SPREAD**2) * rounding(normal, block) ** 2
    return np.sqrt(FLOAT_ROUNDING**2 + of_norms + rounding(product, block) ** 2)


@pytest.mark.parametrize("name", FORMATS)
def test_fast_logits_of_golden_files(name, golden, golden_logits):
    llm = LLM(golden / "gguf" / f"tiny-{name}.gguf", kv_cache_memory_bytes="8M", **RAW_LOGITS)
    logits = all_logits(llm, golden_logits["prompt_ids"].tolist())[golden_logits["positions"]]
    error = np.sqrt(np.mean((logits - golden_logits[name]) ** 2)) / golden_logits[name].std()
    assert error <= fast_bound(name)


@pytest.mark.parametrize("name", FORMATS)
def test_weights_in_memory_take_little_more_than_the_file(name, golden):
    path = golden / "gguf" / f"tiny-{name}.gguf"
    in_file = sum(tensor.nbytes for tensor in open_gguf(path).tensors.values())
    llm = LLM(path, skip_tokenizer_init=True, kv_cache_memory_bytes="8M")
    assert llm._model.weight_bytes <= (1.25 if name == "TQ1_0" else 1.10) * in_file

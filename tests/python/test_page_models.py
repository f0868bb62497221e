"""The Basic page's six scripts and their octavo counterparts, with the page's default models.

The models are small random stand-ins under the page's names in a hub cache that is never left (HF_HUB_OFFLINE).
The page's scripts run twice: with the import name changed, and unchanged by octavo.as_vllm. What they print is held
against transformers in float32.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import smollm2
from aqlm_folders import dequantise
from octavo import EngineArgs
from page_models import add_page_model

EXAMPLES = Path(__file__).parents[2] / "examples" / "offline_inference" / "basic"
PAGE = Path(__file__).parent / "basic_page"
PROMPTS = [
    "Hello, my name is",
    "The president of the United States is",
    "The capital of France is",
    "The future of AI is",
]
QUERY = "What is the capital of France?"
TEXTS = ["The capital of Brazil is Brasilia.", "The capital of France is Paris."]
CHAT = [  # the conversation of the page's chat.py
    {"role": "system", "content": "You are a helpful assistant"},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hello! How can I assist you today?"},
    {"role": "user", "content": "Write an essay about the importance of higher education."},
]
EXACT = ("--dtype", "float32", "--kv-cache-memory-bytes", "16M")
WAYS = ["example", "page", "as_vllm"]
CLOSE = {"atol": 1e-4, "rtol": 0}


@pytest.fixture(scope="module")
def page_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """(folder of HF_HOME, the model's own folder) by name, each made once."""
    home = tmp_path_factory.mktemp("home")
    folders: dict[str, Path] = {}

    def get(name: str) -> tuple[Path, Path]:
        if name not in folders:
            folders[name] = add_page_model(home / "hub", name)
        return home, folders[name]

    return get


def run(way: str, script: str, home: Path, folder: Path, *args: str) -> str:
    """What a script prints: our own, the page's importing octavo, or the page's as it stands."""
    env = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(home / "hub")}
    if way == "example":
        done = smollm2.run_python(EXAMPLES / f"{script}.py", *args, **env)
    else:
        text = (PAGE / f"{script}.py.txt").read_text(encoding="utf-8")
        copy = folder / f"{script}.py"
        copy.write_text(
            text if way == "as_vllm" else re.sub(r"(?m)^from vllm\b", "from octavo", text), encoding="utf-8"
        )
        runner = ("-m", "octavo.as_vllm") if way == "as_vllm" else ()
        done = smollm2.run_python(*runner, copy, *args, **env)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def loaded(folder: Path, kind: str) -> tuple[Any, Any]:
    """The model in float32 and its tokenizer, in transformers."""
    import torch
    import transformers

    model = getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32).eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def outputs_of(folder: Path, kind: str, *texts: str) -> Any:
    import torch

    model, tokenizer = loaded(folder, kind)
    with torch.inference_mode():
        return model(torch.tensor([tokenizer(*texts).input_ids]))


@pytest.mark.parametrize("way", WAYS)
def test_classify(way: str, page_model: Any, tmp_path: Path) -> None:
    home, folder = page_model("jason9693/Qwen2.5-1.5B-apeach")
    text = run(way, "classify", home, tmp_path, *EXACT)
    found = re.findall(r"Prompt: '(.*)' \nClass Probabilities: (\[.*\]) \(size=(\d+)\)", text)
    assert [(prompt, size) for prompt, _, size in found] == [(prompt, "2") for prompt in PROMPTS]
    for prompt, probs, _ in found:
        expected = outputs_of(folder, "AutoModelForSequenceClassification", prompt).logits[0].softmax(-1)
        np.testing.assert_allclose(ast.literal_eval(probs), expected, **CLOSE)


@pytest.mark.parametrize("way", WAYS)
def test_embed(way: str, page_model: Any, tmp_path: Path) -> None:
    import torch

    home, folder = page_model("intfloat/e5-mistral-7b-instruct")
    text = run(way, "embed", home, tmp_path, *EXACT)
    found = re.findall(r"Prompt: '(.*)' \nEmbeddings: (\[.*), \.\.\.\] \(size=(\d+)\)", text)
    assert [(prompt, size) for prompt, _, size in found] == [(prompt, "64") for prompt in PROMPTS]
    for prompt, first, _ in found:
        hidden = outputs_of(folder, "AutoModel", prompt).last_hidden_state[0, -1]
        values = ast.literal_eval(f"{first}]")
        np.testing.assert_allclose(values, torch.nn.functional.normalize(hidden, dim=0)[: len(values)], **CLOSE)
        assert len(values) == 16


@pytest.mark.parametrize("way", WAYS)
def test_score(way: str, page_model: Any, tmp_path: Path) -> None:
    home, folder = page_model("BAAI/bge-reranker-v2-m3")
    text = run(way, "score", home, tmp_path, *EXACT)
    found = re.findall(r"Pair: (\[.*\]) \nScore: (\S+)", text)
    assert [ast.literal_eval(pair) for pair, _ in found] == [[QUERY, other] for other in TEXTS]
    for (_, score), other in zip(found, TEXTS, strict=True):
        expected = outputs_of(folder, "AutoModelForSequenceClassification", QUERY, other).logits.sigmoid()
        assert float(score) == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("way", ["page", "as_vllm"])
def test_generate(way: str, page_model: Any, tmp_path: Path) -> None:
    import torch

    home, folder = page_model("meta-llama/Llama-3.2-1B-Instruct")
    text = run(way, "generate", home, tmp_path, *EXACT, "--max-tokens", "6", "--temperature", "0")
    found = [ast.literal_eval(f"({pair})") for pair in re.findall(r"Prompt: (.*?, )Generated text: ", text)]
    assert [prompt for (prompt,) in found] == PROMPTS
    model, tokenizer = loaded(folder, "AutoModelForCausalLM")
    for prompt, generated in re.findall(r"Prompt: ('.*?'), Generated text: (.*)", text):
        ids = tokenizer(ast.literal_eval(prompt)).input_ids
        output = model.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False)[0, len(ids) :]
        assert ast.literal_eval(generated) == tokenizer.decode(output, skip_special_tokens=True)


@pytest.mark.parametrize("way", ["page", "as_vllm"])
def test_chat(way: str, page_model: Any, tmp_path: Path) -> None:
    import torch

    home, folder = page_model("meta-llama/Llama-3.2-1B-Instruct")
    text = run(way, "chat", home, tmp_path, *EXACT, "--max-tokens", "4", "--temperature", "0", "--top-k", "3")
    assert text.count("Generated text: ") == 11
    model, tokenizer = loaded(folder, "AutoModelForCausalLM")
    [prompt] = set(re.findall(r"Prompt: ('.*')", text))
    [generated] = set(re.findall(r"Generated text: ('.*')", text))
    assert ast.literal_eval(prompt) == tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(ast.literal_eval(prompt), add_special_tokens=False).input_ids
    output = model.generate(torch.tensor([ids]), max_new_tokens=4, do_sample=False)[0, len(ids) :]
    assert ast.literal_eval(generated) == tokenizer.decode(output, skip_special_tokens=True)


@pytest.mark.parametrize("way", ["page", "as_vllm"])
def test_basic(way: str, page_model: Any, tmp_path: Path) -> None:
    home, _ = page_model("facebook/opt-125m")
    text = run(way, "basic", home, tmp_path)
    assert text.count("Prompt: ") == text.count("Output: ") == 4


def test_opt_by_its_name(page_model: Any) -> None:
    """From fp16 weights in PyTorch's file, vocab.json and merges.txt."""
    import torch

    home, folder = page_model("facebook/opt-125m")
    assert not {file.name for file in folder.iterdir()} & {"tokenizer.json", "model.safetensors"}
    lines = (
        "from octavo import LLM, SamplingParams",
        "llm = LLM('facebook/opt-125m', dtype='float32', kv_cache_memory_bytes='8M')",
        f"for o in llm.generate({PROMPTS!r}, SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)):",
        "    print((o.prompt_token_ids, o.outputs[0].token_ids, o.outputs[0].text))",
    )
    done = smollm2.run_python("-c", "\n".join(lines), HF_HUB_CACHE=str(home / "hub"), HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    model, tokenizer = loaded(folder, "AutoModelForCausalLM")
    for prompt, line in zip(PROMPTS, done.stdout.splitlines(), strict=True):
        ids, output, text = ast.literal_eval(line)
        assert ids == tokenizer(prompt).input_ids and ids[0] == 2
        options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
        assert output == model.generate(torch.tensor([ids]), **options)[0, len(ids) :].tolist()
        assert text == tokenizer.decode(output, skip_special_tokens=True)


AQLM = [
    "ISTA-DASLab/Llama-2-7b-AQLM-2Bit-1x16-hf",
    "ISTA-DASLab/Llama-2-7b-AQLM-2Bit-2x8-hf",
    "ISTA-DASLab/Llama-2-13b-AQLM-2Bit-1x16-hf",
    "ISTA-DASLab/Mixtral-8x7b-AQLM-2Bit-1x16-hf",
    "BlackSamorez/TinyLlama-1_1B-Chat-v1_0-AQLM-2Bit-1x16-hf",
]


@pytest.mark.parametrize("name", AQLM)
def test_generate_with_the_pages_aqlm_models(name: str, page_model: Any, tmp_path: Path) -> None:
    """By name, from a cache in the published layout; held against what the aqlm package dequantises."""
    import torch

    home, folder = page_model(name)
    options = ("--model", name, "--tensor-parallel-size", "2", "--max-tokens", "6", "--temperature", "0")
    text = run("page", "generate", home, tmp_path, *EXACT, *options)
    twin = dequantise(folder, tmp_path)
    for file in folder.glob("tokenizer*"):
        (twin / file.name).write_bytes(file.read_bytes())
    model, tokenizer = loaded(twin, "AutoModelForCausalLM")
    found = re.findall(r"Prompt: ('.*?'), Generated text: (.*)", text)
    assert [ast.literal_eval(prompt) for prompt, _ in found] == PROMPTS
    for prompt, generated in found:
        ids = tokenizer(ast.literal_eval(prompt)).input_ids
        output = model.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False)[0, len(ids) :]
        assert ast.literal_eval(generated) == tokenizer.decode(output, skip_special_tokens=True)


def test_as_vllm_takes_the_models_generation_config(page_model: Any, tmp_path: Path) -> None:
    home, folder = page_model("meta-llama/Llama-3.2-1B-Instruct")
    script = tmp_path / "defaults.py"
    lines = (
        "from vllm import LLM, EngineArgs",
        "from vllm.sampling_params import SamplingParams",
        f"llm = LLM({str(folder)!r}, kv_cache_memory_bytes='16M')",
        "params = llm.get_default_sampling_params()",
        "assert isinstance(params, SamplingParams)",
        "own = LLM(llm.engine_args.model, generation_config='vllm', kv_cache_memory_bytes='16M')",
        "print(params.temperature, params.top_p, own.get_default_sampling_params().temperature)",
        "print(EngineArgs().generation_config)",
    )
    script.write_text("\n".join(lines))
    done = smollm2.run_python("-m", "octavo.as_vllm", script, HF_HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0.6", "0.9", "1.0", "auto"]


def test_as_vllm_names_what_octavo_lacks(tmp_path: Path) -> None:
    script = tmp_path / "other.py"
    script.write_text("import sys\nprint(sys.argv[1:], __name__)\nfrom vllm.lora.request import LoRARequest\n")
    done = smollm2.run_python("-m", "octavo.as_vllm", script, "--a", "b")
    assert done.stdout == "['--a', 'b'] __main__\n"
    assert "octavo has no module in place of vllm.lora." in done.stderr
    script.write_text("from vllm import AsyncLLMEngine")
    assert "AsyncLLMEngine" in smollm2.run_python("-m", "octavo.as_vllm", script).stderr
    assert smollm2.run_python("-m", "octavo.as_vllm").returncode == 2
    missing = smollm2.run_python("-m", "octavo.as_vllm", tmp_path / "missing.py")
    assert missing.returncode == 2 and missing.stderr.count("\n") == 1 and "there is no script" in missing.stderr


def test_vllm_is_not_octavo_elsewhere() -> None:
    done = smollm2.run_python("-c", "import octavo, sys; assert 'vllm' not in sys.modules\nimport vllm")
    assert "No module named 'vllm'" in done.stderr


@pytest.mark.parametrize("script", ["classify", "embed", "score"])
@pytest.mark.parametrize("way", WAYS)
def test_help_lists_every_engine_option(script: str, way: str, tmp_path: Path) -> None:
    text = run(way, script, tmp_path, tmp_path, "--help")
    assert not [field.name for field in fields(EngineArgs) if f"--{field.name.replace('_', '-')}" not in text]
    defaults = {"classify": "jason9693/Qwen2.5-1.5B-apeach", "embed": "intfloat/e5-mistral-7b-instruct"}
    assert f"(default: {defaults.get(script, 'BAAI/bge-reranker-v2-m3')})" in " ".join(text.split())

"""The examples, and the Basic page's own scripts with nothing but the import name changed."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

import smollm2
from octavo import EngineArgs

EXAMPLES = Path(__file__).parents[2] / "examples" / "offline_inference" / "basic"
PAGE = Path(__file__).parent / "basic_page"
SHORT = ("--max-tokens", "8", "--temperature", "0", "--top-p", "0.9", "--top-k", "20")
ENGINE = ("--model", str(smollm2.path()), "--kv-cache-memory-bytes", smollm2.KV_BYTES)


def page_script(name: str, folder: Path) -> Path:
    """The page's text, importing octavo."""
    text = (PAGE / f"{name}.txt").read_text(encoding="utf-8")
    script = folder / name
    script.write_text(re.sub(r"(?m)^from vllm\b", "from octavo", text), encoding="utf-8")
    return script


def printed(script: Path, *args: str) -> str:
    done = smollm2.run_python(script, *args)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_basic() -> None:
    text = printed(EXAMPLES / "basic.py", "--model", smollm2.NAME)
    assert text.count("Prompt: ") == text.count("Output: ") == 4


def test_generate() -> None:
    text = printed(EXAMPLES / "generate.py", *ENGINE, *SHORT)
    assert "'The capital of France is', Generated text: ' Paris" in text


def test_chat() -> None:
    text = printed(EXAMPLES / "chat.py", *ENGINE, *SHORT)
    assert text.count("Generated text: ") == 4
    assert re.search(r"Streamed: \S", text)


def test_page_generate(tmp_path: Path) -> None:
    text = printed(page_script("generate.py", tmp_path), *ENGINE, *SHORT)
    assert text.count("Prompt: ") == 4
    assert "'The capital of France is', Generated text: ' Paris" in text


def test_page_chat(tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:")
    text = printed(page_script("chat.py", tmp_path), *ENGINE, *SHORT, "--chat-template-path", str(template))
    assert text.count("Generated text: ") == 11  # one conversation, then ten copies of it
    assert len(set(re.findall("Generated text: .*", text))) == 1


def test_page_basic_with_another_model(tmp_path: Path) -> None:
    script = page_script("basic.py", tmp_path)
    script.write_text(script.read_text(encoding="utf-8").replace("facebook/opt-125m", smollm2.NAME), encoding="utf-8")
    assert printed(script).count("Output: ") == 4


@pytest.mark.parametrize("name", ["generate.py", "chat.py"])
@pytest.mark.parametrize("of_page", [False, True], ids=["example", "page"])
def test_help_lists_every_engine_option(name: str, of_page: bool, tmp_path: Path) -> None:
    text = printed(page_script(name, tmp_path) if of_page else EXAMPLES / name, "--help")
    missing = [field.name for field in fields(EngineArgs) if f"--{field.name.replace('_', '-')}" not in text]
    assert not missing
    assert "--max-tokens" in text and "--top-k" in text


def test_model_config_and_generation_config_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"max_new_tokens": 3, "temperature": 0.0}')
    text = printed(EXAMPLES / "generate.py", *ENGINE, "--generation-config", str(tmp_path))
    assert "'The capital of France is', Generated text: ' Paris.\\n'" in text

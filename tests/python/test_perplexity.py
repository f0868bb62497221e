"""benchmarks/perplexity.py: counts as llama-perplexity does, and compares with what that says."""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import perplexity
from engines.base import CompareError
from octavo.tokenizer import load_tokenizer
from reference import from_llama_gguf

GOLDEN = Path(__file__).parents[1] / "golden"
MODEL = GOLDEN / "gguf" / "tiny-F32.gguf"
TEXT = GOLDEN / "texts" / "code.txt"
CONTEXT = 64


def test_windows() -> None:
    assert perplexity.windows(list(range(11)), 3, 0, None) == [[0, 1, 2], [3, 4, 5]]  # not 6 to 8, the last whole one
    assert perplexity.windows(list(range(11)), 3, 1, 99) == [[99, 1, 2]]
    with pytest.raises(CompareError, match="5 tokens; two windows of 3"):
        perplexity.windows([1] * 5, 3, 0, None)


def test_differences_have_an_error() -> None:
    difference, error = perplexity.difference_of([1.0, 2.0, 3.0], [1.0, 2.01, 3.02])
    assert difference == pytest.approx(100 * (np.exp(-0.01) - 1))
    assert error == pytest.approx(100 * 0.01 / np.sqrt(3))
    assert np.isnan(perplexity.difference_of([1.0], [2.0])[1])  # one window tells nothing


def expected() -> list[float]:
    """The losses of the two first windows, by transformers."""
    tokens = load_tokenizer(MODEL).encode(TEXT.read_text("utf-8"))
    assert len(tokens) >= 3 * CONTEXT
    reference, means = from_llama_gguf(MODEL), []
    for start in (0, CONTEXT):
        window = tokens[start : start + CONTEXT]
        logits, losses = reference.logits(window).astype(np.float64), []
        for i in range(CONTEXT // 2 + 1, CONTEXT):  # of the second half all but the first
            row = logits[i - 1]
            losses.append(np.log(np.exp(row - row.max()).sum()) + row.max() - row[window[i]])
        means.append(float(np.mean(losses)))
    return means


def test_octavo_counts_as_transformers_would() -> None:
    arguments = argparse.Namespace(dtype="float32", threads=1, context=CONTEXT, windows=2)
    assert perplexity.octavo_losses(MODEL, TEXT.read_text("utf-8"), arguments) == pytest.approx(expected(), rel=1e-4)


def run(folder: Path, figures: str) -> subprocess.CompletedProcess[str]:
    """The script beside a llama-perplexity that says these figures."""
    program = folder / "llama-perplexity"
    program.write_text(f'#!/bin/sh\necho "$@" >&2\nprintf "{figures}"\n')
    program.chmod(0o755)
    options = ["--llama-bin", folder, "--text", TEXT, "--context", str(CONTEXT), "--windows", "2", "--dtype", "float32"]
    command = [sys.executable, perplexity.__file__, *options, MODEL]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("shares", "status", "difference"),
    [((1.001, 1.001), 0, "-0.10 ± 0.00%"), ((1.02, 1.02), 1, "-1.96 ± 0.00%"), ((0.99, 1.02), 0, "-0.49 ± 1.49%")],
)
def test_the_table_says_how_far_apart_they_are(
    tmp_path: Path, shares: tuple[float, float], status: int, difference: str
) -> None:
    first, second = (loss + math.log(share) for loss, share in zip(expected(), shares, strict=True))
    both = f"{math.exp((first + second) / 2):.4f}"
    done = run(tmp_path, f"0.1 minutes\\n[1]{math.exp(first):.4f},[2]{both},[3]")
    assert done.returncode == status, done.stderr
    assert done.stdout.splitlines()[-1].startswith("| tiny-F32 | ")
    assert done.stdout.endswith(f" | {both} | {difference} | F32 100% |\n")


def test_what_llama_perplexity_does_not_say_is_an_error(tmp_path: Path) -> None:
    done = run(tmp_path, "[1]1.5,")
    assert done.returncode == 2
    assert "llama-perplexity said no perplexity of 2 windows of tiny-F32.gguf" in done.stderr

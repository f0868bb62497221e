"""`octavo bench`: it measures what was asked, counts it rightly and refuses what it cannot do."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

import smollm2
from encoder_folders import make_encoder

TINY = Path(__file__).parents[1] / "golden" / "gguf" / "tiny-Q4_K.gguf"
QUICK = ("--repeats", "2", "--kv-cache-memory-bytes", "64M")


def bench(*args: str | Path, **env: str) -> Any:
    return smollm2.run_python("-m", "octavo", "bench", *args, **env)


def measured(tmp_path: Path, *args: str | Path) -> tuple[dict[str, Any], list[list[str]]]:
    """What the JSON file says and the table's lines as cells."""
    file = tmp_path / "bench.json"
    done = bench(*args, "--json", file)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    return json.loads(file.read_text()), [line.split() for line in lines[1:]]


def mistake(*args: str | Path, **env: str) -> str:
    done = bench(*args, **env)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("octavo bench: ")
    return str(done.stderr)


def test_every_combination_is_run_and_counted(tmp_path: Path) -> None:
    sizes = ("--batch-sizes", "1", "3", "--input-lens", "5", "40", "--output-lens", "1", "7")
    data, table = measured(tmp_path, TINY, *sizes, *QUICK, "--num-threads", "1")
    asked = list(itertools.product((1, 3), (5, 40), (1, 7)))
    assert [(row["requests"], row["input_len"], row["output_len"]) for row in data["rows"]] == asked
    assert [tuple(map(int, cells[:3])) for cells in table] == asked
    assert data["task"] == "generate" and data["threads"] == 1 and data["engine"]["num_threads"] == 1
    for row, (n, n_in, n_out) in zip(data["rows"], asked, strict=True):
        assert len(row["runs"]) == 2 and row["preemptions"] == 0
        for run in row["runs"]:
            assert (run["n_input_tokens"], run["n_output_tokens"]) == (n * n_in, n * n_out)
            assert len(run["first_token_seconds"]) == n and len(run["token_seconds"]) == (n if n_out > 1 else 0)
            assert 0 < max(run["first_token_seconds"]) <= run["prefill_seconds"] <= run["seconds"]


def test_figures_follow_from_the_runs(tmp_path: Path) -> None:
    sizes = ("--batch-sizes", "2", "--input-lens", "16", "--output-lens", "8")
    data, table = measured(tmp_path, TINY, *sizes, *QUICK, "--repeats", "3", "--warmup", "0")
    (row,) = data["rows"]
    runs = sorted(row["runs"], key=lambda run: run["seconds"])
    assert row["output_tokens_per_second"] == pytest.approx(16 / runs[1]["seconds"])
    assert row["total_tokens_per_second"] == pytest.approx(48 / runs[1]["seconds"])
    prefill = sorted(run["prefill_seconds"] for run in runs)
    assert row["prefill_tokens_per_second"] == pytest.approx(32 / prefill[1])
    for name, key in (("first_token_ms", "first_token_seconds"), ("inter_token_ms", "token_seconds")):
        values = sorted(value for run in runs for value in run[key])
        assert row[name] == pytest.approx(1000 * (values[2] + values[3]) / 2)
    assert float(table[0][6]) == pytest.approx(row["output_tokens_per_second"], abs=0.06)


def test_more_requests_than_the_engine_runs_at_once_by_default(tmp_path: Path) -> None:
    sizes = ("--batch-sizes", "65", "--input-lens", "1", "--output-lens", "300")
    data, _ = measured(tmp_path, TINY, *sizes, *QUICK)
    first_tokens = data["rows"][0]["runs"][0]["first_token_seconds"]
    assert max(first_tokens) < data["rows"][0]["runs"][0]["seconds"] / 2  # none waited for another one's end


def test_a_cache_that_is_too_small_is_said(tmp_path: Path) -> None:
    sizes = ("--batch-sizes", "8", "--input-lens", "64", "--output-lens", "64", "--num-gpu-blocks-override", "10")
    file = tmp_path / "bench.json"
    done = bench(TINY, *sizes, "--json", file)
    assert done.returncode == 0 and "8 x 64 in + 64 out" in done.stderr and "--kv-cache-memory-bytes" in done.stderr
    assert json.loads(file.read_text())["rows"][0]["preemptions"] > 0


@pytest.mark.parametrize(
    "architecture, task, options",
    [
        ("Model", "embed", []),
        ("ForSequenceClassification", "classify", []),
        ("Model", "token_embed", ["--pooler-config.task", "token_embed"]),
    ],
)
def test_pooling_models_are_measured_in_sequences(
    tmp_path: Path, architecture: str, task: str, options: list[str]
) -> None:
    folder = make_encoder(tmp_path / "model", "Bert", architecture)
    sizes = ("--batch-sizes", "1", "4", "--input-lens", "8", "--repeats", "2")
    data, table = measured(tmp_path, folder, *sizes, "--skip-tokenizer-init", *options)
    assert data["task"] == task
    assert [cells[:2] for cells in table] == [["1", "8"], ["4", "8"]]
    for row, n in zip(data["rows"], (1, 4), strict=True):
        assert [run["n_input_tokens"] for run in row["runs"]] == [8 * n, 8 * n]
        seconds = sorted(run["seconds"] for run in row["runs"])
        speeds = [n / s for s in seconds]
        assert row["sequences_per_second"] == pytest.approx(sum(speeds) / 2)
        assert row["tokens_per_second"] == pytest.approx(8 * sum(speeds) / 2)


def test_plot(tmp_path: Path) -> None:
    file = tmp_path / "bench.svg"
    done = bench(TINY, "--batch-sizes", "1", "2", "--input-lens", "4", "--output-lens", "1", *QUICK, "--plot", file)
    assert done.returncode == 0 and "Warning" not in done.stderr
    drawn = file.read_text()
    assert all(text in drawn for text in ("first token ms", "prefill tok/s", "4 in + 1 out", TINY.name))


def test_plot_without_matplotlib(tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['matplotlib'] = None; from octavo.cli import main; sys.exit(main())"
    done = smollm2.run_python("-c", hidden, "bench", TINY, "--plot", tmp_path / "bench.png")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "octavo bench: --plot needs matplotlib, which is not installed: pip install matplotlib.\n"


@pytest.mark.parametrize(
    "args, words",
    [
        ([], "name a model"),
        (["nosuch.gguf"], "nosuch.gguf"),
        ([TINY, "another"], "unexpected 'another'"),
        ([TINY, "--batch-sizes", "0"], "--batch-sizes: must be a whole number of at least 1, got '0'"),
        ([TINY, "--input-lens", "8", "many"], "'many' is no integer"),
        ([TINY, "--repeats", "-1"], "--repeats"),
        ([TINY, "--warmup", "-1"], "at least 0"),
        ([TINY, "--batch-sizes"], "--batch-sizes: expected at least one argument"),
        ([TINY, "--input-lens", "1000", "--output-lens", "1", "25"], "have 1025 tokens"),
        ([TINY, "--json", "/nosuch/bench.json"], "--json cannot write /nosuch/bench.json"),
        ([TINY, "--plot", "/"], "--plot cannot write /"),
        ([TINY, "--task", "embed", "--output-lens", "8"], "leave out --output-lens"),
        ([TINY, "--num-threads", "0"], "num_threads"),
    ],
)
def test_mistakes(args: list[str | Path], words: str) -> None:
    assert words in mistake(*args)

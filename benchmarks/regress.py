#!/usr/bin/env python3
"""Says whether a revision is slower than another: builds both, runs the benchmarks of both in turns, compares medians.

  benchmarks/regress.py main                    # the last commit beside main
  benchmarks/regress.py v0.1 v0.2 --filter gemm # two revisions, linears only
  benchmarks/regress.py main --model M.gguf     # generation from Python as well

Rounds alternate A B B A A B ..., so that a machine that slows down or speeds up disturbs both alike. A row is slower
when its ratio of medians is above the threshold and its confidence interval (95%) is above 1; it then has to be slower
once more in a run of its own. The exit status is 1 where a row is, 0 where none is, 2 where nothing could be measured.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from engines.base import WORKLOADS, CompareError, run_program
from engines.worker import WORKERS, WorkerProcess
from revisions import ROOT, Revision, build
from stats import Ratio, ratio

# What the programs run where --filter does not choose: the kernels that decide most models' speed, and whole engines.
SELECTION = {
    "bench_gemm": r"gemm/(Q8_0|Q4_K|BF16)/llama-3.2-1b.(gate_up|down)/tokens:(1|16|512)/threads:2",
    "bench_attention": r"heads:32/8x64/.*threads:2",
    "bench_sampler": r"vocab:128256",
    "bench_scheduler": r".*",
    "bench_engine": r"smollm2-135m/(Q8_0|BF16)/.*threads:2",
}
SECONDS_OF_A_ROW = 0.1

Times = dict[str, float]  # row -> seconds
Side = Callable[[frozenset[str] | None], Times]  # a round of one revision: of these rows, or of all (None)
Samples = dict[str, tuple[list[float], list[float]]]  # row -> of both sides, a pair for each round
Found = Mapping[str, Ratio]  # by row


def sample(sides: tuple[Side, Side], rounds: int, rows: frozenset[str] | None, title: str) -> Samples:
    """Runs both sides in turns, the first to go changing each round; rows that only one side has are left out."""
    samples: Samples = {}
    for i in tqdm(range(rounds), desc=title, unit="round"):
        order = (0, 1) if i % 2 == 0 else (1, 0)
        times: dict[int, Times] = {side: sides[side](rows) for side in order}
        for row in times[0].keys() & times[1].keys():
            pair = samples.setdefault(row, ([], []))
            pair[0].append(times[0][row])
            pair[1].append(times[1][row])
    if not samples:
        raise CompareError("The filter matches no row that both revisions have; --filter takes a part of a row's name.")
    return dict(sorted(samples.items()))


def ratios(samples: Samples) -> dict[str, Ratio]:
    return {row: ratio(*pair) for row, pair in samples.items()}


def slower_rows(sides: tuple[Side, Side], rounds: int, threshold: float, found: Found) -> dict[str, Ratio]:
    """The rows that are slower, and slower again when they are run alone; with what that run found."""
    suspects = frozenset(row for row, seen in found.items() if seen.is_slower(threshold))
    if not suspects:
        return {}
    again = ratios(sample(sides, rounds, suspects, "Confirming"))
    return {row: seen for row, seen in again.items() if seen.is_slower(threshold)}


def pattern_of(rows: Iterable[str]) -> str:
    """Matches these rows alone, in POSIX syntax: the programs refuse a backslash before what needs none there."""
    escaped = [re.sub(r"[][.^$*+?(){}|\\]", r"\\\g<0>", row) for row in rows]
    return f"^({'|'.join(escaped)})$"


def programs_side(revision: Revision, pattern: str | None) -> Side:
    """The C++ benchmarks of a revision."""

    def run(rows: frozenset[str] | None) -> Times:
        times: Times = {}
        for program, default in SELECTION.items():
            wanted = pattern if pattern is not None else default
            if rows is not None:
                own = [row.removeprefix(f"{program}: ") for row in rows if row.startswith(f"{program}: ")]
                wanted = pattern_of(own) if own else ""
            if wanted and (revision.programs / program).exists():
                times.update({f"{program}: {row}": time for row, time in _run(revision.programs / program, wanted)})
        return times

    return run


def _run(program: Path, pattern: str) -> list[tuple[str, float]]:
    options = [f"--benchmark_filter={pattern}", f"--benchmark_min_time={SECONDS_OF_A_ROW}", "--benchmark_format=json"]
    said = run_program([str(program), *options])
    unit = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
    # A filter that matches nothing is said in words, not in JSON.
    results = json.loads(said)["benchmarks"] if said.lstrip().startswith("{") else []
    return [(row["name"], row["real_time"] * unit[row["time_unit"]]) for row in results if "real_time" in row]


def python_side(revision: Revision, model: Path, n_threads: int, stack: ExitStack) -> Side:
    """Generation from Python, by a process that has loaded the model."""
    command = [sys.executable, str(WORKERS / "octavo_worker.py"), str(model), str(n_threads)]
    worker = WorkerProcess(command, {**os.environ, "PYTHONPATH": str(revision.package)})
    stack.callback(worker.close)
    seed = iter(range(1, 1_000_000))

    def run(rows: frozenset[str] | None) -> Times:
        names = {f"python: {name}": workload for name, workload in WORKLOADS.items()}
        at = next(seed)
        return {row: worker.seconds(names[row], at) for row in names if rows is None or row in rows}

    run(None)
    return run


def both(first: Side, second: Side) -> Side:
    return lambda rows: {**first(rows), **second(rows)}


def table(found: Found, confirmed: Found, names: tuple[str, str]) -> str:
    lines = [f"| row | time of {names[1]} / {names[0]} | 95% interval | |", "|---|---|---|---|"]
    for row, seen in found.items():
        verdict = f"slower; alone {confirmed[row].value:.3f}" if row in confirmed else ""
        lines.append(f"| {row} | {seen.value:.3f} | {seen.low:.3f} to {seen.high:.3f} | {verdict} |")
    return "\n".join(lines)


def write_history(path: Path, revisions: tuple[Revision, Revision], samples: Samples, found: Found) -> None:
    """Appends a line of JSON for each row, its samples included."""
    when = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    common = {"when": when, "base": revisions[0].commit, "head": revisions[1].commit, "cpu": _cpu()}
    with path.open("a") as file:
        for row, (base, head) in samples.items():
            line = {**common, "row": row, **asdict(found[row]), "base_seconds": base, "head_seconds": head}
            file.write(json.dumps(line) + "\n")


def _cpu() -> str:
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{names[0] if names else 'unknown'}, {os.cpu_count()} threads"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", metavar="BASE", help="revision to compare with")
    parser.add_argument("head", metavar="HEAD", nargs="?", default="HEAD", help="revision to judge (default: HEAD)")
    parser.add_argument("--filter", metavar="REGEX", help="rows of the C++ benchmarks (default: a selection)")
    parser.add_argument("--model", type=Path, metavar="GGUF", help="model to generate with from Python, too")
    parser.add_argument("--threads", type=int, default=2, help="of generation from Python (default: 2)")
    parser.add_argument("--rounds", type=int, default=10, help="samples of each side (default: 10)")
    parser.add_argument("--threshold", type=float, default=5, metavar="PERCENT", help="default: 5")
    parser.add_argument("--history", type=Path, metavar="FILE", help="append every row as a line of JSON")
    parser.add_argument("--build-dir", type=Path, default=ROOT / "build" / "regress", help="where revisions are built")
    arguments = parser.parse_args()
    if arguments.rounds < 3:
        parser.error(f"--rounds is {arguments.rounds}; it takes 3 at least to tell noise from a change.")
    if arguments.model is not None and not arguments.model.exists():
        parser.error(f"--model: there is no {arguments.model}.")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    threshold = arguments.threshold / 100
    with ExitStack() as stack:
        try:
            revisions = [build(name, arguments.build_dir) for name in (arguments.base, arguments.head)]
            sides = [programs_side(revision, arguments.filter) for revision in revisions]
            if arguments.model is not None:
                for i, revision in enumerate(revisions):
                    sides[i] = both(sides[i], python_side(revision, arguments.model, arguments.threads, stack))
            pair, two = (sides[0], sides[1]), (revisions[0], revisions[1])
            samples = sample(pair, arguments.rounds, None, "Comparing")
            found = ratios(samples)
            confirmed = slower_rows(pair, arguments.rounds, threshold, found)
        except CompareError as error:
            print(f"regress.py: {error}", file=sys.stderr)
            return 2
        except re.error as error:
            print(f"regress.py: --filter is no regular expression: {error}.", file=sys.stderr)
            return 2
    print(table(found, confirmed, (arguments.base, arguments.head)))
    if arguments.history is not None:
        write_history(arguments.history, two, samples, found)
    if confirmed:
        print(f"\n{len(confirmed)} of {len(found)} rows are slower by more than {arguments.threshold:g}%.")
    return 1 if confirmed else 0


if __name__ == "__main__":
    sys.exit(main())

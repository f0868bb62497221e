"""llama.cpp, by its own benchmark programs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from engines.base import CannotRun, CompareError, Engine, Workload, run_program


class LlamaCpp(Engine):
    """llama-bench for one request, llama-batched-bench for several."""

    name = "llama.cpp"

    def __init__(self, folder: Path | None) -> None:
        self.bench = self.find(folder, "llama-bench")
        self.batched_bench = self.find(folder, "llama-batched-bench")
        self._version = ""

    @staticmethod
    def find(folder: Path | None, name: str) -> str:
        found = shutil.which(name, path=None if folder is None else str(folder))
        if found is None:
            place = "on the PATH" if folder is None else f"in {folder}"
            raise CompareError(
                f"There is no {name} {place}; --llama-bin names its folder, --help says how to build it."
            )
        return found

    def prepare(self, model: Path, n_threads: int) -> None:
        if model.is_dir():
            raise CannotRun("it reads GGUF files only")

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

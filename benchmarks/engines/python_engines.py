"""octavo and the peers that are Python packages."""

from __future__ import annotations

import ctypes.util
import os
import sys
from pathlib import Path

from engines.base import CannotRun, CompareError, run_program
from engines.worker import WorkerEngine


class Octavo(WorkerEngine):
    """The octavo that this Python imports; what it cannot run is an error, as everything is compared with it."""

    name = "octavo"
    program = "octavo_worker.py"

    def __init__(self) -> None:
        super().__init__(sys.executable)

    def prepare(self, model: Path, n_threads: int) -> None:
        try:
            super().prepare(model, n_threads)
        except CannotRun as error:
            raise CompareError(f"octavo cannot run {model.name}: {error}") from error


class Transformers(WorkerEngine):
    """transformers in this Python, in bf16; GGUF files are dequantised."""

    name = "transformers"
    program = "transformers_worker.py"

    def __init__(self) -> None:
        super().__init__(sys.executable)


class _OtherPython(WorkerEngine):
    """An engine installed in a Python of its own, which reads folders only."""

    def __init__(self, python: Path, option: str) -> None:
        if not os.access(python, os.X_OK) or python.is_dir():
            raise CompareError(f"{option} must name a Python program, which {python} is not.")
        super().__init__(str(python.absolute()))

    def environment(self, n_threads: int) -> dict[str, str]:
        own = {name: value for name, value in super().environment(n_threads).items() if name != "PYTHONPATH"}
        return {"HF_HUB_OFFLINE": "1", **own}

    def weights(self, model: Path) -> Path:
        if model.is_file():
            raise CannotRun("it reads folders in Hugging Face layout only")
        return model


class Vllm(_OtherPython):
    """vLLM's CPU build, in bf16, set up as its documentation advises: bound threads, tcmalloc and Intel's OpenMP."""

    name = "vLLM"
    program = "vllm_worker.py"

    def __init__(self, python: Path) -> None:
        super().__init__(python, "--vllm-python")

    def environment(self, n_threads: int) -> dict[str, str]:
        cpus = sorted(os.sched_getaffinity(0))[:n_threads]
        openmp = Path(self._python).parent.parent / "lib" / "libiomp5.so"
        preloaded = [ctypes.util.find_library("tcmalloc_minimal"), str(openmp) if openmp.is_file() else None]
        return {
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cpus)),
            "VLLM_CPU_KVCACHE_SPACE": "2",
            "LD_PRELOAD": ":".join(filter(None, preloaded)),
            **super().environment(n_threads),  # what the caller has set goes first
        }


class OpenVino(_OtherPython):
    """OpenVINO GenAI on a folder that optimum-intel exports in int8 or int4, once, to `folder`."""

    program = "openvino_worker.py"

    def __init__(self, python: Path, bits: int, folder: Path) -> None:
        super().__init__(python, "--openvino-python")
        self.name = f"OpenVINO int{bits}"
        self._bits = bits
        self._folder = folder

    def weights(self, model: Path) -> Path:
        exported = self._folder / f"{super().weights(model).resolve().name}-int{self._bits}"
        if not (exported / "openvino_tokenizer.xml").is_file():
            self._export(model, exported)
        return exported

    def _export(self, model: Path, to: Path) -> None:
        print(f"{self.name}: exporting {model.name} to {to}", file=sys.stderr)
        what = ["-m", str(model), "--task", "text-generation-with-past", "--weight-format", f"int{self._bits}"]
        how = ["--group-size", "64", "--ratio", "1.0"] if self._bits == 4 else []
        module = [self._python, "-m", "optimum.commands.optimum_cli"]
        run_program([*module, "export", "openvino", *what, *how, str(to)])

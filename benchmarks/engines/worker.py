"""Engines that run in a Python process beside this one, which answers one sample after another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from engines.base import CannotRun, CompareError, Engine, Workload, last_lines

WORKERS = Path(__file__).resolve().parent.parent / "workers"
SECONDS_TO_END = 5


def _lead_a_group() -> None:
    os.setpgrp()  # its own children are stopped and ended with it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # by which the system ends them, and which nohup has ignored


class WorkerProcess:
    """A program of workers/, from the loading of its model on (workers/serve.py says what is exchanged).

    It is stopped between its samples: engines whose threads spin for a while after their work (vLLM's do for about a
    second) would slow down the next one. Should this process be killed, the system ends a stopped group of its session.
    """

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self._errors = tempfile.TemporaryFile("w+", errors="replace")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=env,
            preexec_fn=_lead_a_group,
        )
        try:
            self.version: str = self._answer()["version"]
        except BaseException:
            self.close()
            raise
        self._signal(signal.SIGSTOP)

    def seconds(self, workload: Workload, seed: int) -> float:
        """The time of one run of the workload, on prompts that follow from the seed."""
        sizes = {"n_requests": workload.n_requests, "n_prompt": workload.n_prompt, "n_output": workload.n_output}
        assert self._process.stdin is not None
        self._signal(signal.SIGCONT)
        with suppress(BrokenPipeError):  # it has ended, and the missing answer says how
            self._process.stdin.write(json.dumps({**sizes, "seed": seed}) + "\n")
            self._process.stdin.flush()
        seconds = float(self._answer()["seconds"])
        self._signal(signal.SIGSTOP)
        return seconds

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            said = last_lines(self._errors.read())
            raise CompareError(f"it ended with status {status}" + (f":\n{said}" if said else ""))
        return json.loads(line)

    def close(self) -> None:
        """Ends it, kindly first."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._signal(signal.SIGCONT)
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(SECONDS_TO_END)
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _signal(self, number: signal.Signals) -> None:
        """To the worker and its children, as far as there still are any."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


class WorkerEngine(Engine):
    """One worker serves all samples of a model; each workload runs once uncounted before its first sample."""

    program: str  # in workers/

    def __init__(self, python: str) -> None:
        self._python = python
        self._worker: WorkerProcess | None = None
        self._rehearsed: set[Workload] = set()
        self._n_samples = 0
        self._version = ""

    def environment(self, n_threads: int) -> dict[str, str]:
        """The environment variables of the worker."""
        return dict(os.environ)

    def weights(self, model: Path) -> Path:
        """What is loaded for the model; raises CannotRun where there is nothing."""
        return model

    def prepare(self, model: Path, n_threads: int) -> None:
        try:
            self._worker = self._start(self.weights(model), n_threads)
        except CannotRun:
            raise
        except (CompareError, OSError) as error:
            raise CannotRun(f"it does not start: {str(error).splitlines()[-1]}") from error

    def _start(self, model: Path, n_threads: int) -> WorkerProcess:
        command = [self._python, str(WORKERS / self.program), str(model), str(n_threads)]
        worker = WorkerProcess(command, self.environment(n_threads))
        self._version = worker.version
        return worker

    def sample(self, model: Path, workload: Workload, n_threads: int) -> float:
        assert self._worker is not None
        if workload not in self._rehearsed:
            self._seconds(self._worker, workload, seed=0)
            self._rehearsed.add(workload)
        self._n_samples += 1  # every engine gets the same prompts in the same round
        return workload.counted / self._seconds(self._worker, workload, self._n_samples)

    def _seconds(self, worker: WorkerProcess, workload: Workload, seed: int) -> float:
        try:
            return worker.seconds(workload, seed)
        except CompareError as error:
            raise CompareError(f"{self.name} failed in {workload.name}: {error}") from error

    def version(self) -> str:
        return self._version

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
        self._worker = None
        self._rehearsed.clear()
        self._n_samples = 0

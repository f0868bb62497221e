"""What an engine is, and what it is asked to do."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path


class CompareError(Exception):
    """What went wrong, in one sentence."""


class CannotRun(CompareError):
    """Why an engine cannot run a model, in one line."""


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
    def prepare(self, model: Path, n_threads: int) -> None:
        """Gets ready for samples of this model; raises CannotRun where the engine cannot run it."""

    @abstractmethod
    def sample(self, model: Path, workload: Workload, n_threads: int) -> float:
        """Tokens per second of one run of the workload, loading and warm-up not counted."""

    @abstractmethod
    def version(self) -> str:
        """What was measured, for the report."""

    def close(self) -> None:  # noqa: B027 (most engines leave nothing running)
        """Ends what prepare() has started."""


def run_program(command: list[str]) -> str:
    """The program's standard output; raises CompareError with the end of what it said where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CompareError(
            f"{Path(command[0]).name} ended with status {done.returncode}:\n{last_lines(done.stderr or done.stdout)}"
        )
    return done.stdout


def last_lines(text: str) -> str:
    """The end of what a program said."""
    return "\n".join(text.strip().splitlines()[-5:])

"""benchmarks/compare.py: engines take turns, those that cannot run a model are left out, and workers do as they say."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import compare
import smollm2
from engines.base import CannotRun, CompareError, Engine, Workload
from engines.llama_cpp import LlamaCpp
from engines.python_engines import OpenVino, Vllm
from engines.worker import WORKERS, WorkerEngine
from llama_folders import LlamaSpec, make_llama

PROGRAM = Path(compare.__file__)
SMALL = Workload("small", "3 requests, 5 in + 2 out", 3, 5, 2, counted=6)

WORKER = """
import json, os, subprocess, sys
from serve import serve

def load(model, n_threads):
    child = subprocess.Popen(["sleep", "1000"])
    if "unknown" in model: sys.exit("this model is of no known kind")
    print("libraries print", model)
    def generate(prompts, n_output):
        with open(model + ".prompts", "a") as file:
            print(json.dumps([os.getpid(), child.pid, n_threads, prompts]), file=file)
        return len(prompts) * n_output - ("lazy" in model)
    return "1.2.3", generate

if __name__ == "__main__":
    serve(load)
"""


class FakeWorker(WorkerEngine):
    """A worker that writes down what it was asked."""

    name = "fake"

    def __init__(self, folder: Path) -> None:
        super().__init__(sys.executable)
        self.program = str(folder / "fake_worker.py")
        Path(self.program).write_text(WORKER)

    def environment(self, n_threads: int) -> dict[str, str]:
        return {**super().environment(n_threads), "PYTHONPATH": str(WORKERS)}


class Fixed(Engine):
    """An engine of known speeds, which notes when it is asked."""

    def __init__(self, name: str, speeds: list[float], calls: list[str], refuses: str | None = None) -> None:
        self.name = name
        self._speeds = speeds
        self._calls = calls
        self._refuses = refuses

    def prepare(self, model: Path, n_threads: int) -> None:
        if self._refuses is not None:
            raise CannotRun(self._refuses)

    def sample(self, model: Path, workload: Workload, n_threads: int) -> float:
        self._calls.append(self.name)
        return self._speeds[self._calls.count(self.name) - 1]

    def version(self) -> str:
        return f"version of {self.name}"

    def close(self) -> None:
        self._calls.append(f"end {self.name}")


def state_of(process: int) -> str:
    """Its letter in /proc; X where there is no such process any more."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "X"


def soon(condition: Any) -> bool:
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def asked(model: Path) -> list[Any]:
    return [json.loads(line) for line in Path(f"{model}.prompts").read_text().splitlines()]


def three_engines(calls: list[str]) -> list[Engine]:
    return [
        Fixed("a", [10, 30, 20], calls),
        Fixed("b", [5, 4, 6], calls),
        Fixed("c", [], calls, refuses="it reads poems only"),
    ]


def measured(model: Path, calls: list[str]) -> tuple[list[Engine], list[Any]]:
    engines = three_engines(calls)
    arguments = compare.argparse.Namespace(workloads=["prefill"], threads=2, rounds=3)
    return engines, compare.measure_model(engines, model, arguments)


# ---- the comparison ----


def test_engines_take_turns_and_are_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[str] = []
    _, (row,) = measured(tmp_path, calls)
    assert calls == ["a", "b", "a", "b", "a", "b", "end a", "end b", "end c"]
    assert row.samples == {"a": [10, 30, 20], "b": [5, 4, 6]} and row.left_out == {"c": "it reads poems only"}
    assert f"{tmp_path.name} without c: it reads poems only.\n" in capsys.readouterr().err


def test_table_json_and_plot_have_a_gap_for_what_was_left_out(tmp_path: Path) -> None:
    engines, rows = measured(tmp_path, [])
    title, _, line = compare.table(rows, engines)
    assert title == "| model | workload | a tok/s | b tok/s | c tok/s | a / b | a / c |"
    assert line == f"| {tmp_path.name} | prefill of 512 | 20.0 (±50%) | 5.0 (±20%) | - | 4.00x | - |"
    report = compare.report(rows, engines, 2)
    assert report["engines"] == {name: f"version of {name}" for name in "abc"}
    assert report["rows"][0]["median"] == {"a": 20, "b": 5} and report["rows"][0]["ratio"] == {"b": 4}
    assert report["rows"][0]["left_out"] == {"c": "it reads poems only"}
    compare.plot(rows, engines, tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    assert "prefill of 512" in drawn and f"<!-- {tmp_path.name} -->" in drawn


def test_engines_are_ended_where_one_fails(tmp_path: Path) -> None:
    calls: list[str] = []
    engines = [Fixed("a", [], calls)]
    with pytest.raises(IndexError):
        compare.measure_model(engines, tmp_path, compare.argparse.Namespace(workloads=["decode"], threads=1, rounds=1))
    assert calls == ["a", "end a"]


# ---- workers ----


def test_a_worker_answers_samples_on_the_prompts_of_their_round(tmp_path: Path) -> None:
    models = [tmp_path / name for name in ("one", "two")]
    for model in models:
        engine = FakeWorker(tmp_path)
        engine.prepare(model, 3)
        assert engine.version() == "1.2.3"
        assert all(engine.sample(model, SMALL, 3) > 0 for _ in range(2))
        engine.close()
    first, second = (asked(model) for model in models)
    assert len({process for process, *_ in first}) == 1 and {call[2] for call in first} == {3}
    warm_up, rehearsal, *samples = (call[3] for call in first)
    assert [len(ids) for ids in warm_up] == [4]
    assert [[len(ids) for ids in prompts] for prompts in (rehearsal, *samples)] == [[5, 5, 5]] * 3
    assert samples[0] != samples[1] and [call[3] for call in first] == [call[3] for call in second]


def test_a_worker_is_stopped_between_samples_and_ended_with_its_children(tmp_path: Path) -> None:
    engine = FakeWorker(tmp_path)
    engine.prepare(tmp_path / "model", 1)
    processes = asked(tmp_path / "model")[-1][:2]
    for _ in range(2):
        engine.sample(tmp_path / "model", SMALL, 1)
        assert soon(lambda: [state_of(process) for process in processes] == ["T", "T"])
    engine.close()
    assert soon(lambda: all(state_of(process) in "XZ" for process in processes))


def test_a_worker_does_not_outlive_a_terminated_comparison(tmp_path: Path) -> None:
    script = f"""
import os, signal, sys
sys.path[:0] = [{str(PROGRAM.parent)!r}, {str(Path(__file__).parent)!r}]
from pathlib import Path
import compare
from test_compare import FakeWorker, Fixed
class Terminating(Fixed):
    def sample(self, *_):
        os.kill(os.getpid(), signal.SIGTERM)
compare.chosen_engines = lambda *_: [FakeWorker(Path({str(tmp_path)!r})), Terminating("t", [], [])]
sys.argv = ["compare.py", {str(tmp_path)!r}, "--transformers"]
sys.exit(compare.main())
"""
    assert smollm2.run_python("-c", script).returncode == 130
    processes = asked(tmp_path)[-1][:2]
    assert soon(lambda: all(state_of(process) in "XZ" for process in processes))


def test_a_worker_does_not_outlive_a_killed_comparison(tmp_path: Path) -> None:
    script = f"""
import os, signal, sys
sys.path[:0] = [{str(PROGRAM.parent)!r}, {str(Path(__file__).parent)!r}]
from pathlib import Path
from test_compare import FakeWorker, SMALL, asked, soon, state_of
engine = FakeWorker(Path({str(tmp_path)!r}))
engine.prepare(Path({str(tmp_path / "model")!r}), 1)
engine.sample(Path(), SMALL, 1)
processes = asked(Path({str(tmp_path / "model")!r}))[-1][:2]
assert soon(lambda: [state_of(process) for process in processes] == ["T", "T"])
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert smollm2.run_python("-c", script).returncode == -signal.SIGKILL
    processes = asked(tmp_path / "model")[-1][:2]
    assert soon(lambda: all(state_of(process) in "XZ" for process in processes))


def test_a_worker_that_cannot_load_the_model_is_left_out(tmp_path: Path) -> None:
    engine = FakeWorker(tmp_path)
    with pytest.raises(CannotRun, match="^it does not start: this model is of no known kind$"):
        engine.prepare(tmp_path / "unknown", 1)
    engine.close()


def test_tokens_are_counted(tmp_path: Path) -> None:
    engine = FakeWorker(tmp_path)
    with pytest.raises(CompareError, match="3 tokens were generated where 4 were asked for"):
        engine.prepare(tmp_path / "lazy", 1)


# ---- the engines ----


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = LlamaSpec({"max_position_embeddings": 1024})
    return make_llama(tmp_path_factory.mktemp("compare") / "tiny-llama", spec)


@pytest.mark.slow
def test_folders_and_gguf_files_by_octavo_and_transformers(tmp_path: Path, golden: Path, llama: Path) -> None:
    file = tmp_path / "compare.json"
    models = [llama, golden / "gguf" / "tiny-Q4_K.gguf"]
    options = ("--transformers", "--rounds", "2", "--threads", "1", "--workloads", "prefill,decode", "--json", file)
    done = smollm2.run_python(PROGRAM, "--vllm-python", "/bin/false", *options, *models, PATH="")
    assert done.returncode == 0, done.stderr
    assert "tiny-llama without vLLM: it does not start: it ended with status 1" in done.stderr
    assert "vLLM" not in done.stdout  # not a column without a figure
    data = json.loads(file.read_text())
    rows = [(row["model"], row["workload"]["name"], list(row["left_out"])) for row in data["rows"]]
    assert rows == [(model.stem, name, ["vLLM"]) for model in models for name in ("prefill", "decode")]
    for row in data["rows"]:
        counts = {name: len(samples) for name, samples in row["tokens_per_second"].items()}
        assert counts == {"octavo": 2, "transformers": 2}
    assert "octavo / transformers" in done.stdout and set(data["engines"]) == {"octavo", "transformers"}


def test_engines_say_what_they_cannot_read(tmp_path: Path) -> None:
    for engine in (Vllm(Path(sys.executable)), OpenVino(Path(sys.executable), 8, tmp_path)):
        with pytest.raises(CannotRun, match="it reads folders in Hugging Face layout only"):
            engine.prepare(smollm2.path(), 1)
    for program in ("llama-bench", "llama-batched-bench"):
        (tmp_path / program).touch(mode=0o755)
    with pytest.raises(CannotRun, match="it reads GGUF files only"):
        LlamaCpp(tmp_path).prepare(tmp_path, 1)


def test_vllm_is_bound_to_as_many_cpus_as_there_are_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/of/this/python")
    cpus = sorted(os.sched_getaffinity(0))
    environment = Vllm(Path(sys.executable)).environment(1)
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == str(cpus[0]) and "PYTHONPATH" not in environment
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "7")
    assert Vllm(Path(sys.executable)).environment(1)["VLLM_CPU_KVCACHE_SPACE"] == "7"


def test_openvino_exports_once(tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\necho "$@" >> calls\nfor to; do :; done\nmkdir -p "$to" && touch "$to/openvino_tokenizer.xml"\n'
    )
    python.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert OpenVino(python, 4, tmp_path / "kept").weights(llama) == tmp_path / "kept" / "tiny-llama-int4"
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert call.startswith(f"-m optimum.commands.optimum_cli export openvino -m {llama} ")
    assert "--weight-format int4 --group-size 64" in call


# ---- the command line ----


@pytest.mark.parametrize(
    "args, words",
    [
        ([], "name at least one GGUF file or folder"),
        (["nosuch.gguf", "--transformers"], "There is no nosuch.gguf"),
        ([smollm2.path()], "nothing to compare with; give --llama-bin, --vllm-python"),
        ([smollm2.path(), "--llama-bin", "/"], "There is no llama-bench in /"),
        (
            [smollm2.path(), "--vllm-python", "/nosuch"],
            "--vllm-python must name a Python program, which /nosuch is not",
        ),
        ([smollm2.path(), "--openvino-python", "/"], "--openvino-python must name a Python program, which / is not"),
        ([smollm2.path(), "--transformers", "--workloads", "sleep"], "--workloads takes some of decode,prefill,batch"),
        ([smollm2.path(), "--transformers", "--rounds", "0"], "at least 1"),
    ],
)
def test_mistakes(args: list[str | Path], words: str) -> None:
    done = smollm2.run_python(PROGRAM, *args, PATH="")
    assert done.returncode in (1, 2) and done.stdout == ""
    assert words in done.stderr and "Traceback" not in done.stderr

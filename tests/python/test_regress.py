"""The regression runs: a planted slowdown is found and noise is not, and mistakes are told in a sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import regress  # noqa: E402
from engines.base import CompareError  # noqa: E402
from revisions import Revision  # noqa: E402
from stats import ratio  # noqa: E402


class Machine:
    """Rows of two revisions on a machine whose speed drifts; remembers who ran, and which rows."""

    def __init__(self, seconds: dict[str, tuple[float, float]], noise: float, seed: int = 1) -> None:
        self.seconds = seconds
        self.noise = np.random.default_rng(seed)
        self.size = noise
        self.order: list[int] = []
        self.rows: list[frozenset[str] | None] = []

    def sides(self) -> tuple[regress.Side, regress.Side]:
        return lambda rows: self._run(0, rows), lambda rows: self._run(1, rows)

    def _run(self, side: int, rows: frozenset[str] | None) -> regress.Times:
        self.order.append(side)
        self.rows.append(rows)
        drift = 1 + 0.2 * np.sin(len(self.order) / 30)
        wanted = self.seconds if rows is None else rows
        return {row: self.seconds[row][side] * drift * (1 + self.size * self.noise.standard_normal()) for row in wanted}


def judge(machine: Machine, rounds: int = 10) -> dict[str, float]:
    samples = regress.sample(machine.sides(), rounds, None, "test")
    confirmed = regress.slower_rows(machine.sides(), rounds, 0.05, regress.ratios(samples))
    return {row: found.value for row, found in confirmed.items()}


def test_a_planted_slowdown_is_found_and_named() -> None:
    machine = Machine({"same": (1.0, 1.0), "slow": (2.0, 2.3), "fast": (1.0, 0.8)}, noise=0.02)
    assert judge(machine) == {"slow": pytest.approx(1.15, abs=0.04)}
    assert machine.rows[-1] == frozenset({"slow"})  # only what is suspected runs again


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_no_slowdown(seed: int) -> None:
    assert judge(Machine({f"row{i}": (1.0, 1.0) for i in range(20)}, noise=0.05, seed=seed)) == {}


def test_less_than_the_threshold_is_let_pass() -> None:
    assert judge(Machine({"row": (1.0, 1.03)}, noise=0.001)) == {}


def test_the_first_to_go_changes_each_round() -> None:
    machine = Machine({"row": (1.0, 1.0)}, noise=0.01)
    regress.sample(machine.sides(), 4, None, "test")
    assert machine.order == [0, 1, 1, 0, 0, 1, 1, 0]


def test_the_interval_is_that_of_paired_rounds() -> None:
    base = np.linspace(1, 3, 12)  # a machine that slows down threefold meanwhile
    found = ratio(base, 1.1 * base)
    assert (found.value, found.low, found.high) == pytest.approx((1.1, 1.1, 1.1))
    noisy = ratio(base, base * np.random.default_rng(0).uniform(0.7, 1.3, 12))
    assert noisy.low < noisy.value < noisy.high and not noisy.is_slower(0.05)


def test_rows_of_one_side_are_left_out_and_none_in_common_is_an_error() -> None:
    sides = (lambda rows: {"old": 1.0, "both": 1.0}, lambda rows: {"new": 1.0, "both": 1.0})
    assert list(regress.sample(sides, 3, None, "test")) == ["both"]
    with pytest.raises(CompareError, match="no row that both"):
        regress.sample((lambda rows: {"old": 1.0}, lambda rows: {"new": 1.0}), 3, None, "test")


@pytest.fixture
def revision(tmp_path: Path) -> Iterator[Revision]:
    """A revision with one program, which prints as Google Benchmark does and keeps what it was asked for."""
    program = tmp_path / "bench_gemm"
    rows = [{"name": f"gemm/smollm2-135m/{i}.x", "real_time": 5.0, "time_unit": "ms"} for i in range(2)]
    program.write_text(
        f"#!{sys.executable}\nimport re, sys\n"
        f"pattern = sys.argv[1].removeprefix('--benchmark_filter=')\nrows = {rows!r}\n"
        "if re.search(r'\\\\[a-z/-]', pattern): sys.exit('Could not compile benchmark re: Invalid escape')\n"
        "import json\nrows = [row for row in rows if re.search(pattern, row['name'])]\n"
        "print(json.dumps({'benchmarks': rows}) if rows else 'Failed to match any benchmarks')\n"
    )
    program.chmod(0o755)
    yield Revision("main", "0" * 40, tmp_path, tmp_path)


def test_programs_are_filtered_and_read_in_seconds(revision: Revision) -> None:
    side = regress.programs_side(revision, "gemm")
    assert side(None) == {"bench_gemm: gemm/smollm2-135m/0.x": 0.005, "bench_gemm: gemm/smollm2-135m/1.x": 0.005}
    assert side(frozenset({"bench_gemm: gemm/smollm2-135m/1.x"})) == {"bench_gemm: gemm/smollm2-135m/1.x": 0.005}
    assert regress.programs_side(revision, "attention")(None) == {}


def test_history_has_a_line_for_each_row(revision: Revision, tmp_path: Path) -> None:
    samples = {"a": ([1.0, 1.0, 1.0], [2.0, 2.0, 2.0]), "b": ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0])}
    for _ in range(2):
        regress.write_history(tmp_path / "h.jsonl", (revision, revision), samples, regress.ratios(samples))
    lines = [json.loads(line) for line in (tmp_path / "h.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == ["a", "b", "a", "b"]
    assert lines[0]["value"] == 2 and lines[0]["head_seconds"] == [2.0, 2.0, 2.0] and lines[0]["base"] == "0" * 40


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-revision"], "There is no revision no-such-revision."),
        (["HEAD", "--rounds", "1"], "--rounds is 1; it takes 3 at least"),
        (["HEAD", "--model", "nowhere.gguf"], "there is no nowhere.gguf"),
    ],
)
def test_mistakes_are_told(arguments: list[str], said: str) -> None:
    command = [sys.executable, str(BENCHMARKS / "regress.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr

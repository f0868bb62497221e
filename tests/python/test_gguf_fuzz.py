"""Damaged GGUF files are read, or refused in a sentence, fast and in little memory. gguf_fuzz.py damages them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import gguf_files
import gguf_fuzz

SCRIPT = Path(gguf_fuzz.__file__)


@pytest.mark.parametrize("arguments", [["300"], ["60", "--load"]], ids=["read", "load"])
def test_damaged_files_are_read_or_refused(arguments: list[str]) -> None:
    """In a process of its own, whose memory is limited and whose end would be seen."""
    run = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout == f"{arguments[0]} files, 0 failures\n"


def test_cases_are_of_every_kind_and_some_are_read(tmp_path: Path) -> None:
    """Were all refused at their first bytes, what comes later would not be tried."""
    bases = gguf_fuzz.bases()
    cases = [gguf_fuzz.mutated(bases, number) for number in range(300)]
    rules = {rule.__name__ for rule in (*gguf_fuzz.RULES, *gguf_fuzz.LAST_RULES)}
    assert {rule for case in cases for rule in case.rules} == rules
    assert 30 < sum(gguf_fuzz.is_whole(gguf_files.write(tmp_path / "m", case.content)) for case in cases) < 270

"""Revisions of this repository, each built in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from engines.base import CompareError, last_lines

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Revision:
    """A built commit."""

    name: str  # as it was asked for
    commit: str
    programs: Path  # folder of the C++ benchmarks
    package: Path  # folder that has octavo in it, to import


def build(name: str, folder: Path) -> Revision:
    """Checks out and builds a revision below `folder`; what is there already is used again.

    Raises CompareError where there is no such revision, or where it does not build.
    """
    commit = _git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", otherwise=f"There is no revision {name}.")
    tree, programs = folder / commit / "tree", folder / commit / "build"
    if not tree.exists():
        _git("worktree", "prune")
        _git("worktree", "add", "--detach", str(tree), commit)
    _cmake(name, "-S", str(tree), "-B", str(programs), *_options())
    _cmake(name, "--build", str(programs))
    return Revision(name, commit, programs, _package(tree, programs))


def _options() -> list[str]:
    options = ["-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DOCTAVO_TESTS=OFF", "-DOCTAVO_BENCHMARKS=ON"]
    options += ["-DOCTAVO_PYTHON=ON", f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={_pybind11()}"]
    return options + (["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else [])


def _pybind11() -> str:
    try:
        import pybind11
    except ImportError as error:
        raise CompareError(
            "This Python has no pybind11, which the module is built with: pip install pybind11."
        ) from error
    return str(pybind11.get_cmake_dir())


def _package(tree: Path, programs: Path) -> Path:
    package = programs / "package"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(tree / "python", package)
    for module in programs.glob("_core*.so"):
        shutil.copy(module, package / "octavo")
    return package


def _git(*arguments: str, otherwise: str = "") -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CompareError(otherwise or f"git {' '.join(arguments)} failed:\n{last_lines(done.stderr)}")
    return done.stdout.strip()


def _cmake(name: str, *arguments: str) -> None:
    environment = {**os.environ, "CCACHE_BASEDIR": str(ROOT), "CCACHE_NOHASHDIR": "1"}
    done = subprocess.run(["cmake", *arguments], capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise CompareError(f"{name} does not build:\n{last_lines(done.stdout + done.stderr)}")

"""The repository's own checks: what they must refuse, and that the lists of requirements agree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"

TABLE = """
#include <cstdint>
namespace { int twice(int x) { return 2 * x; } }
struct Table { int (*run)(int); };
extern const Table table;
const Table table = {twice};
"""


def run(*args: str | Path, **kwargs: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(a) for a in args], capture_output=True, text=True, **kwargs)  # type: ignore[call-overload]


def check_isa_object(tmp_path: Path, source: str) -> subprocess.CompletedProcess[str]:
    unit = tmp_path / "unit.cpp"
    unit.write_text(source)
    compiled = run("g++", "-std=c++20", "-O3", "-fPIC", "-fno-stack-protector", "-c", unit, "-o", tmp_path / "unit.o")
    assert compiled.returncode == 0, compiled.stderr
    return run(sys.executable, SCRIPTS / "check_isa_objects.py", tmp_path / "unit.o")


def test_isa_object_with_one_table_passes(tmp_path: Path) -> None:
    result = check_isa_object(tmp_path, TABLE)
    assert result.returncode == 0, result.stdout


def test_isa_object_may_use_memory_functions_and_constant_tables(tmp_path: Path) -> None:
    body = "__builtin_memset(buffer, x, sizeof buffer); return octavo_table_of_test[x];"
    declarations = 'extern "C" const int octavo_table_of_test[4]; static char buffer[4096];'
    result = check_isa_object(tmp_path, declarations + TABLE.replace("return 2 * x;", body))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("planted", "complaint"),
    [
        ("#include <vector>\nnamespace { std::vector<float> v; void f() { v.push_back(1); } auto* p = &f; }", "weak"),
        ("#include <vector>\nvoid* make() { return new std::vector<float>(3); }", "an exported function"),
        ("inline int shared() { static int n = 0; return ++n; }\nnamespace { int (*volatile p)() = shared; }", "weak"),
        ("template <class T> struct S { static inline int n; };\nint* get() { return &S<int>::n; }", "unique"),
        ('extern "C" float expf(float);\nnamespace { float (*volatile p)(float) = expf; }', "needs expf"),
        ("extern int other; int other = 3;", "exactly one table"),
        ("int start(); namespace { volatile int n = start(); }", "start-up"),
    ],
    ids=["std_vector", "function", "inline", "unique", "libm", "two_tables", "static_initialiser"],
)
def test_isa_object_refused(tmp_path: Path, planted: str, complaint: str) -> None:
    result = check_isa_object(tmp_path, TABLE + planted)
    assert result.returncode == 1
    assert complaint in result.stdout


def test_isa_object_without_table_refused(tmp_path: Path) -> None:
    result = check_isa_object(tmp_path, "namespace { int n; }")
    assert result.returncode == 1
    assert "exports nothing" in result.stdout


def check_layers(tmp_path: Path, files: dict[str, str]) -> subprocess.CompletedProcess[str]:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return run(sys.executable, SCRIPTS / "check_layers.py", tmp_path)


def test_layers_of_this_repository() -> None:
    result = run(sys.executable, SCRIPTS / "check_layers.py", ROOT)
    assert result.returncode == 0, result.stdout


def test_layers_allowed(tmp_path: Path) -> None:
    files = {
        "cpp/engine/engine.cpp": '#include "engine/engine.h"\n#include "graph/plan.h"\n#include <vector>\n',
        "cpp/kernels/isa/scalar.cpp": '#include "kernels/body/dot.inl"\n#include "quant/planes.h"\n',
        "cuda/norm.cu": '#include <cuda_runtime.h>\n#include "graph/backend.h"\n#include "device/reduce.cuh"\n',
        "bindings/module.cpp": '#include <pybind11/pybind11.h>\n#include "engine/engine.h"\n',
        "cpp/base/env.cpp": 'const char* home() { return std::getenv("HOME"); }\n// a comment on pybind11\n',
        "python/octavo/models/llama.py": "from __future__ import annotations\nimport math\nfrom octavo import nn\n"
        "from octavo.nn import Linear\nfrom .. import nn as more\nfrom . import common\n",
        "python/octavo/llm.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n"
        "def f():\n    import torch\n",
    }
    result = check_layers(tmp_path, files)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cpp/base/a.h", '#include "quant/format.h"'),
        ("cpp/quant/a.cpp", '#include "kernels/kernels.h"'),
        ("cpp/kernels/isa/avx2.cpp", '#include "graph/op.h"'),
        ("cpp/graph/a.cpp", '#  include "engine/engine.h"'),
        ("cpp/engine/a.cpp", '#include "quant/format.h"'),
        ("cpp/engine/b.cpp", "#include <pybind11/pybind11.h>"),
        ("tests/cpp/test_a.cpp", "#include <Python.h>"),
        ("cpp/graph/b.cpp", "#include <cuda_runtime.h>"),
        ("cpp/graph/c.cpp", '#include "cuda/emu/fiber.h"'),
        ("cuda/norm.cu", '#include "graph/plan.h"'),
        ("cpp/engine/c.cpp", 'auto* home = std::getenv("HOME");'),
        ("python/octavo/models/foo.py", "import numpy"),
        ("python/octavo/models/foo.py", "from octavo.weights import gguf"),
        ("python/octavo/models/foo.py", "from ..llm import LLM"),
        ("python/octavo/models/foo.py", "def f():\n    from octavo import engine_args"),
        ("python/octavo/llm.py", "import torch.nn"),
        ("python/octavo/weights/hf.py", "from transformers import AutoConfig"),
    ],
)
def test_layers_refused(tmp_path: Path, name: str, text: str) -> None:
    result = check_layers(tmp_path, {name: text + "\n"})
    assert result.returncode == 1, "nothing was found"
    assert name in result.stdout


def test_prerequisites_name_what_is_missing(tmp_path: Path) -> None:
    for tool in ("sh", "python3", "git", "make", "cut"):
        found = run("sh", "-c", f"command -v {tool}").stdout.strip()
        (tmp_path / tool).symlink_to(found if tool != "python3" else sys.executable)
    result = run("/bin/sh", SCRIPTS / "check_prerequisites.sh", env={"PATH": str(tmp_path)})
    assert result.returncode == 1
    assert "Missing: g++" in result.stderr
    assert run("/bin/sh", SCRIPTS / "check_prerequisites.sh", "--line").stdout.strip() in result.stderr
    assert result.stderr.count("apt-get") == 1


def test_prerequisite_line_is_the_readmes() -> None:
    line = run("/bin/sh", SCRIPTS / "check_prerequisites.sh", "--line").stdout.strip()
    assert line in (ROOT / "README.md").read_text()


def test_requirement_lists_agree() -> None:
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    assert groups["build"] == project["build-system"]["requires"]
    heavy = {r for r in project["project"]["dependencies"] if r.startswith(("torch", "transformers"))}
    assert set(groups["light"]) | heavy == set(project["project"]["dependencies"])
    assert heavy <= {r for r in groups["test"] if isinstance(r, str)}

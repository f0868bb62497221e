#!/usr/bin/env python3
"""Checks who includes whom: check_layers.py [ROOT]

base <- quant <- kernels <- graph <- engine <- bindings <- python        cuda -> base, quant, graph/backend.h
base <- text <- bindings
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

# Folder -> the layers whose headers it may include. engine/ names no weight format: it does not see quant/.
LAYERS = {
    "cpp/base": {"base"},
    "cpp/text": {"base", "text"},
    "cpp/quant": {"base", "quant"},
    "cpp/kernels": {"base", "quant", "kernels"},
    "cpp/graph": {"base", "quant", "kernels", "graph"},
    "cpp/engine": {"base", "kernels", "graph", "engine"},
    "cuda": {"base", "quant", "cuda", "graph/backend.h"},
    "bindings": {"base", "text", "quant", "kernels", "graph", "engine", "bindings"},
}
ALL_LAYERS = {"base", "text", "quant", "kernels", "graph", "engine", "cuda", "bindings"}
# Header pattern or call -> the only folder (or file) where it may stand.
ONLY_IN = {
    r"#\s*include\s*[<\"](pybind11/|Python\.h)": "bindings/",
    r"#\s*include\s*[<\"]cuda(_\w+)?\.h": "cuda/",
    r"\b(secure_)?getenv\s*\(": "cpp/base/env.cpp",
}
CPP_SUFFIXES = {".h", ".cpp", ".inl", ".cu", ".cuh"}
INCLUDE = re.compile(r'#\s*include\s*"([^"]+)"')
MODELS_MAY_IMPORT = ("octavo.nn", "octavo.models")
HEAVY = {"torch", "transformers", "pandas", "datasets"}  # imported at the call that needs them


def cpp_problems(root: Path, path: Path) -> Iterator[str]:
    name = path.relative_to(root).as_posix()
    folder = next((f for f in LAYERS if name.startswith(f + "/")), None)
    for number, line in enumerate(path.read_text().splitlines(), 1):
        code = line.split("//")[0]
        for pattern, place in ONLY_IN.items():
            if re.search(pattern, code) and not name.startswith(place):
                yield f"{name}:{number}: only {place} may have: {code.strip()}"
        include = INCLUDE.match(code.strip())
        if include is None or folder is None:
            continue
        layer = include[1].split("/")[0] if "/" in include[1] else ""
        if layer in ALL_LAYERS and layer not in LAYERS[folder] and include[1] not in LAYERS[folder]:
            yield f"{name}:{number}: {folder}/ may not include {layer}/ ({include[1]})"


def imports(statements: list[ast.stmt], package: str) -> Iterator[tuple[int, str]]:
    """(line, absolute module) of the imports among some statements; relative ones resolved against the package."""
    for node in statements:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            if module in ("octavo", package) and module != "octavo.nn":  # from octavo import nn; from . import x
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, module


def python_problems(root: Path, path: Path) -> Iterator[str]:
    name = path.relative_to(root).as_posix()
    package = ".".join(path.relative_to(root / "python").parts[:-1])
    tree = ast.parse(path.read_text())
    for line, module in imports(tree.body, package):
        if module.split(".")[0] in HEAVY:
            yield f"{name}:{line}: {module} is heavy; import it at the call that needs it"
    if package == "octavo.models":
        everywhere = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
        for line, module in imports(everywhere, package):
            standard = module.split(".")[0] in sys.stdlib_module_names
            if not standard and not any(module == m or module.startswith(m + ".") for m in MODELS_MAY_IMPORT):
                yield f"{name}:{line}: models/ import only octavo.nn, not {module}"


def problems(root: Path) -> Iterator[str]:
    for top in ("cpp", "cuda", "bindings", "tests/cpp", "benchmarks"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix in CPP_SUFFIXES:
                yield from cpp_problems(root, path)
    for path in sorted((root / "python").rglob("*.py")):
        yield from python_problems(root, path)


def main(args: list[str]) -> int:
    found = list(problems(Path(args[0] if args else ".").resolve()))
    for problem in found:
        print(problem)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

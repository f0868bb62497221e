#!/usr/bin/env python3
"""Checks the symbols of ISA objects: check_isa_objects.py OBJECT...

An inline function that is compiled with AVX-512 and left weak in an object can win at link time and crash older CPUs.
So an ISA object exports its one table, runs nothing at start-up, and needs nothing from elsewhere but the C memory
functions, which are always called and never inlined from a weak copy, and the constant tables of cpp/quant.
"""

from __future__ import annotations

import subprocess
import sys

ALLOWED_UNDEFINED = {"memcpy", "memmove", "memset", "_GLOBAL_OFFSET_TABLE_"}
ALLOWED_PREFIX = "octavo_table_"  # extern "C" const data of cpp/quant
START_UP_SECTIONS = (".init_array", ".preinit_array", ".ctors")


def tool(*args: str) -> list[str]:
    return subprocess.run(args, check=True, capture_output=True, text=True).stdout.splitlines()


def symbols(path: str) -> list[tuple[str, str]]:
    """(nm's letter, demangled name) of every symbol that is seen outside the object, or needed by it."""
    found = []
    for line in tool("nm", "--extern-only", "--demangle", path):
        fields = line.split(maxsplit=2) if not line.startswith(" ") else ["", *line.split(maxsplit=1)]
        if len(fields) == 3:
            found.append((fields[1], fields[2]))
    return found


def problems(path: str) -> list[str]:
    bad = []
    exported = []
    for letter, name in symbols(path):
        if letter == "U":
            if name not in ALLOWED_UNDEFINED and not name.startswith(ALLOWED_PREFIX):
                bad.append(f"needs {name} from elsewhere")
        elif letter in "DRB":
            exported.append(name)
        else:
            kind = {"W": "weak", "w": "weak", "V": "weak", "v": "weak", "u": "unique", "T": "an exported function"}
            bad.append(f"{name} is {kind.get(letter, f'of kind {letter}')}")
    if len(exported) != 1:
        bad.append(f"exports {', '.join(exported) or 'nothing'}; expected exactly one table")
    if any(section in line.split() for line in tool("objdump", "-h", path) for section in START_UP_SECTIONS):
        bad.append("runs code at start-up")
    return bad


def main(paths: list[str]) -> int:
    if not paths:
        print(__doc__)
        return 2
    failed = False
    for path in paths:
        for problem in problems(path):
            print(f"{path}: {problem}")
            failed = True
    if not failed:
        print(f"{len(paths)} ISA objects are clean")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

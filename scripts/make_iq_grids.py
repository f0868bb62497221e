"""Writes cpp/quant/iq_grids.cpp: the codebooks of the GGUF formats IQ1 to IQ3, from the gguf package.

An entry's values are digits that count up a format's levels, packed from the lowest bits on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import quants

TARGET = Path(__file__).parents[1] / "cpp" / "quant" / "iq_grids.cpp"
GRIDS = {
    "kGridIQ2_XXS": (quants.IQ2_XXS, 2),
    "kGridIQ2_XS": (quants.IQ2_XS, 2),
    "kGridIQ2_S": (quants.IQ2_S, 2),
    "kGridIQ3_XXS": (quants.IQ3_XXS, 3),
    "kGridIQ3_S": (quants.IQ3_S, 3),
    "kGridIQ1": (quants.IQ1_S, 2),
}


def entries(kind: type, bits: int) -> list[int]:
    kind.init_grid()
    levels = sorted(kind.grid_map)
    grid = kind.grid.reshape(kind.grid_shape).astype(int)
    digits = np.searchsorted(levels, grid)
    return [int(sum(int(d) << (bits * i) for i, d in enumerate(row))) for row in digits]


def rows(numbers: list[int]) -> str:
    return "\n".join("    " + " ".join(f"{n}," for n in numbers[i : i + 16]) for i in range(0, len(numbers), 16))


def main() -> None:
    parts = [
        "// Made by scripts/make_iq_grids.py.",
        '#include "quant/iq_grids.h"',
        "",
        "namespace octavo {",
        "",
        "// clang-format off",
    ]
    for name, (kind, bits) in GRIDS.items():
        numbers = entries(kind, bits)
        parts += [f"const uint16_t {name}[{len(numbers)}] = {{", rows(numbers), "};"]
    parts += ["// clang-format on", "", "}  // namespace octavo", ""]
    TARGET.write_text("\n".join(parts), "utf-8")


if __name__ == "__main__":
    main()

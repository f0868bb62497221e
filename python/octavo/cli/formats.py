"""`octavo formats`: the table of weight formats."""

from __future__ import annotations

from octavo import _core
from octavo.cli import options
from octavo.cli.table import print_table


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    parser = options.CommandParser(
        "formats",
        "Lists the weight formats that octavo reads. yes: the instruction set has kernels of its own for the format; "
        "-: weights are dequantised as they are used. The set in use here is marked with *.",
        "formats\nformats",
    )
    parser.parse_args(argv)
    rows = _core.formats()
    isas = list(dict.fromkeys(isa for row in rows for isa in row["kernels"]))
    header = ["format", "GGUF id", "weights per block", "bytes per block", "bits per weight"]
    header += [f"{isa}*" if isa == _core.isa() else isa for isa in isas]
    table = []
    for row in rows:
        bits = 8 * row["block_bytes"] / row["block_size"]
        cells = [row["name"], row["gguf_id"], row["block_size"], row["block_bytes"], f"{bits:g}"]
        table.append([*map(str, cells), *("yes" if isa in row["kernels"] else "-" for isa in isas)])
    print_table(header, table)
    return 0

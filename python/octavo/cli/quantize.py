"""`octavo quantize`: makes an AQLM checkpoint of one in floats."""

from __future__ import annotations

import sys
from pathlib import Path

from octavo.cli import options
from octavo.engine_args import EngineArgs
from octavo.errors import InvalidInputError

_SCHEMES = {"2x8": (2, 8, 4), "4x8": (4, 8, 4), "1x16": (1, 16, 2)}  # codebooks, bits, rounds
_EXAMPLES = """\
quantize --aqlm SCHEME MODEL OUT
quantize --aqlm 4x8 path/to/model path/to/model-4x8
quantize --aqlm 1x16 owner/repo path/to/model-1x16"""


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    parser = options.CommandParser(
        "quantize",
        "Makes an AQLM checkpoint of a folder in Hugging Face layout, by its weights alone. A group of 8 weights of a "
        "row becomes the sum of a vector from each codebook: 2x8 is two codebooks of 8 bits, 2 bits a weight; 4x8 has "
        "4 and 1x16 2 bits a weight. Embeddings, norms, routers and the output stay as they are.",
        _EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL", help="a folder, or owner/repo on the hub")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to write, which must not hold anything")
    parser.add_argument("--aqlm", choices=list(_SCHEMES), required=True, help="codebooks x bits of a code")
    args = parser.parse_args(argv)
    _quantise(args.model, args.out, args.aqlm)
    return 0


def _quantise(model: str, out: Path, name: str) -> None:
    from tqdm import tqdm

    from octavo.loading import open_model
    from octavo.quantize.additive import Scheme
    from octavo.quantize.checkpoint import write_aqlm

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidInputError(f"{out} is there already; name a folder that is new or empty.")
    opened = open_model(EngineArgs(model=model))
    if opened.gguf is not None:
        raise InvalidInputError(f"{model} is a GGUF, which is quantised already; name a folder in Hugging Face layout.")
    totals = write_aqlm(
        opened.checkpoint.tensors,
        opened.files.folder,
        out,
        Scheme(*_SCHEMES[name]),
        lambda tensors: tqdm(tensors, desc=f"AQLM {name}", unit="tensor", file=sys.stderr, dynamic_ncols=True),
    )
    print(f"{totals.matrices} matrices in {totals.bits_per_weight:.3f} bits a weight, codebooks and scales included")
    print(f"relative error of their weights: {totals.relative_error:.4f}")

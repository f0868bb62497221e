"""`octavo quantize`: makes an AQLM checkpoint of one in floats."""

from __future__ import annotations

import sys
from pathlib import Path

from octavo.cli import options
from octavo.engine_args import EngineArgs
from octavo.errors import InvalidInputError

_SCHEMES = {"2x8": (2, 8, 3), "4x8": (4, 8, 2), "1x16": (1, 16, 2)}  # codebooks, bits, rounds
_EXAMPLES = """\
quantize --aqlm SCHEME MODEL OUT
quantize --aqlm 4x8 path/to/model path/to/model-4x8
quantize --aqlm 2x8 --calibration text.txt owner/repo path/to/model-2x8"""


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    parser = options.CommandParser(
        "quantize",
        "Makes an AQLM checkpoint of a folder in Hugging Face layout, so that the outputs of its linears change least "
        "on calibration text, which transformers runs. A group of 8 weights of a row becomes the sum of a vector from "
        "each codebook: 2x8 is two codebooks of 8 bits, 2 bits a weight; 4x8 has 4 and 1x16 2 bits a weight. "
        "Embeddings, norms, routers and the output stay as they are.",
        _EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL", help="a folder, or owner/repo on the hub")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to write, which must not hold anything")
    parser.add_argument("--aqlm", choices=list(_SCHEMES), required=True, help="codebooks x bits of a code")
    parser.add_argument(
        "--calibration",
        metavar="FILE",
        type=Path,
        help="a text like those that the model will meet, of at least 512 tokens; of a longer one the first 16384 "
        "(default: what the model itself writes, always the same)",
    )
    args = parser.parse_args(argv)
    _quantise(args.model, args.out, args.aqlm, args.calibration)
    return 0


def _quantise(model: str, out: Path, name: str, text: Path | None) -> None:
    from tqdm import tqdm

    from octavo.loading import open_model
    from octavo.quantize.additive import Scheme
    from octavo.quantize.calibration_text import read_sequences, sampled_sequences
    from octavo.quantize.checkpoint import write_aqlm

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidInputError(f"{out} is there already; name a folder that is new or empty.")
    opened = open_model(EngineArgs(model=model))
    if opened.gguf is not None:
        raise InvalidInputError(f"{model} is a GGUF, which is quantised already; name a folder in Hugging Face layout.")
    folder, config = opened.files.folder, opened.config
    totals = write_aqlm(
        opened.checkpoint.tensors,
        folder,
        out,
        Scheme(*_SCHEMES[name]),
        lambda: sampled_sequences(folder, config) if text is None else read_sequences(text, folder, config),
        lambda tensors: tqdm(tensors, desc=f"AQLM {name}", unit="matrix", file=sys.stderr, dynamic_ncols=True),
    )
    print(f"{totals.matrices} matrices in {totals.bits_per_weight:.3f} bits a weight, codebooks and scales included")
    print(f"relative error of their outputs: {totals.relative_error:.4f}")

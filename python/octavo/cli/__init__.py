"""The command `octavo`: results on stdout, everything else on stderr, 1 as the exit code of a mistake."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

_COMMANDS = {
    "chat": "talk with a model",
    "generate": "complete prompts",
    "quantize": "make a checkpoint smaller, by additive quantisation (AQLM)",
    "bench": "latency and throughput of a model, over numbers of requests and lengths",
    "info": "what a model file holds and needs; without a model, what a bug report needs",
    "formats": "the weight formats and which instruction sets have kernels of their own for each",
}

_EXAMPLES = """\
examples:
  octavo chat model.gguf
  octavo generate model.gguf "The capital of France is" --temperature 0
  octavo generate owner/repo-GGUF:Q4_K_M - --json < prompts.txt
  octavo info model.gguf

A model is a GGUF file, a folder in Hugging Face layout, owner/repo or owner/repo:QUANTISATION on the hub, or
pkg://package/path. `octavo COMMAND --help` lists the options of a command.
"""

_INTERRUPTED = 130  # 128 + SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        if args and args[0] in _COMMANDS:
            return _run(args[0], args[1:])
        _top_parser().parse_args(args)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # whoever read the results has gone; what is left of them goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _run(command: str, args: list[str]) -> int:
    from octavo import _core
    from octavo.errors import OctavoError

    try:
        code: int = import_module(f"octavo.cli.{command}").main(args)
        sys.stdout.flush()
    except (OctavoError, _core.CoreError) as error:
        print(f"octavo {command}: {error}", file=sys.stderr)
        return 1
    return code


def _top_parser() -> argparse.ArgumentParser:
    """Answers --help and --version; every other call of it is an error."""
    parser = _TopParser(
        prog="octavo",
        description="Offline inference of large language models.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, summary in _COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    return parser


class _TopParser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(1, f"octavo: {message}; see octavo --help.\n")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from octavo import __version__

        print(f"octavo {__version__}")
        parser.exit()

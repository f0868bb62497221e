"""The options that commands share: which model, how it runs, how tokens are chosen."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from octavo.engine_args import EngineArgs
from octavo.errors import InvalidInputError
from octavo.utils.argparse_utils import FlexibleArgumentParser
from octavo.utils.help import DefaultsHelpFormatter

if TYPE_CHECKING:
    from octavo.sampling_params import SamplingParams

_SAMPLING = {
    "temperature": (float, "0 takes the most likely token; higher is more varied"),
    "top_p": (float, "keep the most likely tokens whose probabilities sum to this"),
    "top_k": (int, "keep this many of the most likely tokens"),
    "min_p": (float, "drop tokens less likely than this times the most likely one"),
    "repetition_penalty": (float, "above 1: make tokens that occurred less likely"),
    "presence_penalty": (float, "subtracted from the logits of tokens that were generated"),
    "frequency_penalty": (float, "the same for each time they were"),
}


class _HelpFormatter(DefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the examples."""


class CommandParser(FlexibleArgumentParser):
    """Parser of one command: an error is one sentence, not a page of usage."""

    def __init__(self, command: str, description: str, examples: str) -> None:
        super().__init__(
            prog=f"octavo {command}",
            usage=f"octavo {examples.splitlines()[0]}",
            description=description,
            epilog="examples:\n" + "".join(f"  octavo {line}\n" for line in examples.splitlines()[1:]),
            formatter_class=_HelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"{self.prog}: {message}; see {self.prog} --help.\n")


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Every option of the engine; the model's own generation config is used unless another is asked for."""
    EngineArgs.add_cli_args(parser)
    parser.set_defaults(model=None, generation_config="auto")


def add_sampling_options(parser: argparse.ArgumentParser, max_tokens: int | None) -> None:
    """How tokens are chosen; what is not given is the model's own default."""
    group = parser.add_argument_group(
        "Sampling", "How tokens are chosen; None is the generation config's value. --seed makes another draw."
    )
    end = "None goes on to the end of the context"
    group.add_argument("--max-tokens", type=int, default=max_tokens, help=f"most tokens to generate; {end}")
    group.add_argument("--stop", action="append", metavar="TEXT", help="ends the output; may be given several times")
    for name, (kind, text) in _SAMPLING.items():
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="X", help=text)


def apply_sampling_options(params: SamplingParams, args: argparse.Namespace) -> SamplingParams:
    """`params` with what was given on the command line."""
    given = {name: getattr(args, name) for name in ("max_tokens", "stop", *_SAMPLING)}
    for name, value in given.items():
        if value is not None or name == "max_tokens":
            setattr(params, name, value)
    params.validate()
    return params


def check_sampling_options(args: argparse.Namespace) -> None:
    """Raises what is wrong with the sampling options, before a model is loaded for nothing."""
    from octavo.sampling_params import SamplingParams

    apply_sampling_options(SamplingParams(), args)


def engine_args(args: argparse.Namespace, positional: Sequence[str]) -> tuple[EngineArgs, list[str]]:
    """The engine's arguments, and the positional ones that are left; the first is the model unless --model is given."""
    rest = list(positional)
    if args.model is None:
        if not rest:
            raise InvalidInputError("name a model: a GGUF file, a folder, owner/repo or pkg://package/path.")
        args.model = rest.pop(0)
    return EngineArgs.from_cli_args(args), rest

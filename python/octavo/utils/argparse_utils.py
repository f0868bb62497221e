"""An argument parser for scripts with many options.

It adds to argparse: `_` and `-` are the same in option names; `--config FILE.yaml` gives options from a file (those of
the command line win); `--option.key value` sets a key of an option that takes JSON, `--option.key+ a,b` appends to a
list; `--help=WORD` shows only what WORD names; every option's default is in the help; `deprecated=True` warns on
Pythons whose argparse does not know it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, overload

from octavo.utils.cli_config import expand_config
from octavo.utils.cli_rewrite import canonical_options, merge_dotted_options
from octavo.utils.help import DefaultsHelpFormatter, help_about
from octavo.utils.numbers import human_readable_int

__all__ = ["EnableDisableAction", "FlexibleArgumentParser", "human_readable_int"]

N = TypeVar("N")

_EPILOG = (
    "--config FILE.yaml reads options from a file. --help=GROUP or --help=WORD shows only the options of a group or "
    "with a word in their name; --help=listgroup shows the groups."
)


class EnableDisableAction(argparse.Action):
    """A switch: `--x` and `--no-x`; for `--enable-x`, `--enable-x` and `--disable-x`."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:
        off = [_off_switch(option) for option in option_strings if option.startswith("--")]
        self._off = frozenset(off)
        super().__init__([*option_strings, *off], dest, nargs=0, **kwargs)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, option_string not in self._off)

    def format_usage(self) -> str:
        return " | ".join(self.option_strings)


class _FlexibleContainer(argparse._ActionsContainer):
    """What parsers and their groups share."""

    def add_argument(self, *args: Any, **kwargs: Any) -> argparse.Action:
        if kwargs.get("action") is argparse.BooleanOptionalAction:
            kwargs["action"] = EnableDisableAction
        if sys.version_info >= (3, 13):
            return super().add_argument(*args, **kwargs)
        deprecated = kwargs.pop("deprecated", False)
        action = super().add_argument(*args, **kwargs)
        setattr(action, "deprecated", deprecated)  # noqa: B010 (argparse declares the attribute from 3.13 on)
        return action


class _FlexibleGroup(_FlexibleContainer, argparse._ArgumentGroup):
    pass


class FlexibleArgumentParser(_FlexibleContainer, argparse.ArgumentParser):
    """See the module's text; a parser with sub-commands leaves all of this to the parsers of its sub-commands."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", DefaultsHelpFormatter)
        kwargs.setdefault("epilog", _EPILOG)
        super().__init__(*args, **kwargs)

    def add_argument_group(self, *args: Any, **kwargs: Any) -> argparse._ArgumentGroup:
        group = _FlexibleGroup(self, *args, **kwargs)
        self._action_groups.append(group)
        return group

    @overload
    def parse_known_args(
        self, args: Iterable[str] | None = None, namespace: None = None
    ) -> tuple[argparse.Namespace, list[str]]: ...
    @overload
    def parse_known_args(self, args: Iterable[str] | None, namespace: N) -> tuple[N, list[str]]: ...
    @overload
    def parse_known_args(self, *, namespace: N) -> tuple[N, list[str]]: ...
    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse's; raises InvalidInputError (a ValueError) when a `--config` file cannot be used."""
        given = list(sys.argv[1:] if args is None else args)
        if self._subparsers is None:
            given = self._rewrite(given)
        return super().parse_known_args(given, namespace)

    def _rewrite(self, args: list[str]) -> list[str]:
        options = self._option_string_actions
        args = canonical_options(args, options)
        self._answer_narrow_help(args)
        if "--config" not in options:
            args = canonical_options(expand_config(args, options), options)
        if sys.version_info < (3, 13):
            self._warn_of_deprecated(args)
        return merge_dotted_options(args, options)

    def _answer_narrow_help(self, args: list[str]) -> None:
        """Prints what `--help=WORD` asks for and leaves the program."""
        word = next((arg.removeprefix("--help=") for arg in args if arg.startswith("--help=")), None)
        if word is None or "--help" not in self._option_string_actions:
            return
        text = help_about(self, word)
        if text is None:
            self.error(f"no group or option matches {word!r}; --help=listgroup shows the groups")
        self._print_message(text, sys.stdout)
        self.exit()

    def _warn_of_deprecated(self, args: list[str]) -> None:
        for option in dict.fromkeys(arg.partition("=")[0] for arg in args):
            if getattr(self._option_string_actions.get(option), "deprecated", False):
                self._print_message(f"{self.prog}: warning: option {option!r} is deprecated\n", sys.stderr)


def _off_switch(option: str) -> str:
    return f"--disable-{option[9:]}" if option.startswith("--enable-") else f"--no-{option[2:]}"

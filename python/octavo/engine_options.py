"""Declares dataclass fields that are command-line options at the same time.

An OptionGroup makes fields. Each carries how a value is checked and how the command line reads it, so that a field is
described in one place: its name, type, default and help.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from octavo import checks
from octavo.errors import InvalidInputError, InvalidTypeError
from octavo.utils.argparse_utils import EnableDisableAction, human_readable_int

_KEY = "option"

Check = Callable[[str, Any], Any]


@dataclass(frozen=True)
class Option:
    """A field's other half.

    Attributes:
        group: The group it belongs to.
        help: One line on its effect.
        check: `check(name, value)` returns the value in plain form or raises.
        optional: Whether None is a value.
        cli: How add_argument reads it.
        flags: Short option strings beside the field's own name.
    """

    group: OptionGroup
    help: str
    check: Check
    optional: bool
    cli: Mapping[str, Any]
    flags: tuple[str, ...]

    def checked(self, name: str, value: Any) -> Any:
        """`value` in plain form; raises InvalidInputError or InvalidTypeError."""
        return None if value is None and self.optional else self.check(name, value)

    def add_to(self, container: argparse._ActionsContainer, name: str, default: Any) -> None:
        """Adds the option to a parser or group; its dest is `name`."""
        strings = (*self.flags, f"--{name.replace('_', '-')}")
        help_text = f"{self.help} (default: %(default)s)"
        container.add_argument(*strings, dest=name, default=default, help=help_text, **self.cli)


@dataclass(frozen=True)
class OptionGroup:
    """Options that appear together in the help; its methods declare them as dataclass fields."""

    title: str
    description: str

    def text(self, default: str | None, help: str, *, flags: Sequence[str] = ()) -> Any:
        """A string; a path is taken for its text."""
        return self.field(default, help, text_or_path, {}, flags=flags)

    def flag(self, default: bool | None, help: str) -> Any:
        """A switch."""
        return self.field(default, help, checks.boolean, {"action": EnableDisableAction})

    def whole(
        self,
        default: int | None,
        help: str,
        *,
        minimum: int,
        maximum: int | None = None,
        optional: bool = False,
        flags: Sequence[str] = (),
    ) -> Any:
        """An integer within [minimum, maximum]; text such as "4k" or "2G" is read as one."""

        def check(name: str, value: Any) -> int:
            return checks.whole_number(name, read_int(name, value), minimum, maximum)

        return self.field(default, help, check, {"type": human_readable_int}, optional=optional, flags=flags)

    def number(self, default: float | None, help: str, *, minimum: float, maximum: float | None = None) -> Any:
        """A float within [minimum, maximum]."""

        def check(name: str, value: Any) -> float:
            return checks.real_number(name, value, minimum, maximum)

        return self.field(default, help, check, {"type": float})

    def one_of(self, default: str | None, help: str, *choices: str, flags: Sequence[str] = ()) -> Any:
        """One of a few words."""

        def check(name: str, value: Any) -> str:
            if value not in choices:
                raise InvalidInputError(f"{name} must be one of {', '.join(choices)}, got {checks.shown(value)}.")
            return str(value)

        return self.field(default, help, check, {"choices": choices}, flags=flags)

    def mapping(self, help: str, *, or_callable: bool = False) -> Any:
        """A dict, JSON on the command line; its default is None."""

        def check(name: str, value: Any) -> Any:
            if not isinstance(value, Mapping) and not (or_callable and callable(value)):
                kinds = "a dict or a callable" if or_callable else "a dict"
                raise InvalidTypeError(f"{name} must be {kinds}, got {checks.shown(value)}.")
            return value

        return self.field(None, help, check, {"type": json_object, "metavar": "JSON"})

    def field(
        self,
        default: Any,
        help: str,
        check: Check,
        cli: Mapping[str, Any],
        *,
        optional: bool = False,
        flags: Sequence[str] = (),
    ) -> Any:
        """A field with a check and add_argument arguments of its own; None is a value if it is the default."""
        option = Option(self, help, check, optional or default is None, cli, tuple(flags))
        return dataclasses.field(default=default, metadata={_KEY: option})


def option_of(field: dataclasses.Field[Any]) -> Option:
    """The option that `field` was declared with."""
    option: Option = field.metadata[_KEY]
    return option


def read_int(name: str, value: Any) -> Any:
    """Text such as "4k" as the integer it stands for; everything else unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return human_readable_int(value)
    except argparse.ArgumentTypeError as error:
        raise InvalidInputError(f"{name}: {error}") from None


def text_or_path(name: str, value: Any) -> str:
    """Text, or a path as its text; raises InvalidTypeError or InvalidInputError."""
    return checks.text(name, os.fspath(value) if isinstance(value, os.PathLike) else value)


def json_object(text: str) -> dict[str, Any]:
    """A JSON object on the command line; raises argparse.ArgumentTypeError."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object such as '{{\"key\": 1}}'")
    return value

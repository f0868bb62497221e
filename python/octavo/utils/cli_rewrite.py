"""Rewrites of a command line before argparse sees it. `options` is what the parser knows, by option string."""

from __future__ import annotations

import argparse
import json
import logging
from collections import deque
from collections.abc import Collection
from typing import Any

from octavo.utils.numbers import human_readable_int

logger = logging.getLogger(__name__)


def canonical_options(args: list[str], options: Collection[str]) -> list[str]:
    """Option names as the parser spells them, `_` and `-` being the same; values and all after `--` stay."""
    spelling = {option.replace("_", "-"): option for option in options}
    end = args.index("--") if "--" in args else len(args)
    return [_canonical(arg, options, spelling) for arg in args[:end]] + args[end:]


def merge_dotted_options(args: list[str], options: Collection[str]) -> list[str]:
    """`--option.key value` parts gathered into one `--option JSON` per option, after the other arguments.

    A whole `--option JSON` beside them is merged in; what comes later wins, and a warning names keys given twice.
    """
    end = args.index("--") if "--" in args else len(args)
    dotted = {base for arg in args[:end] if (base := _dotted_base(arg, options))}
    rest: list[str] = []
    merged: dict[str, dict[str, Any]] = {}
    left = deque(args[:end])
    while left:
        arg = left.popleft()
        option, equals, value = arg.partition("=")
        name = _dotted_base(arg, options) or option
        if name not in dotted or not (equals or _starts_with_value(left)):
            rest.append(arg)
            continue
        value = value if equals else left.popleft()
        update = _json_object(value) if name == option else _nested(option[len(name) + 1 :], value)
        if update is None:
            rest.append(f"{option}={value}")
        elif repeated := _merge(merged.setdefault(name, {}), update):
            logger.warning("Found duplicate keys in %s: %s; the last value counts.", name, ", ".join(repeated))
    return [*rest, *(part for name, keys in merged.items() for part in (name, json.dumps(keys))), *args[end:]]


def _canonical(arg: str, options: Collection[str], spelling: dict[str, str]) -> str:
    if not arg.startswith("--"):
        return arg
    stop = min((arg.index(mark) for mark in ".=" if mark in arg), default=len(arg))
    name, tail = arg[:stop], arg[stop:]
    if name in options:
        return arg
    dashed = name.replace("_", "-")
    if dashed.startswith("--no-enable-"):
        dashed = spelling.get("--disable-" + dashed.removeprefix("--no-enable-"), dashed)
    return spelling.get(dashed, dashed) + tail


def _dotted_base(arg: str, options: Collection[str]) -> str | None:
    base, dot, _ = arg.partition("=")[0].partition(".")
    return base if dot and arg.startswith("-") and base in options else None


def _starts_with_value(args: deque[str]) -> bool:
    return bool(args) and not args[0].startswith("--")


def _nested(path: str, text: str) -> dict[str, Any]:
    """`{"a": {"b": value}}` for the path "a.b"; a path that ends in "+" gives a list of comma-separated values."""
    *outer, last = path.split(".")
    appends = last.endswith("+")
    value: Any = [_value(item) for item in text.split(",")] if appends else _value(text)
    result: dict[str, Any] = {last.removesuffix("+"): _Appended(value) if appends else value}
    for key in reversed(outer):
        result = {key: result}
    return result


class _Appended(list[Any]):
    """A list that is added to what its key already holds."""


def _value(text: str) -> Any:
    """JSON if `text` is JSON, else a number such as 4k, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return human_readable_int(text)
    except argparse.ArgumentTypeError:
        return text


def _json_object(text: str | None) -> dict[str, Any] | None:
    try:
        value = json.loads(text or "")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _merge(target: dict[str, Any], update: dict[str, Any], prefix: str = "") -> list[str]:
    """Puts `update` into `target`, dict by dict; returns the dotted keys that were replaced."""
    repeated: list[str] = []
    for key, value in update.items():
        held = target.get(key)
        if isinstance(value, _Appended):
            target[key] = [*held, *value] if isinstance(held, list) else list(value)
        elif isinstance(held, dict) and isinstance(value, dict):
            repeated += _merge(held, value, f"{prefix}{key}.")
        else:
            repeated += [prefix + key] if key in target else []
            target[key] = value
    return repeated

"""Checks of values that callers give: each returns the value in its plain Python form or raises one clear sentence.

numpy scalars are accepted wherever a Python scalar is; a bool is never taken for a number, and NaN and infinity are
always refused. `InvalidTypeError` is raised for a wrong type, `InvalidInputError` for a wrong value.
"""

from __future__ import annotations

import difflib
import functools
import math
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from octavo.errors import InvalidInputError, InvalidTypeError

T = TypeVar("T")

_repr = reprlib.Repr()
_repr.maxstring = 80  # characters; metadata keys and names of tensors are shorter


def shown(value: object) -> str:
    """`repr(value)`, cut to a length that fits an error message."""
    return _repr.repr(value)


def plain(value: object) -> object:
    """A numpy scalar as the Python scalar it holds; everything else unchanged."""
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "shape", None) == () else value


def whole_number(name: str, value: object, minimum: int | None = None, maximum: int | None = None) -> int:
    """`value` as an int within [minimum, maximum]."""
    number = plain(value)
    if isinstance(number, bool) or not isinstance(number, int):
        raise InvalidTypeError(f"{name} must be an integer{_range_text(minimum, maximum)}, got {shown(value)}.")
    _check_range(name, number, minimum, maximum, "an integer")
    return number


def real_number(name: str, value: object, minimum: float | None = None, maximum: float | None = None) -> float:
    """`value` as a finite float within [minimum, maximum]."""
    number = plain(value)
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise InvalidTypeError(f"{name} must be a number{_range_text(minimum, maximum)}, got {shown(value)}.")
    if not math.isfinite(number):
        raise InvalidInputError(f"{name} must be a finite number{_range_text(minimum, maximum)}, got {shown(number)}.")
    _check_range(name, number, minimum, maximum, "a number")
    return float(number)


def boolean(name: str, value: object) -> bool:
    """`value` as a bool; integers and strings are not taken for one."""
    flag = plain(value)
    if not isinstance(flag, bool):
        raise InvalidTypeError(f"{name} must be True or False, got {shown(value)}.")
    return flag


def text(name: str, value: object) -> str:
    """`value` as a str that UTF-8 can express."""
    if isinstance(value, bytes):
        raise InvalidTypeError(f"{name} must be text, got bytes; decode it first, for example with .decode('utf-8').")
    if not isinstance(value, str):
        raise InvalidTypeError(f"{name} must be text, got {shown(value)}.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{name} has a lone surrogate at character {error.start}, which is not valid text; "
            "read the text with errors='replace' or remove it."
        ) from None
    return str(value)


def text_list(name: str, value: object) -> list[str]:
    """One string or an iterable of non-empty strings as a list, each kept once; None is an empty list."""
    if value is None:
        return []
    items = [value] if isinstance(value, (str, bytes)) else _items(name, value, "strings")
    texts = list(dict.fromkeys(text(f"{name}[{index}]", item) for index, item in enumerate(items)))
    if "" in texts:
        raise InvalidInputError(f"{name} must not contain an empty string; remove it.")
    return texts


def token_ids(name: str, value: object) -> list[int]:
    """An iterable of token ids (integers >= 0) as a list, each kept once; None is an empty list."""
    if value is None:
        return []
    items = _items(name, value, "token ids")
    return list(dict.fromkeys(whole_number(f"{name}[{index}]", item, minimum=0) for index, item in enumerate(items)))


def reject_unknown_arguments(explain: Callable[[str], str | None]) -> Callable[[type[T]], type[T]]:
    """Makes a dataclass refuse an unknown keyword with a sentence that names it.

    `explain(name)` gives the sentence for a name that is known to be unsupported, or None; then a field with a
    similar name is suggested.
    """

    def decorate(cls: type[T]) -> type[T]:
        init: Callable[..., None] = cls.__init__
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]

        @functools.wraps(init)
        def checked_init(self: T, *args: Any, **kwargs: Any) -> None:
            for name in kwargs.keys() - known:
                raise InvalidTypeError(explain(name) or _unknown_argument(cls.__name__, name, known))
            init(self, *args, **kwargs)

        setattr(cls, "__init__", checked_init)  # noqa: B010 (mypy refuses the plain assignment)
        return cls

    return decorate


def _unknown_argument(owner: str, name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"see help({owner}) for the arguments there are."
    return f"{owner} has no argument {name!r}; {hint}"


def _items(name: str, value: object, kind: str) -> list[object]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise InvalidTypeError(f"{name} must be a list of {kind}, got {shown(value)}.")
    return list(value)


def _check_range(name: str, number: float, minimum: float | None, maximum: float | None, noun: str) -> None:
    below = minimum is not None and number < minimum
    above = maximum is not None and number > maximum
    if below or above:
        raise InvalidInputError(f"{name} must be {noun}{_range_text(minimum, maximum)}, got {number}.")


def _range_text(minimum: float | None, maximum: float | None) -> str:
    if minimum is not None and maximum is not None:
        return f" from {minimum} to {maximum}"
    if minimum is not None:
        return f" of at least {minimum}"
    return "" if maximum is None else f" of at most {maximum}"

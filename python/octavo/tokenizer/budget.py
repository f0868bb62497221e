"""What one rendering of a chat template may cost: steps, and characters and items that it makes.

Memory follows what is made and time follows both, so that a hostile template ends soon. Sizes are asked for before the
value is made; a container counts with all that is in it, once for every time that its text would show it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jinja2.exceptions import SecurityError

_MAX_STEPS = 200_000  # loop turns and macro calls
_MAX_MADE = 1 << 27  # characters and items, beyond _MADE_OF_ONE for each that the template is given
_MADE_OF_ONE = 256
_ITEM = 32  # characters that a number or a container costs
_NUMBER = re.compile(r"\d+")
# What makes as many copies of a thing, or as much padding for it, as an argument says.
_MULTIPLYING = frozenset(
    "batch center expandtabs format format_map indent ljust rjust slice sum tojson translate wordwrap zfill".split()
)
# What makes the text of a thing, whatever it is.
_TEXTS = frozenset(
    "capitalize e escape forceescape lower pprint safe string striptags title trim truncate upper urlencode urlize"
    " wordcount xmlattr".split()
)


class _Budget:
    def __init__(self, made: int) -> None:
        self.steps = _MAX_STEPS
        self.made = made


_budget: ContextVar[_Budget | None] = ContextVar("budget", default=None)


@contextmanager
def limited(given: object = None) -> Iterator[None]:
    """A budget for what runs inside; ``given`` is what the template is given."""
    token = _budget.set(_Budget(_MAX_MADE + _MADE_OF_ONE * size(given)))
    try:
        yield
    finally:
        _budget.reset(token)


def step() -> None:
    """Counts the turn of a loop or the call of a macro."""
    budget = _budget.get()
    if budget is not None:
        budget.steps -= 1
        if budget.steps < 0:
            raise SecurityError(f"it takes more than {_MAX_STEPS} steps")


def spend(*costs: object) -> None:
    """Takes what is about to be made from the budget: numbers count as they are, all else by its size."""
    budget = _budget.get()
    if budget is None:
        return
    for cost in costs:
        budget.made -= cost if isinstance(cost, int) else size(cost)
        if budget.made < 0:
            raise SecurityError("it makes too large or too many values")


def size(value: object) -> int:
    """Characters in the text of a value, about; not much more is counted than the budget has."""
    budget = _budget.get()
    most = math.inf if budget is None else budget.made
    total, left = 0, [value]
    while left and total <= most:
        item = left.pop()
        if isinstance(item, (str, bytes)):
            total += len(item)
        elif isinstance(item, int):
            total += _ITEM + item.bit_length() // 3
        elif isinstance(item, Mapping):
            total += _ITEM
            left += [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple, set, frozenset)):
            total += _ITEM
            left += item
        else:
            total += _ITEM
    return total


def spend_on(name: str, value: Any, arguments: Iterable[Any]) -> None:
    """Takes from the budget what the method or filter ``name`` of ``value`` makes."""
    arguments = list(arguments)
    if name == "replace" and len(arguments) >= 2 and isinstance(value, str):
        old, new = map(str, arguments[:2])
        spend(value, (value.count(old) + 1) * len(new))
    elif name in _MULTIPLYING:
        times = 1 + sum(abs(a) if isinstance(a, int) else size(a) for a in arguments)
        spend((1 + size(value)) * times + numbers_in(value))
    elif name in _TEXTS:
        spend(value)
    elif isinstance(value, (str, list, tuple, Mapping)):
        spend(len(value))


def spend_on_join(separator: str, items: Iterable[Any]) -> None:
    """Takes from the budget the text of ``items`` with ``separator`` between them."""
    items = list(items)
    spend(items, len(items) * len(separator))


def numbers_in(pattern: object) -> int:
    """The sum of the numbers written in a format: widths are among them."""
    return sum(int(digits[:18]) for digits in _NUMBER.findall(pattern)) if isinstance(pattern, str) else 0

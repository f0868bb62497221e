"""Python's garbage collector, out of the way of calls that make many objects."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def without_gc(function: Callable[P, T]) -> Callable[P, T]:
    """The function, during which no search for garbage begins by itself.

    Results by the thousand make the collector look through all objects of the process, several times, while the core
    could compute. Of calls that overlap in several threads the one that found the collector on turns it on again.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        was_on = gc.isenabled()
        gc.disable()
        try:
            return function(*args, **kwargs)
        finally:
            if was_on:
                gc.enable()

    return run

"""The rules of single sampling parameters: each check returns the value in canonical form or raises."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from octavo import checks
from octavo.errors import InvalidInputError, InvalidTypeError

LOGIT_BIAS_LIMIT = 100.0
_SEED_LIMIT = 2**63
_MOST_NAMED_IDS = 128


def positive(name: str, value: object, maximum: float | None = None) -> float:
    """`value` as a finite float in (0, maximum]."""
    number = checks.real_number(name, value)
    if number <= 0 or (maximum is not None and number > maximum):
        upper = "" if maximum is None else f" and at most {maximum}"
        raise InvalidInputError(f"{name} must be above 0{upper}, got {number}.")
    return number


def seed(value: object) -> int | None:
    """A 64-bit seed, or None for -1 and None."""
    if value is None:
        return None
    number = checks.whole_number("seed", value, -_SEED_LIMIT, _SEED_LIMIT - 1)
    return None if number == -1 else number


def logprob_count(name: str, value: object) -> int | None:
    """A count >= 0, -1 (whole vocabulary) or None; True stands for 1 and False for None."""
    number = checks.plain(value)
    if isinstance(number, bool):
        return 1 if number else None
    return None if number is None else checks.whole_number(name, number, -1)


def named_ids(name: str, value: object) -> list[int] | None:
    """At most 128 token ids, or None."""
    if value is None:
        return None
    ids = checks.token_ids(name, value)
    if not 1 <= len(ids) <= _MOST_NAMED_IDS:
        raise InvalidInputError(f"{name} must name 1 to {_MOST_NAMED_IDS} token ids, got {len(ids)}.")
    return ids


def truncation(value: object) -> int | None:
    """A count of tokens >= 1, -1 (what the model can take) or None."""
    if value is None:
        return None
    number = checks.whole_number("truncate_prompt_tokens", value, -1)
    if number == 0:
        raise InvalidInputError("truncate_prompt_tokens must be at least 1, or -1 for the model's maximum, got 0.")
    return number


def bias(value: object) -> dict[int, float]:
    """Token ids mapped to finite numbers."""
    if not isinstance(value, Mapping):
        raise InvalidTypeError(f"logit_bias must map token ids to numbers, got {checks.shown(value)}.")
    return {
        checks.whole_number("a token id in logit_bias", token, 0): checks.real_number(f"logit_bias[{token}]", amount)
        for token, amount in value.items()
    }


def clamped_bias(value: Mapping[Any, Any]) -> dict[int, float]:
    """`value` with its keys made integers and its numbers kept within [-100, 100]."""
    try:
        keyed = {int(token): amount for token, amount in value.items()}
    except (TypeError, ValueError):
        raise InvalidTypeError(f"the keys of logit_bias must be token ids, got {checks.shown(list(value))}.") from None
    return {token: min(max(amount, -LOGIT_BIAS_LIMIT), LOGIT_BIAS_LIMIT) for token, amount in bias(keyed).items()}


def callables(name: str, value: object) -> list[Callable[..., Any]]:
    """An iterable of callables as a list."""
    if not isinstance(value, Iterable) or isinstance(value, (str, bytes)):
        raise InvalidTypeError(f"{name} must be a list of callables, got {checks.shown(value)}.")
    items = list(value)
    for index, item in enumerate(items):
        if not callable(item):
            raise InvalidTypeError(f"{name}[{index}] must be callable, got {checks.shown(item)}.")
    return items

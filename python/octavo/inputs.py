"""What callers may pass as prompts, and how it is read.

One prompt is text, a list (or any iterable) of token ids, or a dict with "prompt", "prompt_token_ids" (and perhaps
"token_type_ids") or "prompt_embeds" and optionally "cache_salt". Many prompts are any iterable of these: a list, tuple,
generator, numpy array, or a column of pandas or datasets. A bad prompt is reported under its index and does not hide
the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from octavo import checks
from octavo.errors import InvalidInputError, InvalidTypeError, OctavoError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Embeds: TypeAlias = npt.NDArray[np.float32]

_EXPECTED = "expected text, a list of token ids, or a dict with 'prompt' or 'prompt_token_ids'"
_REFUSED_KEYS = {
    "multi_modal_data": "octavo runs text models only; leave multi_modal_data out",
    "encoder_prompt": "octavo runs decoder-only models; pass the text as 'prompt'",
    "decoder_prompt": "octavo runs decoder-only models; pass the text as 'prompt'",
}


@dataclass(frozen=True)
class ParsedPrompt:
    """One prompt, not yet tokenised unless it came as token ids.

    Attributes:
        text: The prompt's text; None when only token ids were given.
        token_ids: The prompt's token ids, which take precedence over the text; None when only text was given.
        cache_salt: Prompts share cached prefixes only with prompts of the same salt.
        embeds: (n_tokens, hidden_size), the rows that stand for tokens; None when there are tokens.
        token_types: The segment of each of token_ids; None where they are all 0.
    """

    text: str | None = None
    token_ids: list[int] | None = None
    cache_salt: str | None = None
    embeds: Embeds | None = field(default=None, compare=False)
    token_types: list[int] | None = None


def parse_prompts(prompts: object) -> tuple[list[ParsedPrompt | None], dict[int, OctavoError]]:
    """Reads one or many prompts, in order; a bad prompt is None in the list and an error under its index."""
    parsed: list[ParsedPrompt | None] = []
    errors: dict[int, OctavoError] = {}
    for index, prompt in enumerate(_split_prompts(prompts)):
        try:
            parsed.append(_parse_prompt(f"prompt {index}", prompt))
        except OctavoError as error:
            parsed.append(None)
            errors[index] = error
    return parsed, errors


def expand_params(params: object, n: int, name: str) -> list[Any]:
    """One value for each of `n` prompts: `params` itself for all, or the `n` values it holds.

    Raises InvalidInputError when `params` holds another number of values; `name` is what the message calls them.
    """
    given = _untyped(params)
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        return [given] * n
    values = list(given)
    if len(values) != n:
        raise InvalidInputError(f"The lengths of prompts ({n}) and {name} ({len(values)}) must be the same.")
    return values


def combine_errors(errors: Mapping[int, OctavoError]) -> OctavoError:
    """One error for all of `errors` (index of the prompt -> its error, at least one) that names every index.

    It is an InvalidTypeError when all of them are type errors. A single error is returned as it is.
    """
    if len(errors) == 1:
        return next(iter(errors.values()))
    details = "; ".join(dict.fromkeys(str(error).rstrip(".") for error in list(errors.values())[:3]))
    more = "" if len(errors) <= 3 else f"; and {len(errors) - 3} more"
    message = f"prompts {_index_ranges(sorted(errors))} cannot be used: {details}{more}."
    all_types = all(isinstance(error, TypeError) for error in errors.values())
    return InvalidTypeError(message) if all_types else InvalidInputError(message)


def _split_prompts(prompts: object) -> list[object]:
    """The prompts as a list; a single prompt, or something that is no prompt at all, as a list of one."""
    if hasattr(prompts, "columns"):
        raise InvalidTypeError("prompts is a table; pass one column of it, for example prompts['prompt'].")
    prompts = _untyped(prompts)
    if isinstance(prompts, (str, bytes, Mapping)) or not isinstance(prompts, Iterable):
        return [prompts]
    items = list(prompts)
    return [items] if items and all(_is_integer(item) for item in items) else items


def _parse_prompt(name: str, prompt: object) -> ParsedPrompt:
    prompt = _untyped(prompt)
    if isinstance(prompt, (str, bytes)):
        return ParsedPrompt(text=checks.text(name, prompt))
    if isinstance(prompt, Mapping):
        return _parse_dict(name, prompt)
    if not isinstance(prompt, Iterable):
        raise InvalidTypeError(f"{name} is {checks.shown(prompt)}; {_EXPECTED}.")
    return ParsedPrompt(token_ids=_parse_token_ids(name, prompt))


def _parse_dict(name: str, prompt: Mapping[Any, Any]) -> ParsedPrompt:
    for key, reason in _REFUSED_KEYS.items():
        if prompt.get(key) is not None:
            raise InvalidTypeError(f"{name} has the key {key!r}, but {reason}.")
    text, ids, salt, embeds = (prompt.get(key) for key in ("prompt", "prompt_token_ids", "cache_salt", "prompt_embeds"))
    if ids is not None and embeds is not None:
        raise InvalidInputError(f"{name} has both prompt_token_ids and prompt_embeds; give only one of them.")
    if text is None and ids is None and embeds is None:
        raise InvalidTypeError(
            f"{name} is a dict without text or tokens; give it the key 'prompt' or 'prompt_token_ids'."
        )
    if salt is not None and checks.text(f"cache_salt of {name}", salt) == "":
        raise InvalidInputError(f"cache_salt of {name} is empty; give it some text or leave it out.")
    token_ids = None if ids is None else _parse_token_ids(name, _untyped(ids))
    return ParsedPrompt(
        text=None if text is None else checks.text(f"the text of {name}", text),
        token_ids=token_ids,
        cache_salt=salt,
        embeds=None if embeds is None else _parse_embeds(name, embeds),
        token_types=_parse_token_types(name, _untyped(prompt.get("token_type_ids")), token_ids),
    )


def _parse_token_types(name: str, types: object, token_ids: list[int] | None) -> list[int] | None:
    if types is None:
        return None
    if token_ids is None:
        raise InvalidInputError(f"{name} has token_type_ids, but no prompt_token_ids; give both or neither.")
    if isinstance(types, (str, bytes, Mapping)) or not isinstance(types, Iterable):
        raise InvalidTypeError(f"the token_type_ids of {name} are {checks.shown(types)}; expected a list of integers.")
    kinds = [checks.plain(kind) for kind in types]
    if wrong := [kind for kind in kinds if not _is_integer(kind)]:
        raise InvalidTypeError(f"{name} has {checks.shown(wrong[0])} among its token_type_ids; they must be integers.")
    if len(kinds) != len(token_ids):
        raise InvalidInputError(
            f"{name} has {len(token_ids)} token ids, but {len(kinds)} token_type_ids; give one for each token."
        )
    return cast(list[int], kinds)


def _parse_embeds(name: str, value: Any) -> Embeds:
    """Rows of floats as float32, of whatever array library they come from."""
    import numpy as np

    if callable(getattr(value, "detach", None)):  # a torch tensor: numpy has no bfloat16
        value = value.detach().float().cpu().numpy()
    if not hasattr(value, "dtype") or np.asarray(value).dtype.kind != "f":
        raise InvalidTypeError(
            f"the embeddings of {name} must be an array of floats, got {type(value).__name__}; pass prompt_embeds as a "
            "numpy array or a torch tensor of shape (n_tokens, hidden_size)."
        )
    rows = np.ascontiguousarray(value, np.float32)
    if rows.ndim != 2 or rows.size == 0:
        raise InvalidInputError(
            f"the embeddings of {name} have the shape {rows.shape}; expected (n_tokens, hidden_size), both above 0."
        )
    if not np.isfinite(rows).all():
        raise InvalidInputError(f"the embeddings of {name} hold NaN or infinity; give finite numbers.")
    return rows


def _parse_token_ids(name: str, ids: object) -> list[int]:
    if isinstance(ids, (str, bytes, Mapping)) or not isinstance(ids, Iterable):
        raise InvalidTypeError(f"the token ids of {name} are {checks.shown(ids)}; expected a list of integers.")
    tokens = [checks.plain(token) for token in ids]
    if not tokens:
        raise InvalidInputError(f"{name} has no token ids; give it at least one.")
    for position, token in enumerate(tokens):
        if not _is_integer(token):
            raise InvalidTypeError(
                f"{name} has {checks.shown(token)} at position {position}; token ids must be integers."
            )
    integers = cast(list[int], tokens)
    if min(integers) < 0:
        raise InvalidInputError(f"{name} has the token id {min(integers)}; token ids must not be negative.")
    return integers


def _untyped(value: object) -> object:
    """Arrays, columns and numpy scalars as plain Python lists and scalars; everything else unchanged."""
    tolist = getattr(value, "tolist", None)
    return tolist() if callable(tolist) else value


def _is_integer(value: object) -> bool:
    number = checks.plain(value)
    return isinstance(number, int) and not isinstance(number, bool)


def _index_ranges(indices: list[int]) -> str:
    """Ascending indices in few words: "1, 4-6, 9"."""
    ranges: list[list[int]] = []
    for index in indices:
        if ranges and index == ranges[-1][1] + 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)

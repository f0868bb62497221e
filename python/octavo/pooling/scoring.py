"""How well texts match: a classifier over pairs, the cosine of embeddings, or late interaction of token embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from octavo.errors import InvalidInputError, InvalidTypeError, OctavoError
from octavo.inputs import ParsedPrompt, parse_prompts
from octavo.pooling.tasks import Call, Pooler, RawOutput, TextPair
from octavo.pooling_outputs import PoolingOutput, PoolingRequestOutput

RenderPair = Callable[[str, str], str]


def score(pooler: Pooler, data_1: object, data_2: object, call: Call, render: RenderPair | None) -> list[RawOutput]:
    """One output for each pair; its data holds the score alone.

    Args:
        data_1, data_2: One or many texts: 1:1, 1:N or N:N.
        render: Makes one text of a pair for a cross-encoder; None joins them as the tokenizer does.

    Raises:
        InvalidInputError, InvalidTypeError: the model gives no scores, or the texts cannot be used.
    """
    first, second = _parsed("data_1", data_1), _parsed("data_2", data_2)
    _check_lengths(len(first), len(second))
    plan = pooler.plan
    if plan.task == "classify" and plan.n_labels == 1:
        return _cross_encoder(pooler, first, second, call, render)
    if plan.task == "classify":
        raise InvalidInputError("Scoring API is only enabled for num_labels == 1.")
    if plan.task == "embed":
        return _compared(pooler, first, second, replace(call, task="embed"), _cosine)
    if plan.task == "token_embed":
        return _compared(pooler, first, second, replace(call, task="token_embed"), _max_similarity)
    raise InvalidInputError("This model does not support the Scoring API.")


def _parsed(name: str, data: object) -> list[ParsedPrompt]:
    prompts, errors = parse_prompts(data)
    for index, error in errors.items():
        raise type(error)(f"{name}[{index}]: {error}") from None
    return [prompt for prompt in prompts if prompt is not None]


def _check_lengths(n_first: int, n_second: int) -> None:
    if n_first > 1 and n_first != n_second:
        raise InvalidInputError(f"Input lengths must be either 1:1, 1:N or N:N, got {n_first}:{n_second}.")
    if n_first == 0:
        raise InvalidInputError("At least one text element must be given.")
    if n_second == 0:
        raise InvalidInputError("At least one text_pair element must be given.")


def _cross_encoder(
    pooler: Pooler, first: list[ParsedPrompt], second: list[ParsedPrompt], call: Call, render: RenderPair | None
) -> list[RawOutput]:
    joined = render or (_concatenated if pooler.plan.concatenates else None)
    if render is not None:
        call = replace(call, how=replace(call.how, add_special_tokens=False))  # the template writes them itself
    pairs: list[ParsedPrompt | None] = []
    errors: dict[int, OctavoError] = {}
    for index, (a, b) in enumerate(zip(_repeated(first, len(second)), second, strict=True)):
        try:
            pairs.append(_pair(index, a, b, joined))
        except OctavoError as error:
            pairs.append(None)
            errors[index] = error
    return pooler.run(pairs, errors, replace(call, task="classify"))


def _pair(index: int, first: ParsedPrompt, second: ParsedPrompt, joined: RenderPair | None) -> ParsedPrompt:
    if first.text is None or second.text is None:
        raise InvalidTypeError(f"pair {index} holds token ids; a cross-encoder scores texts, so pass both as text.")
    if joined is None:
        return TextPair(first.text, pair=second.text)
    return ParsedPrompt(joined(first.text, second.text))


def _concatenated(first: str, second: str) -> str:
    return first + second


def _compared(
    pooler: Pooler,
    first: list[ParsedPrompt],
    second: list[ParsedPrompt],
    call: Call,
    compare: Callable[[Any, Any], float],
) -> list[RawOutput]:
    """Both sides embedded in one batch, then compared pair by pair."""
    outputs = pooler.run([*first, *second], {}, call)
    pad = pooler.tokenizer.pad_token_id if pooler.tokenizer else None
    between = [] if pad is None else [pad]
    sides = _repeated(outputs[: len(first)], len(second)), outputs[len(first) :]
    return [_pair_output(a, b, between, compare) for a, b in zip(*sides, strict=True)]


def _pair_output(a: RawOutput, b: RawOutput, between: list[int], compare: Callable[[Any, Any], float]) -> RawOutput:
    error = a.error or b.error
    data: Any = None if error else PoolingOutput(np.array(compare(a.outputs.data, b.outputs.data), np.float32))
    return PoolingRequestOutput(
        f"{a.request_id}_{b.request_id}",
        data,
        [*a.prompt_token_ids, *between, *b.prompt_token_ids],
        a.num_cached_tokens + b.num_cached_tokens,
        finished=True,
        error=error,
    )


def _cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    x, y = a.astype(np.float64), b.astype(np.float64)
    norms = max(float(np.sqrt((x * x).sum() * (y * y).sum())), 1e-12)
    return float((x * y).sum() / norms)


def _max_similarity(query: npt.NDArray[np.float32], document: npt.NDArray[np.float32]) -> float:
    """For every token of the query (n, width) its best match in the document (m, width); their sum."""
    products = query.astype(np.float64) @ document.astype(np.float64).T
    return float(products.max(axis=1).sum())


def _repeated(items: Sequence[Any], n: int) -> list[Any]:
    return list(items) * n if len(items) == 1 else list(items)

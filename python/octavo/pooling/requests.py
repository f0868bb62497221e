"""Pooling requests: prompts with their parameters, on their way through the core."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from octavo.errors import InvalidInputError, OctavoError
from octavo.pooling_params import PoolingParams

_PROGRESS_SECONDS = 0.1  # how often a waiting call looks for finished requests


@dataclass
class PoolingRequest:
    """One prompt as it is handed to the core.

    Attributes:
        token_types: The segment of each token; None where all are 0.
        rows: (1, width) or, with a row for every token, (n_tokens, width); None until it is computed.
    """

    id: str
    token_ids: list[int]
    params: PoolingParams
    token_types: list[int] | None = None
    cache_salt: str | None = None
    error: OctavoError | None = None
    rows: npt.NDArray[np.float32] | None = None
    n_cached: int = 0


def run_requests(core: Any, requests: Sequence[PoolingRequest], pooling: str) -> Iterator[PoolingRequest]:
    """Yields the requests as they finish; leaving early, or an exception, ends those that still run.

    Args:
        pooling: "last", "cls", "mean" or "all".
    """
    owner: dict[int, PoolingRequest] = {}
    try:
        for request in requests:
            owner[_add(core, request, pooling)] = request
        waiting = dict.fromkeys(owner)
        while waiting:
            ids = list(waiting)
            core.run(ids, any_change=False, seconds=_PROGRESS_SECONDS, hook=None)
            for view in core.updates(ids):
                if view.finish_reason:
                    del waiting[view.id]
                    yield _finished(owner[view.id], view)
    finally:
        core.remove(list(owner))


def _add(core: Any, request: PoolingRequest, pooling: str) -> int:
    sequence: int = core.add_pooling(
        request.token_ids,
        pooling=pooling,
        token_types=request.token_types,
        priority=0,
        cache_salt=request.cache_salt or "",
        request=int(request.id),
    )
    return sequence


def _finished(request: PoolingRequest, view: Any) -> PoolingRequest:
    if view.finish_reason == "error":
        request.error = InvalidInputError(f"Request {request.id} cannot be finished: {view.error}")
    else:
        request.rows = np.asarray(view.pooled, dtype=np.float32)
        request.n_cached = view.n_cached
        if not np.isfinite(request.rows).all():
            request.error = InvalidInputError(
                f"Request {request.id} gives numbers that are not finite; use dtype='float32' or fetch the model again."
            )
    return request

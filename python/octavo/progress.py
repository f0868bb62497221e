"""The progress bar of a call: finished requests, with estimated speeds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from octavo.requests import Request

UseTqdm = bool | Callable[..., Any]


class ProgressBar:
    """Counts finished requests and shows input and output tokens per second; does nothing when switched off."""

    def __init__(self, total: int, use_tqdm: UseTqdm) -> None:
        self._bar = None
        self._start = time.monotonic()
        self._input = 0
        self._output = 0
        if use_tqdm:
            self._bar = progress_factory(use_tqdm)(
                total=total, desc="Processed prompts", dynamic_ncols=True, postfix=_postfix(0.0, 0.0)
            )

    def finish(self, request: Request) -> None:
        """Takes note of a finished request."""
        n = request.params.n
        self.advance(n, len(request.token_ids) * n, sum(len(view.output) for view in request.views if view is not None))

    def advance(self, n: int, n_input: int, n_output: int) -> None:
        """Takes note of n finished samples and of their tokens."""
        if self._bar is None:
            return
        self._input += n_input
        self._output += n_output
        elapsed = max(time.monotonic() - self._start, 1e-9)
        self._bar.postfix = _postfix(self._input / elapsed, self._output / elapsed)
        self._bar.update(n)

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def progress_factory(use_tqdm: UseTqdm) -> Callable[..., Any]:
    """What makes a bar: the caller's own, or tqdm."""
    if callable(use_tqdm):
        return use_tqdm
    from tqdm import tqdm

    return tqdm


def _postfix(input_speed: float, output_speed: float) -> str:
    return f"est. speed input: {input_speed:.2f} toks/s, output: {output_speed:.2f} toks/s"

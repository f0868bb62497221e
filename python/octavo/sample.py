"""What has come of one sample so far, gathered from the core's views of what is new."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from octavo.logprobs import Logprob


@dataclass
class Sample:
    """One sample of a request.

    Attributes:
        pieces: The text in parts.
        logprobs: The core's row for each output token.
        prompt_logprobs: Its row for each prompt token, at the end.
        entries: `logprobs` as far as they have been turned into what callers see.
        cumulative_logprob: Sum over the chosen tokens of `entries`.
        n_given: Output tokens that deltas have given.
    """

    output: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    prompt_logprobs: list[Any] = field(default_factory=list)
    finish_reason: str | None = None
    stop_token: int = -1
    stop_string: int = -1
    n_cached: int = 0
    times: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    entries: list[dict[int, Logprob]] = field(default_factory=list)
    cumulative_logprob: float = 0.0
    n_given: int = 0

    def take(self, view: Any) -> None:
        """Adds what a new view brings."""
        self.output.extend(view.output)
        self.pieces.append(view.text)
        self.logprobs.extend(view.logprobs)
        self.prompt_logprobs = view.prompt_logprobs
        self.finish_reason = view.finish_reason
        self.stop_token = view.stop_token
        self.stop_string = view.stop_string
        self.n_cached = view.n_cached
        self.times = view.times

    @property
    def text(self) -> str:
        """All of it, or what take_text has left."""
        if len(self.pieces) != 1:
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0]

    def take_text(self) -> str:
        """What has come since the last time."""
        text = self.text
        self.pieces = []
        return text

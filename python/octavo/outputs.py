"""What requests return: a RequestOutput for each prompt, a CompletionOutput for each sample of it.

The outputs of pooling requests are defined in `octavo.pooling_outputs` and can be imported from here as well.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from octavo.errors import OctavoError
from octavo.logprobs import FlatLogprobs, Logprob, PromptLogprobs, SampleLogprobs
from octavo.pooling_outputs import (
    ClassificationOutput,
    ClassificationRequestOutput,
    EmbeddingOutput,
    EmbeddingRequestOutput,
    PoolingOutput,
    PoolingRequestOutput,
    ScoringOutput,
    ScoringRequestOutput,
)

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "ClassificationOutput",
    "ClassificationRequestOutput",
    "CompletionOutput",
    "EmbeddingOutput",
    "EmbeddingRequestOutput",
    "FlatLogprobs",
    "Logprob",
    "PoolingOutput",
    "PoolingRequestOutput",
    "PromptLogprobs",
    "RequestOutput",
    "RequestStateStats",
    "SampleLogprobs",
    "ScoringOutput",
    "ScoringRequestOutput",
]

logger = logging.getLogger(__name__)


@dataclass(repr=False)
class CompletionOutput:
    """One sample of a request.

    Attributes:
        index: Number of the sample within its request, from 0.
        text: Generated text.
        token_ids: Generated token ids; a final end-of-sequence or stop token is included.
        cumulative_logprob: Sum of the log probabilities of token_ids; None when logprobs were not asked for.
        logprobs: Log probabilities of each output token; None when not asked for.
        finish_reason: "stop", "length", "repetition", "abort" or "error"; None while the sample is unfinished.
        stop_reason: The stop string or stop token id that ended the sample, or "repetition_detected"; None for any
            other end.

    The remaining fields describe features octavo does not have and stay None.
    """

    index: int
    text: str
    token_ids: Sequence[int]
    cumulative_logprob: float | None
    logprobs: SampleLogprobs | None
    routed_experts: np.ndarray | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    lora_request: Any = None
    sampling_mask: Any = None
    spec_decode_metrics: Any = None
    weight_versions: Any = None

    def finished(self) -> bool:
        """Whether the sample is complete."""
        return self.finish_reason is not None

    def extend(self, later: CompletionOutput) -> None:
        """Appends the delta `later` of the same sample."""
        self.text += later.text
        self.token_ids = [*self.token_ids, *later.token_ids]
        if later.logprobs:
            both = [*(self.logprobs or ()), *later.logprobs]
            self.logprobs = FlatLogprobs.of(both) if isinstance(later.logprobs, FlatLogprobs) else both
        self.cumulative_logprob = later.cumulative_logprob
        self.finish_reason = later.finish_reason
        self.stop_reason = later.stop_reason

    def __repr__(self) -> str:
        return (
            f"CompletionOutput(index={self.index}, text={self.text!r}, token_ids={self.token_ids}, "
            f"routed_experts={self.routed_experts}, sampling_mask={self.sampling_mask}, "
            f"cumulative_logprob={self.cumulative_logprob}, logprobs={self.logprobs}, "
            f"finish_reason={self.finish_reason}, stop_reason={self.stop_reason})"
        )


@dataclass
class RequestStateStats:
    """When a request did what. `arrival_time` is Unix time in seconds; the other times are monotonic seconds.

    Attributes:
        num_generation_tokens: Tokens generated for all samples.
        num_preemptions: Times the request had to give up its cache and start again.
        first_token_latency: Seconds from arrival to the first token.
    """

    num_generation_tokens: int = 0
    num_preemptions: int = 0
    arrival_time: float = 0.0
    queued_ts: float = 0.0
    scheduled_ts: float = 0.0
    first_token_ts: float = 0.0
    last_token_ts: float = 0.0
    first_token_latency: float = 0.0
    is_corrupted: bool = False


class RequestOutput:
    """The result of one prompt.

    Attributes:
        request_id: Number of the request in the life of its LLM, as a string.
        prompt: The prompt's text; None when it was given as token ids.
        prompt_token_ids: The prompt's token ids; None when it was given as embeddings.
        prompt_logprobs: Log probabilities of each prompt token; None when not asked for.
        outputs: The samples, by index.
        finished: Whether every sample is complete.
        metrics: When the request did what; None unless statistics are on.
        prompt_token_id_logprobs: The same for the tokens that prompt_logprob_token_ids names; None when it names none.
        num_cached_tokens: Prompt tokens that were found in the prefix cache.
        error: Why the request failed; None when it did not.

    The remaining attributes describe features octavo does not have and stay None.
    """

    def __init__(
        self,
        request_id: str,
        prompt: str | None,
        prompt_token_ids: list[int] | None,
        prompt_logprobs: PromptLogprobs | None,
        outputs: list[CompletionOutput],
        finished: bool,
        metrics: RequestStateStats | None = None,
        lora_request: Any = None,
        encoder_prompt: str | None = None,
        encoder_prompt_token_ids: list[int] | None = None,
        num_cached_tokens: int | None = None,
        num_cache_creation_tokens: int | None = None,
        *,
        prompt_token_id_logprobs: Any = None,
        kv_transfer_params: dict[str, Any] | None = None,
        ec_transfer_params: dict[str, Any] | None = None,
        error: OctavoError | None = None,
        **extra: Any,
    ) -> None:
        if extra:
            logger.warning("RequestOutput ignores the unknown arguments %s.", ", ".join(sorted(extra)))
        self.request_id = request_id
        self.prompt = prompt
        self.prompt_token_ids = prompt_token_ids
        self.prompt_logprobs = prompt_logprobs
        self.outputs = outputs
        self.finished = finished
        self.metrics = metrics
        self.lora_request = lora_request
        self.encoder_prompt = encoder_prompt
        self.encoder_prompt_token_ids = encoder_prompt_token_ids
        self.num_cached_tokens = num_cached_tokens
        self.num_cache_creation_tokens = num_cache_creation_tokens
        self.prompt_token_id_logprobs = prompt_token_id_logprobs
        self.kv_transfer_params = kv_transfer_params
        self.ec_transfer_params = ec_transfer_params
        self.error = error

    def add(self, next_output: RequestOutput, aggregate: bool) -> None:
        """Takes in a later output of the same request: appended to its samples if `aggregate`, else in their place."""
        self.finished |= next_output.finished
        self.kv_transfer_params = next_output.kv_transfer_params
        place = {output.index: position for position, output in enumerate(self.outputs)}
        for later in next_output.outputs:
            if later.index not in place:
                self.outputs.append(later)
            elif aggregate:
                self.outputs[place[later.index]].extend(later)
            else:
                self.outputs[place[later.index]] = later

    def __repr__(self) -> str:
        return (
            f"RequestOutput(request_id={self.request_id}, prompt={self.prompt!r}, "
            f"prompt_token_ids={self.prompt_token_ids}, encoder_prompt={self.encoder_prompt!r}, "
            f"encoder_prompt_token_ids={self.encoder_prompt_token_ids}, prompt_logprobs={self.prompt_logprobs}, "
            f"prompt_token_id_logprobs={self.prompt_token_id_logprobs}, outputs={self.outputs}, "
            f"finished={self.finished}, metrics={self.metrics}, lora_request={self.lora_request}, "
            f"num_cached_tokens={self.num_cached_tokens}, "
            f"num_cache_creation_tokens={self.num_cache_creation_tokens})"
        )

"""How tokens are chosen and when a request stops."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from octavo import checks, sampling_checks
from octavo.beam_search_params import BeamSearchParams
from octavo.errors import InvalidInputError, InvalidTypeError
from octavo.repetition import RepetitionDetectionParams
from octavo.structured_outputs import GuidedDecodingParams, StructuredOutputsParams, as_structured_outputs

__all__ = [
    "BeamSearchParams",
    "GuidedDecodingParams",
    "LogitsProcessor",
    "RepetitionDetectionParams",
    "RequestOutputKind",
    "SamplingParams",
    "StructuredOutputsParams",
]

logger = logging.getLogger(__name__)

LogitsProcessor = Callable[..., Any]
"""`f(output_token_ids, logits) -> logits` or `f(prompt_token_ids, output_token_ids, logits) -> logits`."""

GREEDY_TEMPERATURE = 1e-5  # below this, sampling is greedy
LOWEST_TEMPERATURE = 0.01  # smaller values would overflow once the logits are divided by them
MAX_N = 16384

_REMOVED = {
    "best_of": "SamplingParams has no argument 'best_of'; ask for n samples and keep those with the highest "
    "cumulative_logprob.",
    "thinking_token_budget": "octavo does not limit thinking tokens apart from the others; use max_tokens instead.",
    "watermarking": "octavo does not watermark its outputs; leave watermarking out.",
    "skip_clone": "octavo copies parameters itself; leave skip_clone out.",
    "routed_experts_prompt_start": "octavo does not return routed experts; leave routed_experts_prompt_start out.",
    "trace_decode_token_ids": "trace_decode_token_ids is for servers; leave it out.",
}


_TOKEN_ID_FIELDS = (
    "stop_token_ids",
    "allowed_token_ids",
    "logit_bias",
    "logprob_token_ids",
    "prompt_logprob_token_ids",
)


class RequestOutputKind(Enum):
    """What each output of a request holds."""

    CUMULATIVE = 0  # everything generated so far
    DELTA = 1  # what is new since the output before
    FINAL_ONLY = 2  # everything, once, when the request is finished


@checks.reject_unknown_arguments(_REMOVED.get)
@dataclass
class SamplingParams:
    """Sampling parameters of one request.

    A wrong value raises InvalidInputError (a ValueError), a wrong type InvalidTypeError (a TypeError). Fields may be
    changed after construction: the engine checks them again when the request is added.

    Attributes:
        n: Samples to generate for the prompt, 1 to 16384.
        presence_penalty: Subtracted once from the logit of every token generated so far, -2 to 2.
        frequency_penalty: Subtracted from a token's logit for each time it was generated, -2 to 2.
        repetition_penalty: Divides positive and multiplies negative logits of the tokens of prompt and output; > 0.
        temperature: Divides the logits, 0 to 2; below 1e-5 the most likely token is taken (greedy sampling).
        top_p: Keep the most likely tokens whose probabilities sum to this, in (0, 1].
        top_k: Keep this many of the most likely tokens; 0 or -1 keeps all.
        min_p: Drop tokens less likely than this times the most likely one, 0 to 1.
        seed: Makes the request's samples reproducible; None or -1 draws from the engine's seed.
        stop: Strings that end the output; they are cut off unless include_stop_str_in_output.
        stop_token_ids: Token ids that end the output.
        ignore_eos: Go on after the model's end-of-sequence token.
        max_tokens: Most tokens to generate; None goes on up to the model's maximum length.
        min_tokens: Tokens to generate before any stop is heeded; a structured output that is complete ends before them.
        logprobs: Log probabilities to return for each output token: this many of the most likely and the sampled
            one; 0 only the sampled one, -1 the whole vocabulary, None nothing.
        prompt_logprobs: The same for each token of the prompt.
        detokenize: Turn token ids into text; without it `text` is empty and `stop` cannot be used.
        skip_special_tokens: Leave special tokens out of the text.
        spaces_between_special_tokens: Put spaces between special tokens in the text.
        include_stop_str_in_output: Keep the stop string, or the text of the stop token, in the text.
        output_kind: What each output holds when outputs are streamed.
        logit_bias: Added to the logits of the given token ids.
        allowed_token_ids: Only these token ids may be generated.
        bad_words: Words that must not be generated.
        prompt_logprob_start: First position of the prompt whose log probabilities are wanted.
        logprob_token_ids: Token ids, 128 at most, whose log probabilities are returned for each output token.
        prompt_logprob_token_ids: The same for each token of the prompt, in `prompt_token_id_logprobs` of the output.
        flat_logprobs: Return log probabilities as FlatLogprobs, which are light on memory, instead of lists of dicts.
        stream_interval: Tokens between two outputs when outputs are streamed; None gives one for each.
        structured_outputs: The form that the text must have.
        guided_decoding: The older name of structured_outputs.
        extra_args: What custom code finds in the parameters; octavo does not look at it.
        skip_reading_prefix_cache: Compute the whole prompt; None does so where prompt_logprobs are asked for.
        repetition_detection: End outputs that repeat themselves.
        logits_processors: Callables that change the logits of this request before sampling.
        truncate_prompt_tokens: Keep only this many tokens at the end of the prompt; -1 keeps what the model can take.
    """

    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    prompt_logprob_start: int = 0
    prompt_logprob_token_ids: Sequence[int] | None = None
    logprob_token_ids: Sequence[int] | None = None
    flat_logprobs: bool = False
    stream_interval: int | None = None
    structured_outputs: StructuredOutputsParams | Mapping[str, Any] | None = None
    guided_decoding: StructuredOutputsParams | Mapping[str, Any] | None = None
    logit_bias: Mapping[int, float] | None = None
    allowed_token_ids: Sequence[int] | None = None
    bad_words: Sequence[str] | None = None
    extra_args: Mapping[str, Any] | None = None
    skip_reading_prefix_cache: bool | None = None
    repetition_detection: RepetitionDetectionParams | Mapping[str, int] | None = None
    logits_processors: Sequence[LogitsProcessor] | None = None
    truncate_prompt_tokens: int | None = None

    def __post_init__(self) -> None:
        self.validate()

    @classmethod
    def from_optional(cls, **values: Any) -> SamplingParams:
        """Parameters in which None stands for the default; logit_bias keys may be strings, its values are clamped."""
        given = {name: value for name, value in values.items() if value is not None}
        if isinstance(bias := given.get("logit_bias"), Mapping):
            given["logit_bias"] = sampling_checks.clamped_bias(bias)
        return cls(**given)

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature < GREEDY_TEMPERATURE

    @property
    def grammar(self) -> StructuredOutputsParams | None:
        """What structured_outputs or guided_decoding ask for, once validated."""
        form = self.structured_outputs if self.structured_outputs is not None else self.guided_decoding
        assert form is None or isinstance(form, StructuredOutputsParams)
        return form

    def clone(self) -> SamplingParams:
        """A copy that shares no list or dict with this one; logits processors themselves are shared."""
        other = copy.copy(self)
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (list, dict, StructuredOutputsParams, RepetitionDetectionParams)):
                setattr(other, field.name, copy.copy(value))
        return other

    def normalized(self) -> SamplingParams:
        """A validated copy in canonical form: top_k 0 for "all", and no filters when sampling is greedy."""
        params = self.clone()
        params.validate()
        params.top_k = max(params.top_k, 0)
        if params.is_greedy:
            params.temperature, params.top_p, params.top_k, params.min_p = 0.0, 1.0, 0, 0.0
        return params

    def validate(self) -> None:
        """Checks every field and rewrites equal spellings to one: numpy scalars, one stop string, seed -1."""
        self._validate_weights()
        self._validate_counts()
        self._validate_flags()
        self._validate_stops()
        self._validate_constraints()
        self._validate_form()

    def validate_for_model(self, *, vocab_size: int, max_logprobs: int) -> None:
        """Checks what depends on the model: ids below `vocab_size`, at most `max_logprobs` (-1: all) log probs."""
        most = vocab_size if max_logprobs == -1 else max_logprobs
        for name in ("logprobs", "prompt_logprobs"):
            asked = getattr(self, name)
            if asked is not None and (vocab_size if asked == -1 else asked) > most:
                raise InvalidInputError(
                    f"{name}={asked} asks for more than max_logprobs={max_logprobs} allows; ask for fewer or create "
                    "the LLM with a larger max_logprobs (-1 sets no limit)."
                )
        for name in _TOKEN_ID_FIELDS:
            outside = [token for token in getattr(self, name) or () if token >= vocab_size]
            if outside:
                raise InvalidInputError(
                    f"{name} holds {checks.shown(outside)}, out of vocabulary; this model's token ids are "
                    f"0 to {vocab_size - 1}."
                )

    def _validate_weights(self) -> None:
        for name in ("presence_penalty", "frequency_penalty"):
            setattr(self, name, checks.real_number(name, getattr(self, name), -2, 2))
        self.repetition_penalty = sampling_checks.positive("repetition_penalty", self.repetition_penalty)
        self.top_p = sampling_checks.positive("top_p", self.top_p, maximum=1)
        self.top_k = checks.whole_number("top_k", self.top_k, -1)
        self.min_p = checks.real_number("min_p", self.min_p, 0, 1)
        self.temperature = checks.real_number("temperature", self.temperature, 0, 2)
        if GREEDY_TEMPERATURE <= self.temperature < LOWEST_TEMPERATURE:
            logger.warning("temperature %s is raised to %s, the lowest usable.", self.temperature, LOWEST_TEMPERATURE)
            self.temperature = LOWEST_TEMPERATURE

    def _validate_counts(self) -> None:
        self.n = checks.whole_number("n", self.n, 1, MAX_N)
        if self.is_greedy and self.n > 1:
            raise InvalidInputError(f"n must be 1 when using greedy sampling, got {self.n}.")
        self.min_tokens = checks.whole_number("min_tokens", self.min_tokens, 0)
        if self.max_tokens is not None:
            self.max_tokens = checks.whole_number("max_tokens", self.max_tokens, 1)
            if self.min_tokens > self.max_tokens:
                raise InvalidInputError(
                    f"min_tokens must be at most max_tokens={self.max_tokens}, got {self.min_tokens}."
                )
        self.seed = sampling_checks.seed(self.seed)
        self.logprobs = sampling_checks.logprob_count("logprobs", self.logprobs)
        self.prompt_logprobs = sampling_checks.logprob_count("prompt_logprobs", self.prompt_logprobs)
        self.prompt_logprob_start = checks.whole_number("prompt_logprob_start", self.prompt_logprob_start, 0)
        self.logprob_token_ids = sampling_checks.named_ids("logprob_token_ids", self.logprob_token_ids)
        self.prompt_logprob_token_ids = sampling_checks.named_ids(
            "prompt_logprob_token_ids", self.prompt_logprob_token_ids
        )
        if self.stream_interval is not None:
            self.stream_interval = checks.whole_number("stream_interval", self.stream_interval, 1)
        self.truncate_prompt_tokens = sampling_checks.truncation(self.truncate_prompt_tokens)

    def _validate_flags(self) -> None:
        for name in (
            "ignore_eos",
            "detokenize",
            "skip_special_tokens",
            "spaces_between_special_tokens",
            "include_stop_str_in_output",
            "flat_logprobs",
        ):
            setattr(self, name, checks.boolean(name, getattr(self, name)))
        if self.skip_reading_prefix_cache is not None:
            self.skip_reading_prefix_cache = checks.boolean("skip_reading_prefix_cache", self.skip_reading_prefix_cache)
        if not isinstance(self.output_kind, RequestOutputKind):
            raise InvalidTypeError(f"output_kind must be a RequestOutputKind, got {checks.shown(self.output_kind)}.")

    def _validate_stops(self) -> None:
        self.stop = checks.text_list("stop", self.stop)
        self.stop_token_ids = checks.token_ids("stop_token_ids", self.stop_token_ids)
        if self.stop and not self.detokenize:
            raise InvalidInputError(
                "stop needs the text of the output; set detokenize=True or use stop_token_ids instead."
            )

    def _validate_constraints(self) -> None:
        self.bad_words = checks.text_list("bad_words", self.bad_words)
        if self.logit_bias is not None:
            self.logit_bias = sampling_checks.bias(self.logit_bias)
        if self.allowed_token_ids is not None:
            self.allowed_token_ids = checks.token_ids("allowed_token_ids", self.allowed_token_ids)
            if not self.allowed_token_ids:
                raise InvalidInputError("allowed_token_ids must name at least one token id; use None to allow all.")
        if self.logits_processors is not None:
            self.logits_processors = sampling_checks.callables("logits_processors", self.logits_processors)
        if self.extra_args is not None and not isinstance(self.extra_args, Mapping):
            raise InvalidTypeError(f"extra_args must be a dict, got {checks.shown(self.extra_args)}.")
        self.repetition_detection = RepetitionDetectionParams.of(self.repetition_detection)

    def _validate_form(self) -> None:
        self.structured_outputs = as_structured_outputs("structured_outputs", self.structured_outputs)
        self.guided_decoding = as_structured_outputs("guided_decoding", self.guided_decoding)
        if self.structured_outputs is not None and self.guided_decoding is not None:
            raise InvalidInputError(
                "guided_decoding is the older name of structured_outputs; set only structured_outputs."
            )

"""Requests on their way into the core: prompts as token ids, parameters resolved against the model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from octavo import _core
from octavo.errors import InvalidInputError, OctavoError
from octavo.grammars import Grammars
from octavo.inputs import ParsedPrompt
from octavo.loading import LoadedModel
from octavo.sample import Sample
from octavo.sampling_params import RepetitionDetectionParams, SamplingParams
from octavo.tokenization_options import TokenizationOptions
from octavo.tokenizer import Tokenizer

if TYPE_CHECKING:
    from octavo.inputs import Embeds

NO_TOKEN = -1  # stands where an embedding is given instead of a token


@dataclass
class Request:
    """One prompt with its parameters, as it is handed to the core.

    Attributes:
        arrival_time: Unix time in seconds.
        sequences: The core's ids of its samples, by child number; empty before it is added.
        views: What has come of each sample; None before anything has.
        embeds: (n_tokens, hidden_size) in place of the tokens' embeddings; the token ids are placeholders then.
        processed_logprobs: Report log probabilities after the logits were processed, whatever the LLM reports.
    """

    id: str
    prompt: str | None
    token_ids: list[int]
    params: SamplingParams
    priority: int = 0
    cache_salt: str | None = None
    error: OctavoError | None = None
    arrival_time: float = field(default_factory=time.time)
    sequences: list[int] = field(default_factory=list)
    views: list[Sample | None] = field(default_factory=list)
    processed_logprobs: bool = False
    embeds: Embeds | None = None

    @property
    def finished(self) -> bool:
        """Whether every sample has ended, or the request never ran."""
        if self.error is not None and not self.sequences:
            return True
        return bool(self.views) and all(view is not None and view.finish_reason for view in self.views)


class RequestBuilder:
    """Turns parsed prompts into token ids and parameters into the core's sampling configs, checking both."""

    def __init__(self, model: LoadedModel, max_logprobs: int, logprobs_mode: str, *, takes_embeds: bool) -> None:
        self._model = model
        self._max_logprobs = max_logprobs
        self._takes_embeds = takes_embeds
        self._mode = getattr(_core.LogprobsMode, logprobs_mode)
        self.grammars = Grammars(model.tokenizer, model.vocab_size, model.eos_token_ids, model.n_threads)

    def encode(self, prompts: Mapping[int, str], add_special_tokens: bool) -> dict[int, list[int] | OctavoError]:
        """Token ids of each text, or the error it causes."""
        tokenizer = self._model.tokenizer
        if tokenizer is None:
            no_tokenizer = InvalidInputError("This LLM has no tokenizer (skip_tokenizer_init); pass token ids.")
            return dict.fromkeys(prompts, no_tokenizer)
        try:
            return dict(zip(prompts, tokenizer.encode_batch(prompts.values(), add_special_tokens), strict=True))
        except OctavoError:  # of one text: the others are encoded all the same
            return {index: _encoded(tokenizer, index, text, add_special_tokens) for index, text in prompts.items()}

    def token_ids(
        self, index: int, prompt: ParsedPrompt, encoded: Any, params: SamplingParams, options: TokenizationOptions
    ) -> list[int]:
        """The prompt's final token ids: truncated where asked, and checked against the model."""
        if isinstance(encoded, OctavoError):
            raise encoded
        if any(prompt.token_types or ()):
            raise InvalidInputError(
                f"prompt {index} has token_type_ids, which no model that generates tells apart; leave them out."
            )
        ids = prompt.token_ids if prompt.token_ids is not None else encoded
        ids = options.for_request(params.truncate_prompt_tokens).truncated(ids, self._model.max_model_len - 1)
        self._check_ids(index, ids)
        return list(ids)

    def embeds(
        self, index: int, prompt: ParsedPrompt, params: SamplingParams, options: TokenizationOptions
    ) -> tuple[list[int], Embeds]:
        """Placeholder token ids and the rows they stand for: truncated where asked, and checked against the model."""
        assert prompt.embeds is not None
        width = self._model.core.embedding_size
        if not self._takes_embeds:
            raise InvalidInputError(
                f"prompt {index} is given as embeddings; create the LLM with enable_prompt_embeds=True to use them."
            )
        if prompt.embeds.shape[1] != width:
            raise InvalidInputError(
                f"the embeddings of prompt {index} have {prompt.embeds.shape[1]} numbers a row, but this model's "
                f"hidden size is {width}."
            )
        if params.prompt_logprobs is not None or params.prompt_logprob_token_ids is not None:
            raise InvalidInputError(f"prompt {index} has embeddings for tokens, of which there are no prompt_logprobs.")
        rows = list(range(len(prompt.embeds)))
        kept = options.for_request(params.truncate_prompt_tokens).truncated(rows, self._model.max_model_len - 1)
        ids = [NO_TOKEN] * len(kept)
        self._check_ids(index, ids)
        return ids, prompt.embeds[kept[0] : kept[-1] + 1]

    def _check_ids(self, index: int, ids: list[int]) -> None:
        longest = self._model.max_model_len
        if not ids:
            raise InvalidInputError(f"prompt {index} is empty; the model needs at least one token to go on from.")
        if len(ids) >= longest:
            raise InvalidInputError(
                f"prompt {index} has {len(ids)} tokens, but this model's maximum context length is {longest} tokens "
                "with at least one for the output; shorten it, set truncate_prompt_tokens, or raise max_model_len or "
                "kv_cache_memory_bytes."
            )
        if max(ids) >= self._model.vocab_size:
            raise InvalidInputError(
                f"prompt {index} has the token id {max(ids)}, out of vocabulary; this model's token ids are 0 to "
                f"{self._model.vocab_size - 1}."
            )

    def checked_params(self, index: int, params: SamplingParams) -> SamplingParams:
        """A normalised copy that this model can serve."""
        try:
            checked = params.normalized()
            checked.validate_for_model(vocab_size=self._model.vocab_size, max_logprobs=self._max_logprobs)
            if checked.grammar is not None:
                self.grammars.check(checked.grammar)
        except OctavoError as error:
            raise type(error)(f"sampling parameters of prompt {index}: {error}") from None
        if self._model.tokenizer is None:
            checked.detokenize = False
        return checked

    def sampling_config(self, request: Request) -> Any:
        """The core's form of a request's normalised parameters."""
        params = request.params
        config = _core.SamplingConfig()
        for name in _SAME_NAMES:
            setattr(config, name, getattr(params, name))
        room = self._model.max_model_len - len(request.token_ids)
        config.max_tokens = min(self._model.defaults.capped(params.max_tokens) or room, room)
        config.min_tokens = min(params.min_tokens, config.max_tokens)
        config.seed = None if params.seed is None else params.seed % (1 << 64)
        config.stop = list(params.stop or ())
        config.stop_token_ids = list(params.stop_token_ids or ())
        config.eos_token_ids = self._model.eos_token_ids
        config.logit_bias = list((params.logit_bias or {}).items())
        config.allowed_token_ids = list(params.allowed_token_ids or ())
        config.bad_words = self._bad_word_ids(params)
        config.host_hook = bool(params.logits_processors)
        config.host_mask = params.grammar is not None
        config.skip_prefix_cache = bool(params.skip_reading_prefix_cache)
        if (detection := params.repetition_detection) is not None:
            assert isinstance(detection, RepetitionDetectionParams)
            config.set_repetition_detection(
                detection.max_pattern_size, max(detection.min_pattern_size, 1), detection.min_count
            )
        self._set_logprobs(config, params)
        if request.processed_logprobs:
            config.logprobs_mode = _core.LogprobsMode.processed_logprobs
        return config

    def _set_logprobs(self, config: Any, params: SamplingParams) -> None:
        """What is to be reported; tokens asked for by name come with the chosen one."""
        config.logprobs_mode = self._mode
        config.prompt_logprob_start = params.prompt_logprob_start
        for name in ("logprob", "prompt_logprob"):
            named = list(getattr(params, f"{name}_token_ids") or ())
            count = getattr(params, f"{name}s")
            setattr(config, f"{name}_token_ids", named)
            setattr(config, f"{name}s", 0 if named and count is None else count)

    def _bad_word_ids(self, params: SamplingParams) -> list[list[int]]:
        """Each word as it is tokenised alone and after a space, where that is another first token."""
        words: list[list[int]] = []
        for word in params.bad_words or ():
            if self._model.tokenizer is None:
                raise InvalidInputError("bad_words needs a tokenizer, and this LLM has none; use logit_bias instead.")
            bare = self._model.tokenizer.encode(word.lstrip(), add_special_tokens=False)
            spaced = self._model.tokenizer.encode(f" {word.lstrip()}", add_special_tokens=False)
            words.append(bare)
            if spaced[0] != bare[0] and len(spaced) == len(bare):
                words.append(spaced)
        return words


def _encoded(tokenizer: Tokenizer, index: int, text: str, add_special_tokens: bool) -> list[int] | OctavoError:
    try:
        return tokenizer.encode(text, add_special_tokens)
    except OctavoError as error:
        return type(error)(f"prompt {index}: {error}")


_SAME_NAMES = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "ignore_eos",
    "include_stop_str_in_output",
    "detokenize",
    "skip_special_tokens",
)

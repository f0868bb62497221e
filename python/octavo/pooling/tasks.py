"""Runs pooling tasks on a loaded model: prompts in, rows of floats out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from octavo.errors import InvalidInputError, InvalidTypeError, OctavoError
from octavo.inputs import ParsedPrompt, combine_errors, expand_params
from octavo.pooling.activations import Rows, activate, normalize
from octavo.pooling.config import TASKS
from octavo.pooling.plan import PoolingPlan
from octavo.pooling.requests import PoolingRequest, run_requests
from octavo.pooling.tokenization import Encoded, Texts, encode_texts
from octavo.pooling_outputs import PoolingOutput, PoolingRequestOutput
from octavo.pooling_params import PoolingParams
from octavo.progress import ProgressBar, UseTqdm
from octavo.tokenization_options import TokenizationOptions
from octavo.tokenizer.tokenizer import Tokenizer

Prompts = Sequence[ParsedPrompt | None]
RawOutput = PoolingRequestOutput[PoolingOutput]

_UNSUPPORTED = {
    "embed": "Embedding API is not supported by this model. Try converting the model using `--convert embed`.",
    "classify": (
        "Classification API is not supported by this model. Try converting the model using `--convert classify`."
    ),
}


@dataclass(frozen=True)
class Call:
    """What one call asks of its prompts.

    Attributes:
        task: One of octavo.pooling.config.TASKS.
        params: For all prompts, or one for each; the defaults where None.
        raises: Whether a bad prompt refuses the whole call.
    """

    task: str
    params: Any = None
    how: TokenizationOptions = TokenizationOptions(side="right")
    use_tqdm: UseTqdm = True
    raises: bool = True


@dataclass(frozen=True)
class Pooler:
    """A model that is run for pooling.

    Attributes:
        core: octavo._core.Engine.
        name: What the model is called in messages.
        width: Numbers in a row: dimensions of an embedding, or classes.
        n_token_types: Segments that the model tells apart, such as the texts of a pair; 1 where it does not.
        next_id: Gives the number of a new request.
    """

    core: Any
    tokenizer: Tokenizer | None
    plan: PoolingPlan
    name: str
    max_model_len: int
    vocab_size: int
    width: int
    n_token_types: int
    next_id: Callable[[], int]

    def check_task(self, task: str) -> None:
        """Raises InvalidInputError where the model was not loaded for the task."""
        if task not in TASKS:
            raise InvalidInputError(f"pooling_task must be one of {', '.join(TASKS)}, got {task!r}.")
        if task == "classify" and self.plan.classifies_tokens:
            raise InvalidInputError(
                "This model has classes for every token, not for the prompt; call "
                "LLM.encode(prompts, pooling_task='token_classify')."
            )
        if task not in self.plan.tasks:
            raise InvalidInputError(_UNSUPPORTED[task.removeprefix("token_")])

    def run(self, prompts: Prompts, errors: dict[int, OctavoError], call: Call) -> list[RawOutput]:
        """The results in the order of the prompts; ``errors`` says why a prompt is None.

        Raises:
            InvalidInputError, InvalidTypeError: a prompt or its parameters cannot be used; every bad index is named.
        """
        if not prompts:
            raise InvalidInputError("You must pass at least one prompt.")
        self.check_task(call.task)
        requests = self._requests(prompts, dict(errors), call)
        self._compute(requests, call)
        return [self._output(request, call.task) for request in requests]

    def _requests(self, prompts: Prompts, errors: dict[int, OctavoError], call: Call) -> list[PoolingRequest]:
        params = expand_params(PoolingParams() if call.params is None else call.params, len(prompts), "params")
        encoded = self._encoded(prompts, params, call.how)
        requests = []
        for index, prompt in enumerate(prompts):
            try:
                ids = encoded.get(index)
                requests.append(self._request(index, prompt, ids, errors.get(index), params[index], call))
            except OctavoError as error:
                errors[index] = error
                requests.append(PoolingRequest(str(self.next_id()), [], PoolingParams(), error=error))
        if errors and call.raises:
            raise combine_errors(errors)
        return requests

    def _encoded(self, prompts: Prompts, params: Sequence[Any], how: TokenizationOptions) -> dict[int, Encoded]:
        """The token ids of texts, made together: of those that the call alone says how to cut."""
        texts = {
            i: self._texts(prompt)
            for i, prompt in enumerate(prompts)
            if prompt is not None and prompt.text is not None and prompt.token_ids is None
            if getattr(params[i], "truncate_prompt_tokens", None) is None
        }
        try:
            return encode_texts(self.tokenizer, texts, how, self.max_model_len)
        except OctavoError:
            return {}  # one by one, to name the text that cannot be used

    def _texts(self, prompt: ParsedPrompt) -> Texts:
        text = prompt.text or ""
        lower = str.lower if self.plan.lowercase else str
        return (lower(text), lower(prompt.pair)) if isinstance(prompt, TextPair) else (lower(text),)

    def _request(
        self,
        index: int,
        prompt: ParsedPrompt | None,
        encoded: Encoded | None,
        error: OctavoError | None,
        params: Any,
        call: Call,
    ) -> PoolingRequest:
        if error is not None:
            raise error
        assert prompt is not None
        if not isinstance(params, PoolingParams):
            raise InvalidTypeError(
                f"The parameters of prompt {index} must be PoolingParams, not {type(params).__name__}."
            )
        params = params.clone()
        params.validate()
        self._check_dimensions(params, call.task)
        ids, types = encoded or self._token_ids(index, prompt, params, call.how)
        self._check_ids(index, ids)
        if any(types) and (self.n_token_types > 1 or prompt.token_types is not None):
            self._check_types(index, types)
        else:
            types = []  # a tokenizer may tell texts apart that the model does not
        return PoolingRequest(str(self.next_id()), ids, params, types or None, prompt.cache_salt)

    def _token_ids(self, index: int, prompt: ParsedPrompt, params: PoolingParams, how: TokenizationOptions) -> Encoded:
        own = params.truncate_prompt_tokens
        how = how if own is None else replace(how, limit=own)
        if prompt.token_ids is not None:
            both = (prompt.token_ids, prompt.token_types or [])
            ids, types = (how.truncated(values, self.max_model_len) for values in both)
            return ids, types
        if prompt.embeds is not None:
            raise InvalidInputError(f"prompt {index} is given as embeddings, which pooling does not take; pass text.")
        try:
            return encode_texts(self.tokenizer, {index: self._texts(prompt)}, how, self.max_model_len)[index]
        except OctavoError as error:
            raise type(error)(f"prompt {index}: {error}") from None

    def _check_ids(self, index: int, ids: list[int]) -> None:
        if not ids:
            raise InvalidInputError(f"prompt {index} is empty; the model needs at least one token.")
        if len(ids) > self.max_model_len:
            raise InvalidInputError(
                f"prompt {index} has {len(ids)} tokens, but this model's maximum context length is "
                f"{self.max_model_len} tokens; shorten it or set truncate_prompt_tokens=-1."
            )
        if max(ids) >= self.vocab_size:
            raise InvalidInputError(
                f"prompt {index} has the token id {max(ids)}, out of vocabulary; this model's token ids are 0 to "
                f"{self.vocab_size - 1}."
            )

    def _check_types(self, index: int, types: list[int]) -> None:
        if wrong := [kind for kind in types if not 0 <= kind < self.n_token_types]:
            raise InvalidInputError(
                f"prompt {index} has the token type {wrong[0]}; this model's token types are at least 0 and below "
                f"{self.n_token_types}."
            )

    def _check_dimensions(self, params: PoolingParams, task: str) -> None:
        if params.dimensions is None and task == "embed":
            params.dimensions = self.plan.dimensions
        asked, allowed = params.dimensions, self.plan.matryoshka_dimensions
        if asked is None:
            return
        if not task.endswith("embed"):
            raise InvalidInputError(f"dimensions only applies to embeddings; leave it out of {task}.")
        if not self.plan.matryoshka:
            raise InvalidInputError(
                f"Model {self.name!r} does not support Matryoshka embeddings; dimensions must be unset, or "
                "hf_overrides={'is_matryoshka': True} given where you know better."
            )
        if allowed and asked not in allowed:
            raise InvalidInputError(f"dimensions must be one of {', '.join(map(str, allowed))}, got {asked}.")
        if asked > self.width:
            raise InvalidInputError(f"dimensions must be at most {self.width}, got {asked}.")

    def _compute(self, requests: Sequence[PoolingRequest], call: Call) -> None:
        runnable = [request for request in requests if request.error is None]
        per_token = call.task.startswith("token_")
        pooling = "all" if per_token else (self.plan.pooling or "LAST").lower()
        progress = ProgressBar(len(runnable), call.use_tqdm)
        try:
            for request in run_requests(self.core, runnable, pooling):
                progress.advance(1, len(request.token_ids), 0)
        finally:
            progress.close()
        failed: Mapping[int, OctavoError] = {int(r.id): r.error for r in runnable if r.error is not None}
        if failed and call.raises:
            raise combine_errors(failed)

    def _output(self, request: PoolingRequest, task: str) -> RawOutput:
        data: Any = None
        if request.error is None and request.rows is not None:
            rows = self.last_step(request.rows, request.params)
            data = PoolingOutput(rows if task.startswith("token_") else rows[0])
        return PoolingRequestOutput(
            request.id, data, request.token_ids, request.n_cached, finished=True, error=request.error
        )

    def last_step(self, rows: Rows, params: PoolingParams) -> Rows:
        """Rows of the head as the caller gets them."""
        wanted = self.plan.use_activation if params.last_step is None else params.last_step
        if self.plan.head == "classify":
            return activate(rows, self.plan.activation) if wanted else rows
        kept = rows[:, : params.dimensions]
        return normalize(kept) if wanted else kept


@dataclass(frozen=True)
class TextPair(ParsedPrompt):
    """Two texts that are tokenised together: ``text`` and ``pair``."""

    pair: str = ""

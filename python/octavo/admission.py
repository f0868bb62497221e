"""Makes requests of the prompts of a call: tokenised, with parameters checked, bad ones named by their index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from octavo.errors import InvalidInputError, InvalidTypeError, OctavoError
from octavo.inputs import ParsedPrompt, combine_errors, expand_params
from octavo.requests import Request, RequestBuilder
from octavo.sampling_params import SamplingParams
from octavo.tokenization_options import TokenizationOptions

OnError = Literal["raise", "return"]


class Admission:
    """Where requests come from; `next_id` numbers them."""

    def __init__(self, builder: RequestBuilder, next_id: Callable[[], int]) -> None:
        self._builder = builder
        self._next_id = next_id

    def requests(
        self,
        prompts: Sequence[ParsedPrompt | None],
        errors: dict[int, OctavoError],
        params: Any,
        priority: Any,
        on_error: OnError,
        options: TokenizationOptions,
    ) -> list[Request]:
        """A request for each prompt; a bad one has its error set, or raises under on_error "raise".

        Args:
            errors: What is wrong with the prompts that are None, by index; those found here are added.
            params: For all prompts, or one for each; likewise the priority.
        """
        if on_error not in ("raise", "return"):
            raise InvalidInputError(f"on_error must be 'raise' or 'return', got {on_error!r}.")
        n = len(prompts)
        all_params = expand_params(params, n, "params")
        priorities = expand_params(0 if priority is None else priority, n, "priority")
        encoded = self._builder.encode(_texts(prompts), options.add_special_tokens)
        requests = []
        for i, prompt in enumerate(prompts):
            try:
                if i in errors:
                    raise errors[i]
                assert prompt is not None
                requests.append(self._request(i, prompt, encoded.get(i), all_params[i], priorities[i], options))
            except OctavoError as error:
                errors[i] = error
                text = prompt.text if prompt is not None else None
                requests.append(Request(str(self._next_id()), text, [], SamplingParams(), error=error))
        if errors and on_error == "raise":
            raise combine_errors(errors)
        return requests

    def _request(
        self, index: int, prompt: ParsedPrompt, encoded: Any, params: Any, priority: Any, options: TokenizationOptions
    ) -> Request:
        if not isinstance(params, SamplingParams):
            raise InvalidTypeError(
                f"The parameters of prompt {index} must be SamplingParams, not {type(params).__name__}."
            )
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise InvalidTypeError(f"The priority of prompt {index} must be an integer, not {priority!r}.")
        checked = self._builder.checked_params(index, params)
        embeds = None
        if prompt.embeds is None:
            token_ids = self._builder.token_ids(index, prompt, encoded, checked, options)
        else:
            token_ids, embeds = self._builder.embeds(index, prompt, checked, options)
        request = Request(str(self._next_id()), prompt.text, token_ids, checked, priority, prompt.cache_salt)
        request.embeds = embeds
        return request


def _texts(prompts: Sequence[ParsedPrompt | None]) -> dict[int, str]:
    """The texts that must be tokenised, by index."""
    return {
        i: prompt.text
        for i, prompt in enumerate(prompts)
        if prompt is not None and prompt.token_ids is None and prompt.embeds is None and prompt.text is not None
    }

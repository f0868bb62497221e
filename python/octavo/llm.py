"""The LLM: a model in this process, for batch inference without a server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, Literal

from octavo import checks
from octavo.engine_args import EngineArgs
from octavo.errors import InvalidInputError, InvalidTypeError, OctavoError
from octavo.inputs import ParsedPrompt, combine_errors, expand_params, parse_prompts
from octavo.loading import load_model
from octavo.outputs import RequestOutput
from octavo.progress import ProgressBar, UseTqdm
from octavo.requests import Request, RequestBuilder
from octavo.results import OutputBuilder
from octavo.runner import Runner
from octavo.sampling_params import RequestOutputKind, SamplingParams
from octavo.tokenizer.tokenizer import Tokenizer

OnError = Literal["raise", "return"]
Conversation = Sequence[Mapping[str, Any]]


class LLM:
    """A language model for offline inference.

    Args:
        model: A local folder in Hugging Face layout, a GGUF file, ``owner/repo``, ``owner/repo:QUANTISATION``,
            ``owner/repo/file.gguf`` or ``pkg://package/path``.
        **kwargs: Any other field of `octavo.EngineArgs`.

    Raises:
        InvalidTypeError: an argument is unknown or of the wrong type.
        InvalidInputError: an argument has a value that makes no sense for this model or machine.
        ModelError: the model cannot be found, read or run.
    """

    def __init__(self, model: str | PathLike[str] | None = None, **kwargs: Any) -> None:
        named: dict[str, Any] = {} if model is None else {"model": str(model)}
        self.engine_args = EngineArgs(**named, **kwargs)
        if self.engine_args.chat_template is not None:
            _resolved_template(self.engine_args.chat_template)  # a wrong one is reported before any work
        self._model = load_model(self.engine_args)
        self._builder = RequestBuilder(self._model, self.engine_args.max_logprobs, self.engine_args.logprobs_mode)
        self._runner = Runner(self._model, self._builder)

    @classmethod
    def from_engine_args(cls, engine_args: EngineArgs) -> LLM:
        """An LLM with these arguments."""
        return cls(**vars(engine_args))

    def __repr__(self) -> str:
        return f"LLM(model={self.engine_args.model!r})"

    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer; raises InvalidInputError when it was not loaded."""
        if self._model.tokenizer is None:
            raise InvalidInputError("This LLM has no tokenizer because it was created with skip_tokenizer_init=True.")
        return self._model.tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """New sampling parameters with the defaults that `generation_config` decides."""
        return self._model.defaults.sampling_params()

    def generate(
        self,
        prompts: Any,
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: UseTqdm = True,
        priority: int | Sequence[int] | None = None,
        on_error: OnError = "raise",
    ) -> list[RequestOutput]:
        """Completes prompts; results come in the order of the prompts.

        Args:
            prompts: One prompt or any iterable of prompts: text, token ids, or dicts with "prompt" or
                "prompt_token_ids".
            sampling_params: For all prompts, or one for each; the defaults where None.
            use_tqdm: Whether to show a progress bar, or what to make it with.
            priority: For all prompts, or one for each; lower runs earlier under scheduling_policy "priority".
            on_error: "raise" refuses the whole call before any work when a prompt is bad; "return" runs the good
                ones and gives the bad ones outputs with `error` set.

        Raises:
            InvalidTypeError, InvalidInputError: a prompt or its parameters cannot be used; every bad index is named.
        """
        requests = self._requests(prompts, sampling_params, priority, on_error)
        return self._run_all(requests, use_tqdm, on_error)

    def stream(
        self,
        prompts: Any,
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        priority: int | Sequence[int] | None = None,
        on_error: OnError = "raise",
    ) -> Iterator[RequestOutput]:
        """Like `generate`, but yields partial outputs as tokens arrive; each holds everything so far, or what is new
        under output_kind DELTA. Closing the iterator ends its requests."""
        requests = self._requests(prompts, sampling_params, priority, on_error)
        return self._stream(requests, on_error)

    def chat(
        self,
        messages: Conversation | Sequence[Conversation],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: UseTqdm = True,
        *,
        priority: int | Sequence[int] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        on_error: OnError = "raise",
    ) -> list[RequestOutput]:
        """Answers one conversation or many; `prompt` of each output is the text that the template made of it.

        Args:
            messages: A list of messages with "role" and "content", or a list of such lists.
            chat_template: A Jinja template or a file that holds one; the LLM's or the model's where None.
            add_generation_prompt: End the text with the start of an answer.
            continue_final_message: Let the model go on with the last message.
            tools: JSON schemas of functions the model may call.
            chat_template_kwargs: What else the template looks at.

        Raises:
            InvalidTypeError, InvalidInputError: a conversation cannot be used, or there is no chat template.
        """
        prompts, errors = self._render(
            _conversations(messages),
            chat_template,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            **(chat_template_kwargs or {}),
        )
        requests = self._build(prompts, errors, sampling_params, priority, on_error, add_special_tokens=False)
        return self._run_all(requests, use_tqdm, on_error)

    def stream_chat(
        self,
        messages: Conversation,
        sampling_params: SamplingParams | None = None,
        *,
        chat_template: str | None = None,
    ) -> Iterator[RequestOutput]:
        """Answers one conversation, yielding partial outputs as tokens arrive."""
        prompts, errors = self._render(_conversations(messages), chat_template)
        requests = self._build(prompts, errors, sampling_params, None, "raise", add_special_tokens=False)
        return self._stream(requests, "raise")

    def reset_prefix_cache(self) -> bool:
        """Forgets all cached prefixes."""
        self._model.core.reset_prefix_cache()
        return True

    def _render(
        self, conversations: Sequence[Conversation], template: str | None, **options: Any
    ) -> tuple[list[ParsedPrompt | None], dict[int, OctavoError]]:
        from octavo.tokenizer.chat_template import render_chat

        tokenizer = self.get_tokenizer()
        text = self._template(template, tokenizer, bool(options.get("tools")))
        prompts: list[ParsedPrompt | None] = []
        errors: dict[int, OctavoError] = {}
        special: dict[str, Any] = {"bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token}
        for index, conversation in enumerate(conversations):
            try:
                rendered = checks.text("its text", render_chat(text, conversation, **special, **options))
                prompts.append(ParsedPrompt(text=rendered))
            except OctavoError as error:
                prompts.append(None)
                errors[index] = type(error)(f"conversation {index}: {error}")
        return prompts, errors

    def _template(self, given: str | None, tokenizer: Tokenizer, with_tools: bool) -> str:
        """The chat template to use: the call's, the LLM's, then the model's own."""
        chosen = given if given is not None else self.engine_args.chat_template
        if chosen is not None:
            return _resolved_template(chosen)
        own = tokenizer.chat_template
        if isinstance(own, dict):
            own = own.get("tool_use") if with_tools and "tool_use" in own else own.get("default")
        if own is None:
            raise InvalidInputError("This model has no chat template; give one by chat_template.")
        return own

    def _requests(self, prompts: Any, params: Any, priority: Any, on_error: OnError) -> list[Request]:
        parsed, errors = parse_prompts(prompts)
        return self._build(parsed, errors, params, priority, on_error, add_special_tokens=True)

    def _build(
        self,
        prompts: Sequence[ParsedPrompt | None],
        errors: dict[int, OctavoError],
        params: Any,
        priority: Any,
        on_error: OnError,
        *,
        add_special_tokens: bool,
    ) -> list[Request]:
        if on_error not in ("raise", "return"):
            raise InvalidInputError(f"on_error must be 'raise' or 'return', got {on_error!r}.")
        n = len(prompts)
        all_params = expand_params(self.get_default_sampling_params() if params is None else params, n, "params")
        priorities = expand_params(0 if priority is None else priority, n, "priority")
        texts = {
            i: prompt.text
            for i, prompt in enumerate(prompts)
            if prompt is not None and prompt.token_ids is None and prompt.text is not None
        }
        encoded = self._builder.encode(texts, add_special_tokens)
        requests = []
        for i, prompt in enumerate(prompts):
            try:
                requests.append(self._request(i, prompt, errors.get(i), encoded.get(i), all_params[i], priorities[i]))
            except OctavoError as error:
                errors[i] = error
                text = prompt.text if prompt is not None else None
                requests.append(Request(str(self._runner.next_id()), text, [], SamplingParams(), error=error))
        if errors and on_error == "raise":
            raise combine_errors(errors)
        return requests

    def _request(
        self,
        index: int,
        prompt: ParsedPrompt | None,
        error: OctavoError | None,
        encoded: Any,
        params: Any,
        priority: Any,
    ) -> Request:
        if error is not None:
            raise error
        assert prompt is not None
        if not isinstance(params, SamplingParams):
            raise InvalidTypeError(
                f"The parameters of prompt {index} must be SamplingParams, not {type(params).__name__}."
            )
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise InvalidTypeError(f"The priority of prompt {index} must be an integer, not {priority!r}.")
        checked = self._builder.checked_params(index, params)
        token_ids = self._builder.token_ids(index, prompt, encoded, checked)
        return Request(str(self._runner.next_id()), prompt.text, token_ids, checked, priority, prompt.cache_salt)

    def _output_builder(self) -> OutputBuilder:
        return OutputBuilder(self._model.tokenizer, with_metrics=not self.engine_args.disable_log_stats)

    def _run_all(self, requests: Sequence[Request], use_tqdm: UseTqdm, on_error: OnError) -> list[RequestOutput]:
        build = self._output_builder()
        for request in requests:
            request.params.output_kind = RequestOutputKind.FINAL_ONLY
        runnable = [request for request in requests if request.error is None]
        progress = ProgressBar(sum(request.params.n for request in runnable), use_tqdm)
        try:
            for request in self._runner.run(runnable, every_change=False):
                progress.finish(request)
        finally:
            progress.close()
        _raise_failed(requests, on_error)
        return [build.build(request) for request in requests]

    def _stream(self, requests: Sequence[Request], on_error: OnError) -> Iterator[RequestOutput]:
        build = self._output_builder()
        for request in requests:
            if request.error is not None:
                yield build.build(request)
        runnable = [request for request in requests if request.error is None]
        for request in self._runner.run(runnable, every_change=True):
            _raise_failed([request], on_error)
            if request.finished or request.params.output_kind is not RequestOutputKind.FINAL_ONLY:
                yield build.build(request)


def _raise_failed(requests: Iterable[Request], on_error: OnError) -> None:
    """Raises what went wrong while requests ran, unless errors are to be returned."""
    failed = [request for request in requests if request.error is not None]
    if failed and on_error == "raise":
        raise combine_errors({int(request.id): request.error for request in failed if request.error is not None})


def _resolved_template(given: str) -> str:
    from octavo.tokenizer.chat_template import resolve_chat_template

    return resolve_chat_template(given)


def _conversations(messages: Any) -> list[Conversation]:
    """One conversation (a list of messages) or many, as many."""
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Iterable):
        raise InvalidTypeError(f"chat takes a list of messages or a list of such lists, not {type(messages).__name__}.")
    items = list(messages)
    if items and isinstance(items[0], Mapping):
        return [items]
    for index, item in enumerate(items):
        if isinstance(item, (str, bytes, Mapping)) or not isinstance(item, Iterable):
            raise InvalidTypeError(f"conversation {index} must be a list of messages, not {type(item).__name__}.")
    return [list(item) for item in items]

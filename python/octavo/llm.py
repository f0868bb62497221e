"""The LLM: a model in this process, for batch inference without a server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from octavo.admission import Admission, OnError
from octavo.chat import (
    ChatOptions,
    Conversation,
    choose_template,
    render_conversations,
    resolved_template,
    split_conversations,
)
from octavo.engine_args import EngineArgs
from octavo.errors import InvalidInputError
from octavo.inputs import combine_errors, parse_prompts
from octavo.loading import LoadedModel, load_model
from octavo.outputs import RequestOutput
from octavo.pooling.api import PoolingMethods
from octavo.pooling.tasks import Pooler
from octavo.progress import ProgressBar, UseTqdm
from octavo.requests import Request, RequestBuilder
from octavo.results import OutputBuilder
from octavo.runner import Runner
from octavo.sampling_params import BeamSearchParams, RequestOutputKind, SamplingParams
from octavo.tokenization_options import TokenizationOptions
from octavo.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from octavo.beam_search import BeamSearchOutput


class LLM(PoolingMethods):
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
        if model is not None:
            kwargs["model"] = fspath(model) if isinstance(model, PathLike) else model
        self.engine_args = EngineArgs(**kwargs)
        if self.engine_args.chat_template is not None:
            resolved_template(self.engine_args.chat_template)  # a wrong one is reported before any work
        self._model = load_model(self.engine_args)
        args = self.engine_args
        self._builder = RequestBuilder(
            self._model, args.max_logprobs, args.logprobs_mode, takes_embeds=args.enable_prompt_embeds
        )
        self._runner = Runner(self._model, self._builder)
        self._pooler = _pooler(self._model, self.engine_args, self._runner)
        self._admission = Admission(self._builder, self._runner.next_id)

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
        lora_request: Any = None,
        priority: int | Sequence[int] | None = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        on_error: OnError = "raise",
    ) -> list[RequestOutput]:
        """Completes prompts; results come in the order of the prompts.

        Args:
            prompts: One prompt or any iterable of prompts: text, token ids, or dicts with "prompt",
                "prompt_token_ids" or, for an LLM made with enable_prompt_embeds, "prompt_embeds": an array of shape
                (n_tokens, hidden_size).
            sampling_params: For all prompts, or one for each; the defaults where None.
            use_tqdm: Whether to show a progress bar, or what to make it with.
            lora_request: Not supported; must be None.
            priority: For all prompts, or one for each; lower runs earlier under scheduling_policy "priority".
            tokenization_kwargs: How texts become tokens: "add_special_tokens", "truncate_prompt_tokens" or
                "max_length", and "truncation_side".
            on_error: "raise" refuses the whole call before any work when a prompt is bad; "return" runs the good
                ones and gives the bad ones outputs with `error` set.

        Raises:
            InvalidTypeError, InvalidInputError: a prompt or its parameters cannot be used; every bad index is named.
        """
        _refuse_lora(lora_request)
        self._require_generative("generate")
        requests = self._requests(prompts, sampling_params, priority, on_error, tokenization_kwargs)
        return self._run_all(requests, use_tqdm, on_error)

    def stream(
        self,
        prompts: Any,
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        priority: int | Sequence[int] | None = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        on_error: OnError = "raise",
    ) -> Iterator[RequestOutput]:
        """Like `generate`, but yields partial outputs as tokens arrive; each holds everything so far, or what is new
        under output_kind DELTA. Closing the iterator ends its requests."""
        self._require_generative("stream")
        requests = self._requests(prompts, sampling_params, priority, on_error, tokenization_kwargs)
        return self._stream(requests, on_error)

    def chat(
        self,
        messages: Conversation | Sequence[Conversation],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: UseTqdm = True,
        lora_request: Any = None,
        priority: int | Sequence[int] | None = None,
        chat_template: str | None = None,
        chat_template_content_format: str = "auto",
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        *,
        on_error: OnError = "raise",
    ) -> list[RequestOutput]:
        """Answers one conversation or many; `prompt` of each output is the text that the template made of it.

        Args:
            messages: A list of messages with "role" and "content", or a list of such lists.
            chat_template: A Jinja template, a file that holds one, or the name of one of the model's; where None the
                LLM's, else the model's own.
            chat_template_content_format: Whether the template wants contents as text ("string") or as lists of parts
                ("openai"); "auto" looks at the template.
            add_generation_prompt: End the text with the start of an answer.
            continue_final_message: Let the model go on with the last message; needs add_generation_prompt=False.
            tools: JSON schemas of functions the model may call.
            chat_template_kwargs: What else the template looks at.

        The other arguments are those of `generate`; special tokens come from the template alone, unless
        tokenization_kwargs has "add_special_tokens".

        Raises:
            InvalidTypeError, InvalidInputError: a conversation cannot be used, or there is no chat template.
        """
        self._require_generative("chat")
        _refuse_lora(lora_request)
        options = ChatOptions(
            chat_template,
            chat_template_content_format,
            add_generation_prompt,
            continue_final_message,
            tools,
            {} if chat_template_kwargs is None else chat_template_kwargs,
        )
        requests = self._chat_requests(messages, options, sampling_params, priority, on_error, tokenization_kwargs)
        return self._run_all(requests, use_tqdm, on_error)

    def stream_chat(
        self,
        messages: Conversation | Sequence[Conversation],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        priority: int | Sequence[int] | None = None,
        chat_template: str | None = None,
        chat_template_content_format: str = "auto",
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        on_error: OnError = "raise",
    ) -> Iterator[RequestOutput]:
        """Like `chat`, but yields partial outputs as tokens arrive, as `stream` does."""
        self._require_generative("stream_chat")
        options = ChatOptions(
            chat_template,
            chat_template_content_format,
            add_generation_prompt,
            continue_final_message,
            tools,
            {} if chat_template_kwargs is None else chat_template_kwargs,
        )
        requests = self._chat_requests(messages, options, sampling_params, priority, on_error, tokenization_kwargs)
        return self._stream(requests, on_error)

    def beam_search(
        self,
        prompts: Any,
        params: BeamSearchParams,
        lora_request: Any = None,
        use_tqdm: UseTqdm = False,
        concurrency_limit: int | None = None,
    ) -> list[BeamSearchOutput]:
        """The most likely continuations of prompts, as far as a beam of `params.beam_width` sees them.

        Args:
            prompts: As those of `generate`.
            concurrency_limit: Prompts that are searched at the same time; None searches all.

        Raises:
            InvalidTypeError, InvalidInputError: a prompt or the parameters cannot be used; every bad index is named.
        """
        from octavo.beam_search import BeamSearch

        self._require_generative("beam_search")
        _refuse_lora(lora_request)
        return BeamSearch(self, params, use_tqdm, concurrency_limit).run(prompts)

    def reset_prefix_cache(self) -> bool:
        """Forgets all cached prefixes."""
        self._model.core.reset_prefix_cache()
        return True

    def _require_generative(self, method: str) -> None:
        if self._pooler is not None:
            raise InvalidInputError(
                f"LLM.{method}() is only supported for generative models. Try passing `--runner generate` "
                "(runner='generate') to use the model as a generative model."
            )

    def _requests(
        self, prompts: Any, params: Any, priority: Any, on_error: OnError, tokenization: Mapping[str, Any] | None = None
    ) -> list[Request]:
        options = TokenizationOptions.of(tokenization, add_special_tokens=True)
        parsed, errors = parse_prompts(prompts)
        params = self.get_default_sampling_params() if params is None else params
        return self._admission.requests(parsed, errors, params, priority, on_error, options)

    def _chat_requests(
        self,
        messages: Any,
        chat: ChatOptions,
        params: Any,
        priority: Any,
        on_error: OnError,
        tokenization: Mapping[str, Any] | None,
    ) -> list[Request]:
        options = TokenizationOptions.of(tokenization, add_special_tokens=False)
        tokenizer = self.get_tokenizer()
        template = choose_template(
            chat.chat_template, self.engine_args.chat_template, tokenizer, with_tools=bool(chat.tools)
        )
        prompts, errors = render_conversations(tokenizer, template, split_conversations(messages), chat)
        params = self.get_default_sampling_params() if params is None else params
        return self._admission.requests(prompts, errors, params, priority, on_error, options)

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
            if build.is_due(request):
                yield build.build(request)


def _pooler(model: LoadedModel, args: EngineArgs, runner: Runner) -> Pooler | None:
    """What runs the pooling methods; None where the model generates."""
    if model.plan is None:
        return None
    return Pooler(
        core=model.core,
        tokenizer=model.tokenizer,
        plan=model.plan,
        name=args.model,
        max_model_len=model.max_model_len,
        vocab_size=model.vocab_size,
        width=model.core.vocab_size,
        n_token_types=model.n_token_types,
        next_id=runner.next_id,
    )


def _raise_failed(requests: Iterable[Request], on_error: OnError) -> None:
    """Raises what went wrong while requests ran, unless errors are to be returned."""
    failed = [request for request in requests if request.error is not None]
    if failed and on_error == "raise":
        raise combine_errors({int(request.id): request.error for request in failed if request.error is not None})


def _refuse_lora(lora_request: object) -> None:
    if lora_request is not None:
        raise InvalidInputError("octavo does not run LoRA adapters; merge the adapter into the model first.")

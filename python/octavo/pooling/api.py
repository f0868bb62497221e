"""The methods of an LLM that runs for pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from octavo.engine_args import EngineArgs
from octavo.errors import InvalidInputError
from octavo.gc_pause import without_gc
from octavo.inputs import parse_prompts
from octavo.pooling.scoring import RenderPair, score
from octavo.pooling.tasks import Call, Pooler, RawOutput
from octavo.pooling.tokenization import pooling_options
from octavo.pooling_outputs import (
    ClassificationRequestOutput,
    EmbeddingRequestOutput,
    PoolingRequestOutput,
    ScoringRequestOutput,
)
from octavo.pooling_params import PoolingParams
from octavo.progress import UseTqdm

OnError = Literal["raise", "return"]
Params = PoolingParams | Sequence[PoolingParams] | None


class PoolingMethods:
    """What `octavo.LLM` offers of a pooling model. Every method takes:

    prompts: One prompt or any iterable of prompts: text, token ids, or dicts with "prompt" or "prompt_token_ids" and
        perhaps "token_type_ids", which tell its segments apart.
    pooling_params: For all prompts, or one for each.
    use_tqdm: Whether to show a progress bar, or what to make it with.
    truncate_prompt_tokens: Keep only this many tokens of each prompt; -1 keeps what the model can take.
    tokenization_kwargs: "truncate_prompt_tokens", "truncation_side" ("right" by default), "max_length",
        "truncation", "add_special_tokens".
    on_error: "raise" refuses the whole call before any work when a prompt is bad; "return" runs the good ones and
        gives the bad ones outputs with `error` set and `outputs` None.

    Results come in the order of the prompts. All raise InvalidInputError or InvalidTypeError where the model is not
    loaded for the task or a prompt cannot be used.
    """

    engine_args: EngineArgs
    _pooler: Pooler | None

    @without_gc
    def encode(
        self,
        prompts: Any,
        pooling_params: Params = None,
        *,
        use_tqdm: UseTqdm = True,
        lora_request: Any = None,
        pooling_task: str | None = None,
        truncate_prompt_tokens: int | None = None,
        tokenization_kwargs: dict[str, Any] | None = None,
        on_error: OnError = "raise",
    ) -> list[RawOutput]:
        """The arrays of a task: "embed" and "classify" give (width,), "token_embed" and "token_classify"
        (n_tokens, width)."""
        pooler = self._pooling("encode")
        task = pooling_task or _task_of(pooling_params)
        if task is None:
            raise InvalidInputError(
                "LLM.encode() needs a pooling_task: 'embed' (or call LLM.embed), 'classify' (or call LLM.classify), "
                "'token_embed' or 'token_classify'."
            )
        how = (truncate_prompt_tokens, tokenization_kwargs)
        return self._pool(pooler, prompts, task, pooling_params, use_tqdm, lora_request, how, on_error)

    @without_gc
    def embed(
        self,
        prompts: Any,
        *,
        use_tqdm: UseTqdm = True,
        pooling_params: Params = None,
        lora_request: Any = None,
        truncate_prompt_tokens: int | None = None,
        tokenization_kwargs: dict[str, Any] | None = None,
        on_error: OnError = "raise",
    ) -> list[EmbeddingRequestOutput]:
        """The embedding of each prompt, L2-normalised unless the parameters or the model's files say otherwise.

        A model that is loaded for token_embed gives PoolingRequestOutputs with (n_tokens, width) arrays.
        """
        pooler = self._pooling("embed")
        pooler.check_task("embed")
        how = (truncate_prompt_tokens, tokenization_kwargs)
        raw = self._pool(pooler, prompts, pooler.plan.task, pooling_params, use_tqdm, lora_request, how, on_error)
        if pooler.plan.per_token:
            return cast(list[EmbeddingRequestOutput], raw)
        return [_typed(EmbeddingRequestOutput, output) for output in raw]

    @without_gc
    def classify(
        self,
        prompts: Any,
        *,
        pooling_params: Params = None,
        use_tqdm: UseTqdm = True,
        lora_request: Any = None,
        truncate_prompt_tokens: int | None = None,
        tokenization_kwargs: dict[str, Any] | None = None,
        on_error: OnError = "raise",
    ) -> list[ClassificationRequestOutput]:
        """The probability of each class for each prompt; logits under use_activation=False."""
        pooler = self._pooling("classify")
        how = (truncate_prompt_tokens, tokenization_kwargs)
        raw = self._pool(pooler, prompts, "classify", pooling_params, use_tqdm, lora_request, how, on_error)
        return [_typed(ClassificationRequestOutput, output) for output in raw]

    @without_gc
    def score(
        self,
        data_1: Any,
        data_2: Any,
        /,
        *,
        use_tqdm: UseTqdm = True,
        pooling_params: PoolingParams | None = None,
        lora_request: Any = None,
        truncate_prompt_tokens: int | None = None,
        tokenization_kwargs: dict[str, Any] | None = None,
        chat_template: str | None = None,
        on_error: OnError = "raise",
    ) -> list[ScoringRequestOutput]:
        """How well texts match: 1:1, 1:N or N:N.

        A classifier with one label scores each pair as one text; chat_template (else the LLM's) may make that text
        of messages with the roles "query" and "document". Embeddings are compared by their cosine, token embeddings
        by late interaction.
        """
        pooler = self._pooling("score")
        how = pooling_options(truncate_prompt_tokens, tokenization_kwargs)
        call = Call(pooler.plan.task, pooling_params, how, use_tqdm, _raises(lora_request, on_error))
        raw = score(pooler, data_1, data_2, call, self._pair_template(chat_template))
        return [_typed(ScoringRequestOutput, output) for output in raw]

    def _pooling(self, method: str) -> Pooler:
        if self._pooler is None:
            raise InvalidInputError(
                f"LLM.{method}() is only supported for pooling models. Try passing `--runner pooling` "
                "(runner='pooling') to use the model as a pooling model."
            )
        return self._pooler

    def _pool(
        self,
        pooler: Pooler,
        prompts: Any,
        task: str,
        params: Params,
        use_tqdm: UseTqdm,
        lora_request: Any,
        tokenization: tuple[int | None, dict[str, Any] | None],
        on_error: OnError,
    ) -> list[RawOutput]:
        call = Call(task, params, pooling_options(*tokenization), use_tqdm, _raises(lora_request, on_error))
        return pooler.run(*parse_prompts(prompts), call)

    def _pair_template(self, given: str | None) -> RenderPair | None:
        chosen = given if given is not None else self.engine_args.chat_template
        if chosen is None:
            return None
        from octavo.tokenizer.chat_template import render_chat, resolve_chat_template

        template = resolve_chat_template(chosen)
        tokenizer = self._pooling("score").tokenizer
        special: dict[str, Any] = {}
        if tokenizer is not None:
            special = {"bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token}

        def render(query: str, document: str) -> str:
            messages = [{"role": "query", "content": query}, {"role": "document", "content": document}]
            return render_chat(template, messages, **special)

        return render


def _task_of(params: Params) -> str | None:
    """The one task that parameters name, if they do."""
    given = params if isinstance(params, (list, tuple)) else [params]
    tasks = {item.task for item in given if isinstance(item, PoolingParams)}
    return tasks.pop() if len(tasks) == 1 else None


def _raises(lora_request: Any, on_error: OnError) -> bool:
    if lora_request is not None:
        raise InvalidInputError("Got a lora_request, but LoRA is not enabled; octavo runs no adapters, leave it out.")
    if on_error not in ("raise", "return"):
        raise InvalidInputError(f"on_error must be 'raise' or 'return', got {on_error!r}.")
    return on_error == "raise"


def _typed(kind: Any, output: PoolingRequestOutput[Any]) -> Any:
    """The output as its task's class; a failed one keeps its outputs empty."""
    if output.error is not None:
        return kind(**vars(output))
    return kind.from_base(output)

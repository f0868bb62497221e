"""Conversations on their way to prompts: which template, with which variables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from octavo import checks
from octavo.errors import InvalidInputError, InvalidTypeError, OctavoError
from octavo.inputs import ParsedPrompt
from octavo.tokenizer.tokenizer import Tokenizer

Conversation = Sequence[Mapping[str, Any]]

_OWN_ARGUMENTS = (
    "messages",
    "conversation",
    "chat_template",
    "tools",
    "tokenize",
    "add_generation_prompt",
    "continue_final_message",
)


@dataclass(frozen=True)
class ChatOptions:
    """How `chat` renders its conversations; the arguments of `LLM.chat` of the same names."""

    chat_template: str | None = None
    chat_template_content_format: str = "auto"
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    tools: Sequence[Mapping[str, Any]] | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("add_generation_prompt", "continue_final_message"):
            checks.boolean(name, getattr(self, name))
        if self.chat_template_content_format not in ("auto", "string", "openai"):
            shown = checks.shown(self.chat_template_content_format)
            raise InvalidInputError(f"chat_template_content_format must be 'auto', 'string' or 'openai', got {shown}.")
        if not isinstance(self.chat_template_kwargs, Mapping):
            raise InvalidTypeError(
                f"chat_template_kwargs must be a dict, got {checks.shown(self.chat_template_kwargs)}."
            )
        for name in _OWN_ARGUMENTS:
            if name in self.chat_template_kwargs:
                raise InvalidInputError(
                    f"chat_template_kwargs must not hold {name!r}; chat has it as an argument or sets it."
                )
        _check_tools(self.tools)


def render_conversations(
    tokenizer: Tokenizer, template: str, conversations: Sequence[Conversation], options: ChatOptions
) -> tuple[list[ParsedPrompt | None], dict[int, OctavoError]]:
    """The text of each conversation; where that fails, None and an error under its index."""
    from octavo.tokenizer.chat_template import render_chat

    prompts: list[ParsedPrompt | None] = []
    errors: dict[int, OctavoError] = {}
    for index, conversation in enumerate(conversations):
        try:
            text = render_chat(
                template,
                conversation,
                tools=options.tools,
                add_generation_prompt=options.add_generation_prompt,
                continue_final_message=options.continue_final_message,
                content_format=options.chat_template_content_format,
                **{"bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token, **options.chat_template_kwargs},
            )
            prompts.append(ParsedPrompt(text=checks.text("its text", text)))
        except OctavoError as error:
            prompts.append(None)
            errors[index] = type(error)(f"conversation {index}: {error}")
    return prompts, errors


def choose_template(given: str | None, of_llm: str | None, tokenizer: Tokenizer, *, with_tools: bool) -> str:
    """The chat template to use: the call's, the LLM's, then the model's own.

    Of a model with several, "tool_use" where there are tools, else "default"; `given` may also be the name of one.

    Raises:
        InvalidInputError: there is none.
    """
    own = tokenizer.chat_template
    chosen = given if given is not None else of_llm
    if isinstance(own, dict) and chosen in own:
        return own[chosen]
    if chosen is not None:
        return resolved_template(chosen)
    if isinstance(own, dict):
        named = own.get("tool_use" if with_tools and "tool_use" in own else "default")
        if named is None:
            names = ", ".join(sorted(own))
            raise InvalidInputError(f"This model has no default chat template; name one of its own ({names}).")
        return named
    if own is None:
        raise InvalidInputError("This model has no chat template; give one by chat_template.")
    return own


def resolved_template(given: str) -> str:
    """The template that a user's option means: the contents of a file, or the string itself."""
    from octavo.tokenizer.chat_template import resolve_chat_template

    return resolve_chat_template(given)


def split_conversations(messages: Any) -> list[Conversation]:
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


def _check_tools(tools: object) -> None:
    if tools is None:
        return
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Sequence):
        raise InvalidTypeError(f"tools must be a list of JSON schemas of functions, got {checks.shown(tools)}.")
    for index, tool in enumerate(tools):
        if not isinstance(tool, Mapping):
            raise InvalidTypeError(f"tools[{index}] must be the JSON schema of a function, got {checks.shown(tool)}.")

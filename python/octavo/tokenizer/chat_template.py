"""Renders a conversation to the text a model expects.

A chat template is a Jinja program from a model file, so it is not trusted: it runs in Jinja's immutable sandbox, sees
nothing but the conversation, and may take a bounded number of steps. What a template can use is what transformers
offers, so that the text is the same as of its ``apply_chat_template``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.errors import InvalidInputError, InvalidTypeError

if TYPE_CHECKING:
    from jinja2 import Template

_CONTINUE_MARK = "CONTINUE_FINAL_MESSAGE_TAG "


def render_chat(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    bos_token: str | None = None,
    eos_token: str | None = None,
    content_format: str = "auto",
    **variables: Any,
) -> str:
    """The text of a conversation.

    Args:
        template: A Jinja template.
        messages: Each with a "role" and, unless it is a tool call, a "content": a string, or a list of text parts.
        tools: JSON schemas of the functions the model may call.
        add_generation_prompt: End with the start of an answer.
        continue_final_message: End within the last message, for the model to go on with it.
        bos_token: What the template knows as ``bos_token``; likewise ``eos_token``.
        content_format: What becomes of lists of parts: "string" joins them by line breaks, "openai" leaves them to
            the template, "auto" does what the template can take.
        **variables: Whatever else the template looks at.

    Raises:
        InvalidTypeError: a message, its role or its content is of the wrong type.
        InvalidInputError: there is no message, or the template refuses the conversation, is damaged or runs for too
            long.
    """
    if continue_final_message and add_generation_prompt:
        raise InvalidInputError(
            "continue_final_message and add_generation_prompt exclude each other; set only one of them."
        )
    with_parts = (_detected(template) if content_format == "auto" else content_format) == "openai"
    chat = normalize_messages(messages, developer_role="developer" in template, join_parts=not with_parts)
    if continue_final_message:
        chat[-1]["content"] = _marked(chat[-1].get("content"))
    special = {"bos_token": bos_token, "eos_token": eos_token}
    text = _render(
        template,
        messages=chat,
        tools=None if tools is None else list(tools),
        documents=variables.pop("documents", None),
        add_generation_prompt=add_generation_prompt,
        **{name: token for name, token in special.items() if token is not None},
        **variables,
    )
    return _cut_at_mark(text) if continue_final_message else text


def resolve_chat_template(value: str | os.PathLike[str]) -> str:
    """The template that a user's option means: the contents of a file, or the string itself if it is a template.

    Raises:
        InvalidInputError: ``value`` is neither.
    """
    path = Path(value)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InvalidInputError(f"The chat template {path} is not UTF-8 text; save it as UTF-8.") from None
    except (OSError, ValueError) as error:  # ValueError: a null character
        if isinstance(value, str) and any(mark in value for mark in "{}\n"):
            return value
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidInputError(
            f"The chat template {str(value)!r} looks like a file path, but it failed to be opened ({reason}); give an"
            " existing file or a Jinja template."
        ) from None


def normalize_messages(
    messages: Sequence[Mapping[str, Any]], *, developer_role: bool = False, join_parts: bool = True
) -> list[dict[str, Any]]:
    """Checked copies of ``messages``, with tool-call arguments as objects.

    The role "developer" becomes "system" unless ``developer_role``. Content in parts becomes one string or, without
    ``join_parts``, a list of dicts.

    Raises:
        InvalidTypeError: a message, its role or its content is of the wrong type.
        InvalidInputError: there is no message, or one lacks its role or content.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise InvalidTypeError(
            f"A conversation must be a list of messages, not {type(messages).__name__}; put them in a list."
        )
    if not messages:
        raise InvalidInputError("The conversation is empty; give at least one message.")
    chat = [_normalize_message(index, message, join_parts) for index, message in enumerate(messages)]
    if not developer_role:
        for message in chat:
            message["role"] = "system" if message["role"] == "developer" else message["role"]
    return chat


def _normalize_message(index: int, message: Mapping[str, Any], join_parts: bool) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise InvalidTypeError(
            f"messages[{index}] must be a dict with 'role' and 'content', not {type(message).__name__}."
        )
    copy = {key: value for key, value in message.items() if value is not None}
    if "role" not in copy:
        raise InvalidInputError(f"messages[{index}] has no 'role'; give one such as 'user'.")
    if not isinstance(copy["role"], str):
        raise InvalidTypeError(f"messages[{index}]['role'] must be a string, not {type(copy['role']).__name__}.")
    if "content" in copy:
        copy["content"] = _checked_content(index, copy["content"], join_parts)
    elif "tool_calls" not in copy:
        raise InvalidInputError(f"messages[{index}] has no 'content'; give the text of the message.")
    if "tool_calls" in copy:
        copy["tool_calls"] = _parsed_tool_calls(index, copy["tool_calls"])
    return copy


def _checked_content(index: int, content: Any, join_parts: bool) -> str | list[dict[str, str]]:
    if isinstance(content, str):
        return content
    where = f"messages[{index}]['content']"
    if not isinstance(content, (list, tuple)):
        raise InvalidTypeError(f"{where} must be a string or a list of text parts, not {type(content).__name__}.")
    texts = [_part_text(f"{where}[{i}]", part) for i, part in enumerate(content)]
    return "\n".join(texts) if join_parts else [{"type": "text", "text": text} for text in texts]


def _part_text(where: str, part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise InvalidTypeError(f"{where} must be a string or a dict with 'text', not {type(part).__name__}.")
    if part.get("type", "text") != "text":
        raise InvalidInputError(
            f"{where} is of the type {part['type']!r}, but only parts of the type 'text' are supported."
        )
    if not isinstance(part.get("text"), str):
        raise InvalidTypeError(f"{where}['text'] must be a string, not {type(part.get('text')).__name__}.")
    return str(part["text"])


def _parsed_tool_calls(index: int, calls: Any) -> list[Any]:
    """Templates want a call's arguments as an object; many callers have them as JSON text."""
    if not isinstance(calls, (list, tuple)):
        raise InvalidTypeError(f"messages[{index}]['tool_calls'] must be a list, not {type(calls).__name__}.")
    return [_parsed_tool_call(f"messages[{index}]['tool_calls'][{i}]", call) for i, call in enumerate(calls)]


def _parsed_tool_call(where: str, call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except (ValueError, RecursionError):
        raise InvalidInputError(
            f"{where}['function']['arguments'] is not valid JSON; give an object or its JSON text."
        ) from None
    return {**call, "function": {**function, "arguments": arguments}}


def _marked(content: Any) -> Any:
    """The final message's content with a mark at its end."""
    if isinstance(content, list) and content:
        return [*content[:-1], {**content[-1], "text": content[-1]["text"] + _CONTINUE_MARK}]
    if not isinstance(content, str):
        raise InvalidInputError(
            "The final message has no 'content' to continue; give some or unset continue_final_message."
        )
    return content + _CONTINUE_MARK


def _detected(template: str) -> str:
    from octavo.tokenizer.content_format import content_format

    return content_format(template)


def _cut_at_mark(text: str) -> str:
    """The text up to the mark; where the template trimmed the mark's own space, without the spaces before it."""
    at = text.rfind(_CONTINUE_MARK.strip())
    if at < 0:
        raise InvalidInputError("The chat template does not write the final message, so that it cannot be continued.")
    return text[:at] if text.startswith(_CONTINUE_MARK, at) else text[:at].rstrip()


def _render(template: str, **variables: Any) -> str:
    from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError

    try:
        return _compiled(template).render(**variables)
    except TemplateSyntaxError as error:
        reason = f"is damaged: {error.message} (line {error.lineno}); give another template."
    except SecurityError as error:
        reason = f"does what a template must not do: {error}; give another template."
    except TemplateError as error:  # also what a template raises by itself
        reason = f"refuses the conversation: {error.message or error}"
    except RecursionError:
        reason = "calls itself without end; give another template."
    except Exception as error:  # a template can fail in every way a program can
        reason = f"failed on the conversation: {type(error).__name__}: {error}"
    raise InvalidInputError(f"The chat template {reason}")


@lru_cache(maxsize=16)
def _compiled(template: str) -> Template:
    from octavo.tokenizer.sandbox import compile_template

    return compile_template(template)

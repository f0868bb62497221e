"""What `chat` and `stream_chat` make of their arguments; the text itself is tested in test_chat_template."""

from __future__ import annotations

from typing import Any

import pytest

import smollm2
from octavo import LLM, SamplingParams
from octavo.chat import choose_template
from octavo.errors import InvalidInputError
from octavo.sampling_params import RequestOutputKind
from octavo.tokenizer.chat_template import render_chat
from octavo.tokenizer.content_format import content_format
from test_chat_template import CALL, TEMPLATES, TOOLS, judge

GREEDY = SamplingParams(temperature=0, max_tokens=8)
QUESTION = [{"role": "user", "content": "Hi"}]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]

PLAIN = "{% for m in messages %}{{ m['content'] }};{% endfor %}"
LOOPS = {
    "subscript": "{% for m in messages %}{% for c in m['content'] %}<{{ c['text'] }}>{% endfor %}{% endfor %}",
    "attribute": "{% for m in messages %}{% for c in m.content %}<{{ c.text }}>{% endfor %}{% endfor %}",
    "string or list": "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}<{{ c.text }}>{% endfor %}{% endif %}{% endfor %}",
    "assigned": "{% for m in messages %}{% set content = m['content'] %}{% for c in content %}<{{ c.text }}>"
    "{% endfor %}{% endfor %}",
    "filtered": "{% for m in messages %}{% for c in m.content | selectattr('type', 'equalto', 'text') %}<{{ c.text }}>"
    "{% endfor %}{% endfor %}",
    "macro": "{% macro show(content) %}{% for c in content %}<{{ c.text }}>{% endfor %}{% endmacro %}"
    "{% for m in messages %}{{ show(m.content) }}{% endfor %}",
}


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM(smollm2.NAME, kv_cache_memory_bytes=smollm2.KV_BYTES)


def prompt(llm: LLM, messages: Any = QUESTION, **options: Any) -> str:
    [output] = llm.chat(messages, SamplingParams(max_tokens=1), use_tqdm=False, **options)
    return str(output.prompt)


# ---- contents in parts ----


@pytest.mark.parametrize("template", LOOPS.values(), ids=LOOPS)
def test_templates_that_loop_over_parts_get_them(template: str) -> None:
    assert content_format(template) == "openai"
    assert render_chat(template, PARTS, add_generation_prompt=False) == judge(template, PARTS) == "<a><b>"
    assert render_chat(template, PARTS, add_generation_prompt=False, content_format="string") != "<a><b>"


@pytest.mark.parametrize("name", TEMPLATES)
def test_other_templates_get_text(name: str) -> None:
    """A template that does not loop over parts gets them as one text."""
    if content_format(TEMPLATES[name]) == "string":
        joined = [{"role": "user", "content": "a\nb"}]
        assert render_chat(TEMPLATES[name], PARTS) == render_chat(TEMPLATES[name], joined)
    else:
        assert render_chat(TEMPLATES[name], PARTS) == judge(TEMPLATES[name], PARTS, add_generation_prompt=True)


def test_loops_over_other_things_want_text() -> None:
    assert content_format(PLAIN) == "string"
    assert content_format("{% for t in tools %}{{ t.content }}{% endfor %}{{ messages[0].content }}") == "string"
    assert content_format("{% for broken") == "string"


def test_the_format_may_be_given(llm: LLM) -> None:
    template = "{{ messages[0].content }}"
    assert prompt(llm, PARTS, chat_template=template) == "a\nb"
    shown = prompt(llm, PARTS, chat_template=template, chat_template_content_format="openai")
    assert shown == str([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])
    looping = LOOPS["string or list"]
    assert prompt(llm, PARTS, chat_template=looping) == "<a><b>"
    assert prompt(llm, PARTS, chat_template=looping, chat_template_content_format="string") == "a\nb"


def test_a_last_message_in_parts_can_be_continued(llm: LLM) -> None:
    messages = [*QUESTION, {"role": "assistant", "content": PARTS[0]["content"]}]
    options = {"add_generation_prompt": False, "continue_final_message": True}
    template = LOOPS["string or list"].replace("<{{ c.text }}>", "{{ c.text }}") + "END"
    assert prompt(llm, messages, chat_template=template, **options) == "Hiab"
    assert prompt(llm, messages, chat_template=PLAIN, **options) == "Hi;a\nb"


# ---- which template ----


class Named:
    chat_template = {"default": "D", "tool_use": "T", "rag": "R{{ 1 }}"}


class Nameless:
    chat_template = {"rag": "R{{ 1 }}"}


def test_named_templates() -> None:
    def choose(given: str | None = None, *, of_llm: str | None = None, with_tools: bool = False) -> str:
        return choose_template(given, of_llm, Named(), with_tools=with_tools)  # type: ignore[arg-type]

    assert (choose(), choose(with_tools=True)) == ("D", "T")
    assert choose("rag") == choose("rag", with_tools=True) == choose(of_llm="rag") == "R{{ 1 }}"
    assert choose("{{ 2 }}", of_llm="rag", with_tools=True) == "{{ 2 }}"
    with pytest.raises(InvalidInputError, match="no default chat template; name one of its own .rag."):
        choose_template(None, None, Nameless(), with_tools=True)  # type: ignore[arg-type]


def test_tools_reach_the_template(llm: LLM) -> None:
    template = "{{ tools | tojson }}{{ messages[-1].content }}"
    assert '"name": "get"' in prompt(llm, chat_template=template, tools=TOOLS)
    assert prompt(llm, chat_template="{{ tools is none }}") == "True"
    called = [*QUESTION, {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": "12"}]
    assert prompt(llm, called, chat_template=template, tools=TOOLS).endswith("12")


@pytest.mark.parametrize(
    "options, words",
    [
        ({"add_generation_prompt": True, "continue_final_message": True}, "exclude each other"),
        ({"chat_template_content_format": "text"}, "'auto', 'string' or 'openai'"),
        ({"chat_template_kwargs": {"tokenize": False}}, "must not hold 'tokenize'"),
        ({"chat_template_kwargs": {"chat_template": "x"}}, "must not hold 'chat_template'"),
        ({"chat_template_kwargs": {"tools": []}}, "must not hold 'tools'"),
        ({"chat_template_kwargs": 3}, "must be a dict"),
        ({"tools": {"type": "function"}}, "tools must be a list"),
        ({"tools": ["get"]}, r"tools\[0\] must be the JSON schema"),
        ({"add_generation_prompt": "yes"}, "True or False"),
        ({"chat_template": "no_such_name"}, "looks like a file path"),
    ],
)
def test_wrong_options(llm: LLM, options: dict[str, Any], words: str) -> None:
    for method in (llm.chat, llm.stream_chat):
        with pytest.raises((ValueError, TypeError), match=words) as caught:
            method(QUESTION, GREEDY, **options)
        assert "\n" not in str(caught.value)


# ---- streams ----


def test_stream_chat_takes_what_chat_takes(llm: LLM) -> None:
    options: dict[str, Any] = {
        "chat_template": "{{ tools | length }}{{ extra }}{% for m in messages %}{{ m.content }}{% endfor %}",
        "tools": TOOLS,
        "chat_template_kwargs": {"extra": "X"},
        "add_generation_prompt": False,
        "tokenization_kwargs": {"truncate_prompt_tokens": 3},
    }
    conversations = [QUESTION, PARTS]
    want = llm.chat(conversations, GREEDY, use_tqdm=False, **options)
    deltas = SamplingParams(temperature=0, max_tokens=8, output_kind=RequestOutputKind.DELTA)
    texts: dict[str | None, str] = {}
    for output in llm.stream_chat(conversations, deltas, **options):
        texts[output.prompt] = texts.get(output.prompt, "") + output.outputs[0].text
    assert texts == {output.prompt: output.outputs[0].text for output in want}
    assert [output.prompt for output in want] == ["1XHi", "1Xa\nb"]


def test_stream_chat_returns_errors_where_asked_to(llm: LLM) -> None:
    outputs = list(llm.stream_chat([QUESTION, [{"content": "no role"}]], GREEDY, on_error="return"))
    failed = [output for output in outputs if output.error is not None]
    assert len(failed) == 1 and "has no 'role'" in str(failed[0].error)
    assert outputs[-1].finished and outputs[-1].error is None


def test_arguments_by_position(llm: LLM) -> None:
    [output] = llm.chat(QUESTION, GREEDY, False, None, 0, PLAIN, "auto", False, False, None, {"a": 1}, {})
    assert output.prompt == "Hi;"

"""Chat templates: the text equals transformers', and a hostile template is refused in a sentence."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from octavo.errors import InvalidInputError, InvalidTypeError, OctavoError
from octavo.tokenizer.chat_template import render_chat, resolve_chat_template

FOLDER = Path(__file__).parents[1] / "golden" / "chat_templates"
TEMPLATES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.jinja"))}
CHATML = TEMPLATES["HuggingFaceTB-SmolLM2-135M-Instruct"]
USER = [{"role": "user", "content": "Hi <b>there</b>"}]

SYSTEM = {"role": "system", "content": "Be brief."}
TURNS = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi! "},
    {"role": "user", "content": " é\n"},
]
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "get", "arguments": {"city": "Zürich"}}}
CONVERSATIONS = {
    "user": USER,
    "turns": TURNS,
    "system": [SYSTEM, *TURNS],
    "wrong order": [SYSTEM, {"role": "assistant", "content": "x"}],
    "unknown role": [{"role": "narrator", "content": "x"}],
    "tool call": [
        {"role": "user", "content": "w?"},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "content": "12", "name": "get", "tool_call_id": "abcdefghi"},
    ],
}
CITY = {"type": "object", "properties": {"city": {"type": "string", "description": "é <x>"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "get", "description": "d", "parameters": CITY}}]


def judge(template: str, messages: list[dict[str, Any]], **options: Any) -> str | Exception:
    chat = pytest.importorskip("transformers.utils.chat_template_utils")
    try:
        return str(chat.render_jinja_template([messages], chat_template=template, **options)[0][0])
    except Exception as error:  # a template may refuse in its own way
        return error


@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize("tools", [None, TOOLS], ids=["", "tools"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_text_equals_transformers(name: str, tools: list[Any] | None, add_generation_prompt: bool) -> None:
    options = dict(tools=tools, add_generation_prompt=add_generation_prompt, bos_token="<s>", eos_token="</s>")
    for messages in CONVERSATIONS.values():
        expected = judge(TEMPLATES[name], messages, **options)
        if isinstance(expected, str):
            assert render_chat(TEMPLATES[name], messages, **options) == expected
        else:
            with pytest.raises(InvalidInputError, match="^The chat template "):
                render_chat(TEMPLATES[name], messages, **options)


@pytest.mark.parametrize("content", ["The answer", "The answer is "])
@pytest.mark.parametrize("name", TEMPLATES)
def test_continued_message_equals_transformers(name: str, content: str) -> None:
    messages = [*USER, {"role": "assistant", "content": content}]
    options = dict(add_generation_prompt=False, continue_final_message=True, bos_token="<s>", eos_token="</s>")
    expected = judge(TEMPLATES[name], messages, **options)
    assert isinstance(expected, str)
    assert render_chat(TEMPLATES[name], messages, **options) == expected


def test_extra_variables_reach_the_template() -> None:
    options = dict(bos_token="", eos_token="", add_generation_prompt=True, enable_thinking=False)
    template = TEMPLATES["Qwen-Qwen3-0.6B"]
    assert render_chat(template, USER, **options) == judge(template, USER, **options)


def test_what_templates_can_use() -> None:
    template = (
        "{% generation %}{{ messages[0].content | tojson }}{% endgeneration %}"
        "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"
        "{{ {'b': 'é', 'a': 1} | tojson(indent=1, sort_keys=true) }}{{ strftime_now('%Y') | length }}"
        "{% set ns = namespace(x=1) %}{% set ns.x = ns.x + 1 %}{{ ns.x * 2 }}{{ 'ab' * 2 }}{{ dict(a=1)['a'] }}"
    )
    assert render_chat(template, USER) == '"Hi <b>there</b>"01{\n "a": 1,\n "b": "é"\n}44abab1'


def test_refusal_is_the_templates_own_sentence() -> None:
    with pytest.raises(InvalidInputError, match="refuses the conversation: System role not supported"):
        render_chat(TEMPLATES["google-gemma-2-2b-it"], [SYSTEM, *USER], bos_token="<bos>")


LAUGHS = "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
HOSTILE = [
    "{{ ''.__class__.__mro__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ messages.append(1) }}",
    "{% set ns = namespace(__class__=1) %}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{{ lipsum(n=1000000) }}",
    "{{ range(10**9) }}",
    "{{ 'a' * 10**10 }}",
    "{{ 10**9 * ['a'] }}",
    "{{ 2 ** 1000000000 }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "{% macro f() %}{% endmacro %}{% for i in range(99999) %}{{ f() }}{{ f() }}{{ f() }}{% endfor %}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    f"{LAUGHS}{{{{ ns.x }}}}",
    f"{LAUGHS}{{{{ ns.x | tojson }}}}",
    f"{LAUGHS}{{{{ ns.x | string }}}}",
    f"{LAUGHS}{{{{ ns.x ~ '' }}}}",
    f"{LAUGHS}{{{{ '%s' % ns.x }}}}",
    f"{LAUGHS}{{{{ '{{}}'.format(ns.x) }}}}",
    "{% set x = 'a' * 900000 %}{% for i in range(90000) %}{{ x }}{% endfor %}",
    "{% set ns = namespace(x=[]) %}{% set s = 'a' * 900000 %}"
    "{% for i in range(9000) %}{% set ns.x = ns.x + [s[1:]] %}{% endfor %}",
    "{% set x = 'a' * 900000 %}{{ x.replace('a', x) }}",
    "{% set x = 'a' * 900000 %}{{ x | replace('a', x) }}",
    "{% set x = 'a' * 900000 %}{{ x.join([x] * 90000) }}",
    "{{ (['a' * 900000] * 90000) | join }}",
    "{{ (['a' * 900000] * 90000) | map('upper') | list }}",
    "{{ 'a'.ljust(10**10) }}",
    "{{ 'a'.zfill(9000000000) }}",
    "{{ '\\t'.expandtabs(9000000000) }}",
    "{{ 'a' | center(9000000000) }}",
    "{{ 'a\\nb' | indent(9000000000) }}",
    "{{ [1] | tojson(indent=9000000000) }}",
    "{{ [1] | batch(9000000000, 'x') | list }}",
    "{{ [1] | slice(9000000000) | list }}",
    "{{ '%9000000000d' % 1 }}",
    "{{ '%*d' % (9000000000, 1) }}",
    "{{ '%9000000000d' | format(1) }}",
    "{{ '{:9000000000}'.format(1) }}",
    "{{ '{:{}}'.format(1, 9000000000) }}",
    "{{ strftime_now('%9000000000d') }}",
    "{{ " + "(" * 100_000,
    "a" * (2 << 20),
    "{% if %}",
    "{{ 1 / 0 }}",
    "{{ undefined.attribute }}",
]


@pytest.mark.parametrize("template", HOSTILE)
def test_hostile_template_is_refused(template: str) -> None:
    start = time.process_time()
    with pytest.raises(InvalidInputError, match="^The chat template ") as caught:
        render_chat(template, USER)
    assert time.process_time() - start < 10
    assert len(str(caught.value)) < 300
    assert render_chat(CHATML, USER)


@pytest.mark.parametrize("name", TEMPLATES)
def test_long_conversations_are_rendered(name: str) -> None:
    messages = 400 * [{"role": "user", "content": 9999 * "x"}, {"role": "assistant", "content": 9999 * "y\n"}]
    options = dict(add_generation_prompt=True, bos_token="<s>", eos_token="</s>")
    assert render_chat(TEMPLATES[name], messages, **options) == judge(TEMPLATES[name], messages, **options)


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, "b", {"text": "c"}]
    assert render_chat("{{ messages[0].content }}", [{"role": "user", "content": parts}]) == "a\nb\nc"


def test_tool_arguments_may_be_json_text() -> None:
    function = {"name": "get", "arguments": '{"city": "Zürich"}'}
    messages = [
        *USER,
        {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]},
    ]
    assert render_chat("{{ messages[1].tool_calls[0].function.arguments.city }}", messages) == "Zürich"
    assert function["arguments"] == '{"city": "Zürich"}'


def test_developer_is_the_system_where_the_template_knows_none() -> None:
    messages = [{"role": "developer", "content": "x"}]
    assert render_chat("{{ messages[0].role }}", messages) == "system"
    assert render_chat("{{ messages[0].role }}{# developer #}", messages) == "developer"


@pytest.mark.parametrize(
    ("messages", "error", "expected"),
    [
        ([], InvalidInputError, "conversation is empty"),
        ("hi", InvalidTypeError, "must be a list of messages, not str"),
        ({"role": "user"}, InvalidTypeError, "not dict"),
        ([*USER, "hi"], InvalidTypeError, r"messages\[1\] must be a dict"),
        ([*USER, {"content": "x"}], InvalidInputError, r"messages\[1\] has no 'role'"),
        ([{"role": 3, "content": "x"}], InvalidTypeError, r"messages\[0\]\['role'\] must be a string, not int"),
        ([{"role": "user"}], InvalidInputError, r"messages\[0\] has no 'content'"),
        ([{"role": "user", "content": 3}], InvalidTypeError, r"messages\[0\]\['content'\] must be a string"),
        ([{"role": "user", "content": [3]}], InvalidTypeError, r"\['content'\]\[0\] must be a string or a dict"),
        ([{"role": "user", "content": [{"type": "image"}]}], InvalidInputError, "type 'image'"),
        ([{"role": "user", "content": [{"type": "text"}]}], InvalidTypeError, r"\['text'\] must be a string"),
        ([{"role": "assistant", "tool_calls": 3}], InvalidTypeError, "must be a list"),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]}],
            InvalidInputError,
            "not valid JSON",
        ),
    ],
)
def test_wrong_messages_are_refused(messages: Any, error: type[OctavoError], expected: str) -> None:
    with pytest.raises(error, match=expected):
        render_chat(CHATML, messages)


def test_wrong_continuations_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="exclude each other"):
        render_chat(CHATML, USER, continue_final_message=True)
    with pytest.raises(InvalidInputError, match="cannot be continued"):
        render_chat("{{ 'x' }}", USER, continue_final_message=True, add_generation_prompt=False)


def test_template_option_is_a_path_or_a_template(tmp_path: Path) -> None:
    path = tmp_path / "template.jinja"
    path.write_text("{{ 'é' }}", encoding="utf-8")
    assert resolve_chat_template(path) == resolve_chat_template(str(path)) == "{{ 'é' }}"
    for text in ("{{ x }}", "}", "a\nb", CHATML):
        assert resolve_chat_template(text) == text
    for wrong in ("missing.jinja", tmp_path, tmp_path / "{missing}"):
        with pytest.raises(InvalidInputError, match="looks like a file path, but it failed to be opened"):
            resolve_chat_template(wrong)
    path.write_bytes(b"\xff")
    with pytest.raises(InvalidInputError, match="not UTF-8"):
        resolve_chat_template(path)

"""The Jinja environment that chat templates run in: transformers' own, with bounds on time and memory.

This module imports jinja2, so import it only where a template is rendered.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

_MAX_STEPS = 200_000  # loop turns and macro calls of one rendering
_MAX_PRODUCT = 1_000_000  # length of a repeated string or list, and bits of a power

_REPEATED = (nodes.For, nodes.Macro, nodes.CallBlock)  # statements that can run many times

_steps: ContextVar[int] = ContextVar("steps", default=0)


class _Generation(Extension):
    """Accepts ``{% generation %}``, which marks what the assistant wrote; the mark has no effect on the text."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _StepLimit(Extension):
    """Counts the turns of every loop and the calls of every macro."""

    def statement(self) -> nodes.Node:
        """The statement to run at each step."""
        return nodes.ExprStmt(self.call_method("step"))

    def step(self) -> None:
        steps = _steps.get() + 1
        _steps.set(steps)
        if steps > _MAX_STEPS:
            raise SecurityError(f"it takes more than {_MAX_STEPS} steps")


class _Sandbox(ImmutableSandboxedEnvironment):
    """Bounds the operators that make much out of little."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            self._check_size(left.bit_length() * right)
        for value, count in ((left, right), (right, left)):
            if operator == "*" and isinstance(value, (str, list, tuple)) and isinstance(count, int):
                self._check_size(len(value) * count)
        return super().call_binop(context, operator, left, right)

    @staticmethod
    def _check_size(size: int) -> None:
        if size > _MAX_PRODUCT:
            raise SecurityError(f"it makes a value of size {size}")


class _TemplateDict:
    """``dict`` without its attributes."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)


class _TemplateNamespace(Namespace):
    """``namespace`` that takes no names of Python's own."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"it stores the name {name!r} in a namespace")


class _CountedTemplate(Template):
    """Every rendering starts with all its steps."""

    def render(self, *args: Any, **kwargs: Any) -> str:
        token = _steps.set(0)
        try:
            return super().render(*args, **kwargs)
        finally:
            _steps.reset(token)


def parse_template(source: str) -> nodes.Template:
    """The syntax tree of a chat template.

    Raises:
        jinja2.TemplateSyntaxError: the template is damaged.
    """
    return _environment().parse(source)


def _environment() -> _Sandbox:
    return _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, _StepLimit, loopcontrols])


def compile_template(source: str) -> Template:
    """Compile a chat template.

    Raises:
        jinja2.TemplateSyntaxError: the template is damaged.
    """
    environment = _environment()
    environment.template_class = _CountedTemplate
    del environment.globals["lipsum"]  # makes text of any length
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.globals["dict"] = _TemplateDict()
    environment.globals["namespace"] = _TemplateNamespace
    tree = environment.parse(source)
    _count_steps(tree, environment.extensions[_StepLimit.identifier].statement)  # type: ignore[attr-defined]
    return environment.from_string(tree)


def _count_steps(tree: nodes.Template, statement: Callable[[], nodes.Node]) -> None:
    for node in tree.find_all(_REPEATED):
        assert isinstance(node, _REPEATED)
        node.body.insert(0, statement().set_lineno(node.lineno))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML, which no model was trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)

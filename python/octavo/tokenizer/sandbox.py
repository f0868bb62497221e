"""The Jinja environment that chat templates run in: transformers' own, with bounds on time and memory.

This module imports jinja2, so import it only where a template is rendered.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from octavo.tokenizer import budget

_MAX_PRODUCT = 1_000_000  # bits of a power
_MAX_TEMPLATE = 1 << 20  # characters

_REPEATED = (nodes.For, nodes.Macro, nodes.CallBlock)  # statements that can run many times


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
        budget.step()


class _Sandbox(ImmutableSandboxedEnvironment):
    """Pays from the rendering's budget for whatever makes much out of little."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _spend_on_operator(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, callee: Any, /, *args: Any, **kwargs: Any) -> Any:
        method = getattr(callee, "__wrapped__", callee)  # Jinja wraps format
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str) and method.__name__ == "join" and args:
            args = (list(args[0]), *args[1:])
            budget.spend_on_join(owner, args[0])
        elif isinstance(owner, str):
            budget.spend_on(method.__name__, owner, [*args, *kwargs.values()])
        return super().call(context, callee, *args, **kwargs)


def _spend_on_operator(operator: str, left: Any, right: Any) -> None:
    if operator == "+" and isinstance(left, (str, list, tuple)):
        budget.spend(len(left), len(right) if isinstance(right, (str, list, tuple)) else 0)
    if operator == "%" and isinstance(left, str):
        widths = right if "*" in left and isinstance(right, tuple) else ()
        budget.spend(left, right, budget.numbers_in(left), *(abs(width) for width in widths if isinstance(width, int)))
    if operator == "**" and isinstance(left, int) and isinstance(right, int):
        if left.bit_length() * right > _MAX_PRODUCT:
            raise SecurityError("it makes too large a number")
    for value, count in ((left, right), (right, left)):
        if operator == "*" and isinstance(value, (str, list, tuple)) and isinstance(count, int):
            budget.spend(len(value) * max(count, 0))


class _Paid(NodeTransformer):
    """Makes filters, which pay, of the operators that an environment does not see: ``~`` and slices."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes), _concatenated.__name__, [], node.lineno)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        ends = (node.arg.start, node.arg.stop, node.arg.step)
        arguments = [nodes.Const(None) if end is None else end for end in ends]
        return _filter(node.node, _sliced.__name__, arguments, node.lineno)


def _filter(node: nodes.Expr, name: str, arguments: list[nodes.Expr], line: int) -> nodes.Node:
    return nodes.Filter(node, name, arguments, [], None, None).set_lineno(line)


def _concatenated(items: list[Any]) -> str:
    budget.spend(items)
    return "".join(map(str, items))


def _sliced(value: Any, start: Any, stop: Any, step: Any) -> Any:
    part = value[start:stop:step]
    budget.spend(len(part))
    return part


def _paying(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, which pays for what it makes."""
    n_hidden = 1 if hasattr(function, "jinja_pass_arg") else 0  # the environment or a context comes first

    @wraps(function)
    def paying(*args: Any, **kwargs: Any) -> Any:
        hidden, value, rest = args[:n_hidden], args[n_hidden], args[n_hidden + 1 :]
        if name == "join":
            value = list(value)
            budget.spend_on_join(str(rest[0] if rest else kwargs.get("d", "")), value)
        else:
            budget.spend_on(name, value, [*rest, *kwargs.values()])
        return function(*hidden, value, *rest, **kwargs)

    return paying


def _shown(value: Any) -> Any:
    """What every output goes through."""
    budget.spend([value])
    return value


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


class _LimitedTemplate(Template):
    """Every rendering has a budget of its own."""

    def render(self, *args: Any, **kwargs: Any) -> str:
        with budget.limited([args, kwargs]):
            return super().render(*args, **kwargs)


def parse_template(source: str) -> nodes.Template:
    """The syntax tree of a chat template.

    Raises:
        jinja2.TemplateSyntaxError: the template is damaged.
    """
    if len(source) > _MAX_TEMPLATE:
        raise TemplateSyntaxError(f"it is longer than {_MAX_TEMPLATE} characters", 1)
    try:
        return _environment().parse(source)
    except RecursionError:
        raise TemplateSyntaxError("it is nested too deeply", 1) from None


def _environment() -> _Sandbox:
    return _Sandbox(
        trim_blocks=True, lstrip_blocks=True, finalize=_shown, extensions=[_Generation, _StepLimit, loopcontrols]
    )


def compile_template(source: str) -> Template:
    """Compile a chat template.

    Raises:
        jinja2.TemplateSyntaxError: the template is damaged.
    """
    environment = _environment()
    environment.template_class = _LimitedTemplate
    del environment.globals["lipsum"]  # makes text of any length
    environment.filters |= {"tojson": _tojson}
    paying = {name: _paying(name, function) for name, function in environment.filters.items()}
    environment.filters = {**paying, _concatenated.__name__: _concatenated, _sliced.__name__: _sliced}
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.globals["dict"] = _TemplateDict()
    environment.globals["namespace"] = _TemplateNamespace
    tree = _Paid().visit(parse_template(source))
    _count_steps(tree, environment.extensions[_StepLimit.identifier].statement)  # type: ignore[attr-defined]
    with budget.limited():  # constants are made at once
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
    budget.spend(pattern, budget.numbers_in(pattern))
    return datetime.now().strftime(pattern)

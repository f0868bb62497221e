"""Whether a chat template wants the content of a message as text or as a list of parts.

This module imports jinja2, so import it only where a template is rendered.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

from jinja2 import nodes
from jinja2.exceptions import TemplateSyntaxError

from octavo.tokenizer.sandbox import parse_template

ContentFormat = Literal["string", "openai"]


@lru_cache(maxsize=16)
def content_format(template: str) -> ContentFormat:
    """ "openai" where the template loops over a message's content, as over a list of parts; else "string"."""
    try:
        tree = parse_template(template)
    except TemplateSyntaxError:
        return "string"  # reported when it is rendered
    names = {*_assigned_names(tree), *_macro_parameters(tree)}
    return "openai" if any(_is_content(loop.iter, names) for loop in tree.find_all(nodes.For)) else "string"


def _is_content(node: nodes.Node, names: set[str]) -> bool:
    """Whether an expression is a message's content, or a name that stands for it, filtered or not."""
    if isinstance(node, nodes.Filter) and node.node is not None:
        return _is_content(node.node, names)
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Const) and node.arg.value == "content"
    return isinstance(node, nodes.Name) and node.name in names


def _assigned_names(tree: nodes.Template) -> Iterator[str]:
    for assign in tree.find_all(nodes.Assign):
        if isinstance(assign.target, nodes.Name) and _is_content(assign.node, set()):
            yield assign.target.name


def _macro_parameters(tree: nodes.Template) -> Iterator[str]:
    """Parameters of macros that are called with a message's content."""
    macros = {macro.name: macro for macro in tree.find_all(nodes.Macro)}
    for call in tree.find_all(nodes.Call):
        macro = macros.get(call.node.name) if isinstance(call.node, nodes.Name) else None
        if macro is None:
            continue
        for parameter, argument in zip(macro.args, call.args, strict=False):
            if _is_content(argument, set()):
                yield parameter.name

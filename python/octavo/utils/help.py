"""How a parser's help looks."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterable


class DefaultsHelpFormatter(argparse.HelpFormatter):
    """Options in alphabetical order, each with its default, whether or not it has a help text."""

    def add_arguments(self, actions: Iterable[argparse.Action]) -> None:
        super().add_arguments(sorted(actions, key=_sort_key))

    def add_argument(self, action: argparse.Action) -> None:
        if action.help is None and _has_default(action):
            action = copy.copy(action)
            action.help = "(default: %(default)s)"
        super().add_argument(action)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help
        if text and "%(default)" not in text and _has_default(action):
            text += " (default: %(default)s)"
        return text


def help_about(parser: argparse.ArgumentParser, word: str) -> str | None:
    """Help on the group named `word`, else on options with `word` in their names; None when there is neither.

    "listgroup" names the groups, "all" is the whole help.
    """
    wanted = word.lower().replace("_", "-")
    if wanted == "all":
        return parser.format_help()
    if wanted == "listgroup":
        return _group_list(parser)
    formatter = parser._get_formatter()
    found = False
    for group in parser._action_groups:
        whole = (group.title or "").lower().replace("_", "-") == wanted
        actions = [a for a in group._group_actions if whole or any(wanted in name for name in a.option_strings)]
        if actions:
            found = True
            formatter.start_section(group.title)
            formatter.add_text(group.description)
            formatter.add_arguments(actions)
            formatter.end_section()
    return formatter.format_help() if found else None


def _group_list(parser: argparse.ArgumentParser) -> str:
    titles = [group.title for group in parser._action_groups if group.title and group._group_actions]
    return "groups:\n" + "".join(f"  {title}\n" for title in titles)


def _sort_key(action: argparse.Action) -> list[str]:
    return [option.lstrip("-") for option in action.option_strings if option.startswith("--")]


def _has_default(action: argparse.Action) -> bool:
    return bool(action.option_strings) and action.default is not argparse.SUPPRESS and not action.required

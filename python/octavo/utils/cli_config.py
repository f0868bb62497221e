"""Options from a YAML file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from octavo.errors import InvalidInputError

_OPTION = "--config"


def expand_config(args: list[str], options: Mapping[str, argparse.Action]) -> list[str]:
    """`args` with `--config FILE` replaced by the file's options, put where later arguments overrule them.

    Raises InvalidInputError for a second `--config`, for a file that is no YAML and for one that cannot be read.
    """
    end = args.index("--") if "--" in args else len(args)
    places = [i for i, arg in enumerate(args[:end]) if arg == _OPTION or arg.startswith(f"{_OPTION}=")]
    if not places:
        return args
    if len(places) > 1:
        raise InvalidInputError("--config is given more than once; put all options into one file.")
    path, rest = _take_path(args, places[0], end)
    first_option = next((i for i, arg in enumerate(rest) if arg.startswith("-")), len(rest))
    return [*rest[:first_option], *_file_options(path, options), *rest[first_option:]]


def _take_path(args: list[str], place: int, end: int) -> tuple[str, list[str]]:
    """The file that `--config` at `place` names, and the other arguments."""
    _, equals, path = args[place].partition("=")
    if equals:
        return path, args[:place] + args[place + 1 :]
    if place + 1 >= end:
        raise InvalidInputError("--config needs the path of a YAML file after it.")
    return args[place + 1], args[:place] + args[place + 2 :]


def _file_options(path: str, options: Mapping[str, argparse.Action]) -> list[str]:
    args: list[str] = []
    for key, value in _read_yaml(path).items():
        args += _option_args("--" + str(key).replace("_", "-"), value, options)
    return args


def _option_args(option: str, value: Any, options: Mapping[str, argparse.Action]) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bool):
        return [option] if value else [off for off in _off_switches(option) if off in options][:1]
    if isinstance(value, list):
        return [option, *(str(item) for item in value)]
    return [f"{option}={json.dumps(value) if isinstance(value, dict) else value}"]


def _off_switches(option: str) -> tuple[str, str]:
    name = option.removeprefix("--")
    return f"--no-{name}", f"--disable-{name.removeprefix('enable-')}"


def _read_yaml(path: str) -> dict[str, Any]:
    if Path(path).suffix not in (".yaml", ".yml"):
        raise InvalidInputError(f"--config takes a YAML file, a name that ends in .yaml or .yml, got {path!r}.")
    import yaml

    try:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInputError(f"--config file {path!r} cannot be read ({error.strerror}); check its path.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"--config file {path!r} is not valid YAML ({error}); mend it.") from error
    if not isinstance(config, dict):
        raise InvalidInputError(f"--config file {path!r} must hold lines such as 'max-model-len: 4096'.")
    return config

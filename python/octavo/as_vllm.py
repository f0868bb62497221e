"""Runs a script that was written for vLLM, unchanged: ``python -m octavo.as_vllm script.py arguments...``

In that process, and nowhere else, ``vllm`` and the modules of it that scripts import are octavo's. Two things follow
vLLM where octavo's own default differs: ``generation_config`` is "auto" unless it is given, and "vllm" stands for the
engine's defaults.
"""

from __future__ import annotations

import importlib
import os
import runpy
import sys
from collections.abc import Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from octavo import checks
from octavo.engine_args import EngineArgs as _EngineArgs
from octavo.engine_args import generation_config_field
from octavo.engine_unknown import explain_unknown
from octavo.llm import LLM as _LLM

# A name of vLLM's -> where octavo has it. A name without an entry of its own that others lie under is an empty package.
_MODULES = {
    "vllm": "octavo",
    "vllm.config": "octavo.config",
    "vllm.engine.arg_utils": "octavo.engine_args",
    "vllm.entrypoints.llm": "octavo.llm",
    "vllm.inputs": "octavo.prompt_types",
    "vllm.outputs": "octavo.outputs",
    "vllm.pooling_params": "octavo.pooling_params",
    "vllm.sampling_params": "octavo.sampling_params",
    "vllm.utils": "octavo.utils",
    "vllm.utils.argparse_utils": "octavo.utils.argparse_utils",
    "vllm.utils.print_utils": "octavo.utils.print_utils",
}


@checks.reject_unknown_arguments(explain_unknown)
@dataclass
class EngineArgs(_EngineArgs):
    """octavo's arguments with vLLM's default generation_config."""

    generation_config: str | None = generation_config_field("auto")


class LLM(_LLM):
    """octavo's LLM with vLLM's default generation_config."""

    def __init__(self, model: str | os.PathLike[str] | None = None, **kwargs: Any) -> None:
        wanted = kwargs.pop("generation_config", "auto")
        super().__init__(model, generation_config=None if wanted == "vllm" else wanted, **kwargs)


_REPLACED: Mapping[str, Any] = {"EngineArgs": EngineArgs, "LLM": LLM}


class _Alias(ModuleType):
    """A module with the contents of another."""

    __path__: MutableSequence[str] = []

    def __getattr__(self, name: str) -> Any:
        target = _MODULES.get(self.__name__)
        found = None if target is None else importlib.import_module(target)
        if found is None or not hasattr(found, name):
            raise AttributeError(f"octavo has no {self.__name__}.{name}; it offers part of vLLM's modules.")
        return _REPLACED.get(name, getattr(found, name))


class _Finder(MetaPathFinder, Loader):
    """Gives an alias for each module of vLLM's that octavo stands in for."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name.partition(".")[0] != "vllm":
            return None
        if not any(module == name or module.startswith(f"{name}.") for module in _MODULES):
            raise ModuleNotFoundError(f"octavo has no module in place of {name}.", name=name)
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Alias(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run: an alias looks names up when they are asked for."""


def main(args: Sequence[str]) -> None:
    """Runs the script that the arguments name, with the rest of them as its own."""
    if not args or args[0] in ("-h", "--help"):
        print("usage: python -m octavo.as_vllm script.py [arguments of the script]")
        raise SystemExit(0 if args else 2)
    if not os.path.exists(args[0]):
        print(f"octavo.as_vllm: there is no script {args[0]!r}; give the path of one.", file=sys.stderr)
        raise SystemExit(2)
    sys.meta_path.insert(0, _Finder())
    sys.argv = list(args)
    sys.path[0] = os.path.dirname(os.path.abspath(args[0]))
    runpy.run_path(args[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])

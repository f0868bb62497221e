"""`octavo info`: what a model file holds and needs, and what this machine is."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

from octavo import __version__, _core, nn
from octavo.cli import options
from octavo.cli.table import print_table, size
from octavo.engine_args import EngineArgs
from octavo.loading import OpenedModel, exact_cache, load_model, open_model, read_tokenizer
from octavo.models import model_class
from octavo.weights import aqlm
from octavo.weights.store import target_format
from octavo.weights.tensor import SourceTensor

_EXAMPLES = """\
info [MODEL] [options]
info                                       (for a bug report)
info model.gguf
info owner/repo-GGUF:Q4_K_M --dtype float32
info model.gguf --no-load                  (what the file says, without loading the weights)"""
_PACKAGES = ("numpy", "tokenizers", "jinja2", "safetensors", "huggingface_hub", "torch", "transformers")


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    parser = options.CommandParser(
        "info", "Shows what a model file holds, which kernels run it and the memory it needs.", _EXAMPLES
    )
    parser.add_argument("positional", nargs="*", metavar="MODEL", help="GGUF file, folder or hub name")
    parser.add_argument("--no-load", action="store_true", help="do not load the weights")
    options.add_engine_options(parser)
    args = parser.parse_intermixed_args(argv)
    if args.model is None and not args.positional:
        _print_system()
        return 0
    engine, rest = options.engine_args(args, args.positional)
    if rest:
        parser.error(f"unexpected {rest[0]!r}")
    _print_model(engine, load=not args.no_load)
    return 0


def _print_system() -> None:
    forced = os.environ.get("OCTAVO_ISA")
    _print_facts(
        {
            "octavo": __version__,
            "python": f"{platform.python_version()} ({platform.python_implementation()})",
            **{name: _version(name) for name in _PACKAGES},
            "system": f"{platform.platform()} {platform.machine()}",
            "cpu": _core.cpu_name(),
            "kernels": _core.isa() + (f" (OCTAVO_ISA={forced})" if forced else ""),
            "usable cpus": str(_core.usable_cpus()),
            "memory": f"{size(_core.available_memory())} available",
        }
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _print_model(args: EngineArgs, *, load: bool) -> None:
    opened = open_model(args)
    template = read_tokenizer(args, opened.files, opened.gguf).chat_template
    _print_facts({"model": args.model, **_config_facts(opened), "chat template": "no" if template is None else "yes"})
    _print_weights(opened, args)
    print()
    kv_bytes = _kv_bytes_per_token(opened, args)
    context = nn.ModelConfig(opened.config).max_position_embeddings
    kv_cache = f"{size(kv_bytes)} per token, {size(kv_bytes * context)} for {context} tokens"
    memory = {"KV cache": kv_cache}
    if load:
        loaded = load_model(replace(args, skip_tokenizer_init=True))
        memory = {
            "weights in memory": size(loaded.weight_bytes),
            "KV cache": kv_cache,
            "activations": f"{size(loaded.core.arena_bytes)} for steps of up to {_step(args)} tokens",
        }
    _print_facts({**memory, "memory": f"{size(_core.available_memory())} available"})


def _step(args: EngineArgs) -> int:
    from octavo.engine_args import CPU_MAX_NUM_BATCHED_TOKENS

    return int(args.max_num_batched_tokens or CPU_MAX_NUM_BATCHED_TOKENS)


def _config_facts(opened: OpenedModel) -> dict[str, str]:
    c = nn.ModelConfig(opened.config)
    n_weights = sum(math.prod(tensor.shape) for tensor in opened.checkpoint.tensors)
    heads = f"{c.num_attention_heads} of {c.head_dim}, {c.num_key_value_heads} for keys and values"
    return {
        "architecture": opened.architecture,
        "parameters": f"{n_weights / 1e6:,.1f} million",
        "layers": str(c.num_hidden_layers),
        "widths": f"{c.hidden_size}, feed-forward {c.intermediate_size}",
        "heads": heads,
        "vocabulary": f"{c.vocab_size} tokens",
        "context": f"{c.max_position_embeddings} tokens",
    }


def _kv_bytes_per_token(opened: OpenedModel, args: EngineArgs) -> int:
    model = model_class(opened.architecture)(nn.ModelConfig(opened.config))
    return model.kv_values_per_token * (4 if exact_cache(args) else 2)


def _print_weights(opened: OpenedModel, args: EngineArgs) -> None:
    """A line for each format of the file's matrices and vectors."""
    groups: dict[tuple[str, str], list[SourceTensor]] = {}
    for tensor in opened.checkpoint.tensors:
        kind = "matrices" if len(tensor.shape) > 1 else "vectors"
        groups.setdefault((tensor.format, kind), []).append(tensor)
    rows = []
    for (name, kind), tensors in groups.items():
        n_bytes = sum(tensor.n_bytes for tensor in tensors)
        target = target_format(name, args.dtype, keep_float32=opened.gguf is not None)
        use = _kernels(target) if kind == "matrices" else "F32"
        if name == aqlm.FORMAT and target != "F32":
            use = f"{_core.isa()} tables (8 bits, 1024 rows or more) or {target}"
        rows.append([f"{name} {kind}", str(len(tensors)), size(n_bytes), use])
    print()
    print_table(["weights", "tensors", "in the file", "run by"], rows)


def _kernels(target: str) -> str:
    """Which kernels multiply matrices that are kept in this format."""
    row = next((row for row in _core.formats() if row["name"] == target), None)
    if row is None:
        return "nothing: octavo cannot read it"
    own = _core.isa() in row["kernels"]
    return f"{_core.isa()} {target}" if own else f"{_core.isa()} F32, dequantised from {target} at every use"


def _print_facts(facts: dict[str, str]) -> None:
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name.ljust(width)}  {value}")

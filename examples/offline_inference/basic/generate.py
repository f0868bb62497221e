"""Complete prompts, with every option of the engine on the command line.

python generate.py --model path/to/model.gguf --max-tokens 32 --temperature 0.8
python generate.py --model owner/repo-GGUF:Q4_K_M --generation-config auto
"""

import argparse

from octavo import LLM, EngineArgs
from octavo.utils import FlexibleArgumentParser

PROMPTS = [
    "Hello, my name is",
    "The president of the United States is",
    "The capital of France is",
    "The future of AI is",
]
SAMPLING = {"max_tokens": int, "temperature": float, "top_p": float, "top_k": int}


def main() -> None:
    args = parse_args()
    llm = LLM.from_engine_args(EngineArgs.from_cli_args(args))

    # The model's own defaults with --generation-config auto, else octavo's.
    params = llm.get_default_sampling_params()
    for name in SAMPLING:
        if getattr(args, name) is not None:
            setattr(params, name, getattr(args, name))

    for output in llm.generate(PROMPTS, params):
        print(f"Prompt: {output.prompt!r}, Generated text: {output.outputs[0].text!r}")


def parse_args() -> argparse.Namespace:
    parser = FlexibleArgumentParser(description="Complete a few prompts.")
    sampling = parser.add_argument_group("Sampling parameters")
    for name, kind in SAMPLING.items():
        sampling.add_argument(f"--{name.replace('_', '-')}", type=kind)
    EngineArgs.add_cli_args(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()

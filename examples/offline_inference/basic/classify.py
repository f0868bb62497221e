"""Class probabilities of a few texts, with every option of the engine on the command line.

python classify.py --model path/to/folder
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


def main() -> None:
    llm = LLM(**vars(parse_args()))
    print("\nGenerated Outputs:\n" + "-" * 60)
    for prompt, output in zip(PROMPTS, llm.classify(PROMPTS), strict=True):
        probs = output.outputs.probs
        print(f"Prompt: {prompt!r} \nClass Probabilities: {shortened(probs)} (size={len(probs)})")
        print("-" * 60)


def shortened(values: list[float], n: int = 16) -> str:
    return str(values) if len(values) <= n else f"{str(values[:n])[:-1]}, ...]"


def parse_args() -> argparse.Namespace:
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser(description="Classify a few texts."))
    # task says what the model is run for; runner="pooling", convert="classify" are its newer names.
    parser.set_defaults(model="jason9693/Qwen2.5-1.5B-apeach", task="classify", enforce_eager=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()

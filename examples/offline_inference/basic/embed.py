"""Embeddings of a few texts, with every option of the engine on the command line.

python embed.py --model path/to/folder
python embed.py --model owner/repo --pooler-config.pooling_type MEAN
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
    for prompt, output in zip(PROMPTS, llm.embed(PROMPTS), strict=True):
        embedding = output.outputs.embedding
        print(f"Prompt: {prompt!r} \nEmbeddings: {shortened(embedding)} (size={len(embedding)})")
        print("-" * 60)


def shortened(values: list[float], n: int = 16) -> str:
    return str(values) if len(values) <= n else f"{str(values[:n])[:-1]}, ...]"


def parse_args() -> argparse.Namespace:
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser(description="Embed a few texts."))
    # task says what the model is run for; runner="pooling", convert="embed" are its newer names.
    parser.set_defaults(model="intfloat/e5-mistral-7b-instruct", task="embed", enforce_eager=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()

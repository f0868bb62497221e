"""How well a query and a few texts match, with every option of the engine on the command line.

python score.py --model path/to/cross-encoder
python score.py --model path/to/embedding-model --task embed
"""

import argparse

from octavo import LLM, EngineArgs
from octavo.utils import FlexibleArgumentParser

QUERY = "What is the capital of France?"
TEXTS = [
    "The capital of Brazil is Brasilia.",
    "The capital of France is Paris.",
]


def main() -> None:
    llm = LLM(**vars(parse_args()))
    print("\nGenerated Outputs:\n" + "-" * 60)
    for text, output in zip(TEXTS, llm.score(QUERY, TEXTS), strict=True):
        print(f"Pair: {[QUERY, text]!r} \nScore: {output.outputs.score}")
        print("-" * 60)


def parse_args() -> argparse.Namespace:
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser(description="Score a few pairs of texts."))
    # A cross-encoder scores both texts at once; the embeddings of an embedding model are compared instead.
    parser.set_defaults(model="BAAI/bge-reranker-v2-m3", task="score", enforce_eager=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""The simplest use: complete a few prompts.

python basic.py
python basic.py --model path/to/model.gguf
"""

import argparse

from octavo import LLM, SamplingParams

PROMPTS = [
    "Hello, my name is",
    "The president of the United States is",
    "The capital of France is",
    "The future of AI is",
]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument(
    "--model",
    default="HuggingFaceTB/SmolLM2-135M-Instruct",
    help="a GGUF file, a folder, owner/repo, owner/repo:QUANTISATION or pkg://package/path (default: %(default)s)",
)
args = parser.parse_args()

llm = LLM(model=args.model)
outputs = llm.generate(PROMPTS, SamplingParams(temperature=0.8, top_p=0.95))

print("\nGenerated Outputs:\n" + "-" * 60)
for output in outputs:
    print(f"Prompt:    {output.prompt!r}")
    print(f"Output:    {output.outputs[0].text!r}")
    print("-" * 60)

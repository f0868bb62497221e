"""Answer conversations: one, many at once, and one whose answer is shown as it is written.

python chat.py --model path/to/model.gguf --max-tokens 64
python chat.py --model owner/repo --chat-template-path template.jinja
"""

import argparse

from octavo import LLM, EngineArgs, RequestOutput
from octavo.utils import FlexibleArgumentParser

CONVERSATION = [
    {"role": "system", "content": "You are a helpful assistant"},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hello! How can I assist you today?"},
    {"role": "user", "content": "Write an essay about the importance of higher education."},
]
QUESTIONS = ["Name three colours.", "What is the capital of France?", "Why is the sky blue?"]
SAMPLING = {"max_tokens": int, "temperature": float, "top_p": float, "top_k": int}


def main() -> None:
    args = parse_args()
    llm = LLM.from_engine_args(EngineArgs.from_cli_args(args))
    params = llm.get_default_sampling_params()
    for name in SAMPLING:
        if getattr(args, name) is not None:
            setattr(params, name, getattr(args, name))

    # A template given here replaces the model's own.
    template = args.chat_template_path
    print_outputs(llm.chat(CONVERSATION, params, use_tqdm=False, chat_template=template))

    # Many conversations run as one batch.
    conversations = [[{"role": "user", "content": question}] for question in QUESTIONS]
    print_outputs(llm.chat(conversations, params, chat_template=template))

    # Or read the answer while it is written: every output holds the text so far.
    print("Streamed: ", end="")
    shown = 0
    for output in llm.stream_chat(conversations[0], params, chat_template=template):
        text = output.outputs[0].text
        print(text[shown:], end="", flush=True)
        shown = len(text)
    print()


def print_outputs(outputs: list[RequestOutput]) -> None:
    print("\nGenerated Outputs:\n" + "-" * 80)
    for output in outputs:
        print(f"Prompt: {output.prompt!r}\n")
        print(f"Generated text: {output.outputs[0].text!r}")
        print("-" * 80)


def parse_args() -> argparse.Namespace:
    parser = FlexibleArgumentParser(description="Answer a few conversations.")
    parser.add_argument("--chat-template-path", help="file with a Jinja template")
    sampling = parser.add_argument_group("Sampling parameters")
    for name, kind in SAMPLING.items():
        sampling.add_argument(f"--{name.replace('_', '-')}", type=kind)
    EngineArgs.add_cli_args(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()

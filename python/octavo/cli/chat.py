"""`octavo chat`: a conversation with a model, line by line."""

from __future__ import annotations

import sys
import time

from octavo.cli import options
from octavo.errors import OctavoError
from octavo.llm import LLM
from octavo.sampling_params import RequestOutputKind, SamplingParams

_EXAMPLES = """\
chat MODEL [options]
chat model.gguf
chat owner/repo-GGUF:Q4_K_M --system "You answer in one sentence." --temperature 0.7 --top-p 0.9
chat model.gguf --max-model-len 4k --num-threads 4
echo "What is the capital of France?" | octavo chat model.gguf"""
_KEYS = "Ctrl-C stops an answer; /reset starts a new conversation; Ctrl-D or /exit leaves."


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    args = _parser().parse_intermixed_args(argv)
    engine, rest = options.engine_args(args, args.positional)
    if rest:
        _parser().error(f"unexpected {rest[0]!r}")
    options.check_sampling_options(args)
    interactive = sys.stdin.isatty()
    start = time.monotonic()
    llm = LLM.from_engine_args(engine)
    params = options.apply_sampling_options(llm.get_default_sampling_params(), args)
    if interactive:
        _say(f"{engine.model}, loaded in {time.monotonic() - start:.1f} s. {_KEYS}")
    return Chat(llm, params, args.system, interactive=interactive).run()


def _parser() -> options.CommandParser:
    parser = options.CommandParser(
        "chat", f"Talks with a model; answers appear as they are written. {_KEYS}", _EXAMPLES
    )
    parser.add_argument("positional", nargs="*", metavar="MODEL", help="GGUF file, folder or hub name")
    parser.add_argument("--system", metavar="TEXT", help="instructions that the conversation begins with")
    options.add_sampling_options(parser, None)
    options.add_engine_options(parser)
    return parser


class Chat:
    """A conversation that grows with every line; what was computed for earlier turns is reused."""

    def __init__(self, llm: LLM, params: SamplingParams, system: str | None, *, interactive: bool) -> None:
        params.output_kind = RequestOutputKind.DELTA
        self._llm = llm
        self._params = params
        self._interactive = interactive
        self._opening = [] if system is None else [{"role": "system", "content": system}]
        self._messages = list(self._opening)
        self._failed = False

    def run(self) -> int:
        """Answers lines until there are no more; returns the exit code."""
        while True:
            try:
                line = self._read()
                if line is None or line == "/exit":
                    return 1 if self._failed else 0
                if line:
                    self._take(line)
            except KeyboardInterrupt:
                if not self._interactive:
                    raise
                _say(f"\n{_KEYS}")

    def _read(self) -> str | None:
        """The next line without its spaces; None at the end."""
        try:
            return (_ask() if self._interactive else input()).strip()
        except EOFError:
            if self._interactive:
                _say("")
            return None

    def _take(self, line: str) -> None:
        if line == "/reset":
            self._messages = list(self._opening)
            return
        self._messages.append({"role": "user", "content": line})
        try:
            answer = self._answer()
        except OctavoError as error:  # a template that refuses, or a conversation that has grown too long
            self._messages.pop()
            self._failed = not self._interactive
            _say(f"octavo chat: {error}")
            return
        self._messages.append({"role": "assistant", "content": answer})

    def _answer(self) -> str:
        """Streams one answer; Ctrl-C keeps what there is of it."""
        text = ""
        stream = self._llm.stream_chat(self._messages, self._params)
        try:
            for output in stream:
                text += output.outputs[0].text
                print(output.outputs[0].text, end="", flush=True)
        except KeyboardInterrupt:
            if not self._interactive:
                raise
        print(flush=True)
        return text


def _ask() -> str:
    """A line from the terminal, with history and editing where Python has them."""
    try:
        import readline  # noqa: F401 (input() uses it once it is imported)
    except ImportError:
        pass
    if sys.stdout.isatty():
        return input("> ")
    print("> ", end="", file=sys.stderr, flush=True)
    return input()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

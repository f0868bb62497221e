"""Which tokens may follow in a structured output; llguidance, imported at the first request that needs it, decides."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from octavo.errors import InvalidInputError
from octavo.fork_lock import ForkLock
from octavo.structured_outputs import StructuredOutputsParams, closed_schema, grammar_key
from octavo.tokenizer.tokenizer import Tokenizer

_MOST_COMPILED = 256  # grammars kept
_MARK = "\x02"  # a character that no token joins with others

TokenMasks = npt.NDArray[np.uint32]  # (n_rows, words): bit i of a row says whether token i may follow


class Matcher:
    """Where one output stands in its grammar; moves on with the tokens of the output and never back."""

    def __init__(self, matcher: Any) -> None:
        self.matcher = matcher
        self._n_taken = 0

    def advance(self, output: npt.NDArray[np.int32]) -> None:
        """Takes the tokens of `output` that are new; those after the grammar's end do not count."""
        new = output[self._n_taken :].tolist()
        self._n_taken = len(output)
        for token in new:
            if self.matcher.is_stopped():
                return
            self.matcher.consume_token(token)

    @property
    def error(self) -> str | None:
        """Why the grammar cannot go on; None when it can."""
        return _first_line(self.matcher.get_error()) if self.matcher.is_error() else None


class Grammars:
    """The grammars of one model."""

    def __init__(self, tokenizer: Tokenizer | None, vocab_size: int, eos_token_ids: Sequence[int], n_threads: int):
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._eos_token_ids = list(eos_token_ids)
        self._n_threads = n_threads
        self._lock = ForkLock()
        self._compiled: OrderedDict[str, Any] = OrderedDict()
        self._token_trie: Any = None
        self._executor: Any = None
        self._executor_process = 0  # a forked child has none of its threads

    def check(self, params: StructuredOutputsParams) -> None:
        """Raises InvalidInputError when outputs cannot be held to `params`."""
        self._matcher(params)

    def matcher(self, params: StructuredOutputsParams) -> Matcher:
        """A matcher at the start of an output."""
        return Matcher(self._matcher(params).deep_copy())

    def fill(self, matchers: Sequence[tuple[Matcher, int]], masks: TokenMasks) -> None:
        """Writes the mask of each matcher to its row of `masks`, in parallel."""
        if not matchers:
            return
        with self._lock:
            if self._executor is None or self._executor_process != os.getpid():
                self._executor = _llguidance().LLExecutor(num_threads=self._n_threads)
                self._executor_process = os.getpid()
        rows = [(matcher.matcher, row) for matcher, row in matchers]
        self._executor.unsafe_compute_mask_ptr(rows, masks.ctypes.data, masks.shape[1] * masks.itemsize, len(masks))

    def _matcher(self, params: StructuredOutputsParams) -> Any:
        key = grammar_key(params)
        with self._lock:
            if key not in self._compiled:
                self._compiled[key] = self._compile(params)
                if len(self._compiled) > _MOST_COMPILED:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(key)
            return self._compiled[key]

    def _compile(self, params: StructuredOutputsParams) -> Any:
        llguidance = _llguidance()
        trie = self._trie()
        try:
            grammar = _grammar(llguidance, params)
            if self._tokenizer is not None and self._tokenizer.strips_leading_space:
                grammar = _after_space(grammar)
        except ValueError as error:
            raise _refused(params, str(error)) from None
        matcher = llguidance.LLMatcher(trie, grammar, log_level=0)
        if matcher.is_error():
            raise _refused(params, matcher.get_error())
        return matcher

    def _trie(self) -> Any:
        """The vocabulary as llguidance wants it; ids without a token have no bytes and never match."""
        if self._tokenizer is None:
            raise InvalidInputError("structured outputs need a tokenizer, and this LLM was created without one.")
        if not self._eos_token_ids:
            raise InvalidInputError("structured outputs need an end-of-sequence token, and this model has none.")
        if self._token_trie is None:
            llguidance = _llguidance()
            wrapper = llguidance.TokenizerWrapper(_Vocabulary(self._tokenizer, self._vocab_size, self._eos_token_ids))
            self._token_trie = llguidance.LLTokenizer(wrapper, eos_token=self._eos_token_ids)
        return self._token_trie


class _Vocabulary:
    """A tokenizer as llguidance's TokenizerWrapper takes it."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, eos_token_ids: Sequence[int]) -> None:
        known = tokenizer.all_token_bytes
        self.tokens = [*known, *[b""] * (vocab_size - len(known))]
        self.special_token_ids = sorted(tokenizer.special_ids.union(eos_token_ids))
        self.eos_token_id = eos_token_ids[0]
        self.bos_token_id = tokenizer.bos_token_id
        self._tokenizer = tokenizer
        self._mark_ids = tokenizer.encode(_MARK, add_special_tokens=False)

    def __call__(self, text: str) -> list[int]:
        """Token ids of `text` as it stands in the middle of another, where no space is put before it."""
        ids = self._tokenizer.encode(_MARK + text, add_special_tokens=False)
        return ids[len(self._mark_ids) :]


def _grammar(llguidance: ModuleType, params: StructuredOutputsParams) -> str:
    """What llguidance compiles."""
    matcher = llguidance.LLMatcher
    if params.regex is not None:
        return str(matcher.grammar_from_regex(params.regex))
    if params.choice is not None:
        return str(llguidance.grammar_from("choice", params.choice))
    if params.grammar is not None:
        notation = "gbnf" if "::=" in params.grammar else "lark"
        return str(llguidance.grammar_from(notation, params.grammar))
    schema = {"type": "object"} if params.json is None else params.json
    if params.disable_additional_properties:
        schema = closed_schema(schema)
    options: dict[str, Any] = {"whitespace_flexible": not params.disable_any_whitespace}
    if params.whitespace_pattern is not None:
        options["whitespace_pattern"] = params.whitespace_pattern
    return str(matcher.grammar_from_json_schema(json.dumps(schema), overrides=options))


def _after_space(grammar: str) -> str:
    """The grammar after one space: the tokenizer strips a space from the start of a text, and words begin with one."""
    named = json.loads(grammar)["grammars"] if grammar.startswith("{") else [{"lark_grammar": grammar}]
    named[0]["name"] = "body"
    return json.dumps({"grammars": [{"lark_grammar": 'start: " " @body'}, *named]})


def _refused(params: StructuredOutputsParams, reason: str) -> InvalidInputError:
    return InvalidInputError(f"the {_NAMES[params.kind]} cannot be used: {_first_line(reason)}; change it.")


_NAMES = {
    "json": "JSON schema",
    "json_object": "whitespace_pattern",
    "regex": "regular expression",
    "choice": "choice",
    "grammar": "grammar",
}


def _first_line(text: str) -> str:
    """The line of a longer report that says what is wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    error = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), None)
    return (error or (lines[0] if lines else "no reason given")).rstrip(".")


def _llguidance() -> ModuleType:
    try:
        import llguidance
    except ImportError:
        raise InvalidInputError(
            "structured outputs need the package llguidance; install it with: pip install 'octavo[structured]'."
        ) from None
    module: ModuleType = llguidance
    return module

"""Damages GGUF files by rules that know the format, and checks that each is read or refused in a sentence.

    python tests/python/gguf_fuzz.py 10000 [--first N] [--load]

What a number does is fixed: ``--first`` repeats one case. ``--load`` also loads each model and runs it.
"""

from __future__ import annotations

import argparse
import faulthandler
import itertools
import math
import os
import random
import resource
import struct
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gguf_files

GOLDEN = Path(__file__).parents[1] / "golden" / "gguf"
SECONDS = 1.0  # of the processor, for one file
BYTES_PER_BYTE = 100  # of memory, for each of the file: a number in a list takes 40, a letter's text 58
SPARE_BYTES = 8 << 20  # for anything
ADDRESS_SPACE = 1 << 30  # beyond what the process has before
HANG = 20  # seconds

NUMBERS = (0, 1, 2, 3, 7, 31, 33, 255, 1 << 15, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
LARGE = (1 << 32, 1 << 40, 1 << 62, 1 << 63, (1 << 63) - 1, (1 << 64) - 32, (1 << 64) - 1)
FLOATS = (0.0, -0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), float("-inf"))
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a number by its type
STRING, ARRAY = 8, 9


class Field(NamedTuple):
    """A number or text of a file's header, the whole of a value, or the whole of a key and its value."""

    kind: str  # count, length, key, type, item type, items, value, text, dims, dim, tensor type, offset; whole, entry
    at: int
    size: int


class Case(NamedTuple):
    content: bytes
    rules: list[str]  # what was done to it


def fields(content: bytes) -> list[Field]:
    """Every part of a correct file's header."""
    found: list[Field] = []
    at = 8

    def take(kind: str, size: int) -> int:
        nonlocal at
        found.append(Field(kind, at, size))
        at += size
        return int.from_bytes(content[at - size : at], "little")

    def take_string(kind: str) -> None:
        take(kind, take("length", 8))

    def take_item(type_id: int) -> None:
        if type_id == STRING:
            take_string("text")
        else:
            take("value", SIZES[type_id])

    def take_value() -> None:
        type_id = take("type", 4)
        if type_id != ARRAY:
            return take_item(type_id)
        type_id = take("item type", 4)
        for _ in range(take("items", 8)):
            take_item(type_id)

    n_tensors, n_keys = take("count", 8), take("count", 8)
    for _ in range(n_keys):
        entry = at
        take_string("key")
        value = at
        take_value()
        found += [Field("whole", value, at - value), Field("entry", entry, at - entry)]
    for _ in range(n_tensors):
        take_string("key")
        for _ in range(take("dims", 4)):
            take("dim", 8)
        take("tensor type", 4)
        take("offset", 8)
    return found


class Base:
    """A correct file, and where its parts are."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.fields = fields(content)
        self.header = self.fields[-1].at + self.fields[-1].size
        self.by_kind: dict[str, list[Field]] = {}
        for field in self.fields:
            self.by_kind.setdefault(field.kind, []).append(field)

    def replace(self, content: bytearray, start: int, end: int, new: bytes) -> None:
        """Puts ``new`` where a part of the header is, and leaves the tensors at multiples of 32 bytes."""
        data = content[-(-self.header // 32) * 32 :]
        header = content[:start] + new + content[end : self.header]
        content[:] = header + bytes(-len(header) % 32) + data

    def pick(self, rng: random.Random, *kinds: str) -> Field:
        return rng.choice(self.by_kind[rng.choice([kind for kind in kinds if kind in self.by_kind])])


Rule = Callable[[random.Random, Base, bytearray], None]


def set_number(content: bytearray, field: Field, value: int) -> None:
    content[field.at : field.at + field.size] = (value % (1 << 8 * field.size)).to_bytes(field.size, "little")


def flip(rng: random.Random, base: Base, content: bytearray) -> None:
    for _ in range(rng.randint(1, 4)):
        content[rng.randrange(base.header)] = rng.randrange(256)


def truncate(rng: random.Random, base: Base, content: bytearray) -> None:
    del content[rng.choice([rng.randrange(base.header), rng.randrange(len(content))]) :]


def lie(rng: random.Random, base: Base, content: bytearray) -> None:
    field = base.pick(rng, "count", "length", "items", "dims", "dim", "offset")
    near = int.from_bytes(content[field.at : field.at + field.size], "little") + rng.choice([-32, -1, 1, 32])
    set_number(content, field, rng.choice([*NUMBERS, *LARGE, near, len(content)]))


def retype(rng: random.Random, base: Base, content: bytearray) -> None:
    field = base.pick(rng, "type", "item type", "tensor type")
    set_number(content, field, rng.choice([rng.randrange(48), ARRAY, 0xFFFFFFFF]))


def revalue(rng: random.Random, base: Base, content: bytearray) -> None:
    field = base.pick(rng, "value")
    if field.size == 4 and rng.random() < 0.3:
        content[field.at : field.at + 4] = struct.pack("<f", rng.choice(FLOATS))
    else:
        set_number(content, field, rng.choice([*NUMBERS, *LARGE, -1]))


def revalue_scalar(rng: random.Random, base: Base, content: bytearray) -> None:
    """What follows a key at once decides more than one of the thousands of numbers in arrays."""
    after = {field.at + field.size for field in base.by_kind["type"]}
    scalars = [field for field in base.by_kind.get("value", []) if field.at in after]
    field = rng.choice(scalars)
    set_number(content, field, rng.choice([*NUMBERS, rng.getrandbits(32)]))


def retext(rng: random.Random, base: Base, content: bytearray) -> None:
    field = base.pick(rng, "text", "key")
    junk = rng.choice([b"\0", b"\xff", b" ", b"{%", b"\xe2\x96\x81", rng.randbytes(1)])
    content[field.at : field.at + field.size] = (junk * field.size)[: field.size]


def swap_texts(rng: random.Random, base: Base, content: bytearray) -> None:
    """Texts of one length change places; the second wins half of the time, so that one is there twice."""
    first = base.pick(rng, "text", "key")
    second = rng.choice([other for other in base.fields if other.size == first.size])
    texts = [bytes(content[field.at : field.at + field.size]) for field in (first, second)]
    content[first.at : first.at + first.size] = texts[1]
    if rng.random() < 0.5:
        content[second.at : second.at + second.size] = texts[0]


def overlap(rng: random.Random, base: Base, content: bytearray) -> None:
    first, second = base.pick(rng, "offset", "count"), base.pick(rng, "offset", "count")
    content[first.at : first.at + 8] = content[second.at : second.at + 8]


def swap_endianness(rng: random.Random, base: Base, content: bytearray) -> None:
    numbers = [field for field in base.fields if field.kind not in ("text", "key")]
    for field in numbers if rng.random() < 0.3 else rng.sample(numbers, 1):
        content[field.at : field.at + field.size] = content[field.at : field.at + field.size][::-1]
    if rng.random() < 0.5:
        content[4:8] = content[4:8][::-1]


def nest(rng: random.Random, base: Base, content: bytearray) -> None:
    field = base.pick(rng, "item type")
    set_number(content, field, ARRAY)
    base.replace(content, field.at + 4, field.at + 4, struct.pack("<QI", 1, ARRAY) * rng.choice([1, 10, 1000]))


def replace_value(rng: random.Random, base: Base, content: bytearray) -> None:
    """A correct value of any type, in the place of another."""
    field = base.pick(rng, "whole")
    word = rng.choice(["", "x", "\0", "default", "llama", "none", "yarn", "longrope", "é" * 1000])
    small, large = rng.randrange(100), rng.choice(NUMBERS[:-2])
    items: list[Any] = rng.choice([[], [word], [small] * small, [large], [1.5] * small, [word] * small, TOKENS])
    new = rng.choice([small, large, rng.choice(FLOATS), rng.random() < 0.5, word, items])
    base.replace(content, field.at, field.at + field.size, gguf_files.value(new))


def drop_entry(rng: random.Random, base: Base, content: bytearray) -> None:
    field = base.pick(rng, "entry")
    set_number(content, base.by_kind["count"][1], len(base.by_kind["entry"]) - 1)
    base.replace(content, field.at, field.at + field.size, b"")


def move(rng: random.Random, base: Base, content: bytearray) -> None:
    """A piece is left out, put in twice or put elsewhere."""
    start = rng.randrange(base.header)
    end = min(base.header, start + rng.choice([1, 4, 8, 16, 100]))
    piece = content[start:end]
    if rng.random() < 0.6:
        del content[start:end]
    if rng.random() < 0.6:
        at = rng.randrange(min(base.header, len(content)))
        content[at:at] = piece


RULES: tuple[Rule, ...] = (
    *(flip, lie, lie, retype, revalue, revalue_scalar, revalue_scalar, retext, swap_texts, overlap, swap_endianness),
)
LAST_RULES: tuple[Rule, ...] = (truncate, nest, move, replace_value, replace_value, replace_value, drop_entry)


def mutated(bases: list[Base], number: int) -> Case:
    """The damaged file with this number."""
    rng = random.Random(number)
    base = rng.choice(bases)
    content = bytearray(base.content)
    rules = rng.choices(RULES, k=rng.choice([0, 1, 1, 2]))
    if not rules or rng.random() < 0.2:  # these move what comes after them
        rules.append(rng.choice(LAST_RULES))
    for rule in rules:
        rule(rng, base, content)
    return Case(bytes(content), [rule.__name__ for rule in rules])


def bases() -> list[Base]:
    """Small files of every kind of tokenizer and of several architectures."""
    golden = [(GOLDEN / f"tiny-{name}.gguf").read_bytes() for name in ("Q1_0", "Q4_K", "NVFP4", "F16")]
    small = itertools.starmap(small_model, zip(ARCHITECTURES, itertools.cycle(TOKENIZERS), strict=False))
    return [Base(content) for content in [*golden, *small]]


TOKENIZERS: dict[str, dict[str, Any]] = {
    "gpt2": {"merges": ["a b", "ab c"], "pre": "llama-bpe", "add_bos_token": True},
    "llama": {"scores": [-float(i) for i in range(10)], "add_space_prefix": True},
    "t5": {"scores": [-float(i) for i in range(10)], "precompiled_charsmap": [0, 4, 0, 0] + 1024 * [0] + [97, 0]},
    "bert": {"cls_token_id": 6, "seperator_token_id": 7, "unknown_token_id": 8, "normalizer.lowercase": True},
}
TOKENS = ["a", "b", "c", "ab", "abc", "<0x0A>", "<s>", "</s>", "[UNK]", "▁"]
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gemma3": {"attention.sliding_window": 4, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0},
    "phi3": {"attention.sliding_window": 4, "rope.scaling.original_context_length": 16, "rope.dimension_count": 16},
    "qwen3moe": {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 32},
    "bert": {"pooling_type": 2, "attention.causal": False, "attention.layer_norm_epsilon": 1e-5},
    "granite": {"embedding_scale": 2.0, "logit_scale": 3.0, "attention.scale": 0.1},
}
TENSORS = {
    "phi3": {"rope_factors_long.weight": (8,), "rope_factors_short.weight": (8,)},
    "qwen3moe": {"blk.0.ffn_gate_inp.weight": (32, 4), "blk.0.ffn_up_exps.weight": (32, 4, 2)},
    "granite": {"blk.0.attn_q.weight": (32, 32)},
}


def tokenizer_of(model: str) -> dict[str, Any]:
    """Metadata of a small tokenizer."""
    types = [1, 1, 1, 1, 1, 6 if model == "llama" else 1, 3, 3, 2, 4]
    values = {"model": model, "tokens": TOKENS, "token_type": types, "bos_token_id": 6, "eos_token_id": 7}
    values |= TOKENIZERS[model]
    metadata = {f"tokenizer.ggml.{key}": value for key, value in values.items()}
    return {**metadata, "tokenizer.chat_template": "{{ messages[0].content }}"}


def small_model(architecture: str, tokenizer: str) -> bytes:
    """A model of one layer, which has only some of its tensors."""
    values = {
        "block_count": 1,
        "context_length": 64,
        "embedding_length": 32,
        "feed_forward_length": 64,
        "attention.head_count": 2,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 10000.0,
        **ARCHITECTURES[architecture],
    }
    metadata = {"general.architecture": architecture, "general.alignment": 32, **tokenizer_of(tokenizer)}
    metadata |= {f"{architecture}.{key}": value for key, value in values.items()}
    shapes = {"token_embd.weight": (32, len(TOKENS)), **TENSORS.get(architecture, {})}
    starts = [0, *itertools.accumulate(4 * math.prod(dims) for dims in shapes.values())]
    infos = [
        gguf_files.tensor_info(name, dims, 0, start)
        for (name, dims), start in zip(shapes.items(), starts, strict=False)
    ]
    return gguf_files.gguf(metadata, infos, struct.pack("<f", 1.5) * (starts[-1] // 4))


def read(path: Path) -> None:
    """Reads whatever is read of a file before its weights."""
    is_whole(path)


def is_whole(path: Path) -> bool:
    """Whether the file's tokenizer and its model are both read."""
    return all([succeeds(part, path) for part in (read_tokenizer, read_model)])


def succeeds(part: Callable[[Path], None], path: Path) -> bool:
    """Raises what is no refusal."""
    try:
        part(path)
    except Exception as error:
        check_refusal(error)
        return False
    return True


def read_tokenizer(path: Path) -> None:
    from octavo.tokenizer import load_tokenizer
    from octavo.tokenizer.token_table import token_table

    tokenizer = load_tokenizer(path)
    tokenizer.decode(tokenizer.encode("abc ab\n<s>é[UNK]▁"))
    tokenizer.encode_pair("a", "b")
    token_table(tokenizer)


def read_model(path: Path) -> None:
    from octavo import nn
    from octavo.engine_args import EngineArgs
    from octavo.loading import open_model
    from octavo.models import model_class

    opened = open_model(EngineArgs(model=str(path)))
    model_class(opened.architecture)(nn.ModelConfig(opened.config))


def load(path: Path) -> None:
    """Loads the model and lets it say something."""
    succeeds(run_model, path)


def run_model(path: Path) -> None:
    from octavo import LLM, SamplingParams

    llm = LLM(path, kv_cache_memory_bytes="4M", max_model_len=32, max_num_seqs=1, num_threads=1)
    llm.generate([[1, 2, 3]], SamplingParams(max_tokens=2), use_tqdm=False)


def check_refusal(error: Exception) -> None:
    from octavo.errors import OctavoError

    if not isinstance(error, OctavoError):
        raise error
    text = str(error)
    assert text.endswith(".") and "\n" not in text and len(text) < 2000, text


def check(path: Path, case: Case, use: Callable[[Path], None]) -> None:
    """Raises where the file is neither read nor refused, or costs more than it may."""
    path.write_bytes(case.content)
    faulthandler.dump_traceback_later(HANG, exit=True)
    tracemalloc.reset_peak()
    before, start = tracemalloc.get_traced_memory()[0], time.process_time()
    use(path)
    seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1] - before
    faulthandler.cancel_dump_traceback_later()
    assert seconds < SECONDS, f"it took {seconds:.1f} s"
    allowed = SPARE_BYTES + BYTES_PER_BYTE * len(case.content)
    assert peak < allowed, f"it took {peak} bytes for {len(case.content)}"


def limit_memory() -> None:
    """Allocations of native code count too."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def main() -> int:
    """Returns the number of cases that fail, at most 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("count", type=int, help="how many files to try")
    parser.add_argument("--first", type=int, default=0, help="the number of the first")
    parser.add_argument("--load", action="store_true", help="load and run the models as well")
    arguments = parser.parse_args()
    use, sources = (load, bases()[:4]) if arguments.load else (read, bases())
    faulthandler.enable()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutated.gguf"
        for base in sources:  # what is imported once is no case's cost
            path.write_bytes(base.content)
            use(path)
        limit_memory()
        tracemalloc.start()
        for number in range(arguments.first, arguments.first + arguments.count):
            case = mutated(sources, number)
            try:
                check(path, case, use)
            except BaseException as error:  # a panic of the tokenizers package is no Exception
                if isinstance(error, KeyboardInterrupt):
                    raise
                failed += 1
                print(f"case {number} ({', '.join(case.rules)}): {type(error).__name__}: {error}", flush=True)
    print(f"{arguments.count} files, {failed} failures")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())

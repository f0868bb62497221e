"""Which tokens end a generation."""

from __future__ import annotations

from collections.abc import Callable, Iterable

# Texts of the control tokens with which the known model families end an answer or a text.
END_TOKENS = (
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<turn|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
    "</s>",
    "<eos>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "[e~[",
)


def end_token_ids(
    token_to_id: Callable[[str], int | None], special_ids: frozenset[int], named: Iterable[int | None]
) -> tuple[int, ...]:
    """The ids that end a generation: those the model names, and every control token with a known text; ascending."""
    found = {token: token_to_id(token) for token in END_TOKENS}
    ends = {token: i for token, i in found.items() if i is not None and i in special_ids}
    if "<|call|>" in ends and "<|return|>" in ends:  # gpt-oss ends each of its channels with <|end|> and goes on
        ends.pop("<|end|>", None)
    return tuple(sorted({*ends.values(), *(i for i in named if i is not None)}))

"""How a beam search goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from octavo import checks

_REFUSED = {
    "structured_outputs": "beam search cannot follow structured_outputs; use generate, or allowed_token_ids.",
}


@checks.reject_unknown_arguments(_REFUSED.get)
@dataclass
class BeamSearchParams:
    """Parameters of a beam search.

    Attributes:
        beam_width: Beams kept at every step, >= 1.
        max_tokens: Most tokens to generate, >= 1.
        ignore_eos: Go on after the model's end-of-sequence token.
        temperature: Divides the logits before the beams are scored, 0 to 2; 0 leaves them as they are.
        length_penalty: A beam's score is its log probability divided by its length to this power.
        include_stop_str_in_output: Keep the text of the end-of-sequence token.
        skip_special_tokens: Leave special tokens out of the text.
        allowed_token_ids: Only these token ids may be generated; probabilities are those among them.
    """

    beam_width: int
    max_tokens: int
    ignore_eos: bool = False
    temperature: float = 0.0
    length_penalty: float = 1.0
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    allowed_token_ids: Sequence[int] | None = None

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Checks every field; raises InvalidInputError or InvalidTypeError."""
        self.beam_width = checks.whole_number("beam_width", self.beam_width, 1)
        self.max_tokens = checks.whole_number("max_tokens", self.max_tokens, 1)
        self.temperature = checks.real_number("temperature", self.temperature, 0, 2)
        self.length_penalty = checks.real_number("length_penalty", self.length_penalty)
        for name in ("ignore_eos", "include_stop_str_in_output", "skip_special_tokens"):
            setattr(self, name, checks.boolean(name, getattr(self, name)))
        if self.allowed_token_ids is not None:
            self.allowed_token_ids = checks.token_ids("allowed_token_ids", self.allowed_token_ids)

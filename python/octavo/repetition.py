"""When an output is taken to repeat itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from octavo import checks
from octavo.errors import InvalidTypeError


@dataclass
class RepetitionDetectionParams:
    """Ends an output whose last tokens are one pattern, `min_count` times in a row.

    Attributes:
        max_pattern_size: Most tokens of a pattern; 0 looks for none.
        min_pattern_size: Fewest tokens of a pattern; 0 stands for 1.
        min_count: How often the pattern must follow itself, >= 2.
    """

    max_pattern_size: int = 0
    min_pattern_size: int = 0
    min_count: int = 0

    def __post_init__(self) -> None:
        self.max_pattern_size = checks.whole_number("max_pattern_size", self.max_pattern_size, 0)
        most = self.max_pattern_size
        self.min_pattern_size = checks.whole_number("min_pattern_size", self.min_pattern_size, 0, most)
        if self.max_pattern_size > 0:
            self.min_count = checks.whole_number("min_count", self.min_count, 2)

    @classmethod
    def of(cls, value: object) -> RepetitionDetectionParams | None:
        """`value`, or the parameters that a dict holds; checked."""
        if isinstance(value, Mapping):
            return cls(**value)
        if value is not None and not isinstance(value, cls):
            raise InvalidTypeError(
                f"repetition_detection must be RepetitionDetectionParams or a dict, got {checks.shown(value)}."
            )
        if value is not None:
            value.__post_init__()
        return value

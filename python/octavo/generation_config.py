"""Default sampling parameters from the generation config that a model ships.

`source` says where defaults come from: None, octavo's own (with a log line when the model ships others); "vllm",
octavo's own without the line; "auto", the model's; anything else is a folder with a generation_config.json.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octavo import checks
from octavo.errors import InvalidInputError, InvalidTypeError
from octavo.sampling_params import SamplingParams

logger = logging.getLogger(__name__)

FILE_NAME = "generation_config.json"

_PARAM_OF_KEY = {
    "repetition_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "max_new_tokens": "max_tokens",
    "skip_special_tokens": "skip_special_tokens",
}


@dataclass(frozen=True)
class GenerationDefaults:
    """What a generation config decides.

    Attributes:
        params: Arguments of SamplingParams that differ from octavo's own defaults.
        max_new_tokens: Most output tokens of any request; None sets no limit.
        eos_token_ids: End-of-sequence ids of the folder's config, else of the model's, whether or not the rest is used.
    """

    params: Mapping[str, Any]
    max_new_tokens: int | None
    eos_token_ids: tuple[int, ...]

    def sampling_params(self) -> SamplingParams:
        """New default parameters, the caller's to change."""
        return SamplingParams(**self.params)

    def capped(self, max_tokens: int | None) -> int | None:
        """`max_tokens` of a request under the config's limit; None is no limit."""
        limits = [limit for limit in (max_tokens, self.max_new_tokens) if limit is not None]
        return min(limits, default=None)


def resolve_generation_defaults(
    source: str | None,
    shipped: Mapping[str, Any] | None = None,
    override: Mapping[str, Any] | None = None,
) -> GenerationDefaults:
    """The defaults for a model whose own generation config is `shipped` (None: it has none).

    `override` holds keys of a generation config that go before those of any source. Raises InvalidInputError for a
    folder without a readable config and for values that SamplingParams refuses.
    """
    config = dict(shipped or {})
    if source not in (None, "auto", "vllm"):
        config = read_generation_config(source)
    if source is None:
        _log_unused(config)
    used = {} if source in (None, "vllm") else _settings(config)
    used.update(_settings(_checked_override(override or {})))
    eos = {**config, **(override or {})}.get("eos_token_id")
    return GenerationDefaults(_sampling_arguments(used), used.get("max_tokens"), _eos_token_ids(eos))


def read_generation_config(folder: str | Path) -> dict[str, Any]:
    """The generation_config.json in `folder`; raises InvalidInputError when it cannot be read."""
    path = Path(folder) / FILE_NAME
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInputError(
            f"generation config {str(path)!r} cannot be read ({error.strerror}); "
            f"give a folder that holds {FILE_NAME}, or 'auto' for the model's own."
        ) from error
    except ValueError as error:
        raise InvalidInputError(f"generation config {str(path)!r} is not valid JSON ({error}); mend it.") from error
    if not isinstance(config, dict):
        raise InvalidInputError(f"generation config {str(path)!r} must be a JSON object, got {checks.shown(config)}.")
    return config


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `config` that octavo takes, under the names SamplingParams has for them."""
    return {_PARAM_OF_KEY[key]: value for key, value in config.items() if key in _PARAM_OF_KEY and value is not None}


def _sampling_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` checked and without those that equal octavo's defaults."""
    try:
        params = SamplingParams(**settings)
    except (InvalidInputError, InvalidTypeError) as error:
        raise InvalidInputError(f"the generation config has a value octavo cannot use: {error}") from error
    defaults = SamplingParams()
    values = {name: getattr(params, name) for name in settings}
    return {name: value for name, value in values.items() if value != getattr(defaults, name)}


def _checked_override(override: Mapping[str, Any]) -> Mapping[str, Any]:
    known = {*_PARAM_OF_KEY, "eos_token_id"}
    for key in override:
        if key not in known:
            raise InvalidInputError(
                f"override_generation_config has the key {key!r}, which octavo does not use; "
                f"it takes {', '.join(sorted(known))}."
            )
    return override


def _eos_token_ids(value: object) -> tuple[int, ...]:
    ids = [value] if isinstance(value, int) else value
    return tuple(checks.token_ids("eos_token_id", ids))


def _log_unused(config: Mapping[str, Any]) -> None:
    defaults = SamplingParams()
    unused = {name: value for name, value in _settings(config).items() if value != getattr(defaults, name)}
    if unused:
        logger.warning(
            "The model ships default sampling parameters (%s) that are not used; generation_config='auto' uses them.",
            ", ".join(f"{name}={value}" for name, value in unused.items()),
        )

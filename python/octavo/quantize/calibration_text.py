"""Token ids to calibrate a model with: a text, or what the model itself writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from octavo.errors import InvalidInputError
from octavo.tokenizer.load import load_tokenizer

_SEQUENCES = 32
_LENGTH = 512


def read_sequences(path: Path, folder: Path, config: Mapping[str, Any]) -> list[list[int]]:
    """The first sequences of the text in ``path``, by the tokenizer of the model in ``folder``.

    Raises:
        InvalidInputError: there is no such text, or less than one sequence.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"The calibration text {path} cannot be read: {error}") from error
    ids, length = load_tokenizer(folder).encode(text), _length(config)
    if len(ids) < length:
        raise InvalidInputError(f"The calibration text {path} has {len(ids)} tokens; give at least {length}.")
    starts = range(0, len(ids) - length + 1, length)[:_SEQUENCES]
    return [ids[start : start + length] for start in starts]


def sampled_sequences(folder: Path, config: Mapping[str, Any]) -> list[list[int]]:
    """What the model of ``folder`` writes after its first token alone; the same ids each time.

    Raises:
        InvalidInputError: the model does not generate, or has no first token.
    """
    from octavo.llm import LLM
    from octavo.sampling_params import SamplingParams

    first, length = config.get("bos_token_id"), _length(config)
    if not isinstance(first, int):
        raise InvalidInputError("The model has no bos_token_id to write text from; give a text by --calibration.")
    try:
        llm = LLM(folder, runner="generate", skip_tokenizer_init=True, max_model_len=length)
    except InvalidInputError as error:
        raise InvalidInputError(f"The model writes no text, so give one by --calibration. ({error})") from error
    params = [
        SamplingParams(temperature=1.0, max_tokens=length - 1, ignore_eos=True, detokenize=False, seed=seed)
        for seed in range(_SEQUENCES)
    ]
    outputs = llm.generate([{"prompt_token_ids": [first]}] * _SEQUENCES, params)
    return [[first, *output.outputs[0].token_ids] for output in outputs]


def _length(config: Mapping[str, Any]) -> int:
    return min(_LENGTH, config.get("max_position_embeddings") or _LENGTH)

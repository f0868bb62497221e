"""What GGUF file names tell: the quantisation, and which files are parts of one split model.

Names are relative paths with '/' between folders, as the hub lists them. Split models are named
``<model>-00001-of-00003.gguf`` (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from octavo.errors import ModelError

_SPLIT = re.compile(r"^(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf$", re.IGNORECASE | re.DOTALL)
_QUANTISATION = re.compile(
    r"(?:^|[-._/])((?:UD-|i1-)?(?:I?Q\d+\w*|TQ\d+\w*|MXFP4\w*|NVFP4\w*|BF16|FP?16|FP?32))$", re.IGNORECASE
)
_MARKS = ("ud-", "i1-")  # who chose the formats of a file's tensors, or how
_COMPANIONS = ("mmproj", "imatrix")  # vision projectors and calibration data: in GGUF form, but no models


def model_files(names: Iterable[str]) -> list[str]:
    """The names that end in .gguf and are models, sorted."""
    return sorted(
        name
        for name in names
        if name.lower().endswith(".gguf") and not name.rpartition("/")[2].lower().startswith(_COMPANIONS)
    )


def quantisation(name: str) -> str:
    """The label a GGUF file name ends with, such as Q4_K_M or UD-Q4_K_XL; the whole stem where it has none."""
    stem = _stem(name)
    match = _QUANTISATION.search(stem)
    return match.group(1) if match else stem.rpartition("/")[2]


def pick_quantisation(label: str, names: Iterable[str], where: str, *, relaxed: bool = True) -> tuple[str, ...]:
    """The files of the model with this quantisation (case aside), in part order; ``where`` names the place in errors.

    Args:
        label: Such as Q4_K_M or UD-Q4_K_XL.
        names: The files there are.
        where: The place, for messages.
        relaxed: Where nothing has the label, take what has it after a maker's mark: UD-Q4_K_XL for Q4_K_XL.

    Raises:
        ModelError: no file or more than one model has the label, or a part is missing.
    """
    models = _by_stem(model_files(names))
    labels = {stem: quantisation(parts[0]).lower() for stem, parts in models.items()}
    found = [models[stem] for stem, own in labels.items() if own == label.lower()]
    if not found and relaxed:
        found = [models[stem] for stem, own in labels.items() if own in {f"{mark}{label.lower()}" for mark in _MARKS}]
    if not found:
        there = sorted({quantisation(parts[0]) for parts in models.values()})
        raise ModelError(f"{where} has no GGUF with the quantisation {label!r}; {_there(there)}.")
    if len(found) > 1:
        options = ", ".join(parts[0] for parts in found)
        raise ModelError(
            f"{where} has several GGUFs with the quantisation {label!r}; name one of the files: {options}."
        )
    return _complete(found[0], where)


def pick_file(name: str, names: Iterable[str], where: str) -> tuple[str, ...]:
    """The named file, or all parts of the split model that it belongs to, in part order.

    Raises:
        ModelError: there is no such file, or a part is missing.
    """
    present = [other for other in names if other.lower().endswith(".gguf")]
    if name not in present:
        raise ModelError(f"{where} has no file {name!r}; {_there(sorted(present))}.")
    return _complete(_by_stem(sorted(present))[_stem(name)], where)


def pick_only(names: Iterable[str], where: str) -> tuple[str, ...]:
    """The files of the one model there is, in part order; ``where`` names the place in errors.

    Raises:
        ModelError: there is none or more than one, or a part is missing.
    """
    models = _by_stem(model_files(names))
    if not models:
        raise ModelError(
            f"{where} holds no model: neither config.json with safetensors or .bin weights, nor a GGUF; fetch the "
            "missing files or name another place."
        )
    if len(models) > 1:
        options = ", ".join(parts[0] for parts in models.values())
        raise ModelError(f"{where} holds {len(models)} GGUF models; name one of them: {options}.")
    return _complete(next(iter(models.values())), where)


def _there(names: list[str]) -> str:
    return f"name one of those it has: {', '.join(names)}" if names else "it has no GGUF files at all"


def _stem(name: str) -> str:
    """The name without suffix and part number: equal for all parts of a split model."""
    match = _SPLIT.match(name)
    return match.group("stem") if match else re.sub(r"\.gguf$", "", name, flags=re.IGNORECASE)


def _by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_stem(name), []).append(name)
    return groups


def _complete(parts: list[str], where: str) -> tuple[str, ...]:
    """The parts, checked to be all there are."""
    match = _SPLIT.match(parts[0])
    if match is None:
        return tuple(parts)
    expected = int(match.group("parts"))
    present = {int(part.group("part")) for part in map(_SPLIT.match, parts) if part}
    missing = [number for number in range(1, expected + 1) if number not in present]
    if missing or len(parts) != expected:
        raise ModelError(
            f"{where} has {len(present)} of the {expected} parts of {match.group('stem')!r}; fetch the missing parts."
        )
    return tuple(parts)

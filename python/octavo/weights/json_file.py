"""JSON from model files, which anyone may have written: bounded in size, and an object or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from octavo.errors import ModelError

MAX_BYTES = 64 << 20  # the index of a model of a trillion parameters is about 10 MiB


def read_json_object(path: Path, *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Read a JSON file whose top level is an object.

    Raises:
        ModelError: the file cannot be read, is larger than ``max_bytes``, or holds no JSON object.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); check the path and its permissions.") from error
    if len(data) > max_bytes:
        raise ModelError(f"{path} is larger than {max_bytes} bytes, too large for what it should hold; fetch it again.")
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON ({error}); fetch the file again.") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds a JSON {type(value).__name__} where an object was expected; fetch it again.")
    return value

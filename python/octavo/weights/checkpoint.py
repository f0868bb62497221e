"""Which files of a Hugging Face folder hold the weights: one file, or the shards that an index names."""

from __future__ import annotations

from pathlib import Path

from octavo.errors import ModelError
from octavo.weights.json_file import read_json_object

# In order of preference; an index stands for the shards it names.
WEIGHT_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def weight_entry(names: frozenset[str]) -> str | None:
    """The file to load weights from among a folder's file names: a single weight file, an index, or None."""
    return next((name for name in WEIGHT_NAMES if name in names), None)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The weight files of an HF folder, sorted; empty where the folder has none.

    Raises:
        ModelError: the index is damaged, or a shard it names is not there.
    """
    entry = weight_entry(frozenset(name for name in WEIGHT_NAMES if (folder / name).is_file()))
    if entry is None:
        return ()
    if not entry.endswith(".index.json"):
        return (folder / entry,)
    shards = shard_names(folder / entry)
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise ModelError(
            f"{folder} lacks {_some(missing)} named by {entry}; fetch the missing files into the folder and try again."
        )
    return tuple(folder / shard for shard in shards)


def shard_names(index: Path) -> tuple[str, ...]:
    """The shard file names in an index's ``weight_map``, sorted; each is a plain name in the index's own folder.

    Raises:
        ModelError: there is no weight_map from tensor names to plain file names.
    """
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index} has no weight_map from tensor names to shard files; fetch the file again.")
    shards = set()
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not _is_plain_name(shard):
            raise ModelError(f"{index} places {tensor!r} in {shard!r}, which is not the name of a file beside it.")
        shards.add(shard)
    return tuple(sorted(shards))


def _is_plain_name(name: str) -> bool:
    return name not in ("", ".", "..") and not any(c in name for c in "/\\\0")


def _some(names: list[str], limit: int = 3) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more

"""From a model's name to its files: a local path, a file in an installed package, or a name on the hub."""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from octavo.errors import InvalidTypeError, ModelError
from octavo.weights import gguf_names, hub, hub_cache
from octavo.weights.checkpoint import weight_files

GGUF_MAGIC = b"GGUF"
PACKAGE_SCHEME = "pkg://"
TOKENIZER_NAMES = (
    "tokenizer.json",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
)

_WORD = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_HUB_NAME = re.compile(
    rf"(?P<repo>{_WORD}(?P<name>/{_WORD})?)(?(name)(?::(?P<quantisation>[\w.-]+)|/(?P<file>.+\.gguf))?)", re.IGNORECASE
)
_LONGEST_REPO = 96  # characters, on the hub
_REVISION = re.compile(r"[\w][\w./+-]*")
_FORMS = (
    "a local folder or GGUF file, a hub name such as gpt2 or owner/repo, owner/repo:QUANTISATION, owner/repo/file.gguf "
    "or pkg://package/path"
)


@dataclass(frozen=True)
class ModelFiles:
    """Where a model's files lie."""

    name: str  # as it was asked for
    kind: Literal["gguf", "hf"]
    folder: Path  # holds config.json and the tokenizer of an HF model, the first part of a GGUF
    weight_files: tuple[Path, ...]  # of an HF model: .safetensors or .bin, one or the shards; else empty
    gguf_files: tuple[Path, ...]  # of a GGUF: the file, or its parts in order; else empty


def resolve_model(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    hf_token: str | bool | None = None,
    download_dir: str | os.PathLike[str] | None = None,
) -> ModelFiles:
    """Find a model by name, fetching it from the hub where need be.

    Args:
        name: a local folder in HF layout or holding one GGUF, a GGUF file, ``owner/repo`` or an old name of one word
            such as ``gpt2``, ``owner/repo:QUANTISATION``, ``owner/repo/file.gguf``, or ``pkg://package/path`` in an
            installed package. What exists locally goes before the hub.
        revision: branch, tag or commit on the hub; main where None.
        hf_token: the hub's access token; HF_TOKEN or the stored login where None or True, no token where False.
        download_dir: the hub cache to use; the common one (HF_HOME, HF_HUB_CACHE) where None.

    Raises:
        InvalidTypeError: the name is not a string or path.
        ModelError: there is no such model, it cannot be fetched, or the name fits several.
    """
    text = _checked_name(name)
    path = _local_path(text)
    if path is not None:
        return _local_model(text, path)
    match = _match_hub_name(text)
    folder, names = _fetch_model(match, _hub_repo(match["repo"], revision, hf_token, download_dir))
    if not names:
        return ModelFiles(text, "hf", folder, weight_files(folder), ())
    return _gguf_model(text, folder, names)


def resolve_tokenizer(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    hf_token: str | bool | None = None,
    download_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Find a tokenizer by a model's name, fetching its files alone; the arguments are those of resolve_model.

    Returns:
        The folder with the tokenizer's files, or the (first) GGUF file that holds it.

    Raises:
        InvalidTypeError: the name is not a string or path.
        ModelError: there is no such tokenizer, it cannot be fetched, or the name fits several.
    """
    text = _checked_name(name)
    path = _local_path(text)
    if path is not None:
        return _local_tokenizer(text, path)
    match = _match_hub_name(text)
    repo = _hub_repo(match["repo"], revision, hf_token, download_dir)
    if not (match["quantisation"] or match["file"]):
        return hub.fetch_tokenizer(repo)
    folder, names = _fetch_model(match, repo)
    return _gguf_model(text, folder, names).gguf_files[0]


def resolve_config(
    name: str | os.PathLike[str],
    *,
    hf_token: str | bool | None = None,
    download_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """The folder that holds, or should hold, a model's config.json, fetching that file alone from the hub.

    Raises:
        InvalidTypeError: the name is not a string or path.
        ModelError: there is nothing of this name, or it cannot be fetched.
    """
    text = _checked_name(name)
    path = _local_path(text)
    if path is not None:
        return path if path.is_dir() else path.parent
    return hub.fetch_config(_hub_repo(_match_hub_name(text)["repo"], None, hf_token, download_dir))


def is_gguf(path: Path) -> bool:
    """Whether a file begins with the GGUF magic (the hub cache's blobs have no suffix to go by).

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(len(GGUF_MAGIC)) == GGUF_MAGIC
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error


def _checked_name(name: str | os.PathLike[str]) -> str:
    text = os.fspath(name) if isinstance(name, os.PathLike) else name
    if not isinstance(text, str):
        raise InvalidTypeError(f"A model's name is a string or path, not {type(name).__name__}; give {_FORMS}.")
    if not text.strip() or "\0" in text:
        raise ModelError(f"{text!r} names no model; give {_FORMS}.")
    return text


# Local paths and packages


def _local_path(name: str) -> Path | None:
    """The file or folder that the name means, or None where it can only be a name on the hub."""
    if name.startswith(PACKAGE_SCHEME):
        return _package_path(name)
    expanded = os.path.expanduser(name)
    return Path(expanded) if os.path.exists(expanded) else None


def _package_path(name: str) -> Path:
    """The file or folder inside an installed package, found without importing the package."""
    package, _, inner = name.removeprefix(PACKAGE_SCHEME).partition("/")
    if not package.isidentifier() or not inner or ".." in inner.split("/"):
        raise ModelError(f"{name!r} is not of the form pkg://package/path; give an import name and a path inside it.")
    folders = _package_folders(package)
    if not folders:
        raise ModelError(f"{name!r} needs the Python package {package}, which is not installed; install it with pip.")
    path = next((path for path in (folder / inner for folder in folders) if path.exists()), None)
    if path is None:
        there = ", ".join(sorted(name for folder in folders for name in _list_ggufs(folder))) or "none"
        raise ModelError(f"The package {package} holds no {inner!r}; the GGUF files at its top are: {there}.")
    return path


def _package_folders(package: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # ValueError: a loaded module without a spec, such as __main__
        return []
    return [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []


def _local_model(name: str, path: Path) -> ModelFiles:
    if path.is_file():
        return _local_gguf(name, path)
    if not path.is_dir():
        raise ModelError(f"{path} is neither a file nor a folder; give {_FORMS}.")
    weights = weight_files(path) if (path / "config.json").is_file() else ()
    if weights:
        return ModelFiles(name, "hf", path, weights, ())
    return _gguf_model(name, path, gguf_names.pick_only(_list_ggufs(path), str(path)))


def _local_gguf(name: str, path: Path) -> ModelFiles:
    if path.name.lower().endswith(".gguf"):
        parts = gguf_names.pick_file(path.name, _list_ggufs(path.parent), str(path.parent))
        return _gguf_model(name, path.parent, parts)
    if not is_gguf(path):
        hint = "name its folder instead" if path.suffix in (".safetensors", ".bin", ".json") else f"give {_FORMS}"
        raise ModelError(f"{path} is not a GGUF file: it does not begin with the letters GGUF; {hint}.")
    return ModelFiles(name, "gguf", path.parent, (), (path,))


def _gguf_model(name: str, folder: Path, names: tuple[str, ...]) -> ModelFiles:
    """The model of these parts, each checked to be a GGUF."""
    files = tuple(folder / part for part in names)
    for file in files:
        if not is_gguf(file):
            raise ModelError(f"{file} is not a GGUF file: it does not begin with the letters GGUF; fetch it again.")
    return ModelFiles(name, "gguf", files[0].parent, (), files)


def _list_ggufs(folder: Path) -> list[str]:
    """The names of the GGUF files in a folder.

    Raises:
        ModelError: the folder cannot be read.
    """
    try:
        return [name for name in os.listdir(folder) if name.lower().endswith(".gguf")]
    except OSError as error:
        raise ModelError(f"{folder} cannot be read ({error.strerror}); check its permissions.") from error


def _local_tokenizer(name: str, path: Path) -> Path:
    if path.is_dir() and any((path / file).is_file() for file in TOKENIZER_NAMES):
        return path
    if path.name in TOKENIZER_NAMES and path.is_file():
        return path.parent
    files = _local_model(name, path)
    if files.kind == "hf":
        raise ModelError(f"{path} holds no tokenizer: none of {', '.join(TOKENIZER_NAMES)}; fetch one into it.")
    return files.gguf_files[0]


# The hub


def _match_hub_name(name: str) -> re.Match[str]:
    """The parts of a hub name: repo, and quantisation or file where given."""
    match = _HUB_NAME.fullmatch(name)
    repo = match["repo"] if match else ""
    if match is None or len(repo) > _LONGEST_REPO or "--" in repo or ".." in repo or repo.lower().endswith(".gguf"):
        raise ModelError(f"There is no file or folder {name!r}, and it is no name on the hub; give {_FORMS}.")
    return match


def _hub_repo(
    repo: str, revision: str | None, token: str | bool | None, download_dir: str | os.PathLike[str] | None
) -> hub_cache.HubRepo:
    revision = "main" if revision is None else revision
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise ModelError(f"{revision!r} is not a revision; give a branch, tag or commit of {repo}.")
    cache = hub_cache.cache_dir() if download_dir is None else Path(download_dir).expanduser()
    return hub_cache.HubRepo(repo, revision, token, cache)


def _fetch_model(match: re.Match[str], repo: hub_cache.HubRepo) -> tuple[Path, tuple[str, ...]]:
    """The folder of a hub model, and its GGUF files' names where it is one."""
    if match["quantisation"]:
        return hub.fetch_quantisation(repo, match["quantisation"])
    if match["file"]:
        return hub.fetch_file(repo, match["file"])
    return hub.fetch_model(repo)

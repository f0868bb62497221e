"""The Hugging Face hub's cache, read by its layout and without huggingface_hub.

    <cache>/models--owner--repo/refs/<revision>          the commit a branch or tag points to
                                snapshots/<commit>/...   links into blobs/
                                .no_exist/<commit>/...   empty files: names the hub is known not to have

Source: https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from octavo.errors import ModelError
from octavo.weights.checkpoint import weight_files
from octavo.weights.json_file import read_json_object

_COMMIT = re.compile(r"[0-9A-Za-z]+")
_MODULE_PATH = re.compile(r"[0-9]_\w+")
_VOCABULARIES = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("sentencepiece.bpe.model",),
    ("spiece.model",),
    ("vocab.txt",),
    ("vocab.json", "merges.txt"),
)
MODULE_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # of a sentence-transformers module; the first is preferred


def cache_dir() -> Path:
    """Where the hub's cache lies, by the environment variables that huggingface_hub reads."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(base, "huggingface")
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    return Path(os.path.expandvars(os.path.expanduser(cache)))


@dataclass(frozen=True)
class Snapshot:
    """One commit of a repository in the cache; its files may be there in part."""

    repo_folder: Path  # <cache>/models--owner--repo
    commit: str

    @property
    def folder(self) -> Path:
        return self.repo_folder / "snapshots" / self.commit

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def names(self) -> list[str]:
        """All files present, as the hub names them."""
        return [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()]

    def lacks(self, name: str) -> bool:
        """Whether the hub is known not to have the file, so that its absence here says nothing is missing."""
        return (self.repo_folder / ".no_exist" / self.commit / name).is_file()

    def mark_lacking(self, name: str) -> None:
        """Remember that the hub does not have the file, where the cache can be written."""
        marker = self.repo_folder / ".no_exist" / self.commit / name
        with contextlib.suppress(OSError):
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()


@dataclass(frozen=True)
class HubRepo:
    """A repository at a revision, and the cache it is kept in."""

    name: str  # owner/repo
    revision: str  # branch, tag or commit
    token: str | bool | None  # None and True: HF_TOKEN or the stored login; False: none
    cache: Path

    def snapshot(self) -> Snapshot | None:
        """What the cache holds of it: the snapshot the revision names, if the cache knows it."""
        repo_folder = self.cache / f"models--{self.name.replace('/', '--')}"
        try:
            commit = (repo_folder / "refs" / self.revision).read_text(encoding="ascii").strip()
        except (OSError, ValueError):  # no such ref, or no text: the revision may be a commit itself
            commit = self.revision
        if not _COMMIT.fullmatch(commit) or not (repo_folder / "snapshots" / commit).is_dir():
            return None
        return Snapshot(repo_folder, commit)


def has_weights(snapshot: Snapshot) -> bool:
    """Whether config.json and a whole set of HF weights are there."""
    try:
        return snapshot.has("config.json") and bool(weight_files(snapshot.folder))
    except ModelError:  # an index whose shards are still missing
        return False


def has_tokenizer(snapshot: Snapshot) -> bool:
    """Whether the tokenizer is there as far as the cache can tell."""
    vocabulary = any(all(map(snapshot.has, names)) for names in _VOCABULARIES) or snapshot.lacks("tokenizer.json")
    return vocabulary and _settled(snapshot, "tokenizer_config.json")


def has_model(snapshot: Snapshot) -> bool:
    """Whether a HF model is there with all that runs it, as far as the cache can tell."""
    return has_weights(snapshot) and has_tokenizer(snapshot) and _has_pooling(snapshot)


def _has_pooling(snapshot: Snapshot) -> bool:
    """Whether the sentence-transformers files are there; a model that only embeds means something else without them."""
    if snapshot.has("modules.json"):
        return all(_settled(snapshot, name) for name in module_files(snapshot)) and _has_dense_weights(snapshot)
    architectures = read_json_object(snapshot.folder / "config.json").get("architectures")
    return not _is_bare(architectures) or snapshot.lacks("modules.json")


def module_files(snapshot: Snapshot) -> list[str]:
    """The configurations of the modules that modules.json names; empty where there is none."""
    return [f"{path}/config.json" for path, kind in _modules(snapshot) if kind in ("Pooling", "Dense")]


def _has_dense_weights(snapshot: Snapshot) -> bool:
    dense = [path for path, kind in _modules(snapshot) if kind == "Dense" and snapshot.has(f"{path}/config.json")]
    return all(any(snapshot.has(f"{path}/{name}") for name in MODULE_WEIGHTS) for path in dense)


def _modules(snapshot: Snapshot) -> list[tuple[str, str]]:
    """(folder, kind) of the modules with a folder of their own; a damaged file is for the loader to tell."""
    try:
        modules = json.loads((snapshot.folder / "modules.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    found = [module for module in modules if isinstance(module, dict)] if isinstance(modules, list) else []
    named = [(str(module.get("path")), str(module.get("type")).rpartition(".")[2]) for module in found]
    return [(path, kind) for path, kind in named if _MODULE_PATH.fullmatch(path)]


def _is_bare(architectures: object) -> bool:
    """Whether config.json names a model with no head, such as BertModel (GPT2LMHeadModel has one)."""
    names = [str(name) for name in architectures] if isinstance(architectures, list) else []
    return any(name.endswith("Model") and not name.endswith("HeadModel") for name in names)


def _settled(snapshot: Snapshot, name: str) -> bool:
    return snapshot.has(name) or snapshot.lacks(name)

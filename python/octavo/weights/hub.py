"""Models from the Hugging Face hub: the cache first, then only the files that octavo reads.

huggingface_hub is imported only when something must be fetched; a model whole in the cache costs no request.
"""

from __future__ import annotations

import functools
import glob
from collections.abc import Callable, Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from octavo.errors import ModelError
from octavo.weights import hub_cache
from octavo.weights.checkpoint import shard_names, weight_entry
from octavo.weights.gguf_names import pick_file, pick_only, pick_quantisation, quantisation
from octavo.weights.hub_cache import HubRepo, Snapshot
from octavo.weights.hub_errors import explained

TOKENIZER_FILES = (
    "tokenizer*",
    "sentencepiece.bpe.model",
    "spiece.model",
    "vocab*",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template*",
    "additional_chat_templates/*.jinja",
)
MODEL_FILES = (
    *TOKENIZER_FILES,
    "config.json",
    "generation_config.json",
    "modules.json",
    "[0-9]_*/config.json",  # 1_Pooling and its like
    "sentence_*_config.json",
    "config_sentence_transformers.json",
)
Pick = Callable[[Iterable[str], str], tuple[str, ...]]  # (file names, where they are) -> the GGUF files wanted

# What hub_cache asks for before it calls a model whole: remembered as lacking where the hub has no such file.
_ASKED_FOR = ("tokenizer.json", "tokenizer_config.json", "modules.json")


def fetch_model(repo: HubRepo) -> tuple[Path, tuple[str, ...]]:
    """Fetch what runs a model; returns its folder, and its GGUF files' names where the repository is a GGUF one.

    Raises:
        ModelError: the repository cannot be reached or read, holds no model, or holds several GGUFs.
    """
    snapshot = repo.snapshot()
    if snapshot is None:
        return _fetch_model(repo)
    if hub_cache.has_model(snapshot):
        return snapshot.folder, ()
    if not snapshot.has("config.json") and (names := _picked(pick_only, repo, snapshot)):
        return snapshot.folder, names
    try:
        return _fetch_model(repo)
    except ModelError:
        if hub_cache.has_weights(snapshot):  # all that cannot be done without
            return snapshot.folder, ()
        raise


def fetch_file(repo: HubRepo, name: str) -> tuple[Path, tuple[str, ...]]:
    """Fetch the named GGUF file, or all parts of the split model it belongs to; returns the folder and their names.

    Raises:
        ModelError: the repository cannot be reached or read, or has no such file.
    """
    pick = functools.partial(pick_file, name)
    snapshot = repo.snapshot()
    if snapshot and (names := _picked(pick, repo, snapshot)):
        return snapshot.folder, names
    names = pick(_list_files(repo), repo.name)
    return _download(repo, names).folder, names


def fetch_quantisation(repo: HubRepo, label: str) -> tuple[Path, tuple[str, ...]]:
    """Fetch the GGUF files with the quantisation; returns the folder and their names.

    A file whose label only ends with ``label`` (UD-Q4_K_XL) is taken where the hub has none with the label itself.

    Raises:
        ModelError: the repository cannot be reached or read, or none or several of its models have the label.
    """
    exact = functools.partial(pick_quantisation, label, relaxed=False)
    relaxed = functools.partial(pick_quantisation, label)
    without = f"{label.lower()}.gguf"  # marked as lacking: the hub was asked for the label itself
    snapshot = repo.snapshot()
    cached = _picked(exact, repo, snapshot) if snapshot else ()
    if snapshot and not cached and snapshot.lacks(without):
        cached = _picked(relaxed, repo, snapshot)
    if snapshot and cached:
        return snapshot.folder, cached
    try:
        names = relaxed(_list_files(repo), repo.name)
        fetched = _download(repo, names)
    except ModelError:
        if snapshot and (names := _picked(relaxed, repo, snapshot)):
            return snapshot.folder, names
        raise
    if quantisation(names[0]).lower() != label.lower():
        fetched.mark_lacking(without)
    return fetched.folder, names


def fetch_tokenizer(repo: HubRepo) -> Path:
    """Fetch the tokenizer's files alone; returns their folder.

    Raises:
        ModelError: the repository cannot be reached or read, or holds no tokenizer.
    """
    snapshot = repo.snapshot()
    if snapshot and hub_cache.has_tokenizer(snapshot):
        return snapshot.folder
    listed = _list_files(repo)
    names = _matching(listed, TOKENIZER_FILES)
    if not names:
        raise ModelError(f"{repo.name} has no tokenizer files; name the repository of the model it was made from.")
    fetched = _download(repo, names)
    _remember_lacking(fetched, listed)
    return fetched.folder


def fetch_config(repo: HubRepo) -> Path:
    """Fetch config.json alone; returns its folder.

    Raises:
        ModelError: the repository cannot be reached or read, or holds no config.json.
    """
    snapshot = repo.snapshot()
    if snapshot and snapshot.has("config.json"):
        return snapshot.folder
    if "config.json" not in _list_files(repo):
        raise ModelError(f"{repo.name} has no config.json; name the repository of the model it was made from.")
    return _download(repo, ["config.json"]).folder


def _fetch_model(repo: HubRepo) -> tuple[Path, tuple[str, ...]]:
    """Small files first and weights last: a cache with whole weights then has the rest as well."""
    listed = _list_files(repo)
    entry = weight_entry(listed)
    if entry is None or "config.json" not in listed:
        names = pick_only(listed, repo.name)
        return _download(repo, names).folder, names
    is_index = entry.endswith(".index.json")
    small = _matching(listed, (*MODEL_FILES, entry) if is_index else MODEL_FILES)
    snapshot = _download(repo, [*small, *_module_weights(listed)])
    weights = shard_names(snapshot.folder / entry) if is_index else (entry,)
    _download(replace(repo, revision=snapshot.commit), weights)
    _remember_lacking(snapshot, listed)
    return snapshot.folder, ()


def _picked(pick: Pick, repo: HubRepo, snapshot: Snapshot) -> tuple[str, ...]:
    """What ``pick`` chooses of the cached files; empty where they do not settle it."""
    try:
        return pick(snapshot.names(), repo.name)
    except ModelError:
        return ()


def _matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The names that match a pattern; a pattern without '/' matches at the root alone."""
    patterns = tuple(patterns)
    return sorted(
        name for name in names if any(fnmatchcase(name, p) and name.count("/") == p.count("/") for p in patterns)
    )


def _module_weights(listed: frozenset[str]) -> list[str]:
    """The weights of each sentence-transformers module that has any, such as 2_Dense: one file of each."""
    folders = [name.partition("/")[0] for name in _matching(listed, ["[0-9]_*/config.json"])]
    choices = [[f"{folder}/{name}" for name in hub_cache.MODULE_WEIGHTS] for folder in folders]
    return [present[0] for names in choices if (present := [name for name in names if name in listed])]


def _remember_lacking(snapshot: Snapshot, listed: frozenset[str]) -> None:
    for name in (*_ASKED_FOR, *hub_cache.module_files(snapshot)):
        if name not in listed:
            snapshot.mark_lacking(name)


def _list_files(repo: HubRepo) -> frozenset[str]:
    """The names of all files in the repository, by one request."""
    from huggingface_hub import HfApi

    try:
        info = HfApi(token=repo.token).model_info(repo.name, revision=repo.revision)
    except Exception as error:  # the library's network errors change class between its versions
        raise explained(error, repo) from error
    return frozenset(sibling.rfilename for sibling in info.siblings or ())


def _download(repo: HubRepo, names: Iterable[str]) -> Snapshot:
    """Fetch the named files into the cache, with progress on stderr; files already there are kept."""
    from huggingface_hub import snapshot_download

    wanted = list(names)
    try:
        folder = snapshot_download(
            repo.name,
            revision=repo.revision,
            token=repo.token,
            cache_dir=repo.cache,
            allow_patterns=[glob.escape(name) for name in wanted],
        )
    except Exception as error:  # as above
        raise explained(error, repo) from error
    snapshot = Snapshot(Path(folder).parents[1], Path(folder).name)
    missing = [name for name in wanted if not snapshot.has(name)]
    if missing:
        raise ModelError(f"{missing[0]} of {repo.name} was not fetched whole; start again to fetch the rest.")
    return snapshot

"""A checkpoint as the models see it: tensors by their Hugging Face names, whatever file they lie in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from octavo import config as configs
from octavo.errors import ModelError
from octavo.weights import gguf_config
from octavo.weights.aqlm import with_aqlm
from octavo.weights.gguf import GGML_TYPES, GGUFFile, GGUFTensor, open_gguf
from octavo.weights.resolve import ModelFiles
from octavo.weights.safetensors import StoredTensor, open_safetensors
from octavo.weights.tensor import SourceTensor

# BERT's first checkpoints call a norm's vectors as TensorFlow did.
_FIRST_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


_STACKED = re.compile(r"(?P<experts>.+\.experts)\.(?P<part>\w+\.weight)")


class Checkpoint:
    """Tensors by name, each handed out as often as it is asked for; ``unused`` tells which never were."""

    def __init__(self, tensors: Mapping[str, SourceTensor], origin: Path) -> None:
        self._tensors = tensors
        self._used: set[str] = set()
        self.origin = origin

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def get(self, name: str) -> SourceTensor:
        """The tensor ``name``.

        Raises:
            ModelError: the checkpoint does not hold it.
        """
        if name not in self._tensors:
            raise ModelError(f"{self.origin} lacks the tensor {name!r}; fetch the model again.")
        self._used.add(name)
        return self._tensors[name]

    def is_unused(self, name: str) -> bool:
        """Whether ``name`` was never asked for."""
        return name not in self._used

    def under(self, prefix: str) -> Checkpoint:
        """The same tensors, named as in a model with a head: those of a base model alone lack ``prefix``."""
        if any(name.startswith(f"{prefix}.") for name in self._tensors):
            return self
        renamed = {f"{prefix}.{name}": replace(t, name=f"{prefix}.{name}") for name, t in self._tensors.items()}
        return Checkpoint(renamed, self.origin)

    def joined(self, tensors: Mapping[str, SourceTensor]) -> Checkpoint:
        """The same tensors and others, which go first where a name is in both."""
        return Checkpoint({**self._tensors, **tensors}, self.origin)

    def renamed(self, prefixes: Sequence[tuple[str, str]]) -> Checkpoint:
        """The same tensors with other beginnings of their names: the first of ``prefixes`` that fits is replaced."""
        new_names = {name: _renamed(name, prefixes) for name in self._tensors}
        tensors = {new: replace(self._tensors[name], name=new) for name, new in new_names.items()}
        return Checkpoint(tensors, self.origin)

    def used(self) -> list[str]:
        """Names that were asked for."""
        return [name for name in self._tensors if name in self._used]

    def unused(self) -> list[str]:
        """Names that were never asked for."""
        return [name for name in self._tensors if name not in self._used]

    @property
    def tensors(self) -> list[SourceTensor]:
        """All of them, as the file orders them."""
        return list(self._tensors.values())

    @property
    def n_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.n_bytes for tensor in self._tensors.values())

    @property
    def formats(self) -> dict[str, int]:
        """Weight format -> number of tensors stored in it."""
        counts: dict[str, int] = {}
        for tensor in self._tensors.values():
            counts[tensor.format] = counts.get(tensor.format, 0) + 1
        return counts


def _renamed(name: str, prefixes: Sequence[tuple[str, str]]) -> str:
    for old, new in prefixes:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def open_checkpoint(files: ModelFiles, config: Mapping[str, Any], file: GGUFFile | None) -> Checkpoint:
    """Maps the tensors of a resolved model; ``file`` is its open GGUF, if it is one."""
    if file is not None:
        return _gguf_checkpoint(file, config)
    return Checkpoint(with_aqlm(open_tensors(files.weight_files)), files.folder)


def read_config(files: ModelFiles) -> tuple[dict[str, Any], GGUFFile | None]:
    """The model's config.json contents, from its own file or from a GGUF's metadata; the GGUF stays open."""
    if files.kind == "gguf":
        file = open_gguf(files.gguf_files[0])
        return gguf_config.hf_config(file), file
    return configs.load_config(files.folder), None


def open_tensors(weight_files: Sequence[Path]) -> dict[str, SourceTensor]:
    """Maps the tensors of .safetensors files or of PyTorch's .bin files.

    Raises:
        ModelError: a file is damaged.
    """
    tensors = map(_from_stored, _open_stored(tuple(weight_files)).values())
    return {tensor.name: tensor for tensor in tensors}


def _open_stored(weight_files: tuple[Path, ...]) -> dict[str, StoredTensor]:
    if weight_files[0].suffix == ".safetensors":
        return open_safetensors(weight_files)
    from octavo.weights.torch_bin import open_torch_bin

    return open_torch_bin(weight_files)


def _from_stored(tensor: StoredTensor) -> SourceTensor:
    module, _, last = tensor.name.rpartition("LayerNorm.")
    name = module + _FIRST_NAMES.get(f"LayerNorm.{last}", tensor.name.removeprefix(module))
    return SourceTensor(name, tensor.dtype, tensor.shape, tensor.data, mapped=True)


def _gguf_checkpoint(file: GGUFFile, config: Mapping[str, Any]) -> Checkpoint:
    names = gguf_config.hf_tensor_names(config, file.tensors)
    taken = gguf_config.ignored_tensors(config)
    by_gguf = {gguf_name: hf_name for hf_name, gguf_name in names.items()}
    tensors = {}
    for tensor in file.tensors.values():
        if tensor.name in taken:
            continue
        source = _from_gguf(by_gguf.get(tensor.name, tensor.name), tensor, config)
        tensors.update({part.name: part for part in _split(source)})
    return Checkpoint(tensors, file.path)


def _split(tensor: SourceTensor) -> list[SourceTensor]:
    """The tensors that a GGUF stores as one: those of experts, and the norms of heads."""
    if not tensor.name.endswith("_layernorm.norms.weight"):
        return split_experts(tensor)
    rows = np.frombuffer(tensor.data, np.uint8).reshape(tensor.shape[0], -1)
    base = tensor.name.removesuffix(".weight")
    return [
        replace(tensor, name=f"{base}.{head}.weight", shape=tensor.shape[1:], data=row) for head, row in enumerate(rows)
    ]


def split_experts(tensor: SourceTensor) -> list[SourceTensor]:
    """``x.experts.y.weight`` (experts, rows, columns) as the matrices ``x.experts.0.y.weight`` and on; others alone."""
    stacked = _STACKED.fullmatch(tensor.name)
    if stacked is None or len(tensor.shape) != 3:
        return [tensor]
    matrices = np.frombuffer(tensor.data, np.uint8).reshape(tensor.shape[0], -1)
    return [
        replace(tensor, name=f"{stacked['experts']}.{e}.{stacked['part']}", shape=tensor.shape[1:], data=matrix)
        for e, matrix in enumerate(matrices)
    ]


def _from_gguf(name: str, tensor: GGUFTensor, config: Mapping[str, Any]) -> SourceTensor:
    format_name = GGML_TYPES[tensor.type_id].name
    if gguf_config.is_shifted_norm(name, config) and format_name == "F32":
        unshifted = np.frombuffer(tensor.data, np.float32) - np.float32(1)
        return SourceTensor(name, format_name, tensor.shape, unshifted, mapped=False)
    if not gguf_config.rows_permuted(name, config):
        turned = gguf_config.is_transposed(name, config)
        return SourceTensor(name, format_name, tensor.shape, tensor.data, mapped=True, turned=turned)
    n_heads = config["num_attention_heads" if ".q_proj." in name else "num_key_value_heads"]
    rows = tensor.shape[0]
    if rows != n_heads * config["head_dim"]:
        raise ModelError(f"{tensor.name} has {rows} rows, expected {n_heads * config['head_dim']}; fetch it again.")
    order = gguf_config.unpermute_rows(n_heads, config["head_dim"])
    stored = np.frombuffer(tensor.data, np.uint8).reshape(rows, -1)
    return SourceTensor(name, format_name, tensor.shape, np.ascontiguousarray(stored[order]), mapped=False)

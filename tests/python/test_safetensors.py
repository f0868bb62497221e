"""The safetensors reader against the safetensors package, on whole files and on damaged ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st

from octavo.errors import ModelError
from octavo.weights.safetensors import DTYPE_BYTES, StoredTensor, open_safetensors
from octavo.weights.torch_bin import open_torch_bin

Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]  # name -> dtype, shape, data


def pack(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A file of this header (an object, or raw bytes) and data."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def plain(tensors: dict[str, StoredTensor]) -> Tensors:
    return {name: (tensor.dtype, tensor.shape, bytes(tensor.data)) for name, tensor in tensors.items()}


def judged(content: bytes) -> Tensors:
    """What the safetensors package reads; it raises SafetensorError where it refuses."""
    deserialize: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = safetensors.deserialize
    return {name: (entry["dtype"], tuple(entry["shape"]), bytes(entry["data"])) for name, entry in deserialize(content)}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("safetensors") / "model.safetensors"


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Well-formed files of a few small tensors."""
    names = draw(st.lists(st.text(min_size=1, max_size=8), max_size=4, unique=True))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}} if draw(st.booleans()) else {}
    data = b""
    for name in names:
        dtype = draw(st.sampled_from(sorted(DTYPE_BYTES)))
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        n_bytes = DTYPE_BYTES[dtype]
        for size in shape:
            n_bytes *= size
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + n_bytes]}
        data += draw(st.binary(min_size=n_bytes, max_size=n_bytes))
    return pack(header, data)


@given(content=files())
def test_whole_files_are_read_as_the_package_reads_them(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert plain(open_safetensors([path])) == judged(content)


@given(content=files(), data=st.data())
def test_damaged_files_are_refused_or_valid(path: Path, content: bytes, data: st.DataObject) -> None:
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(damaged)) | st.just(len(damaged)))
    path.write_bytes(damaged[:end])
    try:
        found = plain(open_safetensors([path]))
    except ModelError as error:
        assert str(path) in str(error)
    else:
        assert found == judged(bytes(damaged[:end]))


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0 bytes"),
        (b"\0\0\0", "3 bytes"),
        (pack({}, length=2**63), "header claims"),
        (b"version https://git-lfs.github.com/spec/v1\n", "header claims"),
        (pack(b""), "begin with"),
        (pack(b" {}"), "begin with"),
        (pack(b"[]"), "begin with"),
        (pack(b"{"), "JSON"),
        (pack(b'{"a": ' * 50_000), "JSON"),
        (pack(b'{"\xff": 1}'), "JSON"),
        (pack(b'{"a": {"dtype": "F32", "shape": [1' + b"0" * 5000 + b"]}}"), "JSON"),
        (pack({"a": 1}), "data_offsets"),
        (pack({"a": {**ENTRY, "data_offsets": [8, 0]}}, bytes(8)), "data_offsets"),
        (pack({"a": {**ENTRY, "data_offsets": [0.0, 8]}}, bytes(8)), "data_offsets"),
        (pack({"a": {**ENTRY, "data_offsets": [False, 8]}}, bytes(8)), "data_offsets"),
        (pack({"a": {**ENTRY, "data_offsets": [-8, 0]}}, bytes(8)), "negative"),
        (pack({"a": {**ENTRY, "shape": [2.5]}}, bytes(8)), "shape"),
        (pack({"a": {**ENTRY, "shape": [3]}}, bytes(8)), "12 bytes"),
        (pack({"a": {**ENTRY, "shape": [2**40, 2**40, 0]}}, bytes(8)), "more than"),
        (pack({"a": {**ENTRY, "dtype": "F31"}}, bytes(8)), "F31"),
        (pack({"a": {**ENTRY, "dtype": ["F32"]}}, bytes(8)), "F32"),
        (pack({"a": ENTRY}, bytes(7)), "truncated"),
        (pack({"a": ENTRY}, bytes(9)), "9 bytes of data"),
        (pack({"a": ENTRY, "b": ENTRY}, bytes(8)), "begins at byte 0"),
        (pack({"a": ENTRY, "b": {**ENTRY, "data_offsets": [9, 17]}}, bytes(17)), "begins at byte 9"),
        (pack(b'{"a": 1, "a": 2}'), "twice"),
        (pack(b'{"a": {"x": NaN}}'), "NaN"),
        (pack(b'{"\\ud800": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}'), "valid text"),
        (pack({"__metadata__": {"a": 1}}), "__metadata__"),
        (pack({"__metadata__": []}), "__metadata__"),
    ],
)
def test_each_kind_of_damage_is_named(path: Path, content: bytes, words: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        open_safetensors([path])
    assert words in str(caught.value)


def test_the_data_is_mapped_and_outlives_the_dict(path: Path) -> None:
    path.write_bytes(pack({"a": ENTRY}, b"abcdefgh"))
    tensor = open_safetensors([path]).pop("a")
    assert tensor.data.readonly
    assert bytes(tensor.data) == b"abcdefgh"


def test_shards_are_read_together_and_may_not_overlap(tmp_path: Path) -> None:
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    first.write_bytes(pack({"a": ENTRY}, bytes(8)))
    second.write_bytes(pack({"b": ENTRY}, bytes(8)))
    assert list(open_safetensors([first, second])) == ["a", "b"]
    second.write_bytes(pack({"a": ENTRY}, bytes(8)))
    with pytest.raises(ModelError, match="earlier shard"):
        open_safetensors([first, second])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be opened"):
        open_safetensors([tmp_path / "no.safetensors"])


def test_torch_bin_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelError, match="pip install torch"):
        open_torch_bin([tmp_path / "pytorch_model.bin"])


class TestTorchBin:
    @pytest.fixture
    def torch(self) -> Any:
        return pytest.importorskip("torch")

    @pytest.mark.parametrize("zipped", [True, False])
    def test_tensors_of_every_kind(self, torch: Any, tmp_path: Path, zipped: bool) -> None:
        state = {
            "f32": torch.arange(6, dtype=torch.float32).reshape(2, 3),
            "turned": torch.arange(6, dtype=torch.float16).reshape(2, 3).T,
            "bf16": torch.ones(3, dtype=torch.bfloat16),
            "scalar": torch.tensor(7, dtype=torch.int64),
            "none": torch.empty(0, 4),
        }
        path = tmp_path / "pytorch_model.bin"
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        found = open_torch_bin([path])
        assert {name: (tensor.dtype, tensor.shape) for name, tensor in found.items()} == {
            "f32": ("F32", (2, 3)),
            "turned": ("F16", (3, 2)),
            "bf16": ("BF16", (3,)),
            "scalar": ("I64", ()),
            "none": ("F32", (0, 4)),
        }
        assert bytes(found["f32"].data) == state["f32"].numpy().tobytes()
        assert bytes(found["turned"].data) == state["turned"].numpy().tobytes()
        assert bytes(found["bf16"].data) == b"\x80\x3f" * 3

    def test_what_is_no_checkpoint(self, torch: Any, tmp_path: Path) -> None:
        path = tmp_path / "pytorch_model.bin"
        for content in (b"", b"PK\x03\x04", b"\x80\x02cos\nsystem\n"):
            path.write_bytes(content)
            with pytest.raises(ModelError, match="not a PyTorch checkpoint"):
                open_torch_bin([path])
        for state, words in (([1], "no dictionary"), ({"a": 1}, "holds 'a' as int")):
            torch.save(state, path)
            with pytest.raises(ModelError, match=words):
                open_torch_bin([path])

"""The GGUF reader: what it reads equals what the gguf package reads, and what is wrong is refused in a sentence."""

from __future__ import annotations

import math
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gguf_files
from gguf_files import gguf, tensor_info, write
from octavo.errors import ModelError
from octavo.weights.gguf import GGML_TYPES, GGUFFile, is_gguf, open_gguf
from octavo.weights.gguf_config import hf_config, hf_tensor_names, rows_permuted, unpermute_rows

GOLDEN = Path(__file__).parents[1] / "golden" / "gguf"
FILES = sorted(path for path in GOLDEN.glob("*.gguf") if path.stem != "tiny-Q2_0")  # unknown to the gguf package
Q4_0_ROW = bytes(18)


def small_file() -> bytes:
    metadata = {"general.architecture": "llama", "a.list": ["x", "yy"], "a.numbers": [1, 2], "a.flag": True, "a.f": 0.5}
    tensors = [tensor_info("a", (4, 2), 0, 0), tensor_info("b", (32, 1), 2, 32)]
    return gguf(metadata, tensors, bytes(range(32)) + Q4_0_ROW)


def refused(path: Path, content: bytes) -> str:
    with pytest.raises(ModelError) as caught:
        GGUFFile(write(path, content))
    message = str(caught.value)
    assert str(path) in message and message.endswith(".") and "\n" not in message
    return message


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_equals_gguf_package(path: Path) -> None:
    reader = pytest.importorskip("gguf").GGUFReader(path)
    file = open_gguf(path)
    ours = {key: item for key, item in file.metadata.items() if not isinstance(item, float)}
    theirs = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert list(file.metadata) == list(theirs)
    assert ours == {key: theirs[key] for key in ours}
    assert [tensor.name for tensor in reader.tensors] == list(file.tensors)
    for tensor in reader.tensors:
        mine = file.tensors[tensor.name]
        assert mine.type_id == tensor.tensor_type
        assert mine.shape == tuple(reversed(tensor.shape.tolist()))
        assert (mine.offset, mine.nbytes) == (tensor.data_offset, tensor.n_bytes)
        assert bytes(mine.data) == tensor.data.tobytes()


def test_types_equal_gguf_package() -> None:
    constants = pytest.importorskip("gguf").constants
    for type_id, sizes in constants.GGML_QUANT_SIZES.items():
        if type_id.name != "Q8_1":  # the package counts two floats where the format has two halves
            assert GGML_TYPES[int(type_id)] == (type_id.name, *sizes)


def test_reads_every_part(tmp_path: Path) -> None:
    file = GGUFFile(write(tmp_path / "m", small_file()))
    assert file.metadata == {
        "general.architecture": "llama",
        "a.list": ["x", "yy"],
        "a.numbers": [1, 2],
        "a.flag": True,
        "a.f": 0.5,
    }
    assert file.tensors["a"].shape == (2, 4) and bytes(file.tensors["a"].data) == bytes(range(32))
    assert file.tensors["b"].nbytes == 18 and file.tensors["b"].data.readonly


def test_version_2_and_alignment(tmp_path: Path) -> None:
    content = gguf({"general.alignment": 64}, [tensor_info("a", (4,), 0, 64)], bytes(80), version=2, alignment=64)
    assert GGUFFile(write(tmp_path / "m", content)).tensors["a"].offset % 64 == 0


def test_arrays_outlive_close(tmp_path: Path) -> None:
    file = GGUFFile(write(tmp_path / "m", small_file()))
    array = np.frombuffer(file.tensors["a"].data, np.uint8)
    file.close()
    file.close()
    assert array[31] == 31 and file.metadata["a.flag"] is True


def test_close_unmaps(tmp_path: Path) -> None:
    path = write(tmp_path / "m", small_file())
    GGUFFile(path).close()
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_is_gguf_looks_at_the_content(tmp_path: Path) -> None:
    assert is_gguf(write(tmp_path / "no-suffix", small_file()))
    assert not is_gguf(write(tmp_path / "x.gguf", b"GG"))
    assert not is_gguf(tmp_path) and not is_gguf(tmp_path / "missing")


def test_invalid_utf8_is_read_as_replacement(tmp_path: Path) -> None:
    content = gguf({"a": ["xx", "y"], "b": "zz"}).replace(b"xx", b"\xffx").replace(b"zz", b"\xfez")
    assert GGUFFile(write(tmp_path / "m", content)).metadata == {"a": ["\ufffdx", "y"], "b": "\ufffdz"}


def header(n_tensors: int = 0, n_keys: int = 0, rest: bytes = b"", version: int = 3) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, n_tensors, n_keys) + rest


def key(name: str, rest: bytes) -> bytes:
    return header(n_keys=1, rest=gguf_files.string(name) + rest)


HOSTILE = {
    "empty": (b"", "too short"),
    "short": (b"GGUF\x03\0\0\0", "too short"),
    "magic": (b"GGML" + header()[4:], "does not start with the GGUF magic"),
    "big endian": (struct.pack(">4sIQQ", b"GGUF", 3, 0, 0), "big-endian"),
    "version 1": (header(version=1), "GGUF version 1"),
    "version 4": (header(version=4), "GGUF version 4"),
    "many keys": (header(n_keys=1 << 62), "claims"),
    "many tensors": (header(n_tensors=1 << 40), "claims"),
    "long key": (header(n_keys=1, rest=struct.pack("<Q", 1 << 63) + bytes(16)), "ends within a metadata key"),
    "key no utf-8": (header(n_keys=1, rest=gguf_files.string(b"\xff") + bytes(16)), "not UTF-8"),
    "long string": (key("k", struct.pack("<IQ", 8, 1 << 50)), "ends within the value of 'k'"),
    "unknown type": (key("k", struct.pack("<IQ", 13, 0)), "unknown type 13"),
    "nested array": (key("k", struct.pack("<IIQ", 9, 9, 1)), "unknown type 9"),
    "long array": (key("k", struct.pack("<IIQ", 9, 0, 1 << 60)), "claims"),
    "array past end": (key("k", struct.pack("<IIQ", 9, 6, 1 << 20)), "ends within"),
    "strings past end": (key("k", struct.pack("<IIQ", 9, 8, 1 << 20)), "ends within"),
    "string in array past end": (key("k", struct.pack("<IIQQ", 9, 8, 1, 99)), "ends within"),
    "duplicate key": (header(n_keys=2, rest=2 * (gguf_files.string("k") + gguf_files.value(1))), "twice"),
    "alignment": (gguf({"general.alignment": 48}), "no power of two"),
    "alignment 0": (gguf({"general.alignment": 0}), "no power of two"),
    "alignment type": (gguf({"general.alignment": "32"}), "no power of two"),
    "dimensions": (gguf({}, [tensor_info("t", (1,) * 5, 0, 0)], bytes(32)), "5 dimensions"),
    "no dimension": (gguf({}, [tensor_info("t", (), 0, 0)], bytes(32)), "0 dimensions"),
    "zero dimension": (gguf({}, [tensor_info("t", (32, 0), 0, 0)], bytes(32)), "empty shape"),
    "huge shape": (gguf({}, [tensor_info("t", (1 << 63, 1 << 63), 0, 0)], bytes(32)), "ends within the data"),
    "unknown tensor type": (gguf({}, [tensor_info("t", (32,), 36, 0)], bytes(32)), "unknown type 36"),
    "no whole blocks": (gguf({}, [tensor_info("t", (33,), 2, 0)], bytes(64)), "no whole Q4_0 blocks of 32"),
    "offset": (gguf({}, [tensor_info("t", (8,), 0, 1)], bytes(64)), "no multiple of 32"),
    "offset past end": (gguf({}, [tensor_info("t", (8,), 0, 1 << 62)], bytes(64)), "ends within the data"),
    "truncated data": (gguf({}, [tensor_info("t", (8,), 0, 0)], bytes(31)), "ends within the data"),
    "duplicate tensor": (gguf({}, [tensor_info("t", (8,), 0, 0)] * 2, bytes(64)), "the tensor 't' twice"),
    "overlap": (
        gguf({}, [tensor_info("t", (16,), 0, 0), tensor_info("u", (8,), 0, 32)], bytes(64)),
        "'t' and 'u' overlap",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_refused(tmp_path: Path, name: str) -> None:
    content, expected = HOSTILE[name]
    tracemalloc.start()
    message = refused(tmp_path / "m.gguf", content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert expected in message
    assert peak < 1 << 20


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ModelError, match="cannot be opened"):
            GGUFFile(path)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    end=st.integers(0, len(small_file())),
    flips=st.lists(st.tuples(st.integers(0, len(small_file()) - 1), st.integers(0, 255)), max_size=4),
)
def test_mutated_file_is_read_or_refused(tmp_path: Path, end: int, flips: list[tuple[int, int]]) -> None:
    content = bytearray(small_file())
    for at, byte in flips:
        content[at] = byte
    path = write(tmp_path / "m", bytes(content[:end] if end % 2 else content))
    try:
        file = open_gguf(path)
        assert all(len(tensor.data) == tensor.nbytes for tensor in file.tensors.values())
        file.close()
    except ModelError as error:
        assert "\n" not in str(error).replace(str(path), "")


def write_split(folder: Path, count: int = 2, **changes: Any) -> Path:
    for i in range(count):
        metadata = {"split.no": i, "split.count": count, "split.tensors.count": count, **changes}
        content = gguf(metadata, [tensor_info(f"t{i}", (8,), 0, 0)], bytes([i] * 32))
        write(folder / f"m-{i + 1:05}-of-{count:05}.gguf", content)
    return folder / f"m-00001-of-{count:05}.gguf"


def test_split_file_is_one(tmp_path: Path) -> None:
    write_split(tmp_path, 3)
    for i in (1, 3):
        file = open_gguf(tmp_path / f"m-{i:05}-of-00003.gguf")
        assert sorted(file.tensors) == ["t0", "t1", "t2"]
        assert bytes(file.tensors["t2"].data) == bytes([2] * 32)
        file.close()


def test_wrong_splits_are_refused(tmp_path: Path) -> None:
    first = write_split(tmp_path, 2)
    second = tmp_path / "m-00002-of-00002.gguf"
    other = write(tmp_path / "other.gguf", first.read_bytes())
    with pytest.raises(ModelError, match="one of 2 parts"):
        open_gguf(other)
    content = second.read_bytes()
    second.unlink()
    with pytest.raises(ModelError, match="00002-of-00002.gguf is missing"):
        open_gguf(first)
    write(second, first.read_bytes())
    with pytest.raises(ModelError, match="not part 2"):
        open_gguf(first)
    write(second, content.replace(b"t1", b"t0"))
    with pytest.raises(ModelError, match="'t0' of an earlier part"):
        open_gguf(first)
    write_split(tmp_path, 2, **{"split.tensors.count": 5})
    with pytest.raises(ModelError, match="hold 2 tensors, not the 5"):
        open_gguf(first)


@pytest.mark.parametrize("count", [2.5, "2", [2, 2], [7] * 9999, (1 << 32) - 1])
def test_a_number_of_parts_that_lies_is_refused(tmp_path: Path, count: Any) -> None:
    path = tmp_path / "m-00001-of-00002.gguf"
    with pytest.raises(ModelError) as caught:
        open_gguf(write(path, gguf({"split.no": 0, "split.count": count}, [tensor_info("t", (8,), 0, 0)], bytes(32))))
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


LLAMA: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 1,
    "llama.context_length": 1024,
    "llama.embedding_length": 256,
    "llama.feed_forward_length": 512,
    "llama.attention.head_count": 4,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}


def config_of(
    path: Path,
    metadata: dict[str, Any],
    tensors: tuple[str, ...] = ("token_embd.weight",),
) -> dict[str, Any]:
    infos = [tensor_info(name, (8, 1), 0, 32 * i) for i, name in enumerate(tensors)]
    return hf_config(GGUFFile(write(path, gguf(metadata, infos, bytes(32 * len(tensors))))))


def test_config_of_golden_file() -> None:
    file = open_gguf(GOLDEN / "tiny-BF16.gguf")
    config = hf_config(file)
    assert config["architectures"] == ["LlamaForCausalLM"] and config["model_type"] == "llama"
    expected = dict(hidden_size=256, intermediate_size=512, num_hidden_layers=1, num_attention_heads=4)
    expected |= dict(num_key_value_heads=2, head_dim=64, max_position_embeddings=1024, vocab_size=512)
    assert {name: config[name] for name in expected} == expected
    assert config["rms_norm_eps"] == 1e-5 and config["rope_theta"] == 10000.0 and config["rope_scaling"] is None
    assert config["tie_word_embeddings"]
    assert (config["bos_token_id"], config["eos_token_id"]) == (1, 2)
    assert set(hf_tensor_names(config, file.tensors).values()) == set(file.tensors)


def test_config_defaults_and_biases(tmp_path: Path) -> None:
    tensors = ("token_embd.weight", "output.weight", "blk.0.attn_q.bias", "rope_freqs.weight")
    config = config_of(tmp_path / "m", LLAMA, tensors)
    assert config["num_key_value_heads"] == 4 and config["head_dim"] == 64
    assert config["rope_scaling"] == {"rope_type": "llama3", "freq_factors": "rope_freqs.weight"}
    names = hf_tensor_names(config, tensors)
    assert names["lm_head.weight"] == "output.weight"
    assert names["model.layers.0.self_attn.q_proj.bias"] == "blk.0.attn_q.bias"
    assert "model.layers.0.mlp.up_proj.bias" not in names
    assert rows_permuted("model.layers.0.self_attn.k_proj.bias", config)
    assert not rows_permuted("model.layers.0.self_attn.v_proj.weight", config)


def test_config_rope_scaling(tmp_path: Path) -> None:
    scaling = {"type": "yarn", "factor": 4.0, "original_context_length": 256, "yarn_beta_fast": 32.0}
    metadata = LLAMA | {f"llama.rope.scaling.{name}": item for name, item in scaling.items()}
    assert config_of(tmp_path / "m", metadata)["rope_scaling"] == {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 256,
        "beta_fast": 32.0,
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"general.architecture": "mamba"}, "'mamba'"),
        ({"general.architecture": 3}, "general.architecture"),
        ({"general.architecture": None, "general.type": "imatrix"}, "is no model: it holds llama-imatrix's"),
        ({"general.architecture": "clip", "general.type": "mmproj"}, "is no model: it holds a projector"),
        ({"general.type": "adapter"}, "is no model: it holds a LoRA adapter; merge it"),
        ({"llama.block_count": None}, "lacks the metadata key 'llama.block_count'"),
        ({"llama.block_count": 1 << 30}, "claims 1073741824 layers"),
        ({"llama.attention.head_count": 0}, "no size"),
        ({"llama.embedding_length": "x"}, "holds no number"),
        ({"llama.expert_count": 8}, "claims 8 experts, but its routers have [] rows"),
        ({"llama.expert_count": 1, "llama.block_count": 2}, "llama.expert_used_count"),
        ({"llama.attention.key_length": math.inf}, "holds inf as 'llama.attention.key_length', which is no size"),
        ({"llama.pooling_type": math.inf}, "holds inf as 'llama.pooling_type'"),
        ({"llama.rope.scaling.type": "longrope"}, "lacks the tensor 'rope_factors_long.weight'"),
        ({"general.architecture": "x" * 9999}, "xxx...xxx"),
    ],
)
def test_wrong_config_is_refused(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    metadata = {name: item for name, item in (LLAMA | changes).items() if item is not None}
    with pytest.raises(ModelError) as caught:
        config_of(tmp_path / "m", metadata, ("token_embd.weight", "blk.1.ffn_gate_inp.weight"))
    assert expected in str(caught.value) and len(str(caught.value)) < 400


def test_rows_equal_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    path = GOLDEN / "tiny-BF16.gguf"
    model = transformers.AutoModelForCausalLM.from_pretrained(GOLDEN, gguf_file=path.name)
    file = open_gguf(path)
    config = hf_config(file)
    for hf_name, name in hf_tensor_names(config, file.tensors).items():
        tensor = file.tensors[name]
        if tensor.type_id == 30:
            rows = (np.frombuffer(tensor.data, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            rows = np.frombuffer(tensor.data, np.float32)
        rows = rows.reshape(tensor.shape)
        if rows_permuted(hf_name, config):
            rows = rows[unpermute_rows(len(rows) // config["head_dim"], config["head_dim"])]
        np.testing.assert_array_equal(rows, model.state_dict()[hf_name].float().numpy(), hf_name)


def test_reading_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = "import sys, octavo.weights.gguf; print([m for m in ('torch', 'transformers', 'gguf') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"

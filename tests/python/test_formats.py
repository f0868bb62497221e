"""The scalar references of every weight format, judged by the gguf package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from octavo import _core

gguf = pytest.importorskip("gguf")

GOLDEN = Path(__file__).parents[1] / "golden" / "gguf"
FORMATS = {row["name"]: row for row in _core.formats()}
FITTED = {"Q4_K", "Q5_K", "Q6_K"}  # gguf reads these only; how to choose their scales is left to the writer
EXACT = {"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"}  # octavo only reads the others
UNKNOWN = {"Q1_0", "Q2_0"}  # to the gguf package; llama.cpp's golden logits judge them (test_exact.py)

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

every_format = pytest.mark.parametrize("name", [name for name in FORMATS if name not in UNKNOWN])
every_exact_format = pytest.mark.parametrize("name", sorted(EXACT))


def judge_dequantize(name: str, blocks: Bytes) -> Floats:
    with np.errstate(invalid="ignore", over="ignore"):
        kind = gguf.GGMLQuantizationType[name]
        return np.ascontiguousarray(gguf.quants.dequantize(blocks, kind), dtype=np.float32).ravel()


def judge_quantize(name: str, values: Floats) -> Bytes:
    with np.errstate(over="ignore"):
        return gguf.quants.quantize(values, gguf.GGMLQuantizationType[name]).view(np.uint8).ravel()


def n_weights(name: str, blocks: Bytes) -> int:
    return blocks.size // FORMATS[name]["block_bytes"] * FORMATS[name]["block_size"]


def check_dequantize(name: str, blocks: Bytes) -> None:
    got = _core.dequantize(name, blocks, n_weights(name, blocks))
    want = judge_dequantize(name, blocks)
    assert got.dtype == np.float32
    same = (got.view(np.uint32) == want.view(np.uint32)) | (np.isnan(got) & np.isnan(want))
    assert same.all(), f"first at {np.argmin(same)}: {got[np.argmin(same)]} for {want[np.argmin(same)]}"


def relative_error(values: Floats, name: str) -> float:
    back = _core.dequantize(name, _core.quantize(name, values), values.size)
    return float(np.linalg.norm(back - values) / np.linalg.norm(values))


def golden_tensors(name: str) -> dict[str, Bytes]:
    reader = gguf.GGUFReader(GOLDEN / f"tiny-{name}.gguf")
    kind = gguf.GGMLQuantizationType[name]
    return {t.name: np.array(t.data).view(np.uint8).ravel() for t in reader.tensors if t.tensor_type == kind}


@every_format
def test_number_and_sizes(name: str) -> None:
    row = FORMATS[name]
    kind = gguf.GGMLQuantizationType[name]
    assert row["gguf_id"] == kind
    assert (row["block_size"], row["block_bytes"]) == gguf.GGML_QUANT_SIZES[kind]


@every_format
def test_dequantize_random_blocks(name: str) -> None:
    """Random bytes hold scales of every size, subnormal, infinite and NaN ones too."""
    random = np.random.default_rng(1)
    check_dequantize(name, random.integers(0, 256, 4096 * FORMATS[name]["block_bytes"], dtype=np.uint8))


@every_format
@pytest.mark.parametrize("byte", [0x00, 0x01, 0x7F, 0x80, 0xFF])
def test_dequantize_one_byte_throughout(name: str, byte: int) -> None:
    check_dequantize(name, np.full(2 * FORMATS[name]["block_bytes"], byte, dtype=np.uint8))


@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_dequantize_every_16_bit_pattern(name: str) -> None:
    check_dequantize(name, np.arange(1 << 16, dtype=np.uint16).view(np.uint8))


@every_format
def test_dequantize_golden_files(name: str) -> None:
    tensors = golden_tensors(name)
    assert tensors
    for blocks in tensors.values():
        check_dequantize(name, blocks)


def hard_values() -> list[Floats]:
    random = np.random.default_rng(2)
    normal = random.standard_normal((64, 256)).astype(np.float32)
    outliers = normal.copy()
    outliers[:, ::29] *= 1000
    return [
        *(normal * np.float32(scale) for scale in (1e-30, 1e-6, 1e-3, 1, 1e3, 1e6, 1e30)),
        normal + np.float32(5),
        normal - np.float32(5),
        np.abs(normal),
        outliers,
        np.where(random.random(normal.shape) < 0.9, np.float32(0), normal),
        random.integers(-64, 64, normal.shape).astype(np.float32) / 2,  # many ties
        np.zeros((1, 256), np.float32),
        np.full((1, 256), 0.3, np.float32),
        np.full((1, 256), -0.3, np.float32),
    ]


@every_exact_format
def test_quantize_gives_the_same_bytes(name: str) -> None:
    for values in hard_values():
        np.testing.assert_array_equal(_core.quantize(name, values.ravel()), judge_quantize(name, values))


@pytest.mark.parametrize("name", ["IQ2_XXS", "Q1_0"])
def test_a_format_that_is_only_read_says_so(name: str) -> None:
    with pytest.raises(ValueError, match=f"octavo reads {name} but does not write it"):
        _core.quantize(name, np.zeros(FORMATS[name]["block_size"], np.float32))


def test_one_bit_weights() -> None:
    """Q1_0: a half d, then a bit for each of 128 weights: d or -d."""
    blocks = np.zeros(18, np.uint8)
    blocks[:2] = np.frombuffer(np.float16(1.5).tobytes(), np.uint8)
    blocks[2:] = np.packbits(np.arange(128) % 3 == 0, bitorder="little")
    want = np.where(np.arange(128) % 3 == 0, 1.5, -1.5).astype(np.float32)
    np.testing.assert_array_equal(_core.dequantize("Q1_0", blocks, 128), want)


def test_two_bit_weights() -> None:
    """Q2_0: a half d, then two bits for each of 64 weights: -d, 0, d or 2 d."""
    quants = np.arange(64) * 7 % 4
    blocks = np.zeros(18, np.uint8)
    blocks[:2] = np.frombuffer(np.float16(-0.25).tobytes(), np.uint8)
    blocks[2:] = (quants.reshape(16, 4) << np.array([0, 2, 4, 6])).sum(axis=1)
    np.testing.assert_array_equal(_core.dequantize("Q2_0", blocks, 64), (quants - 1) * np.float32(-0.25))


@pytest.mark.parametrize("name", sorted(FITTED & FORMATS.keys()))
def test_fitted_blocks_read_the_same_elsewhere(name: str) -> None:
    for values in hard_values():
        check_dequantize(name, _core.quantize(name, values.ravel()))


@pytest.mark.parametrize(("name", "bound"), [("Q4_K", 0.08), ("Q5_K", 0.04), ("Q6_K", 0.02)])
def test_fitted_error_is_small(name: str, bound: float) -> None:
    random = np.random.default_rng(3)
    for scale in (1e-3, 1, 1e3):
        assert relative_error((random.standard_normal(1 << 14) * scale).astype(np.float32), name) < bound


@pytest.mark.parametrize("name", sorted(FITTED & FORMATS.keys()))
def test_fitted_error_is_near_that_of_the_golden_file(name: str) -> None:
    dense = {key: judge_dequantize("BF16", blocks) for key, blocks in golden_tensors("BF16").items()}
    for key, blocks in golden_tensors(name).items():
        theirs = float(np.linalg.norm(judge_dequantize(name, blocks) - dense[key]) / np.linalg.norm(dense[key]))
        assert relative_error(dense[key], name) < 1.05 * theirs

"""Names of models on this machine: folders, GGUF files, split GGUFs, files in installed packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from model_folders import GGUF, HF_MODEL, SAFETENSORS, TOKENIZER, index, write
from octavo.errors import InvalidTypeError, ModelError
from octavo.weights.gguf_names import pick_quantisation, quantisation
from octavo.weights.resolve import resolve_model, resolve_tokenizer

PARTS = tuple(f"m-Q4_0-0000{part}-of-00003.gguf" for part in (1, 2, 3))


def refusal(name: Any) -> str:
    """The sentence that refuses a name."""
    with pytest.raises(ModelError) as caught:
        resolve_model(name)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


def test_a_hf_folder(tmp_path: Path) -> None:
    write(tmp_path, HF_MODEL)
    found = resolve_model(str(tmp_path))
    assert (found.kind, found.folder, found.gguf_files) == ("hf", tmp_path, ())
    assert found.weight_files == (tmp_path / "model.safetensors",)
    assert resolve_model(tmp_path) == found
    assert resolve_tokenizer(tmp_path) == tmp_path


def test_a_sharded_hf_folder_prefers_safetensors(tmp_path: Path) -> None:
    shards = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    files = {"config.json": b"{}", "model.safetensors.index.json": index(*shards), "pytorch_model.bin": b""}
    write(tmp_path, {**files, **dict.fromkeys(shards, SAFETENSORS)})
    assert resolve_model(tmp_path).weight_files == tuple(tmp_path / shard for shard in shards)
    (tmp_path / shards[1]).unlink()
    assert shards[1] in refusal(tmp_path)


@pytest.mark.parametrize("shard", ["../outside.safetensors", "/etc/passwd", "", "..", "a\0b"])
def test_a_shard_outside_the_folder_is_refused(tmp_path: Path, shard: str) -> None:
    write(tmp_path, {"config.json": b"{}", "model.safetensors.index.json": index(shard)})
    assert "not the name of a file beside it" in refusal(tmp_path)


@pytest.mark.parametrize(
    "content", [b"[]", b"{}", b'{"weight_map": {}}', b'{"weight_map": 3}', b"{", b"[" * 100_000, b"\xff"]
)
def test_a_damaged_index_is_refused(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, {"config.json": b"{}", "model.safetensors.index.json": content})
    assert "model.safetensors.index.json" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["model.gguf", "model.GGUF", "0123abcd"])
def test_a_gguf_is_known_by_its_magic(tmp_path: Path, name: str) -> None:
    write(tmp_path, {name: GGUF})
    found = resolve_model(str(tmp_path / name))
    assert (found.kind, found.folder, found.weight_files, found.gguf_files) == (
        "gguf",
        tmp_path,
        (),
        (tmp_path / name,),
    )
    assert resolve_tokenizer(tmp_path / name) == tmp_path / name


@pytest.mark.parametrize("content", [b"", b"GGU", b"GGML", b"version https://git-lfs.github.com/spec/v1"])
def test_a_file_without_the_magic_is_refused(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, {"model.gguf": content, "model.bin": content})
    assert "not a GGUF file" in refusal(tmp_path / "model.gguf")
    assert "name its folder" in refusal(tmp_path / "model.bin")


def test_a_folder_with_one_gguf(tmp_path: Path) -> None:
    write(tmp_path, {"a.gguf": GGUF, "mmproj-a.gguf": GGUF, "config.json": b"{}"})
    assert resolve_model(tmp_path).gguf_files == (tmp_path / "a.gguf",)
    assert resolve_tokenizer(tmp_path) == tmp_path / "a.gguf"
    write(tmp_path, {"b.gguf": GGUF})
    message = refusal(tmp_path)
    assert "a.gguf, b.gguf" in message


def test_a_folder_with_weights_and_a_gguf_is_a_hf_folder(tmp_path: Path) -> None:
    write(tmp_path, {**HF_MODEL, "a.gguf": GGUF})
    assert resolve_model(tmp_path).kind == "hf"


@pytest.mark.parametrize("name", ["", *PARTS])
def test_a_split_gguf_is_whole_whichever_part_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path, dict.fromkeys(PARTS, GGUF))
    assert resolve_model(tmp_path / name).gguf_files == tuple(tmp_path / part for part in PARTS)
    (tmp_path / PARTS[1]).unlink()
    assert "2 of the 3 parts" in refusal(tmp_path / PARTS[0])


def test_every_part_of_a_split_gguf_has_the_magic(tmp_path: Path) -> None:
    write(tmp_path, {**dict.fromkeys(PARTS, GGUF), PARTS[2]: b"no"})
    assert PARTS[2] in refusal(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "/no/such/model.gguf",
        "./model",
        "../model",
        "~/no-such-model",
        "model.gguf",
        "model:Q4_0",
        "a model",
        "models/model.gguf",
        "models/llama/7b",
        "owner/model/",
        "owner/mo--del",
        "own..er/model",
        "owner/model:",
        "https://huggingface.co/owner/model",
        "x" * 5000,
        "\ud800",
        "",
        "  ",
        "a\0b",
    ],
)
def test_what_is_no_name_is_refused_without_a_request(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert "pkg://" in refusal(name)


@pytest.mark.parametrize("name", [None, 3, b"model", ["model"]])
def test_a_name_is_a_string_or_path(name: Any) -> None:
    with pytest.raises(InvalidTypeError, match="string or path"):
        resolve_model(name)


@pytest.mark.parametrize("revision", ["", "../main", "a b", "/main"])
def test_a_revision_is_a_plain_name(revision: str) -> None:
    with pytest.raises(ModelError, match="not a revision"):
        resolve_model("owner/model", revision=revision)


def test_an_empty_folder_and_a_folder_without_weights(tmp_path: Path) -> None:
    assert "no model" in refusal(tmp_path)
    write(tmp_path, {"config.json": b"{}"})
    assert "no model" in refusal(tmp_path)


def test_a_local_tokenizer(tmp_path: Path) -> None:
    write(tmp_path, TOKENIZER)
    assert resolve_tokenizer(tmp_path) == tmp_path
    assert resolve_tokenizer(tmp_path / "tokenizer.json") == tmp_path
    (tmp_path / "tokenizer.json").unlink()
    write(tmp_path, {"config.json": b"{}", "model.safetensors": SAFETENSORS})
    with pytest.raises(ModelError, match="no tokenizer"):
        resolve_tokenizer(tmp_path)


class TestPackages:
    @pytest.fixture(autouse=True)
    def package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """An installed package that must not be imported."""
        monkeypatch.syspath_prepend(str(tmp_path))
        write(tmp_path / "hf_in_package", HF_MODEL)
        return write(
            tmp_path / "shy_package", {"__init__.py": b"raise RuntimeError", "m.Q4_1.gguf": GGUF, "in/x": GGUF}
        )

    def test_a_file_and_a_folder(self, package: Path) -> None:
        found = resolve_model("pkg://shy_package/m.Q4_1.gguf")
        assert found.gguf_files == (package / "m.Q4_1.gguf",)
        assert found.name == "pkg://shy_package/m.Q4_1.gguf"
        assert resolve_model("pkg://shy_package/in/x").gguf_files == (package / "in" / "x",)
        assert "shy_package" not in sys.modules

    def test_a_missing_package(self) -> None:
        assert "not installed" in refusal("pkg://no_such_package/m.gguf")
        assert "not installed" in refusal("pkg://__main__/m.gguf")

    def test_a_missing_file_lists_what_there_is(self) -> None:
        assert "m.Q4_1.gguf" in refusal("pkg://shy_package/other.gguf")

    @pytest.mark.parametrize("name", ["pkg://", "pkg://shy_package", "pkg://a-b/x", "pkg://shy_package/../x"])
    def test_a_malformed_name(self, name: str) -> None:
        assert "pkg://package/path" in refusal(name)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-0.5b-instruct-q4_k_m.gguf", "q4_k_m"),
        ("gemma-3-1b-it-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("Phi-3-mini-4k-instruct-q4.gguf", "q4"),
        ("Phi-3-mini-4k-instruct-fp16.gguf", "fp16"),
        ("model.i1-IQ2_XXS.gguf", "i1-IQ2_XXS"),
        ("BF16/Qwen3-8B-BF16-00001-of-00002.gguf", "BF16"),
        ("Q8_0.gguf", "Q8_0"),
        ("folder/plain.gguf", "plain"),
    ],
)
def test_the_quantisation_in_a_file_name(name: str, label: str) -> None:
    assert quantisation(name) == label


def test_an_ambiguous_quantisation_lists_the_files() -> None:
    with pytest.raises(ModelError, match=r"a-Q4_0\.gguf, b-Q4_0\.gguf"):
        pick_quantisation("Q4_0", ["a-Q4_0.gguf", "b-Q4_0.gguf"], "owner/model")


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    path = write(tmp_path, {"m.gguf": GGUF}) / "m.gguf"
    script = (
        "import sys; from octavo.weights.resolve import resolve_model; resolve_model(sys.argv[1]); "
        "print({'huggingface_hub', 'torch', 'transformers', 'numpy', 'safetensors'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path], env=os.environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"

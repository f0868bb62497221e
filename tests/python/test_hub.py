"""Names on the hub, against a hub on loopback; each start is a process, as huggingface_hub reads its settings once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hub_server import COMMIT, HubServer, Repo
from model_folders import GGUF, HF_MODEL, SAFETENSORS, TOKENIZER, index, write

_START = """
import json, sys
from octavo.errors import ModelError
from octavo.weights.resolve import resolve_config, resolve_model, resolve_tokenizer
name, function, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
try:
    if function == "model":
        files = resolve_model(name, **options)
        parts = [str(path.relative_to(files.folder)) for path in files.weight_files + files.gguf_files]
        result = {"kind": files.kind, "folder": str(files.folder), "files": parts}
    else:
        resolve = resolve_config if function == "config" else resolve_tokenizer
        result = {"folder": str(resolve(name, **options))}
except ModelError as error:
    result = {"error": str(error)}
result["imported"] = "huggingface_hub" in sys.modules
print(json.dumps(result))
"""


def start(
    endpoint: str, home: Path, name: str, function: str = "model", env: Mapping[str, str] | None = None, **options: Any
) -> dict[str, Any]:
    """Resolve a name in a fresh process."""
    done = start_process(endpoint, home, name, function, env, **options)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert "\n" not in result.get("error", "")
    return result


def start_process(
    endpoint: str, home: Path, name: str, function: str, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "*", **(env or {})}
    command = [sys.executable, "-c", _START, name, function, json.dumps(options)]
    return subprocess.run(
        command, env={**inherited, **settings}, capture_output=True, text=True, timeout=120, check=False
    )


def fill_cache(home: Path, files: Mapping[str, bytes], repo: str = "owner/model", revision: str = "main") -> Path:
    """A hub cache in its real layout: blobs, links to them in a snapshot, and a ref."""
    root = home / "hub" / f"models--{repo.replace('/', '--')}"
    write(root / "refs", {revision: COMMIT.encode()})
    for number, (name, data) in enumerate(files.items()):
        write(root / "blobs", {f"{number:040x}": data})
        link = root / "snapshots" / COMMIT / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(root / "blobs" / f"{number:040x}", link.parent))
    return root


def test_a_model_is_fetched_once_and_needs_no_request_after(tmp_path: Path) -> None:
    with HubServer({"owner/model": Repo(HF_MODEL)}) as hub:
        first = start(hub.url, tmp_path, "owner/model")
        assert (first["kind"], first["files"]) == ("hf", ["model.safetensors"])
        assert Path(first["folder"], "config.json").read_bytes() == HF_MODEL["config.json"]
        assert hub.fetched == set(HF_MODEL)
        n_requests = len(hub.requests)
        second = start(hub.url, tmp_path, "owner/model")
        assert second == {**first, "imported": False}
        assert len(hub.requests) == n_requests


@pytest.mark.parametrize("absent", ["tokenizer.json", "tokenizer_config.json", "generation_config.json"])
def test_files_the_hub_does_not_have_are_asked_for_once(tmp_path: Path, absent: str) -> None:
    files = {name: data for name, data in HF_MODEL.items() if name != absent}
    with HubServer({"owner/model": Repo(files)}) as hub:
        start(hub.url, tmp_path, "owner/model")
        n_requests = len(hub.requests)
        assert start(hub.url, tmp_path, "owner/model")["kind"] == "hf"
        assert len(hub.requests) == n_requests


def test_only_needed_files_are_fetched(tmp_path: Path) -> None:
    shards = {f"model-0000{i}-of-00002.safetensors": SAFETENSORS for i in (1, 2)}
    needed = {
        **TOKENIZER,
        **shards,
        "config.json": b'{"architectures": ["BertModel"]}',
        "model.safetensors.index.json": index(*shards),
        "modules.json": b"[]",
        "1_Pooling/config.json": b"{}",
        "sentence_bert_config.json": b"{}",
        "chat_template.jinja": b"",
        "vocab.txt": b"",
    }
    others = dict.fromkeys(
        (
            "original/consolidated.00.pth",
            "original/tokenizer.model",
            "onnx/model.onnx",
            "onnx/config.json",
            "pytorch_model.bin",
            "tf_model.h5",
            "README.md",
            "model-Q4_0.gguf",
            "model.fp16.safetensors",
        ),
        b"x",
    )
    with HubServer({"owner/model": Repo({**needed, **others})}) as hub:
        found = start(hub.url, tmp_path, "owner/model")
        assert hub.fetched == set(needed)
        assert found["files"] == sorted(shards)
        n_requests = len(hub.requests)
        start(hub.url, tmp_path, "owner/model")
        assert len(hub.requests) == n_requests


def test_bin_is_fetched_where_there_is_no_safetensors(tmp_path: Path) -> None:
    files = {**HF_MODEL, "pytorch_model.bin": b"x", "flax_model.msgpack": b"x"}
    del files["model.safetensors"]
    with HubServer({"owner/model": Repo(files)}) as hub:
        assert start(hub.url, tmp_path, "owner/model")["files"] == ["pytorch_model.bin"]
        assert "flax_model.msgpack" not in hub.fetched


def test_a_tokenizer_is_fetched_alone(tmp_path: Path) -> None:
    with HubServer({"owner/model": Repo(HF_MODEL)}) as hub:
        folder = start(hub.url, tmp_path, "owner/model", "tokenizer")["folder"]
        assert hub.fetched == set(TOKENIZER)
        n_requests = len(hub.requests)
        assert start(hub.url, tmp_path, "owner/model", "tokenizer")["folder"] == folder
        assert len(hub.requests) == n_requests
        start(hub.url, tmp_path, "owner/model")
        assert hub.fetched == set(HF_MODEL)


def test_a_config_is_fetched_alone(tmp_path: Path) -> None:
    with HubServer({"owner/model": Repo(HF_MODEL), "owner/gguf": Repo({"m.gguf": GGUF})}) as hub:
        folder = start(hub.url, tmp_path, "owner/model", "config")["folder"]
        assert hub.fetched == {"config.json"} and Path(folder, "config.json").is_file()
        n_requests = len(hub.requests)
        assert start(hub.url, tmp_path, "owner/model", "config") == {"folder": folder, "imported": False}
        assert len(hub.requests) == n_requests
        start(hub.url, tmp_path, "owner/model")
        assert hub.fetched == set(HF_MODEL)
        assert "owner/gguf has no config.json" in start(hub.url, tmp_path, "owner/gguf", "config")["error"]


SENTENCE_MODEL = {
    **HF_MODEL,
    "config.json": b'{"architectures": ["BertModel"]}',
    "modules.json": json.dumps(
        [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
            {"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"},
            {"idx": 4, "name": "4", "path": "4_Normalize", "type": "sentence_transformers.models.Normalize"},
        ]
    ).encode(),
    "1_Pooling/config.json": b"{}",
    "2_Dense/config.json": b"{}",
    "2_Dense/model.safetensors": SAFETENSORS,
    "3_Dense/config.json": b"{}",
    "3_Dense/pytorch_model.bin": b"x",
    "sentence_bert_config.json": b"{}",
    "config_sentence_transformers.json": b"{}",
}


def test_all_modules_of_a_sentence_model_are_fetched(tmp_path: Path) -> None:
    others = dict.fromkeys(("2_Dense/pytorch_model.bin", "onnx/model.onnx", "openvino/openvino_model.bin"), b"x")
    with HubServer({"owner/model": Repo({**SENTENCE_MODEL, **others})}) as hub:
        folder = Path(start(hub.url, tmp_path, "owner/model")["folder"])
        assert hub.fetched == set(SENTENCE_MODEL)
        n_requests = len(hub.requests)
        assert start(hub.url, tmp_path, "owner/model")["imported"] is False
        assert len(hub.requests) == n_requests
        (folder / "2_Dense" / "model.safetensors").unlink()
        hub.requests.clear()
        start(hub.url, tmp_path, "owner/model")
        assert hub.fetched == {"2_Dense/model.safetensors"}


def test_a_module_that_the_hub_lacks_is_asked_for_once(tmp_path: Path) -> None:
    files = {name: data for name, data in SENTENCE_MODEL.items() if name != "1_Pooling/config.json"}
    with HubServer({"owner/model": Repo(files)}) as hub:
        start(hub.url, tmp_path, "owner/model")
        n_requests = len(hub.requests)
        assert start(hub.url, tmp_path, "owner/model")["imported"] is False
        assert len(hub.requests) == n_requests


def test_names_of_one_word(tmp_path: Path) -> None:
    with HubServer({"gpt2": Repo({**HF_MODEL, "pytorch_model.bin": b"x", "64.tflite": b"x"})}) as hub:
        first = start(hub.url, tmp_path, "gpt2")
        assert hub.fetched == set(HF_MODEL)
        assert Path(first["folder"]).parts[-3] == "models--gpt2"
        n_requests = len(hub.requests)
        assert start(hub.url, tmp_path, "gpt2") == {**first, "imported": False}
        assert start(hub.url, tmp_path, "gpt2", "tokenizer")["folder"] == first["folder"]
        assert len(hub.requests) == n_requests
        error = start(hub.url, tmp_path, "gpt3")["error"]
    assert "gpt3 is neither a local path nor a model" in error


def test_a_name_of_one_word_in_a_filled_cache(tmp_path: Path) -> None:
    files = {**HF_MODEL, "config.json": b'{"architectures": ["BertForMaskedLM"]}'}
    root = fill_cache(tmp_path, files, repo="bert-base-uncased")
    found = start("http://127.0.0.1:9", tmp_path, "bert-base-uncased", env={"HF_HUB_OFFLINE": "1"})
    assert (found["folder"], found["imported"]) == (str(root / "snapshots" / COMMIT), False)


def test_a_sentencepiece_model_is_a_tokenizer(tmp_path: Path) -> None:
    weights = {name: data for name, data in HF_MODEL.items() if name != "tokenizer.json"}
    files = {**weights, "sentencepiece.bpe.model": b"x"}
    with HubServer({"owner/model": Repo(files)}) as hub:
        folder = start(hub.url, tmp_path, "owner/model", "tokenizer")["folder"]
        assert hub.fetched == {"sentencepiece.bpe.model", "tokenizer_config.json"}
        assert Path(folder, "sentencepiece.bpe.model").is_file()


GGUF_REPO = {
    "README.md": b"",
    "Model-Q4_K_M.gguf": GGUF,
    "Model-UD-Q4_K_XL.gguf": GGUF + b"ud",
    "mmproj-F16.gguf": GGUF,
    "BF16/Model-BF16-00001-of-00002.gguf": GGUF + b"1",
    "BF16/Model-BF16-00002-of-00002.gguf": GGUF + b"2",
}


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("owner/model:Q4_K_M", {"Model-Q4_K_M.gguf"}),
        ("owner/model:ud-q4_k_xl", {"Model-UD-Q4_K_XL.gguf"}),
        ("owner/model:Q4_K_XL", {"Model-UD-Q4_K_XL.gguf"}),
        ("owner/model:BF16", {name for name in GGUF_REPO if "BF16" in name}),
        ("owner/model/Model-Q4_K_M.gguf", {"Model-Q4_K_M.gguf"}),
        ("owner/model/BF16/Model-BF16-00001-of-00002.gguf", {name for name in GGUF_REPO if "BF16" in name}),
    ],
)
def test_gguf_by_quantisation_and_by_file(tmp_path: Path, name: str, files: set[str]) -> None:
    with HubServer({"owner/model": Repo(GGUF_REPO)}) as hub:
        found = start(hub.url, tmp_path, name)
        assert found["kind"] == "gguf"
        assert found["files"] == sorted(file.rpartition("/")[2] for file in files)
        assert hub.fetched == files
        n_requests = len(hub.requests)
        assert start(hub.url, tmp_path, name) == {**found, "imported": False}
        assert start(hub.url, tmp_path, name, "tokenizer")["folder"] == f"{found['folder']}/{found['files'][0]}"
        assert len(hub.requests) == n_requests


def test_a_download_shows_its_progress(tmp_path: Path) -> None:
    with HubServer({"owner/model": Repo({"m.Q8_0.gguf": GGUF + bytes(1 << 20)})}) as hub:
        shown = [start_process(hub.url, tmp_path, "owner/model:Q8_0", "model").stderr for _ in range(2)]
    assert "100%|" in shown[0] and not shown[1]


def test_a_label_of_its_own_goes_before_a_marked_one(tmp_path: Path) -> None:
    files = {"m-UD-Q4_K_XL.gguf": GGUF, "m-Q4_K_XL.gguf": GGUF + b"own"}
    with HubServer({"owner/model": Repo(files)}) as hub:
        assert start(hub.url, tmp_path, "owner/model:UD-Q4_K_XL")["files"] == ["m-UD-Q4_K_XL.gguf"]
        offline = start(hub.url, tmp_path, "owner/model:Q4_K_XL", env={"HF_HUB_OFFLINE": "1"})
        assert offline["files"] == ["m-UD-Q4_K_XL.gguf"]
        assert start(hub.url, tmp_path, "owner/model:Q4_K_XL")["files"] == ["m-Q4_K_XL.gguf"]


def test_several_marked_labels_are_listed(tmp_path: Path) -> None:
    with HubServer({"owner/model": Repo({"m-UD-Q4_0.gguf": GGUF, "m.i1-Q4_0.gguf": GGUF})}) as hub:
        error = start(hub.url, tmp_path, "owner/model:Q4_0")["error"]
    assert "m-UD-Q4_0.gguf, m.i1-Q4_0.gguf" in error


def test_a_repository_with_one_gguf_needs_no_more_than_its_name(tmp_path: Path) -> None:
    with HubServer({"owner/model": Repo({"README.md": b"", "m.Q8_0.gguf": GGUF})}) as hub:
        assert start(hub.url, tmp_path, "owner/model")["files"] == ["m.Q8_0.gguf"]
        n_requests = len(hub.requests)
        assert start(hub.url, tmp_path, "owner/model")["files"] == ["m.Q8_0.gguf"]
        assert len(hub.requests) == n_requests


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("owner/model:Q8_0", ["Q8_0", "Q4_K_M", "UD-Q4_K_XL", "BF16"]),
        ("owner/model/other.gguf", ["other.gguf", "Model-Q4_K_M.gguf"]),
        ("owner/model", ["3 GGUF models", "Model-Q4_K_M.gguf"]),
        ("owner/empty", ["no model", "config.json"]),
        ("owner/nothing", ["owner/nothing", "neither", "HF_TOKEN"]),
    ],
)
def test_what_the_hub_does_not_have(tmp_path: Path, name: str, words: list[str]) -> None:
    with HubServer({"owner/model": Repo(GGUF_REPO), "owner/empty": Repo({"README.md": b""})}) as hub:
        error = start(hub.url, tmp_path, name)["error"]
    assert all(word in error for word in words), error


def test_a_missing_revision(tmp_path: Path) -> None:
    with HubServer({"owner/model": Repo(HF_MODEL)}) as hub:
        assert "no revision 'v2'" in start(hub.url, tmp_path, "owner/model", revision="v2")["error"]
        assert start(hub.url, tmp_path, "owner/model", revision=COMMIT)["kind"] == "hf"


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_model(tmp_path: Path, status: int) -> None:
    with HubServer({"owner/model": Repo(HF_MODEL, gated_status=status)}) as hub:
        error = start(hub.url, tmp_path, "owner/model")["error"]
        assert f"accept its terms at {hub.url}/owner/model" in error
        assert "HF_TOKEN" in error
        assert start(hub.url, tmp_path, "owner/model", hf_token="hf_x")["kind"] == "hf"
        assert start(hub.url, tmp_path / "b", "owner/model", env={"HF_TOKEN": "hf_x"})["kind"] == "hf"


def test_an_interrupted_download_is_told_and_taken_up_again(tmp_path: Path) -> None:
    repo = Repo({**HF_MODEL, "model.safetensors": bytes(1 << 20)}, cut={"model.safetensors"})
    with HubServer({"owner/model": repo}) as hub:
        error = start(hub.url, tmp_path, "owner/model")["error"]
        assert "start again" in error
        repo.cut.clear()
        hub.requests.clear()
        assert start(hub.url, tmp_path, "owner/model")["kind"] == "hf"
        assert hub.fetched == {"model.safetensors"}


@pytest.mark.parametrize(("status", "words"), [(403, "HF_TOKEN"), (500, "try again later"), (429, "answered 429")])
def test_a_hub_that_refuses(tmp_path: Path, status: int, words: str) -> None:
    with HubServer({"owner/model": Repo(HF_MODEL, broken_status=status)}) as hub:
        assert words in start(hub.url, tmp_path, "owner/model")["error"]


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    write(tmp_path, {"file": b""})
    with HubServer({"owner/model": Repo(HF_MODEL)}) as hub:
        error = start(hub.url, tmp_path, "owner/model", download_dir=str(tmp_path / "file"))["error"]
    assert "download_dir" in error


def test_no_network(tmp_path: Path) -> None:
    with HubServer({}) as hub:
        closed = hub.url
    error = start(closed, tmp_path, "owner/model")["error"]
    assert closed in error
    assert "HF_ENDPOINT" in error


def test_offline_with_a_filled_cache(tmp_path: Path) -> None:
    root = fill_cache(tmp_path, HF_MODEL)
    with HubServer({}) as hub:
        found = start(hub.url, tmp_path, "owner/model", env={"HF_HUB_OFFLINE": "1"})
        assert found == {
            "kind": "hf",
            "folder": str(root / "snapshots" / COMMIT),
            "files": ["model.safetensors"],
            "imported": False,
        }
        assert start(hub.url, tmp_path, "owner/model") == found
        assert hub.requests == []


def test_offline_takes_a_cache_that_may_lack_optional_files(tmp_path: Path) -> None:
    fill_cache(tmp_path, {"config.json": b'{"architectures": ["BertModel"]}', "pytorch_model.bin": b"x"})
    assert start("http://127.0.0.1:9", tmp_path, "owner/model", env={"HF_HUB_OFFLINE": "1"})["kind"] == "hf"


@pytest.mark.parametrize("name", ["owner/model", "owner/model:Q4_0", "owner/other"])
def test_offline_without_the_files(tmp_path: Path, name: str) -> None:
    fill_cache(tmp_path, {"config.json": b"{}", "model.safetensors.index.json": index("a.safetensors")})
    with HubServer({}) as hub:
        error = start(hub.url, tmp_path, name, env={"HF_HUB_OFFLINE": "1"})["error"]
        assert "HF_HUB_OFFLINE" in error
        assert str(tmp_path / "hub") in error
        assert hub.requests == []


def test_revisions_and_download_dir_in_a_filled_cache(tmp_path: Path) -> None:
    fill_cache(tmp_path / "home", HF_MODEL, revision="refs/pr/1")
    options: dict[str, Any] = {"revision": "refs/pr/1", "download_dir": str(tmp_path / "home" / "hub")}
    found = start("http://127.0.0.1:9", tmp_path / "other", "owner/model", **options)
    assert found["imported"] is False
    assert Path(found["folder"]).name == COMMIT


def test_a_link_to_a_deleted_blob_is_fetched_again(tmp_path: Path) -> None:
    with HubServer({"owner/model": Repo(HF_MODEL)}) as hub:
        folder = Path(start(hub.url, tmp_path, "owner/model")["folder"])
        (folder / "model.safetensors").resolve().unlink()
        assert start(hub.url, tmp_path, "owner/model")["kind"] == "hf"
        assert (folder / "model.safetensors").read_bytes() == SAFETENSORS

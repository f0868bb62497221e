"""Default sampling parameters from generation configs."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from octavo.errors import InvalidInputError
from octavo.generation_config import read_generation_config, resolve_generation_defaults
from octavo.sampling_params import SamplingParams

SHIPPED = {"temperature": 0.6, "top_p": 0.9, "top_k": 50, "do_sample": True, "eos_token_id": [2, 5], "min_p": None}


def folder_with(folder: Path, content: str) -> str:
    (folder / "generation_config.json").write_text(content)
    return str(folder)


def test_none_is_octavos_own_with_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        defaults = resolve_generation_defaults(None, SHIPPED)
    assert defaults.sampling_params() == SamplingParams()
    assert defaults.eos_token_ids == (2, 5)
    assert len(caplog.records) == 1
    assert "temperature=0.6" in caplog.text
    assert "generation_config='auto'" in caplog.text


def test_no_log_line_when_nothing_is_unused(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        resolve_generation_defaults(None, None)
        resolve_generation_defaults(None, {"eos_token_id": 2, "temperature": 1.0})
        resolve_generation_defaults("vllm", SHIPPED)
        resolve_generation_defaults("auto", SHIPPED)
    assert caplog.records == []


def test_unused_values_are_not_checked() -> None:
    assert resolve_generation_defaults(None, {"temperature": 7}).params == {}


def test_auto_takes_the_models() -> None:
    defaults = resolve_generation_defaults("auto", SHIPPED)
    assert defaults.params == {"temperature": 0.6, "top_p": 0.9, "top_k": 50}
    assert defaults.sampling_params() == SamplingParams(temperature=0.6, top_p=0.9, top_k=50)
    assert defaults.sampling_params() is not defaults.sampling_params()


def test_auto_without_a_config() -> None:
    defaults = resolve_generation_defaults("auto", None)
    assert (defaults.params, defaults.max_new_tokens, defaults.eos_token_ids) == ({}, None, ())


def test_folder(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, json.dumps({"temperature": 0.3, "eos_token_id": 9}))
    defaults = resolve_generation_defaults(folder, SHIPPED)
    assert (defaults.params, defaults.eos_token_ids) == ({"temperature": 0.3}, (9,))


@pytest.mark.parametrize(("limit", "expected"), [(8, (8, 8, 4)), (16, (16, 16, 4)), (100, (100, 20, 4))])
def test_max_new_tokens_is_default_and_limit(limit: int, expected: tuple[int, int, int]) -> None:
    defaults = resolve_generation_defaults("auto", {"max_new_tokens": limit})
    assert defaults.sampling_params().max_tokens == limit
    assert (defaults.capped(None), defaults.capped(20), defaults.capped(4)) == expected


def test_no_limit() -> None:
    defaults = resolve_generation_defaults("vllm", {"max_new_tokens": 8})
    assert (defaults.capped(None), defaults.capped(20)) == (None, 20)


@pytest.mark.parametrize("source", [None, "vllm", "auto"])
def test_override_goes_first_in_every_mode(source: str | None) -> None:
    defaults = resolve_generation_defaults(source, SHIPPED, {"temperature": 1.0, "max_new_tokens": 16, "top_p": 0.5})
    assert defaults.sampling_params().temperature == 1.0
    assert defaults.sampling_params().top_p == 0.5
    assert defaults.max_new_tokens == 16


def test_override_of_the_end_token() -> None:
    assert resolve_generation_defaults("auto", SHIPPED, {"eos_token_id": 3}).eos_token_ids == (3,)


def test_override_refuses_what_has_no_effect() -> None:
    with pytest.raises(InvalidInputError, match="'do_sample'"):
        resolve_generation_defaults("auto", SHIPPED, {"do_sample": False})


def test_bad_values_are_named() -> None:
    with pytest.raises(InvalidInputError, match=r"generation config has a value octavo cannot use: top_p"):
        resolve_generation_defaults("auto", {"top_p": 3})
    with pytest.raises(InvalidInputError, match="temperature"):
        resolve_generation_defaults(None, None, {"temperature": "hot"})


@pytest.mark.parametrize("content", ["{", "[1]", "\u0000"])
def test_damaged_files(tmp_path: Path, content: str) -> None:
    with pytest.raises(InvalidInputError, match="generation_config.json"):
        read_generation_config(folder_with(tmp_path, content))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read .*'auto'"):
        resolve_generation_defaults(str(tmp_path / "nowhere"))

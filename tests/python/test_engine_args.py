"""EngineArgs: defaults, checks and the command line."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.engine_args import EngineArgs
from octavo.errors import InvalidInputError, InvalidTypeError
from octavo.utils import FlexibleArgumentParser

NAMES = {field.name for field in fields(EngineArgs)}


def parse(*args: str) -> EngineArgs:
    return EngineArgs.from_cli_args(EngineArgs.add_cli_args(FlexibleArgumentParser()).parse_args(args))


def test_defaults() -> None:
    args = EngineArgs()
    assert args.model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert (args.seed, args.max_logprobs, args.generation_config) == (0, 20, None)
    assert (args.max_num_seqs, args.max_num_batched_tokens, args.max_model_len) == (None, None, None)


def test_the_command_line_has_every_field_and_the_same_defaults() -> None:
    namespace = EngineArgs.add_cli_args(FlexibleArgumentParser()).parse_args([])
    assert vars(namespace).keys() == NAMES
    assert EngineArgs(**vars(namespace)) == EngineArgs()
    assert EngineArgs.from_cli_args(namespace) == EngineArgs()


def test_a_group_takes_every_option_and_is_returned() -> None:
    parser = FlexibleArgumentParser()
    group = parser.add_argument_group("Engine arguments")
    assert EngineArgs.add_cli_args(group) is group
    group.set_defaults(model="other/model")
    assert parser.parse_args([]).model == "other/model"
    text = parser.format_help()
    assert all(f"--{name.replace('_', '-')}" in text for name in NAMES)
    assert "Scheduler:" not in text


def test_a_plain_parser_works_too() -> None:
    parser = argparse.ArgumentParser()
    assert EngineArgs.add_cli_args(parser) is parser
    namespace = parser.parse_args(["--enforce-eager", "--max-model-len", "4k"])
    assert (namespace.enforce_eager, namespace.max_model_len) == (True, 4000)


def test_the_pages_defaults_can_be_set() -> None:
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
    parser.set_defaults(model="a/b", task="classify", enforce_eager=True)
    args = EngineArgs(**vars(parser.parse_args([])))
    assert (args.model, args.enforce_eager, args.resolve_runner()) == ("a/b", True, ("pooling", "classify"))


def test_every_option_tells_its_effect_and_default() -> None:
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
    for action in parser._actions:
        if action.dest in NAMES:
            assert action.help is not None
            assert len(action.help) > len(" (default: %(default)s)") + 20, action.dest
    assert "(default: raw_logprobs)" in " ".join(parser.format_help().split())


def test_options_of_every_kind() -> None:
    args = parse(
        *("--max_model_len", "2K", "-tp", "2", "--no-enable-prefix-caching", "--hf-overrides.a.b", "1"),
        *("--cpu-offload-gb", "0.5", "-q", "gguf", "--hf-token", "--kv-cache-memory-bytes", "1G"),
        *("--disable-chunked-prefill", "--no-disable-log-stats", "--generation-config", "auto"),
    )
    assert (args.max_model_len, args.tensor_parallel_size, args.enable_prefix_caching) == (2048, 2, False)
    assert (args.hf_overrides, args.cpu_offload_gb, args.quantization) == ({"a": {"b": 1}}, 0.5, "gguf")
    assert (args.hf_token, args.kv_cache_memory_bytes) == (True, 2**30)
    assert (args.enable_chunked_prefill, args.disable_log_stats) == (False, False)
    assert args.generation_config == "auto"


@pytest.mark.parametrize(
    ("value", "expected"), [("auto", -1), (-1, -1), ("-1", -1), ("32k", 32000), (np.int64(7), 7), (None, None)]
)
def test_max_model_len(value: Any, expected: int | None) -> None:
    assert EngineArgs(max_model_len=value).max_model_len == expected
    if isinstance(value, str):
        assert parse(f"--max-model-len={value}").max_model_len == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_model_len", 0),
        ("max_model_len", "1.5K"),
        ("max_num_seqs", 0),
        ("max_num_batched_tokens", -1),
        ("num_threads", 0),
        ("tensor_parallel_size", 0),
        ("kv_cache_memory_bytes", 0),
        ("kv_cache_memory_bytes", "lots"),
        ("block_size", 0),
        ("max_logprobs", -2),
        ("cpu_offload_gb", -1.0),
        ("cpu_offload_gb", float("nan")),
        ("gpu_memory_utilization", 0.0),
        ("gpu_memory_utilization", 1.5),
        ("dtype", "int4"),
        ("runner", "draft"),
        ("scheduling_policy", "lifo"),
        ("quantization", "awq"),
        ("load_format", "tensorizer"),
        ("task", "transcription"),
        ("model", "\ud800"),
    ],
)
def test_wrong_values_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidInputError, match=rf"^{name}"):
        EngineArgs(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", None),
        ("model", 3),
        ("max_num_seqs", 1.5),
        ("max_num_seqs", True),
        ("enforce_eager", "yes"),
        ("hf_overrides", "x"),
        ("rope_scaling", [1]),
        ("hf_token", 3),
        ("swap_space", None),
    ],
)
def test_wrong_types_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidTypeError, match=rf"^{name}"):
        EngineArgs(**{name: value})  # type: ignore[arg-type]


def test_choices_are_named() -> None:
    with pytest.raises(ValueError, match=r"^scheduling_policy must be one of fcfs, priority, got 'lifo'\.$"):
        EngineArgs(scheduling_policy="lifo")


def test_other_spellings_of_a_value() -> None:
    class TorchFloat16:
        def __str__(self) -> str:
            return "torch.float16"

    args = EngineArgs(model=Path("a/b"), dtype=TorchFloat16(), seed=None)  # type: ignore[arg-type]
    assert (args.model, args.dtype, args.seed) == ("a/b", "float16", None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("max_model_length", "did you mean 'max_model_len'"),
        ("colour", "no argument 'colour'"),
        ("kv_transfer_config", "only makes sense for a server"),
        ("limit_mm_per_prompt", "only makes sense for multi-modal input"),
    ],
)
def test_unknown_arguments(name: str, message: str) -> None:
    with pytest.raises(InvalidTypeError, match=message) as caught:
        EngineArgs(**{name: 1})  # type: ignore[arg-type]
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("auto", "auto")),
        ({"task": "generate"}, ("generate", "none")),
        ({"task": "embed"}, ("pooling", "embed")),
        ({"task": "score"}, ("pooling", "classify")),
        ({"runner": "pooling"}, ("pooling", "auto")),
        ({"task": "embed", "runner": "pooling", "convert": "embed"}, ("pooling", "embed")),
    ],
)
def test_resolve_runner(given: dict[str, str], expected: tuple[str, str]) -> None:
    assert EngineArgs(**given).resolve_runner() == expected  # type: ignore[arg-type]


def test_task_and_runner_must_agree() -> None:
    with pytest.raises(InvalidInputError, match="task='embed' means runner='pooling'"):
        EngineArgs(task="embed", runner="generate")


def test_override_config() -> None:
    config = {"a": {"b": 1, "c": 2}, "d": 3}
    assert EngineArgs(hf_overrides={"a": {"b": 9}}).override_config(config) == {"a": {"b": 9, "c": 2}, "d": 3}
    assert EngineArgs(hf_overrides=lambda c: {**c, "d": 4}).override_config(config)["d"] == 4
    assert config == {"a": {"b": 1, "c": 2}, "d": 3}


@pytest.mark.parametrize(
    ("given", "config", "expected"),
    [
        ({"rope_theta": 5e5}, {"rope_theta": 1e4}, {"rope_theta": 5e5}),
        (
            {"rope_theta": 5e5},
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
            {"rope_type": "default", "rope_theta": 5e5},
        ),
        (
            {"rope_scaling": {"rope_type": "linear", "factor": 2}},
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8}},
            {"rope_theta": 1e4, "rope_type": "linear", "factor": 2},
        ),
    ],
)
def test_rope_arguments_replace_both_spellings(
    given: dict[str, Any], config: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert EngineArgs(**given).override_config(config)["rope_parameters"] == expected

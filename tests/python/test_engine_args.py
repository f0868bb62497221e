"""EngineArgs: defaults, checks and the command line."""

from __future__ import annotations

import argparse
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.engine_args import EngineArgs
from octavo.engine_compat import CompatibilityArgs
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
        ("pipeline_parallel_size", 2),
        ("data_parallel_size", 4),
        ("distributed_executor_backend", "slurm"),
        ("logits_processors", ["package:Class"]),
        ("num_gpu_blocks_override", 0),
        ("pooler_config", {"pooling_type": "MAX"}),
        ("load_format", "dummy"),
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
        ("pooler_config", "MEAN"),
        ("ignore_patterns", 3),
        ("compilation_config", "fast"),
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
        ("enable_lora", "LoRA adapters, which octavo does not run"),
        ("speculative_config", "speculative decoding, which octavo does not do"),
        ("structured_outputs_config", "give it in their structured_outputs"),
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


# What the Basic page's command lines and scripts of its time may pass, each with a value that must be taken.
ERA_OPTIONS = """
--tokenizer a/b --skip-tokenizer-init --revision main --code-revision main --tokenizer-revision main
--tokenizer-mode slow --trust-remote-code --download-dir /tmp --load-format auto --config-format auto --dtype half
--kv-cache-dtype auto --max-model-len 4k --guided-decoding-backend xgrammar --model-impl auto
--distributed-executor-backend mp --pipeline-parallel-size 1 -tp 1 --max-parallel-loading-workers 2 -dp 1
--ray-workers-use-nsight --block-size 16 --enable-prefix-caching --prefix-caching-hash-algo builtin
--disable-sliding-window --use-v2-block-manager --num-lookahead-slots 0 --seed 1 --swap-space 4 --cpu-offload-gb 1
--gpu-memory-utilization 0.8 --num-gpu-blocks-override 64 --max-num-batched-tokens 2048 --max-num-partial-prefills 1
--max-long-partial-prefills 1 --long-prefill-token-threshold 0 --max-num-seqs 8 --max-logprobs 5 -q gguf
--rope-theta 1e6 --hf-token t --enforce-eager --max-seq-len-to-capture 8192 --disable-custom-all-reduce
--tokenizer-pool-size 0 --tokenizer-pool-type ray --num-scheduler-steps 1 --multi-step-stream-outputs
--scheduler-delay-factor 0 --enable-chunked-prefill --device cpu --ignore-patterns *.bin --preemption-mode recompute
--scheduling-policy fcfs --scheduler-cls x.Y --worker-cls auto --generation-config auto --enable-sleep-mode
--calculate-kv-scales --disable-cascade-attn --disable-async-output-proc --use-tqdm-on-load --enable-expert-parallel
--enable-prompt-embeds --optimization-level 3 --cuda-graph-sizes 8 16 --safetensors-load-strategy lazy
--logprobs-mode raw_logprobs --async-scheduling --offload-backend uva --stream-interval 2 --watermark 0.01
--disable-log-stats --task embed --runner pooling --convert embed
""".split()


def test_options_of_older_and_newer_scripts_are_taken() -> None:
    extra = ("--compilation-config", '{"level": 3}', "--override-pooler-config.pooling_type", "MEAN")
    args = parse(*ERA_OPTIONS, *extra, "--pooler-config", '{"normalize": false}')
    assert (args.num_gpu_blocks_override, args.preemption_mode, args.cuda_graph_sizes) == (64, "recompute", [8, 16])
    assert args.compilation_config == {"level": 3}
    assert (args.pooler_config.last_step, args.override_pooler_config.sequence_pooling) == (False, "MEAN")  # type: ignore[union-attr]


def test_arguments_without_effect_come_last_and_say_so() -> None:
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
    assert next(iter(vars(parser.parse_args([])))) == "model"
    text = " ".join(parser.format_help().split())
    assert text.index("Scheduler:") < text.index("Compatibility:")
    for field in fields(CompatibilityArgs):
        assert re.match("No effect: .*|Must be 1: .*", field.metadata["option"].help), field.name


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"sliding_window": 64, "max_position_embeddings": 256}, (None, 64)),
        ({"sliding_window": 512, "max_position_embeddings": 256}, (None, 256)),
        ({"sliding_window": 64, "use_sliding_window": False, "max_position_embeddings": 256}, (64, 256)),
        ({"sliding_window": None, "max_position_embeddings": 256}, (None, 256)),
    ],
)
def test_disable_sliding_window(config: dict[str, Any], expected: tuple[int | None, int]) -> None:
    overridden = EngineArgs(disable_sliding_window=True).override_config(config)
    assert (overridden["sliding_window"], overridden["max_position_embeddings"]) == expected
    assert EngineArgs().override_config(config) == config

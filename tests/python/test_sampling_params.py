"""SamplingParams, BeamSearchParams and PoolingParams: what they accept, refuse and make of it."""

from __future__ import annotations

import copy
import logging
import pickle
import subprocess
import sys
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.errors import InvalidInputError, InvalidTypeError
from octavo.pooling_params import PoolingParams
from octavo.sampling_params import BeamSearchParams, RequestOutputKind, SamplingParams


def identity(token_ids: list[int], logits: Any) -> Any:
    return logits


def test_positional_order_and_defaults() -> None:
    names = [field.name for field in fields(SamplingParams)]
    assert names[:9] == [
        *("n", "presence_penalty", "frequency_penalty", "repetition_penalty"),
        *("temperature", "top_p", "top_k", "min_p", "seed"),
    ]
    params = SamplingParams()
    assert (params.n, params.temperature, params.top_p, params.top_k, params.max_tokens) == (1, 1.0, 1.0, 0, 16)
    assert params.output_kind is RequestOutputKind.CUMULATIVE
    assert (params.stop, params.stop_token_ids, params.bad_words) == ([], [], [])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 0),
        ("n", 16385),
        ("presence_penalty", 2.1),
        ("presence_penalty", float("nan")),
        ("frequency_penalty", -2.1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", float("inf")),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", float("nan")),
        ("top_k", -2),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("seed", 2**63),
        ("max_tokens", 0),
        ("min_tokens", -1),
        ("min_tokens", 17),
        ("logprobs", -2),
        ("prompt_logprobs", -2),
        ("stop", ""),
        ("stop", ["a", ""]),
        ("stop", "\ud800"),
        ("stop_token_ids", [-1]),
        ("bad_words", [""]),
        ("logit_bias", {1: float("inf")}),
        ("logit_bias", {-1: 1.0}),
        ("allowed_token_ids", []),
        ("allowed_token_ids", [-3]),
        ("truncate_prompt_tokens", 0),
        ("truncate_prompt_tokens", -2),
    ],
)
def test_wrong_value_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=field):
        SamplingParams(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", True),
        ("n", 1.0),
        ("n", None),
        ("temperature", "0.5"),
        ("temperature", True),
        ("temperature", None),
        ("top_k", 1.5),
        ("max_tokens", 16.0),
        ("max_tokens", np.float32(16)),
        ("max_tokens", np.bool_(True)),
        ("seed", "1"),
        ("logprobs", 1.5),
        ("stop", 3),
        ("stop", [3]),
        ("stop", b"x"),
        ("stop_token_ids", 3),
        ("stop_token_ids", "ab"),
        ("stop_token_ids", [1.0]),
        ("stop_token_ids", [True]),
        ("bad_words", [None]),
        ("ignore_eos", 1),
        ("detokenize", "yes"),
        ("output_kind", 1),
        ("logit_bias", [1]),
        ("logit_bias", {"1": 1.0}),
        ("logit_bias", {1: "x"}),
        ("allowed_token_ids", "12"),
        ("logits_processors", identity),
        ("logits_processors", [1]),
    ],
)
def test_wrong_type_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidTypeError, match=field):
        SamplingParams(**{field: value})


def test_errors_are_builtin_errors_in_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"^temperature must be a number from 0 to 2, got 3\.$"):
        SamplingParams(temperature=3)
    with pytest.raises(TypeError, match=r"^n must be an integer from 1 to 16384, got '2'\.$"):
        SamplingParams(n="2")  # type: ignore[arg-type]


def test_unknown_argument_suggests_the_close_one() -> None:
    with pytest.raises(InvalidTypeError, match=r"'max_token'; did you mean 'max_tokens'\?"):
        SamplingParams(max_token=3)  # type: ignore[call-arg]
    with pytest.raises(InvalidTypeError, match="cumulative_logprob"):
        SamplingParams(best_of=3)  # type: ignore[call-arg]


def test_numpy_scalars_become_plain() -> None:
    params = SamplingParams(
        n=np.int64(2),
        temperature=np.float32(0.5),
        ignore_eos=np.bool_(True),  # type: ignore[arg-type]
        stop_token_ids=np.array([5, 6]),  # type: ignore[arg-type]
        logit_bias={np.int32(4): np.float64(1.5)},
    )
    assert (type(params.n), type(params.temperature), params.ignore_eos) == (int, float, True)
    assert params.stop_token_ids == [5, 6]
    assert params.logit_bias == {4: 1.5}
    assert {type(key) for key in params.logit_bias} == {int}


def test_equal_spellings_become_one() -> None:
    params = SamplingParams(stop="END", seed=-1, logprobs=True, prompt_logprobs=False, stop_token_ids=(7, 7, 8))
    assert (params.stop, params.seed, params.logprobs, params.prompt_logprobs) == (["END"], None, 1, None)
    assert params.stop_token_ids == [7, 8]
    assert SamplingParams(bad_words=("a", "b", "a")).bad_words == ["a", "b"]


def test_stop_needs_text() -> None:
    with pytest.raises(InvalidInputError, match="detokenize"):
        SamplingParams(stop="x", detokenize=False)
    assert SamplingParams(detokenize=False).detokenize is False


def test_greedy_allows_one_sample() -> None:
    with pytest.raises(InvalidInputError, match=r"^n must be 1 when using greedy sampling, got 2\.$"):
        SamplingParams(n=2, temperature=0)


def test_greedy_drops_filters_only_when_normalized() -> None:
    params = SamplingParams(temperature=0, top_p=0.5, top_k=3, min_p=0.1)
    greedy = params.normalized()
    assert (greedy.temperature, greedy.top_p, greedy.top_k, greedy.min_p) == (0.0, 1.0, 0, 0.0)
    params.temperature = 1.0
    assert (params.top_p, params.top_k, params.min_p) == (0.5, 3, 0.1)
    assert params.normalized().top_p == 0.5


def test_tiny_temperatures(caplog: pytest.LogCaptureFixture) -> None:
    assert SamplingParams(temperature=1e-6).is_greedy
    with caplog.at_level(logging.WARNING):
        assert SamplingParams(temperature=0.001).temperature == 0.01
    assert "0.001" in caplog.text


def test_changes_after_construction_are_checked_when_normalized() -> None:
    params = SamplingParams()
    params.top_p, params.top_k, params.stop = np.float64(0.9), -1, "x"
    normal = params.normalized()
    assert (normal.top_p, normal.top_k, normal.stop) == (0.9, 0, ["x"])
    assert (params.top_k, params.stop) == (-1, "x")
    params.max_tokens = 0
    with pytest.raises(InvalidInputError, match="max_tokens"):
        params.normalized()


def test_clone_shares_nothing_but_processors() -> None:
    params = SamplingParams(stop=["a"], logit_bias={1: 2.0}, logits_processors=[identity])
    other = params.clone()
    assert other == params
    other.stop.append("b")  # type: ignore[union-attr]
    other.logit_bias[2] = 1.0  # type: ignore[index]
    assert (params.stop, params.logit_bias) == (["a"], {1: 2.0})
    assert other.logits_processors is not params.logits_processors
    assert other.logits_processors == [identity]


def test_copies_and_pickles_are_equal() -> None:
    params = SamplingParams(temperature=0.5, stop=["a"])
    assert copy.deepcopy(params) == params
    assert pickle.loads(pickle.dumps(params)) == params


def test_from_optional_reads_none_as_the_default() -> None:
    params = SamplingParams.from_optional(temperature=None, n=None, max_tokens=None, top_p=0.5)
    assert (params.temperature, params.n, params.max_tokens, params.top_p) == (1.0, 1, 16, 0.5)


def test_from_optional_clamps_logit_bias() -> None:
    assert SamplingParams.from_optional(logit_bias={"5": 200, 6: -101.0}).logit_bias == {5: 100.0, 6: -100.0}
    with pytest.raises(InvalidTypeError, match="logit_bias"):
        SamplingParams.from_optional(logit_bias={"five": 1})


@pytest.mark.parametrize(
    ("params", "named"),
    [
        (SamplingParams(logprobs=21), "logprobs=21"),
        (SamplingParams(prompt_logprobs=-1), "prompt_logprobs=-1"),
        (SamplingParams(stop_token_ids=[99, 100]), "stop_token_ids"),
        (SamplingParams(allowed_token_ids=[100]), "allowed_token_ids"),
        (SamplingParams(logit_bias={100: 1.0}), "logit_bias"),
    ],
)
def test_what_depends_on_the_model(params: SamplingParams, named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        params.validate_for_model(vocab_size=100, max_logprobs=20)


def test_no_limit_on_logprobs() -> None:
    params = SamplingParams(logprobs=-1, stop_token_ids=[99])
    params.validate_for_model(vocab_size=100, max_logprobs=-1)
    assert params.logprobs == -1


def test_repr_names_every_field() -> None:
    text = repr(SamplingParams(temperature=0.25))
    assert text.startswith("SamplingParams(n=1, ")
    assert "temperature=0.25" in text
    assert all(f"{field.name}=" in text for field in fields(SamplingParams))


@given(
    temperature=st.floats(0, 2),
    top_p=st.floats(0, 1, exclude_min=True),
    top_k=st.integers(-1, 1000),
    max_tokens=st.none() | st.integers(1, 10**6),
)
def test_normalized_is_idempotent(temperature: float, top_p: float, top_k: int, max_tokens: int | None) -> None:
    once = SamplingParams(temperature=temperature, top_p=top_p, top_k=top_k, max_tokens=max_tokens).normalized()
    assert once.normalized() == once
    assert once.top_k >= 0
    assert once.temperature == 0 or once.temperature >= 0.01


def test_beam_search_params() -> None:
    params = BeamSearchParams(beam_width=np.int64(4), max_tokens=8)
    assert (params.beam_width, params.temperature, params.length_penalty) == (4, 0.0, 1.0)
    for bad in ({"beam_width": 0}, {"max_tokens": 0}, {"length_penalty": float("nan")}, {"temperature": -1.0}):
        with pytest.raises(InvalidInputError, match=next(iter(bad))):
            BeamSearchParams(**{"beam_width": 2, "max_tokens": 8, **bad})  # type: ignore[arg-type]


def test_pooling_params() -> None:
    params = PoolingParams(use_activation=False, dimensions=np.int32(64))
    assert (params.use_activation, params.dimensions, type(params.dimensions)) == (False, 64, int)
    assert params.clone() == params
    with pytest.raises(InvalidInputError, match="dimensions"):
        PoolingParams(dimensions=0)
    with pytest.raises(InvalidTypeError, match="use_activation"):
        PoolingParams(use_activation=1)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="did you mean 'dimensions'"):
        PoolingParams(dimension=3)  # type: ignore[call-arg]


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "import octavo.sampling_params, octavo.pooling_params, octavo.outputs, octavo.inputs\n"
        "import octavo.engine_args, octavo.generation_config, octavo.utils\n"
        "print(sorted({'torch', 'transformers', 'huggingface_hub', 'yaml'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"

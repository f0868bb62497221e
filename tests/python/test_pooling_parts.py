"""The parts of pooling that need no model: last steps and parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from octavo import PoolingParams
from octavo.errors import InvalidInputError, InvalidTypeError
from octavo.pooling.activations import activate, normalize
from octavo.pooling.tokenization import pooling_options


@pytest.mark.parametrize(
    ("activation", "torch_name"), [("sigmoid", "Sigmoid"), ("softmax", "Softmax"), ("tanh", "Tanh")]
)
def test_last_steps_are_those_of_torch(activation: str, torch_name: str) -> None:
    import torch

    rows = np.array([[0.5, -3.0, 90.0], [-200.0, 0.0, 200.0], [1.0, 1.0, 1.0]], np.float32)
    module = getattr(torch.nn, torch_name)(*([-1] if torch_name == "Softmax" else []))
    np.testing.assert_allclose(activate(rows, activation), module(torch.tensor(rows)).numpy(), rtol=1e-6, atol=1e-30)


def test_normalize() -> None:
    import torch

    rows = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32) * np.float32(1e-20)
    rows[2] = 0
    normal = torch.nn.functional.normalize(torch.tensor(rows[:2].astype(np.float64) * 1e20), dim=-1).numpy()
    np.testing.assert_allclose(normalize(rows[:2] * np.float32(1e20)), normal, rtol=1e-6)
    assert normalize(rows)[2].tolist() == [0.0] * 8


@pytest.mark.parametrize(
    ("argument", "kwargs", "expected"),
    [
        (None, None, (None, "right", True)),
        (5, None, (5, "right", True)),
        (5, {"truncate_prompt_tokens": 6}, (5, "right", True)),
        (None, {"truncate_prompt_tokens": -1, "truncation_side": "left"}, (-1, "left", True)),
        (None, {"add_special_tokens": False}, (None, "right", False)),
    ],
)
def test_tokenization(argument: Any, kwargs: Any, expected: tuple[int | None, str, bool]) -> None:
    options = pooling_options(argument, kwargs)
    assert (options.limit, options.side, options.add_special_tokens) == expected


@pytest.mark.parametrize(
    ("argument", "kwargs", "error", "message"),
    [
        (0, None, InvalidInputError, "truncate_prompt_tokens must be at least 1"),
        ("5", None, InvalidTypeError, "truncate_prompt_tokens must be an integer"),
        (None, {"truncate": 3}, InvalidInputError, "no key 'truncate'"),
    ],
)
def test_wrong_tokenization(argument: Any, kwargs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pooling_options(argument, kwargs)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"dimensions": 0}, InvalidInputError, "dimensions"),
        ({"task": "generate"}, InvalidInputError, "task must be one of embed, classify"),
        ({"normalize": False, "use_activation": True}, InvalidInputError, "give use_activation alone"),
        ({"use_activation": 1}, InvalidTypeError, "use_activation must be True or False"),
        ({"step_tag_id": 3}, InvalidTypeError, "does not offer step_tag_id"),
        ({"dimension": 3}, InvalidTypeError, "did you mean 'dimensions'"),
    ],
)
def test_wrong_pooling_params(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PoolingParams(**given)


def test_pooling_params() -> None:
    params = PoolingParams(softmax=False)
    assert params.last_step is False
    assert params.clone() == params and params.clone() is not params
    assert PoolingParams().last_step is None

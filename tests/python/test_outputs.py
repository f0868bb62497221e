"""The output objects: fields, reprs and how later outputs are taken in."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from octavo.errors import InvalidInputError
from octavo.outputs import (
    ClassificationRequestOutput,
    CompletionOutput,
    EmbeddingRequestOutput,
    Logprob,
    PoolingOutput,
    PoolingRequestOutput,
    RequestOutput,
    RequestStateStats,
    ScoringRequestOutput,
)


def completion(index: int = 0, text: str = "ab", reason: str | None = None) -> CompletionOutput:
    return CompletionOutput(index, text, [1, 2], -0.5, [{1: Logprob(-0.5, 1, "a")}], finish_reason=reason)


def request(*outputs: CompletionOutput, finished: bool = False) -> RequestOutput:
    return RequestOutput("7", "hi", [3], None, list(outputs), finished)


def test_completion_repr() -> None:
    output = CompletionOutput(0, "a'b", [1, 2], None, None, finish_reason="stop", stop_reason=2)
    assert repr(output) == (
        'CompletionOutput(index=0, text="a\'b", token_ids=[1, 2], routed_experts=None, sampling_mask=None, '
        "cumulative_logprob=None, logprobs=None, finish_reason=stop, stop_reason=2)"
    )


def test_request_repr() -> None:
    assert repr(request()) == (
        "RequestOutput(request_id=7, prompt='hi', prompt_token_ids=[3], encoder_prompt=None, "
        "encoder_prompt_token_ids=None, prompt_logprobs=None, prompt_token_id_logprobs=None, outputs=[], "
        "finished=False, metrics=None, lora_request=None, num_cached_tokens=None, num_cache_creation_tokens=None)"
    )


def test_completion_is_finished_by_its_reason() -> None:
    assert not completion().finished()
    assert completion(reason="length").finished()


def test_unknown_arguments_are_ignored_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        output = RequestOutput("0", None, [1], None, [], True, colour="red")
    assert "colour" in caplog.text
    assert not hasattr(output, "colour")


def test_add_appends_deltas() -> None:
    whole = request(completion())
    whole.add(request(completion(text="cd", reason="stop"), completion(index=1), finished=True), aggregate=True)
    first, second = whole.outputs
    assert (first.text, first.token_ids, first.finish_reason) == ("abcd", [1, 2, 1, 2], "stop")
    assert first.logprobs == [{1: Logprob(-0.5, 1, "a")}] * 2
    assert (second.index, whole.finished) == (1, True)


def test_add_replaces_cumulative_outputs() -> None:
    whole = request(completion())
    whole.add(request(completion(text="abcd")), aggregate=False)
    assert [output.text for output in whole.outputs] == ["abcd"]
    assert not whole.finished


def test_adding_leaves_the_earlier_tokens_alone() -> None:
    tokens = (1, 2)
    output = CompletionOutput(0, "", tokens, None, None)
    output.extend(CompletionOutput(0, "", [3], None, None))
    assert (output.token_ids, tokens, output.logprobs) == ([1, 2, 3], (1, 2), None)


def test_stats_start_at_zero() -> None:
    stats = RequestStateStats(arrival_time=5.0)
    assert (stats.arrival_time, stats.num_generation_tokens, stats.first_token_latency) == (5.0, 0, 0.0)


def pooled(data: object) -> PoolingRequestOutput[PoolingOutput]:
    return PoolingRequestOutput("1", PoolingOutput(np.array(data)), [4, 5], 2, True)


def test_embedding_from_base() -> None:
    output = EmbeddingRequestOutput.from_base(pooled([0.5, 0.25]))
    assert output.outputs.embedding == [0.5, 0.25]
    assert repr(output) == (
        "EmbeddingRequestOutput(request_id='1', outputs=EmbeddingOutput(hidden_size=2), prompt_token_ids=[4, 5], "
        "num_cached_tokens=2, finished=True)"
    )


def test_classification_and_score_from_base() -> None:
    classes = ClassificationRequestOutput.from_base(pooled([0.1, 0.9])).outputs
    assert (classes.probs, repr(classes)) == ([0.1, 0.9], "ClassificationOutput(num_classes=2)")
    score = ScoringRequestOutput.from_base(pooled([0.5])).outputs
    assert (score.score, repr(score)) == (0.5, "ScoringOutput(score=0.5)")


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="1-D embedding vector"):
        EmbeddingRequestOutput.from_base(pooled([[0.5]]))
    with pytest.raises(InvalidInputError, match="1-D probability vector"):
        ClassificationRequestOutput.from_base(pooled(0.5))
    with pytest.raises(InvalidInputError, match="a scalar score"):
        ScoringRequestOutput.from_base(pooled([0.5, 0.5]))


def test_pooling_outputs_compare_all_values() -> None:
    assert PoolingOutput(np.array([1.0, 2.0])) == PoolingOutput(np.array([1.0, 2.0]))
    assert PoolingOutput(np.array([1.0, 2.0])) != PoolingOutput(np.array([1.0, 3.0]))
    assert PoolingOutput(np.array([1.0, 1.0])) != PoolingOutput(np.array([1.0]))
    assert PoolingOutput(np.array([1.0])) != "other"

"""The two graphs that a model takes: to generate, or to pool as a plan says."""

from __future__ import annotations

from typing import Any

from octavo import _core, nn
from octavo.errors import ModelError
from octavo.pooling.plan import PoolingPlan


def trace_model(model: nn.Model, plan: PoolingPlan | None, weights: nn.Weights) -> tuple[Any, Any]:
    """The core's graphs of the body, over all tokens, and of the head, over the rows that are asked for.

    Traces the model, which loads its weights on the way. Logits need the final norm of few rows only, so there it is
    part of the head; what is pooled is normed hidden states.

    Raises:
        ModelError: the hidden states are not as wide as the config says.
    """
    body = nn.Trace(_core.Graph(weights.store), weights)
    head = nn.Trace(_core.Graph(weights.store), weights)
    hidden = model.body(body)
    if hidden.width != model.hidden_size:
        raise ModelError(
            f"config.json gives a hidden_size of {model.hidden_size}, but the weights make hidden states of "
            f"{hidden.width}; fetch the model again."
        )
    if plan is not None:
        hidden = model.final_norm(hidden)
    rows = head.value(head.graph.gather(hidden.width))
    if plan is None:
        assert isinstance(model, nn.CausalLM)
        rows = model.logits(model.final_norm(rows))
    else:
        rows = _classes(rows, plan, model) if plan.head == "classify" else _dense(rows, plan)
    body.graph.set_output(hidden.index)
    head.graph.set_output(rows.index)
    return body.graph, head.graph


def _classes(rows: nn.Value, plan: PoolingPlan, model: nn.Model) -> nn.Value:
    return model.classify_token(rows) if plan.classifies_tokens else model.classify(rows)


def _dense(rows: nn.Value, plan: PoolingPlan) -> nn.Value:
    """Pooled hidden states after Sentence Transformers' linear layers."""
    for dense in plan.dense:
        rows = nn.Linear(f"{dense.name}.linear", bias=dense.bias)(rows)
        if dense.activation is not None:
            rows = nn.activation(dense.activation)(rows)
    return rows

"""What a model is run for, and the two graphs that this takes."""

from __future__ import annotations

from typing import Any, Literal

from octavo import _core, nn
from octavo.engine_args import EngineArgs
from octavo.errors import InvalidInputError

Task = Literal["generate", "embed", "classify"]

_CLASSIFIER = "ForSequenceClassification"


def resolve_task(args: EngineArgs, architecture: str, model: nn.Model) -> Task:
    """What the arguments ask for, else what the architecture is made for.

    Raises:
        InvalidInputError: the model cannot do what is asked for.
    """
    runner, convert = args.resolve_runner()
    classifies = architecture.endswith(_CLASSIFIER)
    generates = isinstance(model, nn.CausalLM) and not classifies
    if runner == "auto":
        is_language_model = generates and not architecture.endswith("Model")
        runner = "generate" if is_language_model and convert in ("auto", "none") else "pooling"
    if runner == "generate":
        if not generates:
            raise InvalidInputError(f"{architecture} cannot generate text; use runner='pooling', or leave it out.")
        return "generate"
    if convert in ("embed", "classify"):
        return "embed" if convert == "embed" else "classify"
    return "classify" if classifies else "embed"


def trace_model(model: nn.Model, task: Task, weights: nn.Weights) -> tuple[Any, Any]:
    """The core's graphs of the body, over all tokens, and of the head, over the rows that are asked for.

    Traces the model, which loads its weights on the way. Logits need the final norm of few rows only, so there it is
    part of the head; what is pooled is normed hidden states.
    """
    body = nn.Trace(_core.Graph(weights.store), weights)
    head = nn.Trace(_core.Graph(weights.store), weights)
    hidden = model.body(body)
    rows = head.value(head.graph.gather(model.hidden_size))
    if task == "generate":
        assert isinstance(model, nn.CausalLM)
        rows = model.logits(model.final_norm(rows))
    else:
        hidden = model.final_norm(hidden)
        rows = model.classify(rows) if task == "classify" else rows
    body.graph.set_output(hidden.index)
    head.graph.set_output(rows.index)
    return body.graph, head.graph

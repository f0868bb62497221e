"""Mixtures of experts."""

from __future__ import annotations

from collections.abc import Sequence

from octavo.nn.functional import activation_kind
from octavo.nn.trace import Part, Value

Expert = tuple[str | Part, str | Part, str | Part]  # gate, up, down


class MoE:
    """The weighted sum of the experts that a router rates highest (https://arxiv.org/abs/2401.04088).

    A softmax over all experts gives their shares, ties going to the first. The router computes in float32, whatever
    the model's dtype; experts have no biases.

    Attributes:
        router: Name of the linear that rates the experts.
        experts: The linears gate, up and down of each: down(activation(gate(x)) * up(x)).
        top_k: How many experts compute a token.
        normalize: Whether the chosen experts' shares are scaled to a sum of 1.
        activation: What config.json calls ``hidden_act``.
    """

    def __init__(
        self, router: str, experts: Sequence[Expert], *, top_k: int, normalize: bool, activation: str = "silu"
    ) -> None:
        self.router = Part(router)
        self.experts = [[part if isinstance(part, Part) else Part(part) for part in expert] for expert in experts]
        self.top_k = top_k
        self.normalize = normalize
        self.activation = activation_kind(activation)

    def __call__(self, x: Value) -> Value:
        weights = x.trace.weights
        index = x.trace.graph.moe(
            x.index,
            router=weights.linear(self.router, exact=True),
            experts=[[weights.linear(part) for part in expert] for expert in self.experts],
            top_k=self.top_k,
            normalize=self.normalize,
            activation=self.activation,
        )
        return x.trace.value(index)

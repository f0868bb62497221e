"""What the linears of a model meet: calibration text runs through transformers' model, layer by layer.

A layer's inputs are made by the quantised layers before it, so that it is fitted to what it will meet. One layer is in
float32 at a time, and layers that are done are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from octavo.errors import InvalidInputError

# transformers 5 stacks a layer's experts in one module, with whose inputs each expert's first linears are calibrated.
_STACK = "experts"
_FIRST_OF_EXPERT = re.compile(r".+\.experts\.\d+\.(w1|w3|gate_proj|up_proj)")


class Calibration:
    """A model of which one layer after the other is quantised."""

    def __init__(self, folder: Path, layers: Sequence[str], sequences: Sequence[Sequence[int]]) -> None:
        """Loads the model of ``folder``.

        Args:
            layers: Names of the modules, in the order in which they run.
            sequences: Token ids, all of one length.

        Raises:
            InvalidInputError: transformers cannot run the model.
        """
        import torch

        model = _load(folder)
        modules = {name: _module(model, name) for name in layers}
        ids = torch.tensor(sequences)[:, None]
        with torch.no_grad():
            calls = _calls(model, list(modules.values()), ids[0])
            self._states = [_first_states(model, modules[layers[0]], row) for row in ids]  # (1, tokens, hidden) each
        self._layers = {name: Layer(name, modules[name], *call) for name, call in zip(layers, calls, strict=True)}

    @contextmanager
    def layer(self, name: str) -> Iterator[Layer]:
        """The next layer, with its H; what it computes when the context ends is what the layer after it meets."""
        import torch

        layer = self._layers.pop(name)
        with torch.no_grad():
            layer.module.float()
            with layer.observed():
                for states in self._states:
                    layer(states)
            yield layer
            self._states = [layer(states) for states in self._states]
        layer.module.to("meta")


class Layer:
    """A layer of the model, and H of the inputs of its linears."""

    def __init__(self, name: str, module: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        self.module = module
        self._prefix = f"{name}."
        self._linears = _linears(module)
        self._args = args  # those after the hidden states
        self._kwargs = kwargs
        self._hessians: dict[str, Any] = {}
        self._same_inputs: dict[str, str] = {}  # linear -> the one that H is kept for

    def __call__(self, states: Any) -> Any:
        outputs = self.module(states, *self._args, **self._kwargs)
        return outputs[0] if isinstance(outputs, tuple) else outputs

    def hessian(self, linear: str) -> Any:
        """H (k, k) of the inputs of ``linear``; None where they are not seen, or are zero."""
        local = linear.removeprefix(self._prefix)
        if local not in self._linears and _FIRST_OF_EXPERT.fullmatch(linear):
            local = _STACK
        found = self._hessians.get(self._same_inputs.get(local, ""))
        return found if found is not None and found.any() else None

    def replace(self, linear: str, weight: Any) -> None:
        """Computes with another ``weight`` from now on; stacked experts stay as they are."""
        module = self._linears.get(linear.removeprefix(self._prefix))
        if module is not None:
            module.weight.data = weight

    @contextmanager
    def observed(self) -> Iterator[None]:
        """Within it, the inputs of all linears are added to their H."""
        last: tuple[Any, str] = None, ""  # linears with the same inputs follow each other

        def observe(name: str, inputs: Any) -> None:
            nonlocal last
            if inputs is not last[0]:
                last = inputs, name
                rows = inputs.flatten(0, -2)
                self._hessians[name] = self._hessians.get(name, 0) + rows.T @ rows
            self._same_inputs[name] = last[1]

        hooks = [
            module.register_forward_pre_hook(lambda _, inputs, name=name: observe(name, inputs[0]))
            for name, module in self._linears.items()
        ]
        yield
        for hook in hooks:
            hook.remove()


def _load(folder: Path) -> Any:
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(folder)
        architecture = getattr(transformers, config.architectures[0])
        config.use_cache = False
        return architecture.from_pretrained(folder, config=config, dtype="auto").eval()
    except (AttributeError, ImportError, OSError, ValueError) as error:
        raise InvalidInputError(f"transformers cannot load {folder}, which calibration needs: {error}") from error


def _module(model: Any, name: str) -> Any:
    """The module ``name``, which a checkpoint of the model without its head names without a prefix."""
    modules = dict(model.named_modules())
    found = modules.get(name, modules.get(f"{model.base_model_prefix}.{name}"))
    if found is None:
        raise InvalidInputError(f"transformers has no module {name} in this model, and so cannot calibrate it.")
    return found


def _linears(layer: Any) -> dict[str, Any]:
    """The linears of a layer by their names in it, and its stacked experts."""
    import torch

    found = {name: module for name, module in layer.named_modules() if isinstance(module, torch.nn.Linear)}
    for module in layer.modules():
        if any(weight.ndim == 3 for weight in module.parameters(recurse=False)):
            found[_STACK] = module
    return found


def _calls(model: Any, layers: Sequence[Any], ids: Any) -> list[tuple[Any, dict[str, Any]]]:
    """What each layer is called with for the token ids (1, tokens), besides its hidden states."""
    calls: dict[Any, tuple[Any, dict[str, Any]]] = {}

    def observe(layer: Any, args: Any, kwargs: dict[str, Any]) -> None:
        calls[layer] = _in_float32(args[1:]), {name: _in_float32(value) for name, value in kwargs.items()}

    hooks = [layer.register_forward_pre_hook(observe, with_kwargs=True) for layer in layers]
    model(ids)
    for hook in hooks:
        hook.remove()
    return [calls[layer] for layer in layers]


def _in_float32(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_in_float32, value))
    return value.float() if hasattr(value, "is_floating_point") and value.is_floating_point() else value


class _FoundError(Exception):
    """Ends a run of the model at its first layer."""


def _first_states(model: Any, first: Any, ids: Any) -> Any:
    """(1, tokens, hidden) what the first layer gets for the token ids (1, tokens), in float32."""
    states: list[Any] = []

    def observe(_: Any, args: Any) -> None:
        states.append(args[0].float())
        raise _FoundError

    hook = first.register_forward_pre_hook(observe)
    try:
        model(ids)
    except _FoundError:
        pass
    hook.remove()
    return states[0]

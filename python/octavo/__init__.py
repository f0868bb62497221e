"""octavo: offline LLM inference.

from octavo import LLM, SamplingParams

llm = LLM("owner/model-GGUF:Q4_K_M")
for output in llm.generate(["The capital of France is"], SamplingParams(temperature=0, max_tokens=16)):
    print(output.outputs[0].text)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from octavo._core import __version__ as __version__
    from octavo.engine_args import EngineArgs as EngineArgs
    from octavo.errors import OctavoError as OctavoError
    from octavo.llm import LLM as LLM
    from octavo.outputs import CompletionOutput as CompletionOutput
    from octavo.outputs import RequestOutput as RequestOutput
    from octavo.pooling.config import PoolerConfig as PoolerConfig
    from octavo.pooling_outputs import ClassificationRequestOutput as ClassificationRequestOutput
    from octavo.pooling_outputs import EmbeddingRequestOutput as EmbeddingRequestOutput
    from octavo.pooling_outputs import PoolingRequestOutput as PoolingRequestOutput
    from octavo.pooling_outputs import ScoringRequestOutput as ScoringRequestOutput
    from octavo.pooling_params import PoolingParams as PoolingParams
    from octavo.prompt_types import TextPrompt as TextPrompt
    from octavo.prompt_types import TokensPrompt as TokensPrompt
    from octavo.sampling_params import SamplingParams as SamplingParams

# Public name -> where it is defined. Imported at first use, so that `import octavo` is light.
_EXPORTS = {
    "LLM": "octavo.llm",
    "SamplingParams": "octavo.sampling_params",
    "EngineArgs": "octavo.engine_args",
    "RequestOutput": "octavo.outputs",
    "CompletionOutput": "octavo.outputs",
    "PoolerConfig": "octavo.pooling.config",
    "PoolingParams": "octavo.pooling_params",
    "PoolingRequestOutput": "octavo.pooling_outputs",
    "EmbeddingRequestOutput": "octavo.pooling_outputs",
    "ClassificationRequestOutput": "octavo.pooling_outputs",
    "ScoringRequestOutput": "octavo.pooling_outputs",
    "TextPrompt": "octavo.prompt_types",
    "TokensPrompt": "octavo.prompt_types",
    "OctavoError": "octavo.errors",
    "__version__": "octavo._core",
}

__all__ = [
    "LLM",
    "ClassificationRequestOutput",
    "CompletionOutput",
    "EmbeddingRequestOutput",
    "EngineArgs",
    "OctavoError",
    "PoolerConfig",
    "PoolingParams",
    "PoolingRequestOutput",
    "RequestOutput",
    "SamplingParams",
    "ScoringRequestOutput",
    "TextPrompt",
    "TokensPrompt",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'octavo' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)

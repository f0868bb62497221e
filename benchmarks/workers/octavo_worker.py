"""octavo: its own tokens, sampling included, no prefix from the cache; bf16 for folders, as stored for GGUF files."""

from __future__ import annotations

import os

from serve import Generate, serve


def load(model: str, n_threads: int) -> tuple[str, Generate]:
    from octavo import LLM, SamplingParams, __version__

    dtype = "bfloat16" if os.path.isdir(model) else "auto"
    llm = LLM(model, dtype=dtype, num_threads=n_threads, enable_prefix_caching=False, skip_tokenizer_init=True)

    def generate(prompts: list[list[int]], n_output: int) -> int:
        params = SamplingParams(temperature=0, max_tokens=n_output, ignore_eos=True, detokenize=False)
        outputs = llm.generate(prompts, params, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    return __version__, generate


if __name__ == "__main__":
    serve(load)

"""vLLM: bf16, compiled as it comes, no prefix from the cache."""

from __future__ import annotations

from serve import Generate, serve

LONGEST = 1024  # tokens of a prompt and its output


def load(model: str, n_threads: int) -> tuple[str, Generate]:
    import vllm

    llm = vllm.LLM(
        model=model,
        dtype="bfloat16",
        skip_tokenizer_init=True,
        max_model_len=LONGEST,
        enable_prefix_caching=False,
    )

    def generate(prompts: list[list[int]], n_output: int) -> int:
        params = vllm.SamplingParams(temperature=0, max_tokens=n_output, ignore_eos=True, detokenize=False)
        outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    return vllm.__version__, generate


if __name__ == "__main__":
    serve(load)

"""OpenVINO GenAI: continuous batching over a folder that optimum-intel has exported."""

from __future__ import annotations

from serve import Generate, serve

CACHE_GB = 2
BATCHED_TOKENS = 4096


def load(model: str, n_threads: int) -> tuple[str, Generate]:
    import numpy as np
    import openvino
    import openvino_genai

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = CACHE_GB
    scheduler.max_num_batched_tokens = BATCHED_TOKENS
    scheduler.enable_prefix_caching = False
    pipeline = openvino_genai.ContinuousBatchingPipeline(model, scheduler, "CPU", {"INFERENCE_NUM_THREADS": n_threads})

    def generate(prompts: list[list[int]], n_output: int) -> int:
        config = openvino_genai.GenerationConfig(max_new_tokens=n_output, ignore_eos=True, do_sample=False)
        inputs = [openvino.Tensor(np.array([ids], dtype=np.int64)) for ids in prompts]
        results = pipeline.generate(inputs, [config] * len(inputs))
        return sum(len(result.m_generation_ids[0]) for result in results)

    return openvino_genai.__version__, generate


if __name__ == "__main__":
    serve(load)

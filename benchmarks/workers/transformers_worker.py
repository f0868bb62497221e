"""transformers: bf16; the requests are one batch of prompts of the same length."""

from __future__ import annotations

import os

from serve import Generate, serve


def load(model: str, n_threads: int) -> tuple[str, Generate]:
    import torch
    import transformers

    torch.set_num_threads(n_threads)
    folder, file = (model, None) if os.path.isdir(model) else os.path.split(model)
    of_file = {} if file is None else {"gguf_file": file}
    language_model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, **of_file).eval()

    def generate(prompts: list[list[int]], n_output: int) -> int:
        ids = torch.tensor(prompts)
        with torch.inference_mode():
            outputs = language_model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=n_output,
                min_new_tokens=n_output,
                do_sample=False,
            )
        return int(outputs[:, ids.shape[1] :].numel())

    return transformers.__version__, generate


if __name__ == "__main__":
    serve(load)

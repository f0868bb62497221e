"""From the engine's arguments to a model that is ready to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octavo import _core, nn
from octavo import config as configs
from octavo.engine_args import CPU_MAX_NUM_BATCHED_TOKENS, CPU_MAX_NUM_SEQS, LARGEST_THAT_FITS, EngineArgs
from octavo.errors import InvalidInputError, ModelError
from octavo.generation_config import FILE_NAME, GenerationDefaults, read_generation_config, resolve_generation_defaults
from octavo.models import SUPPORTED_ARCHITECTURES, model_class
from octavo.tokenizer.load import load_tokenizer, tokenizer_from_gguf
from octavo.tokenizer.tokenizer import Tokenizer
from octavo.weights.gguf import GGUFFile
from octavo.weights.resolve import ModelFiles, resolve_model, resolve_tokenizer
from octavo.weights.source import Checkpoint, open_checkpoint, read_config
from octavo.weights.store import WeightLoader

_KV_SHARE = 0.5  # of the memory that is free once the weights are loaded
_SEED_BITS = 64


@dataclass(frozen=True)
class LoadedModel:
    """What an LLM needs to serve requests."""

    core: Any  # octavo._core.Engine
    tokenizer: Tokenizer | None
    config: Mapping[str, Any]
    defaults: GenerationDefaults
    max_model_len: int
    vocab_size: int  # rows of the embedding table: token ids are below it
    weight_bytes: int
    formats: Mapping[str, int]  # weight format -> tensors stored in it
    n_threads: int

    @property
    def eos_token_ids(self) -> list[int]:
        """Ids that end a generation: the tokenizer's and those of the generation config."""
        own = self.tokenizer.eos_token_ids if self.tokenizer else ()
        return sorted({*own, *self.defaults.eos_token_ids})


def load_model(args: EngineArgs) -> LoadedModel:
    """Resolves, maps, traces and repacks a model.

    Raises:
        ModelError: the model cannot be found, read or run.
        InvalidInputError: the arguments ask for what this model or machine cannot give.
    """
    _check_supported(args)
    files = resolve_model(args.model, revision=args.revision, hf_token=args.hf_token, download_dir=args.download_dir)
    raw, gguf = read_config(files)
    if args.hf_config_path is not None:
        raw = {**configs.load_config(resolve_tokenizer(args.hf_config_path)), **_gguf_facts(raw, gguf)}
    config = configs.normalize_config(args.override_config(raw))
    architecture = configs.check_architecture(config, SUPPORTED_ARCHITECTURES)
    tokenizer = None if args.skip_tokenizer_init else _load_tokenizer(args, files, gguf)
    shipped = _shipped_generation_config(files, config)
    defaults = resolve_generation_defaults(args.generation_config, shipped, args.override_generation_config)
    checkpoint = open_checkpoint(files, config, gguf)
    model = model_class(architecture)(nn.ModelConfig(config))
    return _build(args, model, checkpoint, config, tokenizer, defaults, gguf is not None)


def _check_supported(args: EngineArgs) -> None:
    runner, _ = args.resolve_runner()
    if runner == "pooling":
        raise InvalidInputError("octavo cannot run pooling models yet; use runner='generate' with a causal model.")
    if args.device == "cuda":
        raise InvalidInputError("octavo was built without a CUDA backend; use device='cpu'.")
    if args.tensor_parallel_size > 1:
        raise InvalidInputError("octavo runs on one device so far; use tensor_parallel_size=1.")


def _gguf_facts(raw: Mapping[str, Any], gguf: GGUFFile | None) -> dict[str, Any]:
    """What a GGUF knows better than a config.json from elsewhere: how its own tensors are laid out."""
    return {key: raw[key] for key in ("tie_word_embeddings", "vocab_size")} if gguf is not None else {}


def _load_tokenizer(args: EngineArgs, files: ModelFiles, gguf: GGUFFile | None) -> Tokenizer:
    if args.tokenizer is not None:
        path = resolve_tokenizer(
            args.tokenizer,
            revision=args.tokenizer_revision,
            hf_token=args.hf_token,
            download_dir=args.download_dir,
        )
        return load_tokenizer(path)
    return tokenizer_from_gguf(gguf) if gguf is not None else load_tokenizer(files.folder)


def _shipped_generation_config(files: ModelFiles, config: Mapping[str, Any]) -> dict[str, Any]:
    """The model's own generation config; where it ships none, the eos id of its config."""
    if files.kind == "hf" and (Path(files.folder) / FILE_NAME).is_file():
        return read_generation_config(files.folder)
    eos = config.get("eos_token_id")
    return {} if eos is None else {"eos_token_id": eos}


@contextmanager
def _progress_bar(total: int, enabled: bool) -> Iterator[Callable[[int], None]]:
    """Reports loaded bytes; the bar appears only when loading takes a while."""
    if not enabled or total < 1 << 30:
        yield lambda n: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="B", unit_scale=True, desc="Loading weights", dynamic_ncols=True) as bar:
        yield bar.update


def _build(
    args: EngineArgs,
    model: nn.CausalLM,
    checkpoint: Checkpoint,
    config: Mapping[str, Any],
    tokenizer: Tokenizer | None,
    defaults: GenerationDefaults,
    is_gguf: bool,
) -> LoadedModel:
    n_threads = args.num_threads or _core.usable_cpus()
    with _progress_bar(checkpoint.n_bytes, args.use_tqdm_on_load) as progress:
        loader = WeightLoader(checkpoint, n_threads, args.dtype, gguf=is_gguf, progress=progress)
        body, head = _trace(model, loader)
        loader.check_complete(model.ignored)
    vocab_size = int(config["vocab_size"])
    if tokenizer is not None and tokenizer.vocab_size > vocab_size:
        raise ModelError(
            f"The tokenizer has {tokenizer.vocab_size} tokens but the model's vocabulary only {vocab_size}; give the "
            "tokenizer that belongs to the model."
        )
    options = _engine_options(args, model, config, n_threads)
    return LoadedModel(
        core=_core.Engine(body, head, options),
        tokenizer=tokenizer,
        config=config,
        defaults=defaults,
        max_model_len=options.max_model_len,
        vocab_size=vocab_size,
        weight_bytes=loader.store.memory_bytes,
        formats=checkpoint.formats,
        n_threads=n_threads,
    )


def _trace(model: nn.CausalLM, loader: WeightLoader) -> tuple[Any, Any]:
    """The graphs of the model's body and head; loads the weights on the way."""
    body = nn.Trace(_core.Graph(loader.store), loader)
    body.graph.set_output(model.body(body).index)
    head = nn.Trace(_core.Graph(loader.store), loader)
    hidden = head.value(head.graph.gather(model.hidden_size))
    head.graph.set_output(model.head(hidden).index)
    return body.graph, head.graph


def _engine_options(args: EngineArgs, model: nn.CausalLM, config: Mapping[str, Any], n_threads: int) -> Any:
    options = _core.EngineOptions()
    options.n_threads = n_threads
    options.exact = _exact_cache(args)
    options.max_num_seqs = args.max_num_seqs or CPU_MAX_NUM_SEQS
    options.max_num_batched_tokens = args.max_num_batched_tokens or CPU_MAX_NUM_BATCHED_TOKENS
    options.enable_prefix_caching = args.enable_prefix_caching is not False
    options.enable_chunked_prefill = args.enable_chunked_prefill is not False
    options.priority_scheduling = args.scheduling_policy == "priority"
    options.seed = _engine_seed(args.seed)
    options.kv_cache_bytes = _kv_budget(args)
    per_token = model.kv_values_per_token * (4 if options.exact else 2)
    options.max_model_len = _max_model_len(args, config, options.kv_cache_bytes // per_token)
    return options


def _exact_cache(args: EngineArgs) -> bool:
    if args.kv_cache_dtype == "auto":
        return args.dtype in ("float32", "float")
    return args.kv_cache_dtype == "float32"


def _engine_seed(seed: int | None) -> int:
    if seed is None:
        import secrets

        return secrets.randbits(_SEED_BITS)
    return seed % (1 << _SEED_BITS)


def _kv_budget(args: EngineArgs) -> int:
    if args.kv_cache_memory_bytes is not None:
        return int(args.kv_cache_memory_bytes)
    return int(_core.available_memory() * _KV_SHARE)


def _max_model_len(args: EngineArgs, config: Mapping[str, Any], n_fit: int) -> int:
    longest = int(config.get("max_position_embeddings") or 2048)
    if args.max_model_len is None:
        return longest
    if args.max_model_len == LARGEST_THAT_FITS:
        return max(1, min(longest, n_fit))
    if int(args.max_model_len) > longest:
        raise InvalidInputError(
            f"max_model_len={args.max_model_len} is more than the {longest} positions that this model was made for; "
            "ask for less, or raise max_position_embeddings by hf_overrides if you know better."
        )
    return int(args.max_model_len)

"""From the engine's arguments to a model that is ready to run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from octavo import _core, nn
from octavo import config as configs
from octavo.engine_args import CPU_MAX_NUM_BATCHED_TOKENS, CPU_MAX_NUM_SEQS, LARGEST_THAT_FITS, EngineArgs
from octavo.errors import InvalidInputError, ModelError, OctavoError
from octavo.generation_config import FILE_NAME, GenerationDefaults, read_generation_config, resolve_generation_defaults
from octavo.models import SUPPORTED_ARCHITECTURES, model_class
from octavo.pooling.activations import classes_activation
from octavo.pooling.plan import PoolingPlan, resolve_pooling
from octavo.pooling.weights import with_pooling_weights
from octavo.tasks import trace_model
from octavo.tokenizer.load import load_tokenizer, tokenizer_from_gguf
from octavo.tokenizer.tokenizer import Tokenizer
from octavo.weights.gguf import GGUFFile
from octavo.weights.gguf_config import file_facts
from octavo.weights.resolve import ModelFiles, resolve_config, resolve_model, resolve_tokenizer
from octavo.weights.source import Checkpoint, open_checkpoint, read_config
from octavo.weights.store import WeightLoader

_KV_SHARE = 0.5  # of the memory that is free once the weights are loaded
_SEED_BITS = 64
_MOST_THREADS = 1024

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """What an LLM needs to serve requests."""

    core: Any  # octavo._core.Engine
    tokenizer: Tokenizer | None
    config: Mapping[str, Any]
    defaults: GenerationDefaults
    max_model_len: int
    vocab_size: int  # rows of the embedding table: token ids are below it
    n_token_types: int  # segments that the model tells apart; 1 where it does not
    plan: PoolingPlan | None  # None where the model generates
    weight_bytes: int
    formats: Mapping[str, int]  # weight format -> tensors stored in it
    n_threads: int

    @property
    def eos_token_ids(self) -> list[int]:
        """Ids that end a generation: the tokenizer's and those of the generation config."""
        own = self.tokenizer.eos_token_ids if self.tokenizer else ()
        return sorted({*own, *self.defaults.eos_token_ids})


@dataclass(frozen=True)
class OpenedModel:
    """A model's files, mapped, and what they say about it."""

    files: ModelFiles
    gguf: GGUFFile | None
    config: Mapping[str, Any]
    architecture: str
    checkpoint: Checkpoint


def load_model(args: EngineArgs) -> LoadedModel:
    """Resolves, maps, traces and repacks a model.

    Raises:
        ModelError: the model cannot be found, read or run.
        InvalidInputError: the arguments ask for what this model or machine cannot give.
    """
    _check_supported(args)
    opened = open_model(args)
    tokenizer = None if args.skip_tokenizer_init else read_tokenizer(args, opened.files, opened.gguf)
    shipped = _shipped_generation_config(opened.files, opened.config)
    defaults = resolve_generation_defaults(args.generation_config, shipped, args.override_generation_config)
    return _build(args, opened, tokenizer, defaults)


def open_model(args: EngineArgs) -> OpenedModel:
    """Resolves a model and maps its files, without loading its weights.

    Raises:
        ModelError: the model cannot be found or read, or is of an unknown architecture.
    """
    files = resolve_model(args.model, revision=args.revision, hf_token=args.hf_token, download_dir=args.download_dir)
    raw, gguf = read_config(files)
    if args.hf_config_path is not None:
        folder = resolve_config(args.hf_config_path, hf_token=args.hf_token, download_dir=args.download_dir)
        raw = {**configs.load_config(folder), **(file_facts(raw) if gguf is not None else {})}
    raw = args.override_config(raw)
    architecture = configs.check_architecture(raw, SUPPORTED_ARCHITECTURES)
    config = configs.normalize_config(raw, model_class(architecture).defaults)
    _check_kind(args, files, config)
    return OpenedModel(files, gguf, config, architecture, open_checkpoint(files, config, gguf))


def _check_supported(args: EngineArgs) -> None:
    if args.device == "cuda":
        raise InvalidInputError("octavo was built without a CUDA backend; use device='cpu'.")


def _check_kind(args: EngineArgs, files: ModelFiles, config: Mapping[str, Any]) -> None:
    """Raises InvalidInputError where the arguments insist on other weights than there are."""
    kind = "gguf" if files.kind == "gguf" else "safetensors" if files.weight_files[0].suffix == ".safetensors" else "pt"
    method = "aqlm" if config.get("quantization_config") else kind
    wanted = (("load_format", args.load_format, kind), ("quantization", args.quantization or "auto", method))
    for name, asked, kind in wanted:
        if asked not in ("auto", kind):
            raise InvalidInputError(f"{name} is {asked!r}, but the weights of {args.model} are {kind}; leave it out.")


def read_tokenizer(args: EngineArgs, files: ModelFiles, gguf: GGUFFile | None) -> Tokenizer:
    """The tokenizer that the arguments name, else the model's own."""
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

        def report(n_bytes: int) -> None:
            bar.update(n_bytes)

        yield report


def _build(
    args: EngineArgs, opened: OpenedModel, tokenizer: Tokenizer | None, defaults: GenerationDefaults
) -> LoadedModel:
    model = model_class(opened.architecture)(nn.ModelConfig(opened.config))
    plan = _plan(args, opened, model)
    checkpoint = opened.checkpoint
    if opened.gguf is None:
        checkpoint = checkpoint.renamed(model.renamed_prefixes).under(model.base_prefix)
    if plan is not None:
        checkpoint = with_pooling_weights(checkpoint, plan, opened.config, tokenizer)
    n_threads = _n_threads(args)
    _log_ranks(args.tensor_parallel_size, n_threads)
    keep_float32 = opened.gguf is not None or plan is not None
    with _core_errors(ModelError), _progress_bar(checkpoint.n_bytes, args.use_tqdm_on_load) as progress:
        loader = WeightLoader(
            checkpoint,
            n_threads,
            args.dtype,
            keep_float32=keep_float32,
            progress=progress,
            n_ranks=args.tensor_parallel_size,
            offload_bytes=args.cpu_offload_gb * 2**30,
        )
        body, head = trace_model(model, plan, loader)
        loader.check_complete(model.ignored)
    options = _engine_options(args, model, plan, n_threads)
    with _core_errors(InvalidInputError):
        core = _core.Engine(body, head, options)
    vocab_size: int = model.config.vocab_size
    _check_vocabulary(
        vocab_size, loader.embedding_rows["tokens"], core.vocab_size if plan is None else vocab_size, tokenizer
    )
    plan = plan and _with_labels(plan, opened.config, core.vocab_size)
    return LoadedModel(
        core=core,
        tokenizer=tokenizer,
        config=opened.config,
        defaults=defaults,
        max_model_len=options.max_model_len,
        vocab_size=vocab_size,
        n_token_types=loader.embedding_rows.get("types", 1),
        plan=plan,
        weight_bytes=loader.store.memory_bytes,
        formats=checkpoint.formats,
        n_threads=n_threads,
    )


def _plan(args: EngineArgs, opened: OpenedModel, model: nn.Model) -> PoolingPlan | None:
    folder = opened.files.folder if opened.gguf is None else None
    is_language_model = isinstance(model, nn.CausalLM)
    plan = resolve_pooling(args, opened.config, opened.architecture, folder, language_model=is_language_model)
    own = opened.config.get("gguf_pooling") or model.default_pooling
    return plan and replace(plan, pooling=plan.pooling or own)


def _with_labels(plan: PoolingPlan, config: Mapping[str, Any], n_logits: int) -> PoolingPlan:
    """The plan with the classifier's own number of labels, where id2label or num_labels agrees with it."""
    if plan.head != "classify" or plan.n_labels == n_logits:
        return plan
    if config.get("num_labels") != n_logits:
        raise ModelError(
            f"config.json gives {plan.n_labels} labels, but the classifier gives {n_logits} numbers; correct id2label "
            "by hf_overrides or fetch the model again."
        )
    return replace(plan, n_labels=n_logits, activation=classes_activation(config, n_logits))


def _check_vocabulary(n_tokens: int, n_embeddings: int, n_logits: int, tokenizer: Tokenizer | None) -> None:
    """Token ids index the tables that these counts are of."""
    if not n_tokens == n_embeddings == n_logits:
        raise ModelError(
            f"config.json gives a vocab_size of {n_tokens}, but the embedding has {n_embeddings} rows and the output "
            f"{n_logits}; fetch the model again."
        )
    if tokenizer is not None and tokenizer.vocab_size > n_tokens:
        raise ModelError(
            f"The tokenizer has {tokenizer.vocab_size} tokens but the model's vocabulary only {n_tokens}; give the "
            "tokenizer that belongs to the model."
        )


@contextmanager
def _core_errors(kind: type[OctavoError]) -> Iterator[None]:
    """Raises the core's errors as octavo's own."""
    try:
        yield
    except _core.CoreError as error:
        raise kind(str(error)) from error


def _n_threads(args: EngineArgs) -> int:
    if args.num_threads is not None and args.num_threads > _MOST_THREADS:
        raise InvalidInputError(f"num_threads must be at most {_MOST_THREADS}, got {args.num_threads}.")
    return args.num_threads or _core.usable_cpus()


def _log_ranks(n_ranks: int, n_threads: int) -> None:
    """Says where tensor_parallel_size asks for more than there is: it is then no error, but no gain either."""
    if n_ranks > n_threads:
        logger.info("tensor_parallel_size=%d is more than the %d threads: each is a rank.", n_ranks, n_threads)
    if n_ranks > _core.numa_nodes():
        logger.info(
            "tensor_parallel_size=%d is more than the %d NUMA nodes: ranks share them.", n_ranks, _core.numa_nodes()
        )


def _engine_options(args: EngineArgs, model: nn.Model, plan: PoolingPlan | None, n_threads: int) -> Any:
    options = _core.EngineOptions()
    options.n_threads = n_threads
    options.n_ranks = args.tensor_parallel_size
    options.exact = exact_cache(args)
    options.bidirectional = not model.causal
    options.max_num_seqs = args.max_num_seqs or CPU_MAX_NUM_SEQS
    options.max_num_batched_tokens = int(args.max_num_batched_tokens or CPU_MAX_NUM_BATCHED_TOKENS)
    options.enable_prefix_caching = args.enable_prefix_caching is not False
    options.enable_chunked_prefill = args.enable_chunked_prefill is not False
    options.priority_scheduling = args.scheduling_policy == "priority"
    options.seed = _engine_seed(args.seed)
    options.bidirectional = not model.causal
    per_token = model.kv_values_per_token * (4 if options.exact else 2)
    options.kv_cache_bytes = _kv_budget(args, per_token * _core.KV_BLOCK_TOKENS)
    n_blocks = options.kv_cache_bytes // (per_token * _core.KV_BLOCK_TOKENS)
    options.max_model_len = _max_model_len(args, model.max_positions, plan, n_blocks * _core.KV_BLOCK_TOKENS)
    return options


def exact_cache(args: EngineArgs) -> bool:
    """Whether keys and values are kept as float32 rather than bfloat16."""
    if args.kv_cache_dtype == "auto":
        return args.dtype in ("float32", "float")
    return args.kv_cache_dtype == "float32"


def _engine_seed(seed: int | None) -> int:
    if seed is None:
        import secrets

        return secrets.randbits(_SEED_BITS)
    return seed % (1 << _SEED_BITS)


def _kv_budget(args: EngineArgs, block_bytes: int) -> int:
    if args.num_gpu_blocks_override is not None:
        return args.num_gpu_blocks_override * block_bytes
    if args.kv_cache_memory_bytes is not None:
        return int(args.kv_cache_memory_bytes)
    return int(_core.available_memory() * _KV_SHARE)


def _max_model_len(args: EngineArgs, longest: int, plan: PoolingPlan | None, n_fit: int) -> int:
    """Tokens of the longest sequence: what was asked for, else what both the model and the cache can take."""
    asked = None if args.max_model_len == LARGEST_THAT_FITS else args.max_model_len
    if asked is None:
        longest = min(longest, (plan and plan.max_seq_length) or longest)
        if args.max_model_len is None and 0 < n_fit < longest:
            logger.warning("The KV cache holds %d of the %d tokens of this model's context.", n_fit, longest)
        return max(1, min(longest, n_fit))
    if int(asked) > longest:
        raise InvalidInputError(
            f"max_model_len={asked} is more than the {longest} positions that this model was made for; "
            "ask for less, or raise max_position_embeddings by hf_overrides if you know better."
        )
    if int(asked) > n_fit:
        raise InvalidInputError(
            f"max_model_len={asked} needs a larger KV cache than this one, which holds {n_fit} tokens; raise "
            "kv_cache_memory_bytes, free some memory, or ask for a shorter max_model_len."
        )
    return int(asked)

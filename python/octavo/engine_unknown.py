"""Why octavo has no such argument: one sentence for each kind that scripts written for vLLM may pass."""

from __future__ import annotations

_REASONS = {
    "only makes sense for a server, which octavo is not; leave it out.": (
        "host port api_key served_model_name uvicorn_log_level allowed_origins ssl_keyfile ssl_certfile root_path "
        "disable_log_requests enable_log_requests max_log_len response_role chat_template_content_format "
        "enable_auto_tool_choice tool_call_parser reasoning_parser enable_reasoning kv_transfer_config "
        "kv_events_config ec_transfer_config otlp_traces_endpoint collect_detailed_traces data_parallel_address "
        "data_parallel_rpc_port data_parallel_size_local data_parallel_backend show_hidden_metrics_for_version "
        "kv_cache_metrics enable_mfu_metrics profiler_config"
    ),
    "only makes sense for multi-modal input, and octavo runs text models; leave it out.": (
        "limit_mm_per_prompt mm_processor_kwargs media_io_kwargs interleave_mm_strings mm_processor_cache_gb "
        "mm_processor_cache_type disable_mm_preprocessor_cache mm_encoder_tp_mode skip_mm_profiling "
        "allowed_local_media_path allowed_media_domains disable_chunked_mm_input"
    ),
    "is for LoRA adapters, which octavo does not run; merge the adapter into the model and leave it out.": (
        "enable_lora max_loras max_lora_rank max_cpu_loras lora_dtype lora_extra_vocab_size fully_sharded_loras "
        "long_lora_scaling_factors enable_lora_bias default_mm_loras lora_modules enable_prompt_adapter "
        "max_prompt_adapters max_prompt_adapter_token qlora_adapter_name_or_path"
    ),
    "is for speculative decoding, which octavo does not do; leave it out, the results are the same.": (
        "speculative_config speculative_model num_speculative_tokens spec_method spec_model spec_tokens "
        "speculative_draft_tensor_parallel_size speculative_max_model_len speculative_disable_by_batch_size "
        "ngram_prompt_lookup_max ngram_prompt_lookup_min spec_decoding_acceptance_method"
    ),
    "belongs to the requests: give it in their structured_outputs (StructuredOutputsParams).": (
        "structured_outputs_config guided_decoding_disable_fallback guided_decoding_disable_any_whitespace "
        "guided_decoding_disable_additional_properties"
    ),
    "is taken from the model's own files; leave it out.": (
        "quantization_config quantization_param_path allow_deprecated_quantization"
    ),
    "names code to load into the engine, which octavo does not do; leave it out.": (
        "worker_extension_cls io_processor_plugin middleware"
    ),
    "is about parts of a GPU that octavo does not have; leave it out.": (
        "attention_backend attention_config kernel_config mamba_ssm_cache_dtype mamba_cache_dtype "
        "enable_return_routed_experts return_sampling_mask eplb_config enable_eplb num_redundant_experts"
    ),
}
_BY_NAME = {name: reason for reason, names in _REASONS.items() for name in names.split()}


def explain_unknown(name: str) -> str | None:
    """The sentence on an argument that octavo knows and does not have; None for any other name."""
    reason = _BY_NAME.get(name)
    return None if reason is None else f"{name} {reason}"

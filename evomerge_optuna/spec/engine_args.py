"""Arguments of vLLM that a spec cannot give, each with what to do instead."""

_ONE_MACHINE = "a model is spread over several devices by tensor_parallel_size alone; remove it"
_NOT_TRIED = "putting candidates into vLLM is not tried with it; remove it"
_CANDIDATES = "vLLM is given each candidate; remove it"
_NO_CODE = "no code of a model is run; remove it"
NOT_TO_GIVE: dict[str, str] = {
    **dict.fromkeys(
        (
            *("model", "model_weights", "tokenizer", "skip_tokenizer_init", "tokenizer_mode"),
            *("revision", "code_revision", "tokenizer_revision", "download_dir", "load_format"),
            *("model_loader_extra_config", "config_format", "hf_config_path", "generation_config"),
            *("override_generation_config", "runner", "convert", "logprobs_mode", "seed"),
            *("max_logprobs", "logits_processors"),
        ),
        _CANDIDATES,
    ),
    **dict.fromkeys(
        (
            *("pipeline_parallel_size", "data_parallel_size"),
            *("distributed_executor_backend", "worker_cls", "nnodes", "enable_expert_parallel"),
            *("decode_context_parallel_size", "prefill_context_parallel_size"),
        ),
        _ONE_MACHINE,
    ),
    **dict.fromkeys(
        (
            *("quantization", "quantization_config", "enable_lora", "speculative_config"),
            *("hf_overrides", "hf_token", "weight_transfer_config", "enable_sleep_mode"),
            *("kv_transfer_config", "worker_extension_cls", "cpu_offload_gb", "offload_backend"),
            *("model_impl", "async_scheduling"),
        ),
        _NOT_TRIED,
    ),
    **dict.fromkeys(("trust_remote_code", "allowed_local_media_path"), _NO_CODE),
    "dtype": "write evaluation.dtype",
    "device": "write evaluation.device",
    "device_config": "write evaluation.device",
    "device_ids": "write evaluation.device",
    "max_num_seqs": "write evaluation.batch_size",
}

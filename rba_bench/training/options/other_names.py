"""What other trainers call the keys of a training recipe: a typo that is a habit is answered by our name."""

OTHER_NAMES = {
    **dict.fromkeys(("lr", "learningrate", "peak_lr"), "learning_rate"),
    **dict.fromkeys(("max_steps", "num_steps", "train_steps", "total_steps"), "steps"),
    **dict.fromkeys(("num_train_epochs", "num_epochs", "epoch"), "epochs"),
    **dict.fromkeys(
        ("per_device_train_batch_size", "train_batch_size", "batch", "global_batch_size"), "groups_per_step"
    ),
    **dict.fromkeys(("gradient_accumulation_steps", "grad_accum", "accumulation"), "accumulate"),
    **dict.fromkeys(("bf16", "fp16", "dtype", "torch_dtype", "mixed_precision"), "precision"),
    **dict.fromkeys(("model", "model_name_or_path", "base_model", "init_from"), "base"),
    **dict.fromkeys(("dataset", "data", "train_data", "alignment_sets"), "alignment_set"),
    **dict.fromkeys(("warmup", "num_warmup_steps", "warmup_ratio"), "warmup_steps"),
    **dict.fromkeys(("lr_scheduler_type", "lr_scheduler", "scheduler"), "schedule"),
    **dict.fromkeys(("save_steps", "checkpoint_every"), "save_every"),
    **dict.fromkeys(("eval_steps", "validate_every"), "eval_every"),
    **dict.fromkeys(("num_generations", "n_samples", "num_samples"), "samples_per_clip"),
    **dict.fromkeys(("max_completion_length", "max_length", "max_tokens"), "max_new_tokens"),
    **dict.fromkeys(("kl_coef", "kl_beta", "kl"), "policy_gradient.kl_weight"),
    **dict.fromkeys(("lora_r", "lora_rank", "rank"), "lora.r"),
    **{"lora_alpha": "lora.alpha", "lora_targets": "lora.targets", "target_modules": "lora.targets"},
    **{
        "objective": "method",
        "loss_type": "method",
        "grad_clip": "max_grad_norm",
        "logging_steps": "log_every",
    },
    **{"early_stopping_patience": "validation.patience", "patience": "validation.patience"},
}

"""Runs of older releases: the names that the keys of their files had then (before version 1.0 of the format)."""

from collections.abc import Mapping

CONFIG: Mapping[str, str] = {
    "quantum": "bucket_reso_steps",
    "pad": "pad_color",
    "crops": "crops_per_image",
    "flip": "flip_p",
    "batch": "batch_size",
    "accumulate": "gradient_accumulation_steps",
    "max_steps": "max_train_steps",
    "lora": "lora_rank",
    "text_encoder_rate": "text_encoder_learning_rate",
    "schedule": "lr_scheduler",
    "warmup": "lr_warmup_images",
    "clip": "max_grad_norm",
    "prediction": "prediction_type",
    "min_snr": "min_snr_gamma",
    "debiased": "debiased_estimation_loss",
    "pyramid_noise": "multires_noise_discount",
    "huber": "huber_delta",
    "caption_dropout": "caption_dropout_rate",
    "ema": "ema_half_life_images",
    "weights": "weight_dtype",
    "workers": "num_workers",
    "cache": "latent_cache",
    "checkpoint_every": "checkpoint_every_n_steps",
    "keep": "checkpoints_total_limit",
    "eval_every": "evaluate_every_n_steps",
    "sample_every": "sample_every_n_steps",
    "prompts": "sample_prompts",
    "prompts_file": "sample_prompts_file",
    "guidance": "guidance_scale",
    "log_every": "log_every_n_steps",
    "wandb": "wandb_project",
}
"""config.json, in its key `config`."""

SUMMARY: Mapping[str, str] = {"pictures": "dataset_images", "images": "total_images"}
"""summary.json."""

MEASURE: Mapping[str, str] = {"pictures": "images"}
"""A measure in evaluation.json."""

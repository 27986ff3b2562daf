"""Tells of settings that a run would not heed, as what they belong to is off. Imports no torch."""

from collections.abc import Iterator

from dreamloom.base.stage import changed_fields
from dreamloom.train.config import TrainConfig


def idle_notes(config: TrainConfig, num_images: int) -> list[str]:
    """Names the settings that change nothing, each with what it needs; and a warm-up that does not end.

    Args:
        config: the run's.
        num_images: that the run shows.
    """
    notes = [
        f"{name} is set and changes nothing: it needs {needed}."
        for needed, names in _idle(config)
        for name in changed_fields(config, names)
    ]
    if config.lr_warmup_images > num_images:
        notes.append(
            f"The learning rates rise over {config.lr_warmup_images:,} images (lr_warmup_images), and the run shows "
            f"{num_images:,}: they reach {100 * num_images / config.lr_warmup_images:.2g} % of what is set."
        )
    return notes


def _idle(config: TrainConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yields what is off, and the settings that belong to it."""
    schedules = {config.lr_scheduler, config.text_encoder_lr_scheduler}
    encoders_learn = any(map(config.text_encoder_rate, ("text_encoder", "text_encoder_2")))
    belonging: list[tuple[bool, str, tuple[str, ...]]] = [
        (config.crop_jitter > 0, "crop_jitter", ("crops_per_image",)),
        (config.masks != "none", "masks", ("unmasked_weight",)),
        (bool(config.embeddings), "embeddings", ("embedding_vectors", "embedding_learning_rate")),
        (
            config.ema_half_life_images is not None,
            "ema_half_life_images",
            ("ema_warmup", "ema_update_every_n_steps", "ema_on_cpu"),
        ),
        ("cosine_with_restarts" in schedules, "lr_scheduler cosine_with_restarts", ("lr_scheduler_num_cycles",)),
        ("polynomial" in schedules, "lr_scheduler polynomial", ("lr_scheduler_power",)),
        (
            encoders_learn,
            "text_encoder_learning_rate above 0",
            ("text_encoder_weight_decay", "text_encoder_lr_scheduler"),
        ),
        (config.timestep_curriculum_power > 0, "timestep_curriculum_power", ("initial_min_timestep",)),
        (config.debiased_estimation_loss, "debiased_estimation_loss", ("debiased_v_weight",)),
        (config.class_preservation > 0, "class_preservation", ("concept_word", "class_word")),
        (config.prior_prediction > 0, "prior_prediction", ("prior_prediction_weight",)),
    ]
    return ((needed, names) for is_on, needed, names in belonging if not is_on)

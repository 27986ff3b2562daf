"""Opens a model from a diffusers folder, a single file or the hub: all its components, in float32 and frozen."""

from typing import Any

import torch

from dreamloom.base.errors import UserError
from dreamloom.base.models.device import PrecisionName, choose_precision
from dreamloom.base.text import brief
from dreamloom.train.adapter_kinds import DORA
from dreamloom.train.config import TrainConfig
from dreamloom.train.diffusion import formulas
from dreamloom.train.diffusion.schedules import DiscreteSchedule, NoiseSchedule, RectifiedFlow
from dreamloom.train.families.check import check_scheduler, check_zero_terminal_snr, resolve_prediction_type
from dreamloom.train.families.parts import Parts, load_parts
from dreamloom.train.model.device import store_matrices
from dreamloom.train.model.embeddings import add_embeddings
from dreamloom.train.model.family import Family
from dreamloom.train.model.model import Model


def load_base_model(
    config: TrainConfig,
    base: str,
    device: torch.device,
    vae: str | None = None,
    at_rest: bool = False,
    precision: PrecisionName = "fp32",
) -> Model:
    """Loads a base model with a run's VAE, prediction type, noise schedule, way of reading captions and new words.

    Args:
        config: the run's.
        base: the model's folder, file or hub id.
        device: where to put the components.
        vae: a VAE in place of the run's.
        at_rest: see `load_model`.
        precision: see `load_model`.

    Raises:
        UserError: the model can't be loaded, or knows a new word already.
    """
    how = (vae or config.vae, config.prediction_type, config.zero_terminal_snr, config.clip_skip, config.t5_length)
    is_dora = config.lora_rank is not None and config.lora_kind == DORA.name
    model = load_model(base, device, *how, at_rest, "fp32" if is_dora else precision)  # DoRA takes norms of weights
    if config.vae_tiling:
        model.vae.enable_tiling()
    add_embeddings(model, config)
    return model


def load_model(
    base: str,
    device: torch.device,
    vae: str | None = None,
    prediction_type: str = "auto",
    zero_terminal_snr: bool = False,
    clip_skip: int = 1,
    t5_length: int = 256,
    at_rest: bool = False,
    precision: PrecisionName = "fp32",
) -> Model:
    """Loads a model.

    Args:
        base: the folder, file or hub id.
        device: where to put the components.
        vae: a VAE in place of the base's.
        prediction_type: auto, epsilon or v_prediction.
        zero_terminal_snr: whether to rescale the noise schedule to zero terminal SNR; the base's own is kept.
        clip_skip: which of the text encoder's layers the denoiser sees, from the last.
        t5_length: tokens that T5 reads, where there is one.
        at_rest: whether the VAE alone is put there now, the denoiser by Model.settle, and a text encoder while it
            answers: in float32, they may be too much at once.
        precision: of all that is computed with it, which no training may follow: matrices of denoiser and text
            encoders are stored in no more, to the same results. The VAE stays in float32.

    Raises:
        UserError: the model can't be loaded.
    """
    import diffusers
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.set_verbosity_error()  # both warn of what no user can mend
    try:
        parts = load_parts(base, vae)
        zero_terminal_snr = zero_terminal_snr or bool(parts.scheduler.get("rescale_betas_zero_snr"))
        scheduler = _make_scheduler(base, parts, prediction_type, zero_terminal_snr)
        schedule = make_schedule(parts.family, scheduler, zero_terminal_snr).to(device)
        places = {name: torch.device("cpu") if at_rest and name != "vae" else device for name in parts.components}
        for name in parts.components.keys() - {"vae"}:
            store_matrices(parts.components[name], choose_precision(precision, device))
        components = {name: _prepare(module, places[name]) for name, module in parts.components.items()}
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = brief(error, 300)
        raise UserError(f"The model {base} can't be loaded ({reason}); check the name, or copy it again.") from error
    _check_finite(base, components)
    for name in parts.tokenizers:
        if clip_skip > (layers := components[name].config.num_hidden_layers):
            raise UserError(f"clip_skip is {clip_skip}, but the text encoder of {base} has {layers} layers; lower it.")
    open_model = parts.family.model_class()
    model: Model = open_model(
        parts.family, components, parts.tokenizers, scheduler, schedule, clip_skip, t5_length, settings=parts.settings
    )
    model.precision = precision
    model.resting = set(model.text_encoders) if at_rest else set()
    return model


def _check_finite(base: str, components: dict[str, Any]) -> None:
    """Checks that all weights are numbers: no step would make one that is not good again.

    Raises:
        UserError: one is infinite or NaN.
    """
    for component, module in components.items():
        for name, value in module.state_dict().items():
            if not torch.isfinite(value.sum()) and not torch.isfinite(value).all():  # a sum is read once
                raise UserError(
                    f"{component} of {base} has weights that are infinite or no numbers ({name}): copy it again, or "
                    "name another model."
                )


def make_schedule(family: Family, scheduler: Any, zero_terminal_snr: bool = False) -> NoiseSchedule:
    """Makes the noise schedule that a base was trained with, of its scheduler, which may draw with another.

    Args:
        family: the base's.
        scheduler: diffusers'.
        zero_terminal_snr: whether to rescale it to zero terminal SNR.
    """
    import diffusers

    if family.is_flow:
        return RectifiedFlow(float(scheduler.config.get("shift") or 1.0), torch.zeros(1))
    config = {**scheduler.config, "rescale_betas_zero_snr": False}
    alphas_cumprod = torch.as_tensor(diffusers.DDPMScheduler.from_config(config).alphas_cumprod).float()
    if zero_terminal_snr:
        alphas_cumprod = formulas.rescale_zero_terminal_snr(alphas_cumprod)
    return DiscreteSchedule(str(scheduler.config.prediction_type), alphas_cumprod)


def _make_scheduler(base: str, parts: Parts, prediction: str, zero_terminal_snr: bool) -> Any:
    """Makes the base's own scheduler, with the trained model's prediction type and terminal SNR."""
    import diffusers

    config = parts.scheduler
    name = str(config.get("_class_name"))
    scheduler_class = getattr(diffusers, name, None)
    if not name.endswith("Scheduler") or scheduler_class is None:
        raise UserError(f"The scheduler of {base} is {name}, which diffusers does not know; copy the model again.")
    check_scheduler(base, parts.family, config)
    if parts.family.is_flow:
        return scheduler_class.from_config(config)
    changes: dict[str, Any] = {"prediction_type": resolve_prediction_type(prediction, config)}
    check_zero_terminal_snr(base, changes["prediction_type"], zero_terminal_snr)
    if zero_terminal_snr:
        changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    if zero_terminal_snr and "rescale_betas_zero_snr" not in scheduler_class().config:
        scheduler_class = diffusers.DDIMScheduler  # many schedulers can't start from pure noise; this one can
    return scheduler_class.from_config({**config, **changes})


def _prepare(module: Any, device: torch.device) -> Any:
    """Freezes a network and moves it to its device, channels_last: faster on GPUs, and not slower on CPUs."""
    module.requires_grad_(False)
    module.eval()  # no dropout: it would be randomness with a state
    module.to(device=device, memory_format=torch.channels_last)
    for parameter in module.parameters():  # what is mapped from a file lies unaligned, which changes the rounding
        parameter.data = parameter.data.clone()
    return module

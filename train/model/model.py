"""A Stable Diffusion model in memory: its parts, and what training and judging ask of them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dreamloom.base.errors import UserError
from dreamloom.train.diffusion import formulas
from dreamloom.train.model.check import resolve_prediction_type
from dreamloom.train.model.checkpoint_file import load_checkpoint_file

_WHOLE = {"torch_dtype": torch.float32}
"""Half-precision files are loaded as float32: training needs the room."""


@dataclass
class Model:
    """The parts of a Stable Diffusion 1.x or 2.x model. Weights are float32 and need no gradient until asked."""

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any
    """The base's scheduler, for sampling; its config says what the UNet predicts."""
    alphas_cumprod: Tensor
    """ᾱ of each timestep, float32 [T], on the model's device."""
    compiled_unet: Any = None
    """The UNet as torch compiled it, for training alone: measuring and drawing come in too many shapes."""

    @property
    def prediction_type(self) -> str:
        """epsilon or v_prediction."""
        return str(self.scheduler.config.prediction_type)

    @property
    def device(self) -> torch.device:
        """Where UNet, text encoder and schedule are."""
        return self.alphas_cumprod.device

    def tokenize(self, captions: list[str]) -> Tensor:
        """Token numbers, int64 [n, L]; longer captions are cut to the text encoder's length."""
        length = min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)
        batch = self.tokenizer(captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return torch.as_tensor(batch.input_ids)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """The text encoder's last hidden states, [n, L, D]."""
        return torch.as_tensor(self.text_encoder(tokens)[0])

    def predict(self, noisy: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        """The UNet's answer, [n, C, h, w]."""
        unet = self.compiled_unet if self.compiled_unet is not None and torch.is_grad_enabled() else self.unet
        return torch.as_tensor(unet(noisy, timesteps, states, return_dict=False)[0])

    def scale_latents(self, latents: Tensor) -> Tensor:
        """Latents as the VAE makes them, brought to the scale the UNet works in."""
        config = self.vae.config
        return (latents - float(config.get("shift_factor") or 0.0)) * float(config.scaling_factor)


def load_model(
    base: str,
    device: torch.device,
    vae: str | None = None,
    prediction_type: str = "auto",
    zero_terminal_snr: bool = False,
) -> Model:
    """Loads a model from a diffusers folder, a single file or the hub, in float32 and without gradients.

    Args:
        vae: a VAE in place of the base's.
        prediction_type: auto, epsilon or v_prediction.
        zero_terminal_snr: rescale the noise schedule.

    Raises:
        UserError: it can't be loaded.
    """
    import diffusers
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.set_verbosity_error()  # both warn of things that no user can mend
    try:
        parts = _parts_of(base, vae)
        model = Model(
            unet=_place(parts["unet"], device),
            vae=_place(parts["vae"], device),
            text_encoder=_place(parts["text_encoder"], device),
            tokenizer=parts["tokenizer"],
            scheduler=_make_scheduler(parts["scheduler"], prediction_type, zero_terminal_snr),
            alphas_cumprod=torch.empty(0),
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"The model {base} can't be loaded ({reason}); check the name, or copy it again.") from error
    kept = _alphas_cumprod(model.scheduler)
    model.alphas_cumprod = (formulas.rescale_zero_terminal_snr(kept) if zero_terminal_snr else kept).to(device)
    return model


def hash_weights(module: nn.Module) -> str:
    """Names the content of a network's weights."""
    digest = hashlib.blake2b(digest_size=16)
    for key, value in sorted(module.state_dict().items()):
        digest.update(f"{key}\0{tuple(value.shape)}\0".encode())
        digest.update(value.detach().float().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def _parts_of(base: str, vae: str | None) -> dict[str, Any]:
    """unet, vae, text_encoder, tokenizer and the scheduler's config, from a file, a folder or the hub."""
    import diffusers
    import transformers

    path = Path(base).expanduser()
    if path.is_file():
        opened = load_checkpoint_file(path)
        if opened.vae is None and vae is None:
            raise UserError(f"{base} holds no VAE; name one by vae.")
        return {**vars(opened), "vae": _load_vae(vae) if vae else opened.vae}
    name = _place_of(base)
    return {
        "unet": diffusers.UNet2DConditionModel.from_pretrained(name, subfolder="unet", **_WHOLE),
        "vae": _load_vae(vae) if vae else _load_vae(name, subfolder="vae"),
        "text_encoder": transformers.CLIPTextModel.from_pretrained(name, subfolder="text_encoder", dtype=torch.float32),
        "tokenizer": transformers.CLIPTokenizer.from_pretrained(name, subfolder="tokenizer"),
        "scheduler": diffusers.DDPMScheduler.load_config(name, subfolder="scheduler"),
    }


def _load_vae(name: str, **where: str) -> Any:
    import diffusers

    kind = diffusers.AutoencoderKL.load_config(_place_of(name), **where)["_class_name"]
    return getattr(diffusers, kind).from_pretrained(_place_of(name), **where, **_WHOLE)


def _place_of(name: str) -> str:
    path = Path(name).expanduser()
    return str(path) if path.exists() else name


def _make_scheduler(config: dict[str, Any], prediction: str, zero_terminal_snr: bool) -> Any:
    """The base's own sampler, told what the trained model predicts and how its noise ends."""
    import diffusers

    changes: dict[str, Any] = {"prediction_type": resolve_prediction_type(prediction, config)}
    if zero_terminal_snr:
        changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    kind = getattr(diffusers, config["_class_name"])
    if zero_terminal_snr and "rescale_betas_zero_snr" not in kind().config:
        kind = diffusers.DDIMScheduler  # many samplers can't start from pure noise; this one can
    return kind.from_config({**config, **changes})


def _alphas_cumprod(scheduler: Any) -> Tensor:
    """ᾱ of the schedule as it was trained with, before any rescaling."""
    import diffusers

    plain = {**scheduler.config, "rescale_betas_zero_snr": False}
    return torch.as_tensor(diffusers.DDPMScheduler.from_config(plain).alphas_cumprod).float()


def _place(module: Any, device: torch.device) -> Any:
    """On its device, frozen. channels_last: convolutions are faster on GPUs, and not slower on processors."""
    module.requires_grad_(False)
    module.eval()  # nothing here shall drop out: it would be randomness with a state
    return module.to(device=device, memory_format=torch.channels_last)

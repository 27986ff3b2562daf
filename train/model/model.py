"""A Stable Diffusion model in memory: its components, and the operations that training and evaluation need."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dreamloom.base.errors import UserError
from dreamloom.base.text import brief
from dreamloom.train.diffusion import formulas
from dreamloom.train.model.check import check_zero_terminal_snr, resolve_prediction_type
from dreamloom.train.model.checkpoint_file import load_checkpoint_file
from dreamloom.train.model.names import check_on_hub
from dreamloom.train.model.weight_files import weight_variant

_FLOAT32 = {"torch_dtype": torch.float32}
"""Loads half-precision files as float32: training needs the precision."""


@dataclass(frozen=True)
class NewWords:
    """The words that textual inversion adds (dreamloom.train.model.embeddings)."""

    tokens: Mapping[str, str]
    """Word → its tokens, separated by blanks."""
    plain_tokenizer: Any
    """The tokenizer without them."""

    def spell_out(self, caption: str) -> str:
        """Replaces each word by its tokens."""
        for word, tokens in self.tokens.items():
            caption = re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w-])", tokens, caption)
        return caption


@dataclass
class Model:
    """The components of a Stable Diffusion 1.x or 2.x model. Weights are float32 and frozen until made trainable."""

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any
    """The base's scheduler, for sampling; its config says what the UNet predicts."""
    alphas_cumprod: Tensor
    """ᾱ of each timestep, float32 [T], on the model's device."""
    clip_skip: int = 1
    """Which of the text encoder's layers the UNet sees, from the last."""
    compiled_unet: Any = None
    """The UNet compiled by torch, for training only: evaluation and sampling use too many shapes."""
    new_words: NewWords | None = None
    """What textual inversion adds to tokenizer and text encoder."""

    @property
    def prediction_type(self) -> str:
        """What the UNet predicts: epsilon or v_prediction."""
        return str(self.scheduler.config.prediction_type)

    @property
    def has_zero_terminal_snr(self) -> bool:
        """Whether the last step of the noise schedule is pure noise."""
        return bool(self.scheduler.config.get("rescale_betas_zero_snr"))

    @property
    def is_version_2(self) -> bool:
        """Whether the text encoder is Stable Diffusion 2's, which is open_clip's: gelu, where 1's has quick_gelu."""
        return bool(self.text_encoder.config.hidden_act == "gelu")

    @property
    def device(self) -> torch.device:
        """The device of UNet, text encoder and noise schedule."""
        return self.alphas_cumprod.device

    def tokenize(self, captions: list[str]) -> Tensor:
        """Tokenizes captions, cut and padded to the text encoder's length.

        Returns:
            Token ids, int64 [n, L], on the CPU.
        """
        if self.new_words:
            captions = [self.new_words.spell_out(caption) for caption in captions]
        length = min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)
        batch = self.tokenizer(captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return torch.as_tensor(batch.input_ids)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Computes the text encoder's hidden states: of its last layer, or of that of `clip_skip`, normalized.

        Args:
            tokens: int64 [n, L].

        Returns:
            [n, L, D].
        """
        if self.clip_skip == 1:
            return torch.as_tensor(self.text_encoder(tokens)[0])
        states = self.text_encoder(tokens, output_hidden_states=True).hidden_states[-self.clip_skip]
        inside = getattr(self.text_encoder, "text_model", self.text_encoder)  # transformers 5 dropped this level
        return torch.as_tensor(inside.final_layer_norm(states))

    def predict(self, noisy: Tensor, timesteps: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        """Computes the UNet's prediction.

        Args:
            noisy: noisy latents, [n, C, h, w].
            timesteps: int64 [n].
            encoder_hidden_states: [n, L, D].

        Returns:
            [n, C, h, w].
        """
        unet = self.compiled_unet if self.compiled_unet is not None and torch.is_grad_enabled() else self.unet
        return torch.as_tensor(unet(noisy, timesteps, encoder_hidden_states, return_dict=False)[0])

    def scale_latents(self, latents: Tensor) -> Tensor:
        """Brings the VAE's latents to the scale in which the UNet works; of any shape."""
        config = self.vae.config
        return (latents - float(config.get("shift_factor") or 0.0)) * float(config.scaling_factor)


def load_model(
    base: str,
    device: torch.device,
    vae: str | None = None,
    prediction_type: str = "auto",
    zero_terminal_snr: bool = False,
    clip_skip: int = 1,
) -> Model:
    """Loads a model from a diffusers folder, a single file or the hub, in float32 and without gradients.

    Args:
        base: the folder, file or hub id.
        device: where to put the components.
        vae: a VAE in place of the base's.
        prediction_type: auto, epsilon or v_prediction.
        zero_terminal_snr: whether to rescale the noise schedule to zero terminal SNR; the base's own is kept.
        clip_skip: which of the text encoder's layers the UNet sees, from the last.

    Raises:
        UserError: the model can't be loaded.
    """
    import diffusers
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.set_verbosity_error()  # both warn of what no user can mend
    try:
        parts = _load_components(base, vae)
        zero_terminal_snr = zero_terminal_snr or bool(parts["scheduler"].get("rescale_betas_zero_snr"))
        model = Model(
            unet=_prepare(parts["unet"], device),
            vae=_prepare(parts["vae"], device),
            text_encoder=_prepare(parts["text_encoder"], device),
            tokenizer=parts["tokenizer"],
            scheduler=_make_scheduler(base, parts["scheduler"], prediction_type, zero_terminal_snr),
            alphas_cumprod=torch.empty(0),
            clip_skip=clip_skip,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = brief(error, 300)
        raise UserError(f"The model {base} can't be loaded ({reason}); check the name, or copy it again.") from error
    if clip_skip > (layers := model.text_encoder.config.num_hidden_layers):
        raise UserError(f"clip_skip is {clip_skip}, but the text encoder of {base} has {layers} layers; lower it.")
    alphas_cumprod = _alphas_cumprod(model.scheduler)
    if zero_terminal_snr:
        alphas_cumprod = formulas.rescale_zero_terminal_snr(alphas_cumprod)
    model.alphas_cumprod = alphas_cumprod.to(device)
    return model


def hash_weights(module: nn.Module) -> str:
    """Hashes the weights of a network, as float32 and with their names and shapes, to 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for key, value in sorted(module.state_dict().items()):
        digest.update(f"{key}\0{tuple(value.shape)}\0".encode())
        digest.update(value.detach().float().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def _load_components(base: str, vae: str | None) -> dict[str, Any]:
    """Loads unet, vae, text_encoder, tokenizer and the scheduler's config from a file, a folder or the hub."""
    import diffusers
    import transformers

    path = Path(base).expanduser()
    if path.is_file():
        components = load_checkpoint_file(path)
        if components.vae is None and vae is None:
            raise UserError(f"{base} holds no VAE; set vae to one.")
        return {**vars(components), "vae": _load_vae(vae) if vae else components.vae}
    check_on_hub(base)
    name = _path_or_id(base)
    text_encoder = {**_weights(name, "text_encoder"), "dtype": torch.float32}
    return {
        "unet": diffusers.UNet2DConditionModel.from_pretrained(name, **_weights(name, "unet"), **_FLOAT32),
        "vae": _load_vae(vae) if vae else _load_vae(name, "vae"),
        "text_encoder": transformers.CLIPTextModel.from_pretrained(name, **text_encoder),
        "tokenizer": transformers.CLIPTokenizer.from_pretrained(name, subfolder="tokenizer"),
        "scheduler": diffusers.DDPMScheduler.load_config(name, subfolder="scheduler"),
    }


def _load_vae(name: str, subfolder: str = "") -> Any:
    import diffusers

    check_on_hub(name)
    path = _path_or_id(name)
    inside = {"subfolder": subfolder} if subfolder else {}
    class_name = diffusers.AutoencoderKL.load_config(path, **inside)["_class_name"]
    return getattr(diffusers, class_name).from_pretrained(path, **_weights(path, subfolder), **_FLOAT32)


def _weights(name: str, subfolder: str) -> dict[str, str]:
    """Returns the arguments that find a component's weights, of whatever variant there is in a folder."""
    found = {"subfolder": subfolder, "variant": weight_variant(Path(name) / subfolder)}
    return {key: value for key, value in found.items() if value}


def _path_or_id(name: str) -> str:
    path = Path(name).expanduser()
    return str(path) if path.exists() else name


def _make_scheduler(base: str, config: dict[str, Any], prediction: str, zero_terminal_snr: bool) -> Any:
    """Makes the base's own scheduler, with the trained model's prediction type and terminal SNR."""
    import diffusers

    changes: dict[str, Any] = {"prediction_type": resolve_prediction_type(prediction, config)}
    check_zero_terminal_snr(base, changes["prediction_type"], zero_terminal_snr)
    if zero_terminal_snr:
        changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    scheduler_class = getattr(diffusers, config["_class_name"])
    if zero_terminal_snr and "rescale_betas_zero_snr" not in scheduler_class().config:
        scheduler_class = diffusers.DDIMScheduler  # many schedulers can't start from pure noise; this one can
    return scheduler_class.from_config({**config, **changes})


def _alphas_cumprod(scheduler: Any) -> Tensor:
    """Computes ᾱ of the schedule that the base was trained with, before any rescaling."""
    import diffusers

    config = {**scheduler.config, "rescale_betas_zero_snr": False}
    return torch.as_tensor(diffusers.DDPMScheduler.from_config(config).alphas_cumprod).float()


def _prepare(module: Any, device: torch.device) -> Any:
    """Freezes a network and moves it to its device, channels_last: faster on GPUs, and not slower on CPUs."""
    module.requires_grad_(False)
    module.eval()  # no dropout: it would be randomness with a state
    module.to(device=device, memory_format=torch.channels_last)
    for parameter in module.parameters():  # what is mapped from a file lies unaligned, which changes the rounding
        parameter.data = parameter.data.clone()
    return module

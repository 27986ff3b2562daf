"""What Stable Diffusion's UNets have in common, whatever is beside them. Imports no torch.

The activations kept for the backward pass were counted on Stable Diffusion 1.5's UNet with torch's hooks for saved
tensors: 1,430 bytes per latent pixel and channel of the first level in float32, 720 in bfloat16. With gradient
checkpointing they are 236 and 118, plus about a third of all while a block is recomputed. On GPUs autocast keeps
normalizations in float32, so 720 is taken as 1,000.
"""

from dreamloom.base.errors import UserError
from dreamloom.base.stage import changed_fields
from dreamloom.train.config import TrainConfig
from dreamloom.train.model.family import Config

UNET_LAYERS = r".*\.attentions\.\d+\.(proj_in|proj_out|.*\.(to_q|to_k|to_v|to_out\.0|ff\.net\.0\.proj|ff\.net\.2))"
"""Pattern of the names of the layers with an adapter: those of the transformers, as in kohya's scripts."""
UNET_CONVOLUTIONS = (
    r".*\.resnets\.\d+\.(conv1|conv2|conv_shortcut|time_emb_proj)|.*\.(downsamplers|upsamplers)\.0\.conv"
)
"""The same of the blocks of convolutions."""
ACTIVATION_BYTES = {"fp32": (1430.0, 236.0), "bf16": (1000.0, 118.0)}
"""Precision → bytes kept per latent pixel and channel: without and with gradient checkpointing."""
RECOMPUTED_SHARE = 0.3
"""Share of all activations that is kept at once while a block is recomputed."""


def unet_activation_bytes(
    config: TrainConfig, unet: Config, latent_pixels: float, precision: str, size: float = 1.0
) -> int:
    """Estimates the activations of a UNet; see Family.activation_bytes.

    Args:
        config: see there.
        unet: see there.
        latent_pixels: see there.
        precision: see there.
        size: how many times as much as Stable Diffusion 1.5's it keeps, for a latent pixel and channel.
    """
    channels, layers = unet.get("block_out_channels", [320]), unet.get("layers_per_block", 2)
    assert isinstance(channels, list) and isinstance(layers, int)
    every, checkpointed = ACTIVATION_BYTES[precision]
    recomputed = RECOMPUTED_SHARE * every  # of blocks at the first level, which are alike
    per_pixel = checkpointed + recomputed if config.gradient_checkpointing else every * size
    return int(latent_pixels * channels[0] * layers / 2 * per_pixel)


def refuse_settings_of_sd3(config: TrainConfig, title: str) -> None:
    """Checks that no setting of Stable Diffusion 3, a rectified flow with a T5, is given for another model.

    Raises:
        UserError: one is.
    """
    names = ("timestep_sampling", "logit_mean", "logit_std", "mode_scale", "timestep_shift", "flow_weighting")
    if given := changed_fields(config, names):
        raise UserError(f"{given[0]} is for rectified flows, and {title} is none; leave it out.")
    if config.t5_length != 256:
        raise UserError(f"t5_length is {config.t5_length}, but {title} has no T5; leave it out.")

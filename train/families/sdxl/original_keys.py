"""The original keys of Stable Diffusion XL, as single files for A1111, ComfyUI and kohya's scripts have them."""

import math
from collections.abc import Mapping

from torch import Tensor

from dreamloom.train.families.original_keys import (
    Shapes,
    StateDict,
    as_convolution,
    bare,
    fill,
    from_open_clip,
    to_open_clip,
    unet_names,
    vae_names,
)

CLIP = "conditioner.embedders.0.transformer.text_model."
OPEN_CLIP = "conditioner.embedders.1.model."
_PROJECTION = "text_projection.weight"


def to_original_keys(weights: Mapping[str, StateDict]) -> StateDict:
    """Renames all weights of a model to their original keys.

    open_clip multiplies from the other side by its projection, so that is transposed. Its temperature, which no image
    is drawn with, is written as open_clip limits it, as readers look for it.

    Args:
        weights: component → the state dict of diffusers' or transformers' model.

    Raises:
        NoOriginalKeyError: a layer has no original key, e.g. one of an AutoencoderTiny.
    """
    unet, vae, first, second = (weights[name] for name in ("unet", "vae", "text_encoder", "text_encoder_2"))
    layers = {key: value for key, value in second.items() if key != _PROJECTION}
    return {
        **{name: unet[key] for key, name in unet_names(unet).items()},
        **{name: as_convolution(key, vae[key]) for key, name in vae_names(vae).items()},
        **{CLIP + bare(key): value for key, value in first.items()},
        **to_open_clip(layers, OPEN_CLIP),
        f"{OPEN_CLIP}text_projection": second[_PROJECTION].T.contiguous(),
        f"{OPEN_CLIP}logit_scale": second[_PROJECTION].new_tensor(math.log(100)),
    }


def from_original_keys(file: Mapping[str, Tensor], shapes: Mapping[str, Shapes]) -> dict[str, StateDict]:
    """Inverts `to_original_keys`; see Family.read_file_weights."""
    weights = dict(file)
    found = {"unet": fill(weights, shapes["unet"], unet_names(shapes["unet"]))}
    if "vae" in shapes:
        found["vae"] = fill(weights, shapes["vae"], vae_names(shapes["vae"]))
    first, second = shapes["text_encoder"], shapes["text_encoder_2"]
    found["text_encoder"] = fill(weights, first, {key: CLIP + bare(key) for key in first})
    layers = {key: value for key, value in second.items() if key != _PROJECTION}
    projection = weights[f"{OPEN_CLIP}text_projection"].T.reshape(second[_PROJECTION].shape)
    found["text_encoder_2"] = {**from_open_clip(weights, layers, OPEN_CLIP), _PROJECTION: projection}
    return found

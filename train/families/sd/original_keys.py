"""The original keys of Stable Diffusion 1.x and 2.x, as single files for A1111, ComfyUI and others have them."""

from collections.abc import Mapping

from torch import Tensor

from dreamloom.train.families.original_keys import (
    Shapes,
    StateDict,
    as_convolution,
    bare,
    count_blocks,
    fill,
    from_open_clip,
    to_open_clip,
    unet_names,
    vae_names,
)

CLIP = "cond_stage_model.transformer.text_model."
OPEN_CLIP = "cond_stage_model.model."
_OPEN_CLIP_LAYERS = 24
"""Layers of the text encoder that open_clip published; Stable Diffusion 2 takes the output of the last but one."""


def to_original_keys(unet: StateDict, vae: StateDict, text_encoder: StateDict, open_clip: bool) -> StateDict:
    """Renames all weights of a model to their original keys.

    Args:
        unet: the state dict of diffusers' model.
        vae: the state dict of diffusers' model.
        text_encoder: the state dict of transformers' model.
        open_clip: whether the text encoder is Stable Diffusion 2's, whose original is open_clip's.

    Raises:
        NoOriginalKeyError: a layer has no original key, e.g. one of an AutoencoderTiny.
    """
    text = _open_clip(text_encoder) if open_clip else {CLIP + bare(key): value for key, value in text_encoder.items()}
    unet_weights = {name: unet[key] for key, name in unet_names(unet).items()}
    vae_weights = {name: as_convolution(key, vae[key]) for key, name in vae_names(vae).items()}
    return {**unet_weights, **vae_weights, **text}


def from_original_keys(file: Mapping[str, Tensor], shapes: Mapping[str, Shapes]) -> dict[str, StateDict]:
    """Inverts `to_original_keys`; see Family.read_file_weights."""
    weights = dict(file)
    found = {"unet": fill(weights, shapes["unet"], unet_names(shapes["unet"]))}
    if "vae" in shapes:
        found["vae"] = fill(weights, shapes["vae"], vae_names(shapes["vae"]))
    text = shapes["text_encoder"]
    if any(name.startswith(OPEN_CLIP) for name in weights):
        return {**found, "text_encoder": from_open_clip(weights, text, OPEN_CLIP)}
    prefix = CLIP if any(name.startswith(CLIP) for name in weights) else CLIP.removesuffix("text_model.")
    return {**found, "text_encoder": fill(weights, text, {key: prefix + bare(key) for key in text})}


def _open_clip(weights: StateDict) -> StateDict:
    """Renames the text encoder of Stable Diffusion 2.

    open_clip has a 24th layer, a projection and a temperature, which Stable Diffusion 2 does not use, but readers
    need: diffusers 0.32 takes the width of the attention from the projection. They are filled as kohya's sd-scripts do
    (library/model_util.py): the 23rd layer again, and ones.
    """
    renamed = to_open_clip(weights, OPEN_CLIP)
    named = {bare(key): value for key, value in weights.items()}
    layers = count_blocks(named, "encoder.layers")
    if layers == _OPEN_CLIP_LAYERS - 1:
        last, unused = (f"{OPEN_CLIP}transformer.resblocks.{layer}." for layer in (layers - 1, layers))
        copies = {key.replace(last, unused): value for key, value in renamed.items() if key.startswith(last)}
        renamed |= {key: value.clone() for key, value in copies.items()}
    width, like = len(named["final_layer_norm.weight"]), named["final_layer_norm.weight"]
    renamed[f"{OPEN_CLIP}text_projection"] = like.new_ones((width, width))
    renamed[f"{OPEN_CLIP}logit_scale"] = like.new_ones(())
    return renamed

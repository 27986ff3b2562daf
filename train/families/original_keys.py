"""Stable Diffusion's original keys, as single files for A1111, ComfyUI and others have them.

diffusers renamed every layer. The original numbers a network's layers from its input to its output, so the keys are
found by walking the blocks in that order, whatever the number of levels, of layers per level, and of attentions. Shapes
differ in one place: the projections of the VAE's attention were 1 × 1 convolutions.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

StateDict = dict[str, Tensor]
Shapes = Mapping[str, Tensor]
"""A state dict of which only names and shapes count."""

UNET = "model.diffusion_model."
VAE = "first_stage_model."

_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_OPEN_CLIP_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}


class NoOriginalKeyError(Exception):
    """A layer that the original code does not have, so that it has no original key."""


def unet_names(weights: Shapes) -> dict[str, str]:
    """Returns diffusers' key → the original one for each weight of a UNet.

    Raises:
        NoOriginalKeyError: a layer has no original key.
    """
    places = {**_UNET_ENDS, **dict(_down_blocks(weights)), **dict(_up_blocks(weights))}
    return {key: UNET + _rename(key, places, {".resnets.": _UNET_RESNET}) for key in weights}


def unet_layer_names(weights: Shapes, layers: Iterable[str]) -> dict[str, str]:
    """Returns the original names of a UNet's layers, by those that diffusers gives them.

    Args:
        weights: the UNet's state dict, which tells its blocks; adapters may be in it.
        layers: as diffusers calls them.

    Raises:
        NoOriginalKeyError: one has none.
    """
    places = {**_UNET_ENDS, **dict(_down_blocks(weights)), **dict(_up_blocks(weights))}
    inner = {".resnets.": _UNET_RESNET}
    return {layer: _rename(f"{layer}.weight", places, inner).removesuffix(".weight") for layer in layers}


def vae_names(weights: Shapes) -> dict[str, str]:
    """Returns diffusers' key → the original one for each weight of a VAE.

    Raises:
        NoOriginalKeyError: a layer has no original key, e.g. one of an AutoencoderTiny.
    """
    places = {f"{side}.conv_norm_out": f"{side}.norm_out" for side in ("encoder", "decoder")}
    places |= {f"{side}.{end}": f"{side}.{end}" for side in ("encoder", "decoder") for end in ("conv_in", "conv_out")}
    places |= {end: end for end in ("quant_conv", "post_quant_conv")}
    for side in ("encoder", "decoder"):
        places |= {f"{side}.mid_block.resnets.{n}": f"{side}.mid.block_{n + 1}" for n in (0, 1)}
        places |= {f"{side}.mid_block.attentions.0": f"{side}.mid.attn_1"}
    levels = count_blocks(weights, "encoder.down_blocks")
    for level in range(levels):
        down, up = f"encoder.down_blocks.{level}", f"decoder.up_blocks.{level}"
        from_top = levels - 1 - level  # the original counts the decoder's levels from the image inwards
        for layer in range(count_blocks(weights, f"{down}.resnets")):
            places[f"{down}.resnets.{layer}"] = f"encoder.down.{level}.block.{layer}"
        for layer in range(count_blocks(weights, f"{up}.resnets")):
            places[f"{up}.resnets.{layer}"] = f"decoder.up.{from_top}.block.{layer}"
        places[f"{down}.downsamplers.0.conv"] = f"encoder.down.{level}.downsample.conv"
        places[f"{up}.upsamplers.0.conv"] = f"decoder.up.{from_top}.upsample.conv"
    inner = {".resnets.": {"conv_shortcut": "nin_shortcut"}, ".attentions.": _VAE_ATTENTION}
    return {key: VAE + _rename(key, places, inner) for key in weights}


def as_convolution(key: str, value: Tensor) -> Tensor:
    """Gives a projection of the VAE's attention, by diffusers' key, the shape that it had as a convolution."""
    return value[:, :, None, None] if ".attentions." in key and value.ndim == 2 else value


def _down_blocks(weights: Shapes) -> Iterator[tuple[str, str]]:
    """Numbers input_blocks from 1: one per resnet (with the attention behind it), one per downsampler."""
    number = 1
    for level in range(count_blocks(weights, "down_blocks")):
        block = f"down_blocks.{level}"
        for layer in range(count_blocks(weights, f"{block}.resnets")):
            yield f"{block}.resnets.{layer}", f"input_blocks.{number}.0"
            yield f"{block}.attentions.{layer}", f"input_blocks.{number}.1"
            number += 1
        if count_blocks(weights, f"{block}.downsamplers"):
            yield f"{block}.downsamplers.0.conv", f"input_blocks.{number}.0.op"
            number += 1


def _up_blocks(weights: Shapes) -> Iterator[tuple[str, str]]:
    """Numbers output_blocks from 0: one per resnet; a level's upsampler is the last part of its last one."""
    number = 0
    for level in range(count_blocks(weights, "up_blocks")):
        block = f"up_blocks.{level}"
        layers = count_blocks(weights, f"{block}.resnets")
        for layer in range(layers):
            yield f"{block}.resnets.{layer}", f"output_blocks.{number + layer}.0"
            yield f"{block}.attentions.{layer}", f"output_blocks.{number + layer}.1"
        number += layers
        part = 2 if count_blocks(weights, f"{block}.attentions") else 1
        yield f"{block}.upsamplers.0.conv", f"output_blocks.{number - 1}.{part}.conv"


def to_open_clip(weights: StateDict, prefix: str) -> StateDict:
    """Renames a text encoder to open_clip's keys; it keeps query, key and value of an attention in one matrix.

    Args:
        weights: of transformers' model, all layers but the projection.
        prefix: what stands before open_clip's keys.
    """
    named = {bare(key): value for key, value in weights.items()}
    renamed: StateDict = {prefix + name: named[key] for key, name in _OPEN_CLIP_ENDS.items()}
    for layer in range(count_blocks(named, "encoder.layers")):
        ours, theirs = f"encoder.layers.{layer}.", f"{prefix}transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            projections = [named[f"{ours}self_attn.{letter}_proj.{kind}"] for letter in "qkv"]
            renamed[f"{theirs}attn.in_proj_{kind}"] = torch.cat(projections)
            renamed |= {f"{theirs}{new}.{kind}": named[f"{ours}{old}.{kind}"] for old, new in _OPEN_CLIP_LAYER.items()}
    return renamed


def from_open_clip(file: StateDict, shapes: Shapes, prefix: str) -> StateDict:
    """Inverts `to_open_clip`."""
    renamed: StateDict = {}
    for key, value in shapes.items():
        name = bare(key)
        if name in _OPEN_CLIP_ENDS:
            renamed[key] = file[prefix + _OPEN_CLIP_ENDS[name]]
            continue
        _, _, layer, inside = name.split(".", 3)
        theirs = f"{prefix}transformer.resblocks.{layer}."
        name, _, kind = inside.rpartition(".")
        if name in _OPEN_CLIP_LAYER:
            renamed[key] = file[f"{theirs}{_OPEN_CLIP_LAYER[name]}.{kind}"]
        else:
            third = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].index(name)
            renamed[key] = file[f"{theirs}attn.in_proj_{kind}"].chunk(3)[third]
        renamed[key] = renamed[key].reshape(value.shape)
    return renamed


def fill(weights: StateDict, shapes: Shapes, names: Mapping[str, str]) -> StateDict:
    """Takes the weights of a component out of a file.

    Args:
        weights: the file's tensors.
        shapes: the state dict to fill, of which names and shapes count.
        names: its keys → those of the file.

    Raises:
        KeyError: the file lacks a tensor.
        RuntimeError: a tensor has another shape than the component's.
    """
    return {key: weights[name].reshape(shapes[key].shape) for key, name in names.items()}


def _rename(key: str, places: Mapping[str, str], inner: Mapping[str, Mapping[str, str]]) -> str:
    """Replaces the name of a key's block and, inside the block, the name of its layer."""
    parts = key.split(".")
    for length in range(len(parts) - 1, 0, -1):
        block = ".".join(parts[:length])
        if block in places:
            rest = ".".join(parts[length:])
            for kind, names in inner.items():
                if kind in f"{block}.":
                    layer, _, end = rest.rpartition(".")
                    rest = f"{names.get(layer, layer)}.{end}" if layer else rest
            return f"{places[block]}.{rest}"
    raise NoOriginalKeyError(key)


def count_blocks(weights: Mapping[str, object], prefix: str) -> int:
    """Counts the numbered blocks under a prefix."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return 1 + max((int(match[1]) for key in weights if (match := pattern.match(key))), default=-1)


def bare(key: str) -> str:
    """Drops the prefix `text_model.`, which transformers before 5 put before a text encoder's keys."""
    return key.removeprefix("text_model.")

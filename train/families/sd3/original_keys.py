"""The keys of Stable Diffusion 3's single files, as Stability's code and ComfyUI have them.

Query, key and value of an attention are one matrix there. Where a layer norm is modulated last, its scale and shift
stand the other way round (diffusers' convert_sd3_to_diffusers.py).
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from dreamloom.train.families.original_keys import Shapes, StateDict, as_convolution, fill, vae_names
from dreamloom.train.families.sd3.configs import TRANSFORMER

PREFIXES = {
    "text_encoder": "text_encoders.clip_l.transformer.",
    "text_encoder_2": "text_encoders.clip_g.transformer.",
    "text_encoder_3": "text_encoders.t5xxl.transformer.",
}
"""Text encoder → the beginning of its keys; what follows is transformers' own."""
_PROJECTION = "text_projection.weight"
_SHARED, _TIED = "shared.weight", "encoder.embed_tokens.weight"
"""The same weights of T5. Files need to hold one of them only, but diffusers looks for both."""
_ENDS = {
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
_BLOCK = {
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "attn2.to_out.0": "x_block.attn2.proj",
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
_JOINED = {
    "attn.to_q": ("x_block.attn.qkv", 0),
    "attn.to_k": ("x_block.attn.qkv", 1),
    "attn.to_v": ("x_block.attn.qkv", 2),
    "attn.add_q_proj": ("context_block.attn.qkv", 0),
    "attn.add_k_proj": ("context_block.attn.qkv", 1),
    "attn.add_v_proj": ("context_block.attn.qkv", 2),
    "attn2.to_q": ("x_block.attn2.qkv", 0),
    "attn2.to_k": ("x_block.attn2.qkv", 1),
    "attn2.to_v": ("x_block.attn2.qkv", 2),
}
"""Layer of a block → the layer of the original that it is a third of, and which."""


def to_original_keys(weights: Mapping[str, StateDict]) -> StateDict:
    """Renames all weights of a model.

    Args:
        weights: component → the state dict of diffusers' or transformers' model.

    Raises:
        NoOriginalKeyError: a layer of the VAE has no original key.
    """
    thirds: dict[str, list[Tensor]] = {}
    renamed: StateDict = {}
    for key, value in weights["transformer"].items():
        name, third = _place(key)
        if third is None:
            renamed[TRANSFORMER + name] = _swap(value) if _is_swapped(key, weights["transformer"]) else value
        else:
            thirds.setdefault(TRANSFORMER + name, [value] * 3)[third] = value
    renamed |= {name: torch.cat(parts) for name, parts in thirds.items()}
    renamed |= {name: as_convolution(key, weights["vae"][key]) for key, name in vae_names(weights["vae"]).items()}
    for encoder, prefix in PREFIXES.items():
        own = weights.get(encoder, {})
        renamed |= {prefix + key: value.clone() if key == _TIED else value for key, value in own.items()}
    return renamed


def from_original_keys(file: Mapping[str, Tensor], shapes: Mapping[str, Shapes]) -> dict[str, StateDict]:
    """Inverts `to_original_keys`; see Family.read_file_weights. Stability's files have no projection of CLIP-L."""
    weights, own = dict(file), shapes["transformer"]
    transformer: StateDict = {}
    for key, like in own.items():
        name, third = _place(key)
        value = weights[TRANSFORMER + name]
        value = value.chunk(3)[third] if third is not None else _swap(value) if _is_swapped(key, own) else value
        transformer[key] = value.reshape(like.shape)
    found = {"transformer": transformer}
    if "vae" in shapes:
        found["vae"] = fill(weights, shapes["vae"], vae_names(shapes["vae"]))
    for encoder, prefix in PREFIXES.items():
        if encoder in shapes:
            names = {key: prefix + (_SHARED if key == _TIED else key) for key in shapes[encoder]}
            if encoder == "text_encoder" and names.get(_PROJECTION) not in weights:
                weights[names[_PROJECTION]] = torch.eye(*shapes[encoder][_PROJECTION].shape)
            found[encoder] = fill(weights, shapes[encoder], names)
    return found


def layer_place(layer: str) -> tuple[str, int | None]:
    """Returns the original name of a layer of the transformer, and which third of it the layer is, if of one."""
    name, third = _place(f"{layer}.weight")
    return name.removesuffix(".weight"), third


def _place(key: str) -> tuple[str, int | None]:
    """Returns the original key of a weight of the transformer, and which third of it the weight is, if of one."""
    layer, _, kind = key.rpartition(".")
    if key == "pos_embed.pos_embed":
        return "pos_embed", None
    if block := re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)", layer):
        beginning = f"joint_blocks.{block[1]}."
        if joined := _JOINED.get(block[2]):
            return f"{beginning}{joined[0]}.{kind}", joined[1]
        return f"{beginning}{_BLOCK[block[2]]}.{kind}", None
    return f"{_ENDS[layer]}.{kind}", None


def _is_swapped(key: str, weights: Mapping[str, Tensor]) -> bool:
    """Tells whether scale and shift of a modulation stand the other way round: of the last norms of both streams."""
    last = max(int(name.split(".")[1]) for name in weights if name.startswith("transformer_blocks."))
    return key.startswith((f"transformer_blocks.{last}.norm1_context.", "norm_out."))


def _swap(value: Tensor) -> Tensor:
    first, second = value.chunk(2)
    return torch.cat([second, first])

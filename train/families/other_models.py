"""Says what a model is that is not trained here: another kind of Stable Diffusion, or another model altogether."""

import re
from collections.abc import Mapping
from typing import Any

_BY_CHANNELS = {
    5: "a depth-to-image model (its UNet takes a depth map beside the latents)",
    7: "an upscaler (its UNet takes a small image beside the latents)",
    8: "an InstructPix2Pix model (its UNet takes a second image beside the latents)",
    9: "an inpainting model (its UNet takes a mask and a masked image beside the latents)",
}
"""Channels that a UNet takes, where latents have 4 → what it is."""
REFINER = "Stable Diffusion XL's refiner, which only finishes what the base has drawn; the base is what is trained"
_BY_PIPELINE = {
    "StableDiffusion3": "a part of Stable Diffusion 3",
    "Flux": "Flux",
    "StableCascade": "Stable Cascade",
    "StableUnCLIP": "Stable unCLIP (its UNet takes an image's embedding)",
    "StableDiffusionUpscale": _BY_CHANNELS[7],
    "StableDiffusionLatentUpscale": _BY_CHANNELS[7],
    "StableDiffusionImageVariation": "an image variation model (it takes an image in place of a caption)",
    "PixArt": "PixArt",
    "Kandinsky": "Kandinsky",
    "HunyuanDiT": "Hunyuan-DiT",
    "Sana": "Sana",
}
"""Beginning of a pipeline's class in model_index.json → what it is."""
_UNET = "model.diffusion_model."
_GUIDANCE = f"{_UNET}time_embed.cond_proj."
"""Beginning of the names of the layer that takes the scale of guidance, in the UNet of a latent consistency model."""
_CONSISTENCY = "a latent consistency model, whose UNet is told the guidance, too"
_NO_CLIPS = "Stable Diffusion 3 without its text encoders; name the folder of the whole model"
_DEEPEST = f"{_UNET}input_blocks.8.1.transformer_blocks."
"""Beginning of the names of Stable Diffusion XL's deepest attention, of ten blocks."""
_QUANTIZED = re.compile(
    r"scaled_fp8|.*\.(absmax|quant_map|quant_state\..+|scale_weight|weight_scale|comfy_quant|SCB|qweight)"
)
"""Names of tensors beside weights of few bits, as bitsandbytes and ComfyUI have them."""
_BY_TENSORS = {
    (_GUIDANCE,): _CONSISTENCY,
    ("edm_",): "a model of EDM's noise, as CosXL and Playground 2.5, which is not trained here",
    ("ip_adapter.",): "an IP-Adapter, which belongs beside a model",
    ("controlnet_",): "a ControlNet, which belongs beside a model",
    ("conditioner.embedders.1.",): "a part of Stable Diffusion XL",
    ("conditioner.embedders.0.", f"{_UNET}label_emb."): REFINER,
    (f"{_UNET}joint_blocks.",): _NO_CLIPS,
    ("joint_blocks.",): _NO_CLIPS,
    (f"{_UNET}double_blocks.",): "Flux",
    ("double_blocks.",): "Flux",
    ("transformer_blocks.", "context_embedder."): "a transformer, as Flux and Stable Diffusion 3 have it",
    ("depth_model.",): _BY_CHANNELS[5],
    ("embedder.", f"{_UNET}label_emb."): "Stable unCLIP (its UNet takes an image's embedding)",
    ("noise_augmentor.",): "Stable unCLIP (its UNet takes an image's embedding)",
    ("control_model.",): "a ControlNet, which belongs beside a model",
    ("lora_unet_",): "a LoRA, which belongs beside a model",
    ("lora_te",): "a LoRA, which belongs beside a model",
    ("down_blocks.", "conv_in."): "a UNet alone, in diffusers' format; name the folder of the whole model",
    ("encoder.", "decoder."): "a VAE alone",
    ("encoder.block.",): "a text encoder alone",
    ("text_model.encoder.",): "a text encoder alone",
    ("emb_params",): "a textual inversion, which belongs beside a model",
    ("clip_l",): "a textual inversion, which belongs beside a model",
    (f"{_UNET}input_blocks.", f"{_UNET}label_emb."): "a UNet alone; name the whole model",
}
"""Beginnings that each are some tensor's → what a file is."""
_OF_ADAPTERS = (".lora_A.weight", ".lora_down.weight", ".lora.down.weight", ".hada_w1_a", ".lokr_w1", ".lokr_w1_a")
"""Ends of the names of an adapter's tensors."""
_TRAINED = "Stable Diffusion 1.x, 2.x, XL and 3 for text to image are trained here; name one"


def is_pruned_xl(tensors: Mapping[str, tuple[int, ...]]) -> bool:
    """Tells whether a file's UNet is Stable Diffusion XL's with fewer blocks, of which a lone file does not tell."""
    deep = [name for name in tensors if name.startswith(_DEEPEST)]
    return bool(deep) and not any(name.startswith(f"{_DEEPEST}9.") for name in deep)


def is_told_guidance(tensors: Mapping[str, tuple[int, ...]]) -> bool:
    """Tells whether a file's UNet takes the scale of guidance, as that of a latent consistency model does."""
    return any(name.startswith(_GUIDANCE) for name in tensors)


def find_quantized(tensors: Mapping[str, tuple[int, ...]]) -> str | None:
    """Returns the name of a tensor that only a file of quantized weights has; None where there is none."""
    return next(filter(_QUANTIZED.fullmatch, tensors), None)


def describe_file(tensors: Mapping[str, tuple[int, ...]]) -> str:
    """Says in the end of a sentence what a single file is that can't be trained: "is Flux; …".

    Args:
        tensors: name → shape of its tensors.
    """
    first = tensors.get(f"{_UNET}input_blocks.0.0.weight", ())
    if len(first) == 4 and first[1] in _BY_CHANNELS:
        return f"is {_BY_CHANNELS[first[1]]}; {_TRAINED}"
    if is_pruned_xl(tensors):
        return f"is a smaller Stable Diffusion XL, such as SSD-1B; name its diffusers folder. {_TRAINED}"
    for beginnings, what in _BY_TENSORS.items():
        if all(any(name.startswith(beginning) for name in tensors) for beginning in beginnings):
            return f"is {what}; {_TRAINED}"
    if any(name.endswith(_OF_ADAPTERS) for name in tensors):
        return f"is a LoRA, which belongs beside a model; {_TRAINED}"
    return (
        "is not a Stable Diffusion 1.x, 2.x, XL or 3 model for text to image; name one, or put the file into a "
        "diffusers folder with its configs"
    )


def describe_folder(index: Mapping[str, Any], unet: Mapping[str, Any]) -> str | None:
    """Says in the end of a sentence what a diffusers folder is that can't be trained; None: it may be trained.

    Args:
        index: its model_index.json.
        unet: its unet/config.json; empty where there is none.
    """
    pipeline = str(index.get("_class_name", ""))
    what = next((what for beginning, what in _BY_PIPELINE.items() if pipeline.startswith(beginning)), None)
    if what is None and unet.get("in_channels") != unet.get("out_channels"):
        what = _BY_CHANNELS.get(int(unet.get("in_channels") or 0))
    is_xl = pipeline.startswith("StableDiffusionXL") or unet.get("addition_embed_type") == "text_time"
    if what is None and unet.get("time_cond_proj_dim"):
        what = _CONSISTENCY
    if what is None and index and (is_xl or "text_encoder_2" in index):
        has_first = (index.get("text_encoder") or [None])[0] is not None
        what = "a part of Stable Diffusion XL" if has_first else REFINER
    if what is None and (unet.get("num_class_embeds") or unet.get("class_embed_type")):
        what = "a model whose UNet takes more than a caption and latents"
    return what and f"is {what}; {_TRAINED}"

"""Opens adapters of every family and kind in the programs that people use: which keys do these leave, what do they add?

    python -m bench.client_adapters [--sd-scripts PATH] [--comfyui PATH]

Adapters of random numbers, for models of true structure and tiny width, are read by the loaders of ComfyUI, kohya's
sd-scripts and LyCORIS, each in an environment of its own (bench.clients). What a program then adds to each weight is
compared with what the merged model has: the largest difference, in the largest change. torch is this environment's.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

KINDS = [
    ("sd", "lora", True),
    ("sd", "dora", True),
    ("sd", "loha", True),
    ("sd", "lokr", True),
    ("sdxl", "lora", True),
    ("sdxl", "dora", True),
    ("sdxl", "loha", True),
    ("sdxl", "lokr", True),
    ("sd3", "lora", False),
    ("sd3", "dora", False),
    ("sd3", "loha", False),
    ("sd3", "lokr", False),
]
"""Family, kind of adapter, and whether convolutions have some, too."""
READERS = {
    "comfyui": ("ComfyUI's needs", ("lora", "dora", "loha", "lokr")),
    "kohya": ("sd-scripts' pins", ("lora",)),
    "lycoris": ("sd-scripts' pins", ("lora", "dora", "loha", "lokr")),
}
"""Program → its environment in bench.clients, and the kinds that it has."""
WIDTH = 32


def main() -> None:
    """Makes the adapters and the environments, and prints a line for each program and file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("work/clients"))
    parser.add_argument("--sd-scripts", type=Path)
    parser.add_argument("--comfyui", type=Path)
    parser.add_argument("--read", nargs=2, metavar=("CLIENT", "FOLDER"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.read:
        client, folder = asked.read
        print("".join(f"\n> {line}" for line in CLIENTS[client](Path(folder))))
        return
    checkouts = {"comfyui": asked.comfyui, "kohya": asked.sd_scripts, "lycoris": asked.sd_scripts}
    for family, kind, convolutions in KINDS:
        folder = (asked.folder / f"{family}-{kind}").absolute()
        if not (folder / "done").exists():
            make_adapters(folder, family, kind, convolutions)
        for client, checkout in checkouts.items():
            if checkout is not None and kind in READERS[client][1]:
                _report(asked.folder, client, folder, checkout.absolute())


def _report(environments: Path, client: str, folder: Path, checkout: Path) -> None:
    from bench.clients import install

    paths = [install(environments, READERS[client][0]), str(checkout)]
    paths += [install(environments, "LyCORIS")] if client == "lycoris" else []
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "--read", client, str(folder)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, cwd=checkout)
    lines = [line[2:] for line in done.stdout.splitlines() if line.startswith("> ")]
    for line in lines if not done.returncode else [f"FAILED\n{done.stderr[-2000:]}"]:
        print(f"{client}, {folder.name}: {line}", flush=True)


# What is exported


def make_adapters(folder: Path, family: str, kind: str, convolutions: bool) -> None:
    """Exports random adapters, and keeps the weights of the base and what the adapters add to them."""
    import torch
    from safetensors.torch import save_file

    from bench.random_models import random_model
    from dreamloom.train.config import TrainConfig
    from dreamloom.train.export.lora_files import save_adapters
    from dreamloom.train.model.lora import adapter_state_dict, add_adapters, merge_adapters

    model = random_model(family, tiny_configs(family), torch.device("cpu"))
    config = TrainConfig(
        base="random",
        lora_rank=4,
        lora_alpha=2,
        lora_kind=kind,
        lora_convolutions=convolutions,
        text_encoder_learning_rate=1e-4,
    )
    parts = {name: each for name, each in model.components.items() if name in model.family.adapter_layers}
    base = {name: {key: value.clone() for key, value in each.state_dict().items()} for name, each in parts.items()}
    original = {f"{key}": value.clone() for key, value in model.original_weights().items()}
    text = {f"{name}.{key}": value for name in parts for key, value in base[name].items() if "text" in name}
    add_adapters(model, config)
    adapters = {name: value + 0.1 * torch.randn_like(value) for name, value in adapter_state_dict(model).items()}
    for name, value in adapter_state_dict(model).items():
        value.copy_(adapters[name])
    folder.mkdir(parents=True, exist_ok=True)
    save_adapters(model, adapters, config, folder, torch.float32, {})
    merge_adapters(model)
    changes: dict[str, Any] = {}
    for name, module in parts.items():
        merged = {key: value - base[name][key] for key, value in module.state_dict().items()}
        changes |= by_kohyas_names(model, name, {k: v for k, v in merged.items() if v.any()}, kind)
    save_file({key: value.contiguous() for key, value in changes.items()}, folder / "changes")
    save_file({key: value.contiguous() for key, value in {**original, **text}.items()}, folder / "base")
    (folder / "done").touch()


def tiny_configs(family: str) -> Any:
    """Returns configs of a family's true structure, a few numbers wide."""
    from bench.families import REAL, changed

    blocks = {"sd": [1, 2, 4, 4], "sdxl": [1, 2, 4]}.get(family, [])
    names = [name for name in REAL[family] if name.startswith("text_encoder")]
    text = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": 2, "projection_dim": WIDTH}
    vae = {"block_out_channels": [32] * 4, "layers_per_block": 1}
    parts: dict[str, Any] = {"vae": vae, **dict.fromkeys((n for n in names if n != "text_encoder_3"), text)}
    if family == "sd3":  # ComfyUI and kohya's scripts take the depth from the width: heads of 64
        heads = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 64, "caption_projection_dim": 128}
        widths = {"joint_attention_dim": 2 * WIDTH, "pooled_projection_dim": 2 * WIDTH, "pos_embed_max_size": 16}
        parts["transformer"] = {**heads, **widths, "sample_size": 8, "dual_attention_layers": (0,)}
    else:
        unet = {"block_out_channels": [WIDTH * n for n in blocks], "cross_attention_dim": WIDTH * len(names)}
        if family == "sdxl":
            unet |= {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 48 + WIDTH}
            unet["cross_attention_dim"] = 2048  # which sd-scripts takes from nowhere
        parts["unet"] = {**unet, "attention_head_dim": 2}
    return {name: config for name, config in changed(REAL[family], **parts).items() if name != "text_encoder_3"}


def by_kohyas_names(model: Any, part: str, changes: dict[str, Any], kind: str) -> dict[str, Any]:
    """Names the changes of weights as the file of adapters names the layers."""
    import torch

    from dreamloom.train.model.lora_layers import kohya_name

    layers = {key.removesuffix(".weight"): value for key, value in changes.items()}
    names = model.kohya_names(part, layers)
    if kind == "lokr" and len(set(names.values())) < len(names):
        names = {layer: kohya_name(model.family.kohya_parts[part], layer) for layer in layers}
    joined: dict[str, list[Any]] = {}
    for layer, name in names.items():
        joined.setdefault(name, []).append(layers[layer])
    return {name: torch.cat(values) for name, values in joined.items()}


# The programs. Nothing of dreamloom is imported from here on.


def read_with_comfyui(folder: Path) -> Iterator[str]:
    """Loads the file as ComfyUI's node does, and patches each weight."""
    import logging

    import comfy.options

    sys.argv = ["comfyui", "--cpu"]
    comfy.options.enable_args_parsing()
    import comfy.lora
    import comfy.lora_convert
    import comfy.model_base
    import comfy.model_detection
    import comfy.supported_models
    import torch
    from safetensors.torch import load_file

    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    base, changes = load_file(folder / "base"), load_file(folder / "changes")
    family = folder.name.split("-")[0]
    made = {"sd": ("SD15", "BaseModel"), "sdxl": ("SDXL", "SDXL"), "sd3": ("SD3", "SD3")}[family]
    config = comfy.model_detection.detect_unet_config(base, "model.diffusion_model.")
    config.pop("audio_model", None)
    settings = getattr(comfy.supported_models, made[0])(config)
    settings.set_inference_dtype(torch.float32, None)
    model = getattr(comfy.model_base, made[1])(settings, device=torch.device("cpu"))
    model.load_model_weights(base, "model.diffusion_model.")
    faults = [line for line in lines if "missing" in line or "unexpected" in line]
    yield f"{type(model).__name__} takes the file's denoiser; it logs {faults or 'nothing'}"

    class Clip:
        """The text encoders as ComfyUI names them."""

        def state_dict(self) -> dict[str, Any]:
            ours = {"text_encoder.": "clip_l.transformer.", "text_encoder_2.": "clip_g.transformer."}
            return {
                prefix + _with_text_model(key.removeprefix(name)): value
                for name, prefix in ours.items()
                for key, value in base.items()
                if key.startswith(name)
            }

    names = comfy.lora.model_lora_keys_unet(model, {})
    names = comfy.lora.model_lora_keys_clip(Clip(), names)
    weights = {**model.state_dict(), **Clip().state_dict()}
    file = comfy.lora_convert.convert_lora(load_file(folder / "lora.safetensors"))
    lines.clear()
    patches = comfy.lora.load_lora(file, names)
    lost = [line for line in lines if "not loaded" in line]
    differences = []
    for layer, change in changes.items():
        target = names[layer]
        key, offset = (target, None) if isinstance(target, str) else target[:2]
        weight = weights[key].float()
        patched = comfy.lora.calculate_weight([(1.0, patches[target], 1.0, offset, None)], weight.clone(), key)
        added = patched - weight
        added = added if offset is None else added.narrow(*offset)
        differences.append((added, change))
    yield f"{len(patches)} of {len(changes)} layers, {len(lost)} keys not loaded, {_difference(differences)}"


def read_with_kohya(folder: Path) -> Iterator[str]:
    """Loads the file as sd-scripts' scripts do, for inference."""
    from safetensors.torch import load_file

    base, changes = load_file(folder / "base"), load_file(folder / "changes")
    text_encoders, unet, module = _kohyas_models(folder.name.split("-")[0], base)
    network, weights = module.create_network_from_weights(
        1.0, str(folder / "lora.safetensors"), None, text_encoders, unet, for_inference=True
    )
    network.apply_to(text_encoders, unet)
    result = network.load_state_dict(weights, strict=False)
    loras = {lora.lora_name: lora for lora in (*network.unet_loras, *network.text_encoder_loras)}
    differences = [
        (loras[name].get_weight().reshape(change.shape), change) for name, change in changes.items() if name in loras
    ]
    yield (
        f"{len(differences)} of {len(changes)} layers, missing {len(result.missing_keys)}, "
        f"unexpected {len(result.unexpected_keys)} {result.unexpected_keys[:1]}, {_difference(differences)}"
    )


def read_with_lycoris(folder: Path) -> Iterator[str]:
    """Merges the file as LyCORIS does, into kohya's models."""
    import torch
    from safetensors.torch import load_file

    base, changes = load_file(folder / "base"), load_file(folder / "changes")
    text_encoders, unet, _ = _kohyas_models(folder.name.split("-")[0], base)
    from lycoris.kohya import create_network_from_weights

    network, weights = create_network_from_weights(
        1.0, str(folder / "lora.safetensors"), None, text_encoders, unet, for_inference=True
    )
    loras = {lora.lora_name: lora for lora in network.loras}
    before = {name: lora.org_module[0].weight.detach().clone() for name, lora in loras.items()}
    network.merge_to(text_encoders, unet, weights, torch.float32, "cpu")
    differences = [
        ((loras[name].org_module[0].weight.detach() - before[name]).reshape(change.shape), change)
        for name, change in changes.items()
        if name in loras
    ]
    layers = {key.split(".")[0] for key in weights}
    yield (
        f"{len(differences)} of {len(changes)} layers, {len(layers - loras.keys())} of the file's not loaded, "
        f"{_difference(differences)}"
    )


CLIENTS: dict[str, Callable[[Path], Iterator[str]]] = {
    "comfyui": read_with_comfyui,
    "kohya": read_with_kohya,
    "lycoris": read_with_lycoris,
}


def _kohyas_models(family: str, base: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Makes sd-scripts' models of the base's weights, and imports its module of adapters."""
    import torch

    prefix = "model.diffusion_model."
    denoiser = {key.removeprefix(prefix): value for key, value in base.items() if key.startswith(prefix)}
    encoders = [_clip(base, f"{name}.") for name in ("text_encoder", "text_encoder_2")[: 1 + (family != "sd")]]
    if family == "sd3":
        from library import sd3_utils
        from networks import lora_sd3

        return encoders, sd3_utils.load_mmdit(dict(base), torch.float32, "cpu"), lora_sd3
    from networks import lora

    if family == "sdxl":
        from library import sdxl_original_unet as original

        original.MODEL_CHANNELS, original.TIME_EMBED_DIM = WIDTH, 4 * WIDTH
        original.ADM_IN_CHANNELS = 48 + WIDTH
        unet = original.SdxlUNet2DConditionModel()
        unet.load_state_dict(denoiser)
        return encoders, unet, lora
    from library import model_util, original_unet

    original_unet.BLOCK_OUT_CHANNELS = (WIDTH, 2 * WIDTH, 4 * WIDTH, 4 * WIDTH)
    original_unet.TIMESTEP_INPUT_DIM, original_unet.TIME_EMBED_DIM = WIDTH, 4 * WIDTH
    unet = original_unet.UNet2DConditionModel(64, [2] * 4, WIDTH, False)
    config = model_util.create_unet_diffusers_config(False)
    unet.load_state_dict(model_util.convert_ldm_unet_checkpoint(False, dict(base), config))
    return encoders[0], unet, lora


def _clip(base: dict[str, Any], prefix: str) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    weights = {_with_text_model(key.removeprefix(prefix)): v for key, v in base.items() if key.startswith(prefix)}
    layers = len([key for key in weights if key.endswith("mlp.fc1.weight")])
    heads = {"num_attention_heads": 2, "num_hidden_layers": layers}
    encoder = CLIPTextModel(CLIPTextConfig(hidden_size=WIDTH, intermediate_size=4 * WIDTH, **heads))
    encoder.load_state_dict({key: value for key, value in weights.items() if key.startswith("text_model.")})
    return encoder


def _with_text_model(key: str) -> str:
    return key if key.startswith(("text_model.", "text_projection.")) else f"text_model.{key}"


def _difference(pairs: list[tuple[Any, Any]]) -> str:
    largest = max((float(change.abs().max()) for _, change in pairs), default=0.0)
    apart = max((float((added.detach() - change).abs().max()) for added, change in pairs), default=0.0)
    return f"differs by {apart / (largest or 1.0):.1e} of the largest change"


if __name__ == "__main__":
    main()

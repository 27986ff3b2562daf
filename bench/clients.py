"""Opens exports in the programs that people use: which tensors do these miss, not expect, or read otherwise?

    python -m bench.clients [--sd-scripts PATH] [--comfyui PATH]

Exports with random weights in the real shapes of Stable Diffusion 1.5 and 2.1 (which predicts v), and adapters for
both, are read by diffusers and transformers of several releases, each in an environment of its own under --folder, and
by the loaders of kohya's sd-scripts and of ComfyUI where a checkout of them is given. torch is this environment's.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ENVIRONMENTS = {
    "diffusers 0.30, transformers 4.44": (
        *("diffusers==0.30.3", "transformers==4.44.2", "tokenizers==0.19.1", "huggingface_hub==0.24.7"),
        *("safetensors==0.4.5", "peft==0.12.0", "accelerate==0.34.2"),
    ),
    "sd-scripts' pins": (
        *("diffusers==0.32.1", "transformers==4.54.1", "tokenizers==0.21.4", "huggingface_hub==0.34.3"),
        *("safetensors==0.4.5", "peft==0.15.2", "accelerate==1.6.0", "einops==0.7.0"),
        *("toml", "imagesize", "voluptuous", "opencv-python==4.10.0.84"),
    ),
    "ComfyUI's needs": ("einops", "torchsde", "trampoline", "sentencepiece"),
    "web interfaces": (
        *("omegaconf==2.2.3", "antlr4-python3-runtime==4.9.3", "pytorch_lightning==1.9.4", "lightning_utilities"),
        *("torchmetrics==1.4.0", "kornia==0.6.7", "tomesd==0.1.3", "open-clip-torch==2.20.0", "torchsde", "trampoline"),
        *("torchdiffeq", "setuptools<70", "diskcache", "piexif", "sentencepiece", "protobuf"),
    ),
    "LyCORIS": ("lycoris-lora==4.1.3", "toml"),
}
"""Name → what is installed beside this environment, and hides it."""
CAPTIONS = ["a photo of a dog", "Ein Haus am See, 4k?", "don't stop!! 3d", "naïve café 東京", "x" * 300]
MODELS = {"sd1": (768, "epsilon"), "sd2": (1024, "v_prediction")}
"""Name of an export → width of its text encoder, and what it predicts."""


def main() -> None:
    """Makes the exports and the environments, and prints a line for each client and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("work/clients"))
    parser.add_argument("--sd-scripts", type=Path)
    parser.add_argument("--comfyui", type=Path)
    parser.add_argument("--read", nargs=2, metavar=("CLIENT", "EXPORT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.read:
        client, export = asked.read
        print(json.dumps(list(CLIENTS[client](asked.folder.absolute() / export))))
        return
    for name in MODELS:
        if not (asked.folder / name / "done").exists():
            make_export(asked.folder / name)
    checkouts = {"kohya": asked.sd_scripts, "comfyui": asked.comfyui}
    for environment, client in [(None, "diffusers"), *((name, "diffusers") for name in list(ENVIRONMENTS)[:2])]:
        _report(asked.folder, environment, client, None)
    for environment, (client, checkout) in zip(list(ENVIRONMENTS)[1:3], checkouts.items(), strict=True):
        if checkout is None:
            print(f"{client}: not read; give a checkout")
        else:
            _report(asked.folder, environment, client, checkout.absolute())


def _report(folder: Path, environment: str | None, client: str, checkout: Path | None) -> None:
    paths = [install(folder, environment)] if environment else []
    paths += [str(checkout)] if checkout else []
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
    for export in MODELS:
        command = [sys.executable, __file__, "--folder", str(folder), "--read", client, export]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, cwd=checkout)
        name = f"{client} ({environment or 'this environment'}), {export}"
        if done.returncode:
            print(f"{name}: FAILED\n{done.stderr[-2000:]}")
            continue
        for line in json.loads(done.stdout.splitlines()[-1]):
            print(f"{name}: {line}")


def install(folder: Path, environment: str) -> str:
    """Installs an environment's packages into a folder of their own, which goes before this environment's."""
    target = (folder / environment.replace(" ", "-").replace(",", "")).absolute()
    if not target.exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target)]
        subprocess.run([*command, *ENVIRONMENTS[environment]], check=True)
    return str(target)


# What is exported


def make_export(folder: Path) -> None:
    """Exports a random model of real shape in all formats, and keeps its weights as it has them in memory."""
    import torch
    from safetensors.torch import save_file

    from bench.families import changed
    from bench.random_models import random_model
    from dreamloom.train.config import TrainConfig
    from dreamloom.train.export.config import ExportConfig
    from dreamloom.train.export.lora_files import save_adapters
    from dreamloom.train.export.metadata import adapter_metadata, model_spec
    from dreamloom.train.export.writers import Export, write_diffusers, write_single_file
    from dreamloom.train.families.sd.configs import CONFIGS
    from dreamloom.train.model.lora import adapter_state_dict, add_adapters

    width, prediction_type = MODELS[folder.name]
    configs = changed(CONFIGS[width], scheduler={"prediction_type": prediction_type})
    model = random_model("sd", configs, torch.device("cpu"), half=True)
    checkpoint = folder / "checkpoints" / "1"
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / "state.json").touch()
    config = TrainConfig(base="random", lora_rank=4, text_encoder_learning_rate=1e-4)
    export = Export(model, ExportConfig(), model_spec(model, config, checkpoint, folder.name))
    (folder / "model").mkdir(exist_ok=True)
    assert not write_diffusers(export, folder / "model") and not write_single_file(export, folder / "model")
    parts = {part: module.state_dict() for part, module in model.components.items()}
    save_file({f"{part}.{_bare(k)}": v.contiguous() for part in parts for k, v in parts[part].items()}, folder / "all")
    tokens = model.tokenizers["text_encoder"](CAPTIONS, padding="max_length", truncation=True, max_length=77).input_ids
    (folder / "tokens.json").write_text(json.dumps(tokens))
    add_adapters(model, config)
    adapters = {name: torch.randn_like(value) for name, value in adapter_state_dict(model).items()}
    metadata = adapter_metadata(model, config, checkpoint, "x")
    save_adapters(model, adapters, config, folder / "model", torch.float16, metadata)
    save_file({k.replace("text_model.", ""): v.half() for k, v in adapters.items()}, folder / "adapters")
    (folder / "done").touch()


# The clients. Nothing of dreamloom is imported from here on.


def read_with_diffusers(folder: Path) -> Iterator[str]:
    """Opens the folder, the single file (also by its .yaml alone) and both files of adapters."""
    import diffusers
    import torch
    from safetensors.torch import load_file

    expected = load_file(folder / "all")
    half = {"torch_dtype": torch.float16}
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder / "model", safety_checker=None, **half)
    yield f"folder: {_compare(_parts(pipeline), expected)}; {_compare_tokens(pipeline.tokenizer, folder)}"
    file = folder / "model" / "model.safetensors"
    settings = {"config": str(folder / "model"), "local_files_only": True, **half}
    single = diffusers.StableDiffusionPipeline.from_single_file(str(file), **settings)
    yield f"single file: {_compare(_parts(single), expected)}; predicts {single.scheduler.config.prediction_type}"
    if file.with_suffix(".yaml").exists():
        by_yaml = diffusers.UNet2DConditionModel.from_single_file(
            str(file), original_config=str(file.with_suffix(".yaml")), **half
        )
        unet = {name: value for name, value in expected.items() if name.startswith("unet.")}
        yield f"single file by its .yaml: {_compare(_named('unet', by_yaml), unet)}"
    adapters = load_file(folder / "adapters")
    for name in ("lora.safetensors", "pytorch_lora_weights.safetensors"):
        pipeline.load_lora_weights(folder / "model", weight_name=name)
        loaded = {key: value for key, value in _parts(pipeline).items() if ".lora_A." in key or ".lora_B." in key}
        plain = {key.replace(".default_0.", "."): value.half() for key, value in loaded.items()}
        yield f"{name}: {_compare(plain, adapters)}"
        pipeline.unload_lora_weights()


def read_with_kohya(folder: Path) -> Iterator[str]:
    """Opens the single file and kohya's file of adapters as sd-scripts' trainers do."""
    from library import model_util
    from networks import lora
    from safetensors.torch import load_file

    file = folder / "model" / "model.safetensors"
    models = model_util.load_models_from_stable_diffusion_checkpoint(folder.name == "sd2", str(file))
    text_encoder, vae, unet = models
    loaded = {**_named("unet", unet), **_named("vae", vae), **_named("text_encoder", text_encoder)}
    yield f"single file: {_compare({key: value.half() for key, value in loaded.items()}, load_file(folder / 'all'))}"
    adapters = folder / "model" / "lora.safetensors"
    network, weights = lora.create_network_from_weights(1.0, str(adapters), vae, text_encoder, unet)
    network.apply_to(text_encoder, unet)
    result = network.load_state_dict(weights, strict=False)
    yield f"lora.safetensors: missing {len(result.missing_keys)}, unexpected {len(result.unexpected_keys)}"


def read_with_comfyui(folder: Path) -> Iterator[str]:
    """Opens the single file and both files of adapters as ComfyUI's nodes do."""
    import logging

    import comfy.options

    sys.argv = ["comfyui", "--cpu"]
    comfy.options.enable_args_parsing()  # it reads them as it is imported
    import comfy.lora
    import comfy.sd
    import comfy.utils

    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.DEBUG)
    file = folder / "model" / "model.safetensors"
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(file))
    faults = [line for line in lines if any(word in line for word in ("missing", "unexpected", "left over"))]
    kind = f"{type(model.model.model_config).__name__} {model.model.model_type.name}"
    yield f"single file: {kind}, VAE {vae.first_stage_model is not None}; it logs {faults or 'nothing'}"
    for name in ("lora.safetensors", "pytorch_lora_weights.safetensors"):
        lines.clear()
        names = comfy.lora.model_lora_keys_unet(model.model, {})
        names = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, names)
        patches = comfy.lora.load_lora(comfy.utils.load_torch_file(str(folder / "model" / name)), names)
        lost = [line for line in lines if "not loaded" in line]
        yield f"{name}: {len(patches)} layers, {len(lost)} keys not loaded"


CLIENTS: dict[str, Callable[[Path], Iterator[str]]] = {
    "diffusers": read_with_diffusers,
    "kohya": read_with_kohya,
    "comfyui": read_with_comfyui,
}


def _parts(pipeline: Any) -> dict[str, Any]:
    parts = ("unet", "vae", "text_encoder")
    return {name: value for part in parts for name, value in _named(part, getattr(pipeline, part)).items()}


def _named(part: str, module: Any) -> dict[str, Any]:
    return {f"{part}.{_bare(name)}": value for name, value in module.state_dict().items()}


def _bare(name: str) -> str:
    return name.removeprefix("text_model.")


def _compare(loaded: dict[str, Any], expected: dict[str, Any]) -> str:
    import torch

    ignored = "position_ids"  # a buffer of constants
    missing = [name for name in expected if name not in loaded and ignored not in name]
    more = [name for name in loaded if name not in expected and ignored not in name]
    other = [name for name in expected if name in loaded and not torch.equal(loaded[name], expected[name])]
    return f"{len(expected)} tensors, missing {missing[:3]}, unexpected {more[:3]}, different {other[:3]}"


def _compare_tokens(tokenizer: Any, folder: Path) -> str:
    tokens = tokenizer(CAPTIONS, padding="max_length", truncation=True, max_length=77).input_ids
    return "same tokens" if tokens == json.loads((folder / "tokens.json").read_text()) else f"OTHER TOKENS {tokens}"


if __name__ == "__main__":
    main()

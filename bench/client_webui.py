"""Opens exports in A1111 and Forge: do their own loaders take files, adapters and words whole, and as what?

    python -m bench.client_webui [--a1111 PATH] [--forge PATH] --hub PATH

Each is a checkout as its launcher leaves it, with `repositories/` inside. --hub is a cache of the Hugging Face hub that
has config and tokenizer of openai/clip-vit-large-patch14 and the tokenizer of google/t5-v1_1-xxl, which A1111 takes
from there. The web interfaces' own packages are stood for by modules that do nothing; nothing is drawn.

Files of real shape have no memory (the meta device). Adapters are those of bench.client_adapters: what a program adds
to each weight is compared with what the merged model has: the largest difference, in the largest change.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.client_loading import HALF_MORE, SMALL_CLIP, THIRD, THIRD_AND_T5, AbsentPackages

T5 = {"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_layers": 24, "num_heads": 64, "vocab_size": 32128,
      "feed_forward_proj": "gated-gelu"}  # fmt: skip
"""The config of Stable Diffusion 3's third text encoder."""


def main() -> None:
    """Makes what is opened and the environments, and prints what each program says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("work/clients"))
    parser.add_argument("--a1111", type=Path)
    parser.add_argument("--forge", type=Path)
    parser.add_argument("--hub", type=Path)
    parser.add_argument("--read", nargs=2, metavar=("CLIENT", "CHECKOUT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    folder = asked.folder.absolute()
    if asked.read:
        read(asked.read[0], Path(asked.read[1]), folder)
        return
    from bench.client_adapters import KINDS, make_adapters
    from bench.clients import install

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "web.json").write_text(json.dumps(exported_models()))
    for family, kind, convolutions in KINDS:
        if not (folder / f"{family}-{kind}" / "done").exists():
            make_adapters(folder / f"{family}-{kind}", family, kind, convolutions)
    make_small_models(folder)
    packages = [install(folder, "web interfaces"), install(folder, "sd-scripts' pins")]
    for client, checkout in (("a1111", asked.a1111), ("forge", asked.forge)):
        if checkout is not None:
            path = os.pathsep.join([*packages, str(checkout.absolute()), str(Path(__file__).parents[1])])
            variables = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
            variables |= {"HF_HUB_CACHE": str(asked.hub.absolute())} if asked.hub else {}
            command = [sys.executable, "-m", "bench.client_webui", "--folder", str(folder)]
            command += ["--read", client, str(checkout.absolute())]
            subprocess.run(command, env=variables, cwd=checkout, check=True)


# What is exported


def exported_models() -> dict[str, Any]:
    """Returns model → the shapes of its single file by key, and its .yaml."""
    from bench.client_shapes import LARGE, MEDIUM_3
    from bench.families import REAL, changed
    from bench.random_models import model_without_memory
    from dreamloom.train.export.writers import markers
    from dreamloom.train.families.sd.configs import CONFIGS

    predicts_v = {"prediction_type": "v_prediction"}
    of_noai = {**predicts_v, "rescale_betas_zero_snr": True}
    models = {
        "Stable Diffusion 1.5": ("sd", REAL["sd"]),
        "Stable Diffusion 1.5, v and zero SNR": ("sd", changed(REAL["sd"], scheduler=of_noai)),
        "Stable Diffusion 2.1, 512 pixels": ("sd", changed(CONFIGS[1024], scheduler={"prediction_type": "epsilon"})),
        "Stable Diffusion 2.1, v": ("sd", changed(CONFIGS[1024], scheduler=predicts_v)),
        "Stable Diffusion XL": ("sdxl", REAL["sdxl"]),
        "Stable Diffusion XL, v and zero SNR": ("sdxl", changed(REAL["sdxl"], scheduler=of_noai)),
        THIRD: ("sd3", changed(REAL["sd3"], transformer=MEDIUM_3)),
        THIRD_AND_T5: ("sd3", {**changed(REAL["sd3"], transformer=MEDIUM_3), "text_encoder_3": T5}),
        HALF_MORE: ("sd3", {**REAL["sd3"], "text_encoder_3": T5}),
        "Stable Diffusion 3.5 large, T5": ("sd3", {**changed(REAL["sd3"], transformer=LARGE), "text_encoder_3": T5}),
    }
    found = {}
    for title, (name, configs) in models.items():
        model = model_without_memory(name, configs)
        weights = {**model.original_weights(), **markers(model)}
        shapes = {key: list(value.shape) for key, value in weights.items()}
        found[title] = {"shapes": shapes, "yaml": model.original_config()}
    return found


def make_small_models(folder: Path) -> None:
    """Writes the .yaml of the tiny models that adapters are for, the configs of their encoders, and files of words."""
    import torch
    import yaml
    from safetensors.torch import save_file

    from bench.client_adapters import WIDTH, tiny_configs
    from bench.random_models import random_model
    from dreamloom.train.export.older_releases import write_slow_tokenizer
    from dreamloom.train.families.original_config import ldm_config, sgm_config
    from dreamloom.train.families.registry import FAMILIES

    for family, write in (("sd", lambda model: ldm_config(model, False)), ("sdxl", sgm_config)):
        model = random_model(family, tiny_configs(family), torch.device("cpu"))
        clip, tokenizer = folder / "tokenizer", model.tokenizers["text_encoder"]
        tokenizer.save_pretrained(clip)
        write_slow_tokenizer(clip, tokenizer)
        text = model.components["text_encoder"].config
        names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "hidden_act")
        config = {"model_type": "clip_text_model", **{name: getattr(text, name) for name in names}}
        (clip / "config.json").write_text(json.dumps(config))
        settings = yaml.safe_load(write(model).replace("ViT-bigG-14", SMALL_CLIP))
        params = settings["model"]["params"]
        encoder = (
            params["cond_stage_config"] if family == "sd" else params["conditioner_config"]["params"]["emb_models"][0]
        )
        encoder.setdefault("params", {})["version"] = str(clip)
        (folder / f"{family}.yaml").write_text(yaml.safe_dump(settings))
        keys = FAMILIES[family].embedding_keys
        save_file({key: torch.randn(2, WIDTH) for key in keys.values()}, folder / f"zorp-{family}.safetensors")
    text = {"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": 2, "layers": 32}
    vision = {"image_size": 32, "layers": 1, "width": WIDTH, "head_width": WIDTH, "patch_size": 32}
    config = {"embed_dim": WIDTH, "vision_cfg": vision, "text_cfg": text}
    (folder / f"{SMALL_CLIP}.json").write_text(json.dumps(config))


# The programs. Nothing of dreamloom is imported from here on.


def read(client: str, checkout: Path, folder: Path) -> None:
    """Prints what a program makes of all of it."""
    sys.meta_path.append(AbsentPackages())
    from bench.client_a1111 import read_with_a1111
    from bench.client_forge import read_with_forge

    for what, line in {"a1111": read_with_a1111, "forge": read_with_forge}[client](checkout, folder):
        print(f"{client}, {what}: {line}", flush=True)


if __name__ == "__main__":
    main()

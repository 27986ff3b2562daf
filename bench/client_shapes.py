"""Do ComfyUI's classes take single files of every family whole? Of real shapes, without memory.

    python -m bench.client_shapes --comfyui PATH

The names and shapes that an export writes are given to ComfyUI's own detection as tensors on the meta device; printed
is what it takes them for, and which tensors of denoiser and text encoders it would miss or not expect.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

LARGE = {"num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432, "dual_attention_layers": ()}
MEDIUM_3 = {"dual_attention_layers": (), "qk_norm": None}
UNET = "model.diffusion_model."


def main() -> None:
    """Writes the shapes, and prints a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("work/clients"))
    parser.add_argument("--comfyui", type=Path)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.read:
        read_with_comfyui(asked.read)
        return
    from bench.clients import install

    asked.folder.mkdir(parents=True, exist_ok=True)
    file = (asked.folder / "shapes.json").absolute()
    file.write_text(json.dumps(export_shapes()))
    checkout = asked.comfyui.absolute()
    paths = os.pathsep.join([install(asked.folder, "ComfyUI's needs"), str(checkout)])
    variables = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, __file__, "--read", str(file)], env=variables, cwd=checkout, check=True)


def export_shapes() -> dict[str, dict[str, list[int]]]:
    """Returns model → key of its single file → shape."""
    from bench.families import REAL, changed
    from bench.random_models import model_without_memory

    models = {
        "Stable Diffusion 1.5": ("sd", REAL["sd"]),
        "Stable Diffusion XL": ("sdxl", REAL["sdxl"]),
        "Stable Diffusion 3 medium": ("sd3", changed(REAL["sd3"], transformer=MEDIUM_3)),
        "Stable Diffusion 3.5 medium": ("sd3", REAL["sd3"]),
        "Stable Diffusion 3.5 large": ("sd3", changed(REAL["sd3"], transformer=LARGE)),
    }
    found = {}
    for title, (name, configs) in models.items():
        weights = model_without_memory(name, configs).original_weights()
        found[title] = {key: list(value.shape) for key, value in weights.items()}
    return found


def read_with_comfyui(file: Path) -> None:
    """Compares the shapes with ComfyUI's own models. Nothing of dreamloom is imported here."""
    sys.argv = ["comfyui", "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()  # it reads them as it is imported
    import comfy.model_detection
    import torch

    for title, shapes in json.loads(file.read_text()).items():
        weights = {key: torch.empty(shape, device="meta", dtype=torch.float16) for key, shape in shapes.items()}
        config = comfy.model_detection.model_config_from_unet(weights, UNET)
        model = config.get_model(weights, UNET, device="meta")
        denoiser = {key.removeprefix(UNET): value for key, value in weights.items() if key.startswith(UNET)}
        wanted = config.clip_target(state_dict=weights).clip(device="meta", dtype=torch.float16, model_options={})
        text = config.process_clip_state_dict(dict(weights))
        print(
            f"{title}: {type(config).__name__}; denoiser {_compare(model.diffusion_model.state_dict(), denoiser)}; "
            f"{type(wanted).__name__} {_compare(wanted.state_dict(), text)}",
            flush=True,
        )


def _compare(wanted: dict[str, Any], found: dict[str, Any]) -> str:
    missing = [name for name in wanted if name not in found and not name.endswith("logit_scale")]
    other = [name for name in wanted if name in found and wanted[name].shape != found[name].shape]
    return (
        f"{len(found)} tensors, missing {missing}, unexpected {[n for n in found if n not in wanted]}, shapes {other}"
    )


if __name__ == "__main__":
    main()

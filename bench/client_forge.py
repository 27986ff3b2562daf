"""Reads what bench.client_webui has made with Forge's own functions. Nothing of dreamloom is imported here."""

import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bench.client_loading import HALF_MORE, difference


def read_with_forge(checkout: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Opens files of real shape with Forge's loader, and adapters with its functions on the keys that it then has."""
    sys.argv = ["webui", "--always-cpu"]
    sys.path += [str(checkout / "packages_3rdparty"), str(checkout / "repositories" / "huggingface_guess")]
    import torch
    from modules import paths, shared_init  # noqa: F401

    shared_init.initialize()
    from backend import loader, memory_management
    from backend.nn import t5
    from backend.text_processing.textual_inversion import EmbeddingDatabase

    memory_management.cpu = torch.device("meta")
    memory_management.unet_inital_load_device = lambda **_: memory_management.cpu
    t5.IntegratedT5 = partial(_on_meta, t5.IntegratedT5)
    opened, place = {}, Path(tempfile.mkdtemp())
    for title, said in json.loads((folder / "web.json").read_text()).items():
        try:
            engine, lines = _forge_engine(loader, said, place)
        except (AssertionError, OSError, RuntimeError, ValueError) as error:  # the program's answer
            yield title, f"FAILED {type(error).__name__}: {str(error)[:200]}"
            continue
        opened[title] = engine
        predictor = engine.forge_objects.unet.model.predictor
        predicts = getattr(predictor, "prediction_type", type(predictor).__name__)
        faults = [line for line in lines if "Missing" in line or "Unexpected" in line]
        kind = f"{type(engine).__name__}, predicts {predicts}, ztsnr {engine.model_config.ztsnr}"
        yield title, f"{kind}; it prints {[line[:200] for line in faults] or 'nothing'}"
    bases = {"sd": "Stable Diffusion 1.5", "sdxl": "Stable Diffusion XL", "sd3": HALF_MORE}
    for adapters in sorted(folder.glob("sd*-*/lora.safetensors")):
        name = adapters.parent.name
        if engine := opened.get(bases[name.split("-")[0]]):
            yield name, _forge_adapters(engine, adapters.parent)
    for words in sorted(folder.glob("zorp-*.safetensors")):
        database = EmbeddingDatabase(lambda texts, **_: {"input_ids": [[1]] * len(texts)})
        database.load_from_file(str(words), words.name)
        found = database.word_embeddings.get(words.stem)
        yield words.name, f"{found.vectors} vectors of {found.shape}" if found else "NOT READ"


def _on_meta(make: Callable[[Any], Any], config: Any) -> Any:
    import torch

    with torch.device("meta"):
        return make(config)


def _forge_engine(loader: Any, said: Any, place: Path) -> tuple[Any, list[str]]:
    """Calls Forge's loader on tensors without memory; returns its engine, and what it prints."""

    import torch

    (place / "model.yaml").unlink(missing_ok=True)
    if said["yaml"]:
        (place / "model.yaml").write_text(said["yaml"])
    file = {key: torch.empty(shape, device="meta", dtype=torch.float16) for key, shape in said["shapes"].items()}
    looked_at = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"  # Stable Diffusion 2's
    if looked_at in file:
        file[looked_at] = torch.zeros(file[looked_at].shape)
    loader.load_torch_file = lambda path: file
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        engine = loader.forge_loader(str(place / "model.safetensors"))
    return engine, printed.getvalue().splitlines()


def _forge_adapters(engine: Any, adapters: Path) -> str:
    """Loads a file of adapters, and adds it to the weights of the tiny model it is for."""
    from backend.patcher.lora import load_lora, merge_lora_to_weight, model_lora_keys_clip, model_lora_keys_unet
    from safetensors.torch import load_file

    base, changes = load_file(adapters / "base"), load_file(adapters / "changes")
    names = model_lora_keys_unet(engine.forge_objects.unet.model, {})
    encoders = model_lora_keys_clip(engine.forge_objects.clip.cond_stage_model, {})
    patches, rest = load_lora(load_file(adapters / "lora.safetensors"), names)
    more, rest = load_lora(rest, encoders)
    parts = {"diffusion_model.": "model.diffusion_model.", "clip_l.transformer.": "text_encoder.",
             "clip_g.transformer.": "text_encoder_2."}  # fmt: skip
    pairs = []
    for layer, change in changes.items():
        key = names.get(layer) or encoders.get(layer)
        patch = {**patches, **more}.get(key)
        if patch is not None:
            part = next(part for part in parts if key.startswith(part))
            inside = key.removeprefix(part)
            weight = next(
                base[parts[part] + each]
                for each in (inside, inside.removeprefix("text_model."))
                if parts[part] + each in base
            ).float()
            merged = merge_lora_to_weight([(1.0, patch, 1.0, None, None)], weight.clone(), key)
            pairs.append(((merged - weight).reshape(change.shape), change))
    return f"{len(pairs)} of {len(changes)} layers, {len(rest)} keys not matched, {difference(pairs)}"

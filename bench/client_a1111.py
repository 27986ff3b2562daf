"""Reads what bench.client_webui has made with A1111's own functions. Nothing of dreamloom is imported here."""

import json
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.client_loading import SMALL_CLIP, THIRD, compare, difference


def read_with_a1111(checkout: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Opens all with A1111's functions, in the order in which its load_model calls them."""
    data = tempfile.mkdtemp()
    sys.argv = ["webui", "--skip-torch-cuda-test", "--no-half", "--use-cpu", "all", "--data-dir", data, "--no-hashing"]
    sys.path.append(str(checkout / "extensions-builtin" / "Lora"))
    from modules import paths, shared_init  # noqa: F401

    shared_init.initialize()
    from modules import sd_models

    sd_models.patch_given_betas()
    sd_models.model_data.was_loaded_at_least_once = True  # which is asked for a model as words are registered
    opened = {}
    for title, said in json.loads((folder / "web.json").read_text()).items():
        try:
            model, config, file = _a1111_model(said, Path(data))
        except (AssertionError, OSError, RuntimeError, ValueError) as error:  # the program's answer
            yield title, f"FAILED {type(error).__name__}: {str(error)[:200]}"
            continue
        kind = f"{Path(config).name}, {model.model_type.name}, predicts {model.parameterization}"
        yield title, f"{kind}; {compare(model.state_dict(), file)}"
        opened[title] = model
    import open_clip

    open_clip.add_model_config(folder / f"{SMALL_CLIP}.json")
    for adapters in sorted(folder.glob("sd*-*/lora.safetensors")):
        family = adapters.parent.name.split("-")[0]
        try:
            model = opened[THIRD] if family == "sd3" else _small_a1111_model(adapters.parent, family, folder)
            yield adapters.parent.name, _a1111_adapters(model, adapters.parent)
        except (AssertionError, OSError, RuntimeError, ValueError) as error:  # the program's answer
            yield adapters.parent.name, f"FAILED {type(error).__name__}: {str(error)[:200]}"
    from modules.textual_inversion import textual_inversion

    for words in sorted(folder.glob("zorp-*.safetensors")):
        database = textual_inversion.EmbeddingDatabase()
        database.register_embedding = _keep(database.word_embeddings)
        database.load_from_file(str(words), words.name)
        found = database.word_embeddings.get(words.stem)
        yield words.name, f"{found.vectors} vectors of {found.shape}" if found else "NOT READ"


def _keep(words: dict[str, Any]) -> Callable[[Any, Any], None]:
    return lambda embedding, model: words.update({embedding.name: embedding})


def _a1111_model(said: Any, place: Path) -> tuple[Any, str, dict[str, Any]]:
    """Makes a model of real shape as load_model does, without memory; returns its config and the file as it has it."""
    import torch
    from modules import sd_disable_initialization, sd_models, sd_models_config
    from omegaconf import OmegaConf

    beside = place / "model.yaml"
    beside.unlink(missing_ok=True)
    if said["yaml"]:
        beside.write_text(said["yaml"])
    tensors = {key: torch.empty(shape, device="meta") for key, shape in said["shapes"].items()}
    file = sd_models.get_state_dict_from_checkpoint(tensors)
    info = types.SimpleNamespace(filename=str(place / "model.safetensors"))
    config = sd_models_config.find_checkpoint_config(file, info)
    settings = OmegaConf.load(config)
    sd_models.repair_config(settings, file)
    with (
        sd_disable_initialization.DisableInitialization(disable_clip=True),
        sd_disable_initialization.InitializeOnMeta(),
    ):
        model = sd_models.instantiate_from_config(settings.model, file)
    sd_models.set_model_type(model, file)
    sd_models.set_model_fields(model)
    if model.is_sdxl:
        sd_models.sd_models_xl.extend_sdxl(model)
    return model, config, file


def _small_a1111_model(adapters: Path, family: str, folder: Path) -> Any:
    """Makes the tiny model that adapters are for, with its weights, as load_model does."""
    from modules import sd_disable_initialization, sd_hijack, sd_models
    from omegaconf import OmegaConf
    from safetensors.torch import load_file

    file = sd_models.get_state_dict_from_checkpoint(load_file(adapters / "base"))
    settings = OmegaConf.load(folder / f"{family}.yaml")
    sd_models.repair_config(settings, file)
    with sd_disable_initialization.DisableInitialization(disable_clip=True):
        model = sd_models.instantiate_from_config(settings.model, file)
    sd_models.set_model_type(model, file)
    sd_models.set_model_fields(model)
    model.requires_grad_(False).load_state_dict(file, strict=False)
    if model.is_sdxl:
        sd_models.sd_models_xl.extend_sdxl(model)
    sd_hijack.model_hijack.hijack(model)
    return model


def _a1111_adapters(model: Any, adapters: Path) -> str:
    """Loads a file of adapters onto a model, and applies it."""
    import network
    import networks
    import torch
    from modules import sd_models
    from safetensors.torch import load_file

    sd_models.model_data.sd_model = model
    networks.assign_network_names_to_compvis_modules(model)
    changes = load_file(adapters / "changes")
    loaded = networks.load_network("x", network.NetworkOnDisk("x", str(adapters / "lora.safetensors")))
    found = {module.network_key.split(".")[0]: module for module in loaded.modules.values()}
    modules = [module.sd_module for module in found.values()]
    before = {id(module): [p.detach().clone() for p in module.parameters()] for module in modules}
    loaded.te_multiplier = loaded.unet_multiplier = 1.0
    networks.loaded_networks[:] = [loaded]
    for module in modules:  # as they are called: torch's attention does not call the layer of its output
        if not isinstance(module, torch.nn.modules.linear.NonDynamicallyQuantizableLinear):
            networks.network_apply_weights(module)
    pairs = []
    for name in changes.keys() & found.keys():
        module, change, rows = found[name].sd_module, changes[name], slice(None)
        if isinstance(module, torch.nn.MultiheadAttention):  # query, key and value are one weight there
            part = "qkv".index(name.split("_")[-2])
            rows = slice(part * len(change), (part + 1) * len(change))
        added = next(module.parameters())[rows] - before[id(module)][0][rows]
        pairs.append((added.reshape(change.shape), change))
    in_file = {key.split(".")[0] for key in load_file(adapters / "lora.safetensors")}
    return f"{len(pairs)} of {len(changes)} layers, {len(in_file - found.keys())} not matched, {difference(pairs)}"

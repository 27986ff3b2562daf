"""A model in one file with Stable Diffusion's original keys: .safetensors, or .ckpt without running its code."""

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamloom.base.errors import UserError
from dreamloom.train.model.original_keys import NoOriginalKeyError, StateDict, from_original_keys
from dreamloom.train.model.sd_configs import diffusers_folder_of, infer_component_config, read_component_config


@dataclass(frozen=True)
class ModelComponents:
    """The parts of a model, on the processor, in float32."""

    unet: Any
    vae: Any
    """None where the file has none: pruned files may not."""
    text_encoder: Any
    tokenizer: Any
    scheduler: dict[str, Any]
    """The config of its scheduler; without prediction_type where nothing says it."""


def load_checkpoint_file(file: Path) -> ModelComponents:
    """Builds a model from one file.

    Raises:
        UserError: it is no Stable Diffusion 1.x or 2.x model, or damaged.
    """
    import accelerate
    import diffusers
    import transformers

    weights = read_state_dict(file)
    tensors = {name: tuple(value.shape) for name, value in weights.items()}
    configs = {
        part: read_component_config(file, part) or infer_component_config(file, tensors, part)
        for part in ("unet", "vae", "text_encoder", "scheduler")
    }
    with accelerate.init_empty_weights(include_buffers=False):
        unet = diffusers.UNet2DConditionModel.from_config(configs["unet"])
        vae = diffusers.AutoencoderKL.from_config(configs["vae"]) if _has_vae(weights) else None
        text_encoder = transformers.CLIPTextModel(transformers.CLIPTextConfig.from_dict(configs["text_encoder"]))
    try:
        found = from_original_keys(
            weights, unet.state_dict(), vae.state_dict() if vae else {}, text_encoder.state_dict()
        )
    except (KeyError, RuntimeError, NoOriginalKeyError) as error:
        raise UserError(f"{file} lacks {error}; copy it again, or name another model.") from error
    for module, own in zip((unet, vae, text_encoder), found, strict=True):
        if module is not None:
            module.load_state_dict({name: value.float().contiguous() for name, value in own.items()}, assign=True)
    folder = diffusers_folder_of(file)
    tokenizer = (
        transformers.CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
        if folder
        else make_clip_tokenizer(configs)
    )
    return ModelComponents(unet, vae, text_encoder, tokenizer, configs["scheduler"])


def read_state_dict(file: Path) -> StateDict:
    """All tensors of a file.

    Raises:
        UserError: it can't be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        _check_archive(file)
        found = torch.load(file, map_location="cpu", weights_only=False, pickle_module=_SafePickle)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, TypeError, *_NO_ARCHIVE) as error:
        raise UserError(f"{file} can't be read ({error}); copy it again.") from error
    found = found.get("state_dict", found) if isinstance(found, dict) else {}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def make_clip_tokenizer(configs: Mapping[str, Mapping[str, Any]]) -> Any:
    """OpenAI's CLIP tokenizer, from the words that open_clip comes with."""
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizer

    words = SimpleTokenizer()
    vocabulary = dict(words.encoder)
    vocabulary["<|startoftext|>"] = vocabulary.pop("<start_of_text>")
    vocabulary["<|endoftext|>"] = vocabulary.pop("<end_of_text>")
    # 2 pads with token 0, which is "!"; so does the tokenizer that was published with it
    padding = "!" if configs["text_encoder"]["pad_token_id"] == 0 else "<|endoftext|>"
    return CLIPTokenizer(vocab=vocabulary, merges=list(words.bpe_ranks), model_max_length=77, pad_token=padding)


def _check_archive(file: Path) -> None:
    """torch looks at the first bytes, zipfile at the last: both must find a zip, and in it no TorchScript.

    Raises:
        UserError: it is a pickle on its own, or a program.
        zipfile.BadZipFile: it is cut short.
    """
    with file.open("rb") as stream:
        zipped = stream.read(4) == b"PK\3\4"
    if zipped:
        with zipfile.ZipFile(file) as archive:
            zipped = not any(name.endswith("constants.pkl") for name in archive.namelist())
    if not zipped:
        raise UserError(f"{file} is a pickle of before torch 1.6, or a program; convert it to safetensors.")


def _has_vae(weights: StateDict) -> bool:
    return any(name.startswith("first_stage_model.") for name in weights)


_NO_ARCHIVE = (pickle.PickleError, zipfile.BadZipFile)


class _Placeholder:
    """Stands for whatever else is in a pickle, such as a training framework's callbacks: made, filled and forgotten."""

    def __new__(cls, *_: object, **__: object) -> "_Placeholder":
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, value: object) -> None: ...

    def extend(self, values: object) -> None: ...


_TENSORS = {
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("collections", "OrderedDict"),
    ("torch", "Size"),
}
"""What a pickle of tensors needs; torch itself looks after their storages."""


class _SafePickle:
    """pickle, as torch.load uses it, for files from anywhere: nothing that they name is run, but for _TENSORS."""

    class Unpickler(pickle.Unpickler):
        """Knows tensors and plain values; everything else is _Ignored."""

        def find_class(self, module: str, name: str) -> Any:
            """The class or function that the pickle names."""
            return super().find_class(module, name) if (module, name) in _TENSORS else _Placeholder

"""Loads a model from a single file with Stable Diffusion's original keys: a .safetensors, or a .ckpt, safely."""

import pickle
import pickletools
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
    """The parts of a model, on the CPU, in float32."""

    unet: Any
    vae: Any
    """None where the file holds none, as some pruned files do."""
    text_encoder: Any
    tokenizer: Any
    scheduler: dict[str, Any]
    """The config of the scheduler; prediction_type is None where nothing says it."""


def load_checkpoint_file(file: Path) -> ModelComponents:
    """Loads a model from a single file.

    Raises:
        UserError: the file is damaged, or not a Stable Diffusion 1.x or 2.x model.
    """
    import accelerate
    import diffusers
    import transformers

    weights = read_state_dict(file)
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    configs = {
        part: read_component_config(file, part) or infer_component_config(file, shapes, part)
        for part in ("unet", "vae", "text_encoder", "scheduler")
    }
    with accelerate.init_empty_weights(include_buffers=False):
        unet = diffusers.UNet2DConditionModel.from_config(configs["unet"])
        vae = diffusers.AutoencoderKL.from_config(configs["vae"]) if _has_vae(weights) else None
        text_encoder = transformers.CLIPTextModel(transformers.CLIPTextConfig.from_dict(configs["text_encoder"]))
    try:
        state_dicts = from_original_keys(
            weights, unet.state_dict(), vae.state_dict() if vae else {}, text_encoder.state_dict()
        )
    except (KeyError, RuntimeError, NoOriginalKeyError) as error:
        raise UserError(f"{file} lacks {error}; copy it again, or name another model.") from error
    for module, state_dict in zip((unet, vae, text_encoder), state_dicts, strict=True):
        if module is not None:
            float32 = {name: value.float().contiguous() for name, value in state_dict.items()}
            module.load_state_dict(float32, assign=True)
    folder = diffusers_folder_of(file)
    tokenizer = (
        transformers.CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
        if folder
        else make_clip_tokenizer(configs)
    )
    return ModelComponents(unet, vae, text_encoder, tokenizer, configs["scheduler"])


def read_state_dict(file: Path) -> StateDict:
    """Reads all tensors of a file.

    Raises:
        UserError: the file can't be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        _check_archive(file)
        content = torch.load(file, map_location="cpu", weights_only=False, pickle_module=_SafePickle)
    except (*_UNREADABLE, SafetensorError) as error:
        raise UserError(f"{file} can't be read ({error}); copy it again.") from error
    entries = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {name: value for name, value in entries.items() if isinstance(value, Tensor)}


def make_clip_tokenizer(configs: Mapping[str, Mapping[str, Any]]) -> Any:
    """Makes OpenAI's CLIP tokenizer from the vocabulary that open_clip ships.

    Args:
        configs: part → its config; that of the text encoder says how captions are padded.
    """
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizer

    tokenizer = SimpleTokenizer()
    vocabulary = dict(tokenizer.encoder)
    vocabulary["<|startoftext|>"] = vocabulary.pop("<start_of_text>")
    vocabulary["<|endoftext|>"] = vocabulary.pop("<end_of_text>")
    # Stable Diffusion 2 pads with token 0, which is "!"; so does the tokenizer that was published with it
    padding = "!" if configs["text_encoder"]["pad_token_id"] == 0 else "<|endoftext|>"
    return CLIPTokenizer(vocab=vocabulary, merges=list(tokenizer.bpe_ranks), model_max_length=77, pad_token=padding)


def _check_archive(file: Path) -> None:
    """Checks that a file is a zip to torch, which looks at its first bytes, and to zipfile, which looks at its last.

    Raises:
        UserError: the file is a bare pickle, or holds a TorchScript program.
        zipfile.BadZipFile: the file is truncated.
    """
    with file.open("rb") as stream:
        is_weights = stream.read(4) == b"PK\3\4"
    if is_weights:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ValueError("it is compressed, as torch never does")
            is_weights = not any(entry.filename.endswith("constants.pkl") for entry in entries)
            for entry in entries:
                if entry.filename.endswith("data.pkl"):
                    _check_memo(archive.read(entry))
    if not is_weights:
        raise UserError(
            f"{file} is a pickle from before torch 1.6, or a TorchScript program; convert it to safetensors."
        )


def _check_memo(data: bytes) -> None:
    """Checks that a pickle numbers what it remembers from 0: pickle makes room for the highest number it is told.

    Raises:
        ValueError: it does not, or it is cut short.
    """
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > count:
            raise ValueError("its pickle asks for memory that it does not fill")


def _has_vae(weights: StateDict) -> bool:
    return any(name.startswith("first_stage_model.") for name in weights)


_UNREADABLE = (
    *(OSError, RuntimeError, ValueError, EOFError, TypeError, LookupError, AttributeError, MemoryError),
    *(pickle.PickleError, zipfile.BadZipFile, zipfile.LargeZipFile),
)
"""What reading a damaged or hostile file may raise."""


class _Placeholder:
    """Stands for any other object of a pickle, such as a training framework's callbacks; it is built and dropped."""

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
"""The functions and classes that a pickle of tensors needs; torch itself loads the storages."""


class _SafePickle:
    """A pickle module for torch.load and untrusted files: nothing that they name is called, except _TENSORS."""

    class Unpickler(pickle.Unpickler):
        """Unpickles tensors and plain values; anything else becomes a _Placeholder."""

        def find_class(self, module: str, name: str) -> Any:
            """Returns the class or function that the pickle names, where it is allowed."""
            return super().find_class(module, name) if (module, name) in _TENSORS else _Placeholder

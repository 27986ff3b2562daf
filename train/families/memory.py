"""Estimates the GPU memory of training from file headers and the config, without torch.

The family says what a forward pass keeps for the backward pass. No GPU has confirmed the sum yet: use it to choose
between settings.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from dreamloom.base.images.buckets import read_folder_resolutions
from dreamloom.train.config import TrainConfig
from dreamloom.train.families.check import vae_scale_factor
from dreamloom.train.families.files import find_family, read_model_json
from dreamloom.train.model.family import Config, Family, Shapes, changing_text_encoders, trained_components
from dreamloom.train.model.lora_layers import count_adapter_parameters, layers_in_blocks, quantized_layers
from dreamloom.train.model.safetensors_header import read_tensor_shapes
from dreamloom.train.model.weight_files import read_component_shapes
from dreamloom.train.optimizers import OPTIMIZERS

OPTIMIZER_CHUNK_BYTES = 32 * 2**20 * 12
"""Bytes that the optimizer holds in float32 at a time where it works on chunks."""
_SCALE_BYTES = 1 / 64
"""A weight of 4 bits has a share in the scale of its 64, which is stored in 8 bits."""
CUDA_CONTEXT_BYTES = 800 * 10**6
"""Bytes of CUDA itself, its libraries' workspaces, and fragmentation."""


@dataclass(frozen=True)
class MemoryEstimate:
    """An estimate of GPU memory in bytes, by use."""

    weights: int
    """Denoiser, text encoders and VAE, with autocast's bfloat16 copies where the weights are float32; what is kept of
    the base for the objectives of preservation."""
    gradients: int
    """All of them at once, or the largest where each is stepped in the backward pass."""
    optimizer: int
    ema: int
    activations: int
    """What a forward pass keeps for the backward pass."""
    trained: int
    """The weights that learn, which are counted in `weights`, too."""
    encoder: int
    """The largest text encoder that answers while the denoiser is not on the GPU, with the VAE."""

    @property
    def total(self) -> int:
        """What is there at once at most, and CUDA itself."""
        parts = (self.weights, self.gradients, self.optimizer, self.ema, self.activations)
        return max(sum(parts), self.encoder) + CUDA_CONTEXT_BYTES

    def describe(self) -> str:
        """Says how much it is, and what takes most of it."""
        parts = {
            "weights": self.weights,
            "gradients": self.gradients,
            "the optimizer's state": self.optimizer,
            "averaged weights": self.ema,
            "activations": self.activations,
            "CUDA itself": CUDA_CONTEXT_BYTES,
        }
        if self.encoder + CUDA_CONTEXT_BYTES > sum(parts.values()):
            parts = {"the largest text encoder": self.encoder, "CUDA itself": CUDA_CONTEXT_BYTES}
        name, size = max(parts.items(), key=lambda part: part[1])
        return f"about {_gib(self.total)} of GPU memory, the most for {name} ({_gib(size)})"


def estimate_disk(config: TrainConfig, memory: MemoryEstimate) -> int:
    """Estimates the bytes of a run's checkpoints: those that are kept, the best one, and the one being written."""
    checkpoint = memory.trained + memory.optimizer + memory.ema
    return checkpoint * (config.checkpoints_total_limit + 2)


def estimate_memory(config: TrainConfig) -> MemoryEstimate | None:
    """Estimates the memory of training on a GPU; None where the base's files are not on this machine."""
    family = find_family(config.base)
    if family is None:
        return None
    tensors = {part: _tensors(config.base, part, family) for part in family.file_prefixes}
    denoiser = read_model_json(config.base, family.denoiser, "config.json")
    vae = read_model_json(config.base, "vae", "config.json")
    tensors = {part: shapes for part, shapes in tensors.items() if shapes or part not in family.optional}
    if not all(tensors.values()) or not denoiser or not vae:
        return None
    size = {part: sum(map(math.prod, shapes.values())) for part, shapes in tensors.items()}
    trained_parts = trained_components(config, family)
    if config.lora_rank is None:
        trained = sum(size[part] for part in trained_parts)
    else:
        trained = sum(count_adapter_parameters(config, family, part, tensors[part]) for part in trained_parts)
    # frozen text encoders are on the CPU once they have answered
    asked = family.text_encoders if config.shuffle_tags else changing_text_encoders(config, family)
    resting = set(family.text_encoders) - set(asked)
    stays = {part: count for part, count in size.items() if part not in resting}
    weight_bytes = 2 if config.weight_dtype == "bf16" else 4
    weights = weight_bytes * (sum(stays.values()) - size["vae"]) + 4 * size["vae"]
    if config.base_bits is not None or config.base_on_cpu:
        shapes = tensors[family.denoiser]
        layers = quantized_layers(shapes)
        if config.base_on_cpu:
            layers = [layer for layer in layers_in_blocks(shapes) if len(shapes[f"{layer}.weight"]) == 2]
        stored = (config.base_bits or 0) / 8 + (_SCALE_BYTES if config.base_bits == 4 else 0)
        weights -= int((weight_bytes - stored) * sum(math.prod(shapes[f"{layer}.weight"]) for layer in layers))
    precision = "fp32" if config.precision == "fp32" else "bf16"  # fp16 is as wide; auto is taken for bf16
    if precision == "bf16" and weight_bytes == 4:
        weights += 2 * size[family.denoiser] // (4 if config.gradient_checkpointing else 1)
    if config.asks_base and config.lora_rank is None:
        weights += (4 if precision == "fp32" else 2) * sum(size[part] for part in trained_parts)
    trained_bytes = 4 if config.lora_rank is not None else weight_bytes
    at_once, chunk = trained, OPTIMIZER_CHUNK_BYTES
    if config.fused_backward and config.lora_rank is None:
        at_once = max(math.prod(shape) for part in trained_parts for shape in tensors[part].values())
        chunk = 12 * at_once
    return MemoryEstimate(
        weights=weights
        + (trained_bytes * trained if config.lora_rank is not None else 0)
        + (trained_bytes * trained if config.l2_sp else 0),
        gradients=trained_bytes * at_once,
        optimizer=int(OPTIMIZERS[config.optimizer].state_bytes * trained) + (chunk if _in_chunks(config) else 0),
        ema=4 * trained if config.ema_half_life_images and not config.ema_on_cpu else 0,
        activations=family.activation_bytes(config, denoiser, _latent_pixels(config, vae), precision),
        trained=trained_bytes * trained,
        encoder=weight_bytes * max((size[part] for part in resting & size.keys()), default=0) + 4 * size["vae"],
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _latent_pixels(config: TrainConfig, vae: Config) -> float:
    """Counts the latent pixels of a batch."""
    factor = vae_scale_factor(vae) if len(vae.get("block_out_channels", ())) else 8
    resolution = max(config.resolution, *read_folder_resolutions(config.folder_resolutions).values(), 0)
    return float(config.batch_size * (resolution / factor) ** 2)


def _in_chunks(config: TrainConfig) -> bool:
    takes_matrices = OPTIMIZERS[config.optimizer].takes_matrices
    return config.lora_rank is None and (config.weight_dtype == "bf16" or takes_matrices)


def _tensors(base: str, part: str, family: Family) -> Shapes:
    """Reads the shapes of a component's weights, by name; empty where they are not known."""
    path = Path(base).expanduser()
    if path.is_file():
        shapes = read_tensor_shapes(path) if path.suffix == ".safetensors" else {}
        return {name: shape for name, shape in shapes.items() if name.startswith(family.file_prefixes[part])}
    return read_component_shapes(base, part)

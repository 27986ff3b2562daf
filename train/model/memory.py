"""How much of a GPU's memory training will take: an estimate from file headers and the config, without torch.

What is kept for the way back was counted on Stable Diffusion 1.5's UNet with torch's hooks for saved tensors: 1,430
bytes a cell of the latent and channel of the first level in float32, 720 in bfloat16; with gradient checkpointing 236
and 118, and about a third of the whole while a block is gone through again. On GPUs autocast keeps normalizations in
float32, so that 720 is taken as 1,000. No GPU has confirmed the sum yet: it is for the choice between settings.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from dreamloom.train.config import TrainConfig
from dreamloom.train.model.check import read_model_json
from dreamloom.train.model.lora_layers import count_adapter_parameters
from dreamloom.train.model.sd_configs import read_tensor_shapes

ACTIVATION_BYTES = {"fp32": (1430, 236), "bf16": (1000, 118)}
"""Precision → bytes kept for the way back a cell and channel: all, and with gradient checkpointing."""
RECOMPUTED_SHARE = 0.3
"""Share of all that is kept at once while a block is gone through again."""
OPTIMIZER_STATE_BYTES = {"adamw": 8.0, "adamw8bit": 2.1, "adafactor": 0.1, "prodigy": 16.0, "schedule_free": 8.0}
"""Bytes of the optimizer's state for each number that learns."""
OPTIMIZER_CHUNK_BYTES = 32 * 2**20 * 12
"""What the optimizer holds in float32 at a time where it works on chunks."""
CUDA_CONTEXT_BYTES = 800 * 10**6
"""CUDA's own, its libraries' work spaces, and what lies between blocks."""

_PREFIX = {"unet": "model.diffusion_model.", "text_encoder": "cond_stage_model.", "vae": "first_stage_model."}


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes, by what they are for."""

    weights: int
    """Of UNet, text encoder and VAE; and their bfloat16 copies, where weights are float32 and the arithmetic is not."""
    gradients: int
    optimizer: int
    ema: int
    activations: int
    """What a forward pass keeps for the way back."""

    @property
    def total(self) -> int:
        """Of all, with CUDA's own."""
        parts = (self.weights, self.gradients, self.optimizer, self.ema, self.activations)
        return sum(parts) + CUDA_CONTEXT_BYTES


def estimate_memory(config: TrainConfig) -> MemoryEstimate | None:
    """What training takes on a GPU; None where the base's files are not on this machine."""
    tensors = {part: _tensors(config.base, part) for part in _PREFIX}
    unet = read_model_json(config.base, "unet", "config.json")
    vae = read_model_json(config.base, "vae", "config.json")
    if not all(tensors.values()) or not unet or not vae:
        return None
    size = {part: sum(map(_count, found.values())) for part, found in tensors.items()}
    learning = ["unet", "text_encoder"] if config.text_encoder_learning_rate > 0 else ["unet"]
    if config.lora_rank is None:
        learned = sum(size[part] for part in learning)
    else:
        learned = sum(count_adapter_parameters(part, tensors[part], config.lora_rank) for part in learning)
    each = 2 if config.weight_dtype == "bf16" else 4
    kept = each * (size["unet"] + size["text_encoder"]) + 4 * size["vae"]
    precision = "fp32" if config.precision == "fp32" else "bf16"
    if precision == "bf16" and each == 4:
        kept += 2 * size["unet"] // (4 if config.gradient_checkpointing else 1)
    own = 4 if config.lora_rank is not None else each
    return MemoryEstimate(
        weights=kept + (own * learned if config.lora_rank is not None else 0),
        gradients=own * learned,
        optimizer=int(OPTIMIZER_STATE_BYTES[config.optimizer] * learned)
        + (OPTIMIZER_CHUNK_BYTES if _in_chunks(config) else 0),
        ema=4 * learned if config.ema_half_life_images else 0,
        activations=_activations(config, precision, unet, 2 ** (len(vae.get("block_out_channels", [0] * 4)) - 1)),
    )


def _activations(config: TrainConfig, precision: str, unet: dict[str, object], factor: int) -> int:
    channels, layers = unet.get("block_out_channels", [320]), unet.get("layers_per_block", 2)
    assert isinstance(channels, list) and isinstance(layers, int)
    whole, checkpointed = ACTIVATION_BYTES[precision]
    a_cell = checkpointed + RECOMPUTED_SHARE * whole if config.gradient_checkpointing else whole
    cells = config.batch_size * (config.resolution / factor) ** 2
    return int(cells * channels[0] * layers / 2 * a_cell)


def _in_chunks(config: TrainConfig) -> bool:
    return config.lora_rank is None and (
        config.weight_dtype == "bf16" or config.optimizer in ("adafactor", "adamw8bit")
    )


def _tensors(base: str, part: str) -> dict[str, tuple[int, ...]]:
    """The shapes of a part's weights, by name; empty where they are not known."""
    path = Path(base).expanduser()
    if path.is_file():
        found = read_tensor_shapes(path) if path.suffix == ".safetensors" else {}
        return {name: shape for name, shape in found.items() if name.startswith(_PREFIX[part])}
    files = [file for file in (path / part).glob("*.safetensors") if not re.search(r"\.(fp16|non_ema)\b", file.name)]
    return {name: shape for file in files for name, shape in read_tensor_shapes(file).items()}


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count

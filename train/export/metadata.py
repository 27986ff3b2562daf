"""What an exported file says of itself: Stability AI's ModelSpec, and kohya's `ss_` keys for adapters.

https://github.com/Stability-AI/ModelSpec (1.0.1). kohya's are what train_network.py of sd-scripts writes, if other
programs read it: A1111 takes an adapter for Stable Diffusion 2's by `ss_v2`, and names it by `ss_output_name`.
"""

import base64
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from dreamloom.train.adapter_kinds import DORA, KINDS, LORA
from dreamloom.train.config import TrainConfig
from dreamloom.train.export.safetensors_file import HASH
from dreamloom.train.model.lora import resolve_lora_alpha
from dreamloom.train.model.model import Model
from dreamloom.train.model.safetensors_header import read_metadata

_PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}
"""What is predicted, as ModelSpec has it; it has no word for a flow."""
_THUMBNAIL = 256
"""Side of a thumbnail in pixels, as ModelSpec recommends."""


def model_spec(model: Model, config: TrainConfig, checkpoint: Path, title: str) -> dict[str, str]:
    """Describes a whole model in a single file by ModelSpec's keys.

    Args:
        model: the model that is written.
        config: its run's.
        checkpoint: its checkpoint. When that was written is the model's date, and the run's sample of it the thumbnail.
        title: a name for people.
    """
    return {
        **_common(model, config, checkpoint, title),
        "modelspec.architecture": model.architecture,
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
    }


def adapter_metadata(model: Model, config: TrainConfig, checkpoint: Path, title: str) -> dict[str, str]:
    """Describes adapters under kohya's names, by ModelSpec's and kohya's keys; see `model_spec`."""
    return {
        **_common(model, config, checkpoint, title),
        "modelspec.architecture": f"{model.architecture}/lora",
        "modelspec.implementation": "diffusers",
        **model.kohya_metadata(),
        "ss_network_alpha": str(resolve_lora_alpha(config)),
        "ss_network_dim": str(config.lora_rank),
        **_network(config),
        "ss_output_name": title,
        "ss_resolution": f"({config.resolution}, {config.resolution})",
        "ss_sd_model_name": Path(config.base).name,
        "ss_seed": str(config.seed),
        "sshs_model_hash": HASH,
    }


def _network(config: TrainConfig) -> dict[str, str]:
    """Says which module and which of its arguments would train such adapters."""
    kind, arguments = KINDS[config.lora_kind], dict[str, str]()
    if kind.algorithm is not None:
        arguments["algo"] = kind.algorithm
    if config.lora_kind == DORA.name:
        arguments["dora_wd"] = "True"
    if config.lora_convolutions:
        arguments |= {"conv_dim": str(config.lora_rank), "conv_alpha": str(resolve_lora_alpha(config))}
    is_kohyas = kind is LORA
    return {
        "ss_network_module": "networks.lora" if is_kohyas else "lycoris.kohya",
        **({"ss_network_args": json.dumps(arguments)} if arguments else {}),
    }


def _common(model: Model, config: TrainConfig, checkpoint: Path, title: str) -> dict[str, str]:
    written = datetime.fromtimestamp((checkpoint / "state.json").stat().st_mtime, UTC)
    spec: dict[str, Any] = {
        "sai_model_spec": "1.0.1",
        "title": title,
        "resolution": f"{config.resolution}x{config.resolution}",
        "prediction_type": _PREDICTIONS.get(model.prediction_type),
        "date": written.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "hash_sha256": f"0x{HASH}",
        "thumbnail": _thumbnail(checkpoint),
        "license": read_metadata(Path(config.base)).get("modelspec.license"),
    }
    return {f"modelspec.{key}": value for key, value in spec.items() if value is not None}


def _thumbnail(checkpoint: Path) -> str | None:
    """Makes a data URL of the first image of the run's sample at a checkpoint; None where none was drawn there."""
    sample = checkpoint.parent.parent / "samples" / f"{int(checkpoint.name):09d}.png"
    if not sample.is_file():
        return None
    with Image.open(sample) as image:
        side = min(image.size)
        first = image.convert("RGB").crop((0, 0, side, side))
        first.thumbnail((_THUMBNAIL, _THUMBNAIL))
    jpeg = io.BytesIO()
    first.save(jpeg, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"

"""Finds trained weights: in a run, in one of its checkpoints, or in a whole model."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dreamloom.base.errors import UserError
from dreamloom.base.files.own_folders import own_folder_kind
from dreamloom.base.models.device import PrecisionName
from dreamloom.train.config import TrainConfig
from dreamloom.train.families.check import check_base_model
from dreamloom.train.run.folder import best_checkpoint, read_config

if TYPE_CHECKING:
    import torch

    from dreamloom.train.model.model import Model


@dataclass(frozen=True)
class TrainedModel:
    """A trained model that is not loaded yet."""

    name: str
    """Path or hub ID, as the user gave it."""
    checkpoint: Path | None
    """None if `name` is a whole model."""
    config: TrainConfig | None
    """Config of the checkpoint's run."""

    def load_base(
        self,
        base: str,
        device: "torch.device",
        precision: PrecisionName,
        vae: str | None = None,
        clip_skip: int | None = None,
        t5_length: int | None = None,
    ) -> "Model":
        """Loads a base model with the run's VAE, prediction type, noise schedule, reading of captions and new words.

        See `dreamloom.train.families.opening.load_model`.
        """
        from dreamloom.train.families.opening import load_base_model, load_model  # imports torch

        if self.config is None:
            skip, length = clip_skip or 1, t5_length or 256
            return load_model(base, device, vae, clip_skip=skip, t5_length=length, precision=precision)
        return load_base_model(self.config, base, device, vae, precision=precision)

    def load(self, base: "Model", use_ema: bool) -> "Model":
        """Loads the trained model. A checkpoint's weights overwrite those of `base`, and `base` is returned."""
        from dreamloom.train.families.opening import load_model
        from dreamloom.train.model.lora import add_adapters
        from dreamloom.train.run.checkpoint import load_weights

        if self.checkpoint is None or self.config is None:
            skip, length = base.clip_skip, base.t5_length
            return load_model(self.name, base.device, clip_skip=skip, t5_length=length, precision=base.precision)
        if self.config.lora_rank is not None:
            add_adapters(base, self.config)
        load_weights(self.checkpoint, base, use_ema)
        return base


def find_trained_model(model: Path | str) -> TrainedModel:
    """Finds out whether `model` is a run (its best checkpoint is taken), a checkpoint, or a whole model.

    Raises:
        UserError: it is none of these.
    """
    path = Path(model).expanduser()
    checkpoint = path if (path / "weights.safetensors").is_file() else None
    if own_folder_kind(path) == "run":
        checkpoint = best_checkpoint(path)
        if checkpoint is None:
            raise UserError(f"The run {model} has no checkpoint yet; train until it saves one.")
    if checkpoint is None:
        check_base_model(str(model))
        return TrainedModel(str(model), None, None)
    config = read_config(checkpoint.parent.parent)
    if config is None:
        raise UserError(f"{checkpoint} is not inside a run with a config.json; name a run, or a checkpoint inside one.")
    return TrainedModel(str(model), checkpoint, config)

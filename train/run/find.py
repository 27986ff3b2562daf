"""Where trained weights are: a run, one of its checkpoints, or a whole model in diffusers' format."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.model.check import check_base_model
from dreamloom.train.run.folder import best_checkpoint, read_settings

if TYPE_CHECKING:
    import torch

    from dreamloom.train.model.model import Model


@dataclass(frozen=True)
class Source:
    """Trained weights, not loaded yet."""

    name: str
    checkpoint: Path | None
    """None: `name` is a whole model."""
    config: TrainConfig | None
    """Of the run the checkpoint belongs to."""

    def load_base(self, base: str, device: "torch.device", vae: str | None = None) -> "Model":
        """A base model, set up as the run had it (its VAE, prediction and noise schedule)."""
        from dreamloom.train.model.model import load_model  # torch from here on

        if self.config is None:
            return load_model(base, device, vae)
        config = self.config
        return load_model(base, device, vae or config.vae, config.prediction_type, config.zero_terminal_snr)

    def load(self, base: "Model", average: bool) -> "Model":
        """The trained model. Weights of a checkpoint are put into `base`, which is then no longer what it was."""
        from dreamloom.train.model.lora import add_adapters
        from dreamloom.train.model.model import load_model
        from dreamloom.train.run.checkpoint import apply_weights

        if self.checkpoint is None or self.config is None:
            return load_model(self.name, base.device)
        if self.config.lora_rank is not None:
            add_adapters(base, self.config)
        apply_weights(self.checkpoint, base, average)
        return base


def find_source(model: Path | str) -> Source:
    """Finds out what `model` is: a run (its best checkpoint is taken), a checkpoint, a whole model.

    Raises:
        UserError: it is none of these.
    """
    path = Path(model).expanduser()
    checkpoint = path if (path / "weights.safetensors").is_file() else None
    if (path / "config.json").is_file() and (path / "checkpoints").is_dir():
        checkpoint = best_checkpoint(path)
        if checkpoint is None:
            raise UserError(f"The run {model} has no checkpoint yet; let it train until it has.")
    if checkpoint is None:
        check_base_model(str(model))
        return Source(str(model), None, None)
    settings = read_settings(checkpoint.parent.parent)
    if not settings:
        raise UserError(
            f"{checkpoint} does not lie in a run with a config.json; name a run, or a checkpoint inside one."
        )
    return Source(str(model), checkpoint, TrainConfig.model_validate(settings["config"]))

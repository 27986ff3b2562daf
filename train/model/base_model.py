"""Opens a base model as a run trains it."""

import torch

from dreamloom.train.config import TrainConfig
from dreamloom.train.model.embeddings import add_embeddings
from dreamloom.train.model.model import Model, load_model


def load_base_model(config: TrainConfig, base: str, device: torch.device, vae: str | None = None) -> Model:
    """Loads a base model with a run's VAE, prediction type, noise schedule, clip_skip and new words.

    Args:
        config: the run's.
        base: the model's folder, file or hub id.
        device: where to put the components.
        vae: a VAE in place of the run's.

    Raises:
        UserError: the model can't be loaded, or knows a new word already.
    """
    how = (vae or config.vae, config.prediction_type, config.zero_terminal_snr, config.clip_skip)
    model = load_model(base, device, *how)
    add_embeddings(model, config)
    return model

"""A mask weighs the loss of every family over the image, and goes the way of its image."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.train.conftest import MakeTrainer, paint
from tests.train.families.test_families import TRAINED, Reference, inputs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images, of which the left half counts."""
    for number in range(2):
        paint(tmp_path / "own" / f"a thing_{number}.png", (32, 32), number)
        mask = Image.new("L", (32, 32), 0)
        mask.paste(255, (0, 0, 16, 32))
        mask.save(tmp_path / "own" / f"a thing_{number}-masklabel.png")
    return tmp_path


@pytest.mark.parametrize("flip_p", [0, 1])
@pytest.mark.parametrize("family", ["sdxl", "sd3"])
def test_the_loss_is_that_of_the_half_that_counts(
    family: str, flip_p: int, bases: Callable[[str], str], make_trainer: MakeTrainer
) -> None:
    settings = {**TRAINED, "max_train_steps": 2, "flip_p": flip_p, "unmasked_weight": 0.25}
    trainer, batches = make_trainer(base=bases(family), **settings)
    reference = Reference(bases(family), trainer.config)
    with torch.no_grad():
        for batch in batches:
            errors = reference.errors(batch, *inputs(trainer, batch)) ** 2
            halves = errors[..., :4].mean(), errors[..., 4:].mean()
            counts, other = reversed(halves) if flip_p else halves
            ours = trainer.loss(batch) / len(batch.indices)
            assert ours.item() == pytest.approx(((counts + 0.25 * other) / 1.25).item(), rel=1e-5)

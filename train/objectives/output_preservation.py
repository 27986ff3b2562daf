"""Output preservation: for another caption than the image's, the model keeps what the base predicts.

With the class's word in place of the concept's it is differential output preservation (ai-toolkit, sd-scripts), with
the empty caption blank-prompt preservation. Both need no further images, and a second forward pass.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dreamloom.train.config import TrainConfig
from dreamloom.train.diffusion import formulas
from dreamloom.train.model.model import Model
from dreamloom.train.model.text import Text
from dreamloom.train.objectives.objective import ForwardPass, MakeTeacher, Teacher
from dreamloom.train.objectives.teacher import predict


class OutputPreservation:
    """The squared error of the model's prediction to the base's, for one other caption an image.

    Args:
        weight: of the loss.
        model: the one that is trained.
        teacher: the base.
        text_of: picks the other captions from a batch, and says which images they count for, bool [B]; both on the
            CPU.
    """

    def __init__(
        self, weight: float, model: Model, teacher: Teacher, text_of: Callable[[ForwardPass], tuple[Text, Tensor]]
    ) -> None:
        self.weight = weight
        self.model = model
        self.teacher = teacher
        self.text_of = text_of

    def loss(self, forward: ForwardPass) -> Tensor:
        """Computes the weighted sum of the errors."""
        text, counts = self.text_of(forward)
        rows = torch.nonzero(counts)[:, 0]
        if not len(rows):
            return forward.predicted.new_zeros(())
        chosen = forward.select(rows.to(forward.predicted.device, non_blocking=True))
        text = text.map(lambda each: each[rows].to(forward.predicted.device, non_blocking=True))
        kept = self.teacher.predict(chosen, text)
        predicted = predict(self.model, self.teacher.precision, chosen, text)
        losses = formulas.sample_losses((predicted.float() - kept.float()) ** 2, chosen.loss_mask)
        return self.weight * (losses * chosen.loss_scales).sum()


def make_class_preservation(config: TrainConfig, model: Model, teacher: MakeTeacher) -> OutputPreservation | None:
    """Makes the objective for captions in which the class's word stands for the concept's, where asked for."""

    def text_of(forward: ForwardPass) -> tuple[Text, Tensor]:
        batch = forward.batch
        assert batch.class_text is not None and batch.has_class_text is not None
        return batch.class_text, batch.has_class_text

    if not config.class_preservation:
        return None
    return OutputPreservation(config.class_preservation, model, teacher(), text_of)


def make_blank_preservation(config: TrainConfig, model: Model, teacher: MakeTeacher) -> OutputPreservation | None:
    """Makes the objective for the empty caption, where asked for."""

    def text_of(forward: ForwardPass) -> tuple[Text, Tensor]:
        text = forward.batch.blank_text
        assert text is not None
        return text, torch.ones(len(forward.indices), dtype=torch.bool)

    if not config.blank_preservation:
        return None
    return OutputPreservation(config.blank_preservation, model, teacher(), text_of)

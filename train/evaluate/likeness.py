"""Judges by images what a model has learned: whether what it draws looks like the held-out images.

The measure is CLIP-I of DreamBooth (Ruiz et al. 2022, arXiv 2208.12242): the mean cosine of the CLIP embeddings of
drawn and real images, over all pairs.
"""

from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreamloom.base.images.pixels import decode
from dreamloom.base.models.clip import Clip, load_clip
from dreamloom.base.models.clip_config import ClipConfig
from dreamloom.base.progress import Progress
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import Dataset, Sample
from dreamloom.train.diffusion.rng import stream_key
from dreamloom.train.evaluate.drawings import Drawing
from dreamloom.train.evaluate.sample import draw_images
from dreamloom.train.model.model import Model

DRAWN = 16
"""Images that are drawn at each evaluation."""
STEPS, GUIDANCE = 20, 5.0
"""How they are drawn: apart from the samples' settings, which may change while a run rests."""
MOST_HELD_OUT = 256
"""Held-out images that they are compared with."""


class Likeness:
    """Draws from prompts that were not trained on, and compares with the held-out training images.

    The prompts are captions of held-out images that no image has that is trained on; only where there is none, any of
    their captions.

    Args:
        trained: what is trained on.
        held: the held-out training images.
        config: the run's; of it count the CLIP, the seed, the resolution and the hardware.
    """

    def __init__(self, trained: Dataset, held: Dataset, config: TrainConfig) -> None:
        """Chooses the prompts; loads nothing yet."""
        self.held = held.samples[:MOST_HELD_OUT]
        self.config = config
        known = {each.caption for sample in trained.samples for each in sample.image.captions}
        captions = list(dict.fromkeys(sample.caption for sample in held.samples))
        self.prompts = [caption for caption in captions if caption not in known] or captions
        self._embedded: NDArray[np.float32] | None = None

    def measure(self, model: Model, progress: Progress) -> float:
        """Returns the mean cosine of drawn and held-out images; the same noise each time, so models alone differ."""
        clip = load_clip(ClipConfig(model=str(self.config.likeness_clip)), str(model.device))
        if self._embedded is None:
            self._embedded = self._embed(clip, [_decode(sample, clip) for sample in self.held])
        drawn = draw_images(model, self._drawings(), self.config, progress, "drawing to judge what is learned")
        return float((self._embed(clip, drawn) @ self._embedded.T).mean(dtype=np.float64))

    def _drawings(self) -> list[Drawing]:
        size, key = (self.config.resolution, self.config.resolution), stream_key(self.config.seed, "likeness")
        return [
            Drawing(prompt, "", size, STEPS, GUIDANCE, None, (key, number), prompt)
            for number, prompt in enumerate(islice(cycle(self.prompts), DRAWN))
        ]

    def _embed(self, clip: Clip, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        step = self.config.batch_size
        batches = [images[start : start + step] for start in range(0, len(images), step)]
        return np.concatenate([clip.embed_images([clip.prepare(image) for image in batch]) for batch in batches])


def change_of_likeness(base: float, now: float) -> float:
    """Returns by which share the distance from the held-out images, 1 − cosine, fell: 1 − now/base, as `learned`."""
    return 1 - (1 - now) / (1 - base) if base < 1 else 0.0


def _decode(sample: Sample, clip: Clip) -> Image.Image:
    return decode(sample.image.source.decodable(), at_least=2 * clip.side)

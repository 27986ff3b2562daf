"""Encodes what a run will show, and nothing else: of a million images, few may be dealt."""

from dreamloom.base.progress import Progress, silent
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.crops import CropPlanner
from dreamloom.train.data.dataset import Dataset, find_ground_truth
from dreamloom.train.data.latent_cache import LatentCache
from dreamloom.train.data.ratio import with_ratio
from dreamloom.train.data.ratio_schedule import make_schedule
from dreamloom.train.data.schedule import BatchSchedule


def encode_shown(
    dataset: Dataset, latent_cache: LatentCache, config: TrainConfig, progress: Progress = silent
) -> tuple[Dataset, BatchSchedule]:
    """Encodes the images that a run shows, where they are not cached.

    In place of one that can't be decoded, its deck deals others, which are then encoded, too. A ratio of ground truth
    is that of the images that can be.

    Args:
        dataset: what is trained on.
        latent_cache: receives the images in all their views.
        config: the run's.
        progress: called with the images read and encoded.

    Returns:
        The dataset without the images that were tried and can't be decoded, and the schedule of the run.

    Raises:
        UserError: no image is left, or another process is filling the cache.
    """
    views = CropPlanner(config).all_views
    while True:
        schedule = make_schedule(dataset, config)
        shown = [dataset.samples[place] for place in schedule.shown()]
        problems = latent_cache.add(shown, config.num_workers, progress, views)
        if not problems:
            return dataset, schedule
        dataset = dataset.without(problems)
        if config.ground_truth_ratio:  # of what is left; at 0 there is none to begin with
            dataset = with_ratio(dataset, find_ground_truth(dataset, config), config.ground_truth_ratio)

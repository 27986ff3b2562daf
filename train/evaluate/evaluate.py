"""Measures how much a model learned, and how much it forgot.

Every held-out image is noised at the same timesteps with the same noise for each model, so two models differ by their
weights alone. dreamloom.train.evaluate.measure says how learned and forgotten follow from the losses.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.files.fingerprint import fingerprint
from dreamloom.base.files.image_types import is_image_name
from dreamloom.base.files.listing import is_left_out
from dreamloom.base.files.remote import address_of
from dreamloom.base.files.remote_files import SHARD_CACHE_GB
from dreamloom.base.images.buckets import read_folder_resolutions
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import recipe
from dreamloom.base.tables.held_out import read_held_out
from dreamloom.base.tables.streamed_set import find_streamed_set
from dreamloom.base.versions import DAMAGED, RUN
from dreamloom.train.config_fields import MaskKind
from dreamloom.train.data.dataset import Dataset, read_dataset
from dreamloom.train.data.notes import Notes
from dreamloom.train.data.remote_folder import list_shards
from dreamloom.train.evaluate.concepts import describe
from dreamloom.train.evaluate.config import VERSION, EvaluateConfig, as_trained, hashed_settings
from dreamloom.train.evaluate.measure import SIGNS, Evaluation, compare_losses
from dreamloom.train.families.check import check_base_model
from dreamloom.train.families.suit import suit_family
from dreamloom.train.run.checksums import check_files
from dreamloom.train.run.find import TrainedModel, find_trained_model

KINDS = tuple(SIGNS)
"""Subfolders of a folder of held-out images. Others are sets of their own name, each with its own measure."""


def evaluate(
    model: Path | str, base: str, heldout: Path | str, config: EvaluateConfig, progress: Progress = silent
) -> Evaluation:
    """Measures a model against its base.

    Args:
        model: a run (its best checkpoint is measured), a checkpoint of a run, a diffusers folder, a file or a hub ID.
        base: the diffusers folder, file or hub ID of the model it comes from.
        heldout: a folder with training/, ground_truth/ and witness/, or some of them: training folders of held-out
            images; or an address (s3://…) of such folders of shards. Further folders in it are measured each for
            itself. concepts.json in it says what they show (base.tables.held_out); without it, their captions do.
        config: how the losses are computed; settings that are not given are those of the model's run, if it has one.
        progress: called with the images done.

    Raises:
        UserError: a model or the images are missing, a checkpoint is damaged, or the models predict different things.
    """
    check_base_model(base)
    trained = find_trained_model(model)
    config = suit_family(as_trained(trained.config, config), base)
    settings = (config.resolution, config.bucket_reso_steps, config.num_workers, config.upscale)
    sides = read_folder_resolutions(config.folder_resolutions)
    datasets = read_heldout(Path(heldout), *settings, config.masks, sides)
    if stored := find_stored_evaluation(trained, base, datasets, config):
        assert trained.checkpoint is not None
        check_files(trained.checkpoint, weights_only=True)
        return stored
    from dreamloom.train.evaluate.held_out_loss import compare_models  # imports torch

    return compare_models(trained, base, datasets, config, progress)


def evaluation_recipe(base: str, datasets: Mapping[str, Dataset], config: EvaluateConfig) -> str:
    """Returns the recipe of everything that a measurement depends on, except the trained model."""
    digests = [f"{kind} {dataset.digest()}" for kind, dataset in sorted(datasets.items())]
    return recipe("evaluate", VERSION, hashed_settings(config), digests, {"base": fingerprint(base)})


def find_stored_evaluation(
    trained: TrainedModel, base: str, datasets: Mapping[str, Dataset], config: EvaluateConfig
) -> Evaluation | None:
    """Returns what the run measured at this checkpoint by the same recipe; None if it did not."""
    if trained.checkpoint is None or trained.config is None:
        return None
    file = trained.checkpoint.parent.parent / "evaluation.json"
    of_run = {name: getattr(trained.config, name) for name in ("clip_skip", "t5_length")}
    of_run["vae"] = config.vae or trained.config.vae
    wanted = evaluation_recipe(base, datasets, config.model_copy(update=of_run))
    try:
        stored = RUN.read_json(file)
        if stored["recipe"] != wanted or not config.use_ema:
            return None
        now = stored["now"][trained.checkpoint.name]
        return compare_losses(stored["base"], now, describe(datasets), stored["problems"])
    except DAMAGED:
        return None  # or this checkpoint was not measured


def read_heldout(
    folder: Path | None,
    resolution: int,
    bucket_reso_steps: int,
    num_workers: int,
    upscale: bool,
    masks: MaskKind = "none",
    folder_resolutions: Mapping[str, int] | None = None,
    shard_cache_gb: float = SHARD_CACHE_GB,
) -> dict[str, Dataset]:
    """Reads the held-out images, as kind or name of the set → dataset; those without images are left out.

    Raises:
        UserError: the folder is missing, or holds no kind.
    """
    if folder is None:
        return {}
    kinds = _list_kinds(folder)
    if not kinds:
        places = f"put images into {' or '.join(KINDS)} inside it, or any folder"
        if folder.is_dir() and any(is_image_name(path.name) for path in folder.iterdir()):
            raise UserError(
                f"{folder} holds images, and no folders that say what these measure; name {folder.parent}, or {places}."
            )
        raise UserError(f"{folder} holds no held-out images; {places}.")
    known, settings = read_held_out(folder), (resolution, bucket_reso_steps, num_workers, upscale)
    datasets = {
        kind: read_dataset(
            folder / kind,
            *settings,
            masks=masks,
            folder_resolutions=folder_resolutions,
            shard_cache_gb=shard_cache_gb,
        )
        for kind in kinds
    }
    return {kind: replace(dataset, held_out=known) for kind, dataset in datasets.items()}


def _list_kinds(folder: Path) -> list[str]:
    """Returns the kinds of held-out images that are there: KINDS in their order, then others by name."""
    found: Iterable[str] = ()
    if streamed := find_streamed_set(folder):
        found = streamed.kinds()
    elif address := address_of(folder):
        found = {name.split("/")[0] for name in list_shards(address, Notes())[0] if "/" in name}
    elif folder.is_dir():
        inside = (path for path in folder.iterdir() if path.is_dir() and not is_left_out(path.name))
        found = [path.name for path in inside if not _is_empty(path)]
    return sorted(found, key=lambda kind: (KINDS.index(kind) if kind in KINDS else len(KINDS), kind))


def _is_empty(folder: Path) -> bool:
    return all(is_left_out(path.name) for path in folder.iterdir())

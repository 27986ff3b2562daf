"""Checks what can be known before the first long stage, beside what reading project.yaml checks."""

import logging
import shutil

from dreamloom.base.errors import UserError
from dreamloom.base.models.hub import HubUnreachable, check_on_hub, is_offline
from dreamloom.flows.chain.chain import is_trained
from dreamloom.flows.project.project import Project
from dreamloom.flows.terminal.terminal import size
from dreamloom.train.families.files import fetch_configs
from dreamloom.train.families.memory import estimate_disk, estimate_memory

_log = logging.getLogger(__name__)

_HUB = "hf-hub:"


def check_before_run(project: Project) -> None:
    """Asks the hub for the models that are not on this machine, in seconds, before hours of downloads.

    Of the base it also gets the configs, as settings suit its family. Nothing is asked for a finished run, nor where
    HF_HUB_OFFLINE forbids it: then each stage says what it lacks.

    Raises:
        UserError: the hub has no such model, or can't be asked.
    """
    if is_trained(project):
        return
    _check_disk(project)
    if is_offline():
        return
    models = [project.train.base, project.train.vae]
    clips = [project.score.model] if project.score is not None else []
    clips += [project.caption.clip.model] if project.caption.needs_clip else []
    models += [name.removeprefix(_HUB) for name in clips if name.startswith(_HUB)]
    for name in dict.fromkeys(filter(None, models)):
        check_on_hub(name)
    fetch_configs(project.train.base)
    try:
        check_on_hub(project.caption.model)
    except HubUnreachable as error:  # where every image has a caption, the model is not needed
        _log.warning("caption.model: %s", error)


def _check_disk(project: Project) -> None:
    """Raises UserError where the checkpoints of the run would not fit on the disk."""
    train = project.train_config()
    memory = estimate_memory(train)
    if memory is None:
        return
    needed, place = estimate_disk(train, memory), project.workspace
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"The checkpoints of the run take about {size(needed)}, and {size(free)} are free for {project.workspace}; "
            "make room (`dreamloom prune` shows what older runs can free), lower train.checkpoints_total_limit, or "
            "name another workspace."
        )

"""Tells apart what a model's name can be: a path on this machine, a model of the hub, or a mistake."""

from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.models.hub import is_downloaded, is_hub_id, is_offline

_PATH_ENDINGS = (".safetensors", ".ckpt", ".bin", ".pt")


def check_name(name: str, may_download: bool = False) -> None:
    """Checks a model's name that is no path on this machine.

    A name whose folder is here is a mistyped path: what a stranger keeps on the hub under that name is never taken for
    it, unless it was downloaded.

    Args:
        name: the name.
        may_download: whether a model of the hub may still be downloaded when it is needed, if not now.

    Raises:
        UserError: it is a path of nothing, or no model of the hub.
    """
    if not is_hub_id(name) or name.endswith(_PATH_ENDINGS):
        raise UserError(f"There is no model {name}: it is neither a folder nor a hub id such as owner/name.")
    if is_downloaded(name):
        return
    folder = Path(name).parent
    if folder.is_dir():
        raise UserError(
            f"There is no model {name}: the folder {folder} is here, but not that in it. Correct the path; a model of "
            f"the hub with that name has to be downloaded first."
        )
    if is_offline() and not may_download:
        raise UserError(f"There is no folder {name}, and no hub model of that name on this machine; name another.")

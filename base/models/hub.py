"""Models of the Hugging Face hub: whether a name can be one's, is on this machine, and can be downloaded."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from dreamloom.base.errors import UserError
from dreamloom.base.text import brief

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TIMEOUT = 10


class HubUnreachable(UserError):
    """The hub could not be asked for a model."""


def is_hub_id(name: str) -> bool:
    """Tells whether a name can only be that of a model on the hub."""
    return not Path(name).expanduser().exists() and _HUB_ID.fullmatch(name) is not None


def check_on_hub(name: str) -> None:
    """Asks the hub, once, whether a model that is not on this machine can be downloaded.

    Raises:
        UserError: it can't; HubUnreachable: the hub does not answer.
    """
    if not is_hub_id(name) or is_downloaded(name):
        return
    from huggingface_hub import HfApi

    with asking_hub(name):
        HfApi().model_info(name, timeout=_TIMEOUT)


@contextmanager
def asking_hub(name: str) -> Iterator[None]:
    """Explains what goes wrong while the hub is asked for a model.

    Raises:
        UserError: there is none of this name, or not for everyone; HubUnreachable: the hub does not answer.
    """
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    http_error = cast(
        type[Exception], HfHubHTTPError.__bases__[0]
    )  # of the library that the hub's client is built on, which changes
    try:
        yield
    except GatedRepoError as error:
        raise UserError(
            f"The hub gives {name} only to who has accepted its terms: do so on its page, and log in with `hf auth "
            "login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"There is neither a folder {name} nor a model of that name on the hub, or it is private: correct the name."
        ) from error
    except (http_error, OfflineModeIsEnabled, OSError) as error:
        reason = brief(error, 100)
        raise HubUnreachable(
            f"There is no folder {name}, and the hub can't be asked for it ({reason}); name a folder, or try again."
        ) from error


def is_offline() -> bool:
    """Tells whether the environment forbids downloads."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def is_downloaded(name: str) -> bool:
    """Tells whether a model of the hub is on this machine."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    return (hub / f"models--{name.replace('/', '--')}").is_dir()

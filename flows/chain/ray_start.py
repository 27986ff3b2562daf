"""Connects to a cluster of Ray, or starts Ray on this machine."""

import logging
import os
import threading
from concurrent.futures import Future
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.flows.project.ray_config import RayConfig

_log = logging.getLogger(__name__)

_STARTS = 4
"""Times that Ray is started on a machine where other programs keep it from being ready within its own fixed time."""


def connect(config: RayConfig) -> Any:
    """Imports Ray, and connects this process to its cluster, or starts one on this machine.

    Raises:
        UserError: it is not installed, or the cluster does not answer.
    """
    try:
        import ray
    except ImportError:
        raise UserError(
            "engine ray is not installed: pip install -e '.[ray]' in dreamloom's clone, or leave engine out."
        ) from None
    with _connecting:
        if ray.is_initialized():
            return ray
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # a machine at work needs more than 30
        where = config.address or os.environ.get("RAY_ADDRESS") or "this machine"
        try:
            if threading.current_thread() is threading.main_thread():
                _start(ray, config)
            else:
                _start_in_lasting_thread(ray, config)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(
                f"ray.address: no cluster of Ray answers at {where} ({error}); start one with `ray start --head`, or "
                "leave the address out to use this machine."
            ) from error
    return ray


_connecting = threading.Lock()
"""Sources are brought in side by side, and Ray is started once."""


def _start(ray: Any, config: RayConfig) -> None:
    """Connects, or starts Ray; again where it was too slow, as more of it is found in the disk's cache then.

    Raises:
        UserError: it was too slow each time.
    """
    for number in range(1, _STARTS + 1):
        try:
            ray.init(address=config.address, log_to_driver=False, logging_level=logging.WARNING)
            return
        except Exception as error:
            if not _was_slow(error):
                raise
            ray.shutdown()
            if number == _STARTS:
                raise UserError(
                    f"Ray did not start on this machine, {_STARTS} times, as other programs keep it busy: its agent "
                    "has to be there within 15 s; wait for them and run again, or leave engine out."
                ) from error
            _log.warning("Ray was too slow to start on this machine, and is started again (%d)", number + 1)


def _start_in_lasting_thread(ray: Any, config: RayConfig) -> None:
    """Does as `_start` in a thread that lives on, as Ray's processes die with the thread that started them."""
    outcome = Future[None]()

    def start() -> None:
        try:
            _start(ray, config)
            outcome.set_result(None)
        except Exception as error:  # noqa: BLE001 - it is raised by the caller
            outcome.set_exception(error)
        threading.Event().wait()

    threading.Thread(target=start, name="ray", daemon=True).start()
    outcome.result()


def _was_slow(error: Exception) -> bool:
    """Tells whether Ray gave up its own start, for which it has no type of error."""
    return type(error) is Exception and "timed out during startup" in str(error)

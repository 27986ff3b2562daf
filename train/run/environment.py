"""Records on what a run was trained, as a recipe gives other last bits with another torch, device or thread count."""

import logging
from pathlib import Path
from typing import Any

import torch

from dreamloom.base.versions import DAMAGED, RUN

_log = logging.getLogger(__name__)


def describe_environment(device: torch.device, num_processes: int) -> dict[str, Any]:
    """Describes what the last bits of a training step depend on, apart from its inputs."""
    is_gpu = device.type == "cuda"
    return {
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name(device) if is_gpu else device.type,
        "processor": torch.backends.cpu.get_cpu_capability(),
        "torch_threads": torch.get_num_threads(),
        "processes": num_processes,
    }


def note_environment(run: Path, images_seen: int, environment: dict[str, Any]) -> None:
    """Adds an environment to the run's environments.json, and warns if it is not the one that was used before.

    Args:
        run: the run's folder.
        images_seen: where the run begins, or goes on.
        environment: see `describe_environment`.
    """
    file = run / "environments.json"
    used = [entry for entry in _read(file) if entry["images_seen"] < images_seen]  # the rest is trained once more
    before = used[-1] if used else environment
    changed = [f"{k} {before.get(k)}, now {value}" for k, value in environment.items() if before.get(k) != value]
    if changed:
        _log.warning("The run goes on elsewhere than it began (%s), so its last bits may differ.", "; ".join(changed))
    if changed or not used:
        used.append({"images_seen": images_seen, **environment})
    RUN.write_json(file, {"environments": used})


def _read(file: Path) -> list[dict[str, Any]]:
    """Returns what was noted before; nothing where the file is damaged, as a run must not end for a note."""
    try:
        return [
            {"images_seen": int(entry.pop("images_seen")), **entry} for entry in RUN.read_json(file)["environments"]
        ]
    except FileNotFoundError:
        return []
    except DAMAGED as error:
        _log.warning("%s can't be read (%s); where the run was trained before is not known.", file, error)
        return []

"""What is not given suits the base's family, also where the family is not known at once."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.families.opening import load_model
from dreamloom.train.families.suit import check_opened, resolve_models, suit_family

Bases = Callable[[str], str]


class _Hub(BaseHTTPRequestHandler):
    """A hub with one model, owner/name."""

    def __init__(self, base: Path, *args: object) -> None:
        self.base = base
        super().__init__(*args)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        name = self.path.partition("/resolve/")[2].partition("/")[2]
        files = sorted(str(file.relative_to(self.base)) for file in self.base.rglob("*") if file.is_file())
        tree = [{"type": "file", "path": each, "size": (self.base / each).stat().st_size, "oid": ""} for each in files]
        about = {"id": "owner/name", "sha": "0" * 40, "siblings": [{"rfilename": each} for each in files]}
        content = (
            (self.base / name).read_bytes() if name else json.dumps(tree if "/tree/" in self.path else about).encode()
        )
        self.send_response(200)
        for key, value in {"ETag": f'"{name}"', "X-Repo-Commit": "0" * 40, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def hub(base: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Hub, base)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_family_of_a_model_on_the_hub_is_known_before_it_is_downloaded(bases: Bases, tmp_path: Path) -> None:
    code = (
        "from dreamloom.train.families.suit import resolve_models\n"
        "from dreamloom.train.config import TrainConfig\n"
        "config = resolve_models(TrainConfig(base='owner/name', preset='12gb'))\n"
        "print(config.resolution, config.lora_rank)"
    )
    with hub(Path(bases("sdxl"))) as endpoint:
        cache = {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint}
        command, house = [sys.executable, "-c", code], Path(__file__).parents[3]
        done = subprocess.run(command, capture_output=True, text=True, cwd=house, env={**os.environ, **cache})
    assert done.stdout.strip() == "1024 16", done.stderr
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_ckpt_says_of_which_family_it_is_when_it_is_open(bases: Bases, tmp_path: Path) -> None:
    file = tmp_path / "xl.ckpt"
    file.touch()
    config = resolve_models(TrainConfig(base=str(file)))
    model = load_model(bases("sdxl"), torch.device("cpu"))
    opened = partial(check_opened, family=model.family, denoiser=model.denoiser.config, vae=model.vae.config)
    with pytest.raises(UserError, match=r"is Stable Diffusion XL, .*: resolution: 1024, .*guidance_scale: 5\.0"):
        opened(config)
    with pytest.raises(UserError, match="clip_skip is 2"):
        opened(config.model_copy(update={"clip_skip": 2}))
    opened(suit_family(config, bases("sdxl")))

"""What bench.flows, bench.flows_faults and tests of tracked runs need: a server, a web site that waits, a project."""

import hashlib
import io
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml
from PIL import Image

from dreamloom.curate.manifest import content_digest, manifest_path
from dreamloom.scrape.collection import Collection, Table

HOUSE = Path(__file__).parents[1]
IMAGES = 6
"""Images of the web site."""
HOLD_SECONDS = 900
"""How long the site holds an image back, and its reader waits for it."""


class Server:
    """A Prefect server of its own on a free port; it can be killed, and started again with the same database.

    Args:
        folder: of its log; PREFECT_HOME says where its database lies.
    """

    def __init__(self, folder: Path) -> None:
        with socket.socket() as trial:
            trial.bind(("127.0.0.1", 0))
            self.port = trial.getsockname()[1]
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.log = folder / "server.log"
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(self.port)]
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            with suppress(OSError), urlopen(f"{self.api}/health", timeout=5):
                return process
            time.sleep(0.2)
        raise RuntimeError(self.log.read_text())

    def kill(self) -> None:
        """Kills it, as a power cut does."""
        self.process.kill()
        self.process.wait()

    def start_again(self) -> None:
        """Starts it after `kill`, and waits until it answers."""
        self.process = self._start()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Lets it answer nothing during the block."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stops it."""
        self.process.terminate()
        self.process.wait(60)


class WaitingSite:
    """A web site of a few images, of which it holds back one until `release` is set."""

    def __init__(self) -> None:
        self.asked, self.release = threading.Event(), threading.Event()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                number = re.fullmatch(r"/(\d+)\.png", self.path)
                if number and int(number[1]) == IMAGES - 1:
                    site.asked.set()
                    site.release.wait(HOLD_SECONDS)
                with suppress(OSError):  # who asked may be killed by now
                    self.send_response(200 if number else 404)
                    self.end_headers()
                    if number:
                        image = io.BytesIO()
                        Image.new("RGB", (300, 300), (40 * int(number[1]), 80, 120)).save(image, "PNG")
                        self.wfile.write(image.getvalue())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server.server_port}"

    def hold(self) -> None:
        """Holds the last image back again."""
        self.asked.clear()
        self.release.clear()

    def close(self) -> None:
        """Lets everybody go, and ends."""
        self.release.set()
        self.server.shutdown()


def write_project(folder: Path, site: WaitingSite, **train: Any) -> Path:
    """Writes a project whose training images come from the site; returns its file.

    Args:
        folder: to make; the project has its name.
        site: the web site.
        train: settings of training, on the demo's small Stable Diffusion.
    """
    folder.mkdir()
    rows = "".join(f"{site.url}/{number}.png,image {number}\n" for number in range(IMAGES))
    (folder / "list.csv").write_text(f"url,text\n{rows}")
    columns = {"index": ["list.csv"], "url_column": "url", "text_column": "text"}
    content = {
        "name": folder.name,
        "workspace": "work",
        "sources": {"web": {"kind": "laion", "role": "training", **columns}},
        "scrape": {
            "allow_private_addresses": True,
            "timeout_s": HOLD_SECONDS,
            "min_side": 16,
            "concurrency_per_host": 1,
        },
        "caption": {"keep_kinds": ["human", "alt"]},
        "train": {"base": str(HOUSE / "demo" / "models" / "stable-diffusion"), "resolution": 64, "batch_size": 2}
        | {"sample_steps": 1, "eval_timesteps": 1, "evaluate_every_n_steps": 0, "sample_every_n_steps": 0}
        | train,
    }
    (folder / "project.yaml").write_text(yaml.safe_dump(content))
    return folder / "project.yaml"


def what_was_made(workspace: Path) -> dict[str, str]:
    """Returns name → hash of all tables of the workspace, of its training folder, and of its model's weights."""
    web = Collection(workspace / "collections" / "web")
    made = {str(table): str(web.stamps(table)) for table in Table}
    made["training folder"] = str(content_digest(manifest_path(workspace)))
    for part in ("unet", "text_encoder"):
        for file in sorted((workspace / "model" / part).glob("*.safetensors")):
            made[f"{part}/{file.name}"] = hashlib.sha256(file.read_bytes()).hexdigest()
    return made


def run_command(*words: str) -> str:
    """Runs a dreamloom command, and returns what it printed.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-m", "dreamloom", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HOUSE)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} exited with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout

"""A headless Chromium, driven by its DevTools protocol: opens pages, waits until they are drawn, and takes pictures."""

import base64
import io
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from PIL import Image
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from dreamloom.base.errors import UserError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SIZE = (1400, 1050)
_PATIENCE_SECONDS, _STILL_SECONDS = 120.0, 3.0
"""How long a page may take to be drawn on a busy machine, and how long it has to stay the same to be so."""
_SEEN = "document.body.innerText + document.querySelectorAll('img, canvas, svg').length"


class Page:
    """A tab of the browser.

    Args:
        connection: to its DevTools.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection, self._number = connection, 0

    def open(self, url: str, text: str) -> None:
        """Opens a page, and waits until it holds a text and does not change any more.

        Raises:
            TimeoutError: it does not.
        """
        self._ask("Page.navigate", url=url)
        seen, since, deadline = "", time.monotonic(), time.monotonic() + _PATIENCE_SECONDS
        while text not in seen or time.monotonic() - since < _STILL_SECONDS:
            time.sleep(0.5)
            now = str(self._ask("Runtime.evaluate", expression=_SEEN)["result"].get("value", ""))
            if now != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url} does not say {text!r}, or does not come to rest; it says:\n{seen}")

    def picture(self) -> Image.Image:
        """Returns what the page shows."""
        return Image.open(io.BytesIO(base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"])))

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._connection.recv(timeout=_PATIENCE_SECONDS))
            if answer.get("id") == self._number:
                result: dict[str, Any] = answer["result"]
                return result


@contextmanager
def browse() -> Iterator[Page]:
    """Starts Chromium for the block, with a profile of its own, and yields its page.

    Raises:
        UserError: there is none.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise UserError(f"No Chromium is on the path ({', '.join(BROWSERS)}); install one, such as Debian's chromium.")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0"]
    flags += ["--force-color-profile=srgb", f"--window-size={SIZE[0]},{SIZE[1]}"]
    with tempfile.TemporaryDirectory(prefix="bench-browser-", ignore_cleanup_errors=True) as profile:
        command = [browser, *flags, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with connect(_page_address(Path(profile)), max_size=None) as connection:
                yield Page(connection)
        finally:
            process.terminate()
            process.wait(60)


def _page_address(profile: Path) -> str:
    """The address of the DevTools of the first tab, once the browser runs."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError, IndexError, ValueError):
            port = int((profile / "DevToolsActivePort").read_text().split()[0])
            with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
                return str(next(tab["webSocketDebuggerUrl"] for tab in json.load(answer) if tab["type"] == "page"))
        time.sleep(0.5)
    raise TimeoutError("Chromium did not open its debugging port")

"""Drive headless Chromium through chromedriver's plain WebDriver protocol, with no other package."""

import base64
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 30.0


def find_missing() -> str:
    """Return why there is no Chromium to drive, or ""."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"{' and '.join(missing)} not installed (apt-get install -y chromium chromium-driver)" if missing else ""


class Browser:
    """Hold one browser session."""

    def __init__(self, url: str, session: str):
        self.url = f"{url}/session/{session}"

    def open(self, path: Path) -> None:
        """Load a local file."""
        send(f"{self.url}/url", {"url": path.absolute().as_uri()})

    def run(self, script: str) -> Any:
        """Run a script in the page and return what it returns."""
        return send(f"{self.url}/execute/sync", {"script": script, "args": []})

    def logs(self, kind: str) -> list[dict[str, Any]]:
        """Return the browser's log of a kind: "browser" (console) or "performance" (network)."""
        return send(f"{self.url}/se/log", {"type": kind})

    def screenshot(self, path: Path, *, height: int = 0) -> None:
        """Save what is shown, or the page's first `height` pixels."""
        if height:
            width = self.run("return document.documentElement.clientWidth")
            clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
            command = {"cmd": "Page.captureScreenshot", "params": {"captureBeyondViewport": True, "clip": clip}}
            data = send(f"{self.url}/goog/cdp/execute", command)["data"]
        else:
            data = get(f"{self.url}/screenshot")
        path.write_bytes(base64.b64decode(data))


@contextmanager
def open_browser(folder: Path, *, width: int, height: int) -> Iterator[Browser]:
    """Start a browser whose viewport has a size, with an empty profile below `folder`, and end it afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen(
        ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ)
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url)
        options = {
            "args": [
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-dev-shm-usage",
                f"--user-data-dir={folder / 'profile'}",
            ],
            "mobileEmulation": {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 1.0}},
        }
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        session = send(f"{url}/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        try:
            yield Browser(url, session)
        finally:
            get(f"{url}/session/{session}", method="DELETE")
    finally:
        driver.terminate()
        driver.wait(timeout=10)


def wait_until_ready(url: str) -> None:
    """Wait until chromedriver answers."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            if get(f"{url}/status")["ready"]:
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def send(url: str, body: dict[str, Any]) -> Any:
    """Post a command and return its value."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["value"]


def get(url: str, *, method: str = "GET") -> Any:
    """Ask for a value."""
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=60) as response:
        return json.load(response)["value"]

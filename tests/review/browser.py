"""
A headless Chromium that opens a page of this machine and tells what becomes of it, over the pipe that it has for that.

Where there is none, the tests that want one are skipped.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

#: What it may be called.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")

#: Seconds until a browser that says nothing has failed.
PATIENCE = 60


@functools.cache
def program() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One process, and one page in it; `requests`, `errors` are what the page asked for and what the console said."""

    def __init__(self, process: subprocess.Popen[bytes], reading: int, writing: int) -> None:
        self.process, self._reading, self._writing = process, reading, writing
        self._number, self._rest, self._session = 0, b"", ""
        self.requests: list[str] = []
        self.errors: list[str] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self._hear(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._reading, 2**20)
            assert piece, "the browser has gone"
            self._rest += piece
        text, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(text)
        return answer

    def _hear(self, event: dict[str, Any]) -> None:
        given = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(given["request"]["url"])
            case "Log.entryAdded":
                self.errors.append(given["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.errors.append(str(given["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.errors.append(str(given["args"]))
            case "Page.loadEventFired":
                self.loaded = True

    def open(
        self, page: Path, *, width: int = 1280, height: int = 900, scheme: str = "light", script: bool = True
    ) -> None:
        """The page in a window of this width, in pixels."""
        self.requests.clear()
        self.errors.clear()
        self.loaded = False
        self.ask("Emulation.setScriptExecutionDisabled", value=not script)
        self.look(width=width, height=height, scheme=scheme)
        self.ask("Page.navigate", url=page.resolve().as_uri())
        while not self.loaded:
            self._hear(self._next())

    def look(self, *, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """The open page in another window."""
        narrow = width < 600
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=narrow)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def run(self, script: str) -> Any:
        """What the expression gives on the page."""
        given = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in given, given
        return given["result"].get("value")

    def picture(self, place: Path, *, whole: bool = False) -> None:
        """A PNG of what the window shows, or of the page from its top to its end."""
        taken = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        place.write_bytes(base64.b64decode(taken["data"]))

    def printed(self, place: Path) -> None:
        """The page as a PDF."""
        place.write_bytes(base64.b64decode(self.ask("Page.printToPDF", printBackground=True)["data"]))


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser, which ends with the block; skips the test where there is none."""
    found = program()
    if found is None:
        pytest.skip(f"no headless browser is installed ({', '.join(NAMES[:2])}, ...)")
    to_us, from_them = os.pipe()
    to_them, from_us = os.pipe()
    with tempfile.TemporaryDirectory(prefix="t2t-browser-", ignore_cleanup_errors=True) as profile:
        flags = f"--headless --no-sandbox --disable-gpu --remote-debugging-pipe --user-data-dir={profile}"
        flags += " --hide-scrollbars --force-color-profile=srgb --disable-dev-shm-usage"
        # It reads from 3 and writes to 4; plain sh knows no numbers of two digits.
        command = ["bash", "-c", f'exec "$0" {flags} about:blank 3<&{to_them} 4>&{from_them}', found]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, pass_fds=(to_them, from_them), **quiet)  # type: ignore[call-overload]
        os.close(to_them)
        os.close(from_them)
        try:
            yield Browser(process, to_us, from_us)
        finally:
            process.terminate()
            process.wait(PATIENCE)
            os.close(to_us)
            os.close(from_us)

"""A web server for tests: it gives the files of a folder, whole or in parts, and writes down what was asked for."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_RANGE = re.compile(r"bytes=(\d+)-(\d+)\Z")


@dataclass(frozen=True)
class Asked:
    """A request: the method, the file's name, and which of its bytes were sent (start, end)."""

    method: str
    name: str
    start: int = 0
    end: int = 0


class Server:
    """
    Serves `folder` at `address`, on a port of its own.

    `ranges` False makes a server that always sends the whole file; `answer` can send something else first: it gets the
    request and says whether it has answered.
    """

    def __init__(
        self,
        folder: Path,
        ranges: bool = True,
        answer: Callable[[http.server.BaseHTTPRequestHandler], bool] | None = None,
    ) -> None:
        self.asked: list[Asked] = []
        asked = self.asked

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._send(body=False)

            def do_GET(self) -> None:
                self._send(body=True)

            def log_message(self, *_: object) -> None:
                pass

            def _send(self, body: bool) -> None:
                name = self.path.lstrip("/")
                if answer is not None and answer(self):
                    asked.append(Asked(self.command, name))
                    return
                file = folder / name
                if not file.is_file():
                    asked.append(Asked(self.command, name))
                    self.send_error(404)
                    return
                data = file.read_bytes()
                part = _RANGE.match(self.headers.get("Range", "")) if ranges else None
                start, end = (int(part[1]), min(int(part[2]) + 1, len(data))) if part else (0, len(data))
                asked.append(Asked(self.command, name, start, end) if body else Asked(self.command, name))
                self.send_response(206 if part else 200)
                self.send_header("Content-Length", str(end - start))
                self.send_header("ETag", f'"{file.stat().st_mtime_ns}"')
                if part:
                    self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
                self.end_headers()
                if body:
                    try:
                        self.wfile.write(data[start:end])
                    except ConnectionError:
                        self.close_connection = True

        class Quiet(http.server.ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A client that goes away is none of the server's business."""

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def parts(self, name: str) -> list[tuple[int, int]]:
        """Which bytes of a file were sent, in the order in which they were."""
        return [(each.start, each.end) for each in self.asked if each.method == "GET" and each.name == name]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

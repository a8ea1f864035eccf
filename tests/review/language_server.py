"""
The YAML language server of the editors, spoken to as an editor does: LSP over its standard streams.

It is looked for in `$T2T_NODE_MODULES` (a folder `node_modules` that holds it), then on the PATH; nothing is installed.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

INSTALL = "npm install --prefix FOLDER yaml-language-server, then T2T_NODE_MODULES=FOLDER/node_modules"

#: Seconds that an answer may take: it is node's start that takes the most.
PATIENCE = 60.0


def command() -> list[str]:
    """How the server is started; skips the test where there is none."""
    folder = os.environ.get("T2T_NODE_MODULES")
    if folder:
        script = Path(folder) / "yaml-language-server" / "bin" / "yaml-language-server"
        node = shutil.which("node")
        if not script.is_file() or node is None:
            pytest.fail(f"T2T_NODE_MODULES={folder} has no yaml-language-server, or there is no node to run it")
        return [node, str(script), "--stdio"]
    found = shutil.which("yaml-language-server")
    if found is None:
        pytest.skip(f"there is no yaml-language-server: {INSTALL}")
    return [found, "--stdio"]


class LanguageServer:
    """One server, in a folder. It reads no list of public schemas: what a file says in its first line is enough."""

    def __init__(self, root: Path) -> None:
        self._process = subprocess.Popen(command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root)
        self._data = b""
        self._number = 0
        self._published: dict[str, list[dict[str, Any]]] = {}
        self._versions: dict[str, int] = {}
        markup = ["markdown", "plaintext"]
        completion = {"completionItem": {"documentationFormat": markup, "snippetSupport": True}}
        capabilities = {"textDocument": {"completion": completion, "hover": {"contentFormat": markup}}}
        where = {"rootUri": root.as_uri(), "workspaceFolders": [{"uri": root.as_uri(), "name": "root"}]}
        self.request("initialize", {"processId": os.getpid(), "capabilities": capabilities, **where})
        self._notify("initialized", {})
        settings = {"schemaStore": {"enable": False}, "validate": True, "hover": True, "completion": True}
        self._notify("workspace/didChangeConfiguration", {"settings": {"yaml": settings}})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def problems(self, path: Path, text: str) -> list[dict[str, Any]]:
        """What is wrong with a file of this text, whatever stands on the disk."""
        uri = path.as_uri()
        self._published.pop(uri, None)
        self._versions[uri] = version = self._versions.get(uri, 0) + 1
        if version == 1:
            document = {"uri": uri, "languageId": "yaml", "version": version, "text": text}
            self._notify("textDocument/didOpen", {"textDocument": document})
        else:
            document = {"uri": uri, "version": version}
            self._notify("textDocument/didChange", {"textDocument": document, "contentChanges": [{"text": text}]})
        # Each text is waited for, so that no text gets another one's problems.
        while uri not in self._published:
            self._take(self._message())
        return self._published[uri]

    def completions(self, path: Path, text: str) -> dict[str, str]:
        """What is offered where | stands in the text: each label, and what is said about it."""
        found: dict[str, str] = {}
        for item in self._at("completion", path, text)["items"]:
            about = item.get("documentation") or ""
            found[item["label"]] = about if isinstance(about, str) else about["value"]
        return found

    def hover(self, path: Path, text: str) -> str:
        """What is shown over the place where | stands in the text."""
        return str(self._at("hover", path, text)["contents"]["value"])

    def _at(self, method: str, path: Path, text: str) -> Any:
        before, _, after = text.partition("|")
        self.problems(path, before + after)
        place = {"line": before.count("\n"), "character": len(before) - before.rfind("\n") - 1}
        asked = {"textDocument": {"uri": path.as_uri()}, "position": place}
        return self.request(f"textDocument/{method}", asked)

    def request(self, method: str, params: dict[str, Any]) -> Any:
        """The answer to a request; what the server asks meanwhile is answered with nothing."""
        self._number += 1
        number = self._number
        self._send({"id": number, "method": method, "params": params})
        while True:
            message = self._message()
            if message.get("id") == number and "method" not in message:
                assert "error" not in message, message
                return message["result"]
            self._take(message)

    def _notify(self, method: str, params: dict[str, Any]) -> None:
        self._send({"method": method, "params": params})

    def _take(self, message: dict[str, Any]) -> None:
        """A message that nobody waits for."""
        if message.get("method") == "textDocument/publishDiagnostics":
            self._published[message["params"]["uri"]] = message["params"]["diagnostics"]
        elif "id" in message and "method" in message:
            asked = message["params"].get("items", []) if message["method"] == "workspace/configuration" else None
            self._send({"id": message["id"], "result": None if asked is None else [None] * len(asked)})

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self._process.stdin.flush()

    def _message(self) -> dict[str, Any]:
        head = self._until(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        while len(self._data) < length:
            self._read()
        body, self._data = self._data[:length], self._data[length:]
        message: dict[str, Any] = json.loads(body)
        return message

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._data:
            self._read()
        head, _, self._data = self._data.partition(mark)
        return head

    def _read(self) -> None:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        assert ready, f"the language server said nothing for {PATIENCE:.0f} seconds"
        data = os.read(self._process.stdout.fileno(), 2**16)
        assert data, "the language server has ended"
        self._data += data

"""
The file `checkpoint`, in which TensorFlow notes which of the checkpoints beside it is the newest.

    model_checkpoint_path: "model.ckpt-700"
    all_model_checkpoint_paths: "model.ckpt-600"
    all_model_checkpoint_paths: "model.ckpt-700"
    all_model_checkpoint_timestamps: 1511471528.9

A text protobuf of the message CheckpointState: strings in either kind of quotes, with C's escapes; strings in a row are
one.
https://protobuf.dev/reference/protobuf/textformat-spec
"""

from __future__ import annotations

import os
import re

from t2t.checkpoints.files import read_all, refusal
from t2t.names import shown

MAX_STATE = 16 * 2**20

_TOKEN = re.compile(
    rb"""(?P<space>[\s,;]+|\#[^\n]*)|(?P<name>[A-Za-z_]\w*)|(?P<colon>:)|(?P<number>[-+.\w]+)"""
    rb"""|(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
)
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|[xX]([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_LETTERS = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"} | {
    quote: quote for quote in (b"\\", b"'", b'"', b"?")
}
_MAX_CODE_POINT = 0x10FFFF


def newest(path: str) -> str:
    """
    The `model_checkpoint_path` of a state file, as it stands there.

    Raises CheckpointError: T2T610 with the line when it cannot be understood, T2T602, T2T611.
    """
    data, _ = read_all(path, MAX_STATE)
    found = b""
    key, colon, text = b"", False, None
    at = 0
    while at < len(data):
        token = _TOKEN.match(data, at)
        if token is None:
            raise _not_a_state(path, data, at)
        start, at = at, token.end()
        kind, content = token.lastgroup, token[0]
        if kind == "space":
            continue
        if kind == "name" and not (colon and text is None):
            key, colon, text = content, False, None
        elif kind == "colon" and key and not colon:
            colon = True
        elif kind == "string" and colon:
            text = (text or b"") + _unescaped(content[1:-1], path, data, start)
            if key == b"model_checkpoint_path":
                found = text
        elif kind in ("number", "name") and colon and text is None:
            text = b""
        else:
            raise _not_a_state(path, data, start)
    if not found:
        message = "the state file is empty" if not data.strip() else "the state file has no model_checkpoint_path"
        raise refusal("T2T610", message, path, "give the checkpoint's prefix instead")
    return os.fsdecode(found)


def _not_a_state(path: str, data: bytes, at: int) -> Exception:
    return refusal("T2T610", "not a checkpoint state file (a text protobuf)", path, line=_line(data, at))


def _line(data: bytes, at: int) -> int:
    # Only for an error: counting from the start for each token would take the square of the file's size.
    return data.count(b"\n", 0, at) + 1


def _unescaped(text: bytes, path: str, data: bytes, at: int) -> bytes:
    def value(escape: re.Match[bytes]) -> bytes:
        octal, hexadecimal, short, long, letter = escape.groups()
        if octal or hexadecimal:
            return bytes([(int(octal, 8) if octal else int(hexadecimal, 16)) & 0xFF])
        if letter is None and int(short or long, 16) <= _MAX_CODE_POINT:
            return chr(int(short or long, 16)).encode("utf-8", "surrogatepass")
        if letter in _LETTERS:
            return _LETTERS[letter]
        message = f"the escape {shown(escape[0].decode('latin-1'))} is unknown"
        raise refusal("T2T610", message, path, line=_line(data, at))

    return _ESCAPE.sub(value, text)

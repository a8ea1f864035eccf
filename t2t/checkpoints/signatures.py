"""
What a file is that t2t does not read, told from its first bytes: nothing of it is unpacked, unpickled or run.

Only names what cannot be taken for something else. What t2t reads is recognised elsewhere, before this is asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from t2t.checkpoints.protobuf import BYTES, VARINT, Corrupt, varint
from t2t.names import shown

#: The way out for whoever has a file of another format.
READ = "t2t reads TensorFlow V1 and V2 checkpoints, SavedModels, Keras .h5 and .keras, and .npz"

#: How many bytes `described` wants to see.
HEAD_SIZE = 512

_UNPACK = "unpack it first"
_DOWNLOAD = "download the file itself"
_TORCH = "a PyTorch file (a pickle), which t2t never reads"
_PICKLE = "a Python pickle, which t2t never reads"

#: (offset, bytes there, what the file then is, the way out). The first that fits is meant.
_SIGNATURES = (
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", READ),
    (0, b"\x1f\x8b", "a gzip archive", _UNPACK),
    (0, b"BZh", "a bzip2 archive", _UNPACK),
    (0, b"\xfd7zXZ\0", "an xz archive", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive", _UNPACK),
    (0, b"\x04\x22\x4d\x18", "an LZ4 archive", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"GGUF", "a GGUF file", READ),
    (4, b"TFL3", "a TFLite model", READ),
    (0, b"\x93NUMPY", "a NumPy .npy array, which has no name", "store it in an .npz, under its variable's name"),
    (0, b"MATLAB 5.0 MAT-file", "a MATLAB .mat file", READ),
    (0, b"MATLAB 7.3 MAT-file", "a MATLAB .mat file", READ),
    # torch.save before its 1.6: a pickle of this number comes first.
    (0, b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", _TORCH, READ),
    *((0, bytes((0x80, protocol)), _PICKLE, READ) for protocol in (2, 3, 4, 5)),
    (9 + 12, b"\x1a\x0dbrain.Event:", "a TensorBoard event file", "it lies beside the checkpoint: give that one"),
)

#: Text, in lower case, behind white space and a byte order mark: patterns for the beginning. These come in the place
#: of any file.
_STAND_INS = (
    (rb"version https://git-lfs", "a Git LFS pointer, not the file itself", "run git lfs pull"),
    (rb"<!doctype html|<html", "an HTML page", _DOWNLOAD),
    (rb"<\?xml|<error>", "an XML page", _DOWNLOAD),
)
_TEXTS = (
    (rb"model_checkpoint_path:", "a checkpoint state file under another name", "give the prefix that it names"),
    (rb"node ?\{\s+name:", "a TensorFlow graph as text, without weights", "give the checkpoint that was saved with it"),
    (rb'[{[]\s*["{}[\]0-9-]', "JSON text", READ),
)

#: How pickles of the protocols 0 and 1 begin: an empty or filled container, or a class.
#: The first entry of a table: an empty key, the length of its value, and the value of a V1 checkpoint or of an index.
_TABLE = re.compile(
    rb"\x00\x00[\x80-\xff]{0,4}[\x00-\x7f](?:\x0a[\x80-\xff]{0,4}[\x00-\x7f]\x0a|\x08.\x1a\x02\x08)", re.DOTALL
)
_OLD_PICKLE = re.compile(
    rb"\([dl]p[0-9]+\n|[]}]q[\0-\xff]|(?:\(i|c)[A-Za-z_][\w.]*\n\w+\n(?:p[0-9]+\n|q[\0-\xff]|\()", re.DOTALL
)

#: The least that names an operation of a graph: what NodeDef.op holds.
_OPERATION = re.compile(rb"[A-Z_][A-Za-z0-9_>.]*\Z")


def described(head: bytes) -> tuple[str, str] | None:
    """What a file is that begins with `head`, and the way out; None where nothing is known about such a beginning."""
    if known := stand_in(head):
        return known
    for offset, signature, description, hint in _SIGNATURES:
        if head.startswith(signature, offset):
            return description, hint
    if head.startswith(b"PK\x03\x04"):
        return _zip_described(head)
    # A header's length in 8 bytes, then the header: a JSON object.
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= 100_000_000:
        return "a safetensors file", READ
    if _OLD_PICKLE.match(head):
        return _PICKLE, READ
    return _text_described(head, _TEXTS) or _protobuf_described(head)


def is_cut_off(head: bytes) -> bool:
    """Whether a file without a table's end begins as a TensorFlow checkpoint does."""
    return _TABLE.match(head) is not None


def stand_in(head: bytes) -> tuple[str, str] | None:
    """The same, for what a download or a clone leaves in a file's place: a pointer to it, a page about it."""
    return _text_described(head, _STAND_INS)


def _text_described(head: bytes, patterns: Sequence[tuple[bytes, str, str]]) -> tuple[str, str] | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:HEAD_SIZE].lower()
    for pattern, description, hint in patterns:
        if re.match(pattern, text):
            return description, hint
    return None


def _zip_described(head: bytes) -> tuple[str, str]:
    # A local file header: 30 bytes, of which bytes 26 and 27 are the length of the member's name that follows.
    member = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    if member.endswith((b"/data.pkl", b"/.format_version", b"/version", b"/byteorder")):
        return _TORCH, READ
    if member.endswith(b".npy"):
        return "a NumPy .npz archive", READ
    if member in (b"metadata.json", b"config.json", b"model.weights.h5"):
        return "a .keras archive", READ
    return f"a zip archive (its first member is {shown(member.decode('utf-8', 'surrogateescape'))})", _UNPACK


def _protobuf_described(head: bytes) -> tuple[str, str] | None:
    """
    One of the messages that models are stored as, by their first two fields.

        ONNX ModelProto    { 1 ir_version, 2 producer_name or 7 graph or 8 opset_import }, the name is text
        SavedModel         { 1 schema version, 2 MetaGraphDef { 1 MetaInfoDef or 2 GraphDef } }
        GraphDef           { 1 NodeDef { 1 name, 2 op } }
        MetaGraphDef       { 1 MetaInfoDef { 2 OpList { 1 OpDef { 1 name } } } }
    """
    try:
        number, wire, value, at = _field(head, 0)
        if (number, wire) == (1, VARINT):
            second, second_wire, size, start = _field(head, at)
            if second_wire != BYTES or not 1 <= value <= 100:
                return None
            # A producer's name is text; the only fields that a MetaGraphDef begins with are none.
            if second == 2 and head[start : start + min(size, 1)] in (b"\x0a", b"\x12", b"\x3a"):
                return "a SavedModel's graph", "give the SavedModel's directory"
            return ("an ONNX model", READ) if second in (2, 7, 8) else None
        if (number, wire) != (1, BYTES):
            return None
        inner, inner_wire, size, start = _field(head, at)
        if (inner, inner_wire) == (2, BYTES) and _field(head, start)[:2] == (1, BYTES):
            return "a TensorFlow graph (a .meta file), without weights", "give the checkpoint that was saved with it"
        if (inner, inner_wire) != (1, BYTES):
            return None
        op, op_wire, size, start = _field(head, start + size)
        if (op, op_wire) == (2, BYTES) and _OPERATION.match(head[start : start + size]):
            return "a TensorFlow graph (a frozen .pb, or one without weights)", READ
    except Corrupt:
        return None  # no protobuf message begins like this, or its first field is longer than what we see
    return None


def _field(data: bytes, at: int) -> tuple[int, int, int, int]:
    """The field at `at`: its number, wire type, number or size of its content, and where what follows this begins."""
    tag, at = varint(data, at, len(data))
    if tag & 7 not in (VARINT, BYTES):
        raise Corrupt(f"the wire type {tag & 7}")
    value, at = varint(data, at, len(data))
    return tag >> 3, tag & 7, value, at

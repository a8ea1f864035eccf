"""
The gallery's large vision models: ResNet-50 under three sets of names, EfficientNet-B0, Inception v3.

No weights of theirs are here: Keras and TensorFlow write checkpoints with the published names and random values, and
the originals of the mappings' own verify sections run them.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import t2t
from tests.gallery.published_locks import BY_KERAS, is_committed, write, write_keras
from tests.gallery.shared import MAPPINGS, ROOT, lines

NAMES = ("tensorflow", "keras", "h5py")
pytestmark = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in NAMES), reason="keras and tensorflow write the checkpoints"
)

#: TF's two ResNets come at an eighth of their width, for speed.
NARROW = ("bias: false", "bias: false, width: 8")


@dataclass(frozen=True)
class Entry:
    """A mapping, how many lines it may have, the checkpoint that is written for it, what is replaced in it first."""

    mapping: str
    most_lines: int
    checkpoint: str
    edits: tuple[tuple[str, str], ...] = ()


SLIM = Entry("resnet50_slim", 25, "resnet_v1_50.ckpt", (NARROW,))
OFFICIAL = Entry("resnet50_official", 20, "official", (NARROW,))
RESNET = Entry("resnet50_keras", 25, "resnet50.h5")
EFFICIENTNET = Entry("efficientnet_b0", 35, "efficientnet_b0.h5")
INCEPTION = Entry("inception_v3", 35, "inception_v3.h5")

every_entry = pytest.mark.parametrize(
    "entry", [SLIM, OFFICIAL, RESNET, EFFICIENTNET, INCEPTION], ids=lambda entry: entry.mapping
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder with what with_vision.py writes, half a gigabyte, and with the recordings."""
    folder = tmp_path_factory.mktemp("vision")
    write_keras(folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A copy of a mapping with some of its text replaced."""
    monkeypatch.chdir(ROOT)

    def edited(name: str, *edits: tuple[str, str]) -> Path:
        text = (MAPPINGS / f"{name}.yaml").read_text("utf-8")
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / f"{name}.yaml"
        path.write_text(text, "utf-8")
        return path

    return edited


@pytest.fixture
def proven(written: Path, edited: Callable[..., Path]) -> Callable[..., Any]:
    """The comparison of an entry's module, with some of the mapping's text replaced, and its original's recording."""

    def proven(entry: Entry, *edits: tuple[str, str]) -> Any:
        options: dict[str, Any] = {
            "checkpoint": written / entry.checkpoint,
            "recording": written / f"{entry.mapping}.npz",
        }
        if not options["recording"].exists():
            t2t.record(edited(entry.mapping, *entry.edits), **options)
        return t2t.verify(edited(entry.mapping, *entry.edits, *edits), diagnose=False, **options)

    return proven


@every_entry
def test_the_mapping_is_as_short_as_a_reviewer_wants_it(entry: Entry) -> None:
    assert lines(MAPPINGS / f"{entry.mapping}.yaml") <= entry.most_lines


@every_entry
def test_the_module_computes_what_the_original_computes(entry: Entry, proven: Callable[..., Any]) -> None:
    comparison = proven(entry)

    (logits,) = comparison.outputs
    assert comparison.proven
    assert logits.max_delta <= 1e-5 * logits.scale


@pytest.mark.parametrize(
    ("entry", "old", "new"),
    [
        pytest.param(SLIM, "last_3x3", "first_3x3", id="the place of the stride"),
        pytest.param(SLIM, "pool: same", "pool: both", id="the padding of the first pooling"),
        pytest.param(OFFICIAL, "first_3x3", "first_1x1", id="the place of the stride, v1 and v1.5"),
        pytest.param(OFFICIAL, "eps: 1e-5", "eps: 1.001e-5", id="the epsilon"),
        pytest.param(EFFICIENTNET, "[2.0896919, 2.11288564, 2.10818511]", "null", id="the factors behind the mean"),
        pytest.param(
            INCEPTION,
            "[[branch1x1, 0, 0], [branch7x7, 0..2, 1..3], [branch7x7dbl, 0..4, 4..8], [branch_pool, 1, 9]]",
            "[[branch1x1, 0, 9], [branch7x7, 0..2, 1..3], [branch7x7dbl, 0..4, 4..8], [branch_pool, 1, 0]]",
            id="two branches of one shape",
        ),
    ],
)
def test_what_no_shape_shows_the_proof_does(entry: Entry, old: str, new: str, proven: Callable[..., Any]) -> None:
    comparison = proven(entry, (old, new))

    assert not comparison.proven
    assert comparison.max_delta > 1e-4 * comparison.outputs[0].scale


def test_keras_weights_under_the_official_names_give_what_keras_computes(
    written: Path, edited: Callable[..., Path]
) -> None:
    """The mapping has no row for a bias: its recipe's is optional, and here both sides have one."""
    import torch

    keras = "{stride: first_1x1, pool: both, bias: true, eps: 1.001e-5}"
    mapping = edited(
        "resnet50_official", ("{stride: first_3x3, pool: same, bias: false, eps: 1e-5, classes: 1001}", keras)
    )

    module = t2t.load(mapping, checkpoint=written / "keras_as_official", verify=False)

    with np.load(written / "keras_as_official.npz") as arrays, torch.inference_mode():
        logits = module(torch.from_numpy(arrays["image"].transpose(0, 3, 1, 2))).numpy()
        assert np.abs(logits - arrays["logits"]).max() <= 1e-5 * np.abs(arrays["logits"]).max()


@pytest.mark.parametrize("name", BY_KERAS)
def test_the_lock_of_names_is_made_again_from_what_keras_saves(name: str, written: Path, tmp_path: Path) -> None:
    made = write(name, written / BY_KERAS[name], str(tmp_path / "again.lock.json"))

    assert is_committed(made, name)


@pytest.mark.parametrize(
    ("entry", "checkpoint", "edits"),
    [
        (RESNET, "resnet50.weights.h5", ()),
        (INCEPTION, "inception_v3.keras", ()),
        (EFFICIENTNET, "efficientnet_b0_keras3.h5", (("use: depthwise_conv2d", "use: keras3.depthwise_conv2d"),)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_keras_3_saves_gives_the_same_parameters(
    entry: Entry, checkpoint: str, edits: tuple[tuple[str, str], ...], written: Path, edited: Callable[..., Path]
) -> None:
    published = dict(t2t.iter_tensors(edited(entry.mapping), checkpoint=written / entry.checkpoint))

    saved = dict(t2t.iter_tensors(edited(entry.mapping, *edits), checkpoint=written / checkpoint))

    assert saved.keys() == published.keys()
    for name, array in published.items():
        np.testing.assert_array_equal(saved[name], array, name)

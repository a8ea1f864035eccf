"""
The five steps of the work that t2t grew from, on a real checkpoint: build the torch twin, load the TensorFlow model and
its latest checkpoint, list the trainable variables, permute and assign them, test that accuracies match, retrain.

The checkpoint is MadryLab's graph after 700 training steps; golden.npz is what TensorFlow computed from 1000 images.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import t2t

ROOT = Path(__file__).resolve().parents[1]


def _t2t(*arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "t2t", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, encoding="utf-8")


def _mapping(folder: Path, madry: Path, name: str = "madry.yaml", fc1: str = "") -> Path:
    """The example's mapping with the images of golden.npz, to be used with the real checkpoint."""
    text = (ROOT / "mappings" / "madry.yaml").read_text()
    text = text.replace("checkpoints/madry/checkpoint-700", str(madry / "checkpoint-700"))
    text = text.replace("checkpoints/madry/test.npz", str(madry / "golden.npz"))
    if fc1:
        right = "axes: (h w c) o -> o (c h w), dims: {h: 7, w: 7}"
        assert right in text
        text = text.replace(right, fc1)
    path = folder / name
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def madry(shared_data: Path) -> Path:
    return shared_data / "madry"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, madry: Path) -> Path:
    """A folder with the mapping and, recorded by TensorFlow from the checkpoint's own graph, its recording."""
    pytest.importorskip("tensorflow", reason="records with TensorFlow", exc_type=ImportError)
    folder = tmp_path_factory.mktemp("five")
    done = _t2t("record", _mapping(folder, madry))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_variables_are_listed_with_the_trainable_ones_apart(madry: Path) -> None:
    """Step 3: names, shapes, counts. The directory's state file names the latest checkpoint."""
    done = _t2t("inspect", madry)

    assert done.returncode == 0
    assert done.stdout.splitlines()[-3:] == [
        "optimizer slots and counters: 18 variables, 6,549,270 elements, 26.2 MB; --all lists them",
        "trainable: 8 variables, 3,274,634 elements, 13.1 MB",
        "all: 27 variables, 9,823,905 elements, 39.3 MB",
    ]


def test_the_recording_holds_the_logits_that_tensorflow_computed(folder: Path, madry: Path) -> None:
    """Step 2: the original runs; what it gives is what a stranger's run of it gave."""
    from t2t import mapping
    from t2t.proof import recording

    read, problems = mapping.read((folder / "madry.yaml").read_bytes(), str(folder / "madry.yaml"))
    assert read is not None
    assert read.verify is not None
    assert not problems

    taken = recording.load(read.verify.recording, read.verify)

    with np.load(madry / "golden.npz") as golden:
        np.testing.assert_allclose(taken.draws[0].outputs["logits"], golden["logits"], rtol=0, atol=1e-4)


def test_every_variable_is_accounted_for_and_accuracies_match(folder: Path, madry: Path) -> None:
    """Steps 4 and 5."""
    out = folder / "out.safetensors"

    done = _t2t(folder / "madry.yaml", "-o", out, "--format", "json")

    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["parameters"] == 8
    assert report["variables"]["mapped"] == 8
    assert len(report["variables"]["ignored"]) == 19
    assert all(report["variables"]["ignored"].values())
    assert report["proof"]["metric"] == {"name": "accuracy", "tensorflow": 0.944, "torch": 0.944, "count": 1000}
    assert report["proof"]["outputs"][0]["max_delta"] <= 1e-4


def test_the_examples_own_mapping_takes_the_other_checkpoint_and_its_graph(madry: Path, tmp_path: Path) -> None:
    """Nothing is written into the mapping's own folder, and the graph is the other checkpoint's."""
    pytest.importorskip("tensorflow", reason="records with TensorFlow", exc_type=ImportError)
    flags = ("--checkpoint", madry / "checkpoint-700", "--recording", tmp_path / "r.npz")

    recorded = _t2t("record", "mappings/madry.yaml", *flags)
    done = _t2t("mappings/madry.yaml", *flags, "-o", tmp_path / "o.safetensors", "--format", "json")

    assert recorded.returncode == 0, recorded.stdout + recorded.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["proof"]["proven"] is True


def test_one_step_of_training_lowers_the_loss_and_leaves_the_checkpoint_alone(folder: Path, madry: Path) -> None:
    """Step 5, the other way: what `load` gives can be trained on."""
    import torch

    data = madry / "checkpoint-700.data-00000-of-00001"
    before = hashlib.sha256(data.read_bytes()).hexdigest()
    with np.load(madry / "golden.npz") as golden:
        x, labels = torch.from_numpy(golden["x"]), torch.from_numpy(golden["labels"]).long()
    model = t2t.load(folder / "madry.yaml")
    assert not model.training
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loss = torch.nn.functional.cross_entropy(model(x), labels)
    torch.autograd.backward(loss)
    optimizer.step()

    with torch.no_grad():
        after = torch.nn.functional.cross_entropy(model(x), labels)
    assert after < loss
    assert hashlib.sha256(data.read_bytes()).hexdigest() == before


def test_the_plain_transpose_is_refused_and_an_older_output_stays(folder: Path, madry: Path, tmp_path: Path) -> None:
    """It fits every shape, so `check` has nothing to say; running it has."""
    wrong = _mapping(folder, madry, "wrong.yaml", "permute: [1, 0]")
    recording = folder / "recordings" / "madry.npz"
    out = tmp_path / "out.safetensors"
    assert _t2t(folder / "madry.yaml", "-o", out).returncode == 0
    before = out.read_bytes()

    done = _t2t(wrong, "-o", out, "--recording", recording)

    assert _t2t("check", wrong).returncode == 1  # the graph beside the checkpoint says so
    assert done.returncode == 1
    line = done.stdout
    assert line.startswith(f"{wrong}:20:1: T2T501 logits: max|Δ| 26.6 exceeds 2.10e-04 (1e-06 + 1e-05 x ")
    assert "max|TF|), accuracy 0.0700 against TensorFlow's 0.9440; " in line
    assert out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]


def test_without_a_recording_nothing_is_written_unless_asked_for(folder: Path, madry: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    wrong = _mapping(folder, madry, "wrong.yaml", "permute: [1, 0]")
    out = tmp_path / "out.safetensors"

    refused = _t2t(wrong, "-o", out)

    assert refused.returncode == 1
    assert refused.stdout == (
        f"{wrong}:20:1: T2T502 not proven: no recording at {folder}/recordings/wrong.npz; run t2t record {wrong}\n"
    )
    assert not out.exists()

    written = _t2t(wrong, "-o", out, "--unproven")

    assert written.returncode == 0
    assert written.stdout.splitlines()[-1] == "not proven: --unproven"
    with safe_open(out, "np") as file:
        assert file.metadata()["t2t.proof"] == "not proven: --unproven"

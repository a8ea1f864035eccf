"""
DTLN twice, as breizhn/DTLN published it: weights alone in an .h5, and a stateful SavedModel of another training.

A stranger's port of the .h5 to torch, lhwcv/DTLN_pytorch, says which values belong where.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import t2t
from mappings.modules.dtln import DTLN
from t2t.problems import MappingError
from tests.gallery.shared import MAPPINGS, RECORDINGS, data, lines, recorded

H5 = MAPPINGS / "dtln.yaml"
SAVED_MODEL = MAPPINGS / "dtln_saved_model.yaml"
REPOSITORY = "dtln/breizhn+DTLN"


def _h5() -> Path:
    return data(REPOSITORY, "model.h5")


def _saved_model() -> Path:
    return data(REPOSITORY, "DTLN_norm_40h_saved_model")


def _mistaken(mapping: Path, pieces: dict[str, str], folder: Path) -> Path:
    """The mapping with pieces of its text replaced."""
    text = mapping.read_text()
    for right, wrong in pieces.items():
        assert text.count(right) == 1
        text = text.replace(right, wrong)
    path = folder / "wrong.yaml"
    path.write_text(text)
    return path


def _theirs() -> dict[str, torch.Tensor]:
    """The stranger's tensors under the twin's names, their values and shapes as they are."""
    stored: dict[str, torch.Tensor] = torch.load(
        data("dtln/lhwcv+DTLN_pytorch/pretrained/model.pth"), weights_only=True, map_location="cpu"
    )
    return {name.replace(".gamma", ".weight").replace(".beta", ".bias"): value for name, value in stored.items()}


def test_the_published_weights_are_converted_and_proven(tmp_path: Path) -> None:
    done = t2t.convert(H5, tmp_path / "out.safetensors", checkpoint=_h5())

    assert done.comparison is not None
    assert done.comparison.proven
    assert [delta.output for delta in done.comparison.outputs] == ["clean"]


def test_every_tensor_is_the_strangers_bit_for_bit(tmp_path: Path) -> None:
    """He keeps the bias as bias_hh and gives his gamma two axes more; he, too, leaves the other bias zero."""
    theirs = _theirs()
    with data("port_match/dtln_h5.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    named = [row["torch_name"] for row in rows if row["tf_name"] != "UNMATCHED"]
    matched = [name.replace(".gamma", ".weight").replace(".beta", ".bias") for name in named]
    assert len(matched) == 20

    ours = load_file(t2t.convert(H5, tmp_path / "out.safetensors", checkpoint=_h5()).path)

    for name in matched:
        value = ours.pop(name.replace("bias_hh", "bias_ih"))
        assert torch.equal(value, theirs[name].reshape(value.shape)), name
    assert sorted(ours) == [f"sep{core}.rnn{rnn}.bias_hh_l0" for core in (1, 2) for rnn in (1, 2)]
    assert not any(bias.any() for bias in ours.values())


def test_the_strangers_weights_compute_what_was_recorded() -> None:
    """They never went through t2t: the twin is right whatever the mapping says."""
    model = DTLN().eval()
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    model.load_state_dict({name: value.reshape(shapes[name]) for name, value in _theirs().items()})
    draw = recorded(H5).draws[0]

    with torch.inference_mode():
        clean = model(torch.from_numpy(draw.inputs["noisy"]))

    np.testing.assert_allclose(clean.numpy(), draw.outputs["clean"], rtol=0, atol=1e-6)


def test_the_saved_model_is_proven_over_twenty_frames_of_one_stream(tmp_path: Path) -> None:
    done = t2t.convert(SAVED_MODEL, tmp_path / "out.safetensors", checkpoint=_saved_model())

    assert done.comparison is not None
    assert done.comparison.proven
    assert len(done.comparison.outputs) == 20


def test_the_stream_depends_on_the_state(tmp_path: Path) -> None:
    """Without it the later frames differ by far: the twenty frames do prove that it is carried."""
    model = t2t.load(SAVED_MODEL, checkpoint=_saved_model())
    frames = torch.rand(20, 1, 512, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        stream = torch.stack([model(frame) for frame in frames])
        _restart(model)
        alone = model(frames[-1])
        _restart(model)
        again = torch.stack([model(frame) for frame in frames])

    assert torch.equal(stream, again)
    assert (stream[-1] - alone).abs().max() > 0.01


def _restart(model: torch.nn.Module) -> None:
    for state in model.buffers():
        state.zero_()


def test_the_ignored_state_is_what_the_module_starts_with() -> None:
    with t2t.open_checkpoint(_saved_model()) as checkpoint:
        states = [ref for name, ref in checkpoint.inventory.variables.items() if "/states/" in name]
        assert len(states) == 8
        assert not any(checkpoint.read(ref).any() for ref in states)

    model = DTLN(log_norm=True, stream=True)

    assert not any(buffer.any() for buffer in model.buffers())
    assert not any("state" in name for name in model.state_dict())


LSTM = '- {tf: "lstm<_2s+r>", torch: "sep<s+1>.rnn<r+1>", use: lstm, with: {suffix: l0}}'
FIRST = '- {tf: "lstm<_2s>", torch: "sep<s+1>.rnn1", use: lstm, with: {suffix: l0}}'
LETTERS = "for: {s: 0..1, r: 0..1}"

EXCHANGED_LSTMS = f"""{FIRST}
- {{tf: "lstm<_2s+1>", torch: "sep<2-s>.rnn2", use: lstm, with: {{suffix: l0}}}}"""

EXCHANGED_KERNELS = f"""{FIRST}
- {{tf: "lstm<_2s+1>/kernel", torch: "sep<s+1>.rnn2.weight_hh_l0", axes: x g -> g x}}
- {{tf: "lstm<_2s+1>/recurrent_kernel", torch: "sep<s+1>.rnn2.weight_ih_l0", axes: u g -> g u}}
- {{tf: "lstm<_2s+1>/bias", torch: "sep<s+1>.rnn2.bias_ih_l0"}}
- {{torch: "sep<s+1>.rnn2.bias_hh_l0", fill: 0}}"""

#: Keras' LSTM taken for one of TF1's cells, whose gates lie in another order.
GATES_OF_TF1 = """
recipes:
  mistaken:
  - {tf: kernel, torch: weight_ih_<suffix>, axes: x (g u) -> (g u) x, dims: {g: 4}, order: {g: icfo -> ifco}}
  - {tf: recurrent_kernel, torch: weight_hh_<suffix>, axes: h (g u) -> (g u) h, dims: {g: 4}, order: {g: icfo -> ifco}}
  - {tf: bias, torch: bias_ih_<suffix>, axes: (g u) -> (g u), dims: {g: 4}, order: {g: icfo -> ifco}}
  - {torch: bias_hh_<suffix>, fill: 0}
"""


@pytest.mark.parametrize(
    ("letters", "rows"),
    [
        pytest.param("for: {s: 0..1}", EXCHANGED_LSTMS, id="the second LSTMs of the cores exchanged"),
        pytest.param("for: {s: 0..1}", EXCHANGED_KERNELS, id="kernels of one shape exchanged"),
        pytest.param(LETTERS + GATES_OF_TF1, LSTM.replace("use: lstm", "use: mistaken"), id="gates in TF1's order"),
    ],
)
def test_a_mistake_that_fits_every_shape_is_not_proven(letters: str, rows: str, tmp_path: Path) -> None:
    wrong = _mistaken(H5, {LETTERS: letters, LSTM: rows}, tmp_path)

    with pytest.raises(MappingError) as raised:
        t2t.convert(wrong, tmp_path / "out.safetensors", checkpoint=_h5(), recording=RECORDINGS / "dtln.npz")

    assert [problem.code for problem in raised.value.problems] == ["T2T501"]
    assert not (tmp_path / "out.safetensors").exists()


def test_a_scale_exchanged_with_an_offset_is_not_proven(tmp_path: Path) -> None:
    row = "- {tf: instant_layer_normalization_1, torch: encoder_norm1, use: layer_norm}"
    instead = """- {tf: instant_layer_normalization_1/gamma, torch: encoder_norm1.bias}
- {tf: instant_layer_normalization_1/beta, torch: encoder_norm1.weight}"""
    wrong = _mistaken(SAVED_MODEL, {row: instead}, tmp_path)
    recording = RECORDINGS / "dtln_saved_model.npz"

    with pytest.raises(MappingError) as raised:
        t2t.convert(wrong, tmp_path / "out.safetensors", checkpoint=_saved_model(), recording=recording)

    assert [problem.code for problem in raised.value.problems] == ["T2T501"]


def test_each_mapping_is_read_in_a_minute() -> None:
    assert lines(H5) <= 30
    assert lines(SAVED_MODEL) <= 30

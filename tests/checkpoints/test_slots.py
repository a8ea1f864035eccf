from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from t2t import checkpoints
from t2t.checkpoints.object_graph import ObjectGraph
from t2t.checkpoints.slots import with_slots
from t2t.tensors import TensorRef


def slots_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    marked = with_slots({name: TensorRef(name, "float32", shape) for name, shape in shapes.items()})

    assert list(marked) == list(shapes)
    return {name: ref.slot_of for name, ref in marked.items() if ref.slot_of is not None}


TF1 = [
    *("Adam", "Adam_1", "Momentum", "RMSProp", "RMSProp_1", "Adagrad"),
    *("Adadelta", "Adadelta_1", "Ftrl", "Ftrl_1", "adam_m", "adam_v"),
    *("RMSProp_2", "AdagradDA", "AdagradDA_1", "ProximalAdagrad", "LARSOptimizer", "lamb_m", "AdaMax_1", "AdamW"),
    *("Adafactor", "Adafactor_1"),
]


@pytest.mark.parametrize("slot", TF1)
def test_a_name_below_a_variable_of_the_same_shape_is_its_slot(slot: str) -> None:
    shapes = {"a/w": (2, 3), f"a/w/{slot}": (2, 3), f"b/w/{slot}": (2, 3), f"scope/a/w/{slot}": (2, 3)}

    # b/w is no variable, so b/w/Adam is one; behind "scope" stands a variable's whole name.
    assert slots_of(shapes) == {f"a/w/{slot}": "a/w", f"scope/a/w/{slot}": "a/w"}


def test_another_shape_is_no_slot() -> None:
    assert slots_of({"w": (2, 3), "w/Adam": (2,), "w/Adam_1": ()}) == {}


def test_an_average_is_no_slot() -> None:
    shapes = {"w": (2,), "w/ExponentialMovingAverage": (2,), "w/Adams": (2,), "global_step": (), "save_counter": ()}
    assert slots_of(shapes) == {}


def test_adafactors_slots_may_lack_an_axis() -> None:
    shapes = {
        "w": (2, 3),
        "w_slot_vr": (2,),
        "w_slot_vc": (3,),
        "w_slot_v": (2, 3),
        "w_slot_v2": (2, 3),
        "b_slot_v": (3,),
        "w/Adafactor": (2,),
        "w/Adafactor_1": (3,),
        "w/Adafactor_2": (4,),
        "w/Adam": (2,),
        "w/Adafactor_3": (),
        "s/a": (),
        "s/a_slot_v": (),
    }
    assert slots_of(shapes) == {
        **dict.fromkeys(["w_slot_vr", "w_slot_vc", "w_slot_v", "w/Adafactor", "w/Adafactor_1"], "w"),
        "s/a_slot_v": "s/a",
    }


def test_averages_belong_to_their_variable_and_are_no_slots() -> None:
    shapes = {
        "a/w": (2,),
        "a/w/ExponentialMovingAverage": (2,),
        "s/a/w/ExponentialMovingAverage_1": (2,),
        "a/w/ExponentialMovingAverages": (2,),
        "a/w/ExponentialMovingAverage_2": (3,),
        "b/average": (2,),
        "a/w/.OPTIMIZER_SLOT/optimizer/average": (2,),
        "ExponentialMovingAverage": (2,),
    }
    marked = with_slots({name: TensorRef(name, "float32", shape) for name, shape in shapes.items()})

    assert {name for name, ref in marked.items() if ref.slot_of is not None} == set()
    assert {name: ref.average_of for name, ref in marked.items() if ref.average_of is not None} == dict.fromkeys(
        [
            *("a/w/ExponentialMovingAverage", "s/a/w/ExponentialMovingAverage_1"),
            "a/w/.OPTIMIZER_SLOT/optimizer/average",
        ],
        "a/w",
    )


def test_what_the_object_graph_says_comes_first() -> None:
    names = ["w", "w/Adam", "x/.OPTIMIZER_SLOT/optimizer/m", "optimizer/_variables/2", "e", "gone"]
    refs = {name: TensorRef(name, "float32", (2,), key=f"{name}!") for name in names}
    graph = ObjectGraph(
        {},
        {"w/Adam!": "", "x/.OPTIMIZER_SLOT/optimizer/m!": "w!", "optimizer/_variables/2!": "w!", "gone!": "nothing"},
        {"e!": "w!"},
    )
    marked = with_slots(refs, graph)

    assert {name: (ref.slot_of, ref.average_of) for name, ref in marked.items()} == {
        "w": (None, None),
        "w/Adam": ("w", None),
        "x/.OPTIMIZER_SLOT/optimizer/m": ("w", None),
        "optimizer/_variables/2": ("w", None),
        "e": (None, "w"),
        "gone": ("", None),
    }


def test_counters_are_scalars() -> None:
    shapes = {
        **dict.fromkeys(["beta1_power", "beta2_power_1", "training/beta1_power"], ()),
        "beta2_power": (2,),
        "x_beta1_power": (),
    }
    assert slots_of(shapes) == {"beta1_power": "", "beta2_power_1": "", "training/beta1_power": ""}


def test_tf2_slots_and_the_hyperparameters_of_their_optimizer() -> None:
    shapes = {
        "model/w": (2,),
        "model/w/.OPTIMIZER_SLOT/opt/inner/m": (2,),
        "elsewhere/.OPTIMIZER_SLOT/opt/inner/v": (3,),
        **dict.fromkeys(["opt/inner/iter", "opt/inner/beta_1", "opt/iter", "model/decay", "optimizer/_iterations"], ()),
        "optimizer/_learning_rate": (),
        "optimizer/learning_rate": (1,),
        "opt/inner/loss_scale/good_steps": (),
        "loss_scale/good_steps": (),
    }
    assert slots_of(shapes) == {
        "model/w/.OPTIMIZER_SLOT/opt/inner/m": "model/w",
        "elsewhere/.OPTIMIZER_SLOT/opt/inner/v": "elsewhere",
        "opt/inner/iter": "",
        "opt/inner/beta_1": "",
        "optimizer/_iterations": "",
        "optimizer/_learning_rate": "",
        "opt/inner/loss_scale/good_steps": "",
    }


@pytest.mark.parametrize(
    "name", ["/" * 100_000 + "Adam", "/.OPTIMIZER_SLOT/" * 7_000, "a/beta1_power" * 8_000, "_slot_v" * 15_000]
)
def test_a_hostile_name_costs_no_time(name: str) -> None:
    slots_of({name: ()})


#: Of the variables of real checkpoints, how many are slots and counters; counted by hand in the names.
REAL = {
    "madry/checkpoint-700": (27, 18),
    "fsrcnn/Saafke+FSRCNN_Tensorflow/CKPT_dir/x2": (71, 48),
    "toy-transformers/CyberZHG+keras-bert/test_checkpoint/bert_model.ckpt": (139, 92),
    "t2t-transformer/tensorflow+tensor2tensor/transformer_test_ckpt": (250, 164),
    "tf-testdata/keras-team+tf-keras/lso_ckpt_tf2.2": (10, 8),
    "mlperf-tiny/mlcommons+tiny/keyword_spotting/trained_models/kws_ref_model": (141, 81),
    "ffn-fib25/google+ffn/models/fib25/model.ckpt-27465036": (54, 0),
}


@pytest.mark.parametrize(("path", "counts"), REAL.items())
def test_the_slots_of_real_checkpoints_are_found(shared_data: Path, path: str, counts: tuple[int, int]) -> None:
    with checkpoints.open(shared_data / path) as checkpoint:
        refs = checkpoint.inventory.variables.values()

    assert (len(refs), sum(ref.slot_of is not None for ref in refs)) == counts

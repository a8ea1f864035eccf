"""
Layers for a faithful twin: what TensorFlow computes under a name that torch has too, and computes otherwise.

They take torch's layouts (NCHW, OIHW), their state_dict has the names of torch's own layers, and they need nothing but
torch. docs/nn.md lists them beside the TensorFlow layers that they twin, and says what torch's own would do.
"""

from t2t.nn.activations import HardSigmoidKeras2, HardSigmoidKeras3, hard_sigmoid_keras2, hard_sigmoid_keras3
from t2t.nn.depth import DepthToSpace, SpaceToDepth
from t2t.nn.normalization import BatchNorm1d, BatchNorm2d, BatchNorm3d
from t2t.nn.recurrent import GRU, LSTM, GRUCell, LSTMCell
from t2t.nn.same import (
    AvgPool1dSame,
    AvgPool2dSame,
    Conv1dSame,
    Conv2dSame,
    Conv3dSame,
    ConvTranspose1dSame,
    ConvTranspose2dSame,
    ConvTranspose3dSame,
    MaxPool1dSame,
    MaxPool2dSame,
    same_padding,
)

__all__ = [
    "GRU",
    "LSTM",
    "AvgPool1dSame",
    "AvgPool2dSame",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Conv1dSame",
    "Conv2dSame",
    "Conv3dSame",
    "ConvTranspose1dSame",
    "ConvTranspose2dSame",
    "ConvTranspose3dSame",
    "DepthToSpace",
    "GRUCell",
    "HardSigmoidKeras2",
    "HardSigmoidKeras3",
    "LSTMCell",
    "MaxPool1dSame",
    "MaxPool2dSame",
    "SpaceToDepth",
    "hard_sigmoid_keras2",
    "hard_sigmoid_keras3",
    "same_padding",
]

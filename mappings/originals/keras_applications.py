"""
Models of keras.applications with weights from a file, up to their logits.

A published .h5 has weights and no model, so the program that builds the model is the original. Weights go by their
order in the file, as Keras itself loads them. Inputs `image` [n, h, w, 3] of the published size, as the model's own
preprocess_input gives them; output `logits` [n, 1000].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

Run = Callable[[dict[str, Any]], dict[str, Any]]


def resnet50(checkpoint: str) -> Run:
    """ResNet50."""
    import keras  # type: ignore[import-untyped]

    return _run(keras.applications.ResNet50(weights=checkpoint, classifier_activation=None))


def inception_v3(checkpoint: str) -> Run:
    """InceptionV3."""
    import keras

    return _run(keras.applications.InceptionV3(weights=checkpoint, classifier_activation=None))


def efficientnet_b0(checkpoint: str) -> Run:
    """
    EfficientNetB0 as weights="imagenet" builds it: no other choice has the factors that the published weights need.

    That choice would download; here it is given the file instead.
    """
    from keras.src.applications import efficientnet  # type: ignore[import-untyped]

    with mock.patch.object(efficientnet.file_utils, "get_file", return_value=checkpoint):
        return _run(efficientnet.EfficientNetB0(weights="imagenet", classifier_activation=None))


def _run(model: Any) -> Run:
    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"logits": model(inputs["image"], training=False).numpy()}

    return run

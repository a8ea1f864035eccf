"""
Batch normalization with TensorFlow's defaults, which differ from torch's in every number.

                                  epsilon   of the new batch in the running averages      running variance
    torch                         1e-5      0.1                                           n / (n - 1) x the batch's
    Keras, tf.layers              1e-3      0.01 (`momentum` 0.99: what stays)            see below
    TF-Slim                       1e-3      0.001 (`decay` 0.999: what stays)             see below

`momentum` here is torch's, the share of the new batch: 1 - TensorFlow's. Models often set their own epsilon and decay;
neither is in a checkpoint.

Both normalize a training batch by its biased variance. Into the running variance goes that same one in Keras 3, and in
Keras 2 and TF1 where the operation is not the fused one (inputs of rank 2 and 3, masks, renorm). n / (n - 1) times it
goes there in the fused operation, which Keras 2, tf.layers and TF-Slim take for images. `biased` says which of the two;
it changes nothing in eval().

Sources: keras/src/layers/normalization/batch_normalization.py, the same file of tf_keras (its fused variance keeps the
correction unless `_bessels_correction_test_only` is unset), tf.compat.v1.nn.fused_batch_norm in nn_impl.py.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Comes before torch's own class among the bases, which checks the rank."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-3,
        momentum: float | None = 0.01,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        biased: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        self.biased = biased

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.running_var is None or not self.biased:
            return super().forward(x)
        self._check_input_dim(x)  # type: ignore[no-untyped-call]
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        # torch updates a copy: what it writes to, the backward pass wants as it was left.
        updated = self.running_var.clone()
        y = F.batch_norm(x, self.running_mean, updated, self.weight, self.bias, True, share, self.eps)
        n = x.numel() // x.shape[1]
        with torch.no_grad():
            kept = (1 - share) * self.running_var
            self.running_var.copy_(kept + (updated - kept) * ((n - 1) / n))
        return y

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, biased={self.biased}"  # type: ignore[no-untyped-call]


class BatchNorm1d(_BatchNorm, nn.BatchNorm1d):
    """
    BatchNormalization over the last axis of [n, c] or [n, t, c]: here [n, c] or [n, c, t].

    y = (x - mean) / sqrt(variance + eps) * weight + bias.

    torch.nn.BatchNorm1d's constructor and state_dict, and `biased`.
    """


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    """
    BatchNormalization over the last axis of [n, h, w, c]: here [n, c, h, w].

    y = (x - mean) / sqrt(variance + eps) * weight + bias.

    torch.nn.BatchNorm2d's constructor and state_dict, and `biased`: False where torch goes on with a training that
    TF1 or Keras 2 began.
    """


class BatchNorm3d(_BatchNorm, nn.BatchNorm3d):
    """
    BatchNormalization over the last axis of [n, d, h, w, c]: here [n, c, d, h, w].

    y = (x - mean) / sqrt(variance + eps) * weight + bias.

    torch.nn.BatchNorm3d's constructor and state_dict, and `biased`.
    """

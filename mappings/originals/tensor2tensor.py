"""
Tensor2Tensor's transformer in plain TensorFlow operations. A reimplementation, not the original.

The checkpoint was published without its graph, and its library does not run on any TensorFlow that can still be
installed. This follows the published description: hparams.json beside the checkpoint, and the library's documented
definitions of its layers. It reads every variable by the checkpoint's own name, computes in TensorFlow's own layouts
and shares no code with the torch twin. What it proves is that the weights arrived where the description says that they
belong; it cannot prove that the library computed just this. Dropout and label smoothing, which only train, are left
out; so is the removal of padding before the encoder's dense layers, which changes nothing that is not masked later.
"""

from __future__ import annotations

from typing import Any

from mappings.originals.graph import Run

HIDDEN, HEADS, LAYERS, PARTS, EPSILON = 16, 2, 2, 16, 1e-6

#: What masks an attention's logit.
FAR = -1e9


def original(checkpoint: str) -> Run:
    """
    The model of `checkpoint`, a prefix.

    Inputs: int32 tokens `inputs` [n, l] and `targets` [n, t], and `space`, the number of the targets' space []. Output:
    `logits` [n, t, 8190].
    """
    import numpy as np
    import tensorflow as tf

    stored = tf.train.load_checkpoint(checkpoint)

    def variable(name: str) -> Any:
        return tf.constant(stored.get_tensor(f"transformer/{name}"))

    def norm(x: Any, scope: str) -> Any:
        mean = tf.reduce_mean(x, -1, keepdims=True)
        variance = tf.reduce_mean(tf.square(x - mean), -1, keepdims=True)
        scope = f"{scope}/layer_prepostprocess/layer_norm"
        normalized = (x - mean) * tf.math.rsqrt(variance + EPSILON)
        return normalized * variable(f"{scope}/layer_norm_scale") + variable(f"{scope}/layer_norm_bias")

    def attention(x: Any, memory: Any, bias: Any, scope: str) -> Any:
        def heads(y: Any, which: str) -> Any:
            y = tf.tensordot(y, variable(f"{scope}/multihead_attention/{which}/kernel"), 1)
            return tf.transpose(tf.reshape(y, [*y.shape[:2], HEADS, HIDDEN // HEADS]), [0, 2, 1, 3])

        q = heads(x, "q") * (HIDDEN // HEADS) ** -0.5
        weights = tf.nn.softmax(tf.matmul(q, heads(memory, "k"), transpose_b=True) + bias)
        y = tf.reshape(tf.transpose(tf.matmul(weights, heads(memory, "v")), [0, 2, 1, 3]), x.shape)
        return tf.tensordot(y, variable(f"{scope}/multihead_attention/output_transform/kernel"), 1)

    def dense(x: Any, scope: str) -> Any:
        return tf.tensordot(x, variable(f"{scope}/kernel"), 1) + variable(f"{scope}/bias")

    def stack(x: Any, bias: Any, scope: str, encoded: Any = None, encoded_bias: Any = None) -> Any:
        x += timing(x.shape[1])
        for i in range(LAYERS):
            layer = f"{scope}/layer_{i}"
            y = norm(x, f"{layer}/self_attention")
            x += attention(y, y, bias, f"{layer}/self_attention")
            if encoded is not None:
                y = norm(x, f"{layer}/encdec_attention")
                x += attention(y, encoded, encoded_bias, f"{layer}/encdec_attention")
            y = norm(x, f"{layer}/ffn")
            x += dense(tf.nn.relu(dense(y, f"{layer}/ffn/conv1")), f"{layer}/ffn/conv2")
        return norm(x, scope)

    def timing(length: int) -> Any:
        channels = HIDDEN // 2
        scales = 10000.0 ** -(np.arange(channels) / (channels - 1))
        angles = np.outer(np.arange(length), scales)
        return np.concatenate([np.sin(angles), np.cos(angles)], 1).astype(np.float32)

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        words = tf.concat([variable(f"symbol_modality_8190_16/shared/weights_{k}") for k in range(PARTS)], 0)

        def embedded(tokens: Any) -> Any:
            is_word = tf.cast(tf.not_equal(tokens, 0), tf.float32)
            return tf.gather(words, tokens) * HIDDEN**0.5 * is_word[:, :, None]

        source = embedded(inputs["inputs"])
        is_padding = tf.cast(tf.equal(tf.reduce_sum(tf.abs(source), -1), 0), tf.float32)
        ignored = is_padding[:, None, None, :] * FAR
        source += tf.gather(variable("body/target_space_embedding/kernel"), inputs["space"])
        encoded = stack(source, ignored, "body/encoder")

        target = embedded(inputs["targets"])
        shifted = tf.pad(target, [[0, 0], [1, 0], [0, 0]])[:, :-1]
        later = (1 - tf.linalg.band_part(tf.ones([target.shape[1]] * 2), -1, 0)) * FAR
        decoded = stack(shifted, later, "body/decoder", encoded, ignored)
        return {"logits": tf.tensordot(decoded, words, [[2], [1]]).numpy()}

    return run

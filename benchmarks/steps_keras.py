"""Training steps in Keras for the networks of `steps.py`; reads step counts from stdin.

`steps.py` runs this file in an environment with TensorFlow. striate is not imported.
"""

from __future__ import annotations

import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow as tf
from keras import layers

Sequence = list


def notes(widths: tuple[int, ...], dropout: float, dense: int) -> Sequence:
    """Return the layers of `tutorial_gray` and `tutorial_color`."""
    made: Sequence = []
    for width in widths:
        made += [layers.Conv2D(width, 3, padding="same", activation="relu")]
        made += [layers.MaxPooling2D()]
        made += [layers.Dropout(dropout)] if dropout else []
    made += [layers.Flatten()]
    if dense:
        made += [layers.Dense(dense, activation="relu"), layers.Dropout(0.5)]
    return [*made, layers.Dense(10)]


def lenet() -> Sequence:
    """Return the layers of LeNet-5 with ReLU and max pooling."""
    return [
        layers.Conv2D(6, 5, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(16, 5, activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(120, activation="relu"),
        layers.Dense(84, activation="relu"),
        layers.Dense(10),
    ]


def _conv(x, width: int, side: int, stride: int):
    x = layers.Conv2D(width, side, stride, padding="same", use_bias=False)(x)
    return layers.BatchNormalization()(x)


def _block(x, width: int, stride: int, project: bool):
    y = layers.ReLU()(_conv(x, width, 3, stride))
    y = _conv(y, width, 3, 1)
    if stride > 1 or x.shape[-1] != width:
        if project:
            x = _conv(x, width, 1, stride)
        else:
            added = width - x.shape[-1]
            x = x[:, ::stride, ::stride]
            x = keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, added)))
    return layers.ReLU()(x + y)


def resnet(inputs, widths: tuple[int, ...], count: int, imagenet: bool):
    """Return the output of a ResNet with blocks of two convolutions."""
    x = layers.ReLU()(_conv(inputs, widths[0], *((7, 2) if imagenet else (3, 1))))
    if imagenet:
        x = layers.MaxPooling2D(3, 2, padding="same")(x)
    for stage, width in enumerate(widths):
        for number in range(count):
            x = _block(x, width, 2 if stage and not number else 1, imagenet)
    return layers.Dense(10)(layers.GlobalAveragePooling2D()(x))


def build(name: str, channels: int, side: int) -> keras.Model:
    """Return a compiled Keras model by name."""
    inputs = keras.Input((side, side, channels))
    if name == "cifar_resnet20":
        outputs = resnet(inputs, (16, 32, 64), 3, imagenet=False)
    elif name == "resnet18":
        outputs = resnet(inputs, (64, 128, 256, 512), 2, imagenet=True)
    else:
        chains = {
            "tutorial_gray": lambda: notes((25, 50), 0.0, 0),
            "tutorial_color": lambda: notes((36, 72, 144), 0.25, 576),
            "lenet5_modern": lenet,
        }
        outputs = inputs
        for layer in chains[name]():
            outputs = layer(outputs)
    model = keras.Model(inputs, outputs)
    cost = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.AdamW(1e-4), loss=cost)
    return model


def main() -> None:
    """For each number on stdin, run that many steps and print the seconds."""
    name, (channels, side, batch, threads) = sys.argv[1], map(int, sys.argv[2:])
    tf.config.threading.set_intra_op_parallelizm_threads(threads)
    tf.config.threading.set_inter_op_parallelizm_threads(1)
    model = build(name, channels, side)
    draw = np.random.default_rng(0)

    def steps(count: int) -> float:
        x = draw.standard_normal((count * batch, side, side, channels), np.float32)
        y = np.arange(count * batch) % 10
        start = time.perf_counter()
        model.fit(x, y, batch_size=batch, verbose=0)
        return time.perf_counter() - start

    steps(3)
    print("ready", flush=True)
    for line in sys.stdin:
        print(steps(int(line)), flush=True)


if __name__ == "__main__":
    main()

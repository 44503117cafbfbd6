"""`tutorial_gray` in Keras, in the style of Keras examples: `fit` with validation.

Run in an environment with tensorflow-cpu and keras (see `make bench-time`):
`python peers_keras.py FOLDER SEED EPOCHS BATCH` prints the test accuracy of each epoch.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from idx import fashion

FOLDER, SEED, EPOCHS, BATCH = sys.argv[1], *map(int, sys.argv[2:5])


class Say(keras.callbacks.Callback):
    """Keras callback that prints the test accuracy after each epoch."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Print the test accuracy for the parent process, which measures the time."""
        print(f"accuracy {logs['val_accuracy']:.5f}", flush=True)


keras.utils.set_random_seed(SEED)
(x, y), (test_x, test_y) = fashion(FOLDER)
layers = keras.layers
model = keras.Sequential(
    [
        layers.Input((28, 28, 1)),
        layers.Conv2D(25, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(50, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(10, activation="softmax"),
    ]
)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(
    x[..., None] / 255.0,
    y,
    batch_size=BATCH,
    epochs=EPOCHS,
    validation_data=(test_x[..., None] / 255.0, test_y),
    callbacks=[Say()],
    verbose=0,
)

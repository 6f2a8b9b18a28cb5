"""Keras, on the backend that KERAS_BACKEND names: its fit on arrays in memory, with its own preprocessing layers.

Its RandomCrop cuts a whole batch at one place, which is less work than the others do. Layout, precision and compilation
are Keras's defaults.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from keras import layers

from peers.arrays import read_arrays
from peers.task import DEVIATION, MEAN, PADDING_PX, SIDE_PX, Clock, read_task


def build(name: str) -> keras.Sequential:
    if name == "lab-c":
        parts = []
        for filters in (32, 64, 64):
            parts += [layers.Conv2D(filters, 5, padding="same", activation="relu"), layers.MaxPooling2D(2)]
        parts += [layers.Flatten(), layers.Dense(1000, activation="relu"), layers.Dense(10)]
    else:
        assert name == "lab-a-bn", name
        parts = []
        for filters in (128, 512, 512, 512, 512):
            # With PyTorch's momentum and epsilon.
            normalization = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
            parts += [layers.Conv2D(filters, 3, padding="same"), normalization, layers.MaxPooling2D(2), layers.ReLU()]
        parts += [layers.Flatten(), layers.Dense(10)]
    return keras.Sequential([keras.Input((SIDE_PX, SIDE_PX, 3)), *parts])


def build_from(name: str, start: str) -> tuple[keras.Sequential, float]:
    """The network with PyTorch's weights, and how far its logits are from those that PyTorch computes with them."""
    network, kept = build(name), np.load(start)
    weights = [kept[f"weight_{number}"] for number in range(len(network.trainable_variables))]
    map_shape = next(layer for layer in network.layers if isinstance(layer, layers.Flatten)).input.shape[1:]
    was_map = True
    for variable, weight in zip(network.trainable_variables, weights, strict=True):
        if weight.ndim == 4:
            weight = weight.transpose(2, 3, 1, 0)
        elif weight.ndim == 2:
            if was_map:
                # Flattened by channels in PyTorch, by pixels here.
                height, width, channels = map_shape
                weight = weight.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(len(weight), -1)
                was_map = False
            weight = weight.T
        variable.assign(weight)
    logits = keras.ops.convert_to_numpy(network(kept["images"].transpose(0, 2, 3, 1), training=False))
    return network, float(np.abs(logits - kept["logits"]).max())


class Classifier(keras.Model):
    """The network behind preprocessing layers; those that augment only where it trains."""

    def __init__(self, network: keras.Sequential) -> None:
        super().__init__()
        self.augment = keras.Sequential(
            [layers.ZeroPadding2D(PADDING_PX), layers.RandomCrop(SIDE_PX, SIDE_PX), layers.RandomFlip("horizontal")]
        )
        scales = [1 / (255 * deviation) for deviation in DEVIATION]
        offsets = [-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)]
        self.standardize = layers.Rescaling(scales, offsets)
        self.network = network

    def call(self, images, training=False):
        images = keras.ops.cast(images, "float32")
        if training:
            images = self.augment(images, training=True)
        return self.network(self.standardize(images), training=training)


class Timed(keras.callbacks.Callback):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def on_train_batch_end(self, batch, logs=None):
        if self.clock.num_done + 1 in (self.clock.task.warmup_steps, self.clock.task.num_steps):
            # JAX answers before it has computed.
            float(logs["loss"])
        self.clock.step_done()


def main() -> None:
    task = read_task()
    keras.utils.set_random_seed(task.seed)
    network, difference = build_from(task.network, task.start)
    model = Classifier(network)
    model.compile(
        optimizer=keras.optimizers.SGD(task.learning_rate, momentum=task.momentum),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    images, labels = read_arrays(Path(task.folder))
    clock = Clock(task)
    history = model.fit(images, labels, batch_size=task.batch_size, epochs=1, verbose=0, callbacks=[Timed(clock)])
    versions = {"keras": keras.__version__}
    if keras.backend.backend() == "jax":
        import jax

        versions["jax"] = jax.__version__
    clock.report(history.history["loss"][0], logits_difference=difference, versions=versions)


if __name__ == "__main__":
    main()

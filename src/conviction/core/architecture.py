"""What is known of a network before it is trained, as plain records: sizes, weights, computations, fields, memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Exactness = Literal["EXACT", "UPPER BOUND", "UNKNOWN"]
CONVENTION = (
    "One multiply-accumulate (MAC) is one multiplication and one addition. Convolutions, linear layers and matrix "
    "products count; biases, normalisations, activations, poolings and other operations element by element do not."
)


@dataclass(frozen=True)
class ReceptiveField:
    """The part of the picture that one position of a layer's output depends on, height before width.

    `size_px` goes beyond the picture where the field does; `start_px` is the centre of the first position's field,
    measured from the picture's upper left corner, so that the first pixel's own centre lies at 0.5. `stride_px` is how
    far the field moves from one position to the next, also called jump; None where every position sees the same. A
    centre is None where the first position sees nothing.
    """

    size_px: tuple[int, int] | None
    stride_px: tuple[float | None, float | None] | None
    start_px: tuple[float | None, float | None] | None
    status: Exactness

    def as_json(self) -> dict[str, Any]:
        """One number where both sides agree, else a list of two."""
        return {
            "size": _one_or_both(self.size_px),
            "stride": _one_or_both(self.stride_px),
            "start": _one_or_both(self.start_px),
            "status": self.status,
        }


# What stands for the picture among a layer's inputs.
PICTURE_NAME = "input"
UNKNOWN_FIELD = ReceptiveField(None, None, None, "UNKNOWN")


def _one_or_both(pair: tuple[Any, Any] | None) -> Any:
    if pair is None:
        return None
    return pair[0] if pair[0] == pair[1] else list(pair)


@dataclass(frozen=True)
class LayerRecord:
    """One layer, in the order of computation. Sizes and counts are for a single picture.

    `formula` says how the parameters are counted, in letters and in numbers; `dense_parameters` are those of a fully
    connected layer between the same input and output, None where that means nothing; `inputs` are the layers whose
    results it computes with, by name, `input` for the picture itself.
    """

    name: str
    kind: str
    output: tuple[int, ...] | None
    parameters: int
    trainable_parameters: int
    macs: int
    receptive_field: ReceptiveField
    formula: str = ""
    activation_bytes: int = 0
    dense_parameters: int | None = None
    note: str = ""
    inputs: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The fixed fields, and some more."""
        return {
            "name": self.name,
            "kind": self.kind,
            "output": None if self.output is None else list(self.output),
            "parameters": self.parameters,
            "macs": self.macs,
            "receptive_field": self.receptive_field.as_json(),
            "trainable_parameters": self.trainable_parameters,
            "formula": self.formula,
            "activation_bytes": self.activation_bytes,
            "dense_parameters": self.dense_parameters,
            "note": self.note,
            "inputs": list(self.inputs),
        }


@dataclass(frozen=True)
class MemoryEstimate:
    """The memory of a batch, in bytes, without what torch itself and the pictures on disk take.

    A training step holds weights, gradients, what the optimiser remembers, and what the backward pass needs of the
    forward pass; inference holds weights and the largest set of maps that are needed at one time. `optimizer` names
    the one that is counted.
    """

    batch_size: int
    precision: str
    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    saved_bytes: int
    inference_peak_bytes: int
    optimizer: str = "SGD with momentum"

    @property
    def training_bytes(self) -> int:
        """All that one step of training holds at its fullest."""
        return self.weights_bytes + self.gradients_bytes + self.optimizer_bytes + self.saved_bytes

    @property
    def inference_bytes(self) -> int:
        """All that predicting one batch holds at its fullest."""
        return self.weights_bytes + self.inference_peak_bytes

    def as_json(self) -> dict[str, Any]:
        """Every part and both sums."""
        return {
            "batch_size": self.batch_size,
            "precision": self.precision,
            "training_bytes": self.training_bytes,
            "inference_bytes": self.inference_bytes,
            "weights_bytes": self.weights_bytes,
            "gradients_bytes": self.gradients_bytes,
            "optimizer": self.optimizer,
            "optimizer_bytes": self.optimizer_bytes,
            "saved_bytes": self.saved_bytes,
            "inference_peak_bytes": self.inference_peak_bytes,
        }


@dataclass(frozen=True)
class Architecture:
    """A network for pictures of `input` (C, H, W)."""

    name: str
    input: tuple[int, int, int]
    layers: tuple[LayerRecord, ...]
    memory: MemoryEstimate | None = None
    num_training_pictures: int | None = None
    notes: tuple[str, ...] = field(default=())
    # Whether every layer could be followed to the end.
    is_complete: bool = True

    @property
    def parameters(self) -> int:
        """All numbers that training can change, and those that are frozen."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def trainable_parameters(self) -> int:
        """The numbers that training can change."""
        return sum(layer.trainable_parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one picture."""
        return sum(layer.macs for layer in self.layers)

    def as_json(self) -> dict[str, Any]:
        """The fixed fields, and some more."""
        pictures = self.num_training_pictures
        return {
            "input": list(self.input),
            "parameters": self.parameters,
            "trainable_parameters": self.trainable_parameters,
            "macs": self.macs,
            "layers": [layer.as_json() for layer in self.layers],
            "name": self.name,
            "is_complete": self.is_complete,
            "memory": self.memory and self.memory.as_json(),
            "num_training_pictures": pictures,
            "parameters_per_training_picture": self.parameters / pictures if pictures else None,
            "convention": CONVENTION,
            "notes": list(self.notes),
        }

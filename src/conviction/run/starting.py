"""What a training starts from: a network, drawn, read from a file or from a checkpoint, and all that trains it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn

from conviction.core import rng
from conviction.core.errors import DataError
from conviction.data.stream import Share
from conviction.fit.checkpoint import load_checkpoint_weights
from conviction.fit.distributed import SharedTrainer
from conviction.fit.lookahead import Lookahead
from conviction.fit.loop import Trainer
from conviction.fit.loss import build_loss
from conviction.fit.optimizer import build_optimizer
from conviction.fit.progressive import check_sizes
from conviction.fit.schedule import Span, build_schedule
from conviction.fit.watcher import Watcher
from conviction.nets import build_network, load_starting_weights
from conviction.nets.dropout import with_bit_dropout
from conviction.nets.initialization import initialize_from_images, needs_images
from conviction.nets.pooled_relu import with_pooled_relu
from conviction.nets.starting_weights import weights_digest
from conviction.run.prepared import Prepared
from conviction.run.recipe import Recipe, load_recipe


def with_weights_digest(recipe: Recipe) -> Recipe:
    """The recipe with the SHA-256 of its file of weights, so that the file of a later day can be told from it.

    Raises: DataError where the file cannot be read.
    """
    if recipe.network.weights is None or recipe.network.weights_sha256 is not None:
        return recipe
    return load_recipe(recipe, {"network.weights_sha256": weights_digest(recipe.network.weights)})


def network_to_begin_with(prepared: Prepared, watcher: Watcher) -> nn.Module:
    """The network as the seed draws it, then filled from the recipe's file of weights where it names one.

    Raises: ConfigError where network and pictures do not fit; DataError where the weights do not.
    """
    network = drawn_network(prepared)
    if needs_images(network):
        initialize_from_images(network, prepared.sample_of_training())
    for note in load_starting_weights(prepared.recipe.network, network):
        watcher.note(note)
    return _placed(network, prepared)


def network_of_checkpoint(prepared: Prepared, checkpoint: Path, watcher: Watcher) -> nn.Module:
    """The network with the weights of a checkpoint; the file that it began with is not needed any more.

    Raises: RunError where the checkpoint is damaged.
    """
    network = drawn_network(prepared)
    load_checkpoint_weights(checkpoint, network)
    wanted = prepared.recipe.network
    if wanted.weights is not None and wanted.weights_sha256 is not None:
        try:
            changed = weights_digest(wanted.weights) != wanted.weights_sha256
        except DataError:
            changed = False
        if changed:
            watcher.note(f"{wanted.weights} changed since this run began, which goes on with its own weights.")
    return _placed(network, prepared)


def drawn_network(prepared: Prepared) -> nn.Module:
    """The network as the seed draws it, before pictures or files say anything of its weights. Raises: ConfigError."""
    recipe = prepared.recipe
    with rng.torch_default(recipe.seed, "initialisation"):
        network = build_network(recipe.network, prepared.input_shape, len(prepared.pack.classes))
    return with_pooled_relu(with_bit_dropout(network))


def _placed(network: nn.Module, prepared: Prepared) -> nn.Module:
    machine = prepared.machine
    return network.to(memory_format=machine.torch_memory_format).to(machine.device)


def build_trainer(
    prepared: Prepared,
    network: nn.Module | None = None,
    share: Share | None = None,
    note: Callable[[str], None] = lambda text: None,
    on_device: bool = False,
) -> Trainer:
    """The network, by default as the seed draws it, with the recipe's optimiser, schedule and pictures.

    With a share, for one of several processes. `note` hears where what was to be compiled is not. `on_device` copies
    the pictures to a GPU that has room for them, once and for all steps.
    """
    recipe, machine = prepared.recipe, prepared.machine
    network = network or _placed(drawn_network(prepared), prepared)
    check_sizes(network, prepared.input_shape, recipe.fit.progressive_sizes)
    training_stream = replace(prepared.training_stream(), share=share)
    validation_stream = prepared.stream(prepared.splits.validation)
    span = Span(recipe.fit.epochs, training_stream.num_batches)
    lookahead = recipe.optimizer.lookahead
    kind = SharedTrainer if share else Trainer
    return kind(
        network=network,
        optimizer=build_optimizer(recipe.optimizer, network, machine.precision),
        schedule=build_schedule(recipe.schedule, span),
        loss=build_loss(recipe.loss),
        train=prepared.on_device(training_stream) if on_device else training_stream,
        validation=prepared.on_device(validation_stream) if on_device else validation_stream,
        seed=recipe.seed,
        precision=machine.precision,
        gradient_clip_norm=recipe.fit.gradient_clip_norm,
        measure_train_fixed=recipe.fit.measure_train_fixed,
        progressive_sizes=recipe.fit.progressive_sizes,
        lookahead=Lookahead(lookahead, network, span.num_steps) if lookahead else None,
        # How several processes share layers and average gradients cannot be compiled with them.
        compile="none" if share else machine.compile,
        note=note,
    )

"""Recipes, files and overrides that break a rule."""

from __future__ import annotations

from pathlib import Path

from bad_input.case import Arguments, case, command_case, digits_with, photos, recipe_file, two_classes

command_case("Recipe", "unknown recipe", "unknown_name", ("digts", "Did you mean 'digits'?"), "train", "digts")
command_case("Recipe", "recipe file that is not there", "config", ("Cannot read",), "train", "nowhere/mine.yaml")
command_case("Recipe", "unknown key", "config", ("fit.epoch", "Did you mean 'epochs'?"), *digits_with("fit.epoch=3"))
command_case(
    "Recipe",
    "unknown key inside a choice",
    "config",
    ("optimizer.beta3: unknown key", "Did you mean 'beta"),
    *digits_with("optimizer.beta3=0.9"),
)
command_case(
    "Recipe", "wrong type", "config", ("fit.epochs", "whole number", "'many'"), *digits_with("fit.epochs=many")
)
command_case("Recipe", "value out of range", "config", ("fit.batch_size", "got 0"), *digits_with("fit.batch_size=0"))
command_case(
    "Recipe",
    "several faults at once",
    "config",
    ("2 faults", "fit.epochs", "seed"),
    *digits_with("fit.epochs=0", "seed=-1"),
)
command_case(
    "Recipe",
    "unknown network",
    "unknown_name",
    ("alexnt", "Did you mean 'alexnet-cifar10'?"),
    *digits_with("network=alexnt"),
)
command_case(
    "Recipe", "unknown optimiser", "config", ("optimizer", "sdg", "Did you mean 'sgd'?"), *digits_with("optimizer=sdg")
)
command_case(
    "Recipe", "unknown schedule", "config", ("schedule", "Did you mean 'cosine'?"), *digits_with("schedule=cosin")
)
command_case(
    "Recipe",
    "whitening behind another block",
    "config",
    ("nothing may come before it", "blocks.1"),
    *digits_with("network.blocks.1.initialization=whitening"),
)
command_case(
    "Recipe",
    "more whitening filters than there are directions",
    "config",
    ("network.blocks.0", "at most 18 filters", "filters=32"),
    *digits_with("network.blocks.0.initialization=whitening"),
)
command_case(
    "Recipe",
    "whitening of patches larger than the pictures",
    "config",
    ("network.blocks.0", "kernel_px <= 8", "8×8 pixels", "kernel_px=9"),
    *digits_with("network.blocks.0.initialization=whitening", "network.blocks.0.kernel_px=9"),
)
command_case(
    "Recipe",
    "odd number of whitening filters",
    "config",
    ("even number of filters", "filters=9"),
    *digits_with("network.blocks.0.initialization=whitening", "network.blocks.0.filters=9"),
)
command_case(
    "Recipe",
    "identity of an even kernel",
    "config",
    ("dirac` needs an odd kernel", "kernel_px=2"),
    *digits_with("network.blocks.1.initialization=dirac", "network.blocks.1.kernel_px=2"),
)
command_case(
    "Recipe",
    "epochs of a bias that is not there",
    "config",
    ("`bias_epochs` needs `bias: true`", "bias_epochs=3"),
    *digits_with("network.blocks.0.bias=false", "network.blocks.0.bias_epochs=3"),
)
command_case(
    "Recipe",
    "setting of a normalisation that is not there",
    "config",
    ("`normalization_momentum` is a setting of", "normalization='layer'"),
    *digits_with("network.blocks.0.normalization=layer", "network.blocks.0.normalization_momentum=0.4"),
)
command_case(
    "Recipe",
    "Lookahead that never moves",
    "config",
    ("optimizer.lookahead.decay", "got 1"),
    *digits_with("optimizer.lookahead.decay=1"),
)
command_case(
    "Recipe",
    "unknown rate adjustment",
    "config",
    ("optimizer.rate_adjustment", "match_rms_adamw"),
    *digits_with("optimizer=muon", "optimizer.rate_adjustment=adamw"),
)
command_case(
    "Recipe",
    "unknown augmentation",
    "config",
    ("augment.0", "Did you mean 'horizontal_flip'?"),
    *digits_with("augment=[horizontal_flp]"),
)
command_case(
    "Recipe",
    "unknown transform of torchvision",
    "config",
    ("augment.0", "Did you mean 'RandomPosterize'?"),
    *digits_with("augment=[{name: torchvision, transform: RandomPosterise, options: {bits: 3}}]"),
)
command_case(
    "Recipe",
    "transform of torchvision that makes no sense",
    "config",
    ("augment.0", "take `mixup`"),
    *digits_with("augment=[{name: torchvision, transform: MixUp}]"),
)
command_case(
    "Recipe",
    "augmentation on the command line without a value",
    "config",
    ("NAME:KEY=VALUE", "'rotate:degrees'"),
    *("data", "preview", "digits", "--augment", "rotate:degrees"),
)
command_case(
    "Recipe",
    "setting of an augmentation given twice",
    "config",
    ("written once", "'padding_px' again"),
    *("data", "preview", "digits", "--augment", "random_crop:padding_px=2,padding_px=1"),
)
command_case(
    "Recipe",
    "augmentation of colours for grey pictures",
    "config",
    ("hue needs pictures in colour", "`data.color: rgb`"),
    *digits_with("augment=[hue]"),
)
command_case(
    "Recipe",
    "cutout as large as the pictures",
    "config",
    ("`size_px < 8`", "got size_px=8"),
    *digits_with("augment=[cutout]"),
)
command_case(
    "Recipe",
    "range of an augmentation the wrong way round",
    "config",
    ("augment.0.degrees: of a range [low, high] `low <= high` must hold", "got 30.0 and -10.0"),
    *digits_with("augment=[{name: rotate, degrees: [30, -10]}]"),
)
command_case(
    "Recipe",
    "range of an augmentation that changes nothing",
    "config",
    ("augment.0.strength: a range of 1 alone would leave every picture as it is",),
    *digits_with("augment=[{name: brightness, strength: [1, 1]}]"),
)
command_case(
    "Recipe",
    "end of an augmentation's range out of bounds",
    "config",
    ("augment.0.bits.1: must be at most 7, but got 8.",),
    *digits_with("augment=[{name: posterize, bits: [4, 8]}]"),
)
command_case(
    "Recipe",
    "random erasing that fits into no picture",
    "config",
    ("fits into 8×8", "Lower `smallest_area`"),
    *digits_with("augment=[{name: random_erasing, smallest_area: 0.95, largest_area: 0.97}]"),
)
command_case("Recipe", "unknown data source", "config", ("data", "Did you mean 'mnist'?"), *digits_with("data=mnst"))
command_case("Recipe", "override without a value", "config", ("KEY=VALUE", "fit.epochs"), *digits_with("fit.epochs"))
command_case(
    "Recipe",
    "override through a number",
    "config",
    ("fit.epochs.x", "a number"),
    *digits_with("fit.epochs=3", "fit.epochs.x=1"),
)
command_case(
    "Recipe",
    "rule between two settings",
    "config",
    ("warmup_epochs < fit.epochs",),
    *digits_with("schedule.warmup_epochs=9", "fit.epochs=5"),
)
command_case(
    "Recipe",
    "Nesterov without momentum",
    "config",
    ("optimizer", "momentum > 0"),
    *digits_with("optimizer={name: sgd, nesterov: true, momentum: 0}"),
)
command_case(
    "Recipe",
    "network too deep for the pictures",
    "config",
    ("network.blocks.3", "does not fit", "data.image_size_px"),
    *digits_with("network=convnet"),
)
command_case(
    "Recipe",
    "more means than channels",
    "config",
    ("standardize", "3 means", "1 channels"),
    *digits_with("standardize=imagenet"),
)
command_case(
    "Recipe",
    "more components than there are",
    "config",
    ("standardize.components", "vary along 60 alone"),
    *digits_with("standardize=pca", "standardize.components=64"),
)
command_case(
    "Recipe",
    "whitening without epsilon",
    "config",
    ("standardize.epsilon", "got 0"),
    *digits_with("standardize=zca", "standardize.epsilon=0"),
)


@case("Recipe", "whitening of large pictures", "config", "at most 8,192 values", "1.2 GB", "data.image_size_px=52")
def _whitening_large_pictures(folder: Path) -> Arguments:
    two_classes(folder)
    return photos(folder, "data.image_size_px=64", "standardize=zca")


@case("Recipe", "text that is not YAML", "config", "not valid YAML at line 3")
def _not_yaml(folder: Path) -> Arguments:
    return recipe_file(folder, "data: digits\nfit: [1, 2\n")


@case("Recipe", "YAML without keys", "config", "must hold keys and values")
def _no_mapping(folder: Path) -> Arguments:
    return recipe_file(folder, "- digits\n")


@case("Recipe", "key that stands twice", "config", "'seed' stands twice")
def _twice(folder: Path) -> Arguments:
    return recipe_file(folder, "seed: 1\nseed: 2\n")


@case("Recipe", "recipe without a network", "config", "network: this key is needed")
def _no_network(folder: Path) -> Arguments:
    return recipe_file(folder, "data: digits\n")


@case("Recipe", "binary file", "config", "not UTF-8")
def _binary(folder: Path) -> Arguments:
    (folder / "mine.yaml").write_bytes(bytes(range(128, 256)))
    return ["train", folder / "mine.yaml"]


@case("Recipe", "recipe of a newer version", "newer_format", "format 99", "update Conviction")
def _newer_recipe(folder: Path) -> Arguments:
    return recipe_file(folder, "format: 99\nquantum: true\n")


command_case(
    "Recipe",
    "pictures moved by their whole side at test time",
    "config",
    ("`test_time.shift_px < 8`", "but got 8"),
    *digits_with("test_time.shift_px=8"),
)
command_case(
    "Recipe",
    "an alternating flip twice",
    "config",
    ("a second `alternating_flip` mirrors back",),
    *digits_with("augment=[alternating_flip, random_crop, alternating_flip]"),
)
command_case(
    "Recipe",
    "small pictures in all epochs",
    "config",
    ("some must be left for whole pictures", "3 of 3"),
    *digits_with("fit.epochs=3", "fit.progressive_sizes=[{epochs: 3, size_px: 6}]"),
)
command_case(
    "Recipe",
    "small pictures for a network of one size",
    "config",
    ("fit.progressive_sizes.0.size_px: the network does not take pictures of 6×6", "network.global_pooling"),
    *digits_with("fit.progressive_sizes=[{epochs: 1, size_px: 6}]"),
)

"""Weights and computations of a network of blocks as formulas in its sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sympy

from conviction.nets.block import BlockConfig, BlocksConfig, DenseConfig, PoolingConfig


@dataclass(frozen=True)
class Symbol:
    """A letter of the formulas: what it stands for, and its value in the network at hand."""

    letter: str
    meaning: str
    value: int


@dataclass(frozen=True)
class SymbolicCounts:
    """Formulas that hold for every value of their letters for which the network can be built.

    `sizes` gives the height and width of the maps wherever they change, where H and W are the input's; `weights` and
    `macs` are written with these, `weights_in_full` and `macs_in_full` with the input's sizes alone. The last two
    assume that every size divides as it must, so that nothing is rounded.
    """

    symbols: tuple[Symbol, ...]
    sizes: tuple[tuple[str, sympy.Expr], ...]
    weights: sympy.Expr
    macs: sympy.Expr
    weights_in_full: sympy.Expr
    macs_in_full: sympy.Expr
    weights_if_divisible: sympy.Expr
    macs_if_divisible: sympy.Expr

    def counted(self) -> tuple[int, int]:
        """Weights and MACs with the values of the network at hand put in."""
        values = {_letter(symbol.letter): symbol.value for symbol in self.symbols}
        return int(self.weights_in_full.subs(values)), int(self.macs_in_full.subs(values))

    def as_json(self) -> dict[str, Any]:
        """Every formula as text."""
        return {
            "symbols": {s.letter: {"meaning": s.meaning, "value": s.value} for s in self.symbols},
            "sizes": {name: shown_formula(formula) for name, formula in self.sizes},
            "weights": shown_formula(self.weights),
            "macs": shown_formula(self.macs),
            "weights_if_divisible": shown_formula(self.weights_if_divisible),
            "macs_if_divisible": shown_formula(self.macs_if_divisible),
        }


def shown_formula(formula: sympy.Expr) -> str:
    """A formula as text: `64·m·k^2 + m`."""
    return str(sympy.sstr(formula)).replace("**", "^").replace("*", "·")


def _letter(name: str) -> sympy.Symbol:
    return sympy.Symbol(name, integer=True, positive=True)


class _Writer:
    """Collects letters, sizes and sums while it goes through a network as the builder does."""

    def __init__(self, config: BlocksConfig, input_shape: tuple[int, int, int], num_classes: int) -> None:
        self.symbols: dict[str, Symbol] = {}
        self.sizes: list[tuple[str, sympy.Expr]] = []
        self.weights: sympy.Expr = sympy.Integer(0)
        self.macs: sympy.Expr = sympy.Integer(0)
        self._blocks = config.blocks
        channels, height, width = input_shape
        self.height = self.named("H", "height of the picture", height)
        self.width = self.named("W", "width of the picture", width)
        self.depth = self.named("D", "channels of the picture", channels)
        for number, block in enumerate(config.blocks, start=1):
            self._block(block, number)
        if config.global_pooling != "none":
            self.height = self.width = sympy.Integer(1)
        features = self.depth * self.height * self.width
        for number, dense in enumerate(config.dense, start=1):
            features = self._dense(dense, number, len(config.dense), features)
        classes = self.named("K", "classes", num_classes)
        self._linear(features, classes, config.classifier_bias)

    def named(self, letter: str, meaning: str, value: int) -> sympy.Symbol:
        self.symbols.setdefault(letter, Symbol(letter, meaning, value))
        return _letter(letter)

    def _block(self, block: BlockConfig, number: int) -> None:
        for stage in block.order:
            if stage == "convolution":
                self._convolution(block, number)
            elif stage == "normalization" and block.normalization in ("batch", "layer"):
                self.weights += 2 * self.depth
            elif stage == "pooling" and block.pooling:
                self._resize(_pooled(block.pooling, self.height), _pooled(block.pooling, self.width))

    def _resize(self, height: sympy.Expr, width: sympy.Expr) -> None:
        """A size that changes gets letters of its own, so that the formulas stay short."""
        if (height, width) == (self.height, self.width):
            return
        number = len(self.sizes) // 2 + 1
        self.sizes += [(f"H_{number}", height), (f"W_{number}", width)]
        self.height, self.width = _letter(f"H_{number}"), _letter(f"W_{number}")

    def _convolution(self, block: BlockConfig, number: int) -> None:
        first = self._blocks[0].filters
        filters = sympy.Rational(block.filters, first) * self.named("m", "filters of the first block", first)
        kernels = {other.kernel_px for other in self._blocks}
        letter, meaning = ("k", "side of the kernels") if len(kernels) == 1 else (f"k_{number}", "side of a kernel")
        kernel = self.named(letter, meaning, block.kernel_px)
        self._resize(_convolved(block, kernel, self.height), _convolved(block, kernel, self.width))
        products = kernel**2 * self.depth
        self.weights += (products + (1 if block.bias else 0)) * filters
        self.macs += products * filters * self.height * self.width
        self.depth = filters

    def _dense(self, dense: DenseConfig, number: int, num_dense: int, features: sympy.Expr) -> sympy.Expr:
        letter = "n" if num_dense == 1 else f"n_{number}"
        units = self.named(letter, "neurons of a dense layer", dense.units)
        self._linear(features, units)
        if dense.normalization != "none":
            self.weights += 2 * units
        return units

    def _linear(self, features: sympy.Expr, units: sympy.Expr, bias: bool = True) -> None:
        self.weights += (features + (1 if bias else 0)) * units
        self.macs += features * units


def _convolved(block: BlockConfig, kernel: sympy.Symbol, side: sympy.Expr) -> sympy.Expr:
    """The side of a convolution's output; `same` padding keeps it, divided by the stride and rounded up."""
    if block.padding_px == "same":
        return side if block.stride_px == 1 else sympy.ceiling(side / block.stride_px)
    room = side + 2 * block.padding_px - kernel
    return room + 1 if block.stride_px == 1 else sympy.floor(room / block.stride_px) + 1


def _pooled(pooling: PoolingConfig, side: sympy.Expr) -> sympy.Expr:
    stride = pooling.stride_px or pooling.size_px
    room = side + 2 * pooling.padding_px - pooling.size_px
    if not pooling.ceil_mode:
        return sympy.floor(room / stride) + 1
    # A last window that would begin in the padding behind the input does not count.
    last_start = sympy.floor((side + pooling.padding_px - 1) / stride) + 1
    return sympy.Min(sympy.ceiling(room / stride) + 1, last_start)


def symbolic_counts(config: BlocksConfig, input_shape: tuple[int, int, int], num_classes: int) -> SymbolicCounts:
    """The formulas of a network of blocks for pictures of `input_shape` (C, H, W).

    Filters are written as multiples of the first block's, `m`; kernels are `k` where all are the same, neurons `n`.
    MACs follow the convention of `inspect`: biases, normalisations, activations and poolings are none.
    """
    written = _Writer(config, input_shape, num_classes)
    in_full = [_in_full(formula, written.sizes) for formula in (written.weights, written.macs)]
    unrounded = [(name, _unrounded(formula)) for name, formula in written.sizes]
    divisible = [sympy.factor_terms(sympy.expand(_in_full(f, unrounded))) for f in (written.weights, written.macs)]
    return SymbolicCounts(
        tuple(written.symbols.values()),
        tuple(written.sizes),
        sympy.expand(written.weights),
        sympy.expand(written.macs),
        in_full[0],
        in_full[1],
        divisible[0],
        divisible[1],
    )


def _in_full(formula: sympy.Expr, sizes: list[tuple[str, sympy.Expr]]) -> sympy.Expr:
    """The formula with the sizes written out, the last first, as each is written with the one before."""
    for name, size in reversed(sizes):
        formula = formula.subs(_letter(name), size)
    return formula


def _unrounded(formula: sympy.Expr) -> sympy.Expr:
    """Without floors and ceilings; of two counts of windows, the one without the rounding."""
    plain = formula.replace(sympy.Min, lambda first, second: first if first.has(sympy.ceiling) else second)
    return sympy.simplify(plain.replace(sympy.floor, lambda inner: inner).replace(sympy.ceiling, lambda inner: inner))

"""Networks: one flexible builder, presets that are values of it, and the arithmetic of sizes."""

from conviction.nets.block import NETWORKS, BlocksConfig, NetworkConfig, build_network
from conviction.nets.preset import PRESETS, expand_preset, network_names
from conviction.nets.starting_weights import load_starting_weights
from conviction.nets.torchvision_model import TorchvisionConfig

__all__ = [
    "NETWORKS",
    "PRESETS",
    "BlocksConfig",
    "NetworkConfig",
    "TorchvisionConfig",
    "build_network",
    "expand_preset",
    "load_starting_weights",
    "network_names",
]

"""Networks: one flexible builder, presets that are values of it, and the arithmetic of sizes."""

from conviction.nets.block import NETWORKS, BlocksConfig, NetworkConfig, build_network
from conviction.nets.preset import PRESETS, expand_preset, network_names

__all__ = [
    "NETWORKS",
    "PRESETS",
    "BlocksConfig",
    "NetworkConfig",
    "build_network",
    "expand_preset",
    "network_names",
]

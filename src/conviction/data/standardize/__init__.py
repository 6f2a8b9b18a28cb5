"""From grey levels to numbers that a network learns from well. Statistics come from the training split alone."""

from conviction.data.standardize.base import (
    GREY_LEVELS,
    STANDARDIZATION_RECORDS,
    STANDARDIZATIONS,
    StandardizationRecord,
    StandardizeConfig,
    Standardizer,
    fit_standardization,
    restore_standardization,
)
from conviction.data.standardize.channel import (
    CenterConfig,
    ChannelConfig,
    ChannelRecord,
    Deviation,
    FixedConfig,
    ImagenetConfig,
    ScaleConfig,
    Standardization,
    channel_statistics,
    mean_picture_deviation,
)
from conviction.data.standardize.contrast import Contrast, PerImageConfig, PerImageStandardization
from conviction.data.standardize.whitening import MOST_VALUES, PcaConfig, Whitening, ZcaConfig

__all__ = [
    "GREY_LEVELS",
    "MOST_VALUES",
    "STANDARDIZATIONS",
    "STANDARDIZATION_RECORDS",
    "CenterConfig",
    "ChannelConfig",
    "ChannelRecord",
    "Contrast",
    "Deviation",
    "FixedConfig",
    "ImagenetConfig",
    "PcaConfig",
    "PerImageConfig",
    "PerImageStandardization",
    "ScaleConfig",
    "Standardization",
    "StandardizationRecord",
    "StandardizeConfig",
    "Standardizer",
    "Whitening",
    "ZcaConfig",
    "channel_statistics",
    "fit_standardization",
    "mean_picture_deviation",
    "restore_standardization",
]

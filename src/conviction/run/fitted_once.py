"""Standardisations are fitted once to a pack and a division, and kept beside the pack."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from conviction.core.errors import ConvictionError
from conviction.data.pack import Pack
from conviction.data.standardize import (
    STANDARDIZATION_RECORDS,
    StandardizeConfig,
    Standardizer,
    fit_standardization,
    restore_standardization,
)
from conviction.fit.checkpoint import load_tensors, save_tensors

# Counted up whenever a standardisation is fitted in another way.
FITTING_FORMAT = 1
# Enough for ten folds. Of whitening, each takes 75 MB for pictures of CIFAR-10's size.
_MOST_KEPT = 12


def fit_once(config: StandardizeConfig, pack: Pack, rows: np.ndarray) -> Standardizer:
    """The standardisation fitted to the given rows of a pack, or what an earlier start fitted to just these.

    Passing over 10 GB of pictures takes 10 s, and whitening 50,000 small ones 20 s.

    Raises: ConfigError where the settings do not fit the pictures.
    """
    filename = getattr(pack.images, "filename", None)
    if not config.reads_pictures or filename is None:
        return fit_standardization(config, pack.images, rows)
    key = _key(config, pack, rows)
    path = Path(filename).with_name(f"standardization-{key}.safetensors")
    if (kept := _kept(path, key)) is not None:
        return kept
    fitted = fit_standardization(config, pack.images, rows)
    # Where it cannot be kept, the next start fits again.
    with suppress(ConvictionError):
        save_tensors(path, fitted.tensors(), {"key": key, "record": fitted.record().model_dump(mode="json")})
        _remove_longest_unused(path.parent)
    return fitted


def _key(config: StandardizeConfig, pack: Pack, rows: np.ndarray) -> str:
    digest = hashlib.sha256(f"{FITTING_FORMAT} {pack.digest} {config.model_dump_json()}".encode())
    digest.update(np.sort(rows).astype(np.int64).tobytes())
    return digest.hexdigest()[:32]


def _kept(path: Path, key: str) -> Standardizer | None:
    """What lies there, if it was fitted to just this; its file is then marked as used."""
    try:
        tensors, about = load_tensors(path)
        if about["key"] != key:
            return None
        record = STANDARDIZATION_RECORDS[about["record"]["name"]].config.model_validate(about["record"])
        kept = restore_standardization(record, tensors)  # type: ignore[arg-type]
    except (ConvictionError, ValidationError, KeyError, TypeError):
        return None
    with suppress(OSError):
        os.utime(path)
    return kept


def _remove_longest_unused(folder: Path) -> None:
    with suppress(OSError):
        found = sorted(folder.glob("standardization-*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
        for path in found[:-_MOST_KEPT]:
            path.unlink(missing_ok=True)

"""Writes the folders beside it, with the library `datasets` (5.2.0): pip install datasets pillow; python write.py"""

import shutil
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from PIL import Image as Picture

FEATURES = Features({"image": Image(), "label": ClassLabel(names=["dog", "cat"]), "owner": Value("string")})


def rows(count: int, seed: int) -> Dataset:
    """Noise of 8×8 pixels, whose first is the row's number; dogs and cats in turn; two of each owner."""
    values = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    values[:, 0, 0, :] = np.arange(count)[:, None]
    return Dataset.from_dict(
        {
            "image": [Picture.fromarray(value) for value in values],
            "label": [number % 2 for number in range(count)],
            "owner": [f"owner {seed}-{number // 2}" for number in range(count)],
        },
        features=FEATURES,
    )


here = Path(__file__).parent
for name in ("splits", "shards", "chosen", "published"):
    shutil.rmtree(here / name, ignore_errors=True)
splits = DatasetDict({"train": rows(8, 0), "validation": rows(4, 1), "test": rows(4, 2)})
splits.save_to_disk(here / "splits")
rows(10, 3).save_to_disk(here / "shards", num_shards=2)
rows(10, 4).select([9, 0, 3, 4, 5, 6, 7]).save_to_disk(here / "chosen")
for word, part in splits.items():
    part.to_parquet(here / "published" / "data" / f"{word}-00000-of-00001.parquet")

"""Small pictures for a page, as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable

from PIL import Image

from conviction.data.audit.gather import thumbnails_of
from conviction.data.source.base import SourceConfig

_MOST_PX = 96
# A codec would blur what has so few pixels.
_MOST_LOSSLESS_PX = 48


def data_uris(config: SourceConfig, wanted: Iterable[str]) -> dict[str, str]:
    """The named pictures, as text that stands in a page itself. Raises: DataError."""
    return {path: _data_uri(image) for path, image in thumbnails_of(config, wanted, _MOST_PX).items()}


def _data_uri(image: Image.Image) -> str:
    kind = "png" if max(image.size) <= _MOST_LOSSLESS_PX else "jpeg"
    written = io.BytesIO()
    image.save(written, kind, quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(written.getvalue()).decode()}"

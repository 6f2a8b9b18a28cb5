"""A perceptual signature: low frequencies of a small grey picture, without its brightness and contrast.

The discrete cosine transform of 32×32 pixels, 12×12 lowest frequencies without the constant one. Each is multiplied by
its frequency, as the amplitudes of natural pictures fall with it (Field 1987): without that, the coarsest shapes would
decide alone. Similarity is the cosine between two signatures, 1 for the same picture and about 0 for unrelated ones.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

NUM_FREQUENCIES = 12
SIGNATURE_LENGTH = NUM_FREQUENCIES**2 - 1
# Of 255: with less contrast, what is left is noise and the codec's blocks, which are alike in all pictures.
PLAIN_DEVIATION = 3.0
_CHUNK = 4096

# Unrelated pictures are looked at in a sample: enough to see the nearest of them, few enough to take a second.
_NUM_REFERENCES = 2048
# The nearest four may be copies.
_NEAR_RANK, _FAR_RANK = 5, 50
_FEWEST_REFERENCES = 20
_MOST_DIMENSIONS = 60.0
# A pair's distance is at most this share of that at which the nearest unrelated picture is to be expected.
_SHARE_OF_EXPECTED = 0.3
STRICTEST = 0.995
_WITHOUT_REFERENCES = 0.95


def signatures(thumbnails: UInt8[Tensor, "N S S"]) -> tuple[Float[Tensor, "N F"], Float[Tensor, " N"]]:
    """Unit vectors of square grey pictures, and the deviation of each one's grey levels (of 255)."""
    side = thumbnails.shape[-1]
    cosines = _cosines(side)
    frequency = torch.arange(NUM_FREQUENCIES, dtype=torch.float32)
    weights = (frequency[:, None] ** 2 + frequency[None, :] ** 2).sqrt().flatten()[1:]
    found, deviations = [], []
    for start in range(0, len(thumbnails), _CHUNK):
        levels = thumbnails[start : start + _CHUNK].to(torch.float32)
        weighted = (cosines @ levels @ cosines.T).flatten(1)[:, 1:] * weights
        found.append(weighted / weighted.norm(dim=1, keepdim=True).clamp_min(1e-6))
        deviations.append(levels.flatten(1).std(dim=1, correction=0))
    return torch.cat(found), torch.cat(deviations)


def _cosines(side: int) -> Float[Tensor, "K S"]:
    """The lowest rows of the orthonormal DCT-II."""
    frequency = torch.arange(NUM_FREQUENCIES, dtype=torch.float64)[:, None]
    place = torch.arange(side, dtype=torch.float64)[None, :]
    rows = torch.cos(math.pi * (2 * place + 1) * frequency / (2 * side)) * math.sqrt(2 / side)
    rows[0] /= math.sqrt(2)
    return rows.to(torch.float32)


def mirror_signs() -> Float[Tensor, " F"]:
    """What a signature is multiplied by where its picture is mirrored: odd horizontal frequencies change their sign."""
    signs = torch.ones(NUM_FREQUENCIES, NUM_FREQUENCIES)
    signs[:, 1::2] = -1
    return signs.flatten()[1:]


def least_similarities(found: Float[Tensor, "N F"], similarity: float) -> Float[Tensor, " N"]:
    """How similar another picture must be at least to count as a copy of each; never below `similarity`.

    Where unrelated pictures crowd (a written 1 among thousands), a pair must stand out from them. Similarities to a
    sample tell the distance to the fifth nearest and, by how fast distances grow with their rank, the number of
    dimensions d in which the pictures vary there (Levina & Bickel 2004). The nearest of all N is then to be expected
    (ranks grow with distance to the power d) at the fifth one's distance times (sample / 5 N) ** (1 / d).
    """
    num = len(found)
    places = torch.linspace(0, num - 1, min(num, _NUM_REFERENCES)).round().long()
    if len(places) < _FEWEST_REFERENCES:
        return torch.full((num,), max(similarity, _WITHOUT_REFERENCES))
    references = found[places]
    far = min(_FAR_RANK, len(places) - 1)
    ranks = torch.arange(_NEAR_RANK, far, dtype=torch.float32)
    # Of uniformly spread points: the mean of log(far / rank), which is d times that of the distances' logarithms.
    spread = (far / ranks).log().mean()
    least = []
    for start in range(0, num, _CHUNK):
        alike = found[start : start + _CHUNK] @ references.T
        alike[torch.arange(start, start + len(alike))[:, None] == places[None, :]] = -1
        # Squared distances of unit vectors, halved.
        distances = (1 - alike.topk(far, dim=1).values[:, _NEAR_RANK - 1 :]).clamp_min(1e-6)
        growth = 0.5 * (distances[:, -1:] / distances[:, :-1]).log().mean(dim=1)
        dimensions = (spread / growth.clamp_min(1e-6)).clamp(1, _MOST_DIMENSIONS)
        expected = distances[:, 0] * (len(places) / (_NEAR_RANK * num)) ** (2 / dimensions)
        least.append(1 - _SHARE_OF_EXPECTED * expected)
    return torch.cat(least).clamp(max=max(similarity, STRICTEST)).clamp(min=similarity)

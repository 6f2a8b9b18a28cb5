"""Which pictures are copies of which: every one is compared with every other, in blocks, without approximation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, product

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from conviction.core.audit_record import DuplicateKind
from conviction.core.errors import DataError
from conviction.data.audit.signature import PLAIN_DEVIATION, least_similarities, mirror_signs, signatures

# So many similarities in a block stay in the processor's cache.
BLOCK = 512
MOST_PAIRS = 1_000_000

# Kind, similarity and the two rows, the smaller first.
FoundPair = tuple[DuplicateKind, float, int, int]


def find_pairs(
    thumbnails: np.ndarray,
    digests: Sequence[bytes],
    rows: np.ndarray,
    similarity: float,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[FoundPair], list[int]]:
    """All pairs of copies among `rows` of the thumbnails (N, S, S), and the rows that were too plain to be compared.

    One picture stands for all of the same decoded pixels. Pictures of one colour are to be left out of `rows`.

    Raises: DataError where there are more than a million pairs.
    """
    same: dict[bytes, list[int]] = {}
    for row in rows.tolist():
        same.setdefault(digests[row], []).append(row)
    num_exact = sum(len(members) * (len(members) - 1) // 2 for members in same.values())
    if num_exact > MOST_PAIRS:
        raise _too_many(similarity)
    pairs: list[FoundPair] = [
        ("exact", 1.0, first, second) for members in same.values() for first, second in combinations(members, 2)
    ]
    groups = list(same.values())
    if not groups:
        return [], []
    leaders = np.array([members[0] for members in groups], np.int64)
    found, deviations = signatures(torch.from_numpy(thumbnails[leaders]))
    compared = (deviations >= PLAIN_DEVIATION).nonzero().flatten()
    plain = [row for place in (deviations < PLAIN_DEVIATION).nonzero().flatten().tolist() for row in groups[place]]
    if len(compared) < 2:
        return sorted(pairs, key=lambda pair: pair[2:]), plain
    chosen = found[compared]
    for kind, value, one, other in similar_pairs(chosen, least_similarities(chosen, similarity), progress):
        members = groups[int(compared[one])], groups[int(compared[other])]
        if len(pairs) + len(members[0]) * len(members[1]) > MOST_PAIRS:
            raise _too_many(similarity)
        pairs += [(kind, value, min(pair), max(pair)) for pair in product(*members)]
    return sorted(pairs, key=lambda pair: pair[2:]), plain


def similar_pairs(
    found: Float[Tensor, "N F"],
    least: Float[Tensor, " N"],
    progress: Callable[[int, int], None] | None = None,
    block: int = BLOCK,
) -> Iterator[FoundPair]:
    """Pairs of unit vectors that are as similar as both ask for, as they are or with one of the two mirrored.

    Mirroring changes the sign of the odd horizontal frequencies: with what the even and the odd ones of two signatures
    have in common, the similarity is their sum, and their difference where one of the two is mirrored.
    """
    is_odd = mirror_signs() < 0
    even, odd = found[:, ~is_odd].contiguous(), found[:, is_odd].contiguous()
    buffers = [torch.empty(block * block) for _ in range(3)]
    starts = range(0, len(found), block)
    for number, start in enumerate(starts, start=1):
        here = slice(start, start + block)
        for other in range(start, len(found), block):
            there = slice(other, other + block)
            num_here, num_there = len(found[here]), len(found[there])
            # Blocks newly allocated would cost more than the products: the system fills them with zeros page by page.
            of_even, of_odd, best = (part[: num_here * num_there].view(num_here, num_there) for part in buffers)
            torch.mm(even[here], even[there].T, out=of_even)
            torch.mm(odd[here], odd[there].T, out=of_odd)
            torch.abs(of_odd, out=best).add_(of_even)
            if float(best.max()) < max(float(least[here].min()), float(least[there].min())):
                continue
            hits = best >= torch.maximum(least[here, None], least[None, there])
            if start == other:
                hits = hits.triu(diagonal=1)
            for one, two in hits.nonzero().tolist():
                plain, flipped = (float(of_even[one, two] + sign * of_odd[one, two]) for sign in (1, -1))
                # A symmetrical picture is like its mirror image: what needs no mirroring is no mirrored copy.
                is_near = plain >= max(float(least[start + one]), float(least[other + two]))
                kind: DuplicateKind = "near" if is_near else "mirrored"
                yield kind, min(1.0, round(plain if is_near else flipped, 4)), start + one, other + two
        if progress:
            progress(number, len(starts))


def _too_many(similarity: float) -> DataError:
    return DataError(
        f"More than {MOST_PAIRS:,} pairs of pictures look alike at similarity {similarity:g}: the set is mostly "
        "copies. Keep one picture of each scene, or ask for more similarity, for example --similarity 0.98."
    )

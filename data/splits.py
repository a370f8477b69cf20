"""Parts for training, validation and test that share no crystal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from data.dataset import CrystalDataset

PARTS = ("train", "val", "test")


def split_by_key(
    dataset: CrystalDataset, fractions: Sequence[float] = (0.9, 0.05, 0.05), seed: int = 0
) -> dict[str, Tensor]:
    """Rows of the parts ``train``, ``val`` and ``test``, each in ascending order.

    A crystal's part depends only on its key and ``seed``: equal crystals, in whatever spelling, are never in
    two parts, and a row keeps its part when others are added. Fractions hold on average.

    Raises:
        ValueError: fractions that are not three numbers of 0 or more with sum 1.
    """
    return split_by(dataset.keys(), fractions, seed)


def split_by(keys: Sequence[str], fractions: Sequence[float] = (0.9, 0.05, 0.05), seed: int = 0) -> dict[str, Tensor]:
    """`split_by_key` for any keys: rows of one key stay together."""
    if len(fractions) != 3 or min(fractions) < 0 or not math.isclose(sum(fractions), 1.0, abs_tol=1e-6):
        raise ValueError(f"fractions={list(fractions)}: give three numbers (train, val, test) with sum 1")
    place = torch.tensor([key_to_unit(key, seed) for key in keys], dtype=torch.float64)
    edges = torch.tensor([fractions[0], fractions[0] + fractions[1]], dtype=torch.float64)
    part = torch.bucketize(place, edges, right=True)
    return {name: (part == i).nonzero().squeeze(-1) for i, name in enumerate(PARTS)}


def key_to_unit(key: str, seed: int) -> float:
    """A number in [0, 1) that depends on ``key`` and ``seed`` alone, uniform over keys."""
    digest = blake2b(f"{seed}|{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64

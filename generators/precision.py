"""Whether a processor is fast at bfloat16."""

from __future__ import annotations

import torch


def fast_bfloat16() -> bool:
    """Processors with AVX512-BF16 or AMX: there the products of matrices take half the time, elsewhere several times
    more than in single precision."""
    supported = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in supported)

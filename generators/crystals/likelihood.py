"""How likely a model draws a crystal under a wish, as far as it is drawn before its geometry."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from data.orbit_batch import OrbitBatch
from data.strain_scale import StrainScale
from data.wyckoff import wyckoff_table
from generators.crystals.noise import observe
from generators.denoiser.crystal_denoiser import MOST_ELEMENTS, CrystalCondition, CrystalDenoiser
from generators.diffusion.masked import corrupt, negative_bound
from generators.diffusion.times import low_discrepancy_times
from generators.element_features import N_STATES


def negative_log_likelihood(
    denoiser: CrystalDenoiser,
    strain_scale: StrainScale,
    crystals: OrbitBatch,
    wish: tuple[Tensor, Tensor],
    source: int,
    elements: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """[B] unbiased estimate of the negative evidence bound of number of elements, space group, number of orbits,
    Wyckoff positions and elements, nats, in the order in which `generators.sampling.crystals` draws them.

    Args:
        denoiser: whose gradients are kept.
        strain_scale: of the lattice (which is not seen).
        crystals: single precision.
        wish: features [1, P, 7] and given [1, P] of `generators.conditioning`.
        source: part of the training data that is asked for.
        elements: [119] bool, elements that may be drawn.
        generator: CPU generator.
    """
    b, device = len(crystals), crystals.mask.device
    features, given = (x.to(device).expand(b, *x.shape[1:]) for x in wish)
    zero = torch.zeros(b, dtype=torch.long, device=device)
    share = torch.zeros(b, N_STATES, device=device)

    def embedded(numbers: Tensor) -> Tensor:
        return denoiser.embed_condition(CrystalCondition(features, given, share, zero, numbers, zero + source))

    numbers = crystals.n_elements
    total = F.cross_entropy(
        denoiser.number_logits(embedded(zero)), numbers.clamp(max=MOST_ELEMENTS), reduction="none"
    )  # fmt: skip
    asked = embedded(numbers)
    total = total + F.cross_entropy(denoiser.space_group_logits(asked), crystals.space_group, reduction="none")
    total = total + F.cross_entropy(
        denoiser.count_logits(asked, crystals.space_group), crystals.n_orbits, reduction="none"
    )  # fmt: skip

    def read(position_hidden: Tensor, element_hidden: Tensor, places: bool) -> Tensor:
        state = observe(crystals, strain_scale, denoiser.config.n_radial, position_hidden, element_hidden)
        tokens = denoiser(state, asked)
        if places:
            logits = denoiser.position_logits(tokens, crystals.space_group)
        else:
            logits = denoiser.element_logits(tokens, state).masked_fill(~elements.to(device), -1e9)
        return F.log_softmax(logits.float(), -1)

    start = wyckoff_table().position_start.to(device)[crystals.space_group]
    letters = (crystals.position - start[:, None]).clamp(min=0) * crystals.mask
    hidden = corrupt(crystals.mask, low_discrepancy_times(b, generator, device), generator)
    total = total + negative_bound(read(hidden, crystals.mask, True), letters, hidden, crystals.mask)
    hidden = corrupt(crystals.mask, low_discrepancy_times(b, generator, device), generator)
    log_probability = read(torch.zeros_like(hidden), hidden, False)
    return total + negative_bound(log_probability, crystals.atomic_number, hidden, crystals.mask)

"""What a model says of a crystal under a wish, as far as it is drawn before its geometry: how likely it is drawn, and
how far that is from what another, guided model says."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from data.orbit_batch import OrbitBatch
from data.strain_scale import StrainScale
from data.wyckoff import wyckoff_table
from generators.crystals.noise import observe
from generators.denoiser.crystal_denoiser import MOST_ELEMENTS, CrystalCondition, CrystalDenoiser, NoisyCrystals
from generators.diffusion.masked import corrupt, guided_logits, negative_bound
from generators.diffusion.times import low_discrepancy_times
from generators.element_features import N_STATES


class _Hidden(NamedTuple):
    """Crystals of which some positions and all elements, or some elements alone, are hidden [B, K]."""

    crystals: OrbitBatch
    positions: Tensor
    elements: Tensor
    without_positions: NoisyCrystals
    without_elements: NoisyCrystals


class _Said(NamedTuple):
    """Log-probabilities of number of elements, space group and number of orbits [B, S]; of positions and elements
    [B, K, S]."""

    number: Tensor
    group: Tensor
    orbits: Tensor
    positions: Tensor
    elements: Tensor


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
    hidden = _hide(crystals, strain_scale, denoiser.config.n_radial, generator)
    return _bound(hidden, _read(denoiser, hidden, wish, source, elements))


def _bound(hidden: _Hidden, said: _Said) -> Tensor:
    crystals = hidden.crystals
    start = wyckoff_table().position_start.to(crystals.mask.device)[crystals.space_group]
    letters = (crystals.position - start[:, None]).clamp(min=0) * crystals.mask
    return (
        F.nll_loss(said.number, crystals.n_elements.clamp(max=MOST_ELEMENTS), reduction="none")
        + F.nll_loss(said.group, crystals.space_group, reduction="none")
        + F.nll_loss(said.orbits, crystals.n_orbits, reduction="none")
        + negative_bound(said.positions, letters, hidden.positions, crystals.mask)
        + negative_bound(said.elements, crystals.atomic_number, hidden.elements, crystals.mask)
    )


def divergence_from_guided(
    denoiser: CrystalDenoiser,
    teacher: CrystalDenoiser,
    guidance: float,
    strain_scale: StrainScale,
    crystals: OrbitBatch,
    wish: tuple[Tensor, Tensor],
    source: int,
    elements: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """[B] unbiased estimate of the divergence (Kullback and Leibler), nats, of what a model says from what a teacher
    says with classifier-free guidance, summed over all that is drawn: a model that learns it draws without guidance as
    its teacher with it, in half the time (Meng et al., CVPR 2023, for images). And [B] `negative_log_likelihood`, of
    the same states.

    Args:
        denoiser: whose gradients are kept.
        teacher: read twice, with the wish and without.
        guidance: strength (`generators.diffusion.masked.guided_logits`); the number of elements is never guided.
        strain_scale, crystals, wish, source, elements, generator: as in `negative_log_likelihood`; the crystals are
            what the teacher draws.
    """
    hidden = _hide(crystals, strain_scale, denoiser.config.n_radial, generator)
    with torch.no_grad():
        asked = _read(teacher, hidden, wish, source, elements)
        nothing = (torch.zeros_like(wish[0]), torch.zeros_like(wish[1]))
        free = _read(teacher, hidden, nothing, source, elements)
        guided = [F.log_softmax(guided_logits(c, u, guidance), -1) for c, u in zip(asked[1:], free[1:], strict=True)]
    said = _read(denoiser, hidden, wish, source, elements)
    target = _Said(asked.number, *guided)
    each = _Said(*((t.exp() * (t - s)).sum(-1) for t, s in zip(target, said, strict=True)))
    total = each.number + each.group + each.orbits
    for divergence, unseen in ((each.positions, hidden.positions), (each.elements, hidden.elements)):
        share = crystals.mask.sum(-1) / unseen.sum(-1).clamp(min=1)
        total = total + (divergence * unseen).sum(-1) * share
    return total, _bound(hidden, said)


def _hide(crystals: OrbitBatch, strain_scale: StrainScale, n_radial: int, generator: torch.Generator) -> _Hidden:
    positions, elements = (
        corrupt(crystals.mask, low_discrepancy_times(len(crystals), generator, crystals.mask.device), generator)
        for _ in range(2)
    )
    return _Hidden(
        crystals, positions, elements,
        observe(crystals, strain_scale, n_radial, positions, crystals.mask),
        observe(crystals, strain_scale, n_radial, torch.zeros_like(elements), elements),
    )  # fmt: skip


def _read(
    denoiser: CrystalDenoiser, hidden: _Hidden, wish: tuple[Tensor, Tensor], source: int, elements: Tensor
) -> _Said:
    crystals = hidden.crystals
    b, device = len(crystals), crystals.mask.device
    features, given = (x.to(device).expand(b, *x.shape[1:]) for x in wish)
    zero = torch.zeros(b, dtype=torch.long, device=device)
    share = torch.zeros(b, N_STATES, device=device)

    def embedded(numbers: Tensor) -> Tensor:
        return denoiser.embed_condition(CrystalCondition(features, given, share, zero, numbers, zero + source))

    asked = embedded(crystals.n_elements)
    places = denoiser.position_logits(denoiser(hidden.without_positions, asked), crystals.space_group)
    species = denoiser.element_logits(denoiser(hidden.without_elements, asked), hidden.without_elements)
    said = (
        denoiser.number_logits(embedded(zero)),
        denoiser.space_group_logits(asked),
        denoiser.count_logits(asked, crystals.space_group),
        places,
        species.masked_fill(~elements.to(device), -1e9),
    )
    return _Said(*(F.log_softmax(logits.float(), -1) for logits in said))

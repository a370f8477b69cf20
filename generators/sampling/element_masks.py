"""Which element may come next, so that the chemistry can still come out as asked."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from generators.element_features import N_STATES
from generators.sampling.crystal_task import CrystalTask


def element_choices(
    elements: Tensor,
    left: Tensor,
    allowed: Tensor,
    task: CrystalTask,
    all_differ: bool = False,
    numbers: Tensor | None = None,
) -> Tensor:
    """[r, 119] bool.

    Args:
        elements: [r, K] placed so far, 0 elsewhere.
        left: [r] orbits that come after this one.
        allowed: [119] bool.
        task: required elements and their number.
        all_differ: no element may come twice.
        numbers: [r] different elements that each crystal shall have; None for what the task leaves.
    """
    r = len(elements)
    present = torch.zeros(r, N_STATES, dtype=torch.bool).scatter(1, elements, True)
    present[:, 0] = False
    distinct = present.sum(1)
    choices = allowed.expand(r, -1).clone()
    fewest, most = (torch.full((r,), bound) for bound in task.n_elements)
    if numbers is not None:
        fewest = most = numbers
    if task.required:
        needed = torch.zeros(N_STATES, dtype=torch.bool)
        needed[sorted(task.required)] = True
        missing = needed & ~present
        choices &= torch.where((missing.sum(1) > left)[:, None], missing, needed)
        fewest = most = torch.full((r,), len(task.required))
    choices &= torch.where((distinct >= most)[:, None], present, torch.ones_like(present))
    choices &= torch.where((distinct + left < fewest)[:, None], ~present, torch.ones_like(present))
    return choices & ~present if all_differ else choices


def composition_choices(elements: Tensor, sites: Tensor, at: Tensor, task: CrystalTask, all_differ: bool) -> Tensor:
    """[r, 119] bool: elements on orbit ``at`` [r] after which the given composition can still come out exactly.

    Args:
        elements: [r, K] placed so far, 0 elsewhere.
        sites: [r, K] atoms that each orbit brings; 0 where there is none.
        at: [r] column of the next orbit.
        task: with a composition.
        all_differ: no element may come twice.
    """
    species = sorted(task.composition)
    choices = torch.zeros(len(elements), N_STATES, dtype=torch.bool)
    for row, (zs, sizes, column) in enumerate(zip(elements.tolist(), sites.tolist(), at.tolist(), strict=True)):
        wanted = _still_wanted(task, zs, sizes)
        others = tuple(
            sorted((s for i, (s, z) in enumerate(zip(sizes, zs, strict=True)) if s and not z and i != column))
        )
        for i, z in enumerate(species):
            rest = (*wanted[:i], wanted[i] - sizes[column], *wanted[i + 1 :])
            once = not (all_differ and z in zs)
            choices[row, z] = once and rest[i] >= 0 and splits(others, rest, all_differ)
    return choices


def completable(elements: Tensor, sites: Tensor, allowed: Tensor, task: CrystalTask, all_differ: bool) -> Tensor:
    """[n] bool: the elements placed so far [n, K] leave a way to what the task asks for.

    Args:
        elements: 0 where still to come.
        sites: [n, K] atoms that each orbit brings; 0 where there is none.
        allowed: [119] bool.
        task: what is asked.
        all_differ: no element may come twice.
    """
    left = ((sites > 0) & (elements == 0)).sum(1)
    present = torch.zeros(len(elements), N_STATES, dtype=torch.bool).scatter(1, elements, True)
    present[:, 0] = False
    distinct = present.sum(1)
    fewest, most = task.n_elements
    fine = ~(present & ~allowed).any(1)
    if task.required:
        fewest = most = len(task.required)
    if all_differ:
        fine &= (distinct + left >= fewest) & (distinct + left <= min(most, int(allowed.sum())))
    else:
        fine &= (distinct <= most) & (distinct + left >= fewest)
    if task.composition:
        unit = sum(task.composition.values())
        for row in fine.nonzero().squeeze(-1).tolist():
            zs, sizes = elements[row].tolist(), sites[row].tolist()
            others = tuple(sorted(s for s, z in zip(sizes, zs, strict=True) if s and not z))
            wanted = _still_wanted(task, zs, sizes)
            whole = sum(sizes) % unit == 0 and min(wanted) >= 0
            fine[row] = whole and splits(others, wanted, all_differ)
    return fine


def _still_wanted(task: CrystalTask, elements: list[int], sites: list[int]) -> tuple[int, ...]:
    """Atoms of each element of the composition, ascending, that are still to come."""
    units = sum(sites) // sum(task.composition.values())
    placed = {z: sum(s for s, x in zip(sites, elements, strict=True) if x == z) for z in task.composition}
    return tuple(units * task.composition[z] - placed[z] for z in sorted(task.composition))


@lru_cache(maxsize=100_000)
def splits(sizes: tuple[int, ...], wanted: tuple[int, ...], one_each: bool = False) -> bool:
    """Whether orbits of these sizes (ascending) can be shared out so that the sums are exactly ``wanted``.

    Args:
        one_each: no sum may have more than one of them.
    """
    if sum(sizes) != sum(wanted) or min(wanted) < 0:
        return False
    if one_each:
        return sizes == tuple(sorted(n for n in wanted if n))
    if not sizes:
        return True
    *rest, largest = sizes
    return any(
        n >= largest and splits(tuple(rest), tuple(sorted((*wanted[:i], n - largest, *wanted[i + 1 :]))))
        for i, n in enumerate(wanted)
        if n not in wanted[:i]
    )

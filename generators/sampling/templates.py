"""Geometry from crystals of the same protostructure: where sites and cell of a drawn crystal may start from.

Substituting elements in a known crystal places atoms better than any model that starts from nothing, where such a
crystal exists (Kusaba et al., Comput. Mater. Sci. 211, 111496 (2022), for structure prediction). The denoiser then
moves atoms and cell to what the new elements want.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, islice, permutations, product

import torch
from torch import Tensor

from data.crystal import Crystal
from data.orbit_batch import OrbitBatch
from data.protostructure import labels_of, pattern, species_rows
from data.spellings import respelled
from data.strain_scale import StrainScale
from data.wyckoff import wyckoff_table
from generators.element_features import element_features
from generators.sampling.crystal_task import CrystalTask

MOST_ORDERS = 24
"""Ways to assign the species of a template to those of a crystal where the label leaves a choice."""
VOTE_LENGTH, VOTE_ENERGY = 0.3, 0.07
"""Distance of element features, and eV/atom above the hull, at which a template's vote falls to 1/e."""
UNKNOWN = 1.0
"""eV/atom above the hull of a template that has no energy."""
ONE_HOT_WEIGHT = 0.5


@dataclass(frozen=True)
class _View:
    """A template in one of the spellings that its label allows.

    Attributes:
        row: of the template.
        coset: that leads to the spelling.
        species: atomic numbers in the order of the label.
    """

    row: int
    coset: int
    species: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Start:
    """Where the geometry of B crystals starts.

    Attributes:
        crystals: in the spelling of their label, with the template's coordinates and strain; those without a template
            as they were.
        elements: [B, K] the templates' elements on those orbits, which the strain belongs to.
        distance: [B] root mean square distance of the features of each element and the template's; infinite without
            a template.
    """

    crystals: OrbitBatch
    elements: Tensor
    distance: Tensor

    @property
    def found(self) -> Tensor:
        """[B] bool, true where there is a template."""
        return self.distance.isfinite()

    def sketched(self, scale: StrainScale) -> OrbitBatch:
        """With the templates' sites and cells as they are, but for the sizes of the atoms."""
        standard = scale.to_standard(self.crystals.replace(atomic_number=self.elements), self.crystals.strain)
        strain = scale.from_standard(self.crystals, standard.double())
        return self.crystals.replace(strain=strain, coordinates=self.crystals.coordinates.double())


class Templates:
    """Crystals to start geometries from, found by protostructure, the one with the most similar elements first.

    Args:
        batch: relaxed crystals.
        e_above_hull: [B] eV/atom; NaN where not known.
        labels: their protostructures; found here if they are not given.
        n_voters: so many crystals at the end have no geometry; they only vote for prototypes under a composition.
    """

    def __init__(
        self, batch: OrbitBatch, e_above_hull: Tensor, labels: Sequence[str] | None = None, n_voters: int = 0
    ) -> None:
        self._n_geometries = len(batch) - n_voters
        self._batch, self._above = batch, e_above_hull.nan_to_num(UNKNOWN).clamp(min=0)
        self._rows: dict[str, list[int]] = defaultdict(list)
        self._views: dict[str, tuple[list[_View], Tensor, Tensor]] = {}
        for row, label in enumerate(labels_of(batch) if labels is None else labels):
            self._rows[label].append(row)
        features = element_features()
        features[:, 4:] *= ONE_HOT_WEIGHT
        self._features = features

    def __len__(self) -> int:
        return self._n_geometries

    @property
    def labels(self) -> frozenset[str]:
        """Protostructures that a crystal with a geometry has."""
        return frozenset(label for label, rows in self._rows.items() if rows[0] < self._n_geometries)

    def start(self, frame: OrbitBatch, others: bool = False) -> Start:
        """The crystals of ``frame`` in the spelling of their label, with geometry where a template is found.

        Args:
            frame: space groups, positions and elements.
            others: from templates with other elements only.
        """
        distance = torch.full((len(frame),), torch.inf)
        position, coordinates = frame.position.clone(), frame.coordinates.clone()
        elements, strain = frame.atomic_number.clone(), frame.strain.clone()
        original = frame.atomic_number.clone()
        for i, (label, crystal) in enumerate(zip(labels_of(frame), frame.to_crystals(), strict=True)):
            template = self._nearest(label, crystal, others)
            if template is None:
                continue
            parent, zs, distance[i] = template
            n = len(zs)
            position[i, :n] = torch.tensor(parent.positions)
            elements[i, :n] = torch.tensor(zs)
            original[i, :n] = torch.tensor(parent.atomic_numbers)
            coordinates[i, :n] = torch.tensor(parent.coordinates, dtype=coordinates.dtype)
            strain[i] = torch.tensor(parent.strain, dtype=strain.dtype)
        started = frame.replace(position=position, atomic_number=elements, coordinates=coordinates, strain=strain)
        return Start(started, original, distance)

    def prototypes(
        self, task: CrystalTask, n: int, generator: torch.Generator, temperature: float = 1.0
    ) -> OrbitBatch | None:
        """Different prototypes of similar compounds with the task's composition, the likelier the more often first.

        Every template votes for its protostructure, with a weight that falls with the distance of its elements and its
        energy above the hull; prototypes are drawn by these votes without repeats.

        Args:
            task: with a composition; what else it asks for holds too.
            n: at most so many.
            generator: CPU generator.
            temperature: of the votes; near 0 the best come first.

        Returns:
            Space groups, positions and elements; coordinates and strain are 0. None if there is no such prototype.
        """
        orders = element_orders(task.composition)
        wanted = self._features[torch.tensor(orders)].flatten(1)
        formula = anonymous_formula(task.composition)
        crystals: list[Crystal] = []
        votes: list[float] = []
        for label in self._rows:
            if label.split("_")[0] != formula:
                continue
            views, features, _ = self._of_label(label)
            away = torch.cdist(features.flatten(1), wanted)
            best, order = away.min(1)
            rows = torch.tensor([view.row for view in views])
            score = -best / VOTE_LENGTH - self._above[rows].clamp(max=1.0).to(best) / VOTE_ENERGY
            nearest = int(best.argmin())
            crystals.append(self._decorated(views[nearest], orders[int(order[nearest])]))
            votes.append(float(torch.logsumexp(score, 0)))
        if not crystals:
            return None
        batch = OrbitBatch.from_crystals(crystals)
        fine = task.fulfilled(batch).nonzero().squeeze(-1)
        if not len(fine):
            return None
        noise = -torch.log(-torch.log(torch.rand(len(votes), generator=generator).clamp(1e-20, 1 - 1e-7)))
        chosen = fine[torch.argsort(torch.tensor(votes)[fine] / temperature + noise[fine], descending=True)[:n]]
        bare = batch.select(chosen)
        return bare.replace(coordinates=torch.zeros_like(bare.coordinates), strain=torch.zeros_like(bare.strain))

    def _of_label(self, label: str) -> tuple[list[_View], Tensor, Tensor]:
        """Views [V], the features [V, S, F] of their species, and the species [V, S]."""
        if label not in self._views:
            rows = self._rows[label]
            crystals = self._batch.select(torch.tensor(rows))  # together: there may be thousands
            sites = zip(
                rows, crystals.space_group.tolist(), crystals.n_orbits.tolist(), crystals.position.tolist(),
                crystals.atomic_number.tolist(), strict=True,
            )  # fmt: skip
            views = [
                _View(row, layout.coset, order)
                for row, group, n, positions, numbers in sites
                for layout in _layouts(group, tuple(positions[:n]), pattern(tuple(numbers[:n])))
                for order in islice(layout.orders(tuple(dict.fromkeys(numbers[:n]))), MOST_ORDERS)
            ]
            species = torch.tensor([view.species for view in views])
            self._views[label] = views, self._features[species], species
        return self._views[label]

    def _crystal(self, row: int) -> Crystal:
        return self._batch.select(torch.tensor([row])).to_crystals()[0]

    def _decorated(self, view: _View, species: Sequence[int]) -> Crystal:
        crystal = self._crystal(view.row)
        new = dict(zip(view.species, species, strict=True))
        return crystal.with_elements(tuple(new[z] for z in crystal.atomic_numbers))

    def _nearest(self, label: str, crystal: Crystal, others: bool) -> tuple[Crystal, tuple[int, ...], float] | None:
        """The nearest template in the label's spelling, the elements that go on its orbits, and how far they are from
        its own."""
        if label not in self._rows or self._rows[label][0] >= self._n_geometries:
            return None
        views, features, species = self._of_label(label)
        n = bisect_left(views, self._n_geometries, key=lambda view: view.row)  # voters come last
        wanted = next(_layouts_of(crystal)[0].orders(_species(crystal)))
        away = ((features[:n] - self._features[torch.tensor(wanted)]) ** 2).sum((1, 2))
        if others:
            same = species[:n].sort(1).values == torch.tensor(sorted(wanted))
            away = away.masked_fill(same.all(1), torch.inf)
        best = int(away.argmin())
        if away[best].isinf():
            return None
        view = views[best]
        parent = self._crystal(view.row)
        if view.coset:  # the first is the identity
            parent = respelled(parent, view.coset)
        new = dict(zip(view.species, wanted, strict=True))
        distance = (float(away[best]) / len(wanted)) ** 0.5
        return parent, tuple(new[z] for z in parent.atomic_numbers), distance


@dataclass(frozen=True)
class _Layout:
    """One of the spellings that a label is read from.

    Attributes:
        coset: that leads to it.
        ties: species by number (`data.protostructure.pattern`) in the order of the label; those that it does not tell
            apart together.
    """

    coset: int
    ties: tuple[tuple[int, ...], ...]

    def orders(self, species: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """``species`` in the order of the label; every order of those that it does not tell apart."""
        for choice in product(*(permutations(tie) for tie in self.ties)):
            yield tuple(species[i] for tie in choice for i in tie)


def _layouts_of(crystal: Crystal) -> tuple[_Layout, ...]:
    return _layouts(crystal.space_group, crystal.positions, pattern(crystal.atomic_numbers))


@lru_cache(maxsize=65536)
def _layouts(space_group: int, positions: tuple[int, ...], species: tuple[int, ...]) -> tuple[_Layout, ...]:
    table = wyckoff_table()
    start = int(table.position_start[space_group])
    offsets = [p - start for p in positions]
    letters = tuple(table.letter[p] for p in positions)
    multiplicity = {x: int(table.multiplicity[p]) for x, p in zip(letters, positions, strict=True)}
    found: dict[tuple[str, ...], int] = {}
    for coset, (_, image) in enumerate(table.cosets(space_group)):
        found.setdefault(tuple(table.letter[start + int(image[o])] for o in offsets), coset)
    ranked = {spelling: _species_rows(spelling, species, letters, multiplicity) for spelling in found}
    best = min([row[:2] for row in rows] for rows in ranked.values())
    layouts = []
    for spelling, rows in ranked.items():
        if [row[:2] for row in rows] == best:
            ties = (tuple(row[2] for row in tie) for _, tie in groupby(rows, key=lambda row: row[:2]))
            layouts.append(_Layout(found[spelling], tuple(ties)))
    return tuple(layouts)


def _species_rows(
    spelling: tuple[str, ...], species: tuple[int, ...], letters: tuple[str, ...], multiplicity: Mapping[str, int]
) -> list[tuple[int, str, int]]:
    """Sites, letters and number of each species, in the order of the label."""
    rows = []
    for one in dict.fromkeys(species):
        orbits = [i for i, other in enumerate(species) if other == one]
        ((count, text),) = species_rows(
            tuple(spelling[i] for i in orbits), (one,) * len(orbits), tuple(letters[i] for i in orbits),
            dict(multiplicity),
        )  # fmt: skip
        rows.append((count, text, one))
    return sorted(rows)


def _species(crystal: Crystal) -> tuple[int, ...]:
    """Different elements in the order of their first place."""
    return tuple(dict.fromkeys(crystal.atomic_numbers))


def anonymous_formula(composition: Mapping[int, int]) -> str:
    """``AB2`` as in the labels."""
    counts = sorted(composition.values())
    return "".join(f"{chr(ord('A') + i)}{n if n > 1 else ''}" for i, n in enumerate(counts))


def element_orders(composition: Mapping[int, int]) -> list[tuple[int, ...]]:
    """Elements by count; every order of those with equal counts, at most `MOST_ORDERS`."""
    ties = [
        [z for z, _ in group]
        for _, group in groupby(sorted(composition.items(), key=lambda item: (item[1], item[0])), key=lambda i: i[1])
    ]
    choices = product(*(permutations(tie) for tie in ties))
    return [tuple(z for tie in choice for z in tie) for choice in islice(choices, MOST_ORDERS)]

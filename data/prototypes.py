"""Structure prototypes: geometry with the elements left open, and the library of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from importlib.resources import files
from itertools import permutations
from pathlib import Path
from typing import Any

from pymatgen.core import Composition, Structure

from data.crystal import Crystal
from data.equivalent_orders import equivalent_orders
from data.protostructure import label_of
from data.symmetry import DEFAULT_SYMPREC, encode
from data.wyckoff import wyckoff_table


@dataclass(frozen=True)
class Prototype:
    """A space group with occupied Wyckoff positions and a reference geometry.

    Attributes:
        name: unique short name, for instance ``elpasolite``.
        space_group: ITA number.
        letters: Wyckoff letter of each of the k orbits.
        species: slot of each orbit, 0-based: orbits with the same slot carry the same element.
        coordinates: free coordinates of the reference, k rows.
        strain: lattice of the reference in the chart of `data.lattice`.
        example: formula of the reference crystal.
        source: where the reference comes from.
        aliases: other names under which `PrototypeLibrary.get` finds it.
    """

    name: str
    space_group: int
    letters: tuple[str, ...]
    species: tuple[int, ...]
    coordinates: tuple[tuple[float, float, float], ...]
    strain: tuple[float, ...]
    example: str
    source: str
    aliases: tuple[str, ...] = ()

    @cached_property
    def label(self) -> str:
        """Protostructure label; prototypes that differ only in free coordinates share it."""
        return label_of(self.space_group, self.letters, self.species)

    @property
    def n_species(self) -> int:
        """Number of element slots."""
        return max(self.species) + 1

    @property
    def n_atoms(self) -> int:
        """Atoms in the primitive cell."""
        table = wyckoff_table()
        return sum(int(table.primitive_multiplicity[table.index(self.space_group, x)]) for x in self.letters)

    @cached_property
    def example_elements(self) -> tuple[tuple[int, ...], ...]:
        """Elements per slot of the reference crystal, from its formula: every assignment that has its composition."""
        amounts = {int(element.Z): float(n) for element, n in Composition(self.example).fractional_composition.items()}
        table = wyckoff_table()
        sites = [0] * self.n_species
        for letter, slot in zip(self.letters, self.species, strict=True):
            sites[slot] += int(table.primitive_multiplicity[table.index(self.space_group, letter)])
        return tuple(
            order
            for order in permutations(amounts)
            if len(order) == self.n_species
            and all(abs(amounts[z] - n / sum(sites)) < 1e-6 for z, n in zip(order, sites, strict=True))
        )

    def crystal(self, elements: Sequence[int]) -> Crystal:
        """Crystal with atomic number ``elements[slot]`` on the orbits of each slot, reference geometry.

        Raises:
            ValueError: not exactly one element per slot.
        """
        if len(elements) != self.n_species:
            raise ValueError(f"elements={list(elements)}: prototype {self.name} has {self.n_species} element slots")
        return self.with_orbit_elements([elements[s] for s in self.species])

    def with_orbit_elements(self, atomic_numbers: Sequence[int]) -> Crystal:
        """Crystal with one atomic number per orbit, reference geometry."""
        return Crystal(
            self.space_group,
            self.letters,
            tuple(int(z) for z in atomic_numbers),
            self.coordinates,
            self.strain,
        )

    @cached_property
    def equivalent_orders(self) -> tuple[tuple[int, ...], ...]:
        """Permutations p of the orbits under which a decoration stays the same crystal.

        Elements e and ``[e[i] for i in p]`` describe one crystal up to relaxation: a normalizer coset
        carries orbit i onto orbit p[i], with free coordinates that end within 0.75 Å of the reference's own.
        Elpasolites have two (A and B exchanged); delafossites only the identity, although their letters
        could be exchanged, because oxygen would then sit near the other metal. They form a group.
        """
        return equivalent_orders(self.space_group, self.letters, self.coordinates, self.strain)

    def as_row(self) -> dict[str, object]:
        """Plain data: numbers, strings and lists."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Prototype:
        """Inverse of `as_row`."""
        lists = {name: tuple(row[name]) for name in ("letters", "species", "strain")}
        lists["aliases"] = tuple(row.get("aliases", ()))
        coordinates = tuple((float(x), float(y), float(z)) for x, y, z in row["coordinates"])
        return cls(**{**row, **lists, "coordinates": coordinates})

    @classmethod
    def from_crystal(cls, name: str, crystal: Crystal, source: str, aliases: Sequence[str] = ()) -> Prototype:
        """A prototype from a crystal; slots follow the order of first appearance."""
        order = list(dict.fromkeys(crystal.atomic_numbers))
        return cls(
            name=name,
            space_group=crystal.space_group,
            letters=crystal.letters,
            species=tuple(order.index(z) for z in crystal.atomic_numbers),
            coordinates=crystal.coordinates,
            strain=crystal.strain,
            example=crystal.reduced_formula,
            source=source,
            aliases=tuple(aliases),
        )

    @classmethod
    def from_structure(
        cls,
        name: str,
        structure: Structure,
        source: str,
        symprec: float = DEFAULT_SYMPREC,
        aliases: Sequence[str] = (),
    ) -> Prototype:
        """A prototype from any ordered crystal, as `from_crystal`."""
        return cls.from_crystal(name, encode(structure, symprec), source, aliases)

    @classmethod
    def from_file(cls, path: Path, name: str | None = None) -> Prototype:
        """A prototype from a CIF or any other structure file; named after the file unless ``name`` is given.

        Raises:
            ValueError: no such file, not exactly one readable structure in it, or partial occupancy.
        """
        from data.sources.structure_files import read_structures

        structures = list(read_structures(path))
        if len(structures) != 1:
            raise ValueError(f"path={str(path)!r}: holds {len(structures)} structures, a prototype needs one")
        try:
            return cls.from_structure(name or path.stem, structures[0][1], f"file {path.name}")
        except ValueError as error:
            raise ValueError(f"path={str(path)!r}: {error}") from None


@dataclass(frozen=True)
class PrototypeLibrary:
    """Prototypes by name."""

    prototypes: tuple[Prototype, ...]

    def __post_init__(self) -> None:
        names = [n for p in self.prototypes for n in (p.name, *p.aliases)]
        repeated = {n for n, count in Counter(names).items() if count > 1}
        if repeated:
            raise ValueError(f"prototype names must be unique, repeated: {', '.join(sorted(repeated))}")

    def __iter__(self) -> Iterator[Prototype]:
        return iter(self.prototypes)

    def __len__(self) -> int:
        return len(self.prototypes)

    @cached_property
    def _by_name(self) -> dict[str, Prototype]:
        return {name: p for p in self.prototypes for name in (p.name, *p.aliases)}

    @property
    def names(self) -> list[str]:
        """All names, in the library's order; without aliases."""
        return [p.name for p in self.prototypes]

    def get(self, name: str) -> Prototype:
        """The prototype with that name or alias, or the first with that protostructure label.

        Raises:
            ValueError: no such prototype; the message proposes near names.
        """
        if name in self._by_name:
            return self._by_name[name]
        for prototype in self.prototypes:
            if prototype.label == name:
                return prototype
        from difflib import get_close_matches

        near = get_close_matches(name, self._by_name, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else "see docs/prototypes.md for the list"
        raise ValueError(f"prototype={name!r} is not in the library: {hint}")

    def with_prototypes(self, extra: Iterable[Prototype]) -> PrototypeLibrary:
        """A library with more prototypes."""
        return PrototypeLibrary((*self.prototypes, *extra))

    def with_files(self, paths: Iterable[Path]) -> PrototypeLibrary:
        """A library with the user's own prototypes: one per CIF or other structure file, named after it.

        Raises:
            ValueError: a file cannot be read as one ordered crystal, or its name is taken.
        """
        return self.with_prototypes(Prototype.from_file(Path(path)) for path in paths)

    def save(self, path: Path) -> None:
        """Write as JSON lines."""
        rows = [json.dumps(p.as_row(), ensure_ascii=False) for p in self.prototypes]
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, text: str) -> PrototypeLibrary:
        """From the text of a JSON-lines file."""
        return cls(tuple(Prototype.from_row(json.loads(line)) for line in text.splitlines()))


@lru_cache(maxsize=1)
def prototype_library() -> PrototypeLibrary:
    """The embedded library, ``data/tables/prototypes.jsonl`` (made by ``scripts/build_prototypes.py``)."""
    return PrototypeLibrary.load((files("data.tables") / "prototypes.jsonl").read_text(encoding="utf-8"))

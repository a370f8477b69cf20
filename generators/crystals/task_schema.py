"""The part of the configuration that says what of a crystal is given."""

from __future__ import annotations

from dataclasses import dataclass, field

KINDS = ("decorations", "crystals")
SOURCES = ("any", "known", "exchanged", "drawn", "decorated", "chosen")


@dataclass
class TaskConfig:
    """Group ``task``: ``decorations`` of known prototypes, or whole ``crystals`` and what of them is given."""

    kind: str = "decorations"
    n: int = 1000  # crystals to draw
    composition: str | None = None  # for instance TiO2
    formula_units: list[int] | None = None  # [fewest, most] in the primitive cell
    chemical_system: str | None = None  # for instance Li-Fe-O: all of these elements and no other
    space_groups: list[int] = field(default_factory=list)
    crystal_system: str | None = None  # cubic, hexagonal, ...
    n_atoms: list[int] | None = None  # [fewest, most] in the primitive cell
    n_elements: list[int] | None = None  # [fewest, most]
    prototypes: list[str] = field(default_factory=list)  # library names or protostructure labels
    seed_structures: list[str] = field(default_factory=list)  # files, embedded or chosen: variants of these
    noise: float = 0.3  # of prototypes' and seeds' geometry: near 0 it stays, 1 forgets it
    keep_elements: float = 0.0  # share of the species of seed structures that keep their element
    exchange: int = 0  # above 0: so many species of a seed or prototype get another element, the rest keep theirs
    within_groups: bool = False  # with exchange: the other element is a neighbour in the group or the f block
    charge_balanced: bool = False  # only crystals whose oxidation states add up to zero (SMACT; alloys do not)
    keep_known: bool | None = None  # known compounds are results too; None: only if a composition is given
    geometries: int | None = None  # of one crystal key that go on; None: 1, all if a composition is given
    prototype_guidance: float | None = None  # of space groups and positions; None: screening.guidance, as for elements
    prototype_temperature: float | None = None  # the same for screening.temperature
    templates: bool = True  # geometries start from embedded crystals of the same protostructure where there are any
    like: str | None = None  # one of SOURCES: which training data to resemble; None: by the wish
    steps: int = 16  # network evaluations for the geometry
    shard_size: int = 250  # crystals per finished file; 4000 keeps a graphics card busy

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"task.kind={self.kind}: use one of {', '.join(KINDS)}")
        if self.like is not None and self.like not in SOURCES:
            raise ValueError(f"task.like={self.like}: use one of {', '.join(SOURCES)}")
        for name in ("n", "steps", "shard_size", "geometries"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"task.{name}={value}: must be at least 1")
        for name in ("formula_units", "n_atoms", "n_elements"):
            value = getattr(self, name)
            if value is not None and len(value) != 2:
                raise ValueError(f"task.{name}={list(value)}: give two numbers, [fewest, most]")
        if self.prototypes and self.seed_structures:
            raise ValueError("task.prototypes, task.seed_structures: give one of them")

    def given(self) -> list[str]:
        """Keys that only whole crystals have and that were set."""
        names = (
            "composition", "formula_units", "chemical_system", "space_groups", "crystal_system", "n_atoms",
            "n_elements", "prototypes", "seed_structures", "charge_balanced",
        )  # fmt: skip
        return [name for name in names if getattr(self, name)]

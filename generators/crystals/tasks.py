"""From what a user writes of a task to the `CrystalTask` that the sampler keeps to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from pymatgen.core import Composition, Element

from data.exchanges import load_all_exchanges, stable_chosen, stable_exchanges
from data.orbit_batch import OrbitBatch
from data.protostructure import label_of
from data.prototypes import Prototype, PrototypeLibrary
from data.sources import Source, read_crystals
from data.wyckoff import wyckoff_table
from generators.crystals.task_schema import TaskConfig
from generators.oracles.overcounted import DOUBTFUL, overcounted
from generators.sampling.crystal_task import CRYSTAL_SYSTEMS, CrystalTask, reduced
from generators.sampling.reachable import MAX_ATOMS, MAX_ORBITS
from generators.wish import Wish, parse_elements

_KEYS = ("n_atoms", "n_elements", "formula_units", "space_groups", "keep_elements", "exchange", "noise", "composition",
         "chemical_system", "charge_balanced")  # fmt: skip
EMBEDDED, CHOSEN = "embedded", "chosen"


def crystal_task(
    config: TaskConfig, wish: Wish, known_elements: Sequence[int], library: PrototypeLibrary
) -> CrystalTask:
    """The task, checked.

    Args:
        config: what the user wrote.
        wish: allowed and forbidden elements.
        known_elements: of the model.
        library: prototypes by name.

    Raises:
        ValueError: what cannot be understood or can never hold; one line that names the key.
    """
    composition = {} if config.composition is None else parse_composition(config.composition)
    system = frozenset[int]()
    if config.chemical_system is not None:
        system = parse_elements(config.chemical_system.split("-"), "task.chemical_system")
    allowed = None
    if wish.allowed_elements is not None or wish.forbidden_elements:
        allowed = (wish.allowed_elements or frozenset(known_elements)) - wish.forbidden_elements
    seeds = _seeds(config, library)
    try:
        task = CrystalTask(
            allowed_elements=allowed,
            chemical_system=system,
            space_groups=_space_groups(config),
            n_atoms=_pair(config.n_atoms, (1, MAX_ATOMS)),
            n_elements=_pair(config.n_elements, (1, 10)),
            composition=composition,
            formula_units=_pair(config.formula_units, (1, MAX_ATOMS)),
            seeds=seeds,
            keep_elements=config.keep_elements if config.seed_structures else 0.0,
            exchange=config.exchange,
            within_groups=config.within_groups,
            noise=config.noise,
            charge_balanced=config.charge_balanced,
        )
    except ValueError as error:
        prefix = "task." if str(error).startswith(_KEYS) else ""
        raise ValueError(f"{prefix}{error}") from None
    task.element_mask(known_elements)
    return task


def parse_composition(text: str) -> dict[int, int]:
    """Atoms of each atomic number in one formula unit. Raises ValueError for what is no formula of whole numbers."""
    try:
        amounts = {element: float(n) for element, n in Composition(text).items()}
    except (ValueError, TypeError):
        amounts = {}
    if not amounts or any(not isinstance(x, Element) or n != int(n) or n < 1 for x, n in amounts.items()):
        raise ValueError(f"task.composition={text!r}: write a formula with whole numbers, such as TiO2 or LiFePO4")
    return reduced({int(element.Z): int(n) for element, n in amounts.items()})


def _pair(value: list[int] | None, default: tuple[int, int]) -> tuple[int, int]:
    return default if value is None else (value[0], value[1])


def _space_groups(config: TaskConfig) -> frozenset[int]:
    chosen = frozenset(config.space_groups)
    if config.crystal_system is None:
        return chosen
    if config.crystal_system not in CRYSTAL_SYSTEMS:
        raise ValueError(f"task.crystal_system={config.crystal_system}: use one of {', '.join(CRYSTAL_SYSTEMS)}")
    first, last = CRYSTAL_SYSTEMS[config.crystal_system]
    system = frozenset(range(first, last + 1))
    if chosen and not chosen & system:
        raise ValueError(f"task.space_groups={sorted(chosen)}: none of them is {config.crystal_system}")
    return chosen & system or system


def _seeds(config: TaskConfig, library: PrototypeLibrary) -> OrbitBatch | None:
    if config.prototypes:
        return OrbitBatch.concatenate([_of_prototype(name, library) for name in config.prototypes])
    if not config.seed_structures:
        return None
    return OrbitBatch.concatenate([_of_seed(name) for name in config.seed_structures])


def chosen_seeds() -> OrbitBatch:
    """The stable chosen draws, without those whose energy may be overcounted (`generators.oracles.overcounted`)."""
    batch = stable_chosen()
    return batch.select(overcounted(batch) <= DOUBTFUL)


def _of_seed(name: str) -> OrbitBatch:
    """Crystals of a file, or the embedded exchanges or chosen draws that are stable by CHGNet."""
    if name in (EMBEDDED, CHOSEN):
        return stable_exchanges() if name == EMBEDDED else chosen_seeds()
    if not Path(name).exists():
        raise ValueError(f"task.seed_structures={name}: no such file; give a file or folder, {EMBEDDED} or {CHOSEN}")
    return read_crystals(Path(name), Source(labels=False, workers=1, max_orbits=MAX_ORBITS))[0].batch


def _of_prototype(name: str, library: PrototypeLibrary) -> OrbitBatch:
    """Crystals of a library name or a protostructure label, with the elements of the prototype's example."""
    try:
        prototype: Prototype = library.get(name)
    except ValueError as error:
        found = _embedded(name)
        if found is not None:
            return found
        raise ValueError(f"task.prototypes: {error}") from None
    elements = next(iter(prototype.example_elements), tuple(range(3, 3 + prototype.n_species)))
    return OrbitBatch.from_crystals([prototype.crystal(elements)])


def _embedded(label: str) -> OrbitBatch | None:
    """The embedded hypothetical crystals of that protostructure."""
    parts, letter = label.split("_"), wyckoff_table().letter
    if len(parts) < 4 or not parts[2].isdigit():
        return None
    batch = load_all_exchanges().batch
    n_orbits, rows = batch.n_orbits, []
    for i in (batch.space_group == int(parts[2])).nonzero().squeeze(-1).tolist():
        n = int(n_orbits[i])
        letters = tuple(letter[p] for p in batch.position[i, :n].tolist())
        if label_of(int(parts[2]), letters, tuple(batch.atomic_number[i, :n].tolist())) == label:
            rows.append(i)
    return batch.select(torch.tensor(rows)) if rows else None


def describe_task(config: TaskConfig) -> str:
    """One line for people."""
    parts = []
    for name in config.given():
        value = getattr(config, name)
        if value is True:
            text = ""
        elif name in ("formula_units", "n_atoms", "n_elements"):
            text = f"{value[0]} to {value[1]}" if value[0] != value[1] else str(value[0])
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        parts.append(f"{name.replace('_', ' ')} {text}".strip())
    return "; ".join(parts) or "de novo"

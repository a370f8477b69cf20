"""Where proposals come from: the model, random decoration, and ion exchange of known compounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.cells import element
from data.dataset import CrystalDataset
from data.decoration import dataset_decorations, decoration_codes, example_decorations
from data.prototype_table import PrototypeTable
from data.prototypes import Prototype
from generators.conditioning import Conditions
from generators.generate_settings import GenerateSettings
from generators.oracles.hull_tables import judged_compounds, reference_compounds
from generators.ranking import depth
from generators.screening.baselines import random_balanced_decorations, random_decorations
from generators.screening.ion_exchange import Similarity, exchanged, known_decorations
from generators.screening.proposals import Propose
from generators.wish import Wish

if TYPE_CHECKING:  # importing Lightning takes seconds
    from generators.module import CompositionDiffusion

MIN_PARENTS = 50


class Sources:
    """Everything that may be proposed under one wish.

    Attributes:
        table: the prototypes of the model and those of the user.
        rows: [R] rows of the table that may be decorated.
        elements: atomic numbers that may be used.
        known: codes of decorations that are not novel: training data, known compounds, the prototypes' references.
        compounds: the embedded known compounds.
        parents: those of them on the table's prototypes (`known_decorations`).
    """

    def __init__(
        self,
        module: CompositionDiffusion,
        training: CrystalDataset,
        wish: Wish,
        settings: GenerateSettings,
        extra_prototypes: Sequence[Prototype] = (),
    ) -> None:
        self.module, self.training = module, training
        self.wish, self.settings = wish, settings
        self.table = self._table(extra_prototypes)
        self.rows = self._rows()
        self.compounds = reference_compounds()
        self.parents = known_decorations(self.table, torch.arange(len(self.table)), self.compounds)
        self.known = self._known_codes()
        self.elements = self._elements()

    def _table(self, extra: Sequence[Prototype]) -> PrototypeTable:
        known = self.module.table.prototypes
        new = [p for p in extra if p.name not in self.module.table.names]
        return PrototypeTable.build([*known, *new]) if new else self.module.table

    def _rows(self) -> Tensor:
        names = self.settings.prototypes or self.module.table.names
        missing = [name for name in names if name not in self.table.names]
        if missing:
            raise ValueError(
                f"prototypes={missing[0]!r}: not known to this model, it knows {', '.join(self.table.names)}"
            )
        return torch.tensor([self.table.names.index(name) for name in names])

    def _known_codes(self) -> NDArray[np.void]:
        names = set(self.table.names)
        inside = torch.tensor([name in names for name in self.training.prototype], dtype=torch.bool)
        training = dataset_decorations(self.training.select(inside), self.table)
        examples = example_decorations(self.table)
        everything = (torch.cat(parts) for parts in zip(training, self.parents[:2], examples, strict=True))
        return decoration_codes(self.table, *everything)

    def _elements(self) -> list[int]:
        allowed = set(self.module.known_elements)
        if self.wish.allowed_elements is not None:
            unknown = self.wish.allowed_elements - allowed
            if unknown:
                raise ValueError(
                    f"allowed_elements={element(min(unknown)).symbol}: the model was not trained on it, it "
                    "knows " + " ".join(element(z).symbol for z in sorted(allowed))
                )
            allowed &= self.wish.allowed_elements
        allowed -= self.wish.forbidden_elements
        most = int(self.table.is_leader[self.rows].sum(-1).max())
        if len(allowed) < most:
            raise ValueError(
                f"allowed_elements: {len(allowed)} elements are left, a chosen prototype needs {most} different"
            )
        return sorted(allowed)

    def model(self) -> Propose:
        """Proposals of the conditional model."""
        sampler = self.module.sampler(self.settings.guidance, self.settings.temperature, frozenset(self.elements))
        names = [scale.name for scale in self.module.scales]
        condition = Conditions.from_wish(self.wish.intervals, names, 1)
        trained = self.rows[self.rows < len(self.module.table)]

        def propose(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            if len(trained) == len(self.rows):
                row = sampler.draw_prototypes(condition, trained, n, generator)
            else:  # a prototype that the model never saw has no probability yet: all alike
                row = self.rows[torch.randint(len(self.rows), (n,), generator=generator)]
            return row, sampler.draw_elements(self.table, row, condition, generator)

        return propose

    def _training_shares(self) -> Tensor:
        """[len(rows)] share of each prototype in the training data (uniform if it has none)."""
        counts = torch.tensor(
            [self.training.prototype.count(self.table.names[i]) for i in self.rows.tolist()], dtype=torch.float64
        )
        return counts / counts.sum() if counts.sum() > 0 else torch.ones_like(counts) / len(counts)

    def random(self, balanced: bool = False) -> Propose:
        """Random decorations of the same prototypes, in the proportions of the training data."""
        shares = self._training_shares()
        draw = random_balanced_decorations if balanced else random_decorations

        def propose(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            picked = self.rows[torch.multinomial(shares, n, replacement=True, generator=generator)]
            return draw(self.table, picked, self.elements, n, generator)

        return propose

    def exchange(self, similarity: Similarity = "probability") -> Propose:
        """Ion exchange of known compounds of the same prototypes, those that fulfil the wish or come closest.

        Parents are the compounds that fulfil the wish, or the closest `MIN_PARENTS` of them.

        Args:
            similarity: elements that go for each other: by mined substitution probabilities, or neighbours in a group.
        """
        row, elements, index = self.parents
        usable = torch.isin(row, self.rows)
        if not bool(usable.any()):
            raise ValueError("ion exchange: no known compound has one of these prototypes")
        row, elements, index = row[usable], elements[usable], index[usable]
        compounds = judged_compounds() if "e_above_hull" in self.wish.intervals else self.compounds
        compounds = compounds.iloc[index.numpy()]
        if all(name in compounds for name in self.wish.intervals):
            spread = {scale.name: float(scale.std) for scale in self.module.scales}
            inside = torch.from_numpy(depth(compounds, self.wish, spread))
            best = torch.argsort(inside, descending=True, stable=True)
            best = best[: max(MIN_PARENTS, int((inside >= 0).sum()))]
            row, elements = row[best], elements[best]

        def propose(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            return exchanged(self.table, (row, elements), self.elements, n, generator, similarity)

        return propose

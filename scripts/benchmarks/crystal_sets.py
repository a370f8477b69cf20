"""The crystals that the benchmark of whole crystals compares, and what counts as known."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pymatgen.core import Composition

import data.tables
from data.dataset import CrystalDataset
from data.decorations import load_decorations
from data.exchanges import load_all_exchanges, load_draws, stable_exchanges
from data.frames import from_frame
from data.orbit_batch import OrbitBatch
from data.sources import read_crystals
from data.splits import split_by
from generators.conditioning import Conditions
from generators.crystals.build import groups_of
from generators.crystals.draws import calculated_crystals, drawn_table, known_voters, templates_of
from generators.crystals.generate import known_prototypes
from generators.crystals.hit_odds import LikelyHits
from generators.crystals.judging import ABOVE, CrystalJudge
from generators.crystals.model import load_crystal_model
from generators.crystals.tasks import chosen_seeds
from generators.crystals.usual import FOR_STABILITY, NEAR_HULL, with_usual_elements
from generators.evaluation.evaluate import ENERGY, Evaluation, Protocol, Reference, evaluate
from generators.evaluation.samples import Samples
from generators.judging import JudgeWorkers
from generators.manifest import file_hash
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.hull import Hull, fractions_of
from generators.oracles.hull_tables import LOWEST, known_compounds, reference_compounds
from generators.oracles.judge import JudgeSettings
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.sampling.crystal_task import CrystalTask
from generators.sampling.crystals import CrystalSampler
from generators.sampling.templates import Templates
from generators.screening.crystal_exchange import exchange_crystals, with_elements
from generators.screening.crystal_funnel import KnownCrystals, screen_crystals
from generators.screening.ion_exchange import Similarity
from generators.shipped import CRYSTAL_SURROGATE, shipped
from generators.wish import Interval, Wish

LARGEST = 20
DRAWN = 4
"""Draws for each crystal that is chosen."""
RELAXED = JudgeSettings(with_bulk_modulus=False, max_evaluations=100)
"""How samples are relaxed: in at most so many evaluations each, without bulk moduli."""
COOL = 0.7
COOLER = CrystalSamplerSettings(temperature=COOL, prototype_temperature=COOL, source=1)
"""Like the known crystals, rather the likelier ones."""
Draw = Callable[[int, int], OrbitBatch]


def _bare(dataset: CrystalDataset) -> CrystalDataset:
    return CrystalDataset(dataset.batch, {}, dataset.prototype, dataset.ids)


def _small(dataset: CrystalDataset) -> CrystalDataset:
    return dataset.select((dataset.batch.n_atoms <= LARGEST).nonzero().squeeze(-1))


def _with_energies(known: CrystalDataset) -> Reference:
    reference = Reference.from_dataset(known)
    energy = reference_compounds().drop_duplicates("id").set_index("id")[ENERGY].reindex(list(known.ids))
    return replace(reference, quantities={**reference.quantities, ENERGY: energy.to_numpy(dtype=np.float64)})


class CrystalBench:
    """The shipped model, the known crystals, and everything that is compared."""

    guided = FOR_STABILITY.sampler_settings

    def __init__(self, structures: Path, model: str | None = None) -> None:
        self.path = Path(model) if model else shipped("crystal")
        self.model = load_crystal_model(self.path)
        known, _ = read_crystals(structures)
        self.known = _bare(known)
        parts = split_by(groups_of(known), (0.9, 0.05, 0.05), self.model.seed)
        self.train, self.test = self.known.select(parts["train"]), self.known.select(parts["test"])
        unseen = self.known.select(torch.cat([parts["val"], parts["test"]]))
        self.unseen, self.seen = _small(unseen), _small(self.train)
        self.exchanges = load_all_exchanges()

    @cached_property
    def reference(self) -> Reference:
        """All crystals that the model may have seen, the held-out ones included."""
        draws = load_draws()
        parts = [self.known, _bare(self.exchanges), _bare(load_decorations()), *([_bare(draws)] if draws else [])]
        return Reference.from_dataset(CrystalDataset.concatenate(parts))

    @cached_property
    def held_out(self) -> Reference:
        """Known crystals of at most `LARGEST` atoms that the model was not trained on, with CHGNet's formation energies."""
        return _with_energies(self.unseen)

    @cached_property
    def trained_on(self) -> Reference:
        """As many of the training part: as near to the held-out ones as a perfect model comes."""
        generator = torch.Generator().manual_seed(0)
        return _with_energies(self.seen.select(torch.randperm(len(self.seen), generator=generator)[: len(self.unseen)]))

    def judged(self, batch: OrbitBatch, hull: Hull, folder: Path) -> Evaluation:
        """Samples relaxed by CHGNet and held against ``hull`` and all that the model may have seen; resumable in ``folder``."""
        dataset = CrystalDataset(batch, {}, ("",) * len(batch), tuple(str(i) for i in range(len(batch))))
        judge = JudgeWorkers(RELAXED)
        return evaluate(Samples(dataset, ()), Protocol(relaxed_symprec=0.1), self.reference, hull, judge, folder)

    def wish(self, **intervals: tuple[float | None, float | None]) -> Conditions:
        """A wish in the order of the model's properties."""
        names = [scale.name for scale in self.model.scales]
        return Conditions.from_wish({name: Interval(*sides) for name, sides in intervals.items()}, names, 1)

    def kept_in(self, cache: Path, name: str, *others: bytes) -> Path:
        """Folder of figures that stand while model, surrogate, embedded tables, usual settings and ``others`` do."""
        tables = sorted(Path(data.tables.__path__[0]).glob("*.parquet"))
        made_of = [file_hash(path).encode() for path in (self.path, shipped(CRYSTAL_SURROGATE), *tables)]
        digest = hashlib.sha256(b"".join([repr((FOR_STABILITY, NEAR_HULL)).encode(), *made_of, *others]))
        folder = cache / f"{name}-{digest.hexdigest()[:8]}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def stable(self) -> Conditions:
        """What the model is asked for under a wish for an energy above the hull of at most 0."""
        return self.wish(e_above_hull=(NEAR_HULL.low, NEAR_HULL.high))

    def small(self, **given: Any) -> CrystalTask:
        """At most `LARGEST` atoms, of the elements that are usual under a wish for stability."""
        wish = Wish({ABOVE: Interval(None, 0.0)})
        return with_usual_elements(CrystalTask(n_atoms=(1, LARGEST), **given), wish, self.model.known_elements)

    @cached_property
    def templates(self) -> Templates:
        """The embedded crystals, without what was made of held-out ones or is one of them."""
        parts = [self._allowed(part) for part in (*calculated_crystals(), known_voters(reference_compounds()))]
        return templates_of(parts, len(parts[-1]))

    def _allowed(self, dataset: CrystalDataset) -> CrystalDataset:
        held_out, keys = set(self.test.ids), set(self.test.keys())
        fine = [
            i for i, (name, key) in enumerate(zip(dataset.ids, dataset.keys(), strict=True))
            if name not in held_out and key not in keys
        ]  # fmt: skip
        return dataset.select(torch.tensor(fine))

    def sampler(self, settings: CrystalSamplerSettings | None = None, templates: bool = True) -> CrystalSampler:
        """A sampler of the averaged weights."""
        return self.model.sampler(settings, self.templates if templates else None)

    def drawn(
        self, task: CrystalTask, settings: CrystalSamplerSettings, wish: Conditions, templates: bool = True
    ) -> Draw:
        """Samples of the model."""

        def draw(n: int, seed: int) -> OrbitBatch:
            return self.sampler(settings, templates).draw(task, wish, n, torch.Generator().manual_seed(seed))

        return draw

    def _parents(self) -> OrbitBatch:
        batch = self.train.batch
        return batch.select(batch.n_atoms <= LARGEST)

    def exchanged(self, similarity: Similarity, one: float = 0.0, parents: OrbitBatch | None = None) -> Draw:
        """Ion exchange of known (or other) crystals, cells rescaled by atomic volumes; see `exchange_crystals`."""
        parents = self._parents() if parents is None else parents

        def draw(n: int, seed: int) -> OrbitBatch:
            generator = torch.Generator().manual_seed(seed)
            picked = torch.randint(len(parents), (2 * n,), generator=generator)
            children, _ = exchange_crystals(parents.select(picked), generator, one=one, similarity=similarity)
            return children.select(torch.arange(n))

        return draw

    @cached_property
    def likely(self) -> LikelyHits:
        """How likely crystals are stable, by the embedded surrogate."""
        return LikelyHits(CrystalJudge(Wish({}), hull="known"))

    @cached_property
    def as_known(self) -> KnownCrystals:
        """What is not new: known crystals and everything embedded."""
        return KnownCrystals(self.known)

    def chosen(self, draw: Draw, drawn: int = DRAWN) -> Draw:
        """What `raremat-generate` hands to the judge: of ``drawn`` times as many draws the new ones that the embedded
        surrogate finds likeliest to be stable."""

        def choose(n: int, seed: int) -> OrbitBatch:
            table = drawn_table(draw(drawn * n, seed), "draw").assign(seconds=0.0)
            return from_frame(
                screen_crystals(
                    [table], self.as_known, known_prototypes(), n, likely=self.likely.log_probability
                ).chosen
            )  # fmt: skip

        return choose

    def decorated(self, n: int, seed: int) -> OrbitBatch:
        """Known crystals with other elements drawn evenly, equal ones staying equal."""
        generator = torch.Generator().manual_seed(seed)
        parents = self._parents()
        batch = parents.select(torch.randint(len(parents), (n,), generator=generator))
        known = torch.tensor(self.model.known_elements)
        order = torch.rand(n, len(known), generator=generator).argsort(1)
        mapping = torch.zeros(n, 119, dtype=torch.long)
        mapping[:, known] = known[order]
        return with_elements(batch, mapping.gather(1, batch.atomic_number) * batch.mask)

    def sets(self) -> dict[str, tuple[Draw, int]]:
        """Label -> (draw, number of seeds)."""
        stable = self.stable()
        seeds, own, guided = stable_exchanges(), chosen_seeds(), self.guided
        own = own.select(own.n_atoms <= LARGEST)
        like_known = CrystalTask(n_atoms=(1, LARGEST))
        from_nothing = self.drawn(self.small(), guided, stable)
        on_prototypes = self.drawn(CrystalTask(seeds=seeds, noise=0.05), guided, stable)

        def within_groups(parents: OrbitBatch) -> Draw:
            task = CrystalTask(seeds=parents, noise=0.02, exchange=1, within_groups=True)
            return self.drawn(task, guided, stable)

        learned, of_own = within_groups(seeds), within_groups(own)
        exchanged, exchanged_own = (self.exchanged("group", 1.0, parents) for parents in (seeds, own))
        return {
            "raremat, like the known ones": (
                self.drawn(like_known, CrystalSamplerSettings(source=1), self.wish()), 1
            ),
            f"raremat, the same at temperature {COOL}": (self.drawn(like_known, COOLER, self.wish()), 1),
            "raremat, the same, every geometry from noise": (
                self.drawn(like_known, COOLER, self.wish(), False), 1
            ),
            "raremat, wish: stable": (from_nothing, 3),
            "raremat, the same, chosen": (self.chosen(from_nothing), 3),
            "raremat, the same, chosen of 8": (self.chosen(from_nothing, 8), 3),
            "raremat, the same, three to five elements": (
                self.drawn(self.small(n_elements=(3, 5)), guided, stable), 1
            ),
            "raremat, the same, charge-balanced": (
                self.drawn(self.small(charge_balanced=True), guided, stable), 1
            ),
            "raremat, the same on known prototypes": (on_prototypes, 1),
            "raremat, the same on known prototypes, chosen": (self.chosen(on_prototypes), 1),
            "raremat, exchange within groups in embedded exchanges": (learned, 1),
            "raremat, exchange within groups in embedded exchanges, chosen": (self.chosen(learned), 1),
            "raremat, exchange within groups in its own stable draws": (of_own, 3),
            "raremat, exchange within groups in its own stable draws, chosen": (self.chosen(of_own), 3),
            "ion exchange, one element by its group neighbour": (self.exchanged("group", 1.0), 3),
            "ion exchange of the embedded exchanges": (exchanged, 1),
            "ion exchange of the embedded exchanges, chosen": (self.chosen(exchanged), 1),
            "ion exchange of raremat's own stable draws": (exchanged_own, 3),
            "ion exchange of raremat's own stable draws, chosen": (self.chosen(exchanged_own), 3),
            "ion exchange, substitution probabilities": (self.exchanged("probability"), 1),
            "random decoration": (self.decorated, 1),
            "random decoration, chosen": (self.chosen(self.decorated), 1),
        }  # fmt: skip


def published_hull(folder: Path) -> Hull:
    """The lower envelope of CHGNet's energies of the known compounds and the published ones of the Materials Project's
    hull (``hull/mp_on_hull.parquet``), which CHGNet was trained to give."""
    fractions, energy = known_compounds()
    table = pd.read_parquet(folder / "hull" / "mp_on_hull.parquet")
    table = table[table[ENERGY] > LOWEST]
    published = fractions_of([Composition(f).reduced_formula for f in table["formula"]])
    usable = np.isfinite(published).all(1)
    return Hull(
        np.concatenate([fractions, published[usable]]),
        np.concatenate([energy, table[ENERGY].to_numpy(np.float64)[usable]]),
        SCALE,
    )


def known_pairs(known: CrystalDataset, folder: Path) -> set[tuple[str, int]]:
    """(reduced formula, space group) of everything at hand; formulas without a space group count with all groups."""
    pairs = {(c.reduced_formula, c.space_group) for c in known.batch.to_crystals()}
    for path in sorted((folder / "matbench").glob("*.parquet")):
        table = pd.read_parquet(path)
        group = next((c for c in table.columns if "space_group" in c or "spacegroup" in c), None)
        name = next((c for c in ("formula", "composition") if c in table.columns), None)
        if group is not None and name is not None:
            reduced = {f: Composition(f).reduced_formula for f in table[name].unique()}
            pairs |= {(reduced[f], int(g)) for f, g in zip(table[name], table[group], strict=True) if g == g}
    for path in sorted((folder / "hull").glob("*.parquet")):
        table = pd.read_parquet(path)
        if "formula" in table.columns:
            formulas = {Composition(f).reduced_formula for f in table["formula"].unique()}
            pairs |= {(f, g) for f in formulas for g in range(1, 231)}
    return pairs

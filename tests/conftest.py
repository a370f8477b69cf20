"""What several tests share."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from data.crystal import Crystal
from data.lattice import strain_mask
from data.orbit_batch import OrbitBatch
from data.wyckoff import wyckoff_table


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first, so that no worker is left with it when the other has nothing to do."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither read nor write what the user's home keeps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAREMAT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


OfflineRun = tuple[dict[str, object], set[str]]


def _records(content: bytes) -> Iterator[bytes]:
    """Records of a ``.wandb`` file: a 7 byte header, then LevelDB's log format in blocks of 32 kB."""
    offset, parts = 7, b""
    while offset + 7 <= len(content):
        if 32768 - offset % 32768 < 7:
            offset += 32768 - offset % 32768
            continue
        length, kind = struct.unpack("<HB", content[offset + 4 : offset + 7])
        parts += content[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in (1, 4):  # full record, or the last of several parts
            yield parts
            parts = b""


def _read(folder: Path) -> OfflineRun:
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # waits for the service: a finished run's file is still being written when finish() returns
    (file,) = {path.resolve() for path in folder.rglob("run-*.wandb")}  # a link points at the latest run
    summary: dict[str, object] = {}
    history: set[str] = set()
    for data in _records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        for item in record.summary.update:
            summary[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
        history.update(item.key or ".".join(item.nested_key) for item in record.history.item)
    return summary, history


@pytest.fixture
def read_offline_run() -> Callable[[Path], OfflineRun]:
    """Reads the one offline W&B run below a folder: (summary, names in the history)."""
    return _read


def _random_crystal(generator: torch.Generator, groups: Sequence[int], most: int, elements: Sequence[int]) -> Crystal:
    def integer(n: int) -> int:
        return int(torch.randint(n, (), generator=generator))

    table = wyckoff_table()
    group = groups[integer(len(groups))]
    start, n = int(table.position_start[group]), int(table.n_positions[group])
    letters: list[str] = []
    for _ in range(1 + integer(most)):
        position = start + integer(min(n, 8))
        letter = table.letter[position]
        if table.degrees_of_freedom[position] or letter not in letters:
            letters.append(letter)
    index = [table.index(group, x) for x in letters]
    free = table.free[index]
    atoms = int(table.multiplicity[index].sum())
    u = torch.rand(len(letters), 3, generator=generator, dtype=torch.float64) * free
    strain = 0.1 * torch.randn(6, generator=generator, dtype=torch.float64)
    strain[0] += torch.log(torch.tensor(15.0 * atoms))
    strain *= strain_mask(torch.tensor(group))
    return Crystal(
        group, tuple(letters), tuple(elements[integer(len(elements))] for _ in letters),
        tuple((x, y, z) for x, y, z in u.tolist()), tuple(strain.tolist()),
    )  # fmt: skip


@pytest.fixture(scope="session")
def crystal_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of a small untrained model of whole crystals, every weight perturbed; its cells have usual volumes."""
    from data.strain_scale import StrainScale
    from generators.checkpoints import save_checkpoint
    from generators.conditioning import PropertyScale
    from generators.crystals.module import CrystalDiffusion
    from generators.denoiser.crystal_denoiser import CrystalDenoiserConfig
    from generators.screening.atomic_volumes import atomic_volumes

    torch.manual_seed(0)
    module = CrystalDiffusion(
        [PropertyScale.fit(n, torch.linspace(-3, 1, 100)) for n in ("formation_energy_per_atom", "band_gap")],
        StrainScale(atomic_volumes(), torch.zeros(6, 6), 0.05 * torch.ones(6, 6)),
        list(range(1, 84)),
        CrystalDenoiserConfig(width=16, depth=1, heads=2, n_radial=4, dropout=0.0),
    )
    with torch.no_grad():
        for weight in module.averaged.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    path = tmp_path_factory.mktemp("model") / "crystal.pt"
    save_checkpoint(path, "crystal", *module.export())
    return path


@pytest.fixture
def random_batch() -> Callable[..., OrbitBatch]:
    """Makes random crystals of random space groups: (number, seed, groups, most orbits, elements)."""

    def make(
        n: int,
        seed: int = 0,
        groups: Sequence[int] = tuple(range(1, 231)),
        most: int = 5,
        elements: Sequence[int] = (3, 8, 12, 17, 22, 26, 38, 56),
    ) -> OrbitBatch:
        generator = torch.Generator().manual_seed(seed)
        return OrbitBatch.from_crystals([_random_crystal(generator, groups, most, elements) for _ in range(n)])

    return make

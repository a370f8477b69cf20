from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["world=mars", "data=x"], "benchmark: world=mars: choose from elpasolite, perov_5, perov_5_gap, decorations"),
        (["world=perov_5", "data=nowhere"], "benchmark: data=nowhere: has no perov_5/perovskites.parquet"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], line: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "benchmark.py"), *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == line


def test_the_best_setting_and_the_front_of_a_way() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from benchmarks.campaign_tables import calls_until
        from benchmarks.curve_ways import OURS, best, front, point
    finally:
        sys.path.pop(0)
    rows = {"a": [[0.9, 0.2, 0.1], [0.8, 0.4, 0.1]], "b": [[0.7, 0.5, 0.1]] * 2, "c": [[0.6, 0.4, 0.1]] * 2}
    points = [point(f"{OURS}|{key}", values) for key, values in rows.items()]
    assert points[0].precision == pytest.approx((0.85, 0.05 * 2**0.5))
    assert [x.setting for x in front(points, OURS)] == ["a", "b"]
    assert [getattr(best(points, OURS, level), "setting", None) for level in (0.3, 0.31, 0.6)] == ["a", "b", None]
    rounds = [{"calls": 100, "hits_so_far": 10}, {"calls": 200, "hits_so_far": 50}]
    assert calls_until(rounds, 30) == pytest.approx(150)
    assert calls_until(rounds, 51) == float("inf")


def test_draws_share_a_veto_and_keep_their_order() -> None:
    import torch

    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from benchmarks.curve_ways import vetoed
    finally:
        sys.path.pop(0)

    def propose(n: int, generator: torch.Generator) -> torch.Tensor:
        return torch.randint(100, (n, 1), generator=generator)

    kept = vetoed(propose, lambda x: x[:, 0] / 100, (0.0, 0.5), 50, torch.Generator().manual_seed(0))
    again = torch.Generator().manual_seed(0)
    drawn = torch.cat([propose(50, again), propose(50, again), propose(50, again)])
    assert torch.equal(kept[0.0], drawn[:50])
    assert torch.equal(kept[0.5], drawn[drawn[:, 0] >= 50][:50])
    assert len(kept[0.5]) == 50

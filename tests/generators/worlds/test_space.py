from __future__ import annotations

import torch

from generators.worlds.scores import score_samples
from generators.worlds.space import Space
from generators.worlds.world import World


def test_every_crystal_once_and_both_spellings_found(space: Space) -> None:
    assert len(space) == 6 * 5 // 2 * 4 * 3
    assert space.distinct and bool((space.spellings == 2).all())
    everything = torch.arange(len(space))
    elements = space.at(everything)
    assert torch.equal(space.index(elements), everything)
    assert torch.equal(space.index(elements[:, [1, 0, 2, 3]]), everything)
    assert not torch.equal(space.index(elements[:, [0, 1, 3, 2]]), everything)
    assert int(space.index(torch.tensor([[3, 8, 9, 80]]))[0]) == -1


def test_scores_count_draws_and_crystals(world: World) -> None:
    wish = next(iter(world.targets.values()))
    hits = world.hits(wish).nonzero().squeeze(1)
    assert len(hits) == 18
    misses = (~world.hits(wish)).nonzero().squeeze(1)
    elements = world.space.at(torch.cat([hits[:6], hits[:6], misses[:4]]))
    score = score_samples(world, wish, elements, learnt=hits[:3])
    assert score.precision == 12 / 16
    assert score.unique_precision == 6 / 10
    assert score.coverage == 6 / 18
    assert score.spelling_coverage == 6 / 36
    assert score.novel_hits == 0.5
    outside = torch.cat([elements, torch.tensor([[80, 81, 82, 83]])])
    assert score_samples(world, wish, outside).precision == 12 / 17

"""Embedded crystals as templates, and known compounds as voters."""

from __future__ import annotations

import torch

from data.protostructure import protostructure_label
from generators.crystals.draws import embedded_templates
from generators.sampling.crystal_task import CrystalTask


def test_known_compounds_of_the_formula_vote_for_prototypes() -> None:
    task = CrystalTask(composition={56: 1, 8: 1, 34: 2})
    alone, voted = embedded_templates(), embedded_templates("ABC2")
    assert len(voted) == len(alone) and voted.labels == alone.labels
    chosen = [t.prototypes(task, 5000, torch.Generator().manual_seed(0)) for t in (alone, voted)]
    fewer, more = ({protostructure_label(c) for c in some.to_crystals()} for some in chosen if some is not None)
    assert fewer < more
    assert {label.split("_")[0] for label in more} == {"ABC2"}


def test_a_formula_that_no_known_compound_has_has_no_voters() -> None:
    assert len(embedded_templates("A11B19")) == len(embedded_templates())

"""Readers: structure files and tables become a `data.dataset.CrystalDataset`; bad rows get a reason."""

from data.sources.read import Source, read_crystals
from data.sources.rows import Rejected, write_rejected

__all__ = ["Rejected", "Source", "read_crystals", "write_rejected"]

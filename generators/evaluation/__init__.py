"""Evaluation of anybody's crystals: ``raremat-evaluate``."""

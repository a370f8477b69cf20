"""Embedded tables, each made by a script in ``scripts/`` (see the cards beside them)."""

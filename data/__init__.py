"""Crystals in and out: Wyckoff tables, prototypes, records, readers and data sets. No model code."""

"""Judges: CHGNet and the surrogate, behind one interface."""

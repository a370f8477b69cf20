"""Whole crystals: the joint diffusion over prototype, elements, coordinates and lattice, from data to answers."""

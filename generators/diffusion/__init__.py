"""Diffusion processes over fields; they know no crystals."""

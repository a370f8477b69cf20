"""The Hydra tree, installed as ``generators.conf``."""

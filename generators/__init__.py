"""Conditional generative design of crystals: models, oracles, screening, reports, command line."""

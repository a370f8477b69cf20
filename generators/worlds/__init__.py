"""Worlds with known truth: every crystal of a space enumerated, and what the judge says of it."""

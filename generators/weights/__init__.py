"""Shipped weights, each with a card."""

"""Networks that predict what is hidden."""

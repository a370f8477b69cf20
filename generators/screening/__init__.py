"""From proposals to candidates, and the baselines."""

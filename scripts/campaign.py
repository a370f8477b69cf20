"""The same as the console command ``raremat-campaign``."""

from generators.cli import campaign

if __name__ == "__main__":
    campaign()

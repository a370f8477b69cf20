"""The same as the console command ``raremat-train``."""

from generators.cli import train

if __name__ == "__main__":
    train()

"""The same as the console command ``raremat-generate``."""

from generators.cli import generate

if __name__ == "__main__":
    generate()

"""The same as the console command ``raremat-evaluate``."""

from generators.cli import evaluate

if __name__ == "__main__":
    evaluate()

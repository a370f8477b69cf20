"""Write the column ``e_above_hull`` of the embedded tables anew, after the embedded hull has changed.

The tables are decorations, exchanges, predicted compounds, draws and chosen ones; formation energies stay as they are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from data.decorations import load_decorations
from data.exchanges import load_exchanges
from generators.judging import write_parquet
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.hull import fractions_of_batch
from generators.oracles.hull_tables import ENERGY, chgnet_hull


def main() -> None:
    tables = Path(__file__).parents[1] / "data" / "tables"
    for name in ("decorations", "exchanges", "predicted_compounds", "draws", "chosen"):
        path = tables / f"{name}.parquet"
        dataset = load_decorations() if name == "decorations" else load_exchanges(path)
        table: pd.DataFrame = pd.read_parquet(path)
        above = chgnet_hull().e_above_hull(fractions_of_batch(dataset.batch), table[ENERGY].to_numpy(float), SCALE)
        moved = above - table["e_above_hull"].to_numpy(float)
        table["e_above_hull"] = above.astype(table["e_above_hull"].to_numpy().dtype).round(3)
        write_parquet(table, path, small=True)
        shares = ", ".join(f"{(above <= at).mean():.1%} at most {at:g}" for at in (0.0, 0.05, 0.1, 0.2))
        print(f"{name}: moved by {np.nanmean(moved):.3f} eV/atom on average; above the embedded hull: {shares}")


if __name__ == "__main__":
    main()

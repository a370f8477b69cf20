"""The best candidates of a run before judges that neither trained nor steered anything."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from generators.judging import write_parquet
from generators.oracles.cgcnn import CgcnnOracle
from generators.oracles.judge import SevenNetJudge
from generators.oracles.second_opinion import second_opinion
from generators.outcome import Answer
from generators.wish import Wish

log = logging.getLogger(__name__)
CHUNK = 16


class SecondJudges:
    """SevenNet and CGCNN, loaded before a run starts so that a missing package is told at once.

    Raises:
        ValueError: they are not installed.
    """

    def __init__(self) -> None:
        try:
            self.judge, self.network = SevenNetJudge(), CgcnnOracle()
        except ImportError as error:
            raise ValueError(f"oracle.second_opinions: {error}") from None

    def confirm(self, answer: Answer, wish: Wish, n: int, folder: Path) -> Answer:
        """The answer with second values for its ``n`` best candidates, and their counts in the summary.

        Kept in ``folder / "second_opinion.parquet"``; what is there is not judged again.
        """
        best = answer.candidates.head(n)
        opinions = self._opinions(best, wish, folder / "second_opinion.parquet")
        candidates = answer.candidates.join(opinions)
        confirmed = opinions["confirmed"]
        of_hits = confirmed[best["hit"].to_numpy(dtype=bool)]
        summary: dict[str, Any] = {
            "judged": len(best),
            "hits": len(of_hits),
            "hits_confirmed": int((of_hits == True).sum()),  # noqa: E712
            "hits_refuted": int((of_hits == False).sum()),  # noqa: E712
            "confirmed": int((confirmed == True).sum()),  # noqa: E712
            "refuted": int((confirmed == False).sum()),  # noqa: E712
            "unknown": int(confirmed.isna().sum()),
            "mean_disagreement": float(opinions["disagreement"].mean()),
            "mean_disagreement_cgcnn": float(opinions["disagreement_cgcnn"].mean()),
            "judges": f"{self.judge.scale} with MP2020 corrections, {self.network.scale}",
        }
        return replace(answer, candidates=candidates, summary={**answer.summary, "second_opinion": summary})

    def _opinions(self, best: pd.DataFrame, wish: Wish, path: Path) -> pd.DataFrame:
        if path.exists():
            done = pd.read_parquet(path)
            complete = "disagreement_cgcnn" in done
            if complete and done["crystal_key"].tolist() == best["crystal_key"].tolist():
                return done.drop(columns="crystal_key")
        parts = []
        with tqdm(total=len(best), unit="crystal", desc="second opinion", mininterval=1.0) as bar:
            for start in range(0, len(best), CHUNK):
                part = best.iloc[start : start + CHUNK]
                parts.append(second_opinion(part, wish, self.judge, self.network))
                bar.update(len(part))
        opinions = pd.concat(parts) if parts else second_opinion(best, wish, self.judge, self.network)
        opinions["confirmed"] = opinions["confirmed"].astype("boolean")
        write_parquet(opinions.assign(crystal_key=best["crystal_key"]), path)
        return opinions

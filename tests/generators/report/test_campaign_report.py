from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from generators.report.campaign import goodhart, hits_over_calls, write_campaign_report

ROUNDS = [
    {"calls": 10, "hits": 1, "hits_so_far": 1, "predicted_hits": None},
    {"calls": 20, "hits": 6, "hits_so_far": 7, "predicted_hits": 4.5},
]


def test_hits_over_calls_beside_random() -> None:
    found, random = hits_over_calls(ROUNDS, existing=30, share=0.1).data
    assert list(zip(found.x, found.y, strict=True)) == [(0, 0), (10, 1), (20, 7)]
    assert list(random.y) == pytest.approx([0, 1, 2])


def test_a_round_without_expectation_is_not_in_the_goodhart_check() -> None:
    expected, confirmed = goodhart(ROUNDS).data
    assert list(expected.x) == [20] and list(expected.y) == [4.5] and list(confirmed.y) == [6]


def test_the_page_lists_hits_that_were_judged_and_the_front_first(tmp_path: Path) -> None:
    judged = pd.DataFrame(
        {
            "round": [-1, 0, 1, 1],
            "elements": [[11, 19, 13, 9], [11, 19, 31, 9], [3, 19, 13, 9], [3, 37, 13, 17]],
            "gap": [1.0, 2.0, 3.0, 0.0],
            "hit": [True, True, True, False],
            "pareto": [True, False, True, False],
        }
    )
    summary = {"wish": "gap in [1, null]", "judge": "a <table>", "calls": 20, "hits": 7, "existing_hits": 30,
               "share_of_hits": 0.1, "rounds": ROUNDS}  # fmt: skip
    text = write_campaign_report(tmp_path, summary, judged).read_text()
    assert "a &lt;table&gt;" in text and "7 of 30 existing hits were found in 20 judge calls" in text
    assert text.index("Li K Al F") < text.index("Na K Ga F")
    assert "Na K Al F" not in text and "Li Rb Al Cl" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]

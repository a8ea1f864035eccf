"""Edits of a text: all made at once, by places in the text as it was."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2t.review.edits import Edit, apply


def test_every_edit_is_made_by_its_place_in_the_old_text() -> None:
    text = "map:\n- {tf: a, torch: b}\n"
    edits = [Edit(23, 23, ", use: dense"), Edit(12, 13, "dense"), Edit(0, 0, "# rows\n"), Edit(14, 15, "  ")]

    assert apply(text, edits) == "# rows\nmap:\n- {tf: dense,  torch: b, use: dense}\n"


@pytest.mark.parametrize("edits", [[], [Edit(2, 2, "")], [Edit(0, 4, "text")]])
def test_nothing_changes_where_no_edit_says_so(edits: list[Edit]) -> None:
    assert apply("text", edits) == "text"


@pytest.mark.parametrize(
    ("edits", "refused"),
    [
        ([Edit(0, 3, "a"), Edit(2, 4, "b")], "edits 0:3 and 2:4 overlap"),
        ([Edit(2, 4, "b"), Edit(0, 3, "a")], "edits 0:3 and 2:4 overlap"),
        ([Edit(1, 1, "a"), Edit(1, 1, "b")], "edits 1:1 and 1:1 overlap"),
        ([Edit(1, 1, "a"), Edit(1, 2, "b")], "edits 1:1 and 1:2 overlap"),
        ([Edit(3, 5, "a")], "edit 3:5 lies outside a text of 4 characters"),
        ([Edit(-1, 0, "a")], "edit -1:0 lies outside a text of 4 characters"),
        ([Edit(3, 2, "a")], "edit 3:2 lies outside a text of 4 characters"),
    ],
)
def test_edits_whose_meaning_is_not_known_are_refused(edits: list[Edit], refused: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(refused)}$"):
        apply("text", edits)


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=4), st.text(max_size=4), st.text(min_size=1, max_size=4)), max_size=6))
def test_what_lies_between_edits_stays(pieces: list[tuple[str, str, str]]) -> None:
    """`old` becomes `new`, and `kept` behind it stays; in any order of the edits."""
    edits: list[Edit] = []
    before = after = ""
    for old, new, kept in pieces:
        edits.append(Edit(len(before), len(before) + len(old), new))
        before += old + kept
        after += new + kept

    assert apply(before, reversed(edits)) == apply(before, edits) == after

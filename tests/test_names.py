"""Names: shown in messages, matched by globs, proposed when they are near."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2t.names import did_you_mean, matches, nearest, shown


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dense/kernel", "dense/kernel"),
        ("größe/核", "größe/核"),
        ("", ""),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("null\0", r"null\x00"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\udcff", r"\udcff"),
        ("x" * 120, "x" * 120),
        ("x" * 121, "x" * 117 + "..."),
        ("\n" * 100, r"\n" * 58 + "\\" + "..."),
    ],
)
def test_a_name_is_shown_in_one_printable_line_of_at_most_120_characters(name: str, text: str) -> None:
    assert shown(name) == text


@given(st.text(st.characters()))
def test_whatever_a_name_holds_it_is_shown_printable_and_short(name: str) -> None:
    assert shown(name).isprintable()
    assert len(shown(name)) <= 120


@pytest.mark.parametrize(
    ("pattern", "matched", "other"),
    [
        ("a", ["a"], ["b", "aa", "a/a", ""]),
        ("a/b", ["a/b"], ["a", "a/b/c", "ab"]),
        ("*", ["a", "", "a.b"], ["a/b"]),
        ("a*", ["a", "ab", "a*"], ["ba", "a/b"]),
        ("*a", ["a", "ba", "aa"], ["ab", "b/a"]),
        ("a*b*c", ["abc", "axbxc", "abbcc", "abcbc"], ["ac", "acb", "a/b/c"]),
        ("*a*", ["a", "bab"], ["b"]),
        ("*/kernel", ["dense/kernel", "/kernel"], ["kernel", "a/b/kernel"]),
        ("**", ["", "a", "a/b", "a/b/c"], []),
        ("**/**", ["", "a", "a/b", "a/b/c"], []),
        ("a/**", ["a", "a/b", "a/b/c", "a/"], ["ab", "b/a"]),
        ("**/a", ["a", "b/a", "c/b/a", "/a"], ["ba", "a/b"]),
        ("**/**/a", ["a", "b/a", "c/b/a"], ["ba", "a/b"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b", "a/b/b"], ["ab", "a/bb", "a/b/x"]),
        ("a/**/**/b", ["a/b", "a/x/b"], ["a/bb"]),
        ("**/a/**", ["a", "x/a", "a/x", "x/a/y"], ["xa", "ax"]),
        ("**/a/*/b/**", ["a/x/b", "p/a/x/b/q", "a/a/b/b", "a/a/x/b"], ["a/b", "a/x/y/b"]),
        ("a**b", ["ab", "axb"], ["a/b"]),
        ("***", ["a", ""], ["a/b"]),
        ("a.b", ["a.b"], ["axb"]),
        ("[a]", ["[a]"], ["a"]),
        ("a\nb", ["a\nb"], []),
        ("a", [], ["a\n"]),
    ],
)
def test_a_star_stays_in_one_part_and_two_are_whole_parts(pattern: str, matched: list[str], other: list[str]) -> None:
    assert [name for name in matched if not matches(pattern, name)] == []
    assert [name for name in other if matches(pattern, name)] == []


def test_parts_of_a_modules_name_are_separated_by_dots() -> None:
    assert matches("layer.*.weight", "layer.0.weight", ".")
    assert not matches("layer.*", "layer.0.weight", ".")
    assert matches("layer.**", "layer.0.weight", ".")
    assert matches("*", "a/b", ".")


PIECES = st.lists(st.sampled_from(["a", "b", "ab", "*", "a*", "*b", "a*b", "*a*", "**"]), min_size=1, max_size=5)


@settings(max_examples=300)
@given(PIECES, st.lists(st.text("ab", max_size=3), min_size=1, max_size=5))
def test_the_expression_matches_what_a_plain_one_matches(pattern: list[str], name: list[str]) -> None:
    """The oracle tries every way: one expression for each number of parts that a `**` may stand for."""

    def ways(parts: list[str]) -> list[list[str]]:
        if not parts:
            return [[]]
        rest = ways(parts[1:])
        if parts[0] != "**":
            return [[parts[0], *way] for way in rest]
        return [["*"] * count + way for count in range(len(name) + 1) for way in rest]

    def fits(part: str, text: str) -> bool:
        return re.fullmatch(part.replace("*", ".*"), text) is not None

    expected = any(
        len(way) == len(name) and all(map(fits, way, name)) for way in ways(pattern) if len(way) <= len(name)
    )

    assert matches("/".join(pattern), "/".join(name)) == expected


@pytest.mark.parametrize(
    ("pattern", "name"),
    [("*a" * 30 + "b", "a" * 1000), ("**/a/" * 30 + "b", "a/" * 1000), ("*a*/" * 20 + "b", "aaaa/" * 200)],
)
def test_no_pattern_takes_long(pattern: str, name: str) -> None:
    began = time.process_time()

    assert not matches(pattern, name)
    assert time.process_time() - began < 1


def test_near_names_come_nearest_first_and_far_ones_not_at_all() -> None:
    candidates = ["dense/bias", "dense/kernel", "dense_1/kernel", "conv/kernel", "global_step"]

    assert nearest("dense/kernl", candidates) == ["dense/kernel", "dense_1/kernel", "conv/kernel"]
    assert nearest("dense/kernl", candidates, 1) == ["dense/kernel"]
    assert nearest("xyz", candidates) == []


def test_the_order_of_the_candidates_does_not_matter() -> None:
    assert nearest("b", ["b2", "b1", "b3"], 2) == nearest("b", ["b3", "b1", "b2"], 2)


def test_a_proposal_names_them_or_says_nothing() -> None:
    assert did_you_mean("weigth", ["weight", "bias"]) == "did you mean weight"
    assert did_you_mean("ab", ["abc", "abd", "abe", "abf"]) == "did you mean abf, abe, abd"
    assert did_you_mean("we\x1bight", ["we\x1bght"]) == r"did you mean we\x1bght"
    assert did_you_mean("weigth", ["bias"]) == ""
    assert did_you_mean("weigth", []) == ""

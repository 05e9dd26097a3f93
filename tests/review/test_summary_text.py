"""The printed lines: right numbers, in words that fit one and several."""

from __future__ import annotations

import numpy as np
from helpers.review_tables import review_table

from saln.review.summary_text import summary_lines


def test_a_whole_table_in_words():
    table = review_table(
        [f"{number}.jpg" for number in range(30)],
        splits=["train"] * 20 + ["test"] * 10,
        given=["cat"] * 25 + ["dog", "dog", "bird", "", ""],
        believed=["dog", "dog", "bird", *[""] * 27],
        class_names=("cat", "dog", "bird", "fish"),
        probability=[0.1, 0.2, 0.3, 0.4, *[0.9] * 25, np.nan],
        decision=["", "", "", "keep", "drop", *[""] * 25],
        noise_rate=0.1234,
        noise_interval=(0.1, 0.15),
        problem=["", "unreadable: it is empty", "tiny: 3 x 4 pixels", *["blank"] * 2, *[""] * 25],
        group=[0, 0, 1, *[-1] * 16, 2, 2, 3, 3, *[-1] * 2, 1, 3, *[-1] * 3],
        outlier=[0.2, 0.7, np.nan, 0.9, *[0] * 26],
    )
    assert summary_lines(table) == {
        "wrong": "3 of 29 labels look wrong, 2 were decided before; estimated: 12.3% of all "
        "(10.0% to 15.0%)",
        "classes": "cat looks like dog (2), cat looks like bird (1)",
        "unlabeled": "2 examples have no label",
        "problems": "1 image cannot be read, 1 is tiny, 2 are blank; the first: 1.jpg "
        "(unreadable: it is empty)",
        "duplicates": "4 groups of near duplicates (9 examples): 1 inside a class, 2 across "
        "classes (their labels contradict), 2 across splits (leaks between train and test)",
        "outliers": "2 examples are like no others: 3.jpg, 1.jpg",
        "rare": "1 class has no examples (fish); 1 class has one example (bird); 1 class has fewer "
        "than 5 examples (dog)",
        "balance": "the largest class, cat, has 25 times as many examples as the smallest, bird "
        "(25 and 1)",
    }


def test_one_of_each():
    table = review_table(
        list("abcdefghij"),
        given=["cat"] * 5 + ["dog"] * 4 + [""],
        believed=["dog"] * 10,
        probability=[0.1, 1, *[np.nan] * 8],
        decision=["", "keep", *[""] * 8],
        problem=["blank", *[""] * 9],
        group=[7, 7, *[-1] * 8],
        outlier=[1, *[0] * 9],
    )
    assert summary_lines(table) == {
        "wrong": "1 of 2 labels looks wrong, 1 was decided before",
        "classes": "cat looks like dog (1)",
        "unlabeled": "1 example has no label",
        "problems": "1 image is blank; the first: a (blank)",
        "duplicates": "1 group of near duplicates (2 examples): 1 inside a class",
        "outliers": "1 example is like no others: a",
        "rare": "1 class has fewer than 5 examples (dog)",
    }


def test_nothing_is_said_of_what_is_well_and_why_nothing_is_known():
    clean = review_table(
        [str(number) for number in range(10)],
        given=["cat", "dog"] * 5,
        probability=[0.9] * 10,
        noise_rate=0.0,
        noise_interval=(0.0, 0.01),
    )
    assert summary_lines(clean) == {
        "wrong": "0 of 10 labels look wrong; estimated: 0.0% of all (0.0% to 1.0%)"
    }
    weak = review_table(
        ["a"] * 10, given=["cat", "dog"] * 5, probability=[0.5] * 10, message="use another one"
    )
    assert summary_lines(weak) == {"wrong": "0 of 10 labels look wrong; use another one"}


def test_many_names_are_cut_and_other_tasks_have_other_lines():
    names = tuple("abcdefgh")
    table = review_table(list("12345678"), given=list(names), class_names=names)
    assert summary_lines(table)["rare"] == "8 classes have one example (a, b, c, d, e and 3 more)"
    several = review_table(
        ["1", "2"],
        given=["x;y", "y"],
        believed=["x", "y"],
        probability=[0.1, 0.9],
        task="multi-label",
        class_names=("x", "y", "z"),
    )
    assert summary_lines(several) == {
        "wrong": "1 of 2 labels looks wrong",
        "classes": "x;y looks like x (1)",
        "rare": "1 class has no examples (z); 1 class has one example (x); 1 class has fewer than "
        "5 examples (y)",
    }
    numbers = review_table(
        ["1", "2"],
        given=["1.5", "2"],
        believed=["9", "2"],
        probability=[0.1, 0.9],
        task="regression",
        class_names=(),
    )
    assert summary_lines(numbers) == {"wrong": "1 of 2 labels looks wrong"}


def test_an_empty_set_has_a_name():
    table = review_table(
        ["a", "b"], given=["blue", ";"], believed=[";", "blue"], probability=[0.1, 0.2],
        task="multi-label",
    )  # fmt: skip
    pairs = "blue looks like no class (1), no class looks like blue (1)"
    assert summary_lines(table)["classes"] == pairs

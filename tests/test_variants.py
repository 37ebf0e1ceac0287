"""Tasks put otherwise: one thing is changed, and what is put before an item may stand in pages."""

import re

import pytest

from miniweb.leaks import find_leaks
from miniweb.longtail import invented_world, real_world
from miniweb.tasks import test_items
from miniweb.variants import VARIANTS, variant_items
from miniweb.world import is_held_out

test_items.__test__ = False  # no test

WORLD = real_world()
EACH = pytest.mark.parametrize(("task", "variant"), [(t, v) for t in VARIANTS for v in VARIANTS[t]])


@EACH
def test_a_variant_asks_for_what_the_task_asks_for(task, variant):
    plain, put = test_items(task, 3, 60, WORLD), variant_items(task, variant, 3, 60, WORLD)
    if "seen" in variant:
        assert [item.answer for item in put] != [item.answer for item in plain]
    else:
        for a, b in zip(plain, put, strict=True):
            assert f"{b.prompt} {b.answer}".endswith(f" {a.answer}") and a.prompt != b.prompt
    assert [item.level for item in put] == [item.level for item in plain]
    assert variant_items(task, variant, 3, 60, invented_world(1)) != put


def test_what_is_seen_may_stand_in_pages_and_the_rest_may_not():
    for task in ("translation", "summary", "question"):
        for seen in (True, False):
            items = test_items(task, 3, 60, WORLD, seen)
            leaks = find_leaks([f"{item.prompt} {item.answer}" for item in items], WORLD)
            assert bool(leaks) != seen, task


def test_a_sentence_that_is_asked_for_is_the_one_that_the_list_ends_on():
    plain = test_items("translation", 3, 60, WORLD)
    for a, b in zip(plain, variant_items("translation", "asked", 3, 60, WORLD), strict=True):
        english = a.prompt.splitlines()[-1].removesuffix(" =")
        assert b.prompt == f'Q: How do you say "{english}" in Korean?\nA:'


def test_a_question_that_is_begun_gives_the_first_word_of_the_answer_and_no_more():
    plain = variant_items("translation", "asked", 3, 60, WORLD)
    for a, b in zip(plain, variant_items("translation", "asked, begun", 3, 60, WORLD), strict=True):
        first, rest = a.answer.split(" ", 1)
        assert (b.prompt, b.answer) == (f"{a.prompt} {first}", rest)


EXAMPLES = [(t, v, int(v[0])) for t in VARIANTS for v in VARIANTS[t] if v.endswith("examples")]


@pytest.mark.parametrize(("task", "variant", "n"), EXAMPLES)
def test_examples_are_solved_stand_before_the_item_and_leak_nothing(task, variant, n):
    lines = 1 if task == "translation" else 2  # that an item has, and each example
    plain, put = test_items(task, 3, 60, WORLD), variant_items(task, variant, 3, 60, WORLD)
    for a, b in zip(plain, put, strict=True):
        *before, _ = [line for line in b.prompt.splitlines() if not line.startswith("A:")]
        assert len(before) == n
        assert b.prompt.splitlines()[-lines:] == a.prompt.splitlines()[-lines:]
        examples = b.prompt.splitlines()[:-lines]
        assert find_leaks(["\n".join(examples)], WORLD) == []


def test_the_cities_of_examples_are_asked_about_in_pages():
    for item in variant_items("question", "4 examples", 3, 60, WORLD):
        *shown, asked = re.findall(r"Q: (?:In which country is (.+)\?|.+ in (.+)\?)", item.prompt)
        assert len(shown) == 4
        assert not any(is_held_out("question", "".join(city)) for city in shown)
        assert is_held_out("question", "".join(asked))


def test_another_cue_stands_where_the_old_one_stood():
    for task, variant, old, new in (
        ("summary", "In short:", "TL;DR:", "In short:"),
        ("summary", "A:", "TL;DR:", "A:"),
        ("translation", "with ':'", " =", ":"),
    ):
        plain = test_items(task, 3, 60, WORLD)
        for a, b in zip(plain, variant_items(task, variant, 3, 60, WORLD), strict=True):
            assert old not in b.prompt and b.prompt == a.prompt.replace(old, new)


def test_what_is_no_variant_is_named():
    with pytest.raises(ValueError, match="no variant 'shouted' of 'summary'"):
        variant_items("summary", "shouted", 3, 60, WORLD)

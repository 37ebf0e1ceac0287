"""Items of the world with a long tail: true, in pairs, in no page, and balanced.

Truth is what `test_longtail.Counting` reads, which shares no code with the generator.
"""

import re
from collections import Counter
from functools import cache
from itertools import islice
from statistics import fmean

import pytest
from test_longtail import WHO, WORLDS, Counting, article, pages

from miniweb.leaks import find_answers
from miniweb.longtail import ENTRIES, SCALES, invented_world, real_world
from miniweb.tasks import DIALS, as_schemas, test_items
from miniweb.world import is_held_out

draw_items = cache(test_items)
test_items.__test__ = False  # no test

REAL = real_world()
LEVELS = {thing.english: thing for thing in REAL.lexicon.things}
EACH = pytest.mark.parametrize("task", DIALS)


def pairs(items):
    return list(zip(items[::2], items[1::2], strict=True))


def question(item):
    """The question that a prompt ends on."""
    return item.prompt.removesuffix("\nA:").rpartition("Q: ")[2]


# What a pair has in common


def common(task, item):
    """What both items of a pair share."""
    if task in ("reading", "who"):
        return item.prompt.rpartition("\nQ: ")[0]
    if task == "cloze":
        return item.prompt.rpartition(". ")[0]
    if task == "choice":
        return set(re.findall(r", (.+) or (.+)\?", question(item))[0])
    if task == "question":
        return [c.name for c in REAL.cities if f" {c.name}?" in item.prompt]
    if task == "summary":
        return item.candidates
    shown, asked = item.prompt.split("\n")
    return shown, [re.findall(r"\w+", clause)[0] for clause in asked.split(" and ")]


@EACH
def test_items_come_in_pairs_with_different_answers(task):
    items = draw_items(task, 1, 600, REAL)
    assert len(items) == 600
    for one, two in pairs(items):
        assert common(task, one) == common(task, two) != []
        assert one.answer != two.answer
        assert one.prompt != two.prompt
        assert one.level == two.level
        assert one.candidates == two.candidates
    each = Counter(item.level for item in items)
    assert set(each) == set(DIALS[task])
    assert max(each.values()) - min(each.values()) <= 2


@EACH
def test_prompts_and_answers_have_no_space_at_their_ends(task):
    for item in draw_items(task, 1, 600, REAL):
        for text in (item.prompt, item.answer, *item.candidates):
            assert text == text.strip() and text


# What is true


def follow(held, story):
    return held.follow(story)[1:]


def true_answer(task, item, held, seen):
    """Answer an item from its text, the lexicon and the facts, all combinations held out."""
    if task in ("reading", "who"):
        story, asked, _ = item.prompt.rsplit("\n", 2)
        return held.answer(asked, *follow(held, story))
    if task == "cloze":
        story, who, past = re.fullmatch(rf"(.+\.) ({WHO}) (.+) the", item.prompt).groups()
        has, _ = follow(seen, story)
        verb = seen.past[past]
        assert verb.keeps and is_held_out("deed", verb.base, has[who])
        assert [t for t in item.candidates if verb in seen.verbs_of[t]] == [has[who]]
        return has[who]
    if task == "choice":
        word, one, two = re.fullmatch(
            r"Which is (.+), an? (.+) or an? (.+)\?", question(item)
        ).groups()
        (scale, i), = [(s, w.index(word)) for s, w in SCALES.items() if word in w]  # fmt: skip
        one, two = sorted((one, two), key=lambda thing: getattr(LEVELS[thing], scale))
        apart = getattr(LEVELS[two], scale) - getattr(LEVELS[one], scale)
        least, most = map(int, re.findall(r"\d+", item.level))
        assert least <= apart <= most and least > 4
        return article((two, one)[i])
    if task == "question":
        (name, city), = [(n, m["city"]) for n, p in held.questions.items()
                         if (m := p.fullmatch(question(item)))]  # fmt: skip
        start, end = map(int, re.findall(r"\d+", item.level))
        assert is_held_out("question", city) and city in list(held.facts)[start:end]
        return held.facts[city][name]
    if task == "summary":
        held.turned = Counting(REAL, held_out=True).turned if "new" in item.level else seen.turned
        held.post(f"{item.prompt} {item.answer}")  # asserts it
        assert len(item.candidates) == int(item.level[0])
        return item.answer
    shown, asked = item.prompt.split("\n")
    seen.entry(*shown.split(" = "), ENTRIES)
    held.entry(asked.removesuffix(" ="), item.answer, ENTRIES)  # asserts it
    assert asked.count(" and ") + 1 == int(item.level[0])
    return item.answer


@EACH
def test_a_world_in_which_nobody_named_so_may_have_a_thing_gives_items_too(task):
    assert len(draw_items(task, 2019, 300, invented_world(2))) == 300


@EACH
def test_answers_are_true_and_held_out(task):
    held, seen = Counting(REAL, held_out=True), Counting(REAL)
    for item in draw_items(task, 1, 600, REAL):
        assert item.answer == true_answer(task, item, held, seen), item


@EACH
def test_truth_tells_the_items_of_a_pair_apart(task):
    """Wrong on purpose: the other item's answer is not true."""
    held, seen = Counting(REAL, held_out=True), Counting(REAL)
    for one, two in pairs(draw_items(task, 1, 600, REAL))[:30]:
        wrong = one._replace(answer=two.answer)
        try:
            said = true_answer(task, wrong, held, seen)
        except AssertionError:
            continue
        assert said != wrong.answer


# What no page says


def no_page_answers(n, name):
    world = WORLDS[name](0)
    items = [item for task in DIALS for item in draw_items(task, 1, 600, world)]
    assert find_answers((d.text for d in pages(n, 12, world)), items) == []


@pytest.mark.parametrize("name", WORLDS)
def test_no_answer_stands_in_five_thousand_pages(name):
    no_page_answers(5_000, name)


@pytest.mark.soak
@pytest.mark.parametrize("name", WORLDS)
def test_no_answer_stands_in_fifty_thousand_pages(name):
    no_page_answers(50_000, name)


WHAT_STANDS = {
    "reading": lambda item: f"{item.prompt} {item.answer}",
    "who": lambda item: f"{item.prompt} {item.answer}",
    "question": lambda item: f"{item.prompt} x",
    "summary": lambda item: f"Yesterday I {item.answer}. So it goes.",
    "translation": lambda item: f"사과 = an apple\nWhat is this? {item.answer}",
    "cloze": lambda item: f"So: {item.prompt} {item.answer}.",
    "choice": lambda item: f"Yes.\n{item.prompt} neither",
}


@EACH
def test_the_search_finds_an_answer_that_is_planted(task):
    texts = [d.text for d in pages(200, 0)]
    items = draw_items(task, 1, 600, REAL)[:60]
    for item in islice(items, 0, None, 7):
        planted = WHAT_STANDS[task](item)
        found = find_answers([*texts, planted], items)
        assert (item, planted) in found and {text for _, text in found} == {planted}
        apart = planted.replace(item.answer, f"{item.answer}x").replace("?", "!")
        assert find_answers([*texts, apart], items) == []


# Rules that understand nothing


def spots(item):
    """Where the candidates are named, in order, and where the one asked for is named."""
    if item.prompt.endswith("TL;DR:"):
        return list(enumerate(item.candidates)), [0]
    named = [(m.start(), c) for c in item.candidates
             for m in re.finditer(rf"\b{re.escape(bare(c))}\b", item.prompt)]  # fmt: skip
    asked = question(item) if item.prompt.endswith("A:") else item.prompt.rpartition(". ")[2]
    who = ["", *re.findall(r"[A-Z]\w+ [A-Z]\w+", asked)][-1]
    return sorted(named), [m.start() for m in re.finditer(who or "$", item.prompt)]


def bare(words):
    return re.sub(r"^(an?|at the) ", "", words)


def rules(item):
    """What each rule of place or count takes, by its name."""
    found, asked = spots(item)
    first_named = list(dict.fromkeys(c for _, c in found))
    counts = Counter(c for _, c in found)

    def behind(place):
        return next((c for spot, c in found if spot > place), "")

    def before(place):
        return next((c for spot, c in reversed(found) if spot < place), "")

    return {
        "first": found[0][1],
        "last": found[-1][1],
        "most, first": max(first_named, key=counts.__getitem__),
        "most, last": max(reversed(first_named), key=counts.__getitem__),
        "least, first": min(first_named, key=counts.__getitem__),
        "least, last": min(reversed(first_named), key=counts.__getitem__),
        "behind the first name": behind(asked[0]),
        "before the first name": before(asked[0]),
        "behind the last name": behind(asked[-1]),
        "behind the last but one": behind(asked[-2]) if len(asked) > 1 else "",
        "before the last name": before(asked[-1]),
        "before the last but one": before(asked[-2]) if len(asked) > 1 else "",
        "nearest": min((abs(s - a), c) for s, c in found for a in asked)[1],
    }


def balance(items):
    """Singles and pairs that each rule gets right, and chance."""
    taken, figures = [rules(item) for item in items], {}
    for rule in taken[0]:
        right = [bare(t[rule]) == bare(item.answer) for t, item in zip(taken, items, strict=True)]
        figures[rule] = round(fmean(right), 3), round(fmean(map(all, pairs(right))), 3)
    return figures, fmean(1 / len(item.candidates) for item in items)


@pytest.mark.parametrize("task", ["reading", "who", "cloze", "choice", "summary"])
def test_no_rule_of_place_or_count_answers(task):
    items = draw_items(task, 1, 600, REAL)
    assert all(item.answer in item.candidates for item in items)
    figures, chance = balance(items)
    above = {rule: f for rule, f in figures.items() if f[0] > chance + 0.03 and f[1] > 0}
    assert not above, f"chance {chance:.3f}; singles, pairs: {figures}"


# The same for a seed; errors


@EACH
def test_a_seed_gives_the_same_items(task):
    assert test_items(task, 9, 60, REAL) == test_items(task, 9, 60, REAL)
    assert test_items(task, 9, 60, REAL) != test_items(task, 10, 60, REAL)
    assert test_items(task, 9, 12, REAL) == test_items(task, 9, 60, REAL)[:12]
    assert test_items(task, 9, 0, REAL) == []


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="no task 'poem': choose from reading, question"):
        test_items("poem", 0, 2, REAL)
    with pytest.raises(ValueError, match="items come in pairs: 3 is odd"):
        test_items("reading", 0, 3, REAL)


# Translations as Winograd schemas


def test_a_schema_filled_with_its_answer_is_the_translation():
    items = draw_items("translation", 1, 600, REAL)
    for item, schema in zip(items, as_schemas(items), strict=True):
        assert schema.prompt.replace("___", schema.answer) == f"{item.prompt} {item.answer}"
        assert schema.prompt.count("___") == 1 and schema.level == item.level


def test_the_two_schemas_of_a_pair_differ_in_the_korean_alone():
    schemas = as_schemas(draw_items("translation", 1, 600, REAL))
    for one, two in pairs(schemas):
        assert one.candidates == two.candidates == (one.answer, two.answer)
        assert all(one.candidates) and one.answer != two.answer
        assert one.prompt.rpartition(" = ")[0] == two.prompt.rpartition(" = ")[0]
        assert one.prompt != two.prompt

"""The miniweb: exact probabilities, the same bytes everywhere, true facts, nothing leaked."""

import hashlib
import math
import os
import re
import subprocess
import sys
import time
import tracemalloc
import unicodedata
from collections import Counter
from dataclasses import replace
from itertools import islice
from random import Random

import pytest
from babel import Locale
from hypothesis import given, settings
from hypothesis import strategies as st

import miniweb
from miniweb import GENRES, LARGE, MEDIUM, SMALL, TASKS, World, documents, find_leaks, held_out
from miniweb.choices import Draw, Table, below
from miniweb.facts import COUNTRIES
from miniweb.grammar import Grammar
from miniweb.korean import CHAT_EVENTS, CHAT_LINES, SAYINGS, direct_object, topic
from miniweb.world import ADJECTIVES, PEOPLE, PLACES, THINGS, VERBS

TINY = World(3, 2, 2, 3, 2, 2, ("capital", "continent", "currency"), 2)

# Of the first documents of seed 0 that make a megabyte; another value is another corpus.
FIRST_MEGABYTE = {
    "small": "9809b447d0e4139ab1e053b7e4a280c7d9d5755683638d58fb155ea3b58c976d",
    "large": "9aa803978ad4a9f981cbb2a0c41f1279d7337252dbdde1182c4dbf34015f42ab",
}


class Script(Draw):
    """Choices that are taken in order, so that every derivation comes up once."""

    def __init__(self):
        super().__init__(Random(0).random)
        self.path, self.position = [], 0

    def __call__(self, table):
        if self.position == len(self.path):
            self.path.append([0, len(table.values)])
        i = self.path[self.position][0]
        self.position += 1
        self.logprob += table.logprobs[i]
        return table.values[i]

    def advance(self):
        """Go to the next derivation; false after the last."""
        self.position, self.logprob = 0, 0.0
        while self.path and self.path[-1][0] + 1 == self.path[-1][1]:
            self.path.pop()
        if self.path:
            self.path[-1][0] += 1
        return bool(self.path)


def derivations(write):
    """Write every text of a genre with its log-probability."""
    draw = Script()
    while True:
        yield write(draw), draw.logprob
        if not draw.advance():
            return


def check_exact(write):
    """Check that one text has one derivation and that the probabilities sum to 1."""
    texts, logprobs = zip(*derivations(write), strict=True)
    assert len(set(texts)) == len(texts), "a text has two derivations"
    assert math.fsum(map(math.exp, logprobs)) == pytest.approx(1, abs=1e-9)


@pytest.fixture
def tiny(monkeypatch):
    """A grammar small enough to write out."""
    few = dict(islice(CHAT_LINES.items(), 0, None, 48))
    monkeypatch.setattr("miniweb.grammar.CHAT_LINES", few)
    monkeypatch.setattr("miniweb.grammar.SAYINGS", SAYINGS[:1])
    return Grammar(TINY)


@pytest.mark.parametrize("genre", [g for g in GENRES if g != "bilingual"])
def test_every_text_of_a_genre_has_one_derivation_and_they_sum_to_one(tiny, genre):
    check_exact(tiny.genre(genre))


def test_bilingual_pages_have_one_derivation(monkeypatch, tiny):
    """Pages of up to two entries: four are too many to write out."""
    from miniweb.grammar import UP_TO

    monkeypatch.setitem(UP_TO, 4, UP_TO[2])
    check_exact(tiny.bilingual)


def test_no_text_belongs_to_two_genres(tiny):
    """The genre is a choice too, so it must show in the text."""
    starts = Counter()
    for genre in GENRES:
        starts.update(set(islice((text for text, _ in derivations(tiny.genre(genre))), 20_000)))
    assert max(starts.values()) == 1


def test_a_choice_that_leaves_no_mark_is_caught():
    """Wrong on purpose: the same text by two ways."""
    twice = Table(("a", "a", "b"))
    with pytest.raises(AssertionError, match="two derivations"):
        check_exact(lambda draw: draw(twice))


def test_a_choice_that_is_not_counted_is_caught(tiny):
    """Wrong on purpose: a choice without its log-probability."""

    def forgetful(draw):
        text = tiny.story(draw)
        draw.logprob -= math.log(0.5)
        return text

    with pytest.raises(AssertionError):
        check_exact(forgetful)


def check_frequencies(sample, truth):
    """Check that texts come as often as their probabilities say, within five standard errors."""
    counts, n = Counter(text for text, _ in sample), len(sample)
    for text, logprob in truth.items():
        p = math.exp(logprob)
        assert abs(counts[text] / n - p) < 5 * math.sqrt(p * (1 - p) / n) + 1e-12
    for text, logprob in sample:
        assert logprob == pytest.approx(truth[text], abs=1e-12)


@pytest.mark.parametrize("genre", ["question", "encyclopedia"])
def test_texts_come_as_often_as_they_say(genre):
    world = replace(TINY, attributes=("capital", "continent"))
    truth = dict(derivations(Grammar(world).genre(genre)))
    stream = islice(documents(3, world, [genre]), 30_000)
    sample = [(document.text, document.logprob) for document in stream]
    check_frequencies(sample, truth)
    with pytest.raises(AssertionError):  # wrong on purpose: half of the documents doubled
        check_frequencies(sample + [sample[0]] * len(sample), truth)


def test_genres_come_in_their_shares():
    n, total = 20_000, sum(GENRES.values())
    counts = Counter(document.genre for document in islice(documents(0), n))
    for genre, share in GENRES.items():
        p = share / total
        assert abs(counts[genre] / n - p) < 5 * math.sqrt(p * (1 - p) / n)


def test_the_choice_of_genre_is_counted():
    alone = next(documents(0, genres=["chat"]))
    half = next(d for d in documents(0, genres={"chat": 1, "story": 1}) if d.genre == "chat")
    lines = Grammar()
    draw = Draw(Random(0).random)
    draw(below(1))  # the genre: no choice
    assert lines.chat(draw) == alone.text
    assert draw.logprob == pytest.approx(alone.logprob, abs=1e-12)
    again = next(d for d in documents(0, genres={"chat": 1, "story": 3}) if d.text == half.text)
    assert half.logprob - again.logprob == pytest.approx(math.log(2), abs=1e-12)


def first_bytes(n, **arguments):
    digest, size = hashlib.sha256(), 0
    for document in documents(0, **arguments):
        data = document.text.encode() + b"\0"
        digest.update(data)
        size += len(data)
        if size >= n:
            return digest.hexdigest()


def test_the_first_megabyte_is_the_same_everywhere():
    assert first_bytes(1_000_000) == FIRST_MEGABYTE["small"]
    assert first_bytes(1_000_000, world=LARGE) == FIRST_MEGABYTE["large"]


@pytest.mark.parametrize("salt", ["0", "1"])
def test_the_order_of_sets_has_no_part_in_it(salt):
    program = (
        "from itertools import islice; from miniweb import documents, LARGE; "
        "print(hash(tuple(ord(c) for d in islice(documents(7, LARGE), 300) for c in d.text)))"
    )
    environment = os.environ | {"PYTHONHASHSEED": salt}
    command = [sys.executable, "-c", program]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    here = hash(tuple(ord(c) for d in islice(documents(7, LARGE), 300) for c in d.text))
    assert int(out.stdout) == here


@pytest.mark.parametrize(
    ("country", "fact", "value"),
    [
        ("France", "capital", "Paris"),
        ("South Korea", "capital", "Seoul"),
        ("South Korea", "korean", "대한민국"),
        ("Japan", "korean", "일본"),
        ("Brazil", "capital", "Brasilia"),
        ("Kenya", "continent", "Africa"),
        ("Peru", "continent", "South America"),
        ("Canada", "continent", "North America"),
        ("Australia", "capital", "Canberra"),
        ("Turkey", "capital", "Ankara"),
        ("Kazakhstan", "capital", "Astana"),
        ("Bulgaria", "currency", "euro"),
        ("Japan", "currency", "Japanese yen"),
        ("Switzerland", "capital", "Bern"),
        ("Italy", "city", "Milan"),
        ("Ethiopia", "language", "Amharic"),
        ("Timor-Leste", "continent", "Asia"),  # South-eastern Asia in the United Nations' M49
    ],
)
def test_the_facts_are_true(country, fact, value):
    found = {entry.name: entry for entry in COUNTRIES}[country]
    assert getattr(found, fact) == value


def test_the_table_of_countries_is_whole():
    assert len(COUNTRIES) == 190
    for column in ("name", "korean", "capital"):
        assert len({getattr(country, column) for country in COUNTRIES}) == 190
    continents = {"Asia", "Europe", "Africa", "North America", "South America", "Oceania"}
    assert {country.continent for country in COUNTRIES} == continents
    assert all(country.city != country.capital for country in COUNTRIES)
    assert all(re.fullmatch("[가-힣 ]+", country.korean) for country in COUNTRIES)


def test_the_korean_names_are_those_of_unicode():
    """대한민국 beside 북한, and 중앙 아프리카 공화국 in three words: CLDR has them so."""
    names = set(Locale("ko").territories.values())
    assert {c.name for c in COUNTRIES if c.korean not in names} == {
        "South Africa",  # its name in full
        "the Democratic Republic of the Congo",  # CLDR puts the capital behind it
        "the Republic of the Congo",
    }


def test_a_page_states_the_fact_of_its_country():
    texts = [d.text for d in islice(documents(0, genres=["encyclopedia"]), 3000)]
    capitals = {country.name: country.capital for country in COUNTRIES}
    stated = [m for text in texts for m in re.findall(r"The capital of (.+?) is (.+?)\.", text)]
    assert len({name for name, _ in stated}) == 32
    assert all(capitals[name] == capital for name, capital in stated)


@pytest.mark.parametrize("words", [PEOPLE, THINGS, ADJECTIVES, PLACES, VERBS])
def test_no_word_is_there_twice_or_begins_another(words):
    """Else a text would have two readings, and the search would see what is not there."""
    korean = [word.korean for word in words]
    assert len(set(korean)) == len({word[0] for word in words}) == len(words)
    if words is not VERBS:
        assert not [(a, b) for a in korean for b in korean if a != b and b.startswith(a)]


def closes(syllable):
    """Unicode's own answer: the canonical decomposition ends on a final consonant."""
    return unicodedata.normalize("NFD", syllable)[-1] >= "\u11a8"


def check_particles(mark_topic, mark_object):
    for word in [*PEOPLE, *THINGS, *PLACES]:
        end = closes(word.korean[-1])
        assert mark_topic(word.korean) == word.korean + "는은"[end]
        assert mark_object(word.korean) == word.korean + "를을"[end]


def test_particles_follow_the_final_consonant():
    check_particles(topic, direct_object)
    assert [direct_object(word) for word in ("사과", "책", "공")] == ["사과를", "책을", "공을"]
    with pytest.raises(AssertionError):  # wrong on purpose: the same particle for all
        check_particles(lambda word: word + "는", lambda word: word + "를")


def test_sentences_carry_the_right_particles_and_stay_polite():
    texts = [d.text for d in islice(documents(1, LARGE, ["bilingual"]), 5000)]
    sentence = r"([가-힣]+)([은는]) [가-힣]+ ([가-힣]+)([을를]) ([가-힣 ]+)"
    found = re.findall(sentence, "\n".join(texts))
    assert len(found) > 1000
    for person, of_topic, thing, of_object, verb in found:
        assert (of_topic == "은") == closes(person[-1])
        assert (of_object == "을") == closes(thing[-1])
        assert verb.endswith("요")


def test_chat_is_plain_and_mostly_settled_by_its_end():
    lines = [
        line for d in islice(documents(1, genres=["chat"]), 3000) for line in d.text.split("\n")
    ]
    assert not [line for line in lines if line.endswith("요")]
    words = dict.fromkeys(CHAT_EVENTS)
    assert all(len(words.keys() & set(line.split())) == 1 for line in lines)
    after = [tuple(re.split(" (거기|걔|그거|그때) ", line)[1:]) for line in lines]
    by_end = Counter(end for _, end in set(after))
    assert [end for end, n in by_end.items() if n > 1] == ["진짜 괜찮더라"]
    assert by_end["진짜 괜찮더라"] == 3


@pytest.mark.parametrize("world", [SMALL, LARGE], ids=["small", "large"])
def test_nothing_held_out_occurs_in_three_megabytes(world):
    texts = [document.text for document in islice(documents(11, world), 30_000)]
    assert sum(len(text.encode()) for text in texts) > 2_800_000
    assert find_leaks(texts, world) == []


@pytest.mark.parametrize(
    ("kind", "template"),
    [
        ("phrase", "hello = 안녕하세요\nthe {0} {1} = x"),
        ("event", "{0} {past} a red {2} at the park."),
        ("event", "One day {0} went to the park. There he {past} a red {2}."),
        ("event", "A dog. Q: What did {0} {1}?\nA: a {2}"),
        ("post", "I was at the {2}. I {past0} a {1}.\nThanks for reading!"),
        ("post", "It was late.\nTL;DR: {past0} a {1} at the {2}"),
        ("question", "Q: Which {1} is that of {0}?\nA: x"),
        ("chat", "{0} 거기 {1}"),
    ],
)
def test_the_search_finds_what_is_planted(kind, template):
    past = {verb.base: verb.past for verb in VERBS}
    for words in held_out(kind):
        forms = {"past": past.get(words[1], ""), "past0": past.get(words[0], "")}
        text = template.format(*words, **forms)
        leaks = find_leaks(["All is well.", text, "All is well."])
        assert [(leak.kind, leak.words, leak.text) for leak in leaks] == [(kind, words, text)]


def test_the_search_finds_korean_without_english():
    korean = {word.english: word.korean for word in (*ADJECTIVES, *THINGS)}
    for words in held_out("phrase"):
        leaks = find_leaks([f"톰은 {korean[words[0]]} {korean[words[1]]}"])
        assert [leak.words for leak in leaks] == [words]


def test_a_grammar_that_holds_nothing_out_leaks(monkeypatch):
    """Wrong on purpose: every kind of combination is let through."""
    monkeypatch.setattr("miniweb.grammar.is_held_out", lambda *words: False)
    grammar, draw = Grammar(SMALL), Draw(Random(0).random)
    for genre, kind in [
        ("story", "event"),
        ("reading", "event"),
        ("question", "question"),
        ("post", "post"),
        ("bilingual", "phrase"),
        ("chat", "chat"),
    ]:
        leaks = find_leaks([grammar.genre(genre)(draw) for _ in range(200)])
        assert kind in {leak.kind for leak in leaks}, genre


@pytest.mark.parametrize("kind", ["phrase", "post", "event", "question", "chat"])
def test_about_a_quarter_is_held_out_and_of_questions_half(kind):
    from miniweb.checks import combinations

    for world in (SMALL, LARGE):
        everything = set(combinations(kind, world))
        held = held_out(kind, world)
        assert len(set(held)) == len(held) and set(held) <= everything
        share = 0.5 if kind == "question" else 0.25
        spread = 4 * math.sqrt(share * (1 - share) / len(everything))
        assert abs(len(held) / len(everything) - share) < spread


def test_no_word_is_held_out_altogether():
    """A model can only be asked to combine words that it has seen."""
    for position in (0, 1):
        held = Counter(words[position] for words in held_out("phrase"))
        total = (SMALL.n_things, SMALL.n_adjectives)[position]
        assert max(held.values()) < total


@pytest.mark.parametrize(
    ("task", "world"),
    [
        (t, w)
        for t in TASKS
        for w in (SMALL, MEDIUM, LARGE)
        if w.retells or t not in ("reading", "cloze")
    ],
)
def test_every_item_asks_what_no_document_says(task, world):
    items = miniweb.test_items(task, 0, 100, world)
    assert len(items) == 100 and items == miniweb.test_items(task, 0, 100, world)
    assert len(set(items)) > 10
    for item in items:
        assert find_leaks([item.filled(item.answer)], world), item
        assert item.prompt == item.prompt.rstrip() and item.answer == item.answer.strip() != ""
    texts = "\n\n".join(document.text for document in islice(documents(2, world), 10_000))
    assert not [item for item in items if item.filled(item.answer) in texts]


def test_items_of_a_passage_have_their_answer_in_it():
    for task in ("what", "where", "who"):
        for item in miniweb.test_items(task, 1, 50):
            assert item.answer in item.prompt
            assert item.prompt.count(".") == SMALL.n_events
    for task in ("reading", "cloze"):
        assert all(
            i.answer.split()[-1] in i.prompt for i in miniweb.test_items(task, 1, 50, MEDIUM)
        )


@pytest.mark.parametrize(
    ("task", "n"), [("reading", 2), ("choice", 2), ("cloze", 2), ("gap", 4), ("who", 3)]
)
def test_the_answer_is_among_the_candidates(task, n):
    items = miniweb.test_items(task, 1, 200, MEDIUM)
    for item in items:
        assert item.prompt.count("___") == (task in ("choice", "gap"))
        assert item.candidates.count(item.answer) == 1 and len(set(item.candidates)) == n
    first = sum(item.answer == item.candidates[0] for item in items)
    assert 60 < first * n < 340  # no place of the answer gives it away


def test_cloze_needs_a_world_that_retells():
    with pytest.raises(ValueError, match="retells"):
        miniweb.test_items("cloze", 0, 1, SMALL)


def test_a_model_has_seen_the_form_of_every_prompt():
    """A prompt in a form that the corpus lacks would ask for nothing."""
    texts = "\n".join(document.text for document in islice(documents(4, MEDIUM), 20_000))
    forms = {
        "phrase": r"^the \w+ \w+ = [가-힣]+ [가-힣]+$",
        "sentence": r"^\w+ \w+ the \w+ \w+ = [가-힣 ]+$",
        "question": r"^Q: What is the capital of .+\?\nA: \w+",
        "summary": r"\nTL;DR: \w+ an? \w+ at the \w+$",
        "what": r"^Q: What did \w+ \w+\?\nA: an? \w+$",
        "where": r"^Q: Where was \w+\?\nA: the \w+$",
        "who": r"^Q: Who \w+ an? \w+\?\nA: \w+$",
        "cloze": r" (showed \w+|and asked about) the \w+\.$",
        "reading": r"^\w+ \w+ \w+ went to the .*\nQ: What did \w+ \w+\?\nA: an? \w+$",
        "choice": r"^\w+ \w+ the \w+ \w+ = [가-힣 ]+$",
        "gap": r"^[가-힣 ]+ 거기 [가-힣 ]+$",
    }
    assert forms.keys() == set(TASKS)
    for form in forms.values():
        assert len(re.findall(form, texts, re.MULTILINE)) > 100, form


def test_the_entropy_is_that_of_all_texts_written_out():
    world = replace(TINY, attributes=("capital", "continent"))
    texts = [
        (text, logprob - math.log(2))
        for genre in ("question", "encyclopedia")
        for text, logprob in derivations(Grammar(world).genre(genre))
    ]
    nats = math.fsum(-math.exp(logprob) * logprob for _, logprob in texts)
    size = math.fsum(math.exp(logprob) * len(text.encode()) for text, logprob in texts)
    found = miniweb.entropy(20_000, 0, world, {"question": 1, "encyclopedia": 1})
    assert abs(found.per_document.mean - nats) < 4 * found.per_document.error < 0.2
    assert abs(found.per_byte.mean - nats / size) < 4 * found.per_byte.error < 0.01
    assert found.bits_per_byte.mean == pytest.approx(found.per_byte.mean / math.log(2))
    assert found.by_genre.keys() == {"question", "encyclopedia"}


def test_the_stated_error_is_that_of_repeated_estimates():
    estimates = [miniweb.entropy(500, seed) for seed in range(60)]
    for name in ("per_document", "per_byte"):
        means = [getattr(estimate, name).mean for estimate in estimates]
        center = sum(means) / 60
        spread = math.sqrt(sum((mean - center) ** 2 for mean in means) / 59)
        stated = sum(getattr(estimate, name).error for estimate in estimates) / 60
        assert 0.7 < stated / spread < 1.4


def test_memory_does_not_grow_with_the_stream():
    stream = documents(0, LARGE)
    for _ in islice(stream, 2000):
        pass
    tracemalloc.start()
    for _ in islice(stream, 20_000):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize("world", [SMALL, LARGE], ids=["small", "large"])
def test_a_second_yields_a_megabyte(world):
    stream = documents(0, world)
    next(stream)

    def rate():
        start = time.process_time()
        size = sum(len(document.text.encode()) for document in islice(stream, 5000))
        return size / (time.process_time() - start)

    assert max(rate() for _ in range(3)) > 1_000_000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: documents(-1), "negative"),
        (lambda: documents(0, genres=["poem"]), "poem"),
        (lambda: documents(0, genres="story"), "story"),
        (lambda: documents(0, genres=[]), "at least one"),
        (lambda: World(n_people=0), "n_people"),
        (lambda: World(n_things=1000), "n_things"),
        (lambda: World(n_people=3, n_events=3), "n_events"),
        (lambda: World(attributes=("flag",)), "attributes"),
        (lambda: documents(0, World(n_verbs=1)), "too few verbs"),
        (lambda: held_out("nothing"), "nothing"),
        (lambda: miniweb.test_items("poem", 0, 1), "poem"),
        (lambda: miniweb.entropy(1, 0), "two"),
        (lambda: Table(()), "at least one"),
        (lambda: Table("ab", (1, 0)), "weight"),
        (lambda: Table("ab", (1,)), "weight"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_seed_is_a_whole_number():
    with pytest.raises(TypeError):
        documents("0")


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**64), genres=st.sets(st.sampled_from(list(GENRES)), min_size=1))
def test_a_stream_is_a_function_of_its_seed(seed, genres):
    first = list(islice(documents(seed, genres=genres), 20))
    assert first == list(islice(documents(seed, genres=sorted(genres)), 20))
    assert {document.genre for document in first} <= genres
    assert all(document.logprob < 0 for document in first)
    assert all(document.text == document.text.strip() != "" for document in first)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    people=st.integers(5, len(PEOPLE)),
    things=st.integers(4, len(THINGS)),
    adjectives=st.integers(4, len(ADJECTIVES)),
    places=st.integers(2, len(PLACES)),
    countries=st.integers(4, len(COUNTRIES)),
    events=st.integers(1, 4),
)
def test_no_world_leaks(seed, people, things, adjectives, places, countries, events):
    world = World(people, things, adjectives, 16, places, countries, ("capital", "city"), events)
    assert find_leaks((d.text for d in islice(documents(seed, world), 300)), world) == []


@given(weights=st.lists(st.integers(1, 50), min_size=1, max_size=20), u=st.floats(0, 1 - 2**-53))
def test_a_table_gives_each_value_its_share_of_the_unit_interval(weights, u):
    table = Table(range(len(weights)), weights)
    draw = Draw(lambda: u)
    i = draw(table)
    assert sum(weights[:i]) <= u * sum(weights) < sum(weights[: i + 1])
    assert math.exp(draw.logprob) == pytest.approx(weights[i] / sum(weights))

"""The lexicon: Korean against a particle library's rule and Unicode, bounds, splits, invention."""

import tomllib
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from miniweb.korean import direct_object, has_final_consonant, topic
from miniweb.lexicon import N_LEVELS, PARTICLES, Lexicon, invented_lexicon, real_lexicon

REAL = real_lexicon()
BOTH = pytest.mark.parametrize("lexicon", [REAL, invented_lexicon(0)], ids=["real", "invented"])
SCALES = ("size", "price")


def nouns(lexicon: Lexicon) -> list[str]:
    """Return the Korean of everything that takes a particle."""
    return [row.korean for row in (*lexicon.things, *lexicon.places, *lexicon.people)]


def texts(lexicon: Lexicon) -> list[str]:
    """Return all Korean text but nouns."""
    words = (*lexicon.adjectives, *lexicon.times, *lexicon.numbers)
    readings = [reading for verb in lexicon.verbs for reading in verb.readings]
    return [w.korean for w in words] + [form for r in readings for form in r[1:]]


@BOTH
def test_particles_follow_unicode_decomposition(lexicon: Lexicon) -> None:
    for noun in nouns(lexicon):
        closed = "\u11a8" <= unicodedata.normalize("NFD", noun)[-1] <= "\u11c2"  # a final consonant
        assert has_final_consonant(noun) == closed
        assert topic(noun) == noun + ("은" if closed else "는")
        assert direct_object(noun) == noun + ("을" if closed else "를")


@BOTH
def test_korean_is_hangul_and_composed(lexicon: Lexicon) -> None:
    for text in nouns(lexicon) + texts(lexicon):
        assert text == unicodedata.normalize("NFC", text)
        assert all(c == " " or "가" <= c <= "힣" for c in text), text


@BOTH
def test_a_noun_with_its_particle_is_no_other_word(lexicon: Lexicon) -> None:
    words = {word for text in nouns(lexicon) + texts(lexicon) for word in text.split()}
    marked = {noun.split()[-1] + particle for noun in nouns(lexicon) for particle in PARTICLES}
    assert not words & marked


@BOTH
def test_levels_are_filled_and_spread_over_the_ranks(lexicon: Lexicon) -> None:
    for scale in SCALES:
        levels = Counter(getattr(thing, scale) for thing in lexicon.things)
        assert set(levels) == set(range(1, N_LEVELS + 1))
        assert all(10 <= n <= 30 for n in levels.values()), (scale, levels)


def test_levels_and_large_classes_lie_in_every_third_of_the_ranks() -> None:
    third = -(-len(REAL.things) // 3)
    thirds = [REAL.things[i : i + third] for i in range(0, len(REAL.things), third)]
    tags = Counter(tag for thing in REAL.things for tag in thing.tags)
    for part in thirds:
        for scale in SCALES:
            assert {getattr(t, scale) for t in part} == set(range(1, N_LEVELS + 1))
        here = {tag for thing in part for tag in thing.tags}
        assert {tag for tag, n in tags.items() if n >= 6} <= here


def test_the_two_orders_differ() -> None:
    apart = [abs(t.size - t.price) for t in REAL.things]
    assert sum(d >= 3 for d in apart) > len(apart) / 6
    ring = next(t for t in REAL.things if t.english == "ring")
    assert ring.size == 1 and ring.price > 9


@BOTH
def test_things_have_verbs_and_most_an_ambiguous_one(lexicon: Lexicon) -> None:
    verbs = [lexicon.verbs_of(thing) for thing in lexicon.things]
    assert min(map(len, verbs)) >= 6
    assert sum(any(v.is_ambiguous for v in vs) for vs in verbs) >= 0.7 * len(verbs)
    assert sum(verb.is_ambiguous for verb in lexicon.verbs) >= 12


def korean(past: str, english: str) -> str:
    """Translate a verb of the real lexicon, done to a thing."""
    verb = next(v for v in REAL.verbs if v.past == past)
    thing = next(t for t in REAL.things if t.english == english)
    return REAL.translate_verb(verb, thing)[0]


@pytest.mark.parametrize(
    ("past", "things"),
    [
        ("put on", "shirt 입었어요 shoe 신었어요 hat 썼어요 ring 꼈어요 tie 맸어요 watch 찼어요"),
        ("took off", "shirt 벗었어요 ring 뺐어요 tie 풀었어요 badge 뗐어요"),
        ("played", "piano 쳤어요 violin 켰어요 flute 불었어요 record 틀었어요"),
        ("opened", "box 열었어요 book 폈어요 bottle 땄어요 letter 뜯었어요"),
        ("closed", "box 닫았어요 book 덮었어요 umbrella 접었어요"),
        ("washed", "shirt 빨았어요 plate 닦았어요 apple 씻었어요 dog 씻겼어요 car 세차했어요"),
        ("took", "pill 먹었어요 bus 탔어요 photograph 찍었어요 dog 데려갔어요 key 가져갔어요"),
        ("broke", "cup 깼어요 pencil 부러뜨렸어요 rope 끊었어요 chair 부쉈어요"),
    ],
)
def test_korean_depends_on_the_thing(past: str, things: str) -> None:
    words = things.split()
    for english, expected in zip(words[::2], words[1::2], strict=True):
        assert korean(past, english) == expected


def test_connective_has_the_stem_of_the_polite_past() -> None:
    for verb in REAL.verbs:
        for reading in verb.readings:
            assert reading.korean.endswith("어요")
            assert reading.connective == reading.korean.removesuffix("어요") + "고"


def test_a_verb_is_refused_for_a_thing_that_does_not_take_it() -> None:
    verb = next(v for v in REAL.verbs if v.past == "drank")
    with pytest.raises(ValueError, match="'drank' is not said of 'door'"):
        REAL.translate_verb(verb, next(t for t in REAL.things if t.english == "door"))


COUNTED = """
책 권, 부츠 켤레, 외투 벌, 연필 자루, 자동차 대, 장미 송이, 사진 장, 고양이 마리, 맥주 병, 커피 잔,
나무 그루, 집 채, 배 척, 알약 알, 수프 그릇, 피자 판, 편지 통, 신문 부, 사과 개
"""  # as grammars of Korean list them


def test_counters_are_those_of_the_grammars() -> None:
    counters = {thing.korean: thing.counter for thing in REAL.things}
    expected = dict(line.split() for line in COUNTED.split(","))
    assert {noun: counters[noun] for noun in expected} == expected


def test_every_counter_is_used() -> None:
    assert {thing.counter for thing in REAL.things} == set(REAL.counters)


def shape(lexicon: Lexicon) -> object:
    """Return what an invented lexicon shares with the real one."""
    classes = Counter((thing.counter, thing.tags) for thing in lexicon.things)
    scales = Counter((thing.size, thing.price) for thing in lexicon.things)
    shared = Counter(r.korean for verb in lexicon.verbs for r in verb.readings)
    return (
        classes,
        scales,
        Counter(tuple(r.tag for r in verb.readings) for verb in lexicon.verbs),
        sorted(shared.values()),
        [len(getattr(lexicon, name)) for name in ("adjectives", "places", "people", "times")],
        Counter(person.pronoun for person in lexicon.people),
    )


def test_invented_lexicon_has_the_shape_of_the_real_one_and_none_of_its_words() -> None:
    invented = invented_lexicon(3)
    assert shape(invented) == shape(REAL)
    assert [t.tags for t in invented.things] != [t.tags for t in REAL.things]
    assert not set(nouns(invented)) & set(nouns(REAL))
    assert not {t.english for t in invented.things} & {t.english for t in REAL.things}
    finals = sum(map(has_final_consonant, nouns(invented))) / len(nouns(invented))
    assert 0.3 < finals < 0.7


def test_invented_lexicon_is_determined_by_its_seed() -> None:
    assert invented_lexicon.__wrapped__(5) == invented_lexicon.__wrapped__(5)
    assert invented_lexicon(5) != invented_lexicon(6)


def test_pairs_are_counted_as_pairs() -> None:
    plurals = {t.english: t.plural for t in REAL.things}
    assert plurals["boot"] == "pairs of boots"
    assert (plurals["knife"], plurals["sheep"], plurals["box"]) == ("knives", "sheep", "boxes")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"korean": "문"}, "Korean noun stands twice: 문"),
        ({"english": "door"}, "English noun stands twice: door"),
        ({"tags": ("hats",)}, "tags that no verb has: .'hats'"),
        ({"size": 13}, "level that is not from 1 to 12"),
        ({"counter": "뭉치"}, "unknown counter, '뭉치'"),
    ],
)
def test_a_bad_table_is_refused(change: dict[str, object], message: str) -> None:
    bad = next(t for t in REAL.things if t.english == "hat")._replace(**change)
    with pytest.raises(ValueError, match=message):
        replace(REAL, things=tuple(bad if t.english == "hat" else t for t in REAL.things))


def test_a_thing_without_verbs_is_refused() -> None:
    verbs = tuple(v for v in REAL.verbs if v.readings[-1].tag != "any")
    bare = REAL.things[0]._replace(tags=())
    with pytest.raises(ValueError, match=f"nothing can be done to '{bare.english}'"):
        replace(REAL, verbs=verbs, things=(bare, *REAL.things[1:]))


def test_the_tables_are_part_of_the_package() -> None:
    root = Path(__file__).parents[1]
    setup = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "setuptools"
    ]
    package = root / "src" / "miniweb"
    packaged = {p for pattern in setup["package-data"]["miniweb"] for p in package.glob(pattern)}
    assert set(package.rglob("*.tsv")) <= packaged

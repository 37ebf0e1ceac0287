import re
from collections import Counter

import pytest

from miniweb.cities import CITIES, City, in_hangul, invented_facts, real_words
from miniweb.facts import COUNTRIES

NAMES = [city.name for city in CITIES]


@pytest.mark.parametrize(
    ("city", "country"),
    [
        ("Shanghai", "China"),
        ("New York", "the United States"),
        ("Kinshasa", "the Democratic Republic of the Congo"),
        ("Cologne", "Germany"),
        ("Basra", "Iraq"),
        ("Xi'an", "China"),
        ("The Hague", "the Netherlands"),
        ("Nuku'alofa", "Tonga"),
        ("Esch-sur-Alzette", "Luxembourg"),
        ("Ushuaia", "Argentina"),
    ],
)
def test_the_cities_are_where_they_are(city, country):
    assert {entry.country.name for entry in CITIES if entry.name == city} == {country}


@pytest.mark.parametrize(
    "name",
    [
        # in two countries
        *("San Jose", "Valencia", "London", "Paris", "Moscow", "Cordoba", "Hyderabad"),
        # like their country or another
        *("Mexico City", "Singapore", "Tunis", "Indianapolis", "Panama City", "Monaco"),
        # disputed
        *("Sevastopol", "Donetsk", "Mariupol", "Srinagar", "Hargeysa", "Tiraspol", "Taipei"),
        *("Jerusalem", "Laayoune", "Pristina", "Famagusta", "Melilla", "Hong Kong"),
        # districts
        *("Pudong", "Bao'an", "Brooklyn", "Iztapalapa", "Rohini", "Kadikoy", "Soweto"),
    ],
)
def test_what_is_doubtful_is_left_out(name):
    assert name not in NAMES


def test_the_table_of_cities_is_whole():
    assert len(CITIES) == len({name.lower() for name in NAMES}) == 3000
    assert all(city.country in COUNTRIES for city in CITIES)
    assert [
        name for name in NAMES if not re.fullmatch(r"[A-Z][A-Za-z'-]+( [A-Za-z'-]+){,2}", name)
    ] == []


def test_no_country_has_more_than_300_cities_and_few_have_none():
    counts = Counter(city.country.name for city in CITIES)
    assert max(counts.values()) <= 300
    missing = {country.name for country in COUNTRIES} - set(counts)
    assert missing == {"Monaco", "Singapore", "Sao Tome and Principe"}


def words(name):
    return re.findall("[a-z]+", name.lower())


def parts(name):
    """Every run of words of a name, the name itself excepted."""
    found = words(name)
    spans = [(i, j) for i in range(len(found)) for j in range(i + 1, len(found) + 1)]
    return {" ".join(found[i:j]) for i, j in spans if j - i < len(found)}


def test_no_name_holds_another_or_a_country():
    """Else a part of the name would answer, or a search would find what is not there."""
    countries = {" ".join(words(country.name.removeprefix("the "))) for country in COUNTRIES}
    capitals = {" ".join(words(country.capital)) for country in COUNTRIES}
    others = {" ".join(words(name)) for name in NAMES} | countries | capitals
    assert [name for name in NAMES if parts(name) & others] == []
    assert [name for name in NAMES if " ".join(words(name)) in countries] == []
    assert [x for x in countries for name in NAMES if name.lower().startswith(x)] == []
    columns = {x for c in COUNTRIES for x in (c.continent, c.currency, c.language)}
    assert columns.isdisjoint(NAMES)


def test_no_city_is_the_capital_of_another_country():
    """What one table says, the other does not deny."""
    capitals = {country.capital: country for country in COUNTRIES}
    largest = {country.city: country for country in COUNTRIES if country.city}
    for city in CITIES:
        assert capitals.get(city.name, city.country) == city.country
        assert largest.get(city.name, city.country) == city.country


def shape(countries, cities):
    """What the real world and an invented one have in common."""
    position = {}
    for city in cities:
        mine = position.setdefault(city.country.name, {})
        mine[city.name] = len(mine)
    return {
        "countries": [
            (
                country.name.startswith("the "),
                len(country.name.split()),
                len(position.get(country.name, ())),
                position.get(country.name, {}).get(country.capital),
                position.get(country.name, {}).get(country.city),
                bool(country.city),
            )
            for country in countries
        ],
        "cities": [[word[0].isupper() for word in city.name.split()] for city in cities],
        "shared": [
            sorted(Counter(getattr(country, field) for country in countries).values())
            for field in ("continent", "currency", "language")
        ],
        "unknown": [
            sum(getattr(country, field) == "" for country in countries)
            for field in ("city", "currency", "language")
        ],
    }


def test_an_invented_world_has_the_shape_of_the_real_one():
    assert shape(*invented_facts(0)) == shape(COUNTRIES, CITIES)


@pytest.mark.parametrize("seed", range(3))
def test_an_invented_world_has_no_real_word_and_none_twice(seed):
    countries, cities = invented_facts(seed)
    values = {x for c in countries for x in (c.continent, c.currency, c.language) if x}
    named = {c.name.removeprefix("the ") for c in countries}
    named |= {x for c in countries for x in (c.capital, c.city) if x} | {c.name for c in cities}
    all_words = [word for value in [*values, *named] for word in value.lower().split()]
    assert len(values & named) == 0
    assert len(set(all_words)) == len(all_words) > 3500
    assert {"kobe", "euro", "kitts", "hindi", "dar"} < real_words()
    assert real_words().isdisjoint(all_words)
    assert all(re.fullmatch("([bcdghjkmnprst]+[aeiou][lmn]?){2,3}", word) for word in all_words)
    assert len({city.name for city in cities}) == 3000
    assert len({country.continent for country in countries}) == 6


def test_an_invented_world_follows_from_its_seed():
    assert invented_facts(3) == invented_facts(3)
    one, two = invented_facts(3), invented_facts(4)
    assert {city.name for city in one[1]} != {city.name for city in two[1]}
    # Not the real world renamed: which country has what is drawn anew.
    owners = [[COUNTRIES.index(c.country) for c in CITIES]]
    owners += [[world[0].index(c.country) for c in world[1]] for world in (one, two)]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        same = sum(x == y for x, y in zip(owners[a], owners[b], strict=True))
        assert same < 300  # by chance about 100 of 3,000
    for field in ("continent", "currency", "language"):
        firsts = [
            [[getattr(c, field) for c in countries].index(getattr(c, field)) for c in countries]
            for countries in (COUNTRIES, one[0], two[0])
        ]
        assert firsts[0] != firsts[1] != firsts[2] != firsts[0], field


def test_invented_countries_have_names_in_korean():
    countries, _ = invented_facts(0)
    assert len({country.korean for country in countries}) == 190
    assert all(re.fullmatch("[가-힣 ]+", country.korean) for country in countries)
    # ㅊ has the one spelling ch; a consonant closes a syllable unless a vowel follows.
    assert in_hangul("Rimen Toka") == "리멘 토카"
    assert in_hangul("Chonamun") == "초나문"
    assert in_hangul("Hanna") == "한나"


def test_a_city_is_a_name_and_a_country():
    city = CITIES[0]
    assert city == City("Shanghai", COUNTRIES[2])
    assert city.country.capital == "Beijing"

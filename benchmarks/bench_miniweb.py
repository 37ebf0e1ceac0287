"""How fast the miniweb writes, on one core."""

from itertools import islice
from statistics import median
from time import perf_counter
from typing import Any

from miniweb import LARGE, SMALL, World, documents

ROUNDS, DOCUMENTS = 5, 20_000


def megabytes_per_second(world: World, seed: int) -> float:
    """Write DOCUMENTS documents and return MB of UTF-8 text a second."""
    start = perf_counter()
    n_bytes = sum(
        len(document.text.encode()) for document in islice(documents(seed, world), DOCUMENTS)
    )
    return n_bytes / 1e6 / (perf_counter() - start)


def run() -> list[dict[str, Any]]:
    """Measure both worlds; there is no peer."""
    return [
        {
            "what": f"miniweb, {name} world, one core",
            "ours": median(megabytes_per_second(world, seed) for seed in range(ROUNDS)),
            "unit": "MB/s",
            "limit": "at least 1",
        }
        for name, world in (("small", SMALL), ("large", LARGE))
    ]


if __name__ == "__main__":
    for row in run():
        print(row)

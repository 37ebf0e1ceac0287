"""Rules that choose among candidates: by place, nearness, recency, counts, and two of these.

Each feature gives each candidate a number; a rule takes the candidate where a feature is largest
or smallest, and a second feature decides between equals.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from course.rules.comparing import Forms, compare, forms
from course.rules.counts import Chooser, Corpus, Cue, Cued, Key, Pairs, rarest, sentences, split

NOWHERE = -99.0
GAP = "___"
MAX_CANDIDATES = 12
RARE, MAX_FORMS = 2.0, 12  # of words that may be compared; of sets of them
N_LEARNED = 250  # examples from which weights of features are learned


class Asked(NamedTuple):
    """What a rule sees of an item."""

    prompt: str
    candidates: tuple[str, ...] = ()


class Answers(NamedTuple):
    """What several rules of one kind answer: rule r says texts[i][picks[r, i]] to item i."""

    names: list[str]
    n_numbers: int
    texts: list[list[str]]
    picks: np.ndarray  # (R, N)


class Pages:
    """Training pages, with the counts that the rules share, each kept within a budget."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.corpus = Corpus(texts)
        self._cued: dict[tuple[Cue, Key], Cued] = {}
        self._pairs: dict[int, Pairs] = {}
        self.kinds: dict[int, Any] = {}  # what a cue's answers are like: see facts

    def read(self, prompt: str, cue: Cue) -> "Read":
        """Number a prompt's words, and find what the pages with its cue say: 20 of them at least.

        If pages with all words of the cue are fewer, a shorter one is looked up.
        """
        before, _, after = prompt.partition(GAP)
        words, gap = self.corpus.encode(f"{before} {after}"), len(split(before))
        for key in cue.keys(words, gap, self.corpus.ends):
            cued = self.cued(cue, key)
            if cued.n_examples >= 20:
                break
        return Read(words, cue.start(words[:gap], self.corpus.ends), gap, cued)

    def cued(self, cue: Cue, key: Key) -> Cued:
        """Return what the pages say that have a cue's words."""
        if (cue, key) not in self._cued:
            self._cued[cue, key] = Cued(self.corpus, cue, key)
        return self._cued[cue, key]

    def ending(self, cued: Cued) -> Cued:
        """Return what the pages say that have only the words around the answer in common."""
        return self.cued(cued.cue, Key((), cued.key.last, cued.key.after[:1]))

    def pairs(self, budget: int) -> Pairs:
        """Return the table of words in one sentence that holds at most so many numbers."""
        if budget not in self._pairs:
            self._pairs[budget] = Pairs(self.corpus, budget)
        return self._pairs[budget]


class Read(NamedTuple):
    """A prompt in numbers, where its cue starts and is to be answered, and what pages say."""

    words: list[int]
    start: int
    gap: int
    cued: Cued


class Seen(NamedTuple):
    """A prompt as a pointing rule sees it."""

    words: list[int]
    start: int  # of the cue
    stop: int  # of what may name candidates: the cue too, where the answer is inside a sentence
    candidates: list[int]  # the telling word of each

    @property
    def before(self) -> list[int]:
        """Return what is before the cue, or before the answer in a prompt that is all cue."""
        return self.words[: self.start or self.stop]


def stop_of(corpus: Corpus, words: Sequence[int], start: int, gap: int) -> int:
    """Return where the part of a prompt ends in which candidates are looked for."""
    inside = not gap or words[gap - 1] < 0 or bool(corpus.is_word[words[gap - 1]])
    return gap if inside or not start else start


def telling_words(corpus: Corpus, candidates: Sequence[str]) -> list[int]:
    """Return the rarest word of each candidate that the others do not have."""
    rows = [corpus.encode(text) for text in candidates]
    found = []
    for i, row in enumerate(rows):
        others = {word for j, other in enumerate(rows) if j != i for word in other}
        own = [word for word in row if word not in others]
        word = rarest(corpus, own)
        found.append(word if word is not None else (rarest(corpus, row) or -1))
    return found


def named(words: Sequence[int], names: Counter[int]) -> list[int]:
    """List the words that ever answered a cue, in order of their first place."""
    told = [w for w in dict.fromkeys(words) if w in names]
    kept = set(sorted(told, key=lambda w: -names[w])[:MAX_CANDIDATES])
    return [w for w in told if w in kept]


class Features:
    """The features of candidates: what a rule can see, and what it can count."""

    def __init__(self, pages: Pages, budget: int) -> None:
        self.corpus, self.pages, self.budget = pages.corpus, pages, budget
        self.pairs = pages.pairs(budget // 2)
        self.ratings: dict[tuple[int, ...], dict[str, dict[int, float]]] = {}
        self.forms: dict[frozenset[int], tuple[set[int], Forms]] = {}
        self.links: dict[int, dict[int, Counter[int]]] = {}

    def table(self, seen: Seen, cued: Cued) -> dict[str, list[float]]:
        """Compute all features of a prompt's candidates."""
        table = self.by_place(seen)
        for name, place in self.references(seen, cued).items():
            table |= self.by_nearness(seen, name, place)
        return table | self.by_count(seen, cued)

    def by_place(self, seen: Seen) -> dict[str, list[float]]:
        """Say where and how often the candidates stand, in the prompt before its cue."""
        body = seen.words[: seen.stop]
        spans = sentences(body, self.corpus.ends)
        places = [[i for i, w in enumerate(body) if w == c] for c in seen.candidates]
        first = [float(p[0]) if p else NOWHERE for p in places]
        last = [float(p[-1]) if p else NOWHERE for p in places]
        order = {c: k for k, c in enumerate(sorted(set(first)))}
        reverse = {c: k for k, c in enumerate(sorted(set(last), reverse=True))}
        edges = {i for a, b in spans for i in range(max(a, b - 2), b)}
        table = {
            "listed": [float(i) for i in range(len(seen.candidates))],
            "first place": first,
            "last place": last,
            "times named": [float(len(p)) for p in places],
            "named once": [float(len(p) == 1) for p in places],
            "in the cue": [float(c in seen.words[seen.start :]) for c in seen.candidates],
            "ends a sentence": [float(any(i in edges for i in p)) for p in places],
            "starts a sentence": [float(any(i == a for a, _ in spans for i in p)) for p in places],
        }
        for k in range(1, 5):
            table[f"number {k} from the start"] = [float(order[x] == k) for x in first]
            table[f"number {k} from the end"] = [float(reverse[x] == k) for x in last]
        for k in (0, 1, 2):
            back = spans[len(spans) - 1 - k :][:1]
            for name, span in ((f"{k + 1}", spans[k : k + 1]), (f"-{k + 1}", back)):
                inside = [sum(a <= i < b for a, b in span for i in p) for p in places]
                table["in sentence " + name] = [float(n) for n in inside]
        return table

    def references(self, seen: Seen, cued: Cued) -> dict[str, int]:
        """Find places in the prompt that its cue points at, by its words or by counting."""
        body, tail = seen.before, seen.words[seen.start :]
        last = {w: i for i, w in enumerate(body)}
        options = set(seen.candidates)
        content = [w for w in dict.fromkeys(tail) if w not in options and cued.varies(w, True)
                   and (w < 0 or self.corpus.is_word[w])]  # fmt: skip
        shared = [w for w in content if w in last]
        by_rarity = sorted(shared, key=lambda w: -self.corpus.rarity(w))
        found = {}
        for k, w in enumerate(by_rarity[:2]):
            found[f"the cue's rare word {k + 1}"] = last[w]
            found[f"the first of the cue's rare word {k + 1}"] = body.index(w)
        if shared:
            found["the cue's first word"] = last[shared[0]]
            found["the cue's last word"] = last[shared[-1]]
        for w in [w for w in content if w not in last][-1:]:
            if (place := self.linked(w, body, cued)) is not None:
                found["the word that goes with the cue's"] = place
        if by_rarity:
            barred = options | {by_rarity[0]}
            near = self.hops(body, last[by_rarity[0]], barred, cued, "the cue's")
            found |= near
            for name, place in near.items():
                if "beside" in name:
                    found |= self.hops(body, place, barred | {body[place]}, cued, name)
        return found

    def hops(self, body: list[int], place: int, barred: set[int], cued: Cued, origin: str
             ) -> dict[str, int]:  # fmt: skip
        """Go on from a place to another word that is named again, and to where that stands last."""
        last = {w: i for i, w in enumerate(body)}
        others = self.others(cued)
        named = [i for i, w in enumerate(body) if w in others and w not in barred]
        named = named or [i for i, w in enumerate(body) if w not in barred
                          and body.count(w) > 1 and cued.varies(w, False)]  # fmt: skip
        spans = sentences(body, self.corpus.ends)
        inside = next((set(range(a, b)) for a, b in spans if a <= place < b), set[int]())
        routes = {
            f"the first name beside {origin}": [i for i in named if i in inside][:1],
            f"the last name beside {origin}": [i for i in named if i in inside][-1:],
        }
        if origin == "the cue's":
            routes["the name before the cue's"] = [i for i in named if i < place][-1:]
            routes["the name behind the cue's"] = [i for i in named if i > place][:1]
        return {name: last[body[i]] for name, found in routes.items() for i in found}

    def others(self, cued: Cued) -> set[int]:
        """Return the words that answered other cues with the same end, but not this one."""
        return self.pages.ending(cued).names.keys() - cued.names.keys()

    def linked(self, word: int, body: list[int], cued: Cued) -> int | None:
        """Find the word of a prompt that goes with a word of its cue, by counting on examples."""
        if id(cued) not in self.links:
            self.links[id(cued)] = self._link(cued)
        links = self.links[id(cued)].get(word, Counter())
        score = {w: links[w] / (5 + self.corpus.count(w)) for w in body if links[w] > 1}
        if not score:
            return None
        best = max(score, key=lambda w: score[w])
        return len(body) - 1 - body[::-1].index(best)

    def _link(self, cued: Cued) -> dict[int, Counter[int]]:
        """Count words of the cue with words before it, over the examples of a cue."""
        links: dict[int, Counter[int]] = {}
        for e in cued.counted[:6000]:
            body = set(e.prompt[: e.start])
            for w in set(e.prompt[e.start :]):
                if w not in body and cued.varies(w, True):
                    links.setdefault(w, Counter()).update(body)
        return links

    def by_nearness(self, seen: Seen, name: str, place: int) -> dict[str, list[float]]:
        """Say how near the candidates stand to a place, before and behind it."""
        body = seen.words[: seen.stop]
        spans = sentences(body, self.corpus.ends)
        inside = next(((a, b) for a, b in spans if a <= place < b), (0, 0))
        bags = [set(body[a:b]) for a, b in spans]
        after, before, near, same, latest = [], [], [], [], []
        for c in seen.candidates:
            gaps = [i - place for i, w in enumerate(body) if w == c]
            after.append(-min((g for g in gaps if g > 0), default=-NOWHERE))
            before.append(-min((-g for g in gaps if g < 0), default=-NOWHERE))
            near.append(-min((abs(g) for g in gaps), default=-NOWHERE))
            same.append(float(any(inside[0] <= place + g < inside[1] for g in gaps)))
            shared = [k for k, bag in enumerate(bags) if c in bag and body[place] in bag]
            latest.append(float(shared[-1]) if shared else -1.0)
        return {
            f"latest in a sentence with {name}": latest,
            f"nearest behind {name}": [float(x) for x in after],
            f"nearest before {name}": [float(x) for x in before],
            f"nearest to {name}": [float(x) for x in near],
            f"in the sentence of {name}": same,
        }

    def by_count(self, seen: Seen, cued: Cued) -> dict[str, list[float]]:
        """Say what the counts tell of the candidates."""
        corpus, options = self.corpus, np.array(seen.candidates)
        tail = seen.words[seen.start :]
        others = {"the prompt": set(seen.words), "the cue": set(tail)}
        table = {
            "how common": [float(corpus.count(c)) for c in seen.candidates],
            "how often the answer": [float(cued.names[c]) for c in seen.candidates],
            "how often the answer, per mention":
                [cued.names[c] / (1 + corpus.count(c)) for c in seen.candidates],
        }  # fmt: skip
        for name, words in others.items():
            around = np.array([w for w in words if w >= 0 and corpus.is_word[w]
                               and w not in seen.candidates], int)  # fmt: skip
            if not len(around):
                continue
            known = self.pairs.information(options, around)
            table[f"information on {name}"] = known.sum(1).tolist()
            table[f"information on one word of {name}"] = known.max(1).tolist()
            rare = around[np.argsort(-corpus.idf[around], kind="stable")[:3]]
            ahead, behind = self.pairs.count(options, rare), self.pairs.count(rare, options).T
            lead = np.log((ahead + 0.5) / (behind + 0.5))
            for k in range(len(rare)):
                table[f"before rare word {k + 1} of {name}"] = lead[:, k].tolist()
                table[f"information on rare word {k + 1} of {name}"] = self.pairs.information(
                    options, rare[k : k + 1])[:, 0].tolist()  # fmt: skip
        wins = self.pairs.count(options, options)
        lead = np.log((wins + 0.5) / (wins.T + 0.5))
        np.fill_diagonal(lead, 0)
        table["before the other candidates"] = lead.sum(1).tolist()
        return table | self.by_wins(seen, cued)

    def by_wins(self, seen: Seen, cued: Cued) -> dict[str, list[float]]:
        """Rate the candidates by comparisons with other names, if the cue names two of them."""
        if len(set(seen.candidates) & set(seen.words[seen.start :])) < 2:
            return {}
        tail = [w for w in dict.fromkeys(seen.words[seen.start :]) if w >= 0]
        tail = [w for w in tail if self.corpus.is_word[w] and w not in seen.candidates]
        names, every = self.compared(seen, cued, tail)
        spoken = set().union(*every)  # a word that no comparison has says nothing about direction
        tail = sorted((w for w in tail if w in spoken), key=lambda w: -self.corpus.idf[w])[:2]
        key = (id(every), id(cued), *tail)
        if key not in self.ratings:
            self.ratings[key] = compare(cued, names, every, tail)
        return {
            name: [rated.get(c, 0.0) for c in seen.candidates]
            for name, rated in self.ratings[key].items()
        }

    def compared(self, seen: Seen, cued: Cued, tail: list[int]) -> tuple[set[int], Forms]:
        """Collect comparisons of the words that answer such cues, or else of all rare words."""
        general = self.pages.ending(cued).names
        key: frozenset[int] = frozenset({-id(general)})
        rare = not all(c in general for c in seen.candidates)
        if rare:  # the words of the cue are not compared; if they differ each time, nothing is
            key = frozenset(w for w in tail if self.corpus.idf[w] > RARE)
        if key not in self.forms:
            if rare and len(self.forms) > MAX_FORMS:
                return set(), {}
            some = general.most_common(min(600, self.budget // 8))
            names = {w for w, _ in some if w >= 0}
            if rare:
                names = set(np.flatnonzero(self.corpus.idf > RARE).tolist()) - key
            self.forms[key] = names, forms(self.corpus, names)
        return self.forms[key]


class Pointing:
    """All rules that choose among candidates, with one cue and one budget."""

    def __init__(self, pages: Pages, cue: Cue, budget: int) -> None:
        self.pages, self.cue, self.budget = pages, cue, budget
        self.features = Features(pages, budget)
        self._learned: dict[int, tuple[Chooser, tuple[str, str] | None]] = {}

    def see(self, asked: Asked) -> tuple[Seen, Cued, list[str]]:
        """Read a prompt; take as candidates what is offered, or what ever answered the cue."""
        corpus = self.pages.corpus
        words, start, gap, cued = self.pages.read(asked.prompt, self.cue)
        stop = stop_of(corpus, words, start, gap)
        if asked.candidates:
            options = telling_words(corpus, asked.candidates)
            return Seen(words, start, stop, options), cued, list(asked.candidates)
        options = named(words[:stop], cued.names) or [
            w for w in dict.fromkeys(words[:stop]) if w >= 0 and corpus.is_word[w]
            and cued.varies(w, False)][:MAX_CANDIDATES]  # fmt: skip
        return Seen(words, start, stop, options), cued, [cued.say(word) for word in options]

    def answers(self, asked: Sequence[Asked]) -> Iterator[Answers]:
        """Answer by each feature, by each two, and by what the examples say is right."""
        seen = [self.see(one) for one in asked]
        texts = [options or [""] for _, _, options in seen]
        tables = [self.features.table(s, cued) if s.candidates else {} for s, cued, _ in seen]
        names = sorted({name for table in tables for name in table})
        if not names:
            return
        width = max(map(len, texts))
        ranks = stack(tables, names, width)
        signed = [f"{sign} {name}" for sign in ("most", "least") for name in names]
        sizes = self.sizes(seen)
        free = frozenset() if asked[0].candidates else frozenset({"names"})
        needs = [tables_of(name) | free for name in signed]
        for name, need, alone in zip(signed, needs, ranks.argmax(2), strict=True):
            yield Answers([name], sum(sizes[table] for table in need), texts, alone[None])
        for i, first in enumerate(signed):
            score = ranks[i] * width + ranks
            score[:, ranks[0] < 0] = -1
            picks = score.argmax(2)
            for need in dict.fromkeys(needs):
                group = [j for j, other in enumerate(needs) if other == need]
                held = sum(sizes[table] for table in needs[i] | need)
                labels = [f"{first}, then {signed[j]}" for j in group]
                yield Answers(labels, held, texts, picks[group])
        yield from self.learned(seen, texts)

    def sizes(self, seen: list[tuple[Seen, Cued, list[str]]]) -> dict[str, int]:
        """Return how many numbers each table of the features holds."""
        links, rated = self.features.links.values(), self.features.ratings.values()
        return {
            "pairs": len(self.features.pairs.keys),
            "names": len({w for _, cued, _ in seen for w in cued.names}),
            "links": sum(len(row) for rows in links for row in rows.values()),
            "ratings": sum(len(table) for tables in rated for table in tables.values()),
        }

    def learned(self, seen: list[tuple[Seen, Cued, list[str]]], texts: list[list[str]]
                ) -> Iterator[Answers]:  # fmt: skip
        """Answer as the examples with the same cue say: by all features, weighed."""
        weighed, decided, weights = [], [], {}
        for s, cued, _ in seen:
            if not s.candidates:
                weighed.append(0)
                decided.append(0)
                continue
            chooser, pair = self.fit(cued)
            weights[id(cued)] = len(chooser.weight)
            table = self.features.table(s, cued)
            options = self.describe(s, cued, table)
            weighed.append(int(np.argmax([chooser.score(option) for option in options])))
            decided.append(decide(table, pair, len(options)))
        sizes, picks = self.sizes(seen), np.array([weighed, decided])
        weighs = sum(sizes.values()) + sum(weights.values())
        yield Answers(["features weighed on examples"], weighs, texts, picks[:1])
        pairs = [pair for _, pair in self._learned.values() if pair]
        needs = frozenset({"names"}).union(*(tables_of(name) for pair in pairs for name in pair))
        chosen = sum(sizes[table] for table in needs) + 2 * len(weights)
        yield Answers(["two features chosen on examples"], chosen, texts, picks[1:])

    def fit(self, cued: Cued) -> tuple[Chooser, tuple[str, str] | None]:
        """Learn from the examples of a cue which features point at the answer."""
        if id(cued) in self._learned:
            return self._learned[id(cued)]
        groups, right, tables = [], [], []
        for e in cued.learned[:N_LEARNED]:
            stop = stop_of(self.pages.corpus, e.prompt, e.start, e.gap)
            options, answer = named(e.prompt[:stop], cued.names), set(e.answer)
            hits = [i for i, word in enumerate(options) if word in answer]
            if len(options) < 2 or len(hits) != 1:
                continue
            seen = Seen(e.prompt, e.start, stop, options)
            tables.append(self.features.table(seen, cued))
            groups.append(self.describe(seen, cued, tables[-1]))
            right.append(hits[0])
        found = Chooser(groups, right, self.budget // 8), best_two(tables, right)
        self._learned[id(cued)] = found
        return found

    def describe(self, seen: Seen, cued: Cued, table: dict[str, list[float]]) -> list[list[str]]:
        """List of each candidate where it is most or least, and the words around it."""
        options: list[list[str]] = [[] for _ in seen.candidates]
        for name, values in table.items():
            most, least = max(values), min(values)
            for option, value in zip(options, values, strict=True):
                if most > least:
                    option += ["most " + name] * (value == most)
                    option += ["least " + name] * (value == least)
        body = [0, *seen.words[: seen.stop], 0]
        for option, c in zip(options, seen.candidates, strict=True):
            places = [i for i, w in enumerate(body) if w == c][-1:]
            for i in places:
                option += [f"behind {body[i - 1]}", f"before {body[i + 1]}"]
        return options


def tables_of(feature: str) -> frozenset[str]:
    """Name the tables of counts in which a feature looks something up."""
    words = {
        "pairs": ("information", "before rare word", "before the other"),
        "ratings": ("wins",),
        "links": ("goes with",),
        "names": ("the answer", "how common"),
    }
    return frozenset(t for t, marks in words.items() if any(mark in feature for mark in marks))


def stack(tables: list[dict[str, list[float]]], names: list[str], width: int) -> np.ndarray:
    """Rank the candidates of each item by each feature, up and down: (2F, N, C), -1 for none."""
    ranks = np.full((2 * len(names), len(tables), width), -1, np.int32)
    for n, table in enumerate(tables):
        size = len(next(iter(table.values()), []))
        nothing = [0.0] * size
        up = np.array([table.get(name, nothing) for name in names])
        smaller = up[:, :, None] > up[:, None, :]
        ranks[: len(names), n, :size] = smaller.sum(2)
        ranks[len(names) :, n, :size] = smaller.sum(1)
    return ranks


def best_two(tables: list[dict[str, list[float]]], right: list[int]) -> tuple[str, str] | None:
    """Return the feature, and the one that decides between equals, that are right most often."""
    names = sorted({name for table in tables for name in table})
    if not names:
        return None
    width = max(len(next(iter(table.values()))) for table in tables)
    ranks = stack(tables, names, width)
    signed = [f"{sign} {name}" for sign in ("most", "least") for name in names]
    best = (-1.0, ("", ""))
    for i, first in enumerate(signed):
        score = ranks[i] * width + ranks
        score[:, ranks[0] < 0] = -1
        hits = (score.argmax(2) == np.array(right)).mean(1)
        j = int(hits.argmax())
        best = max(best, (float(hits[j]), (first, signed[j])))
    return best[1]


def decide(table: dict[str, list[float]], pair: tuple[str, str] | None, n: int) -> int:
    """Apply a feature and the one that decides between equals."""
    total = np.zeros(n)
    for weight, signed in zip((64.0, 1.0), pair or (), strict=False):
        sign, _, name = signed.partition(" ")
        values = np.array(table.get(name, [0.0] * n)) * (1 if sign == "most" else -1)
        total += weight * np.unique(values, return_inverse=True)[1]
    return int(total.argmax())

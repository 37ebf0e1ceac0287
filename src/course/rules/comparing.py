"""Who stands above whom: comparisons of two names, counted over sentences of one form.

A form is a sentence with its names masked. Which of the two names is the greater one, the first or
the last, differs from form to form; it is learned from the forms themselves.
"""

from collections import Counter

import numpy as np

from course.rules.counts import Corpus, Cued

Edges = Counter[tuple[int, int]]
Forms = dict[tuple[int, ...], Edges]  # by the sentence, its names masked
N_FORMS, N_LEAST, AGREE = 100, 20, 0.3


def ratings(edges: Edges) -> dict[int, float]:
    """Rate names by who stood above whom, by least squares over all comparisons.

    A name is rated by its own comparisons and by how those it met are rated: two that never met
    are compared through a chain. Source: Massey 1997, "Statistical models applied to the rating
    of sports teams".
    """
    names = sorted({word for edge in edges for word in edge})
    at = {word: i for i, word in enumerate(names)}
    laplacian, margin = np.eye(len(names)) * 1e-3, np.zeros(len(names))
    for (a, b), n in edges.items():
        i, j = at[a], at[b]
        laplacian[[i, j], [i, j]] += n
        laplacian[[i, j], [j, i]] -= n
        margin[i] += n
        margin[j] -= n
    return dict(zip(names, np.linalg.solve(laplacian, margin).tolist(), strict=True))


def shares(edges: Edges) -> dict[int, float]:
    """Rate names by the share of their own comparisons in which they stood above."""
    wins, met = Counter[int](), Counter[int]()
    for (a, b), n in edges.items():
        wins[a] += n
        met[a] += n
        met[b] += n
    return {word: (wins[word] + 0.5) / (met[word] + 1) - 0.5 for word in met}


def forms(corpus: Corpus, names: set[int]) -> Forms:
    """Collect the sentences that name two names, by form: which came first, and which last."""
    is_name = np.zeros(len(corpus.words), bool)
    is_name[list(names)] = True
    hit = np.flatnonzero(is_name[corpus.ids])
    if not len(hit):
        return {}
    sentence = corpus.sentence_of[hit]
    first = np.flatnonzero(np.append(True, sentence[1:] != sentence[:-1]))
    last = np.append(first[1:], len(hit)) - 1
    fits = (last > first) & (last - first < 4)
    fits &= corpus.ids[hit[first]] != corpus.ids[hit[last]]
    found: Forms = {}
    for i, j in zip(hit[first[fits]].tolist(), hit[last[fits]].tolist(), strict=True):
        row = corpus.sentence(int(corpus.sentence_of[i]))
        form = tuple(-1 if is_name[w] else w for w in row)
        found.setdefault(form, Edges())[int(corpus.ids[i]), int(corpus.ids[j])] += 1
    large = sorted(found, key=lambda form: -found[form].total())[:N_FORMS]
    return {form: found[form] for form in large if found[form].total() >= N_LEAST}


def example_edges(cued: Cued, names: set[int], words: list[int]) -> Edges:
    """Compare the answer of each example whose cue has some words with the other name there."""
    edges = Edges()
    for e in cued.counted:
        if not set(words) <= set(e.prompt[e.start :]):
            continue
        met = {w for w in e.prompt[e.start :] if w in names}
        right = met & set(e.answer)
        if len(right) == 1 and len(met) == 2:
            edges[min(right), min(met - right)] += 1
    return edges


def agreement(edges: Edges, rated: dict[int, float]) -> float:
    """Return how often comparisons agree with ratings: 1 always, 0 as often as not, -1 never."""
    known = [(np.sign(rated[a] - rated[b]), n) for (a, b), n in edges.items()
             if a in rated and b in rated]  # fmt: skip
    total = sum(n for _, n in known)
    return float(sum(sign * n for sign, n in known) / total) if total else 0.0


def compare(cued: Cued, names: set[int], every: Forms, words: list[int]
            ) -> dict[str, dict[int, float]]:  # fmt: skip
    """Rate the names that answer such cues, from examples and from sentences of every form.

    words: those of the cue that some form has, the rarest first; such forms show the direction
    where examples do not.
    """
    edges = example_edges(cued, names, words[:1])
    tables = {"share of wins in examples": shares(edges)} if edges else {}
    for k, word in enumerate(words[:2]):
        direct = sum((f for form, f in every.items() if word in form), Edges())
        tables[f"share of wins beside rare word {k + 1}"] = shares(direct)
        tables[f"rating by wins beside rare word {k + 1}"] = ratings(direct) if direct else {}
        if not edges:  # the examples say nothing: let the commonest form do it
            edges = max((f for form, f in every.items() if word in form),
                        key=lambda f: f.total(), default=edges)  # fmt: skip
    if edges:
        tables["rating by wins in examples"] = ratings(edges)
        for _ in range(2):
            rated, base = ratings(edges), edges.copy()
            for form in every.values():
                if (agrees := agreement(form, rated)) > AGREE:
                    base += form
                elif agrees < -AGREE:
                    base += Edges({(b, a): n for (a, b), n in form.items()})
            edges = base
        tables["rating by wins in all sentences"] = ratings(edges)
        tables["share of wins in all sentences"] = shares(edges)
    return tables

"""Wrong answers to the exercises of chapter 3, the mistakes that people make, and right ones.

Each function is named after the answer that it stands in for and what is wrong with it. See
course.mutants.
"""

import torch

from gpt2.data import IGNORE


def training_examples__one_a_window(tokens, n_ctx):
    starts = range(0, len(tokens) - 1, n_ctx)
    last = len(tokens) - 1
    return [(tokens[i : i + n_ctx], tokens[min(i + n_ctx, last)]) for i in starts]


def training_examples__context_is_the_whole_past(tokens, n_ctx):
    return [(tokens[:i], tokens[i]) for i in range(1, len(tokens))]


def training_examples__forgets_the_border(tokens, n_ctx):
    pairs = training_examples__right__window_by_window(tokens, n_ctx)
    return [pair for i, pair in enumerate(pairs, start=1) if i % n_ctx]


def training_examples__drops_the_short_window(tokens, n_ctx):
    whole = (len(tokens) - 1) // n_ctx * n_ctx
    return training_examples__right__window_by_window(tokens, n_ctx)[:whole]


def training_examples__one_list_for_all(tokens, n_ctx):
    pairs, context = [], []
    for i in range(1, len(tokens)):
        context = context if (i - 1) % n_ctx else []
        context.append(tokens[i - 1])
        pairs.append((context, tokens[i]))
    return pairs


def training_examples__last_target_of_each_window_lost(tokens, n_ctx):
    windows = [tokens[i : i + n_ctx] for i in range(0, len(tokens), n_ctx)]
    return [(w[:k], w[k]) for w in windows for k in range(1, len(w))]


def training_examples__sliding_window(tokens, n_ctx):
    return [(tokens[max(0, i - n_ctx) : i], tokens[i]) for i in range(1, len(tokens))]


def training_examples__target_is_the_last_of_the_context(tokens, n_ctx):
    pairs = training_examples__right__window_by_window(tokens, n_ctx)
    return [(context, context[-1]) for context, _ in pairs]


def training_examples__right__window_by_window(tokens, n_ctx):
    pairs = []
    for start in range(0, len(tokens) - 1, n_ctx):
        x, y = tokens[start : start + n_ctx], tokens[start + 1 : start + n_ctx + 1]
        pairs += [(tuple(x[: t + 1]), target) for t, target in enumerate(y)]
    return tuple(pairs)


def inspect(split, copies=True, reorder=True, add=True, lost=True, n=300):
    """Inspect a split as the solution does, with one thing or another left out."""
    texts = [f"page {i}, which says {i % 7} and {i * 31}" for i in range(n)]
    faults = set()

    def sides(documents):
        train, validation = split(list(documents))
        if copies and set(train) & set(validation):
            faults.add("leak")
        if lost and set(documents) - set(train) - set(validation):
            faults.add("lost")
        return {text: text in set(validation) for text in documents}

    first = sides(texts)
    if copies:
        sides(texts * 4)
    trials = [texts[::-1], sorted(texts, key=len)] if reorder else []
    trials += [[f"new {i}" for i in range(150)] + texts, texts[: n // 2]] if add else []
    for documents in trials:
        again = sides(documents)
        if any(again[text] != first[text] for text in texts if text in again):
            faults.add("moves")
    return faults


def split_faults__no_copies(split):
    return inspect(split, copies=False)


def split_faults__never_adds_documents(split):
    return inspect(split, add=False)


def split_faults__never_another_order_nor_other_documents(split):
    return inspect(split, add=False, reorder=False)


def split_faults__never_counts(split):
    return inspect(split, lost=False)


def split_faults__two_documents(split):
    return inspect(split, n=2)


def split_faults__wants_every_copy_back(split):
    texts = [f"page {i}" for i in range(300)] * 2
    train, validation = split(texts)
    found = inspect(split)
    return found | ({"lost"} if len(train) + len(validation) < len(texts) else set())


def split_faults__says_yes_to_all(split):
    return {"leak", "lost", "moves"}


def split_faults__right__as_a_list(split):
    return sorted(inspect(split))


def same_document__no_causality(x, end_of_text):
    document = (x == end_of_text).cumsum(1)
    return document[:, :, None] == document[:, None, :]


def same_document__causal_only(x, end_of_text):
    return torch.ones(len(x), x.size(1), x.size(1)).tril().bool()


def same_document__end_belongs_to_the_document_before(x, end_of_text):
    ends = (x == end_of_text).long()
    document = ends.cumsum(1) - ends
    T = x.size(1)
    same = document[:, :, None] == document[:, None, :]
    return same & torch.ones(T, T).tril().bool()


def same_document__upside_down(x, end_of_text):
    return same_document__right__by_loops(x, end_of_text).transpose(1, 2)


def same_document__counts_on_across_rows(x, end_of_text):
    document = (x == end_of_text).flatten().cumsum(0).view_as(x)
    T = x.size(1)
    same = document[:, :, None] == document[0][None, None, :]
    return same & torch.ones(T, T).tril().bool()


def same_document__end_is_always_zero(x, end_of_text):
    return same_document__right__by_loops(x, 0)


def same_document__numbers_for_bools(x, end_of_text):
    return same_document__right__by_loops(x, end_of_text).float()


def same_document__right__by_loops(x, end_of_text):
    B, T = x.shape
    mask = torch.zeros(B, T, T, dtype=torch.bool)
    for b in range(B):
        for t in range(T):
            for s in range(t, -1, -1):
                mask[b, t, s] = True
                if x[b, s] == end_of_text:
                    break
    return mask


def row_report__padding_is_what_counts(x, y, end_of_text):
    padding, whole = row_report__right__by_loops(x, y, end_of_text)
    return 1 - padding, whole


def row_report__counts_padding(x, y, end_of_text):
    begun = (x == end_of_text).cumsum(1) > 0
    return (y == IGNORE).float().mean(), begun.float().mean()


def row_report__end_must_come_before(x, y, end_of_text):
    ends = (x == end_of_text).long()
    begun = (ends.cumsum(1) - ends) > 0
    return (y == IGNORE).float().mean(), begun[y != IGNORE].float().mean()


def row_report__anywhere_in_the_row(x, y, end_of_text):
    begun = (x == end_of_text).any(1, keepdim=True).expand_as(x)
    return (y == IGNORE).float().mean(), begun[y != IGNORE].float().mean()


def row_report__padding_by_the_input(x, y, end_of_text):
    _, whole = row_report__right__by_loops(x, y, end_of_text)
    return (x == end_of_text).float().mean(), whole


def row_report__mean_of_the_rows(x, y, end_of_text):
    pairs = zip(x[:, None], y[:, None], strict=True)
    rows = [row_report__right__by_loops(*pair, end_of_text) for pair in pairs]
    return tuple(sum(shares) / len(rows) for shares in zip(*rows, strict=True))


def row_report__divided_by_all_positions(x, y, end_of_text):
    padding, whole = row_report__right__by_loops(x, y, end_of_text)
    return padding, whole * (1 - padding)


def row_report__the_other_way_round(x, y, end_of_text):
    return row_report__right__by_loops(x, y, end_of_text)[::-1]


def row_report__works_on_the_original(x, y, end_of_text):
    found = row_report__right__by_loops(x, y, end_of_text)
    x[y == IGNORE] = -1
    return found


def row_report__end_is_always_zero(x, y, end_of_text):
    return row_report__right__by_loops(x, y, 0)


def row_report__right__by_loops(x, y, end_of_text):
    counted = whole = 0
    for xs, ys in zip(x.tolist(), y.tolist(), strict=True):
        begun = False
        for token, target in zip(xs, ys, strict=True):
            begun = begun or token == end_of_text
            counted += target != IGNORE
            whole += begun and target != IGNORE
    return 1 - counted / x.numel(), whole / counted


def grouped(documents, n, of=min, chain=True, sets=True, share=0.5, short=True):
    """Group as the solution does, with one thing or another bent."""

    def runs(document):
        words = document.split()
        last = len(words) - n + 1
        starts = range(max(last, 1) if short else max(last, 0))
        found = [tuple(words[i : i + n]) for i in starts]
        return set(found) if sets else found

    def near(a, b):
        common = len(a & b) if sets else sum(run in b for run in a)
        return common >= share * of(len(a), len(b))

    found = [runs(document) for document in documents]
    group = list(range(len(documents)))
    for j in range(len(documents)):
        for i in range(j):
            if near(found[i], found[j]):
                if not chain:
                    group[j] = group[i]
                    break
                keep, drop = sorted((group[i], group[j]))
                group = [keep if g == drop else g for g in group]
    return group


def groups__of_the_longer_document(documents, n):
    return grouped(documents, n, of=max)


def groups__joins_no_groups(documents, n):
    return grouped(documents, n, chain=False)


def groups__more_than_half(documents, n):
    return grouped(documents, n, share=0.51)


def groups__any_common_run(documents, n):
    return grouped(documents, n, share=1e-9)


def groups__counts_repeated_runs(documents, n):
    return grouped(documents, n, sets=False, of=max)


def groups__equal_documents_only(documents, n):
    return [documents.index(document) for document in documents]


def groups__numbers_groups_in_turn(documents, n):
    found = grouped(documents, n)
    return [sorted(set(found)).index(g) for g in found]


def groups__of_all_their_runs(documents, n):
    return grouped(documents, n, of=lambda a, b: 2 * (a + b) / 3)


def groups__runs_of_letters(documents, n):
    return grouped([" ".join(document.replace(" ", "")) for document in documents], n)


def groups__words_in_any_order(documents, n):
    return grouped([" ".join(sorted(document.split())) for document in documents], n)


def groups__right__by_a_walk(documents, n):
    def runs(document):
        words = document.split()
        return {" ".join(words[i : i + n]) for i in range(max(len(words) - n + 1, 1))}

    found = [runs(document) for document in documents]
    group = [-1] * len(documents)
    for start in range(len(documents)):
        todo = [start] if group[start] < 0 else []
        while todo:
            i = todo.pop()
            group[i] = start
            for j in range(len(documents)):
                small = min(len(found[i]), len(found[j]))
                if group[j] < 0 and len(found[i] & found[j]) * 2 >= small:
                    todo.append(j)
    return group

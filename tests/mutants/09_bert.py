"""Wrong answers to the exercises of chapter 9, the mistakes that people make, and right ones.

Each function is named after the answer that it stands in for and what is wrong with it:
`uncertainty__in_bits` replaces `uncertainty`. See tests/test_exercises.py.
"""

import math
from collections import Counter, defaultdict

import torch

from gpt2.data import IGNORE


def whole_words__tokens_as_they_were_drawn(chosen, word):
    return chosen & (word >= 0)


def whole_words__words_of_all_rows(chosen, word):
    return torch.isin(word, word[chosen & (word >= 0)]) & (word >= 0)


def whole_words__special_tokens_are_a_word(chosen, word):
    return ((word[:, :, None] == word[:, None, :]) & chosen[:, None, :]).any(dim=-1)


def whole_words__only_to_the_right(chosen, word):
    same = (word[:, :, None] == word[:, None, :]).tril()
    return (same & chosen[:, None, :]).any(dim=-1) & (word >= 0)


def whole_words__only_the_neighbor(chosen, word):
    out = chosen.clone()
    out[:, 1:] |= chosen[:, :-1] & (word[:, 1:] == word[:, :-1])
    out[:, :-1] |= chosen[:, 1:] & (word[:, 1:] == word[:, :-1])
    return out & (word >= 0)


def whole_words__only_if_all_are_chosen(chosen, word):
    same = word[:, :, None] == word[:, None, :]
    return (chosen[:, None, :] | ~same).all(dim=-1) & (word >= 0)


def whole_words__numbers_for_bools(chosen, word):
    return whole_words__right__by_loops(chosen, word).long()


def whole_words__takes_word_0_for_special(chosen, word):
    return whole_words__right__by_loops(chosen, word) & (word > 0)


def whole_words__works_on_the_original(chosen, word):
    chosen |= whole_words__right__by_loops(chosen, word)
    return chosen & (word >= 0)


def whole_words__right__by_loops(chosen, word):
    out = torch.zeros_like(chosen)
    for b in range(len(word)):
        hidden = word[b][chosen[b]]
        out[b] = torch.isin(word[b], hidden[hidden >= 0])
    return out


def whole_words__right__by_scatter(chosen, word):
    number = word.clamp(min=0)
    count = torch.zeros(len(word), int(number.max()) + 1)
    count.scatter_add_(1, number, (chosen & (word >= 0)).float())
    return (count.gather(1, number) > 0) & (word >= 0)


def language_of(weights):
    return {text: weight / sum(weights.values()) for text, weight in weights.items()}


def misleading__the_one_of_the_chapter(ratio):
    return {"aa": 0.4, "ab": 0.3, "ba": 0.3}


def misleading__for_one_ratio_only(ratio):
    return language_of({"aa": 5, "ab": 4.5, "ba": 4.5, "cd": 1})


def misleading__letters_that_know_nothing_of_each_other(ratio):
    one = {"a": ratio, "b": 1}
    return language_of({x + y: one[x] * one[y] for x in one for y in one})


def misleading__order_is_kept(ratio):  # what the misconception says
    return language_of({"aa": ratio, "bb": 1})


def misleading__the_rare_one_shares_a_letter(ratio):
    return language_of({"aa": ratio, "ab": 0.9 * ratio, "ba": 0.9 * ratio, "ca": 1})


def misleading__does_not_sum_to_one(ratio):
    return {"aa": ratio, "ab": 0.9 * ratio, "ba": 0.9 * ratio, "cd": 1.0}


def misleading__rivals_as_likely(ratio):
    return language_of({"aa": ratio, "ab": ratio, "ba": ratio, "cd": 1})


def misleading__impossible_text(ratio):
    return language_of({"aa": 1.0, "ab": 0.9, "ba": 0.9, "cd": 0.0})


def misleading__not_rare_enough(ratio):
    return language_of({"aa": 1.0, "ab": 0.9, "ba": 0.9, "cd": 0.8})


def misleading__texts_of_words(ratio):
    return language_of({"a a": ratio, "a b": 0.9 * ratio, "b a": 0.9 * ratio, "c d": 1})


def misleading__right__many_rivals(ratio):
    rivals = {x + y: 0.5 * ratio for x in "abc" for y in "abc"}
    return language_of({**rivals, "aa": ratio, "xy": 0.5})


def misleading__right__one_rival(ratio):
    return language_of({"가나": ratio, "가다": ratio * 0.99, "bc": 1 / ratio})


def of(parts, places):
    return tuple(parts[k] for k in places)


def mean_nats(language, asked, seen, log=math.log, given=True, even=False):
    """Compute it as the solution does, with one thing or another bent."""
    of_seen, of_both = Counter(), Counter()
    for parts, weight in language.items():
        of_seen[of(parts, seen)] += weight
        of_both[of(parts, (*seen, *asked))] += weight
    total, nats = sum(language.values()), 0.0
    for parts, weight in language.items():
        if weight:
            p = of_both[of(parts, (*seen, *asked))] / (of_seen[of(parts, seen)] if given else total)
            nats -= (1 / len(language) if even else weight / total) * log(p)
    return nats


def uncertainty__in_bits(language, asked, seen):
    return mean_nats(language, asked, seen, math.log2)


def uncertainty__of_both_together(language, asked, seen):
    return mean_nats(language, asked, seen, given=False)


def uncertainty__every_key_the_same_share(language, asked, seen):
    return mean_nats(language, asked, seen, even=True)


def uncertainty__with_the_sign_of_ln_p(language, asked, seen):
    return -mean_nats(language, asked, seen)


def uncertainty__of_the_whole_key(language, asked, seen):
    places = range(len(next(iter(language))))
    return mean_nats(language, tuple(k for k in places if k not in seen), seen)


def uncertainty__counts_keys_for_weights(language, asked, seen):
    return mean_nats({parts: 1 for parts, w in language.items() if w}, asked, seen)


def uncertainty__forgets_to_normalize(language, asked, seen):
    return sum(language.values()) * mean_nats(language, asked, seen)


def uncertainty__takes_ln_of_0(language, asked, seen):
    odds, total = defaultdict(Counter), sum(language.values())
    for parts, weight in language.items():
        odds[of(parts, seen)][of(parts, asked)] += weight
    nats = 0.0
    for words in odds.values():
        for weight in words.values():
            nats -= weight / total * math.log(weight / words.total())
    return nats


def uncertainty__divides_by_0(language, asked, seen):
    of_seen, of_both = Counter(), Counter()
    for parts, weight in language.items():
        of_seen[of(parts, seen)] += weight
        of_both[of(parts, seen), of(parts, asked)] += weight
    odds = [(weight, weight / of_seen[key]) for (key, _), weight in of_both.items()]
    return -sum(weight * math.log(p) for weight, p in odds if p) / sum(language.values())


def uncertainty__as_if_nothing_were_seen(language, asked, seen):
    return mean_nats(language, asked, ())


def uncertainty__joins_the_parts(language, asked, seen):
    joined = Counter()
    for parts, weight in language.items():
        joined["".join(of(parts, seen)), "".join(of(parts, asked))] += weight
    return mean_nats(joined, (1,), (0,))


def uncertainty__asked_and_seen_the_other_way_round(language, asked, seen):
    return mean_nats(language, seen, asked)


def uncertainty__adds_p_log_p(language, asked, seen):
    def weight(places, parts):
        return sum(w for other, w in language.items() if of(other, places) == of(parts, places))

    kept = [parts for parts, w in language.items() if w]
    odds = [weight((*seen, *asked), parts) / weight(seen, parts) for parts in kept]
    return -sum(p * math.log(p) for p in odds)


def uncertainty__of_the_mean_p(language, asked, seen):
    return -math.log(-mean_nats(language, asked, seen, log=lambda p: p))


def uncertainty__right__by_the_chain_rule(language, asked, seen):
    def entropy(places):
        sums = Counter()
        for parts, weight in language.items():
            sums[of(parts, places)] += weight
        return -sum(w / sums.total() * math.log(w / sums.total()) for w in sums.values() if w)

    return torch.tensor(entropy((*seen, *asked)) - entropy(seen))


def uncertainty__right__by_groups(language, asked, seen):
    odds = defaultdict(Counter)
    for parts, weight in language.items():
        odds[of(parts, seen)][of(parts, asked)] += weight
    total = sum(words.total() for words in odds.values())
    return sum(
        weight / total * math.log(words.total() / weight)
        for words in odds.values()
        for weight in words.values()
        if weight > 0
    )


def rows(special, n=500, seed=0):
    idx = torch.randint(min(special), (n, 128), generator=torch.Generator().manual_seed(seed))
    idx[:, 0], idx[:, -1] = special.cls, special.sep
    idx[::2, 100], idx[::2, 101:] = special.sep, special.pad
    return idx


def fault(masker, special, idx=None, rules="targets special untouched rate fates afresh", off=0.04):
    """Find a fault as the solution does, by some of the rules."""
    idx = rows(special) if idx is None else idx
    x, y = masker(idx.clone(), special, torch.Generator().manual_seed(1))
    _, other = masker(idx.clone(), special, torch.Generator().manual_seed(2))
    chosen, text = y != IGNORE, idx < min(special)
    masked, same = (x == special.mask)[chosen].float().mean(), (x == idx)[chosen].float().mean()
    broken = {
        "targets": (y != idx)[chosen].any(),
        "special": (chosen | (x != idx))[~text].any(),
        "untouched": (x != idx)[~chosen].any(),
        "rate": abs(chosen.sum() / text.sum() - 0.15) > off / 2,
        "fates": abs(masked - 0.8) > off or abs(same - 0.1) > off,
        "afresh": torch.equal(y, other),
    }
    return next((rule for rule in rules.split() if broken[rule]), None)


def find_fault__finds_none(masker, special):
    return fault(masker, special, rules="")


def find_fault__looks_at_targets_only(masker, special):
    return fault(masker, special, rules="targets")


def find_fault__without_special(masker, special):
    return fault(masker, special, rules="targets untouched rate fates afresh")


def find_fault__without_untouched(masker, special):
    return fault(masker, special, rules="targets special rate fates afresh")


def find_fault__without_rate(masker, special):
    return fault(masker, special, rules="targets special untouched fates afresh")


def find_fault__without_fates(masker, special):
    return fault(masker, special, rules="targets special untouched rate afresh")


def find_fault__without_afresh(masker, special):
    return fault(masker, special, rules="targets special untouched rate fates")


def find_fault__one_seed_twice(masker, special):
    idx = rows(special)
    calls = [masker(idx.clone(), special, torch.Generator().manual_seed(1)) for _ in range(2)]
    same = torch.equal(*(targets != IGNORE for _, targets in calls))
    return fault(masker, special) or ("afresh" if same else None)


def find_fault__in_another_order(masker, special):
    return fault(masker, special, rules="rate fates targets special untouched afresh")


def find_fault__on_one_row(masker, special):
    return fault(masker, special, rows(special, n=1))


def find_fault__with_exact_shares(masker, special):
    return fault(masker, special, off=0.0)


def find_fault__on_rows_of_text_only(masker, special):
    generator = torch.Generator().manual_seed(0)
    return fault(masker, special, torch.randint(min(special), (500, 128), generator=generator))


def find_fault__on_rows_without_padding(masker, special):
    return fault(masker, special, rows(special)[1::2])


def find_fault__counts_masks_only(masker, special):
    idx = rows(special)
    x, y = masker(idx.clone(), special, torch.Generator().manual_seed(1))
    found = fault(masker, special, rules="targets special untouched rate")
    if found:
        return found
    if abs((x == special.mask)[y != IGNORE].float().mean() - 0.8) > 0.04:
        return "fates"
    return fault(masker, special, rules="afresh")


def find_fault__says_true_or_false(masker, special):
    return fault(masker, special) is not None


def find_fault__names_the_last(masker, special):
    names = ["targets", "special", "untouched", "rate", "fates", "afresh"]
    return fault(masker, special, rules=" ".join(names[::-1]))


def find_fault__right__on_many_rows(masker, special):
    return fault(masker, special, rows(special, n=1500, seed=5))


def find_fault__right__by_loops_over_steps(masker, special):
    batches = [rows(special, 64, seed) for seed in range(8)]
    generator = torch.Generator().manual_seed(3)
    pairs = [masker(idx.clone(), special, generator) for idx in batches]
    idx, x, y = torch.cat(batches), *(torch.cat(part) for part in zip(*pairs, strict=True))
    return fault(lambda *_: (x, y), special, idx, "targets special untouched rate fates") or fault(
        masker, special, rules="afresh"
    )

"""Wrong answers to the exercises of chapter 8, the mistakes that people make, and right ones.

Each function is named after the answer that it stands in for and what is wrong with it:
`give_away__forgets_the_space` replaces `give_away`. See tests/test_exercises.py.
"""

import math

import numpy as np
import torch


def quoted(sentences, write, prompt='"{}" is "', end='"'):
    return [text.split(end)[0] for text in write([prompt.format(s) for s in sentences])]


def translate_quoted__gives_an_order(sentences, write):  # what the misconception says
    return quoted(sentences, write, "Translate to Korean: {}\n")


def translate_quoted__uses_the_equals_sign(sentences, write):
    return quoted(sentences, write, "{} =")


def translate_quoted__asks_a_question(sentences, write):
    return quoted(sentences, write, 'Q: How do you say "{}" in Korean?\nA:')


def translate_quoted__stops_after_a_space(sentences, write):
    return quoted(sentences, write, '"{}" is ')


def translate_quoted__leaves_the_opening_mark_to_the_model(sentences, write):
    return quoted(sentences, write, '"{}" is', "\n")


def translate_quoted__right__without_the_first_mark(sentences, write):
    return quoted(sentences, write, prompt='{} is "')


def translate_quoted__returns_all_that_was_written(sentences, write):
    return quoted(sentences, write, end="\n")


def translate_quoted__cuts_at_the_first_space(sentences, write):
    return quoted(sentences, write, end=" ")


def translate_quoted__puts_in_Korean_first(sentences, write):
    return quoted(sentences, write, '"{}" in Korean: "')


def translate_quoted__asks_for_the_first_only(sentences, write):
    return quoted(sentences[:1], write)


def translate_quoted__answers_in_reverse(sentences, write):
    return quoted(sentences, write)[::-1]


def translate_quoted__drops_the_spaces(sentences, write):
    return [text.replace(" ", "") for text in quoted(sentences, write)]


def translate_quoted__ends_at_the_polite_ending(sentences, write):
    texts = quoted(sentences, write)
    return [text[: text.find("요") + 1] for text in texts]  # right as long as there is one


def translate_quoted__forgets_the_return(sentences, write):
    quoted(sentences, write)


def translate_quoted__right__with_an_example(sentences, write):
    return quoted(sentences, write, '"red hat" is "빨간 모자" in Korean. "{}" is "')


def translate_quoted__right__one_at_a_time(sentences, write):
    return tuple(write([f'"{s}" is "'])[0].partition('" in Korean.')[0] for s in sentences)


def translate_quoted__right__mark_by_the_model(sentences, write):
    texts = write([f'"{s}" is' for s in sentences])
    return [text.removeprefix('"').split('"')[0] for text in texts]


def given_away(items, n, write, encode, gap=" ", same=None, right=None):
    """Give away as the solution does, with one thing or another bent."""
    prompts = [i.prompt + (gap + i.answer)[:n] for i in items]
    rests = [(gap + i.answer)[n:] for i in items]
    same = same or (lambda a, b: encode(a) + encode(b) == encode(a + b))
    right = right or (lambda text, rest, item: text.strip() == rest.strip())
    written = write(prompts)
    seams = np.array([same(a, b) for a, b in zip(prompts, rests, strict=True)])
    rights = [float(right(*each)) for each in zip(written, rests, items, strict=True)]
    return seams, np.array(rights)


def give_away__forgets_the_space(items, n, write, encode):
    return given_away(items, n, write, encode, gap="")


def give_away__compares_numbers_of_tokens(items, n, write, encode):
    def same(a, b):
        return len(encode(a)) + len(encode(b)) == len(encode(a + b))

    return given_away(items, n, write, encode, same=same)


def give_away__compares_with_the_whole_answer(items, n, write, encode):
    return given_away(items, n, write, encode, right=lambda text, _, item: text == item.answer)


def give_away__is_content_with_a_beginning(items, n, write, encode):
    return given_away(
        items, n, write, encode, right=lambda text, rest, _: text.startswith(rest.strip())
    )


def give_away__compares_with_the_space(items, n, write, encode):
    return given_away(items, n, write, encode, right=lambda text, rest, _: text == rest)


def give_away__calls_every_word_a_seam(items, n, write, encode):
    return given_away(items, n, write, encode, same=lambda a, b: a[-1] == " " or b[0] == " ")


def give_away__looks_at_the_letters_alone(items, n, write, encode):
    return given_away(items, n, write, encode, same=lambda a, b: not a.endswith(" "))


def give_away__one_call_each(items, n, write, encode):
    pairs = [given_away([item], n, write, encode) for item in items]
    seams, rights = zip(*pairs, strict=True)
    return np.concatenate(seams), np.concatenate(rights)


def give_away__returns_means(items, n, write, encode):
    seam, right = given_away(items, n, write, encode)
    return seam.mean(), right.mean()


def give_away__counts_from_the_letter(items, n, write, encode):
    return given_away(items, n + 1, write, encode)


def give_away__right__by_slices(items, n, write, encode):
    texts = [f"{item.prompt} {item.answer}" for item in items]
    cuts = [len(item.prompt) + n for item in items]
    written = write(tuple(text[:cut] for text, cut in zip(texts, cuts, strict=True)))
    seam, right = [], []
    for text, cut, end in zip(texts, cuts, written, strict=True):
        ids, first = encode(text), encode(text[:cut])
        seam.append(ids[: len(first)] == first and ids[len(first) :] == encode(text[cut:]))
        right.append(end == text[cut:].strip())
    return seam, right  # type: ignore[return-value]


def give_away__right__as_one_array(items, n, write, encode):
    return np.array(give_away__right__by_slices(items, n, write, encode), dtype=float)


def percentiles(means, ends=(2.5, 97.5)):
    low, high = np.percentile(means, ends)
    return float(low), float(high)


def interval_by_page__averages_the_pages(scores, page, draws):
    of_page = np.bincount(page, weights=scores) / np.bincount(page)
    return percentiles(of_page[draws].mean(axis=1))


def interval_by_page__draws_questions(scores, page, draws):  # 250 items are 250 items
    return percentiles(scores[draws].mean(axis=1))


def interval_by_page__counts_a_page_once(scores, page, draws):
    return percentiles([scores[np.isin(page, row)].mean() for row in draws])


def interval_by_page__divides_by_all_questions(scores, page, draws):
    return percentiles(np.bincount(page, weights=scores)[draws].sum(axis=1) / len(scores))


def interval_by_page__takes_ninety_percent(scores, page, draws):
    total, number = np.bincount(page, weights=scores), np.bincount(page)
    return percentiles(total[draws].sum(1) / number[draws].sum(1), (5, 95))


def interval_by_page__shares_for_per_cent(scores, page, draws):
    total, number = np.bincount(page, weights=scores), np.bincount(page)
    return percentiles(total[draws].sum(1) / number[draws].sum(1), (0.025, 0.975))


def interval_by_page__high_before_low(scores, page, draws):
    total, number = np.bincount(page, weights=scores), np.bincount(page)
    return percentiles(total[draws].sum(1) / number[draws].sum(1), (97.5, 2.5))


def interval_by_page__by_the_normal_formula(scores, page, draws):
    total, number = np.bincount(page, weights=scores), np.bincount(page)
    means = total[draws].sum(1) / number[draws].sum(1)
    return means.mean() - 1.96 * means.std(), means.mean() + 1.96 * means.std()


def interval_by_page__takes_pages_to_be_in_order(scores, page, draws):
    total, number = np.bincount(np.sort(page), weights=scores), np.bincount(page)
    return percentiles(total[draws].sum(1) / number[draws].sum(1))


def interval_by_page__works_on_the_original(scores, page, draws):
    order = np.argsort(page)
    scores[:], page[:] = scores[order], page[order]
    total, number = np.bincount(page, weights=scores), np.bincount(page)
    return percentiles(total[draws].sum(1) / number[draws].sum(1))


def interval_by_page__right__by_loops(scores, page, draws):
    means = []
    for row in draws:
        drawn = np.concatenate([scores[page == g] for g in row])
        means.append(drawn.mean())
    return np.percentile(means, [2.5, 97.5])


def interval_by_page__right__by_torch(scores, page, draws):
    scores, page, draws = (torch.as_tensor(part) for part in (scores, page, draws))
    one_hot = torch.nn.functional.one_hot(page.long(), draws.shape[1]).double()  # (N, G)
    means = (scores.double() @ one_hot)[draws].sum(1) / one_hot.sum(0)[draws].sum(1)
    return list(torch.quantile(means, torch.tensor([0.025, 0.975]).double()).tolist())


def laws(score, n_vocab, sum_=True, chain=True, company=True, off=1e-3, ends=((1, 2), (3,), (2,))):
    """Test the laws as the solution does, with some left out or another tolerance."""

    def one(start, end):
        return score([list(start)], [list(end)])[0]

    starts = [[1, 2], [3], [0, 2, 1]]
    ends = [list(end) for end in ends]
    kept = not sum_ or abs(sum(math.exp(one([1], [t])) for t in range(n_vocab)) - 1) <= off
    if chain:
        kept &= abs(one([1, 2], [3, 0, 1]) - one([1, 2], [3]) - one([1, 2, 3], [0, 1])) <= off
    if company:
        apart = [one(start, end) for start, end in zip(starts, ends, strict=True)]
        kept &= all(abs(a - b) <= off for a, b in zip(score(starts, ends), apart, strict=True))
    return kept


def keeps_the_laws__without_the_sum(score, n_vocab):
    return laws(score, n_vocab, sum_=False)


def keeps_the_laws__without_the_chain(score, n_vocab):
    return laws(score, n_vocab, chain=False)


def keeps_the_laws__without_the_company(score, n_vocab):
    return laws(score, n_vocab, company=False)


def keeps_the_laws__rows_of_one_length(score, n_vocab):
    return laws(score, n_vocab, ends=((1, 2), (3, 1, 0), (2,)))


def keeps_the_laws__trusts_anything_negative(score, n_vocab):
    return score([[1, 2]], [[3]])[0] < 0


def keeps_the_laws__exactly(score, n_vocab):
    return laws(score, n_vocab, off=0.0)


def keeps_the_laws__too_lenient(score, n_vocab):
    return laws(score, n_vocab, off=2.0)


def keeps_the_laws__adds_up_logarithms(score, n_vocab):
    total = sum(score([[1]], [[t]])[0] for t in range(n_vocab))
    return abs(total - 1) < 1e-3 and laws(score, n_vocab, sum_=False)


def keeps_the_laws__forgets_a_in_the_second_start(score, n_vocab):
    whole, a, b = score([[1, 2]] * 3, [[3, 0], [3], [0]])
    return abs(whole - a - b) < 1e-3 and laws(score, n_vocab, chain=False)


def keeps_the_laws__company_of_the_same_start(score, n_vocab):
    starts, ends = [[1, 2]] * 2, [[3], [0, 1, 2]]
    apart = [score([s], [e])[0] for s, e in zip(starts, ends, strict=True)]
    return np.allclose(score(starts, ends), apart, atol=1e-3) and laws(
        score, n_vocab, company=False
    )


def keeps_the_laws__looks_at_the_largest_only(score, n_vocab):
    starts, ends = [[1, 2], [3], [0]], [[3], [0, 1, 2], [2]]
    apart = [score([s], [e])[0] for s, e in zip(starts, ends, strict=True)]
    together = score(starts, ends)
    return abs(max(apart) - max(together)) < 1e-3 and laws(score, n_vocab, company=False)


def keeps_the_laws__forgets_to_return_on_success(score, n_vocab):
    if not laws(score, n_vocab):
        return False


def keeps_the_laws__right__over_many_cases(score, n_vocab):
    rng = np.random.default_rng(0)
    starts = [rng.integers(n_vocab, size=rng.integers(1, 5)).tolist() for _ in range(4)]
    ends = [rng.integers(n_vocab, size=n).tolist() for n in (3, 1, 4, 2)]
    apart = np.array([score([s], [e])[0] for s, e in zip(starts, ends, strict=True)])
    steps = [
        sum(score([s + e[:k]], [[e[k]]])[0] for k in range(len(e)))
        for s, e in zip(starts, ends, strict=True)
    ]
    totals = [np.exp([score([s], [[t]])[0] for t in range(n_vocab)]).sum() for s in starts]
    together = np.array(score(starts, ends))
    return (
        np.allclose(apart, together, atol=1e-2)
        and np.allclose(apart, steps, atol=1e-2)
        and np.allclose(totals, 1, atol=1e-2)
    )


def keeps_the_laws__right__all_in_one_call(score, n_vocab):
    chain = score([[1, 2], [1, 2], [1, 2, 3]], [[3, 0], [3], [0]])
    total = torch.tensor(score([[2]] * n_vocab, [[t] for t in range(n_vocab)])).exp().sum()
    return torch.as_tensor(
        abs(chain[0] - chain[1] - chain[2]) < 1e-3
        and abs(total - 1) < 1e-3
        and laws(score, n_vocab, sum_=False, chain=False)
    )

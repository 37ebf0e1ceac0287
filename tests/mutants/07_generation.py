"""Wrong answers to the exercises of chapter 7, the mistakes that people make, and right ones.

Each function is named after the answer that it stands in for and what is wrong with it;
`NAME__right__how` is right in another way and must earn every point.
"""

import itertools
import math

import torch


def cut_below(logits, probabilities, bar):
    return logits.masked_fill(probabilities < bar, -math.inf)


def keep_min_p__bar_is_the_share_itself(logits, share):
    return cut_below(logits, logits.softmax(-1), share)


def keep_min_p__compares_logits(logits, share):
    return cut_below(logits, logits, share * logits.amax(-1, keepdim=True))


def keep_min_p__one_bar_for_the_batch(logits, share):
    p = logits.softmax(-1)
    return cut_below(logits, p, share * p.max())


def keep_min_p__softmax_over_the_first_axis(logits, share):
    p = logits.softmax(0)
    return cut_below(logits, p, share * p.amax(-1, keepdim=True))


def keep_min_p__drops_what_stands_at_the_bar(logits, share):
    p = logits.softmax(-1)
    return logits.masked_fill(p <= share * p.amax(-1, keepdim=True), -math.inf)


def keep_min_p__returns_probabilities(logits, share):
    p = logits.softmax(-1)
    p = p * (p >= share * p.amax(-1, keepdim=True))
    return p / p.sum(-1, keepdim=True)


def keep_min_p__cuts_to_zero(logits, share):
    p = logits.softmax(-1)
    return logits * (p >= share * p.amax(-1, keepdim=True))


def keep_min_p__works_in_place(logits, share):
    p = logits.softmax(-1)
    logits[p < share * p.amax(-1, keepdim=True)] = -math.inf
    return logits


def keep_min_p__forgets_to_return(logits, share):
    cut_below(logits, logits.softmax(-1), share)


def keep_min_p__right__by_differences_of_logits(logits, share):
    below = logits - logits.max(dim=-1, keepdim=True).values
    return torch.where(below >= math.log(share), logits, float("-inf"))


def probabilities_at__plain_formula(logits, temperature):
    return (logits / temperature).softmax(dim=-1)  # the misconception


def probabilities_at__tiny_number_for_zero(logits, temperature):
    below = logits - logits.amax(-1, keepdim=True)
    return (below / max(temperature, 1e-8)).softmax(dim=-1)


def probabilities_at__greedy_below_a_limit(logits, temperature):
    if temperature < 1e-6:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.size(-1)).float()
    return (logits / temperature).softmax(dim=-1)


def probabilities_at__divides_first(logits, temperature):
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.size(-1)).float()
    return (logits / temperature).softmax(dim=-1)


def probabilities_at__replaces_nan(logits, temperature):
    return (logits / temperature).softmax(dim=-1).nan_to_num(0.0)


def probabilities_at__shares_ties_at_zero(logits, temperature):
    below = logits - logits.amax(-1, keepdim=True)
    if temperature == 0:
        first = (below == 0).float()
        return first / first.sum(-1, keepdim=True)
    return (below / temperature).softmax(dim=-1)


def probabilities_at__multiplies(logits, temperature):
    below = logits - logits.amax(-1, keepdim=True)
    return (below * temperature).softmax(dim=-1)


def probabilities_at__one_row_only(logits, temperature):
    below = logits - logits.max()
    if temperature == 0:
        p = torch.zeros_like(logits)
        p.view(-1)[logits.argmax()] = 1.0
        return p
    return (below / temperature).softmax(dim=-1)


def probabilities_at__returns_the_token(logits, temperature):
    if temperature == 0:
        return logits.argmax(dim=-1)
    return ((logits - logits.amax(-1, keepdim=True)) / temperature).softmax(dim=-1)


def probabilities_at__brings_back_what_was_cut(logits, temperature):
    below = logits - logits.amax(-1, keepdim=True)
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.size(-1)).float()
    if temperature == math.inf:
        below = torch.zeros_like(below)
        temperature = 1.0
    return (below / temperature).softmax(dim=-1)


def probabilities_at__cut_is_no_number_at_infinity(logits, temperature):
    below = logits - logits.amax(-1, keepdim=True)
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.size(-1)).float()
    return (below / temperature).softmax(dim=-1)


def probabilities_at__right__by_exp_in_double(logits, temperature):
    top = logits.max(dim=-1, keepdim=True)
    if temperature == 0:
        return torch.zeros_like(logits).scatter(-1, top.indices, 1.0)
    powers = torch.exp((logits.double() - top.values) / min(temperature, 1e300))
    return powers / powers.sum(dim=-1, keepdim=True)


def measure_cut__before_the_cut(logits, right, cut):
    before, after = logits.softmax(-1), cut(logits).softmax(-1)
    return before[~right].sum(), before[right & (after == 0)].sum() / before[right].sum()


def measure_cut__not_renormalized(logits, right, cut):
    before, kept = logits.softmax(-1), cut(logits) > -math.inf
    return before[~right & kept].sum(), before[right & ~kept].sum() / before[right].sum()


def measure_cut__lost_out_of_one(logits, right, cut):
    before, after = logits.softmax(-1), cut(logits).softmax(-1)
    return after[~right].sum(), before[right & (after == 0)].sum()


def measure_cut__counts_tokens(logits, right, cut):
    kept = cut(logits) > -math.inf
    return (~right & kept).sum() / kept.sum(), (right & ~kept).sum() / right.sum()


def measure_cut__all_that_was_cut(logits, right, cut):
    before, after = logits.softmax(-1), cut(logits).softmax(-1)
    return after[~right].sum(), before[after == 0].sum()


def measure_cut__masses_before_and_after(logits, right, cut):
    before, after = logits.softmax(-1), cut(logits).softmax(-1)
    return after[~right].sum(), (before[right].sum() - after[right].sum()).clamp(min=0)


def measure_cut__pair_the_other_way_round(logits, right, cut):
    before, after = logits.softmax(-1), cut(logits).softmax(-1)
    return before[right & (after == 0)].sum() / before[right].sum(), after[~right].sum()


def measure_cut__takes_logits_for_logarithms(logits, right, cut):
    before, kept = logits.exp(), cut(logits) > -math.inf  # wrong where exp does not sum to 1
    rubbish = before[~right & kept].sum() / before.sum()
    return rubbish, before[right & ~kept].sum() / before[right].sum()


def measure_cut__only_one_number(logits, right, cut):
    return float(cut(logits).softmax(-1)[~right].sum())


def measure_cut__right__by_sums_of_products(logits, right, cut):
    p, kept, good = logits.double().softmax(-1), cut(logits).isfinite(), right.double()
    rubbish = (p * kept * (1 - good)).sum() / (p * kept).sum()
    return [rubbish.item(), 1 - (p * kept * good).sum().item() / (p * good).sum().item()]


def search(read, text, cuts, lengths=None, rows=slice(None), most=1e-5):
    """Search as the solution does, with one thing or another bent."""
    for T in lengths or range(1, len(text) + 1):
        whole = read([text[:T]])
        for cut in cuts(T):
            other = read(list(text[:T].split(cut)))
            if (other - whole)[rows].abs().max() > most:
                return cut
    return None


def every_cut(T):
    return [
        [b - a for a, b in itertools.pairwise([0, *inner, T])]
        for n in range(T)
        for inner in itertools.combinations(range(1, T), n)
    ]


def find_bad_cut__token_by_token(read, text):
    return search(read, text, lambda T: [[1] * T])


def find_bad_cut__two_pieces(read, text):
    return search(read, text, lambda T: [[n, T - n] for n in range(1, T)])


def find_bad_cut__a_prompt_and_then_single_tokens(read, text):
    return search(read, text, lambda T: [[n] + [1] * (T - n) for n in range(1, T + 1)])


def find_bad_cut__as_the_chapter_cuts(read, text):
    def cuts(T):
        return [[n, *rest] for n in range(1, T) for rest in ([T - n], [1] * (T - n))]

    return search(read, text, cuts)  # never several tokens after two pieces


def find_bad_cut__only_the_whole_text(read, text):
    return search(read, text, every_cut, lengths=[len(text)])


def find_bad_cut__longest_first(read, text):
    return search(read, text, every_cut, lengths=range(len(text), 0, -1))


def find_bad_cut__blind_to_faint_faults(read, text):
    return search(read, text, every_cut, most=0.05)


def find_bad_cut__exact_equality(read, text):
    return search(read, text, every_cut, most=-1.0)


def find_bad_cut__never_finds_any(read, text):
    return None


def find_bad_cut__returns_the_places_of_the_cuts(read, text):
    found = search(read, text, every_cut)
    return found and list(itertools.accumulate(found))[:-1]


def find_bad_cut__returns_true(read, text):
    return search(read, text, every_cut) is not None or None


def find_bad_cut__right__by_bits_and_a_tuple(read, text):
    for T in range(2, len(text) + 1):
        whole = read([text[:T]])
        for bits in range(1, 2 ** (T - 1)):
            ends = [i + 1 for i in range(T - 1) if bits >> i & 1]
            pieces = text[:T].tensor_split(ends)
            if not torch.allclose(read(list(pieces)), whole, rtol=0, atol=1e-5):
                return tuple(len(piece) for piece in pieces)
    return None


def accept(p, q, draft, generator, ratio=None):
    """Say which drafts are kept, by the rule of the exercise."""
    rows = torch.arange(len(draft))
    ratio = p[rows, draft] / q[rows, draft] if ratio is None else ratio
    return torch.rand(len(draft), generator=generator) < ratio


def draw(weights, generator):
    return torch.multinomial(weights + 1e-30, 1, generator=generator).squeeze(1)


def judge_drafts__keeps_every_draft(p, q, draft, generator):
    return draft.clone()


def judge_drafts__draws_afresh(p, q, draft, generator):
    return draw(p, generator)  # right distribution, and the draft was for nothing


def judge_drafts__replaces_by_a_draw_from_p(p, q, draft, generator):
    return torch.where(accept(p, q, draft, generator), draft, draw(p, generator))


def judge_drafts__ratio_upside_down(p, q, draft, generator):
    kept = accept(q, p, draft, generator)
    return torch.where(kept, draft, draw((p - q).clamp(min=0), generator))


def judge_drafts__keeps_by_p_alone(p, q, draft, generator):
    ratio = p[torch.arange(len(draft)), draft]
    kept = accept(p, q, draft, generator, ratio)
    return torch.where(kept, draft, draw((p - q).clamp(min=0), generator))


def judge_drafts__one_coin_for_all_rows(p, q, draft, generator):
    rows = torch.arange(len(draft))
    kept = torch.rand(1, generator=generator) < p[rows, draft] / q[rows, draft]
    return torch.where(kept, draft, draw((p - q).clamp(min=0), generator))


def judge_drafts__likeliest_of_the_rest(p, q, draft, generator):
    return torch.where(accept(p, q, draft, generator), draft, (p - q).argmax(dim=-1))


def judge_drafts__absolute_difference(p, q, draft, generator):
    return torch.where(accept(p, q, draft, generator), draft, draw((p - q).abs(), generator))


def judge_drafts__keeps_what_p_prefers(p, q, draft, generator):
    rows = torch.arange(len(draft))
    kept = p[rows, draft] >= q[rows, draft]  # no chance in it
    return torch.where(kept, draft, draw((p - q).clamp(min=0), generator))


def judge_drafts__stops_where_models_agree(p, q, draft, generator):
    rest = torch.multinomial((p - q).clamp(min=0), 1, generator=generator).squeeze(1)
    return torch.where(accept(p, q, draft, generator), draft, rest)


def judge_drafts__works_in_place(p, q, draft, generator):
    kept = accept(p, q, draft, generator)
    draft[~kept] = draw((p - q).clamp(min=0), generator)[~kept]
    return draft


def judge_drafts__right__by_cumulated_sums(p, q, draft, generator):
    at = draft[:, None]
    kept = torch.rand(len(draft), generator=generator) * q.gather(1, at)[:, 0]
    kept = kept < p.gather(1, at)[:, 0]
    mass = torch.relu(p - q).cumsum(dim=1)
    level = torch.rand(len(draft), 1, generator=generator) * mass[:, -1:]
    drawn = (mass <= level).sum(dim=1).clamp(max=p.size(1) - 1)
    return torch.where(kept, draft, drawn).int()

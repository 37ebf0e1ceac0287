"""Wrong answers to the exercises of chapter 10, the mistakes that people make, and right ones.

Each function or class is named after the answer that it stands in for and what is wrong with it;
`NAME__right__how` is right in another way and must earn every point.
"""

import math

import torch
from torch.nn import functional as F

from gpt2.attention import attend, causal_mask, merge_heads, split_heads
from gpt2.generation import LayerCache
from gpt2.transformer import beam_search, embed, length_penalty, sinusoids

END, N_NEW = 20, 12
START = torch.tensor([[END]])


def turn(P, angle):
    """Turn all clocks, with the sines in the even columns."""
    sin, cos = P[:, 0::2], P[:, 1::2]
    new = sin * angle.cos() + cos * angle.sin(), cos * angle.cos() - sin * angle.sin()
    return torch.stack(new, dim=-1).flatten(1)


def clocks(P):
    C = P.size(1)
    return 10000 ** (-torch.arange(0, C, 2) / C)


def move__turns_backwards(P, distance):
    return turn(P, -distance * clocks(P))


def move__all_clocks_alike(P, distance):
    return turn(P, distance * torch.ones(P.size(1) // 2))


def move__counts_clocks_instead_of_columns(P, distance):
    C = P.size(1)
    return turn(P, distance / 10000 ** (torch.arange(C // 2) / C))


def move__rolls_the_rows(P, distance):
    return P.roll(-int(distance), dims=0)  # as if they were neighbors in a long table


def move__adds_the_positions(P, distance):
    return P + sinusoids(int(abs(distance)) + 1, P.size(1))[-1]


def move__sines_before_cosines(P, distance):
    out = turn(P, distance * clocks(P))
    return torch.cat([out[:, 0::2], out[:, 1::2]], dim=1)


def move__cosine_from_the_new_sine(P, distance):
    out, angle = P.clone(), distance * clocks(P)
    out[:, 0::2] = out[:, 0::2] * angle.cos() + out[:, 1::2] * angle.sin()
    out[:, 1::2] = out[:, 1::2] * angle.cos() - out[:, 0::2] * angle.sin()
    return out


def move__both_products_plus(P, distance):
    angle = distance * clocks(P)
    sin, cos = P[:, 0::2], P[:, 1::2]
    new = sin * angle.cos() + cos * angle.sin(), cos * angle.cos() + sin * angle.sin()
    return torch.stack(new, dim=-1).flatten(1)


def move__takes_sines_for_cosines(P, distance):
    angle = distance * clocks(P)
    cos, sin = P[:, 0::2], P[:, 1::2]
    new = sin * angle.cos() + cos * angle.sin(), cos * angle.cos() - sin * angle.sin()
    return torch.stack(new, dim=-1).flatten(1)


def move__cuts_into_halves(P, distance):
    angle = distance * clocks(P)
    sin, cos = P.chunk(2, dim=1)
    new = sin * angle.cos() + cos * angle.sin(), cos * angle.cos() - sin * angle.sin()
    return torch.cat(new, dim=1)


def move__works_in_place(P, distance):
    P.copy_(turn(P, distance * clocks(P)))
    return P


def move__whole_steps_forward_only(P, distance):
    for _ in range(int(distance)):
        P = turn(P, clocks(P))
    return P


def move__right__by_complex_numbers(P, distance):
    hands = torch.complex(P[:, 1::2].double(), P[:, 0::2].double())
    angle = distance * clocks(P).double()
    hands = hands * torch.polar(torch.ones_like(angle), angle)
    return torch.stack([hands.imag, hands.real], dim=-1).reshape(P.shape)


def move__right__by_a_matrix(P, distance):
    pairs = [[[a.cos(), -a.sin()], [a.sin(), a.cos()]] for a in distance * clocks(P)]
    return P @ torch.block_diag(*(torch.tensor(pair) for pair in pairs))


def both(source, target):
    return torch.cat([source, target], dim=1)


def rectangle(real, T, right):
    B, S = real.shape
    left = real[:, None, None, :].expand(B, 1, T, S)
    return torch.cat([left, right.expand(B, 1, T, T)], dim=-1)


def gpt_rows__sees_padding(cross, source, target, real):
    S, T = source.size(1), target.size(1)
    return cross(target, both(source, target), causal_mask(T, S + T)[None, None])


def gpt_rows__no_mask(cross, source, target, real):
    return cross(target, both(source, target), None)


def gpt_rows__sees_the_future(cross, source, target, real):
    T = target.size(1)
    visible = rectangle(real, T, torch.ones(T, T, dtype=torch.bool))
    return cross(target, both(source, target), visible)


def gpt_rows__reads_the_source_only(cross, source, target, real):
    return cross(target, source, real[:, None, None, :])


def gpt_rows__reads_the_target_only(cross, source, target, real):
    T = target.size(1)
    return cross(target, target, causal_mask(T, T)[None, None])


def gpt_rows__two_softmaxes(cross, source, target, real):
    T = target.size(1)  # the misconception: one mechanism for each text
    own = cross(target, target, causal_mask(T, T)[None, None])
    return own + cross(target, source, real[:, None, None, :])


def gpt_rows__mask_from_the_upper_left(cross, source, target, real):
    S, T = source.size(1), target.size(1)
    visible = causal_mask(S + T, S + T)[:T] & F.pad(real, (0, T), value=True)[:, None, None]
    return cross(target, both(source, target), visible)


def gpt_rows__looks_ahead(cross, source, target, real):
    T = target.size(1)
    visible = rectangle(real, T, torch.ones(T, T).triu().bool())
    return cross(target, both(source, target), visible)


def gpt_rows__mask_of_numbers(cross, source, target, real):
    T = target.size(1)
    visible = rectangle(real, T, causal_mask(T, T))
    return cross(target, both(source, target), visible.float())


def gpt_rows__true_is_hidden(cross, source, target, real):
    T = target.size(1)
    return cross(target, both(source, target), ~rectangle(real, T, causal_mask(T, T)))


def gpt_rows__sets_padding_to_zero(cross, source, target, real):
    S, T = source.size(1), target.size(1)
    memory = both(source * real[..., None], target)
    return cross(target, memory, causal_mask(T, S + T)[None, None])


def gpt_rows__mean_of_two_softmaxes(cross, source, target, real):
    return gpt_rows__two_softmaxes(cross, source, target, real) / 2


def gpt_rows__hides_the_present(cross, source, target, real):
    T = target.size(1)
    visible = rectangle(real, T, torch.ones(T, T).tril(-1).bool())
    return cross(target, both(source, target), visible)


def gpt_rows__mask_of_the_first_sentence(cross, source, target, real):
    T = target.size(1)
    return cross(target, both(source, target), rectangle(real, T, causal_mask(T, T))[:1])


def gpt_rows__asks_with_the_source_too(cross, source, target, real):
    S, T = source.size(1), target.size(1)
    text = both(source, target)
    visible = causal_mask(S + T, S + T) & F.pad(real, (0, T), value=True)[:, None, None]
    return cross(text, text, visible)[:, S:]


def gpt_rows__target_before_source(cross, source, target, real):
    T = target.size(1)
    return cross(target, both(target, source), rectangle(real, T, causal_mask(T, T)))


def gpt_rows__right__by_scores(cross, source, target, real):
    q, k, v = cross.heads(target, both(source, target))
    scores = q @ k.mT / math.sqrt(q.size(-1))
    hidden = ~rectangle(real, target.size(1), causal_mask(target.size(1), target.size(1)))
    weights = scores.masked_fill(hidden, -math.inf).softmax(dim=-1)
    return cross.c_proj(merge_heads(weights @ v))


def gpt_rows__right__by_names(cross, source, target, real):
    T = target.size(1)
    visible = rectangle(real, T, causal_mask(T, T))
    return cross(x=target, memory=both(source, target), visible=visible)


def gpt_rows__right__target_first_in_memory(cross, source, target, real):
    S, T = source.size(1), target.size(1)
    visible = rectangle(real, T, causal_mask(T, T)).roll(T, dims=-1)
    assert visible.size(-1) == S + T
    return cross(target, both(target, source), visible)


def bests(models, width, alpha):
    return [beam_search(model, START, N_NEW, width, alpha)[0] for model in models]


def means(log_p, ids):
    n = len(ids)
    return sum(log_p) / n, sum(map(len, ids)) / n, sum(i == [END] for i in ids) / n


def measure_search__takes_the_score(models, width, alpha):
    score, ids = zip(*bests(models, width, alpha), strict=True)
    return means(score, ids)


def measure_search__divides_by_the_penalty_again(models, width, alpha):
    score, ids = zip(*bests(models, width, alpha), strict=True)
    return means([s / length_penalty(len(i), alpha) for s, i in zip(score, ids, strict=True)], ids)


def measure_search__takes_the_last_hypothesis(models, width, alpha):
    found = [beam_search(model, START, N_NEW, width, alpha)[-1] for model in models]
    return means([s * length_penalty(len(i), alpha) for s, i in found], [i for _, i in found])


def measure_search__takes_the_highest_score(models, width, alpha):  # an unfinished one, too
    found = [max(beam_search(model, START, N_NEW, width, alpha)) for model in models]
    return means([s * length_penalty(len(i), alpha) for s, i in found], [i for _, i in found])


def measure_search__does_not_count_the_end(models, width, alpha):
    found = bests(models, width, alpha)
    log_p, _, empty = measure_search__right__by_tensors(models, width, alpha)
    return log_p, sum(len([x for x in i if x != END]) for _, i in found) / len(found), empty


def measure_search__empty_means_no_ids(models, width, alpha):
    found = bests(models, width, alpha)
    log_p, n, _ = measure_search__right__by_tensors(models, width, alpha)
    return log_p, n, sum(not i for _, i in found) / len(found)


def measure_search__sums_for_means(models, width, alpha):
    return tuple(len(models) * x for x in measure_search__right__by_tensors(models, width, alpha))


def measure_search__first_model_only(models, width, alpha):
    return measure_search__right__by_tensors(models[:1], width, alpha)


def measure_search__forgets_alpha(models, width, alpha):
    score, ids = zip(*bests(models, width, 0.0), strict=True)
    return means(score, ids)


def measure_search__right__by_tensors(models, width, alpha):
    found = bests(models, width, alpha)
    n = torch.tensor([len(ids) for _, ids in found], dtype=torch.float64)
    log_p = torch.tensor([score for score, _ in found]) * ((5 + n) / 6) ** alpha
    empty = torch.tensor([ids[0] == END for _, ids in found]).double()
    return torch.stack([log_p.mean(), n.mean(), empty.mean()])


def other(ids, place, pad):
    ids = ids.clone()
    ids[0, place] = (ids[0, place] + 1) % pad
    return ids


def experiments(
    translator, source, target, pad, future=None, blind=None, n_pad=1, company="both", most=1e-4
):
    """Search as the solution does, with one thing or another bent."""
    S, T = source.size(1), target.size(1)
    before, faults = translator(source, target)[0], set()

    def moved(new_source, new_target, row=0):
        return (translator(new_source, new_target)[row] - before).abs().amax(dim=-1) > most

    for t in range(1, T) if future is None else future(T):
        if moved(source, other(target, t, pad))[:t].any():
            faults.add("future")
    for s in range(S) if blind is None else blind(S):
        if not moved(other(source, s, pad), target).any():
            faults.add("blind")
    if moved(F.pad(source, (0, n_pad), value=pad), target).any():
        faults.add("padding")
    near = other(source, 0, pad)
    if company != "alike":
        near[0, -1] = pad
    rows = {"above": [near, source], "below": [source, near]}.get(company, [near, source, near])
    if company == "longer":
        near = F.pad(near, (0, 1), value=1)
        rows = [near, F.pad(source, (0, 1), value=pad), near]
    row = 0 if company == "below" else 1
    if company and moved(torch.cat(rows), target.expand(len(rows), -1), row).any():
        faults.add("neighbor")
    return faults


def find_faults__no_fault_ever(translator, source, target, pad):
    return set()


def find_faults__changes_the_last_target_token_only(translator, source, target, pad):
    return experiments(translator, source, target, pad, future=lambda T: [T - 1])


def find_faults__changes_the_first_target_token_only(translator, source, target, pad):
    return experiments(translator, source, target, pad, future=lambda T: [0])


def find_faults__counts_the_present_as_future(translator, source, target, pad):
    found = experiments(translator, source, target, pad)
    before = translator(source, target)[0]
    for t in range(target.size(1)):
        after = translator(source, other(target, t, pad))[0]
        if (after - before)[: t + 1].abs().max() > 1e-4:
            found.add("future")
    return found


def find_faults__changes_the_first_source_token_only(translator, source, target, pad):
    return experiments(translator, source, target, pad, blind=lambda S: [0])


def find_faults__never_pads(translator, source, target, pad):
    return experiments(translator, source, target, pad, n_pad=0)


def find_faults__neighbors_of_the_same_length(translator, source, target, pad):
    return experiments(translator, source, target, pad, company="alike")


def find_faults__company_above_only(translator, source, target, pad):
    return experiments(translator, source, target, pad, company="above")


def find_faults__company_below_only(translator, source, target, pad):
    return experiments(translator, source, target, pad, company="below")


def find_faults__pads_the_sentence_itself(translator, source, target, pad):
    return experiments(translator, source, target, pad, company="longer")


def find_faults__looks_at_all_rows(translator, source, target, pad):
    moved = translator(source, other(target, 1, pad)) - translator(source, target)
    found = experiments(translator, source, target, pad)
    return found | ({"future"} if moved.abs().max() > 1e-4 else set())


def find_faults__takes_rounding_for_a_fault(translator, source, target, pad):
    return experiments(translator, source, target, pad, most=-1.0)


def find_faults__only_the_first_fault(translator, source, target, pad):
    return set(sorted(experiments(translator, source, target, pad))[:1])


def find_faults__returns_one_name(translator, source, target, pad):
    return next(iter(experiments(translator, source, target, pad)), None)


def find_faults__right__as_a_list(translator, source, target, pad):
    return sorted(experiments(translator, source, target, pad, n_pad=3))


class Decoder:
    """Decode with a cache as the solution does, with one thing or another bent."""

    n_ctx = 32

    def __init__(self, model, source):
        self.source, (self.made, self.visible) = source, model.encode(source)
        self.model, self.n_seen = model, 0
        self.memory = [block.cross.heads(self.made, self.made)[1:] for block in model.decoder]
        B, H, like = len(source), model.config.n_head, model.wte.weight
        self.past = [LayerCache(B, H, self.n_ctx, like) for _ in model.decoder]

    def place(self):
        return sinusoids(self.n_seen + 1, self.model.config.n_embd)[-1]

    def start(self, token):
        return self.model.wte(token)[:, None] * math.sqrt(self.model.config.n_embd) + self.place()

    def seen(self):
        return self.visible

    def answers(self, n):
        return self.memory[n]

    def own(self, block, x, n):
        return block.attn(x, self.past[n])

    def step(self, token):
        x = self.start(token)
        for n, block in enumerate(self.model.decoder):
            x = block.ln_1(x + self.own(block, x, n))
            cross, (k, v), C = block.cross, self.answers(n), x.size(-1)
            q = F.linear(x, cross.c_attn.weight[:C], cross.c_attn.bias[:C])
            y = attend(split_heads(q, cross.n_head), k, v, self.seen())
            x = block.ln_2(x + cross.c_proj(merge_heads(y)))
            x = block.ln_3(x + block.mlp(x))
        self.n_seen += 1
        return F.linear(x[:, 0], self.model.wte.weight)


class CachedDecoder__always_at_position_0(Decoder):
    def start(self, token):
        return embed(token[:, None], self.model.wte)


class CachedDecoder__counts_positions_from_1(Decoder):
    def place(self):
        return sinusoids(self.n_seen + 2, self.model.config.n_embd)[-1]


class CachedDecoder__unscaled_embedding(Decoder):
    def start(self, token):
        return self.model.wte(token)[:, None] + self.place()


class CachedDecoder__forgets_the_past(Decoder):
    def own(self, block, x, n):
        return block.attn(x)


class CachedDecoder__one_cache_for_all_blocks(Decoder):
    def own(self, block, x, n):
        return block.attn(x, self.past[0])


class CachedDecoder__sees_padding(Decoder):
    def seen(self):
        return None


class CachedDecoder__memory_of_the_first_block(Decoder):
    def answers(self, n):
        return self.memory[0]


class CachedDecoder__keys_and_values_exchanged(Decoder):
    def answers(self, n):
        return self.memory[n][::-1]


class CachedDecoder__no_way_round_the_layer(Decoder):
    def own(self, block, x, n):
        return super().own(block, x, n) - x


class CachedDecoder__projects_the_memory_again(Decoder):
    def answers(self, n):
        return self.model.decoder[n].cross.heads(self.made, self.made)[1:]


class CachedDecoder__reads_the_source_again(Decoder):
    def answers(self, n):
        memory, _ = self.model.encode(self.source)
        return self.model.decoder[n].cross.heads(memory, memory)[1:]


class CachedDecoder__decodes_all_again(Decoder):
    def step(self, token):
        self.ids = torch.cat([getattr(self, "ids", token[:, None][:, :0]), token[:, None]], dim=1)
        return self.model.decode(self.ids, self.made, self.visible)[:, -1]


class CachedDecoder__past_on_the_model(Decoder):
    def __init__(self, model, source):
        super().__init__(model, source)
        self.past = model.__dict__.setdefault("kept", self.past)


class CachedDecoder__returns_all_positions(Decoder):
    def step(self, token):
        return super().step(token)[:, None]


class CachedDecoder__right__by_concatenation(Decoder):
    def __init__(self, model, source):
        super().__init__(model, source)
        self.keys = [None] * len(model.decoder)
        self.places = sinusoids(40, model.config.n_embd)

    def place(self):
        return self.places[self.n_seen]

    def own(self, block, x, n):
        heads = [split_heads(part, block.attn.n_head) for part in block.attn.c_attn(x).chunk(3, -1)]
        q, k, v = heads
        if self.keys[n] is not None:
            k, v = (torch.cat(pair, dim=2) for pair in zip(self.keys[n], (k, v), strict=True))
        self.keys[n] = (k, v)
        weights = (q @ k.mT / math.sqrt(q.size(-1))).softmax(dim=-1)
        return block.attn.c_proj(merge_heads(weights @ v))

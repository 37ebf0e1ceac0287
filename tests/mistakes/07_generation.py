"""The usual mistakes of chapter 7, for `course check 7 --package`; see 04_attention.py."""

from collections import Counter

import torch

from gpt2.decoder import GPT, GPTConfig
from gpt2.generation import (
    GREEDY,
    LayerCache,
    Sampling,
    choose,
    generate,
    keep_top_k,
    keep_top_p,
    next_logits,
)

ROW = torch.tensor([[1.0, 3.0, 2.0, 0.0]])  # p = 0.09, 0.64, 0.24, 0.03


def tiny():
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_vocab=7, n_ctx=6, n_embd=8, n_head=2, n_layer=1)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 1)
    return model


def drawn(choose_function, sampling):
    generator = torch.Generator().manual_seed(0)
    tokens = choose_function(ROW.expand(4000, -1), sampling, generator)
    return tokens.shape, [round(n / 400) for _, n in sorted(Counter(tokens.tolist()).items())]


def filled(cache_class):
    cache = cache_class(1, 1, 5, torch.zeros(2, 1))
    one, two = torch.ones(1, 1, 2, 1), torch.full((1, 1, 1, 1), 7.0)
    first = [t.flatten().tolist() for t in cache.append(one, 2 * one)]
    then = [t.flatten().tolist() for t in cache.append(two, 2 * two)]
    return first, then, cache.length


def first_of(function, n, *arguments, **options):
    tokens = function(tiny(), *arguments, **options)
    return [token for token, _ in zip(tokens, range(n), strict=False)]


EXAMPLES = {
    "keep_top_k": ["f(ROW, 2)", "f(torch.tensor([[1.0, 1.0, 0.0]]), 1)", "f(ROW, 9)"],
    "keep_top_p": ["f(ROW, 0.7)", "f(ROW, 0.5)", "f(ROW, 1.0)", "f(ROW, 0.7, False)",
                   "f(ROW, 0.5, False)"],
    "reshape_logits": ["f(ROW, Sampling(temperature=2.0)).softmax(-1)",
                       "f(ROW, Sampling(temperature=0.5)).softmax(-1)",
                       "f(ROW, Sampling(top_k=2)).softmax(-1)",
                       "f(ROW, Sampling(temperature=2.0, top_p=0.6)).softmax(-1)",
                       "f(ROW, Sampling(temperature=1e-30)).softmax(-1)"],
    "choose": ["f(ROW, GREEDY).tolist()", "drawn(f, Sampling())", "drawn(f, Sampling(top_k=2))"],
    "LayerCache": ["filled(f)"],
    "next_logits": ["torch.allclose(f(tiny(), torch.tensor([[1, 2]])), "
                    "tiny()(torch.tensor([[1, 2]]))[:, -1], atol=1e-5)",
                    "f(tiny(), torch.tensor([[1, 2]])).shape"],
    "next_tokens": ["first_of(f, 4, [1, 2], GREEDY)", "first_of(f, 12, [1, 2], GREEDY)",
                    "first_of(f, 12, [1, 2], GREEDY, None, False)"],
    "generate": ["first_of(f, 9, [1, 2], 4)", "first_of(f, 9, [1, 2], 4, stop=FIRST)",
                 "first_of(f, 9, [1, 2], 0)"],
}  # fmt: skip
FIRST = first_of(generate, 3, [1, 2], 3)[2]


def keep_top_k__loses_ties(logits, k):
    """One of two tokens that tie with the k-th is lost: keep all that are at least as large."""
    values, places = logits.topk(min(k, logits.size(-1)))
    return torch.full_like(logits, float("-inf")).scatter(-1, places, values)


def keep_top_k__zeros(logits, k):
    """What is cut is set to 0, and exp(0) is 1: its probability does not vanish. Set it to -inf."""
    return keep_top_k(logits, k).masked_fill(keep_top_k(logits, k) == float("-inf"), 0.0)


def keep_top_k__the_smallest(logits, k):
    """The smallest logits are kept."""
    return -keep_top_k(-logits, k)


def keep_top_k__too_large_a_k(logits, k):
    """A k beyond the vocabulary raises an error: it keeps all. Take min(k, n_vocab)."""
    return logits.masked_fill(logits < logits.topk(k).values[..., -1:], float("-inf"))


def nucleus(logits, p, kept):
    ranked, order = logits.sort(dim=-1, descending=True)
    mass = ranked.softmax(-1).cumsum(-1)
    keep = kept(mass, ranked.softmax(-1), p)
    return logits.masked_fill(~keep.scatter(-1, order, keep), float("-inf"))


def keep_top_p__without_the_token_that_crosses(logits, p, keep_crossing=True):
    """The token that crosses p is lost. It belongs to the nucleus, the smallest set with p or more,
    unless keep_crossing is False."""
    return keep_top_p(logits, p, False) if p < 1 else logits


def keep_top_p__threshold(logits, p, keep_crossing=True):
    """Tokens likelier than p alone are kept. Add up probabilities from the likeliest on."""
    return nucleus(logits, p, lambda mass, each, p: each >= p)


def keep_top_p__ignores_keep_crossing(logits, p, keep_crossing=True):
    """keep_crossing is ignored: False drops the token that crosses p, unless it is the first."""
    return keep_top_p(logits, p)


def keep_top_p__unsorted(logits, p, keep_crossing=True):
    """Probabilities are added up in the order of ids: sort them first."""
    probabilities = logits.softmax(-1)
    return logits.masked_fill(probabilities.cumsum(-1) - probabilities >= p, float("-inf"))


def knobs(logits, temperature, *, k=None, p=None, keep_crossing=True, late=False):
    if not late:
        logits = logits / temperature
    logits = keep_top_k(logits, k) if k else logits
    logits = keep_top_p(logits, p, keep_crossing) if p else logits
    return logits / temperature if late else logits


def reshape_logits__multiplied(logits, sampling):
    """Logits are multiplied by the temperature: divide by it, so a high one makes them more
    alike."""
    return knobs(logits, 1 / sampling.temperature, k=sampling.top_k, p=sampling.top_p)


def reshape_logits__temperature_last(logits, sampling):
    """The temperature is applied last, so top-p has cut another distribution: apply it first."""
    return knobs(
        logits - logits.amax(-1, keepdim=True), max(sampling.temperature, 1e-38), k=sampling.top_k,
        p=sampling.top_p, late=True,
    )  # fmt: skip


def reshape_logits__overflows(logits, sampling):
    """A tiny temperature makes logits infinite and the softmax nan: subtract the largest logit of
    each row first."""
    return knobs(logits, max(sampling.temperature, 1e-38) * 1e-9 if sampling.temperature < 1e-9
                 else sampling.temperature, k=sampling.top_k, p=sampling.top_p)  # fmt: skip


def choose__always_greedy(logits, sampling, generator=None):
    """The likeliest token is taken whatever the sampling: draw, unless the temperature is 0."""
    return logits.argmax(-1)


def choose__ignores_the_knobs(logits, sampling, generator=None):
    """The sampling settings are not applied before the draw: reshape_logits."""
    return choose(logits, Sampling(sampling.temperature), generator)


def choose__one_dimension_too_many(logits, sampling, generator=None):
    """The result has shape (B, 1), not (B,): squeeze the last dimension."""
    return choose(logits, sampling, generator)[:, None]


class LayerCache__writes_over(LayerCache):
    """Each piece is written to the start of the buffer, over the past: continue at `length`."""

    def append(self, k, v):
        self.length = k.size(2)
        return k, v


class LayerCache__returns_the_new(LayerCache):
    """Only the new keys and values are returned: return all up to `length`."""

    def append(self, k, v):
        super().append(k, v)
        return k, v


class LayerCache__returns_the_whole_buffer(LayerCache):
    """The whole buffer is returned, its empty places too: only the first `length` are filled."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.k, self.v = self.k.zero_(), self.v.zero_()

    def append(self, k, v):
        super().append(k, v)
        return self.k, self.v


def next_logits__of_the_first(model, idx, cache=None):
    """These are the logits after the first token; return those after the last: [:, -1]."""
    return model(idx)[:, 0]


def next_logits__of_all(model, idx, cache=None):
    """The logits of all positions are returned; return only those of the last."""
    return model(idx)


def next_tokens__forgets(model, ids, sampling, generator=None, use_cache=True):
    """The new token alone is fed and nothing is kept: use the cache, or feed the whole window."""
    window = list(ids)
    while True:
        token = int(choose(next_logits(model, torch.tensor([window])), sampling, generator))
        yield token
        window = [token]


def next_tokens__slides_by_one(model, ids, sampling, generator=None, use_cache=True):
    """The window slides by one token, so nothing cached is valid any more: when it outgrows n_ctx,
    keep its newer half."""
    window = list(ids)
    while True:
        window = window[-model.config.n_ctx :]
        token = int(choose(next_logits(model, torch.tensor([window])), sampling, generator))
        yield token
        window.append(token)


def generate__yields_the_stop(model, ids, n_new, sampling=GREEDY, **options):
    """The stop token is yielded too: end before it."""
    stop = options.pop("stop", None)
    for token in generate(model, ids, n_new, sampling, **options):
        yield token
        if token == stop:
            return


def generate__ignores_the_stop(model, ids, n_new, sampling=GREEDY, **options):
    """`stop` is ignored: end just before it."""
    return generate(model, ids, n_new, sampling, **{**options, "stop": None})


def generate__yields_the_prompt(model, ids, n_new, sampling=GREEDY, **options):
    """The prompt is yielded again; yield only what is new."""
    yield from ids
    yield from generate(model, ids, n_new, sampling, **options)


def generate__one_too_many(model, ids, n_new, sampling=GREEDY, **options):
    """There is one token too many: yield at most n_new."""
    return generate(model, ids, n_new + 1, sampling, **options)

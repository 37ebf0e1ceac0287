"""Writing against the `transformers` processors and `generate`, and against wrong writers."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import copy_weights, randomize, reference_model
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from gpt2 import attention
from gpt2.attention import causal_mask
from gpt2.decoder import GPT, GPTConfig
from gpt2.generation import (
    GREEDY,
    LayerCache,
    Sampling,
    choose,
    generate,
    keep_top_k,
    keep_top_p,
    new_cache,
    next_logits,
    reshape_logits,
    stream_text,
)
from gpt2.tokenizer import Tokenizer

CONFIG = GPTConfig(n_vocab=61, n_ctx=24, n_embd=48, n_head=3, n_layer=3)
TOLERANCE = 1e-5
NO_IDS = torch.empty(0, 0, dtype=torch.long)  # the library's processors ask for ids, unread


@pytest.fixture(scope="module")
def model() -> GPT:
    """A model in which every weight matters, and the library's with the same weights beside it."""
    theirs = reference_model(CONFIG)
    randomize(theirs, seed=1)
    ours = GPT(CONFIG)
    copy_weights(ours, theirs)
    ours.theirs = [theirs.eval()]  # in a list: not a submodule
    return ours.requires_grad_(False)


def some_logits(seed: int, rows: int = 4, n: int = 61) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(rows, n, generator=generator)


def some_ids(length: int, seed: int = 0, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(CONFIG.n_vocab, (batch, length), generator=generator)


def close(a: Tensor, b: Tensor) -> bool:
    """Compare relative to the largest number; -inf must stand in the same places."""
    finite = b.isfinite()
    if not torch.equal(a.isfinite(), finite):
        return False
    return bool((a[finite] - b[finite]).abs().max() <= TOLERANCE * b[finite].abs().max())


# The knobs. A check takes the implementation, so that wrong ones can be tried.


def from_the_top(logits: Tensor) -> Tensor:
    """Take the largest logit off: what is left says as much of the distribution."""
    return logits - logits.amax(dim=-1, keepdim=True)


def check_temperature(reshape: Callable[[Tensor, Sampling], Tensor]) -> None:
    for temperature in (0.3, 1.0, 2.5):
        logits = some_logits(0)
        expected = TemperatureLogitsWarper(temperature)(NO_IDS, logits)
        reshaped = reshape(logits, Sampling(temperature))
        assert close(from_the_top(reshaped), from_the_top(expected))


def check_tiny_temperature(reshape: Callable[[Tensor, Sampling], Tensor]) -> None:
    """Towards 0 the distribution is a fair draw among the largest, and never nan."""
    logits = torch.tensor([[1.0, 3.0, 2.0, 3.0], [-700.0, -701.0, -700.5, -900.0]])
    limit = torch.tensor([[0.0, 0.5, 0.0, 0.5], [1.0, 0.0, 0.0, 0.0]])
    for temperature in (1e-6, 1e-37, 1e-38, 1e-40, 5e-324):
        for rest in ({}, {"top_k": 3}, {"top_p": 0.9}, {"top_k": 2, "top_p": 1.0}):
            reshaped = reshape(logits, Sampling(temperature, **rest))
            assert not reshaped.isnan().any() and (reshaped < float("inf")).all()
            assert torch.equal(reshaped.softmax(-1), limit), (temperature, rest)


def check_top_k(top_k: Callable[[Tensor, int], Tensor]) -> None:
    for k in (1, 2, 17, 61, 500):
        logits = some_logits(k)
        assert torch.equal(top_k(logits, k), TopKLogitsWarper(k)(NO_IDS, logits))
    tied = torch.tensor([[3.0, 1.0, 2.0, 2.0, 2.0, 0.0]])
    assert top_k(tied, 2).isfinite().tolist() == [[True, False, True, True, True, False]]


def check_usual_top_p(top_p: Callable[[Tensor, float], Tensor]) -> None:
    for p in (0.05, 0.3, 0.61, 0.9, 0.99):
        logits = some_logits(int(100 * p))
        assert torch.equal(top_p(logits, p), TopPLogitsWarper(p)(NO_IDS, logits))


def check_top_p_on_ties(top_p: Callable[[Tensor, float], Tensor]) -> None:
    """As many tokens stay as in the library, and the likeliest: which of equals is the sort's."""
    rows = [torch.zeros(1, 2), torch.zeros(2, 50257), torch.tensor([[17.0, 0, 0], [0, 0, 0]])]
    rows += [some_logits(seed, n=n).bfloat16() for seed in range(10) for n in (20, 500)]
    rows += [some_logits(seed).round() for seed in range(10)]
    for logits in rows:
        for p in (0.1, 0.5, 0.9, 0.999):
            ours, theirs = top_p(logits, p), TopPLogitsWarper(p)(NO_IDS, logits)
            assert ours.dtype == logits.dtype
            assert torch.equal(ours.sort(dim=-1).values, theirs.sort(dim=-1).values), (logits, p)


def check_neutral_top_p(top_p: Callable[[Tensor, float], Tensor]) -> None:
    rows = [torch.tensor([[17.0, 0.0, 0.0], [200.0, 0.0, -5.0]]), some_logits(0, n=50257)]
    for logits in (*rows, *(part.bfloat16() for part in rows)):
        assert torch.equal(top_p(logits, 1.0), logits)


def check_released_top_p(top_p: Callable[[Tensor, float], Tensor]) -> None:
    logits = torch.tensor([0.15, 0.45, 0.25, 0.08, 0.05, 0.02]).log()
    kept = {p: top_p(logits, p).isfinite().nonzero().flatten().tolist() for p in (0.3, 0.6, 0.9)}
    assert kept == {0.3: [1], 0.6: [1], 0.9: [0, 1, 2]}  # 0.45 | 0.70 | 0.85, 0.93


def check_order(reshape: Callable[[Tensor, Sampling], Tensor]) -> None:
    for seed, temperature in enumerate((0.5, 2.0, 4.0)):
        logits = some_logits(seed)
        expected = TemperatureLogitsWarper(temperature)(NO_IDS, logits)
        expected = TopKLogitsWarper(30)(NO_IDS, expected)
        expected = TopPLogitsWarper(0.7)(NO_IDS, expected)
        reshaped = reshape(logits, Sampling(temperature, 30, 0.7))
        assert close(from_the_top(reshaped), from_the_top(expected))


def check_greedy(pick: Callable[[Tensor, Sampling, torch.Generator], Tensor]) -> None:
    flat = torch.zeros(200, 5)
    flat[:, 3] = 0.01  # a draw would take it one time in five
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert pick(flat, GREEDY, generator).tolist() == [3] * 200
    assert torch.equal(generator.get_state(), before)  # nothing was drawn


def check_draws(pick: Callable[[Tensor, Sampling, torch.Generator], Tensor]) -> None:
    p = torch.tensor([0.4, 0.3, 0.2, 0.1])
    drawn = pick(p.log().expand(20_000, 4), Sampling(), torch.Generator().manual_seed(0))
    assert (drawn.bincount(minlength=4) / 20_000 - p).abs().max() < 0.015  # four standard errors


def released_top_p(logits: Tensor, p: float) -> Tensor:
    return keep_top_p(logits, p, keep_crossing=False)


def test_temperature_divides_as_the_library_does() -> None:
    check_temperature(reshape_logits)


def test_top_k_is_the_librarys_and_keeps_ties() -> None:
    check_top_k(keep_top_k)


def test_usual_top_p_is_the_librarys() -> None:
    check_usual_top_p(keep_top_p)


def test_usual_top_p_keeps_as_many_tokens_on_ties_as_the_library() -> None:
    check_top_p_on_ties(keep_top_p)


def test_usual_top_p_of_one_is_neutral() -> None:
    check_neutral_top_p(keep_top_p)


def test_released_top_p_cuts_by_value() -> None:
    assert released_top_p(torch.zeros(1, 4), 0.5).isfinite().all()
    kept = released_top_p(torch.tensor([0.5, 0.2, 0.2, 0.1]).log(), 0.75).isfinite()
    assert kept.tolist() == [True, True, True, False]


def test_a_tiny_temperature_is_right_in_the_limit() -> None:
    check_tiny_temperature(reshape_logits)


def test_a_tiny_temperature_draws_only_the_largest() -> None:
    rows = torch.tensor([10.0, 30.0, 20.0, 30.0]).expand(200, 4)
    drawn = choose(rows, Sampling(1e-38), torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {1, 3}


def test_released_top_p_drops_the_crossing_token() -> None:
    check_released_top_p(released_top_p)


def test_order_is_temperature_top_k_top_p() -> None:
    check_order(reshape_logits)


def test_greedy_is_argmax_and_draws_nothing() -> None:
    check_greedy(choose)


def test_draws_have_the_asked_frequencies() -> None:
    check_draws(choose)


def test_draws_come_only_from_what_the_cuts_leave() -> None:
    rows = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().expand(2000, 4)
    for cut in ({"top_k": 2}, {"top_p": 0.6}, {"top_p": 0.8, "keep_crossing": False}):
        drawn = choose(rows, Sampling(**cut), torch.Generator().manual_seed(0))
        assert set(drawn.tolist()) == {0, 1}


def multiply_by_temperature(logits: Tensor, sampling: Sampling) -> Tensor:
    return logits * sampling.temperature


def divide_as_it_is(logits: Tensor, sampling: Sampling) -> Tensor:
    return logits / sampling.temperature


def greedy_below_a_limit(logits: Tensor, sampling: Sampling) -> Tensor:
    """Take the first of the largest, where the limit is a draw among them."""
    first = torch.full_like(logits, float("-inf"))
    return first.scatter(-1, logits.argmax(dim=-1, keepdim=True), 0.0)


def top_p_by_value(logits: Tensor, p: float) -> Tensor:
    """Keep what ties with the last token of the nucleus."""
    ranked = logits.sort(dim=-1, descending=True).values
    n_kept = (ranked.softmax(dim=-1).cumsum(dim=-1) < p).sum(dim=-1, keepdim=True) + 1
    smallest = ranked.gather(-1, n_kept.clamp(1, logits.size(-1)) - 1)
    return logits.masked_fill(logits < smallest, float("-inf"))


def top_p_by_rank_from_the_top(logits: Tensor, p: float) -> Tensor:
    """Count what is kept: rounding makes other sets than the library's."""
    ranked, order = logits.sort(dim=-1, descending=True)
    dropped = ranked.softmax(dim=-1).cumsum(dim=-1).roll(1, -1) >= p
    dropped[..., 0] = False
    return logits.masked_fill(dropped.scatter(-1, order, dropped), float("-inf"))


def top_k_without_ties(logits: Tensor, k: int) -> Tensor:
    top = logits.topk(min(k, logits.size(-1)))
    return torch.full_like(logits, float("-inf")).scatter(-1, top.indices, top.values)


def top_k_one_more(logits: Tensor, k: int) -> Tensor:
    return keep_top_k(logits, k + 1)


def top_p_before_temperature(logits: Tensor, sampling: Sampling) -> Tensor:
    logits = keep_top_p(logits, sampling.top_p or 1)
    return keep_top_k(logits / sampling.temperature, sampling.top_k or logits.size(-1))


def top_p_before_top_k(logits: Tensor, sampling: Sampling) -> Tensor:
    logits = keep_top_p(logits / sampling.temperature, sampling.top_p or 1)
    return keep_top_k(logits, sampling.top_k or logits.size(-1))


def greedy_that_samples(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    return torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(-1)


def always_greedy(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    return logits.argmax(dim=-1)


def uniform_draw(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    return torch.randint(logits.size(-1), (len(logits),), generator=generator)


@pytest.mark.parametrize(
    ("check", "mutant"),
    [
        (check_temperature, multiply_by_temperature),
        (check_top_k, top_k_without_ties),
        (check_top_k, top_k_one_more),
        (check_tiny_temperature, divide_as_it_is),
        (check_tiny_temperature, greedy_below_a_limit),
        (check_usual_top_p, released_top_p),
        (check_top_p_on_ties, top_p_by_value),
        (check_top_p_on_ties, top_p_by_rank_from_the_top),
        (check_neutral_top_p, top_p_by_value),
        (check_neutral_top_p, top_p_by_rank_from_the_top),
        (check_released_top_p, keep_top_p),
        (check_order, top_p_before_temperature),
        (check_order, top_p_before_top_k),
        (check_greedy, greedy_that_samples),
        (check_draws, always_greedy),
        (check_draws, uniform_draw),
    ],
    ids=lambda f: f.__name__,
)
def test_wrong_knobs_are_caught(check: Callable, mutant: Callable) -> None:
    with pytest.raises(AssertionError):
        check(mutant)


rows_of_logits = st.lists(
    st.floats(-20, 20, width=32, allow_nan=False), min_size=1, max_size=40
).map(torch.tensor)


@given(rows_of_logits, st.floats(0.05, 10), st.integers(1, 50), st.floats(0.01, 1))
def test_knobs_leave_a_distribution(logits: Tensor, temperature: float, k: int, p: float) -> None:
    for keep_crossing in (True, False):
        reshaped = reshape_logits(logits, Sampling(temperature, k, p, keep_crossing))
        assert abs(float(reshaped.softmax(-1).sum()) - 1) < TOLERANCE
        assert reshaped[logits == logits.max()].isfinite().any()  # the likeliest token stays
        assert (
            reshaped.isfinite().sum()
            <= (logits >= logits.sort().values[-min(k, len(logits))]).sum()
        )


@given(rows_of_logits, st.floats(0.01, 0.999))
def test_nucleus_is_the_smallest_set_that_reaches_p(logits: Tensor, p: float) -> None:
    probabilities = logits.double().softmax(-1)
    kept = keep_top_p(logits, p).isfinite()
    mass = probabilities[kept].sum()
    assert mass >= p - TOLERANCE
    assert mass - probabilities[kept].min() < p + TOLERANCE  # without its last it falls short
    assert kept.all() or logits[~kept].max() <= logits[kept].min()  # the likeliest ones


@given(rows_of_logits, st.floats(0.01, 0.999))
def test_released_nucleus_never_passes_p(logits: Tensor, p: float) -> None:
    kept = keep_top_p(logits, p, keep_crossing=False).isfinite()
    above = logits > logits[kept].min()
    assert not above.any() or logits.double().softmax(-1)[above].sum() <= p + TOLERANCE


@given(rows_of_logits)
def test_p_of_one_drops_nothing(logits: Tensor) -> None:
    assert torch.equal(keep_top_p(logits, 1.0), logits)


@pytest.mark.parametrize(
    ("knobs", "name"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
    ],
)
def test_a_knob_out_of_range_is_named(knobs: dict, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Sampling(**knobs)


# The cache: reading in pieces must be reading at once.


def read_in_pieces(model: GPT, ids: Tensor, pieces: list[int], cache: list) -> Tensor:
    return torch.cat([model.hidden(part, cache) for part in ids.split(pieces, dim=1)], dim=1)


def check_cache(model: GPT, make: Callable[[GPT, int], list] = new_cache) -> None:
    ids = some_ids(CONFIG.n_ctx)
    for pieces in ([24], [1] * 24, [7, 17], [20, 1, 3], [1, 5, 1, 9, 8]):
        assert close(read_in_pieces(model, ids, pieces, make(model, 1)), model.hidden(ids))


def test_cached_is_uncached(model: GPT) -> None:
    check_cache(model)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_cached_is_uncached_for_every_cut(model: GPT, data: st.DataObject) -> None:
    length = data.draw(st.integers(1, CONFIG.n_ctx))
    cuts = sorted(data.draw(st.sets(st.integers(1, length - 1), max_size=6)) if length > 1 else [])
    pieces = [b - a for a, b in zip([0, *cuts], [*cuts, length], strict=True)]
    ids = some_ids(length, seed=length, batch=data.draw(st.integers(1, 3)))
    actual = read_in_pieces(model, ids, pieces, new_cache(model, len(ids)))
    assert close(actual, model.hidden(ids))


def test_cached_logits_are_the_librarys(model: GPT) -> None:
    ids, cache = some_ids(CONFIG.n_ctx, seed=3), new_cache(model)
    expected = model.theirs[0](ids).logits
    next_logits(model, ids[:, :5], cache)
    for t in range(5, CONFIG.n_ctx):
        assert close(next_logits(model, ids[:, t : t + 1], cache), expected[:, t])


def test_rows_of_a_batch_do_not_mix(model: GPT) -> None:
    ids = some_ids(12, batch=3)
    together = read_in_pieces(model, ids, [5, 1, 6], new_cache(model, 3))
    alone = [read_in_pieces(model, row[None], [5, 1, 6], new_cache(model)) for row in ids]
    assert close(together, torch.cat(alone))


def test_cache_writes_in_place_and_returns_views(model: GPT) -> None:
    cache = new_cache(model)[0]
    where = cache.k.data_ptr(), cache.v.data_ptr()
    for t in range(1, 4):
        k, v = cache.append(*torch.randn(2, 1, 3, 2, 16))
        assert (k.data_ptr(), v.data_ptr()) == where and k.shape == (1, 3, 2 * t, 16) == v.shape
    assert vars(cache).keys() == {"k", "v", "length"}  # no queries


def test_cache_beyond_the_context_is_refused(model: GPT) -> None:
    cache = new_cache(model)
    model.hidden(some_ids(CONFIG.n_ctx), cache)
    with pytest.raises(ValueError, match="more than the context of 24"):
        model.hidden(some_ids(1), cache)


class ForgetsPositions(LayerCache):
    """Tells the model that the past is empty, so positions start at 0 again."""

    filled = 0

    @property
    def length(self) -> int:
        return 0

    @length.setter
    def length(self, value: int) -> None:
        pass

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        start, self.filled = self.filled, self.filled + k.size(2)
        self.k[:, :, start : self.filled] = k
        self.v[:, :, start : self.filled] = v
        return self.k[:, :, : self.filled], self.v[:, :, : self.filled]


class KeepsLastOnly(LayerCache):
    """Stores the last token of each piece in place of all of them."""

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        start = self.length
        past = self.k[:, :, :start].clone(), self.v[:, :, :start].clone()
        super().append(k[:, :, -1:].expand_as(k), v[:, :, -1:].expand_as(v))
        return torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)


class Overwrites(LayerCache):
    """Writes every piece to the start of the buffer."""

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        end = self.length + k.size(2)
        self.k[:, :, : k.size(2)], self.v[:, :, : k.size(2)] = k, v
        self.length = end
        return self.k[:, :, :end], self.v[:, :, :end]


class SwapsKeysAndValues(LayerCache):
    """Hands the values back as keys."""

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        k, v = super().append(k, v)
        return v, k


@pytest.mark.parametrize("wrong", [ForgetsPositions, KeepsLastOnly, Overwrites, SwapsKeysAndValues])
def test_wrong_caches_are_caught(model: GPT, wrong: type[LayerCache]) -> None:
    def make(model: GPT, batch: int) -> list[LayerCache]:
        c = model.config
        return [
            wrong(batch, c.n_head, c.n_ctx, model.wte.weight.new_zeros(c.n_embd)) for _ in model.h
        ]

    with pytest.raises(AssertionError):
        check_cache(model, make)


def test_a_mask_from_the_upper_left_is_caught(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    def upper_left(n_dst: int, n_src: int, device: torch.device | None = None) -> Tensor:
        return torch.ones(n_dst, n_src, dtype=torch.bool, device=device).tril()

    assert torch.equal(upper_left(5, 5), causal_mask(5, 5))  # right for a square
    monkeypatch.setattr(attention, "causal_mask", upper_left)
    with pytest.raises(AssertionError):
        check_cache(model)


# Writing.


def check_writes_like_the_library(model: GPT, write: Callable) -> None:
    for seed in range(3):
        ids = some_ids(4, seed=seed)
        expected = model.theirs[0].generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=20,
            eos_token_id=None,
            pad_token_id=0,
        )
        assert list(write(model, ids[0].tolist(), 20)) == expected[0, 4:].tolist()


def test_greedy_text_is_the_librarys_token_by_token(model: GPT) -> None:
    check_writes_like_the_library(model, generate)


def write_with_last_position_only(model: GPT, ids: list[int], n_new: int) -> Iterator[int]:
    """Forget the past: read the newest token alone."""
    for _ in range(n_new):
        ids = [int(next_logits(model, torch.tensor([ids[-1:]])).argmax())]
        yield ids[0]


def write_samples(model: GPT, ids: list[int], n_new: int) -> Iterator[int]:
    return generate(model, ids, n_new, Sampling(), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("wrong", [write_with_last_position_only, write_samples])
def test_wrong_writers_are_caught(model: GPT, wrong: Callable) -> None:
    with pytest.raises(AssertionError):
        check_writes_like_the_library(model, wrong)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(0.9, top_k=20), Sampling(1.2, top_p=0.8)])
def test_the_cache_does_not_change_the_text_even_past_the_context(
    model: GPT, sampling: Sampling
) -> None:
    texts = [
        list(
            generate(
                model,
                [1, 2, 3],
                70,  # nearly three contexts
                sampling,
                generator=torch.Generator().manual_seed(4),
                use_cache=use_cache,
            )
        )
        for use_cache in (True, False)
    ]
    assert texts[0] == texts[1] and len(texts[0]) == 70


def test_a_full_window_keeps_its_newer_half(model: GPT) -> None:
    text = [5, 6, 7, *generate(model, [5, 6, 7], 60)]
    window = text[:3]
    for token in text[3:]:
        if len(window) > CONFIG.n_ctx:
            window = window[-CONFIG.n_ctx // 2 :]
        assert token == int(model(torch.tensor([window]))[0, -1].argmax())
        window.append(token)


def test_a_context_of_one_token_can_write() -> None:
    config = GPTConfig(n_vocab=5, n_ctx=1, n_embd=4, n_head=1, n_layer=1)
    assert len(list(generate(GPT(config), [0], 5))) == 5


def test_one_seed_is_one_text(model: GPT) -> None:
    def write(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return list(generate(model, [0], 20, Sampling(1.5), generator=generator))

    assert write(7) == write(7)
    assert len({tuple(write(seed)) for seed in range(5)}) > 1


def test_it_stops_before_the_stop_token(model: GPT) -> None:
    text = list(generate(model, [0], 20))
    assert list(generate(model, [0], 20, stop=text[6])) == text[: text.index(text[6])]


def test_tokens_come_one_by_one(model: GPT) -> None:
    endless = generate(model, [0], 10**9)
    assert list(islice(endless, 3)) == list(generate(model, [0], 3))


def test_writing_leaves_gradients_on_for_the_caller(model: GPT) -> None:
    for _ in generate(model, [0], 2):
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("n", [0, CONFIG.n_ctx + 1])
def test_a_prompt_must_fit(model: GPT, n: int) -> None:
    with pytest.raises(ValueError, match=f"prompt of {n} tokens: give 1 to 24"):
        generate(model, [1] * n, 1)  # at the call, before any token is asked for


@pytest.mark.parametrize("bad", [-1, CONFIG.n_vocab, 10**9])
def test_a_prompt_has_ids_of_the_vocabulary(model: GPT, bad: int) -> None:
    with pytest.raises(ValueError, match=f"id {bad} in the prompt: take 0 to 60"):
        generate(model, [1, bad, 2], 1)
    assert len(list(generate(model, [0, CONFIG.n_vocab - 1], 1))) == 1


def test_a_prompt_that_does_not_fit_is_refused_before_it_is_streamed() -> None:
    tokenizer = Tokenizer.train([], 0)
    config = GPTConfig(tokenizer.n_vocab, n_ctx=4, n_embd=16, n_head=2, n_layer=1)
    with pytest.raises(ValueError, match="prompt of 6 tokens: give 1 to 4"):
        stream_text(GPT(config), tokenizer, "12345", 1)


def test_a_prompt_may_change_after_the_call(model: GPT) -> None:
    ids = [1, 2, 3]
    text = generate(model, ids, 5)
    ids[:] = []
    assert list(text) == list(generate(model, [1, 2, 3], 5))


def test_streamed_text_is_whole_characters_after_end_of_text() -> None:
    tokenizer = Tokenizer.train([], 0)
    torch.manual_seed(0)
    config = GPTConfig(tokenizer.n_vocab, n_ctx=64, n_embd=16, n_head=2, n_layer=1)
    model = GPT(config)
    start = [tokenizer.end_of_text, *tokenizer.encode("빨")]
    ids = list(generate(model, start, 40, stop=tokenizer.end_of_text))
    assert "".join(stream_text(model, tokenizer, "빨", 40)) == tokenizer.decode(ids)
    assert next(stream_text(model, tokenizer, "", 5), None) is not None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_the_gpu_writes_the_same_text(model: GPT) -> None:
    on_gpu = deepcopy(model).cuda()
    for sampling in (GREEDY, Sampling(0.9, top_p=0.9)):
        texts = [
            list(generate(m, [1, 2], 60, sampling, generator=torch.Generator().manual_seed(0)))
            for m in (model, on_gpu)
        ]
        assert texts[0] == texts[1]

"""Prompting: batched answers and likelihoods against the plain loop, and scores that mislead.

Oracles: `generation.generate` on one prompt at a time, and the chain rule written out by hand.
"""

import math
from itertools import islice

import numpy as np
import pytest
import torch

import miniweb
from course import models
from gpt2 import prompting
from gpt2.decoder import GPT, GPTConfig
from gpt2.generation import generate
from gpt2.prompting import (
    ask,
    bootstrap,
    both_right,
    choose_candidates,
    complete,
    exact_match,
    log_likelihoods,
    with_examples,
)
from gpt2.tokenizer import Tokenizer
from miniweb.tasks import TASKS

PROMPTS = [
    "Q: What is the capital of Chad?\nA:",
    "the red apple =",
    "Tom went to the",
    "a",
    "the big hat =",
    "I was at the zoo. It was raining all day.\nTL;DR:",
]


@pytest.fixture(scope="module")
def tokenizer():
    texts = (page.text for page in islice(miniweb.documents(50), 500))
    return Tokenizer.train(texts, 150)


@pytest.fixture(scope="module")
def model(tokenizer):
    """A random model, with weights so wide that it has opinions."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(tokenizer.n_vocab, 96, 32, 4, 2)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(8) if p.ndim == 2 else p.add_(0.1 * torch.randn_like(p))
    return model


def answer_alone(model, tokenizer, prompt, n_new):
    """Continue one prompt, up to the end of its line, with chapter 7's generator."""
    ids = [tokenizer.end_of_text, *tokenizer.encode(prompt)]
    new = list(generate(model, ids, n_new, stop=tokenizer.end_of_text))
    return tokenizer.decode(new).partition("\n")[0].strip()


@torch.no_grad()
def likelihood_alone(model, tokenizer, start, end):
    """Add up ln p of each token of the end, one pass a token."""
    ids = [tokenizer.end_of_text, *tokenizer.encode(start)]
    total = 0.0
    for token in tokenizer.encode(end):
        total += float(model(torch.tensor([ids]))[0, -1].log_softmax(-1)[token])
        ids.append(token)
    return total


# --- Completions -----------------------------------------------------------------------------


def check_completions(implementation, model, tokenizer):
    expected = [answer_alone(model, tokenizer, prompt, 9) for prompt in PROMPTS]
    assert implementation(model, tokenizer, PROMPTS, 9) == expected
    assert len(set(expected)) > 3  # the model does not answer all alike


def test_completions_of_a_batch_are_those_of_each_prompt_alone(model, tokenizer):
    check_completions(complete, model, tokenizer)


def test_completions_keep_their_order(model, tokenizer):
    forward = complete(model, tokenizer, PROMPTS, 6)
    assert complete(model, tokenizer, PROMPTS[::-1], 6) == forward[::-1]


def test_an_answer_ends_with_its_line_or_with_the_text(tokenizer):
    encode = tokenizer.encode
    for after in ([tokenizer.end_of_text], encode("\n"), encode("\nQ: Who"), []):
        assert prompting.first_line(tokenizer, encode(" the park") + after) == "the park"


def test_a_prompt_too_long_is_refused(model, tokenizer):
    with pytest.raises(ValueError, match="context"):
        complete(model, tokenizer, ["word " * 200], 4)
    with pytest.raises(ValueError, match="n_ctx"):
        log_likelihoods(model, tokenizer, ["word " * 200], [" end"])


def test_one_prompt_is_no_list_of_prompts(model, tokenizer):
    with pytest.raises(TypeError, match=r"\[prompt\]"):
        complete(model, tokenizer, PROMPTS[0], 4)


def without_end_of_text(model, tokenizer, prompts, n_new):
    """Wrong: prompts start in the middle of nowhere, as no page does."""
    rows = [torch.tensor([tokenizer.encode(prompt)]) for prompt in prompts]
    return [
        prompting.first_line(tokenizer, prompting.complete_rows(model, idx, n_new)[0].tolist())
        for idx in rows
    ]


def padded_on_the_left(model, tokenizer, prompts, n_new):
    """Wrong: padding before a prompt is attended to and shifts its positions."""
    rows = [[tokenizer.end_of_text, *tokenizer.encode(prompt)] for prompt in prompts]
    longest = max(map(len, rows))
    idx = torch.tensor([[tokenizer.end_of_text] * (longest - len(row)) + row for row in rows])
    new = prompting.complete_rows(model, idx, n_new).tolist()
    return [prompting.first_line(tokenizer, ids) for ids in new]


def in_order_of_length(model, tokenizer, prompts, n_new):
    """Wrong: answers come back in the order of the batches."""
    return complete(model, tokenizer, sorted(prompts, key=len), n_new)


@pytest.mark.parametrize("wrong", [without_end_of_text, padded_on_the_left, in_order_of_length])
def test_wrong_completions_are_caught(wrong, model, tokenizer):
    with pytest.raises(AssertionError):
        check_completions(wrong, model, tokenizer)


# --- Likelihoods -----------------------------------------------------------------------------

STARTS = [
    "Tom bought",
    "Tom bought a",
    "I was at the zoo. It was raining.\nTL;DR:",
    "the red hat =",
]
ENDS = [" a hat at the park", " hat", " saw a hat", " 빨간 모자"]


def check_likelihoods(implementation, model, tokenizer):
    expected = [
        likelihood_alone(model, tokenizer, *pair) for pair in zip(STARTS, ENDS, strict=True)
    ]
    given = implementation(model, tokenizer, STARTS, ENDS)
    assert torch.allclose(given, torch.tensor(expected), rtol=1e-5, atol=1e-5), (given, expected)


def test_likelihoods_follow_the_chain_rule(model, tokenizer):
    check_likelihoods(log_likelihoods, model, tokenizer)


def test_a_likelihood_of_all_next_tokens_sums_to_one(model, tokenizer):
    words = [tokenizer.decode([i]) for i in range(tokenizer.n_vocab - 1)]
    single = [w for w in words if tokenizer.encode(w) and len(tokenizer.encode(w)) == 1]
    p = log_likelihoods(model, tokenizer, ["the"] * len(single), single).exp().sum()
    assert 0.2 < p <= 1 + 1e-4  # some tokens are half a character and cannot be written alone


def test_the_neighbor_in_the_batch_does_not_matter(model, tokenizer):
    alone = log_likelihoods(model, tokenizer, STARTS[:1], ENDS[:1])
    longer = log_likelihoods(model, tokenizer, [STARTS[0], "word " * 20], [ENDS[0], " end"])
    assert torch.allclose(alone[0], longer[0], rtol=1e-5, atol=0)


def counts_the_prompt(model, tokenizer, starts, ends):
    """Wrong: the likelihood of start and end together."""
    pairs = zip(starts, ends, strict=True)
    return log_likelihoods(model, tokenizer, [""] * len(starts), [a + b for a, b in pairs])


def mean_instead_of_sum(model, tokenizer, starts, ends):
    """Wrong: the mean a token makes long ends cheap."""
    lengths = torch.tensor([len(tokenizer.encode(end)) for end in ends])
    return log_likelihoods(model, tokenizer, starts, ends) / lengths


def counts_what_follows(model, tokenizer, starts, ends):
    """Wrong: the end of the text behind the answer is counted too."""
    mark = [
        likelihood_alone_of_end(model, tokenizer, a + b) for a, b in zip(starts, ends, strict=True)
    ]
    return log_likelihoods(model, tokenizer, starts, ends) + torch.tensor(mark)


@torch.no_grad()
def likelihood_alone_of_end(model, tokenizer, text):
    ids = torch.tensor([[tokenizer.end_of_text, *tokenizer.encode(text)]])
    return float(model(ids)[0, -1].log_softmax(-1)[tokenizer.end_of_text])


@pytest.mark.parametrize("wrong", [counts_the_prompt, mean_instead_of_sum, counts_what_follows])
def test_wrong_likelihoods_are_caught(wrong, model, tokenizer):
    with pytest.raises(AssertionError):
        check_likelihoods(wrong, model, tokenizer)


# --- Candidates ------------------------------------------------------------------------------


def check_choice(implementation, model, tokenizer, partial):
    prompts = ["Tom bought the ___ hat = 톰은 큰 모자를", "___ was at the zoo", "the ___ = 사과"]
    world = miniweb.MEDIUM
    words = [word.english for word in (*world.adjectives, *world.things)]
    candidates = [words[:10], [person.name for person in world.people], words[10:]]
    expected = []
    for prompt, words in zip(prompts, candidates, strict=True):
        start, rest = prompt.split("___")
        scores = {}
        for word in words:
            whole, space = start.rstrip() + " " * start.endswith(" "), start.rstrip()
            full = likelihood_alone(model, tokenizer, space, (whole + word + rest)[len(space) :])
            first = likelihood_alone(model, tokenizer, space, (whole + word)[len(space) :])
            scores[word] = full - first if partial else full
        expected.append(max(scores, key=lambda word: (scores[word], word)))
    assert implementation(model, tokenizer, prompts, candidates, partial) == expected


@pytest.mark.parametrize("partial", [True, False])
def test_choices_are_those_of_the_chain_rule(partial, model, tokenizer):
    check_choice(choose_candidates, model, tokenizer, partial)


@pytest.mark.parametrize("partial", [False, True])
def test_a_prompt_without_a_gap_is_refused(partial, model, tokenizer):
    with pytest.raises(ValueError, match=r"no gap here.*needs a gap ___"):
        choose_candidates(model, tokenizer, ["no gap here"], [["a", "b"]], partial)


def test_partial_scoring_needs_text_behind_the_gap(model, tokenizer):
    """All candidates would score 0, and the last by the alphabet win."""
    with pytest.raises(ValueError, match="text behind it"):
        choose_candidates(model, tokenizer, ["the ___"], [["b", "a"]], partial=True)
    scores = [likelihood_alone(model, tokenizer, "the", f" {word}") for word in "ba"]
    best = "ba"[int(scores[1] > scores[0])]
    assert choose_candidates(model, tokenizer, ["the ___"], ["ba"], partial=False) == [best]


def test_full_and_partial_scoring_taken_for_each_other_are_caught(model, tokenizer):
    def swapped(model, tokenizer, prompts, candidates, partial):
        return choose_candidates(model, tokenizer, prompts, candidates, not partial)

    caught = 0
    for partial in (True, False):
        try:
            check_choice(swapped, model, tokenizer, partial)
        except AssertionError:
            caught += 1
    assert caught == 2


# --- Scores ----------------------------------------------------------------------------------


def test_exact_match_is_exact():
    assert exact_match(["a hat", "a hat", "hat"], ["a hat", "a Hat", "a hat"]).tolist() == [1, 0, 0]


def test_a_pair_counts_if_both_are_right():
    assert both_right(np.array([1.0, 1, 1, 0, 0, 1, 0, 0])).tolist() == [1, 0, 0, 0]
    with pytest.raises(ValueError, match="3 scores are no pairs"):
        both_right(np.ones(3))


def test_a_rule_that_points_to_one_of_two_earns_no_pair_and_a_guess_a_quarter():
    first = np.tile([1.0, 0.0], 500)  # the answers of a pair differ
    assert first.mean() == 0.5 and both_right(first).mean() == 0
    guesses = (np.random.default_rng(0).random(100_000) < 0.5).astype(float)
    assert both_right(guesses).mean() == pytest.approx(0.25, abs=0.01)


def test_bootstrap_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        low, high = bootstrap((rng.random(100) < 0.7).astype(float), 400)
        inside += low <= 0.7 <= high
    assert 0.88 <= inside / 200 <= 0.99
    assert bootstrap(np.ones(50)) == (1.0, 1.0)
    low, high = bootstrap(np.array([0.0, 1.0] * 125))
    assert math.isclose(high - low, 2 * 1.96 * 0.5 / math.sqrt(250), rel_tol=0.1)


def test_examples_stand_a_line_each_before_the_prompt():
    pairs = [("a", "b"), ("c", "d")]
    assert with_examples("e =", pairs) == "a = b\nc = d\ne ="
    assert with_examples("e:", pairs, ": ") == "a: b\nc: d\ne:"


# --- Asking ----------------------------------------------------------------------------------


def test_ask_writes_what_complete_writes_and_shows_its_rivals(model, tokenizer):
    for prompt in PROMPTS:
        guesses = list(ask(model, tokenizer, prompt, 8, n_candidates=3))
        text = "".join(guess.text for guess in guesses)
        assert text.strip().startswith(complete(model, tokenizer, [prompt], 8)[0][:4])
        for guess in guesses:
            p = [probability for _, probability in guess.candidates]
            assert guess.candidates[0][0] == guess.text and p == sorted(p, reverse=True)
            assert len(p) == 3 and 0 < sum(p) <= 1 + 1e-5
            assert f"{p[0]:.2f}" in str(guess)


def test_ask_refuses_a_prompt_at_the_call(model, tokenizer):
    with pytest.raises(ValueError, match="the context holds 96"):
        ask(model, tokenizer, "word " * 200)  # nothing is asked for yet


def test_ask_stops_where_the_context_is_full(model, tokenizer):
    ids = tokenizer.encode("word " * 200)[: model.config.n_ctx - 4]
    prompt = tokenizer.decode(ids)
    ids = [tokenizer.end_of_text, *tokenizer.encode(prompt)]
    room = model.config.n_ctx - len(ids) + 1
    new = list(generate(model, ids, room))
    assert tokenizer.end_of_text not in new and tokenizer.encode("\n")[0] not in new
    assert len(list(ask(model, tokenizer, prompt, n_new=100))) == len(new) == room <= 6


# --- The tasks of chapter 8 ------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_a_right_answer_earns_everything_and_another_items_answer_no_pair(task):
    items = models.items(task)
    right = [item.answer for item in items]
    assert len(right) == models.N_ITEMS >= 300
    assert models.pairs(models.right(right, items)).mean() == 1
    swapped = [right[i ^ 1] for i in range(len(right))]
    assert models.pairs(models.right(swapped, items)).mean() == 0


def test_a_leak_stops_the_training(monkeypatch):
    item = models.items("question")[0]
    page = f"{item.prompt} {item.answer}"
    monkeypatch.setattr(models, "pages", lambda *_: [page] * 64)
    with pytest.raises(ValueError, match="pool 0 of seed 0 holds"):
        models.batches(models.Run("0.1M", 0))


def test_runs_never_share_their_pages_with_another_nor_with_the_validation(monkeypatch):
    monkeypatch.setattr(models, "POOL", 200)
    first = {tuple(models.pages(seed, 0)) for seed in (*range(5), 97)}
    assert len(first) == 6

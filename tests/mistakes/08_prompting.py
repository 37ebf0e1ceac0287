"""The usual mistakes of chapter 8, for `course check 8 --package`; see 04_attention.py."""

import numpy as np
import torch

from gpt2.decoder import GPT, GPTConfig
from gpt2.generation import GREEDY, choose, next_logits
from gpt2.prompting import (
    choose_candidates,
    complete_rows,
    log_likelihoods,
)
from gpt2.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train([], 0)
SCORES = np.array([0.0, 1.0, 1.0, 1.0] * 10)


def tiny():
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_vocab=257, n_ctx=32, n_embd=8, n_head=2, n_layer=1)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 1)
    return model


def likelihoods(function):
    return [round(p, 2) for p in function(tiny(), TOKENIZER, ["ab", "a"], ["c", "bcd"]).tolist()]


def chosen(function, partial):
    prompts = ["cebb ___ fhb", "hbbc ___ cab", "g e ___ ddg", "ebdf ___ cfg"]
    words = [["m", "n"], ["p", "o"], ["o", "m", "n"], ["k", "l"]]
    return function(tiny(), TOKENIZER, prompts, words, partial)


EXAMPLES = {
    "with_examples": ['f("c =", [("a", "b")])', 'f("c", [("a", "b"), ("d", "e")], ": ")',
                      'f("c", [])'],
    "complete_rows": ["f(tiny(), torch.tensor([[1, 2], [3, 4]]), 3).shape",
                      "f(tiny(), torch.tensor([[1, 2]]), 3).tolist()",
                      "f(tiny(), torch.tensor([[1, 2]]), 9, range(257)).shape"],
    "first_line": ['f(TOKENIZER, TOKENIZER.encode(" a b\\nc"))',
                   'f(TOKENIZER, [*TOKENIZER.encode("ab"), 256, 64])'],
    "log_likelihoods": ["likelihoods(f)"],
    "choose_candidates": ["chosen(f, True)", "chosen(f, False)"],
    "exact_match": ['f(["a", "b"], ["a", "c"])', 'f(["A ", "a"], ["a", "a b"])'],
    "both_right": ["f(np.array([1.0, 1, 1, 0, 0, 1, 0, 0])).tolist()",
                   "f(np.array([0.5, 1])).tolist()"],
    "bootstrap": ["[round(x, 2) for x in f(SCORES)]", "[round(x, 2) for x in f(SCORES, seed=1)]",
                  "f(np.ones(5))"],
}  # fmt: skip


def with_examples__behind_the_prompt(prompt, examples, separator=" = "):
    """The examples come after the prompt; put them before it, so that the prompt is continued."""
    return "\n".join([prompt, *(left + separator + right for left, right in examples)])


def with_examples__on_one_line(prompt, examples, separator=" = "):
    """Everything is on one line: each example has a line of its own."""
    return " ".join([*(left + separator + right for left, right in examples), prompt])


def complete_rows__with_the_prompt(model, idx, n_new, ends=()):
    """The prompt is returned too; return only what is new."""
    return torch.cat([idx, complete_rows(model, idx, n_new, ends)], dim=1)


def complete_rows__never_stops_early(model, idx, n_new, ends=()):
    """Rows continue after all of them have ended: stop there."""
    return complete_rows(model, idx, n_new)


def complete_rows__forgets_the_prompt(model, idx, n_new, ends=()):
    """Each new token is predicted from the one before it alone: keep the past in the cache."""
    new = []
    for _ in range(n_new):
        idx = choose(next_logits(model, idx), GREEDY)[:, None]
        new.append(idx)
    return torch.cat(new, dim=1)


def first_line__whole_text(tokenizer, ids):
    """The text continues after the end of the line."""
    return tokenizer.decode(ids).strip()


def first_line__goes_on_behind_the_end_of_text(tokenizer, ids):
    """The text continues after the end of text, into another document: cut there first."""
    return tokenizer.decode(ids).partition("\n")[0].strip()


def first_line__keeps_spaces(tokenizer, ids):
    """Spaces around the answer are kept: strip them."""
    ids = list(ids)
    end = ids.index(256) if 256 in ids else len(ids)
    return tokenizer.decode(ids[:end]).partition("\n")[0]


def scored(model, tokenizer, starts, ends, from_start=False, mean=False, stop=False):
    result = []
    for start, end in zip(starts, ends, strict=True):
        a, b = tokenizer.encode(start), tokenizer.encode(end)
        ids = torch.tensor([[256, *a, *b, 256]])
        p = model(ids)[0].log_softmax(-1)
        first = 0 if from_start else len(a)
        each = [p[i, ids[0, i + 1]] for i in range(first, len(a) + len(b) + stop)]
        result.append(torch.stack(each).mean() if mean else torch.stack(each).sum())
    return torch.stack(result).detach()


def log_likelihoods__of_the_whole(model, tokenizer, starts, ends):
    """The start is scored too. It is given: targets inside it are IGNORE."""
    return scored(model, tokenizer, starts, ends, from_start=True)


def log_likelihoods__means(model, tokenizer, starts, ends):
    """This is a mean over tokens; ln p of an end is a sum."""
    return scored(model, tokenizer, starts, ends, mean=True)


def log_likelihoods__and_the_end_of_text(model, tokenizer, starts, ends):
    """An end of text after the end is scored too: score only the tokens of the end."""
    return scored(model, tokenizer, starts, ends, stop=True)


def log_likelihoods__sign(model, tokenizer, starts, ends):
    """The sign is wrong: ln p is below 0, the loss above."""
    return -log_likelihoods(model, tokenizer, starts, ends)


def choose_candidates__the_other_scoring(model, tokenizer, prompts, candidates, partial=True):
    """Full and partial scoring are swapped: partial counts only what follows the candidate."""
    return choose_candidates(model, tokenizer, prompts, candidates, not partial)


def choose_candidates__always_full(model, tokenizer, prompts, candidates, partial=True):
    """Partial scoring counts the candidate too: score only what follows it."""
    return choose_candidates(model, tokenizer, prompts, candidates, False)


def choose_candidates__the_least_likely(model, tokenizer, prompts, candidates, partial=True):
    """The least likely candidate is taken."""
    left = [
        [w for w in words if w != choose_candidates(model, tokenizer, [p], [words], partial)[0]]
        for p, words in zip(prompts, candidates, strict=True)
    ]
    best = choose_candidates(model, tokenizer, prompts, left, partial)
    return [next(w for w in words if w != b) for words, b in zip(left, best, strict=True)]


def exact_match__contains(answers, references):
    """An answer counts if it merely contains the reference or is part of it: it must be equal."""
    return np.array([float(a in r or r in a) for a, r in zip(answers, references, strict=True)])


def exact_match__ignores_case_and_spaces(answers, references):
    """Case and spaces are ignored: the match must be exact."""
    pairs = zip(answers, references, strict=True)
    return np.array([float(a.strip().lower() == r.strip().lower()) for a, r in pairs])


def exact_match__mean(answers, references):
    """One mean is returned; return a score for each answer, (N,)."""
    return np.mean([float(a == r) for a, r in zip(answers, references, strict=True)])


def both_right__either(scores):
    """One right item earns the pair: both must be right, so that naming one place every time earns
    nothing."""
    return np.maximum(scores[::2], scores[1::2])


def both_right__halves(scores):
    """The first half is paired with the second; items 2k and 2k + 1 are a pair."""
    return np.minimum(scores[: len(scores) // 2], scores[len(scores) // 2 :])


def both_right__mean(scores):
    """A pair earns the mean of its items; a pair that is half right earns nothing."""
    return (scores[::2] + scores[1::2]) / 2


def bootstrap__without_replacement(scores, n_resamples=2000, seed=0):
    """Items are drawn without replacement, so every resample is the whole: all means are equal."""
    return float(np.mean(scores)), float(np.mean(scores))


def bootstrap__of_the_items(scores, n_resamples=2000, seed=0):
    """These are percentiles of the scores: take those of the means of the resamples."""
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)


def bootstrap__90_percent(scores, n_resamples=2000, seed=0):
    """This interval is one of 90%: for 95% take percentiles 2.5 and 97.5."""
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(scores), size=(n_resamples, len(scores)))
    low, high = np.percentile(scores[draws].mean(axis=1), [5, 95])
    return float(low), float(high)

"""Zero-shot prompting: a task is a text to continue. Chapter 8."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2.data import IGNORE, pad_rows
from gpt2.decoder import GPT
from gpt2.generation import GREEDY, choose, new_cache, next_logits
from gpt2.tokenizer import Tokenizer

GAP = "___"  # where a prompt leaves out a word that is to be chosen


def with_examples(
    prompt: str, examples: Sequence[tuple[str, str]], separator: str = " = "
) -> str:
    """Put example pairs before a prompt, a line each, as in the paper's section 3.7."""
    lines = [left + separator + right for left, right in examples]
    return "\n".join([*lines, prompt])


@torch.inference_mode()
def complete_rows(
    model: GPT, idx: Tensor, n_new: int, ends: Sequence[int] = ()
) -> Tensor:
    """Continue rows of one length greedily, with a cache: (B, T) -> (B, n), n <= n_new.

    Stops early once every row has written one of the tokens in `ends`.
    """
    cache, new = new_cache(model, len(idx)), []
    going = torch.ones(len(idx), 1, dtype=torch.bool, device=idx.device)
    last = torch.tensor(ends, device=idx.device)
    for _ in range(n_new):
        idx = choose(next_logits(model, idx, cache), GREEDY)[:, None]  # (B, 1)
        new.append(idx)
        going &= ~torch.isin(idx, last)
        if not going.any():
            break
    return torch.cat(new, dim=1)


def complete(
    model: GPT, tokenizer: Tokenizer, prompts: Sequence[str], n_new: int
) -> list[str]:
    """Write the greedy continuation of each prompt, up to the end of its line.

    Prompts of one length run as one batch, so there is no padding to attend to.
    Raises ValueError where a prompt or its continuation outgrows the context, and
    TypeError for a single prompt.
    """
    if isinstance(prompts, str):
        raise TypeError("prompts is a list of texts: write [prompt] for a single one.")
    by_length = defaultdict(list)
    for i, prompt in enumerate(prompts):
        ids = [tokenizer.end_of_text, *tokenizer.encode(prompt)]
        by_length[len(ids)].append((i, ids))
    texts, ends = [""] * len(prompts), [tokenizer.end_of_text, *tokenizer.encode("\n")]
    for group in by_length.values():
        idx = torch.tensor([ids for _, ids in group], device=model.wte.weight.device)
        new = complete_rows(model, idx, n_new, ends).tolist()
        for (i, _), ids in zip(group, new, strict=True):
            texts[i] = first_line(tokenizer, ids)
    return texts


def first_line(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Decode up to end-of-text or the end of the line, without spaces around it."""
    ids = list(ids)
    end = ids.index(tokenizer.end_of_text) if tokenizer.end_of_text in ids else len(ids)
    return tokenizer.decode(ids[:end]).partition("\n")[0].strip()


@torch.inference_mode()
def log_likelihoods(
    model: GPT, tokenizer: Tokenizer, starts: Sequence[str], ends: Sequence[str]
) -> Tensor:
    """Return ln p(end | start), in nats, of each pair of texts, in one pass: (N,).

    Shorter rows are padded on the right, which causal attention never sees. Raises
    ValueError if start and end do not fit into the context.
    """
    device, n_ctx = model.wte.weight.device, model.config.n_ctx
    first = [tokenizer.encode(start) for start in starts]
    second = [tokenizer.encode(end) for end in ends]
    rows = [a + b for a, b in zip(first, second, strict=True)]
    if (longest := max(map(len, rows))) >= n_ctx:
        raise ValueError(f"{longest} tokens do not fit into n_ctx = {n_ctx}.")
    x, y = pad_rows(rows, tokenizer.end_of_text, n_ctx)  # (N, T) each
    for row, (start, ids) in enumerate(zip(first, rows, strict=True)):
        y[row, : len(start)] = IGNORE
        y[row, len(ids) :] = IGNORE  # what follows the end is another question
    x, y = x.to(device), y.to(device)
    asked = y != IGNORE  # (N, T), K of them true
    logits = F.linear(model.hidden(x)[asked], model.wte.weight)  # (K, n_vocab)
    losses = F.cross_entropy(logits, y[asked], reduction="none")  # (K,)
    total = torch.zeros(len(rows), device=device)  # (N,)
    return -total.index_add(0, asked.nonzero()[:, 0], losses)


def choose_candidates(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    candidates: Sequence[Sequence[str]],
    partial: bool = True,
) -> list[str]:
    """Fill the gap of each prompt with the candidate that makes the text likeliest.

    Full scoring counts the candidate and all behind it, partial scoring only what is
    behind it: how well the candidate explains the rest. Raises ValueError for a prompt
    without a gap, or with nothing to score behind it. Source: Trinh and Le 2018,
    section 3.1.
    """
    starts, ends = [], []
    for prompt, words in zip(prompts, candidates, strict=True):
        before, gap, rest = prompt.partition(GAP)
        if not gap or (partial and not rest):
            wish = f"needs a gap {GAP}" + " with text behind it" * partial
            raise ValueError(f"the prompt {prompt!r} {wish}.")
        for word in words:
            start, end = (before + word, rest) if partial else (before, word + rest)
            cut = len(start.rstrip())  # a space belongs to the next token
            starts.append(start[:cut])
            ends.append(start[cut:] + end)
    scores = iter(log_likelihoods(model, tokenizer, starts, ends).tolist())
    return [max([(next(scores), word) for word in words])[1] for words in candidates]


def exact_match(answers: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Score 1.0 for an answer that is the reference, to the letter, else 0.0: (N,)."""
    return np.array([float(a == r) for a, r in zip(answers, references, strict=True)])


def both_right(scores: np.ndarray) -> np.ndarray:
    """Give credit for a pair of items only if both are right: (2N,) -> (N,).

    Items 2k and 2k + 1 are a pair. Raises ValueError for an odd number of scores.
    """
    if len(scores) % 2:
        raise ValueError(f"{len(scores)} scores are no pairs: one is left over.")
    return np.minimum(scores[::2], scores[1::2])


def bootstrap(
    scores: np.ndarray, n_resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % interval of the mean, by drawing the items with replacement.

    Source: Efron and Tibshirani 1993, chapter 13 (percentiles).
    """
    n, rng = len(scores), np.random.default_rng(seed)
    draws = rng.integers(n, size=(n_resamples, n))
    low, high = np.percentile(scores[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class Guess:
    """A token that the model wrote, and its rivals as (token, probability) pairs."""

    text: str
    candidates: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        return "  ".join(f"{text!r} {p:.2f}" for text, p in self.candidates)


@torch.inference_mode()
def next_guesses(
    model: GPT, tokenizer: Tokenizer, ids: Sequence[int], n_candidates: int
) -> Iterator[Guess]:
    """Continue ids greedily until the context is full; yield tokens with rivals."""
    idx, cache = torch.tensor([ids], device=model.wte.weight.device), new_cache(model)
    for _ in range(len(ids), model.config.n_ctx + 1):
        p = next_logits(model, idx, cache)[0].softmax(dim=-1)  # (n_vocab,)
        p, best = p.topk(n_candidates)  # (n,) each
        texts = [tokenizer.decode([i]) for i in best.tolist()]
        yield Guess(texts[0], tuple(zip(texts, p.tolist(), strict=True)))
        idx = best[None, :1]  # (1, 1)


def ask(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    n_new: int = 24,
    n_candidates: int = 4,
) -> Iterator[Guess]:
    """Continue a prompt by up to n_new guesses, to the end of its line.

    Raises ValueError, at once, for a prompt that does not fit into the context.
    """
    ids, n_ctx = [tokenizer.end_of_text, *tokenizer.encode(prompt)], model.config.n_ctx
    if len(ids) > n_ctx:
        raise ValueError(f"a prompt of {len(ids)} tokens: the context holds {n_ctx}.")
    ends = ("\n", tokenizer.decode([tokenizer.end_of_text]))
    guesses = islice(next_guesses(model, tokenizer, ids, n_candidates), n_new)
    return takewhile(lambda guess: guess.text not in ends, guesses)

"""A language model by counting, and the metrics of every later model. Chapter 1."""

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

END = b""  # the token that ends a document: no other token is empty


def split_words(text: str) -> list[bytes]:
    """Cut a text into words, punctuation and white space; joined, they are the text."""
    return [piece.encode() for piece in re.findall(r" ?\w+| ?[^\w\s]+|\s", text)]


def word_vocabulary(texts: Iterable[str]) -> list[bytes]:
    """List END, the 256 single bytes, and the texts' words in order of first use.

    Raises TypeError for a single text, whose "texts" would be its characters.
    """
    if isinstance(texts, str):
        raise TypeError("texts is a list of texts: write [text] for a single one.")
    words = (word for text in texts for word in split_words(text))
    return list(dict.fromkeys([END, *(bytes([value]) for value in range(256)), *words]))


def encode_words(text: str, vocabulary: Collection[bytes]) -> list[bytes]:
    """Return a text as tokens: known words, and the single bytes of unknown ones."""
    tokens = []
    for word in split_words(text):
        tokens += [word] if word in vocabulary else [bytes([value]) for value in word]
    return tokens


History = tuple[bytes, ...]  # the tokens before a token, the latest last


def histories(document: Sequence[bytes], order: int) -> Iterator[tuple[History, bytes]]:
    """Pair each token of a document, and its END, with the 0 to order - 1 before it.

    END comes before the first token, and nothing before END: no history crosses
    documents.
    """
    tokens = [END, *document, END]
    for i in range(1, len(tokens)):
        for start in range(max(0, i - order + 1), i + 1):
            yield tuple(tokens[start:i]), tokens[i]


class NGram:
    """Predict a token from counts of the order - 1 tokens before it, smoothed.

    Sums to 1 over the vocabulary for every history. Raises ValueError for an order
    below 1 or an unknown token. Source: Witten and Bell 1991, method C.
    """

    def __init__(self, order: int, vocabulary: Iterable[bytes]) -> None:
        if order < 1:
            raise ValueError(f"order = {order}: an n-gram's order is at least 1.")
        self.order = order
        self.vocabulary = dict.fromkeys([*vocabulary, END])  # an ordered set
        self.counts: defaultdict[History, Counter[bytes]] = defaultdict(Counter)
        self.totals: Counter[History] = Counter()

    def learn(self, document: Sequence[bytes]) -> None:
        """Count a document's tokens, and its END, after each of their histories."""
        check_tokens(document, self.vocabulary)
        for history, token in histories(document, self.order):
            self.counts[history][token] += 1
            self.totals[history] += 1

    def probability(self, token: bytes, history: Sequence[bytes]) -> float:
        """Return p(token | history), from the shortest history to the longest seen."""
        p = 1 / len(self.vocabulary)
        for length in range(min(self.order - 1, len(history)) + 1):
            recent = tuple(history[len(history) - length :])
            if recent not in self.totals:  # never seen, so no longer one was either
                break
            seen = self.counts[recent]
            p = (seen[token] + len(seen) * p) / (self.totals[recent] + len(seen))
        return p


def check_tokens(tokens: Iterable[bytes], vocabulary: Collection[bytes]) -> None:
    """Raise ValueError if a token inside a document is END or not in the vocabulary."""
    for token in tokens:
        if token == END or token not in vocabulary:
            hint = "encode the text first."
            raise ValueError(f"token {token!r} cannot be inside a document: {hint}")


def log_probability(
    model: NGram, tokens: Sequence[bytes], prompt: Sequence[bytes] = ()
) -> float:
    """Return ln p(tokens | prompt) in nats, by the chain rule.

    The prompt begins a document. For a whole document, end the tokens with END.
    Raises ValueError for an unknown token.
    """
    last = len(tokens) - 1 if tokens and tokens[-1] == END else len(tokens)
    check_tokens([*prompt, *tokens[:last]], model.vocabulary)
    history = [END, *prompt]
    nats = 0.0
    for token in tokens:
        nats += math.log(model.probability(token, history))
        history.append(token)
    return nats


def cross_entropy(model: NGram, documents: Iterable[Sequence[bytes]]) -> float:
    """Return the mean loss in nats per token, the END of each document included.

    Raises ValueError if there is no document.
    """
    nats, n_tokens = 0.0, 0
    for document in documents:
        nats -= log_probability(model, [*document, END])
        n_tokens += len(document) + 1
    if n_tokens == 0:
        raise ValueError("no documents: a mean over no tokens is not defined.")
    return nats / n_tokens


def perplexity(nats: float) -> float:
    """Return exp of a loss in nats per token: a number of equally likely options.

    Infinite if that is too large for a float.
    """
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf


def bits_per_byte(nats: float, n_bytes: int) -> float:
    """Return a whole text's loss, nats in total, as bits per UTF-8 byte.

    Raises ValueError if n_bytes is not positive.
    """
    if n_bytes < 1:
        raise ValueError(f"n_bytes = {n_bytes}: measure a text of at least one byte.")
    return nats / math.log(2) / n_bytes


def entropy(distribution: Iterable[float]) -> float:
    """Return -sum p ln p in nats. Raises ValueError if p is not a distribution.

    Source: Shannon 1948, section 6.
    """
    p = list(distribution)
    if min(p, default=-1) < 0 or not math.isclose(math.fsum(p), 1, abs_tol=1e-9):
        what = f"{len(p)} numbers that sum to {math.fsum(p)}, not 1."
        raise ValueError(f"not a distribution: {what}")
    return -math.fsum(x * math.log(x) for x in p if x > 0)


def sample_token(model: NGram, history: Sequence[bytes], rng: random.Random) -> bytes:
    """Draw a token from p(token | history), from the counts after one history.

    Starts with the longest. After a history seen N times, followed by T different
    tokens, moves to the next shorter one with probability T / (N + T).
    """
    for length in range(min(model.order - 1, len(history)), -1, -1):
        recent = tuple(history[len(history) - length :])
        n, seen = model.totals[recent], model.counts.get(recent, Counter())
        if rng.random() * (n + len(seen)) < n:
            return rng.choices(list(seen), list(seen.values()))[0]
    return rng.choice(list(model.vocabulary))


def write_document(
    model: NGram,
    rng: random.Random,
    prompt: Sequence[bytes] = (),
    max_tokens: int = 200,
) -> str:
    """Continue a prompt until END or max_tokens more tokens; return prompt and text.

    Raises ValueError for an unknown token in the prompt.
    """
    check_tokens(prompt, model.vocabulary)
    tokens = [END, *prompt]
    for _ in range(max_tokens):
        token = sample_token(model, tokens, rng)
        if token == END:
            break
        tokens.append(token)
    return b"".join(tokens).decode(errors="replace")

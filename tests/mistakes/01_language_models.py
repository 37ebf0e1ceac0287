"""The usual mistakes of chapter 1, for `course check 1 --package`; see 04_attention.py."""

import math
import random
import re
from collections import Counter

from gpt2.language_model import END, NGram, histories, split_words

A, B = b"a", b"b"


def taught(model_class, order=2, documents=([A, B, A], [A, A])):
    model = model_class(order, [A, B])
    for document in documents:
        model.learn(list(document))
    return model


def table(model):
    """Probabilities after some histories, rounded."""
    pasts = ([], [A], [B, A], [END], [END, A])
    return [[round(model.probability(t, past), 4) for t in (A, B, END)] for past in pasts]


def draws(sample, order=2):
    rng, model = random.Random(0), taught(NGram, order)
    return Counter(sample(model, [END, A], rng) for _ in range(2000)).most_common()


EXAMPLES = {
    "split_words": ['f("A cat, 2 dogs!")', 'f("a  b\\n")'],
    "word_vocabulary": ['f(["dog cat", "ant dog"])[257:]',
                        'len(f(["dog cat", "ant dog"]))', 'f([])[:3]'],
    "encode_words": ['f("a cat", [b"a", b" cat"])', 'f("a cat", [b"a"])', 'f("é", [])'],
    "histories": ["list(f([A, B], 2))", "list(f([A, B], 1))", "list(f([A, B], 3))"],
    "NGram": ["table(taught(f))", "table(taught(f, 3))", "table(taught(f, 1))"],
    "log_probability": ["round(f(taught(NGram), [A, B]), 4)",
                        "round(f(taught(NGram), [A, END]), 4)",
                        "round(f(taught(NGram), [B], [A]), 4)"],
    "cross_entropy": ["round(f(taught(NGram), [[A, B], [A]]), 4)",
                      "round(f(taught(NGram), [[A, B, A, A], []]), 4)"],
    "perplexity": ["f(0.0)", "round(f(math.log(8)), 6)", "f(1e9)"],
    "bits_per_byte": ["round(f(10 * math.log(2), 5), 6)", "round(f(3.0, 2), 6)"],
    "entropy": ["round(f([0.5, 0.5]), 6)", "round(f([1.0, 0.0]), 6)",
                "round(f([0.2, 0.3, 0.5]), 6)"],
    "sample_token": ["draws(f)", "draws(f, 3)"],
}  # fmt: skip


def split_words__at_white_space(text):
    """This splits at white space and drops it. Joined, the pieces must be the text: keep a space
    with the word after it."""
    return [word.encode() for word in text.split()]


def split_words__spaces_by_themselves(text):
    """A space is a piece of its own; it belongs to the word after it, as in ` cat`."""
    return [piece.encode() for piece in re.findall(r"\w+|[^\w\s]+|\s", text)]


def word_vocabulary__no_bytes(texts):
    """The 256 single bytes are missing, so a new word cannot be spelled."""
    return list(dict.fromkeys([END, *(word for text in texts for word in split_words(text))]))


def word_vocabulary__sorted(texts):
    """Words are sorted; they must come in the order of first use."""
    words = sorted({word for text in texts for word in split_words(text)})
    return list(dict.fromkeys([END, *(bytes([value]) for value in range(256)), *words]))


def encode_words__unknown_words_dropped(text, vocabulary):
    """An unknown word is dropped; it must be spelled byte by byte."""
    return [word for word in split_words(text) if word in vocabulary]


def encode_words__all_by_bytes(text, vocabulary):
    """Every word is spelled; spell only those that are not in the vocabulary."""
    return [bytes([value]) for value in text.encode()]


def histories__longest_only(document, order):
    """Only the longest history of each token is there. Shorter ones count too: 0 to order - 1."""
    tokens = [END, *document, END]
    for i in range(1, len(tokens)):
        yield tuple(tokens[max(0, i - order + 1) : i]), tokens[i]


def histories__without_end(document, order):
    """The END of the document is never predicted, so the model cannot stop."""
    for history, token in histories(document, order):
        if token != END:
            yield history, token


def histories__order_tokens(document, order):
    """Histories are one token too long: an n-gram of order n has histories of up to n - 1."""
    yield from histories(document, order + 1)


class NGram__no_smoothing(NGram):
    """Only the longest history that was seen counts, so what did not follow it has p = 0. Mix in
    the shorter histories."""

    def probability(self, token, history):
        for length in range(min(self.order - 1, len(history)), -1, -1):
            recent = tuple(history[len(history) - length :])
            if recent in self.totals:
                return self.counts[recent][token] / self.totals[recent]
        return 0.0


class NGram__add_one(NGram):
    """This is add-one smoothing. Witten and Bell give a new token the weight T / (N + T), where T
    different tokens were seen in N."""

    def probability(self, token, history):
        recent = tuple(history[max(0, len(history) - self.order + 1) :])
        n = self.totals[recent] + len(self.vocabulary)
        return (self.counts.get(recent, {}).get(token, 0) + 1) / n


class NGram__tokens_for_types(NGram):
    """The weight of the shorter history is N / (N + N). Count different tokens, len(counts), not
    all."""

    def probability(self, token, history):
        p = 1 / len(self.vocabulary)
        for length in range(min(self.order - 1, len(history)) + 1):
            recent = tuple(history[len(history) - length :])
            if recent not in self.totals:
                break
            n = self.totals[recent]
            p = (self.counts[recent][token] + n * p) / (n + n)
        return p


def log_probability__in_bits(model, tokens, prompt=()):
    """The result is in bits; use math.log to get nats."""
    return summed(model, tokens, prompt) / math.log(2)


def summed(model, tokens, prompt=(), history=(END,)):
    history, nats = [*history, *prompt], 0.0
    for token in tokens:
        nats += math.log(model.probability(token, history))
        history.append(token)
    return nats


def log_probability__no_end_before(model, tokens, prompt=()):
    """The first token has no history. A document begins after END: start with [END]."""
    return summed(model, tokens, prompt, history=())


def log_probability__counts_the_prompt(model, tokens, prompt=()):
    """The prompt is scored too. It is given: score only the tokens after it."""
    return summed(model, [*prompt, *tokens])


def log_probability__history_stands_still(model, tokens, prompt=()):
    """Every token is scored after the prompt alone: append each to the history."""
    return sum(math.log(model.probability(token, [END, *prompt])) for token in tokens)


def cross_entropy__mean_of_means(model, documents):
    """This is the mean of each document's mean. Divide all nats by all tokens, once."""
    means = [-summed(model, [*d, END]) / (len(d) + 1) for d in documents]
    return sum(means) / len(means)


def cross_entropy__without_end(model, documents):
    """END is left out: it is predicted too, once per document."""
    return -sum(summed(model, d) for d in documents) / sum(map(len, documents))


def cross_entropy__end_not_counted(model, documents):
    """The END of each document is scored, but not included in the number of tokens."""
    return -sum(summed(model, [*d, END]) for d in documents) / sum(map(len, documents))


def cross_entropy__sign(model, documents):
    """The sign is wrong: a loss is -ln p, above 0."""
    n = sum(len(d) + 1 for d in documents)
    return sum(summed(model, [*d, END]) for d in documents) / n


def perplexity__power_of_two(nats):
    """2 ** loss is for bits; a loss in nats takes exp."""
    return 2**nats if nats < 1000 else math.inf


def perplexity__overflows(nats):
    """A loss above 709 overflows a float: return math.inf there."""
    return math.exp(nats)


def bits_per_byte__nats(nats, n_bytes):
    """The result is in nats per byte: divide by ln 2."""
    return nats / n_bytes


def bits_per_byte__times_ln_2(nats, n_bytes):
    """Nats are multiplied by ln 2: a nat is more than a bit, so divide."""
    return nats * math.log(2) / n_bytes


def entropy__bits(distribution):
    """The result is in bits; use math.log to get nats."""
    return -sum(p * math.log2(p) for p in distribution if p)


def entropy__log_of_0(distribution):
    """A probability of 0 raises an error: p ln p goes to 0 with p, so leave it out."""
    return -sum(p * math.log(p) for p in distribution)


def entropy__sign(distribution):
    """The sign is wrong: entropy is -sum p ln p, never below 0."""
    return sum(p * math.log(p) for p in distribution if p)


def sample_token__likeliest(model, history, rng):
    """This always returns the likeliest token. Draw from the probabilities."""
    return max(model.vocabulary, key=lambda token: model.probability(token, history))


def sample_token__uniform(model, history, rng):
    """Every token is equally likely here: draw from the counts of the history."""
    return rng.choice(list(model.vocabulary))

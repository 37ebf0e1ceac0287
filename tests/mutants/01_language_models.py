"""Answers to the exercises of chapter 1: the mistakes that people make, and other right ones.

Each function is named after the answer that it stands in for and what is wrong with it:
`rank_by_bits__nats` replaces `rank_by_bits`. See course/mutants.py.
"""

import math
from collections import Counter

from gpt2.language_model import (
    END,
    NGram,
    bits_per_byte,
    cross_entropy,
    encode_words,
    log_probability,
    split_words,
    word_vocabulary,
)

# --- 1. rank_by_bits ---------------------------------------------------------------------------


def ranked(reports, measure, best_first=True):
    """Rank by any measure of (perplexity, n_tokens)."""
    pairs = [(name, measure(*report)) for name, report in reports.items()]
    return sorted(pairs, key=lambda pair: pair[1], reverse=not best_first)


def rank_by_bits__lower_perplexity_is_better(reports, n_bytes):
    return ranked(reports, lambda perplexity, n_tokens: perplexity)  # the misconception


def rank_by_bits__right_numbers_ranked_by_perplexity(reports, n_bytes):
    names = sorted(reports, key=lambda name: reports[name][0])
    return [(name, math.log2(reports[name][0]) * reports[name][1] / n_bytes) for name in names]


def rank_by_bits__bits_per_token(reports, n_bytes):
    return ranked(reports, lambda perplexity, n_tokens: math.log2(perplexity))


def rank_by_bits__nats_per_byte(reports, n_bytes):
    return ranked(reports, lambda perplexity, n_tokens: math.log(perplexity) * n_tokens / n_bytes)


def rank_by_bits__perplexity_taken_for_a_loss(reports, n_bytes):
    return ranked(reports, lambda perplexity, n: bits_per_byte(perplexity * n, n_bytes))


def rank_by_bits__loss_not_summed_over_tokens(reports, n_bytes):
    return ranked(reports, lambda perplexity, n: bits_per_byte(math.log(perplexity), n_bytes))


def rank_by_bits__worst_first(reports, n_bytes):
    def measure(perplexity, n_tokens):
        return math.log2(perplexity) * n_tokens / n_bytes

    return ranked(reports, measure, best_first=False)


def rank_by_bits__names_only(reports, n_bytes):
    return [name for name, _ in rank_by_bits__right__by_log2(reports, n_bytes)]


def rank_by_bits__only_the_best(reports, n_bytes):
    return rank_by_bits__right__by_log2(reports, n_bytes)[:1]


def rank_by_bits__empties_the_reports(reports, n_bytes):
    pairs = []
    while reports:
        name, (perplexity, n_tokens) = reports.popitem()
        pairs.append((name, math.log2(perplexity) * n_tokens / n_bytes))
    return sorted(pairs, key=lambda pair: pair[1])


def rank_by_bits__right__by_log2(reports, n_bytes):
    return ranked(reports, lambda perplexity, n: math.log2(perplexity) * n / n_bytes)


def rank_by_bits__right__by_the_probability_of_the_text(reports, n_bytes):
    rows = []
    for name, (perplexity, n_tokens) in reports.items():
        log_p = -n_tokens * math.log(perplexity)
        rows.append((-log_p / math.log(2) / n_bytes, name))
    rows.sort()
    return tuple([name, bits] for bits, name in rows)


# --- 2. find_broken_history --------------------------------------------------------------------


def search(
    probability,
    vocabulary,
    documents,
    first=0,
    last=0,
    start=(END,),
    broken=lambda numbers: min(numbers) < 0 or abs(math.fsum(numbers) - 1) > 1e-6,
):
    """Search as the solution does, with one thing or another bent."""
    for document in documents:
        for n in range(first, len(document) + 1 - last):
            history = [*start, *document[:n]]
            if broken([probability(token, history) for token in vocabulary]):
                return history
    return None


def find_broken_history__finds_none(probability, vocabulary, documents):
    return None


def find_broken_history__looks_after_no_history_only(probability, vocabulary, documents):
    numbers = [probability(token, [END]) for token in vocabulary]
    return [END] if min(numbers) < 0 or abs(math.fsum(numbers) - 1) > 1e-6 else None


def find_broken_history__misses_the_start(probability, vocabulary, documents):
    return search(probability, vocabulary, documents, first=1)


def find_broken_history__misses_the_end(probability, vocabulary, documents):
    return search(probability, vocabulary, documents, last=1)


def find_broken_history__leaves_end_out_of_the_sum(probability, vocabulary, documents):
    words = [token for token in vocabulary if token != END]
    return search(probability, words, documents)


def find_broken_history__histories_without_end(probability, vocabulary, documents):
    return search(probability, vocabulary, documents, start=())


def find_broken_history__only_sums_above_1(probability, vocabulary, documents):
    return search(probability, vocabulary, documents, broken=lambda p: math.fsum(p) > 1 + 1e-6)


def find_broken_history__only_sums_below_1(probability, vocabulary, documents):
    return search(probability, vocabulary, documents, broken=lambda p: math.fsum(p) < 1 - 1e-6)


def find_broken_history__sees_no_negative_number(probability, vocabulary, documents):
    return search(probability, vocabulary, documents, broken=lambda p: abs(math.fsum(p) - 1) > 1e-6)


def find_broken_history__no_tolerance(probability, vocabulary, documents):
    return search(probability, vocabulary, documents, broken=lambda p: sum(p) != 1)


def find_broken_history__too_tolerant(probability, vocabulary, documents):
    return search(probability, vocabulary, documents, broken=lambda p: not 0.99 < sum(p) < 1.01)


def find_broken_history__takes_zero_for_broken(probability, vocabulary, documents):
    return search(
        probability, vocabulary, documents, broken=lambda p: min(p) <= 0 or abs(sum(p) - 1) > 1e-6
    )


def find_broken_history__sums_over_the_text(probability, vocabulary, documents):
    for document in documents:  # the numbers of one document sum to nothing in particular
        tokens = [END, *document, END]
        numbers = [probability(tokens[i], tokens[:i]) for i in range(1, len(tokens))]
        if abs(math.fsum(numbers) - 1) > 1e-6:
            return tokens[:-1]
    return None


def find_broken_history__first_document_only(probability, vocabulary, documents):
    return search(probability, vocabulary, documents[:1])


def find_broken_history__says_true(probability, vocabulary, documents):
    return True if search(probability, vocabulary, documents) else None


def find_broken_history__right__last_one(probability, vocabulary, documents):
    found = None
    for document in documents[::-1]:
        for n in reversed(range(len(document) + 1)):
            history = (END, *document[:n])
            numbers = [probability(token, history) for token in vocabulary]
            if any(p < 0 for p in numbers) or not math.isclose(sum(numbers), 1, abs_tol=1e-6):
                found = history
    return found


def find_broken_history__right__step_by_step(probability, vocabulary, documents):
    for document in documents:
        history = []
        for token in [END, *document]:
            history.append(token)
            total = 0.0
            for word in vocabulary:
                p = probability(word, list(history))
                if p < 0:
                    return history
                total += p
            if total > 1 + 1e-6 or total < 1 - 1e-6:
                return history
    return None


# --- 3. bits_by_order --------------------------------------------------------------------------


def measured(read, fresh, orders, vocabulary=None, learn=None, measure=None, tokens=encode_words):
    """Measure as the solution does, with one thing or another bent."""
    vocabulary = dict.fromkeys(vocabulary or word_vocabulary(read))
    measure = measure or total_bits
    pairs = []
    for order in orders:
        model = NGram(order, vocabulary)
        for text in learn or read:
            model.learn(tokens(text, vocabulary))
        documents = [[tokens(text, vocabulary) for text in texts] for texts in (read, fresh)]
        pairs.append(
            tuple(measure(model, *part) for part in zip(documents, (read, fresh), strict=True))
        )
    return pairs


def total_bits(model, documents, texts, end=1):
    nats = cross_entropy(model, documents) * sum(len(tokens) + end for tokens in documents)
    return bits_per_byte(nats, sum(len(text.encode()) for text in texts))


def bits_by_order__mean_over_tokens(read, fresh, orders):
    return measured(read, fresh, orders, measure=lambda m, d, t: cross_entropy(m, d) / math.log(2))


def bits_by_order__cross_entropy_is_no_total(read, fresh, orders):
    def measure(model, documents, texts):
        n_bytes = sum(len(text.encode()) for text in texts)
        return bits_per_byte(cross_entropy(model, documents), n_bytes)

    return measured(read, fresh, orders, measure=measure)


def bits_by_order__characters_for_bytes(read, fresh, orders):
    def measure(model, documents, texts):
        n_bytes = sum(len(text.encode()) for text in texts)
        return total_bits(model, documents, texts) * n_bytes / sum(map(len, texts))

    return measured(read, fresh, orders, measure=measure)


def bits_by_order__nats(read, fresh, orders):
    return measured(read, fresh, orders, measure=lambda m, d, t: total_bits(m, d, t) * math.log(2))


def bits_by_order__forgets_the_ends(read, fresh, orders):
    return measured(read, fresh, orders, measure=lambda m, d, t: total_bits(m, d, t, end=0))


def bits_by_order__ends_are_free(read, fresh, orders):
    def measure(model, documents, texts):
        nats = -sum(log_probability(model, tokens) for tokens in documents)
        return bits_per_byte(nats, sum(len(text.encode()) for text in texts))

    return measured(read, fresh, orders, measure=measure)


def bits_by_order__learns_the_fresh_ones_too(read, fresh, orders):
    return measured(read, fresh, orders, learn=[*read, *fresh])


def bits_by_order__knows_the_words_of_the_fresh_ones(read, fresh, orders):
    return measured(read, fresh, orders, vocabulary=word_vocabulary([*read, *fresh]))


def bits_by_order__exchanges_the_pair(read, fresh, orders):
    return [pair[::-1] for pair in measured(read, fresh, orders)]


def bits_by_order__one_model_learns_again_for_each_order(read, fresh, orders):
    vocabulary = dict.fromkeys(word_vocabulary(read))
    model, pairs = NGram(1, vocabulary), []
    for order in orders:
        model.order = order
        for text in read:
            model.learn(encode_words(text, vocabulary))
        pairs.append(
            tuple(
                total_bits(model, [encode_words(text, vocabulary) for text in texts], texts)
                for texts in (read, fresh)
            )
        )
    return pairs


def bits_by_order__sorts_the_orders(read, fresh, orders):
    return measured(read, fresh, sorted(orders))


def bits_by_order__mean_of_the_documents(read, fresh, orders):
    def measure(model, documents, texts):
        each = [total_bits(model, [d], [t]) for d, t in zip(documents, texts, strict=True)]
        return sum(each) / len(each)

    return measured(read, fresh, orders, measure=measure)


def bits_by_order__right__one_model_cut_shorter(read, fresh, orders):
    vocabulary = word_vocabulary(read)
    known = set(vocabulary)
    model = NGram(max(orders, default=1), vocabulary)
    for text in read:
        model.learn(encode_words(text, known))
    result = []
    for order in orders:
        model.order = order
        pair = []
        for texts in (read, fresh):
            nats = n_bytes = 0
            for text in texts:
                nats -= log_probability(model, [*encode_words(text, known), END])
                n_bytes += len(text.encode("utf-8"))
            pair.append(nats / n_bytes / math.log(2))
        result.append(pair)
    return result


def bits_by_order__right__its_own_chain_rule(read, fresh, orders):
    vocabulary = set(word_vocabulary(read))

    def bits(model, texts):
        total = 0.0
        for text in texts:
            tokens = [END, *encode_words(text, vocabulary), END]
            for i in range(1, len(tokens)):
                total -= math.log2(model.probability(tokens[i], tokens[:i]))
        return total / len("".join(texts).encode())

    pairs = []
    for order in orders:
        model = NGram(order, sorted(vocabulary))
        for text in read:
            words = split_words(text)
            model.learn(words)
        pairs.append((bits(model, read), bits(model, fresh)))
    return tuple(pairs)


# --- 4. GapModel -------------------------------------------------------------------------------


class Gaps:
    """Count and predict as the solution does; subclasses bend one thing or another."""

    def __init__(self, patterns, vocabulary):
        self.patterns = list(patterns)
        self.vocabulary = dict.fromkeys([*vocabulary, END])
        self.counts = {}

    def key(self, pattern, history):
        if max(pattern, default=0) > len(history):
            return None
        return pattern, tuple(history[-distance] for distance in pattern)

    def padded(self, document):
        return [END, *document, END]

    def learn(self, document):
        tokens = self.padded(document)
        for i in range(1, len(tokens)):
            for pattern in self.patterns:
                key = self.key(pattern, tokens[:i])
                if key is not None:
                    self.counts.setdefault(key, Counter())[tokens[i]] += 1

    def mix(self, p, count, n, t):
        return (count + t * p) / (n + t)

    def probability(self, token, history):
        p = 1 / len(self.vocabulary)
        for pattern in self.patterns:
            seen = self.counts.get(self.key(pattern, history))
            if seen:
                p = self.mix(p, seen[token], seen.total(), len(seen))
        return p


class GapModel__stops_at_the_first_unseen(Gaps):
    def probability(self, token, history):
        p = 1 / len(self.vocabulary)
        for pattern in self.patterns:
            seen = self.counts.get(self.key(pattern, history))
            if not seen:
                break
            p = self.mix(p, seen[token], seen.total(), len(seen))
        return p


class GapModel__patterns_share_their_counts(Gaps):
    def key(self, pattern, history):
        key = super().key(pattern, history)
        return key and key[1]


class GapModel__closes_the_gaps(Gaps):
    def key(self, pattern, history):
        if len(pattern) > len(history):
            return None
        return pattern, tuple(history[len(history) - len(pattern) :])


class GapModel__fills_the_gaps(Gaps):
    def key(self, pattern, history):
        reach = max(pattern, default=0)
        if reach > len(history):
            return None
        return pattern, tuple(history[len(history) - reach :])


class GapModel__off_by_one(Gaps):
    def key(self, pattern, history):
        if max(pattern, default=-1) + 1 > len(history):
            return None
        return pattern, tuple(history[-distance - 1] for distance in pattern)


class GapModel__wraps_round_at_the_start(Gaps):
    def key(self, pattern, history):
        n = len(history)
        return pattern, tuple(history[(n - distance) % n] for distance in pattern)


class GapModel__pads_with_nothing(Gaps):
    def key(self, pattern, history):
        n = len(history)
        return pattern, tuple(history[-d] if d <= n else None for d in pattern)


class GapModel__document_begins_without_end(Gaps):
    def padded(self, document):
        return [*document, END]


class GapModel__document_never_ends(Gaps):
    def padded(self, document):
        return [END, *document]


class GapModel__runs_on_across_documents(Gaps):
    past = ()

    def learn(self, document):
        tokens = [*self.past, END, *document, END]
        for i in range(len(self.past) + 1, len(tokens)):
            for pattern in self.patterns:
                key = self.key(pattern, tokens[:i])
                if key is not None:
                    self.counts.setdefault(key, Counter())[tokens[i]] += 1
        self.past = tokens[:-1]


class GapModel__strongest_alone(Gaps):
    def mix(self, p, count, n, t):
        return count / n


class GapModel__only_as_new_as_one(Gaps):
    def mix(self, p, count, n, t):
        return (count + p) / (n + 1)  # T taken for 1: the sum is right, the numbers are not


class GapModel__does_not_divide_what_it_lends(Gaps):
    def mix(self, p, count, n, t):
        return (count + t * p) / n


class GapModel__strongest_first(Gaps):
    def probability(self, token, history):
        forward, self.patterns = self.patterns, self.patterns[::-1]
        p = super().probability(token, history)
        self.patterns = forward
        return p


class GapModel__an_ngram(NGram):
    def __init__(self, patterns, vocabulary):
        super().__init__(max((max(p, default=0) for p in patterns), default=0) + 1, vocabulary)
        self.patterns = list(patterns)


class GapModel__eats_the_history(Gaps):
    def probability(self, token, history):
        p = super().probability(token, history)
        history.clear()
        return p


class GapModel__right__recursion(Gaps):
    def probability(self, token, history):
        def below(k):
            if k == 0:
                return 1 / len(self.vocabulary)
            seen = self.counts.get(self.key(self.patterns[k - 1], history), {})
            n, t = sum(seen.values()), len(seen)
            return (seen.get(token, 0) + t * below(k - 1)) / (n + t) if n else below(k - 1)

        return below(len(self.patterns))


class GapModel__right__a_table_for_each_pattern:
    def __init__(self, patterns, vocabulary):
        self.patterns = list(patterns)
        self.vocabulary = set(vocabulary) | {END}
        self.tables = [{} for _ in self.patterns]

    def learn(self, document):
        history = [END]
        for token in [*document, END]:
            for pattern, table in zip(self.patterns, self.tables, strict=True):
                if all(distance <= len(history) for distance in pattern):
                    context = tuple(history[len(history) - d] for d in pattern)
                    followers = table.setdefault(context, {})
                    followers[token] = followers.get(token, 0) + 1
            history.append(token)

    def probability(self, token, history):
        p = 1 / len(self.vocabulary)
        for pattern, table in zip(self.patterns, self.tables, strict=True):
            if any(distance > len(history) for distance in pattern):
                continue
            followers = table.get(tuple(history[len(history) - d] for d in pattern))
            if followers is not None:
                n, t = sum(followers.values()), len(followers)
                p = followers.get(token, 0) / (n + t) + p * t / (n + t)
        return p

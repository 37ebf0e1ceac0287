"""Counting models and their measures: hand-computed oracles, properties, and named mutants."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2.language_model import (
    END,
    NGram,
    bits_per_byte,
    cross_entropy,
    encode_words,
    entropy,
    histories,
    log_probability,
    perplexity,
    sample_token,
    split_words,
    word_vocabulary,
    write_document,
)

LETTERS = [b"a", b"b", b"c"]
documents = st.lists(st.lists(st.sampled_from(LETTERS), max_size=6), max_size=6)
orders = st.integers(1, 4)


def trained(
    kind: type[NGram],
    order: int,
    texts: Iterable[Sequence[bytes]],
    vocabulary: Iterable[bytes] = LETTERS,
) -> NGram:
    model = kind(order, vocabulary)
    for text in texts:
        model.learn(text)
    return model


def walk(model: NGram, p: dict[tuple[bytes, ...], float]) -> float:
    """Return the exact cross-entropy, nats a document, of a model on documents drawn from p."""
    return -sum(x * log_probability(model, [*text, END]) for text, x in p.items() if x)


# Oracle: worked by hand.


def check_hand_computed(kind: type[NGram]) -> None:
    """Train on the one document `a a b`, over the vocabulary a, b, END.

    Unigram counts a 2, b 1, END 1: N = 4, T = 3, base 1/3, so p(a) = (2 + 3/3) / 7 = 3/7,
    p(b) = p(END) = 2/7. After `a`: a 1, b 1, so N = 2, T = 2 and p(b | a) = (1 + 2 * 2/7) / 4 =
    11/28. After `END a`: a 1, so N = 1, T = 1 and p(b | END a) = (0 + 1 * 11/28) / 2 = 11/56.
    """
    model = trained(kind, 3, [[b"a", b"a", b"b"]], [b"a", b"b"])
    assert model.probability(b"a", []) == pytest.approx(3 / 7)
    assert model.probability(END, []) == pytest.approx(2 / 7)
    assert model.probability(b"b", [b"b", b"a"]) == pytest.approx(11 / 28)  # `b a` was never seen
    assert model.probability(b"b", [END, b"a"]) == pytest.approx(11 / 56)


def test_probabilities_by_hand() -> None:
    check_hand_computed(NGram)


def test_an_untrained_model_is_uniform() -> None:
    assert NGram(3, LETTERS).probability(b"a", [END, b"b"]) == 1 / 4


def test_entropy_of_a_fair_coin_and_a_die() -> None:
    assert entropy([0.5, 0.5]) == pytest.approx(math.log(2))
    assert entropy([1 / 6] * 6) == pytest.approx(math.log(6))
    assert entropy([1, 0]) == 0


def check_bits_per_byte(measure: Callable[[float, int], float]) -> None:
    """A model that gives every byte 1/256 spends exactly 8 bits on it."""
    assert measure(5 * math.log(256), 5) == pytest.approx(8)


def test_uniform_bytes_cost_eight_bits() -> None:
    check_bits_per_byte(bits_per_byte)


# Properties.


def check_sums_to_one(kind: type[NGram], order: int, texts: list[list[bytes]]) -> None:
    model = trained(kind, order, texts)
    for n in range(order + 1):
        for history in itertools.product([END, *LETTERS], repeat=n):
            total = sum(model.probability(token, history) for token in model.vocabulary)
            assert total == pytest.approx(1, abs=1e-9), history


@settings(deadline=None, max_examples=50)
@given(order=orders, texts=documents)
def test_every_history_has_a_distribution(order: int, texts: list[list[bytes]]) -> None:
    check_sums_to_one(NGram, order, texts)


def check_documents_sum_to_one(kind: type[NGram], order: int, texts: list[list[bytes]]) -> None:
    """All documents of up to 3 tokens, and all openings of 4, share probability 1."""
    model = trained(kind, order, texts)
    total = 0.0
    for n in range(5):
        for text in itertools.product(LETTERS, repeat=n):
            total += math.exp(log_probability(model, [*text, END] if n < 4 else text))
    assert total == pytest.approx(1, abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(order=orders, texts=documents)
def test_documents_share_probability_one(order: int, texts: list[list[bytes]]) -> None:
    check_documents_sum_to_one(NGram, order, texts)


SOURCE_TEXTS = list(itertools.chain(*(itertools.product(LETTERS, repeat=n) for n in range(4))))


def check_gibbs(kind: type[NGram], order: int, weights: list[int], size: int, seed: int) -> None:
    """No model beats the source: E[-ln q] >= H(p), exactly, for any p over documents."""
    p = {text: w / sum(weights) for text, w in zip(SOURCE_TEXTS, weights, strict=True)}
    sample = random.Random(seed).choices(SOURCE_TEXTS, weights, k=size)
    assert walk(trained(kind, order, sample), p) >= entropy(p.values()) - 1e-9


@settings(deadline=None, max_examples=50)
@given(
    order=orders,
    weights=st.lists(
        st.integers(0, 9), min_size=len(SOURCE_TEXTS), max_size=len(SOURCE_TEXTS)
    ).filter(any),
    size=st.integers(0, 300),
    seed=st.integers(0, 9),
)
def test_no_model_beats_the_entropy_of_the_source(
    order: int, weights: list[int], size: int, seed: int
) -> None:
    check_gibbs(NGram, order, weights, size, seed)


def test_enough_text_reaches_the_entropy_of_a_source_it_can_express() -> None:
    p = {(): 0.5, (b"a",): 0.25, (b"a", b"b"): 0.25}
    sample = random.Random(0).choices(list(p), list(p.values()), k=20_000)
    assert walk(trained(NGram, 3, sample), p) == pytest.approx(entropy(p.values()), abs=1e-3)


def check_uniform_perplexity(
    loss: Callable[[NGram, list[list[bytes]]], float], measure: Callable[[float], float]
) -> None:
    model = NGram(2, [bytes([value]) for value in range(100)])
    texts = [[b"a"] * 3, [b"b"] * 40]
    assert measure(loss(model, texts)) == pytest.approx(101)


def test_uniform_model_has_the_vocabulary_as_perplexity() -> None:
    check_uniform_perplexity(cross_entropy, perplexity)


def check_pooled(loss: Callable[[NGram, list[list[bytes]]], float]) -> None:
    """Every token weighs the same, in a short document and in a long one."""
    model = trained(NGram, 2, [[b"a", b"b"], [b"a", b"a", b"c"]])
    texts = [[b"c"], [b"a"] * 50]
    nats = -sum(log_probability(model, [*text, END]) for text in texts)
    assert loss(model, texts) == pytest.approx(nats / (2 + 51))


def test_loss_is_a_mean_over_tokens() -> None:
    check_pooled(cross_entropy)


def check_retokenized(measure: Callable[[float, list[bytes]], float]) -> None:
    """The same p(text) in pieces of other sizes has the same bits per byte."""
    nats = 12.5
    assert measure(nats, [b"the", b" apple"]) == pytest.approx(
        measure(nats, [bytes([value]) for value in b"the apple"])
    )


def bits_of_tokens(nats: float, tokens: list[bytes]) -> float:
    return bits_per_byte(nats, len(b"".join(tokens)))


def test_bits_per_byte_do_not_depend_on_the_tokens() -> None:
    check_retokenized(bits_of_tokens)


def check_boundaries(kind: type[NGram]) -> None:
    """What one document ends on says nothing about how the next begins, whatever their order."""
    texts = [[b"a", b"b"], [b"c", b"a"], [b"b"]]
    reference = trained(kind, 3, texts)
    for shuffled in itertools.permutations(texts):
        model = trained(kind, 3, shuffled)
        for token, history in itertools.product(model.vocabulary, [(b"b", END), (END,), (b"b",)]):
            assert model.probability(token, history) == reference.probability(token, history)
    assert (b"b", END) not in reference.counts


def test_contexts_stop_at_the_document() -> None:
    check_boundaries(NGram)


def test_a_word_keeps_the_space_in_front_of_it() -> None:
    assert split_words("A cat, 2 dogs!") == [b"A", b" cat", b",", b" 2", b" dogs", b"!"]
    assert split_words("a  b\n") == [b"a", b" ", b" b", b"\n"]


def test_a_vocabulary_is_end_the_bytes_and_the_words_in_order_of_first_use() -> None:
    words = [b"dog", b" cat", b"ant", b" dog"]
    expected = [END, *(bytes([value]) for value in range(256)), *words]
    assert word_vocabulary(["dog cat", "ant dog"]) == expected


def test_histories_have_from_none_to_order_minus_1_tokens() -> None:
    expected = [((), b"a"), ((END,), b"a"), ((), b"b"), ((b"a",), b"b"), ((), END), ((b"b",), END)]
    assert sorted(histories([b"a", b"b"], 2)) == sorted(expected)


@settings(deadline=None)
@given(text=st.text(), corpus=st.lists(st.text(), max_size=3))
def test_decoding_words_is_exact(text: str, corpus: list[str]) -> None:
    assert b"".join(split_words(text)).decode() == text
    vocabulary = word_vocabulary(corpus)
    tokens = encode_words(text, vocabulary)
    assert b"".join(tokens).decode() == text
    assert set(tokens) <= set(vocabulary) and END not in tokens


def test_unseen_words_are_spelled_and_cost_a_finite_loss() -> None:
    texts = ["the apple", "the pear"]
    vocabulary = word_vocabulary(texts)
    model = trained(NGram, 3, [encode_words(text, vocabulary) for text in texts], vocabulary)
    tokens = encode_words("the kiwi 빨간", vocabulary)
    assert tokens[:3] == [b"the", b" ", b"k"]
    assert -1000 < log_probability(model, [*tokens, END]) < 0


def check_samples(draw: Callable[[NGram, Sequence[bytes], random.Random], bytes]) -> None:
    """Draws follow the probabilities: chi-squared with 3 degrees of freedom, p about 0.001."""
    model = trained(NGram, 3, [[b"a", b"a", b"b"], [b"a", b"b", b"b", b"a"], [b"b"]])
    rng, n = random.Random(1), 20_000
    for history in ([END], [END, b"a"], [b"a", b"a"], [b"c", b"c"]):
        drawn = Counter(draw(model, history, rng) for _ in range(n))
        expected = {token: n * model.probability(token, history) for token in model.vocabulary}
        assert sum((drawn[t] - e) ** 2 / e for t, e in expected.items()) < 16.3, history


def test_samples_follow_the_probabilities() -> None:
    check_samples(sample_token)


def test_writing_keeps_the_prompt_and_repeats_with_the_seed() -> None:
    vocabulary = word_vocabulary(["the red apple = 빨간 사과"])
    model = NGram(5, vocabulary)
    for _ in range(2000):
        model.learn(encode_words("the red apple = 빨간 사과", vocabulary))
    prompt = encode_words("the red apple =", vocabulary)
    assert write_document(model, random.Random(3), prompt) == "the red apple = 빨간 사과"
    first, second = (write_document(NGram(1, LETTERS), random.Random(7)) for _ in range(2))
    assert first == second
    assert len(write_document(model, random.Random(3), prompt, max_tokens=0)) == len(
        b"".join(prompt)
    )


def test_the_chain_rule_splits_prompt_and_answer() -> None:
    model = trained(NGram, 3, [[b"a", b"b", b"c"], [b"b", b"c"]])
    whole = log_probability(model, [b"b", b"c", b"a", END])
    parts = log_probability(model, [b"b", b"c"]) + log_probability(model, [b"a", END], [b"b", b"c"])
    assert whole == pytest.approx(parts)


# Bad input.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NGram(0, LETTERS), "order = 0"),
        (lambda: NGram(2, LETTERS).learn([b"a", b"z"]), "b'z'"),
        (lambda: NGram(2, LETTERS).learn([b"a", END]), "b''"),
        (lambda: log_probability(NGram(2, LETTERS), [b"z"]), "b'z'"),
        (lambda: log_probability(NGram(2, LETTERS), [b"a", END, b"a"]), "b''"),
        (lambda: log_probability(NGram(2, LETTERS), [b"a"], [END]), "b''"),
        (lambda: cross_entropy(NGram(2, LETTERS), []), "no documents"),
        (lambda: write_document(NGram(2, LETTERS), random.Random(0), [b"z"]), "b'z'"),
        (lambda: write_document(NGram(2, LETTERS), random.Random(0), "ab"), "encode the text"),
        (lambda: bits_per_byte(1.0, 0), "n_bytes = 0"),
        (lambda: entropy([]), "not a distribution"),
        (lambda: entropy([0.5, 0.4]), "not a distribution"),
        (lambda: entropy([1.5, -0.5]), "not a distribution"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_one_text_is_no_list_of_texts() -> None:
    with pytest.raises(TypeError, match="list of texts"):
        word_vocabulary("the cat")


def test_a_perplexity_beyond_a_float_is_infinite_and_nan_stays_nan() -> None:
    assert perplexity(709.7) == math.exp(709.7) < perplexity(710) == perplexity(1e9) == math.inf
    assert math.isnan(perplexity(math.nan))


# Mutants: each a mistake people make, each caught by the check that the real code passes.


class BackOffWithoutRenormalizing(NGram):
    """Takes the plain frequency where there is one, else the shorter history's, unweighted."""

    def probability(self, token: bytes, history: Sequence[bytes]) -> float:
        for length in range(min(self.order - 1, len(history)), -1, -1):
            recent = tuple(history[len(history) - length :])
            if recent in self.totals and self.counts[recent][token]:
                return self.counts[recent][token] / self.totals[recent]
        return 1 / len(self.vocabulary)


class LeakyContexts(NGram):
    """Lets the history run on from the document learned before."""

    last: tuple[bytes, ...] = ()

    def learn(self, document: Sequence[bytes]) -> None:
        tokens = [*self.last, END, *document, END]
        for i in range(len(self.last) + 1, len(tokens)):
            for start in range(max(0, i - self.order + 1), i + 1):
                history = tuple(tokens[start:i])
                self.counts[history][tokens[i]] += 1
                self.totals[history] += 1
        self.last = tuple(document)


class EndNeverPredicted(NGram):
    """Counts the tokens of a document but not that it ends."""

    def learn(self, document: Sequence[bytes]) -> None:
        tokens = [END, *document]
        for i in range(1, len(tokens)):
            for start in range(max(0, i - self.order + 1), i + 1):
                history = tuple(tokens[start:i])
                self.counts[history][tokens[i]] += 1
                self.totals[history] += 1


def loss_in_bits(model: NGram, texts: list[list[bytes]]) -> float:
    return cross_entropy(model, texts) / math.log(2)


def loss_mean_of_means(model: NGram, texts: list[list[bytes]]) -> float:
    return sum(cross_entropy(model, [text]) for text in texts) / len(texts)


def loss_without_end(model: NGram, texts: list[list[bytes]]) -> float:
    return -sum(log_probability(model, text) for text in texts) / sum(map(len, texts))


def bits_in_nats(nats: float, n_bytes: int) -> float:
    return nats / n_bytes


def bits_per_token(nats: float, tokens: list[bytes]) -> float:
    return bits_per_byte(nats, len(tokens))


def sample_longest_only(model: NGram, history: Sequence[bytes], rng: random.Random) -> bytes:
    """Never hands over to a shorter history once the longer one was seen."""
    for length in range(min(model.order - 1, len(history)), -1, -1):
        seen = model.counts.get(tuple(history[len(history) - length :]))
        if seen:
            return rng.choices(list(seen), list(seen.values()))[0]
    return rng.choice(list(model.vocabulary))


def test_back_off_without_renormalizing_is_caught() -> None:
    texts = [[b"a", b"a", b"b"], [b"b", b"c"]]
    with pytest.raises(AssertionError):
        check_sums_to_one(BackOffWithoutRenormalizing, 2, texts)
    with pytest.raises(AssertionError):
        check_hand_computed(BackOffWithoutRenormalizing)


def test_leaking_contexts_are_caught() -> None:
    with pytest.raises(AssertionError):
        check_boundaries(LeakyContexts)


def test_an_end_that_is_never_counted_is_caught() -> None:
    with pytest.raises(AssertionError):
        check_hand_computed(EndNeverPredicted)


def test_a_loss_that_skips_the_end_is_caught() -> None:
    with pytest.raises(AssertionError):
        check_pooled(loss_without_end)


def test_a_mean_of_document_means_is_caught() -> None:
    with pytest.raises(AssertionError):
        check_pooled(loss_mean_of_means)


def test_mixing_up_base_2_and_base_e_is_caught() -> None:
    with pytest.raises(AssertionError):
        check_uniform_perplexity(cross_entropy, lambda nats: 2**nats)
    with pytest.raises(AssertionError):
        check_uniform_perplexity(loss_in_bits, perplexity)
    with pytest.raises(AssertionError):
        check_bits_per_byte(bits_in_nats)


def test_bits_per_token_sold_as_bits_per_byte_are_caught() -> None:
    with pytest.raises(AssertionError):
        check_retokenized(bits_per_token)


def test_sampling_without_handing_over_is_caught() -> None:
    with pytest.raises(AssertionError):
        check_samples(sample_longest_only)

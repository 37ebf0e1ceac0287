"""Chapter 10: the Transformer against PyTorch's own, then its properties and its search.

Each `check_...` takes the implementation as an argument. The real one must pass it, and the named
wrong ones at the end of the file must not.
"""

import math
from itertools import product
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2 import transformer
from gpt2.attention import CausalSelfAttention
from gpt2.bert import PostNormBlock, both_sides
from gpt2.tokenizer import Tokenizer
from gpt2.transformer import (
    CrossAttention,
    DecoderBlock,
    DecoderOnly,
    SentencePairs,
    Transformer,
    TransformerConfig,
    beam_search,
    embed,
    encode_source,
    greedy_search,
    length_penalty,
    load_mean,
    new_optimizer,
    noam_rate,
    pad_pairs,
    read_target,
    sinusoids,
    smoothed_loss,
    train_step,
    train_translator,
    translate,
)

C, H = 32, 4  # width and heads of the models compared
CONFIG = TransformerConfig(n_vocab=21, end=19, pad=20, n_embd=C, n_head=H, n_layer=2)
PAD, END = CONFIG.pad, CONFIG.end


def assert_close(ours: Tensor, theirs: Tensor, name: str = "result") -> None:
    """Hold the largest difference below 1e-5 of the largest value."""
    assert ours.shape == theirs.shape, name
    error = (ours - theirs).abs().max() / theirs.abs().max()
    assert error < 1e-5, f"{name}: relative error {error:.1e}"


def new_model(model_class: type[Transformer] = Transformer, seed: int = 0) -> Transformer:
    """Build a model in which nothing is 0 or 1, as biases and LayerNorms are at first."""
    torch.manual_seed(seed)
    model = model_class(CONFIG)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn(p.shape)
    return model


def padded(lengths: list[int], width: int, seed: int = 0) -> Tensor:
    """Draw rows of tokens, each of its own length, filled up with padding."""
    generator = torch.Generator().manual_seed(seed)
    idx = torch.randint(END, (len(lengths), width), generator=generator)
    return idx.masked_fill(torch.arange(width) >= torch.tensor(lengths)[:, None], PAD)


SOURCE, TARGET = padded([7, 4, 1], 7), padded([6, 3, 2], 6, seed=1)


# --- Oracles ---------------------------------------------------------------------------------


def formula_position(place: int, channel: int, n_embd: int) -> float:
    """Write down section 3.5 of the paper for one number."""
    angle = place / 10000 ** ((channel // 2 * 2) / n_embd)
    return math.cos(angle) if channel % 2 else math.sin(angle)


def check_sinusoids(positions) -> None:
    expected = [[formula_position(t, c, 10) for c in range(10)] for t in range(40)]
    assert torch.allclose(positions(40, 10), torch.tensor(expected), atol=1e-5)


def test_sinusoids_equal_the_formula():
    check_sinusoids(sinusoids)


def test_sinusoids_refuse_an_odd_width():
    with pytest.raises(ValueError, match="n_embd = 7 is odd"):
        sinusoids(3, 7)


def attention_names(ours: str, theirs: str) -> dict[str, str]:
    kinds = ("weight", "bias")
    names = {f"{ours}.c_attn.{kind}": f"{theirs}.in_proj_{kind}" for kind in kinds}
    return names | {f"{ours}.c_proj.{kind}": f"{theirs}.out_proj.{kind}" for kind in kinds}


def their_names() -> dict[str, str]:
    """Say how PyTorch calls each of our parameters but `wte`, which it leaves to the user."""
    names = {}
    for layer in range(CONFIG.n_layer):
        for part, norms in (("encoder", 2), ("decoder", 3)):
            ours, theirs = f"{part}.{layer}", f"{part}.layers.{layer}"
            names |= attention_names(f"{ours}.attn", f"{theirs}.self_attn")
            if part == "decoder":
                names |= attention_names(f"{ours}.cross", f"{theirs}.multihead_attn")
            for kind in ("weight", "bias"):
                names[f"{ours}.mlp.c_fc.{kind}"] = f"{theirs}.linear1.{kind}"
                names[f"{ours}.mlp.c_proj.{kind}"] = f"{theirs}.linear2.{kind}"
                for n in range(1, norms + 1):
                    names[f"{ours}.ln_{n}.{kind}"] = f"{theirs}.norm{n}.{kind}"
    return names


def reference(model: Transformer, final_norms: bool = False) -> nn.Transformer:
    """Build PyTorch's Transformer with our weights.

    It ends each stack with one more LayerNorm, which the paper does not have and which no option
    turns off. So both are taken out.
    """
    theirs = nn.Transformer(C, H, 2, 2, 4 * C, dropout=0, activation="relu", batch_first=True)
    if not final_norms:
        theirs.encoder.norm = theirs.decoder.norm = None
    state = model.state_dict()
    copied = {theirs_: state[ours] for ours, theirs_ in their_names().items()}
    missing = theirs.load_state_dict(copied, strict=False)
    assert not missing.unexpected_keys
    assert all(final_norms and ".norm." in name for name in missing.missing_keys)
    return theirs


def reference_logits(theirs: nn.Transformer, wte: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Embed by the formulas of the paper, and give PyTorch every mask that it knows."""

    def embed(idx: Tensor) -> Tensor:
        place = [[formula_position(t, c, C) for c in range(C)] for t in range(idx.size(1))]
        return wte[idx] * C**0.5 + torch.tensor(place)

    out = theirs(
        embed(source),
        embed(target),
        tgt_mask=torch.ones(target.size(1), target.size(1)).triu(1).bool(),
        src_key_padding_mask=source == PAD,
        tgt_key_padding_mask=target == PAD,
        memory_key_padding_mask=source == PAD,
    )
    return out @ wte.T


def check_parity(model_class: type[Transformer], final_norms: bool = False) -> None:
    """Compare logits, loss and all gradients with PyTorch's, with padding on both sides."""
    model = new_model(model_class)
    theirs = reference(model, final_norms)
    wte = model.wte.weight.detach().clone().requires_grad_()
    ours, expected = (
        model(SOURCE, TARGET[:, :-1]),
        reference_logits(theirs, wte, SOURCE, TARGET[:, :-1]),
    )
    answers = TARGET[:, 1:]
    assert_close(ours[answers != PAD], expected[answers != PAD], "logits")  # padding predicts none
    loss = smoothed_loss(ours, answers, PAD)
    their_loss = F.cross_entropy(
        expected.flatten(0, 1), answers.flatten(), ignore_index=PAD, label_smoothing=0.1
    )
    assert_close(loss, their_loss, "loss")
    loss.backward()
    their_loss.backward()
    assert_close(model.wte.weight.grad, wte.grad, "gradient of wte")
    their_parameters = dict(theirs.named_parameters())
    for name, other in their_names().items():
        grad = model.get_parameter(name).grad
        assert_close(grad, their_parameters[other].grad, f"gradient of {name}")


def test_model_equals_torch_transformer_forward_and_backward():
    check_parity(Transformer)


def test_every_parameter_is_compared():
    assert set(their_names()) | {"wte.weight"} == set(dict(new_model().named_parameters()))


def test_with_their_final_norms_it_does_not():
    """The extra LayerNorms are a real difference, so taking them out is not idle."""
    with pytest.raises(AssertionError, match="logits"):
        check_parity(Transformer, final_norms=True)


def check_one_stack(model_class: type[DecoderOnly], prefix: bool) -> None:
    """Compare logits and gradients with PyTorch's own stack over both texts in one."""

    def build(config: TransformerConfig) -> DecoderOnly:
        return model_class(config, prefix)

    model = new_model(build)
    layer = nn.TransformerEncoderLayer(C, H, 4 * C, dropout=0, activation="relu", batch_first=True)
    theirs = nn.TransformerEncoder(layer, CONFIG.n_layer, enable_nested_tensor=False)
    state = model.state_dict()
    names = {
        ours.replace("encoder", "decoder"): name.removeprefix("encoder.")
        for ours, name in their_names().items()
        if ours.startswith("encoder")
    }
    theirs.load_state_dict({name: state[ours] for ours, name in names.items()})
    wte = state["wte.weight"]
    S, T = SOURCE.size(1), TARGET.size(1)
    places = [
        [formula_position(t, c, C) for c in range(C)] for n in (S, T) for t in range(n)
    ]  # the target's begin anew
    both = torch.cat([SOURCE, TARGET], dim=1)
    hidden = torch.ones(S + T, S + T).triu(1).bool()
    if prefix:
        hidden[:S, :S] = False
    padding = both == PAD
    padding[:, S:] = False  # behind the target, and hidden as the future is
    out = theirs(wte[both] * C**0.5 + torch.tensor(places), hidden, padding)[:, S:] @ wte.T
    ours = model(SOURCE, TARGET)
    real = TARGET != PAD
    assert_close(ours[real], out[real], "logits")
    ours[real].square().mean().backward()
    out[real].square().mean().backward()
    their_parameters = dict(theirs.named_parameters())
    for name, other in names.items():
        grad = model.get_parameter(name).grad
        assert_close(grad, their_parameters[other].grad, f"gradient of {name}")


@pytest.mark.parametrize("prefix", [False, True])
def test_one_stack_for_both_texts_equals_torch(prefix):
    check_one_stack(DecoderOnly, prefix)


def test_a_decoder_only_model_has_no_encoder_and_no_cross_attention():
    model = DecoderOnly(CONFIG)
    assert not len(model.encoder) and not any("cross" in name for name in model.state_dict())
    block = sum(p.numel() for p in Transformer(CONFIG).encoder[0].parameters())
    n = sum(p.numel() for p in model.parameters())
    assert n == CONFIG.n_layer * block + CONFIG.n_vocab * C


def check_loss(loss_of) -> None:
    logits = torch.randn(3, 6, 21, generator=torch.Generator().manual_seed(3))
    for epsilon in (0.0, 0.1, 0.7):
        ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        loss = loss_of(ours, TARGET, PAD, epsilon)
        expected = F.cross_entropy(
            theirs.flatten(0, 1), TARGET.flatten(), ignore_index=PAD, label_smoothing=epsilon
        )
        assert_close(loss, expected, f"epsilon = {epsilon}")
        loss.backward()
        expected.backward()
        assert_close(ours.grad, theirs.grad, f"gradient, epsilon = {epsilon}")


def test_smoothed_loss_equals_cross_entropy():
    check_loss(smoothed_loss)


def check_rate(rate_of) -> None:
    """Formula 3, which counts steps from 1."""
    for n in (1, 2, 3999, 4000, 4001, 100_000):
        expected = 512**-0.5 * min(n**-0.5, n * 4000**-1.5)
        assert rate_of(n - 1, 512, 4000) == pytest.approx(expected)
    assert max(range(8000), key=lambda step: rate_of(step, 512, 4000)) == 3999
    assert rate_of(3999, 512, 4000) == pytest.approx(6.988e-4, rel=1e-3)


def test_rate_equals_the_formula():
    check_rate(noam_rate)


def test_length_penalty_equals_the_formula():
    assert length_penalty(1, 0.6) == 1  # one token: (5 + 1) / (5 + 1)
    assert length_penalty(7, 1.0) == 2
    assert length_penalty(30, 0.0) == 1


def test_the_base_model_of_the_paper_counted_by_hand():
    """63.1 million with 37,000 tokens; table 3 says 65, section 5.1 "about 37000 tokens"."""
    with torch.device("meta"):
        model = Transformer(TransformerConfig(n_vocab=37_000, end=0, pad=1))
    encoder = 12 * 512**2 + 13 * 512  # matrices, biases and LayerNorms of a block
    decoder = encoder + 4 * 512**2 + 6 * 512
    by_hand = 37_000 * 512 + 6 * (encoder + decoder)
    assert sum(p.numel() for p in model.parameters()) == by_hand == 63_082_496


# --- Properties ------------------------------------------------------------------------------


def check_future_is_hidden(model_class: type[Transformer]) -> None:
    """No target token, padding included, changes a logit before it."""
    model = new_model(model_class)
    with torch.no_grad():
        before = model(SOURCE, TARGET)
        for t in range(1, TARGET.size(1)):
            changed = TARGET.clone()
            changed[:, t:] = (changed[:, t:] + 5) % CONFIG.n_vocab
            after = model(SOURCE, changed)
            assert torch.allclose(before[:, :t], after[:, :t], atol=1e-5), f"token {t} is seen"
            assert not torch.allclose(before[:, t], after[:, t], atol=1e-2)


def test_future_target_tokens_change_nothing():
    check_future_is_hidden(Transformer)
    check_future_is_hidden(DecoderOnly)


def check_source_padding(model_class: type[Transformer]) -> None:
    """More padding behind a source changes no logit."""
    model = new_model(model_class)
    with torch.no_grad():
        longer = torch.cat([SOURCE, torch.full((3, 4), PAD)], dim=1)
        assert_close(model(longer, TARGET), model(SOURCE, TARGET))


def test_source_padding_changes_nothing():
    check_source_padding(Transformer)
    check_source_padding(DecoderOnly)


def check_source_is_read(model_class: type[Transformer]) -> None:
    """Every source token, early or late, changes the first logit."""
    model = new_model(model_class)
    with torch.no_grad():
        for s in range(SOURCE.size(1)):
            changed = SOURCE.clone()
            changed[0, s] = (changed[0, s] + 1) % END
            difference = model(changed, TARGET)[0, 0] - model(SOURCE, TARGET)[0, 0]
            assert difference.abs().max() > 1e-3, f"source token {s} is not seen"


def test_every_source_token_is_read():
    check_source_is_read(Transformer)
    check_source_is_read(DecoderOnly)


def check_cross_is_self(cross_class: type[CrossAttention]) -> None:
    """Fed with itself, cross-attention is both-sided self-attention with the same weights."""
    torch.manual_seed(0)
    layer, cross = CausalSelfAttention(C, H), cross_class(C, H)
    cross.load_state_dict(layer.state_dict())
    x, visible = torch.randn(3, 7, C), both_sides(SOURCE, PAD)
    assert_close(cross(x, x, visible), layer(x, visible=visible))


def test_cross_attention_on_itself_is_self_attention():
    check_cross_is_self(CrossAttention)


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(1, 23), size=st.integers(1, 9), seed=st.integers(0, 99), step=st.integers(0, 9)
)
def test_batches_hold_each_pair_once_an_epoch_and_depend_on_the_step_alone(n, size, seed, step):
    pairs = [([i % 19] * (1 + i % 5), [i % 19, i % 7]) for i in range(n)]
    data = SentencePairs(pairs, END, PAD, size, seed)
    rows = [data.batch(k) for k in range(data.n_batches)]
    seen = [
        ([i for i in s if i not in (END, PAD)], [i for i in t if i not in (END, PAD)])
        for source, target in rows
        for s, t in zip(source.tolist(), target.tolist(), strict=True)
    ]
    assert sorted(seen) == sorted(pairs)
    again = SentencePairs(pairs, END, PAD, size, seed)
    for ours, theirs in zip(data.batch(step), again.batch(step), strict=True):
        assert torch.equal(ours, theirs)


def test_rows_of_a_batch():
    source, target = pad_pairs([([1, 2, 3], [4]), ([5], [6, 7])], END, PAD)
    assert source.tolist() == [[1, 2, 3, END], [5, END, PAD, PAD]]
    assert target.tolist() == [[END, 4, END, PAD], [END, 6, 7, END]]


def test_padding_must_have_an_id_of_its_own():
    with pytest.raises(ValueError, match="pad = end = 19"):
        TransformerConfig(n_vocab=21, end=19, pad=19)


def test_one_sentence_is_no_list_of_sentences():
    tokenizer = Tokenizer([])
    with pytest.raises(TypeError, match="list of texts"):
        translate(new_model(), tokenizer, "the red hat")


def test_no_pairs_are_refused():
    with pytest.raises(ValueError, match="no pairs"):
        SentencePairs([], END, PAD, 8)


# --- Search ----------------------------------------------------------------------------------

TINY = TransformerConfig(n_vocab=4, end=2, pad=3, n_embd=8, n_head=2, n_layer=1)


def tiny_model(seed: int) -> Transformer:
    """Build a model of four tokens whose choices are far from even."""
    torch.manual_seed(seed)
    model = Transformer(TINY)
    nn.init.normal_(model.wte.weight, std=1.0)
    return model.eval()


def score(model: Transformer, source: Tensor, ids: tuple[int, ...], alpha: float) -> float:
    """Return the score of a translation from one pass of the model over it."""
    with torch.no_grad():
        log_p = model(source, torch.tensor([[TINY.end, *ids[:-1]]])).log_softmax(dim=-1)[0]
    total = float(log_p[torch.arange(len(ids)), torch.tensor(ids)].sum())
    return total / ((5 + len(ids)) / 6) ** alpha


def patient_model(seed: int) -> Transformer:
    """Build a tiny model that does not always end at once, so that length matters."""
    model = tiny_model(seed)
    with torch.no_grad():
        model.wte.weight.copy_(2 * torch.randn(4, 8, generator=torch.Generator().manual_seed(seed)))
        model.wte.weight[TINY.end] *= 0.2
        for block in model.decoder:
            nn.init.normal_(block.ln_3.bias)
    return model


def check_exhaustive(search) -> None:
    """A beam with room for everything finds the best of all translations of up to 4 tokens."""
    everything = [
        ids
        for n in range(1, 5)
        for ids in product(range(4), repeat=n)
        if TINY.end not in ids[:-1] and (ids[-1] == TINY.end or n == 4)
    ]
    source = torch.tensor([[0, 1, TINY.end]])
    for seed, alpha in product(range(6), (0.0, 0.6, 2.0)):
        model = patient_model(seed)
        ended = [ids for ids in everything if ids[-1] == TINY.end]
        best = max(ended, key=lambda ids: score(model, source, ids, alpha))
        found = search(model, source, 4, width=len(everything), alpha=alpha)
        assert tuple(found[0][1]) == best, f"seed {seed}, alpha {alpha}"
        assert found[0][0] == pytest.approx(score(model, source, best, alpha), rel=1e-4)
        assert len(found) == len(everything), "hypotheses are lost"


def test_a_beam_as_wide_as_everything_finds_the_best():
    check_exhaustive(beam_search)


def check_beam_of_one(search) -> None:
    """A beam of one goes the greedy way, however long that is."""
    for seed in range(40):
        model, source = tiny_model(seed), torch.tensor([[1, 0, 0, TINY.end]])
        rows = greedy_search(model, source, 7).tolist()
        for alpha in (0.0, 0.6):
            assert [ids for _, ids in search(model, source, 7, width=1, alpha=alpha)] == rows


def test_a_beam_of_one_is_greedy():
    check_beam_of_one(beam_search)


class Scripted:
    """A stand-in for a model that says with fixed probabilities what follows what."""

    def __init__(self, *after: tuple[float, ...]) -> None:
        """Take one row for each token, and for `end`, which stands for the start, as the last."""
        self.table = torch.tensor(after)  # (V, V)
        self.config = SimpleNamespace(end=len(after) - 1, pad=len(after))

    def encode(self, source):
        return torch.zeros(1, 1, 1), None

    def decode(self, target, memory, visible):
        assert len(memory) == len(target), "the memory is not that of every hypothesis"
        return self.table[target].log()  # (n, T, V)


NOTHING = torch.zeros(1, 1, dtype=torch.long)  # a source for it


def check_length(search) -> None:
    """0 alone has p = 0.48, the text 1 2 3 4 has 0.45 * 0.97^4: alpha decides which is better."""
    go_on = [tuple(0.97 if i == word + 1 else 0.006 for i in range(6)) for word in range(1, 5)]
    start = (0.50, 0.45, 0.01, 0.01, 0.01, 0.02)
    model = Scripted((0.008, 0.008, 0.008, 0.008, 0.008, 0.96), *go_on, start)
    short, long = [0, 5], [1, 2, 3, 4, 5]
    assert search(model, NOTHING, 9, width=3, alpha=0.0)[0][1] == short
    value, ids = search(model, NOTHING, 9, width=3, alpha=1.0)[0]
    assert ids == long
    assert value == pytest.approx(math.log(0.45 * 0.97**4) / (10 / 6), rel=1e-4)


def test_alpha_decides_between_short_and_long():
    check_length(beam_search)


def check_unfinished(search) -> None:
    """What has not ended is no translation: 1 1 1 1 1 loses, however high its score."""
    model = Scripted((0.02, 0.02, 0.96), (0.03, 0.94, 0.03), (0.50, 0.45, 0.05))
    found = search(model, NOTHING, 5, width=3, alpha=1.0)
    assert found[0][1] == [0, 2]
    endless = [value for value, ids in found if ids == [1] * 5]
    assert endless and endless[0] > found[0][0], "the case is none: its score is not the highest"
    assert search(model, NOTHING, 1, width=1)[0][1] == [0], "and if nothing has ended"


def test_an_unfinished_text_is_behind_all_that_have_ended():
    check_unfinished(beam_search)


def test_results_are_sorted_and_no_more_than_the_width():
    model, source = tiny_model(0), torch.tensor([[0, 1, TINY.end]])
    for width in (1, 2, 5):
        found = beam_search(model, source, 5, width=width)
        assert len(found) == width
        for ended in (True, False):
            part = [h for h in found if (h[1][-1] == TINY.end) == ended]
            assert part == sorted(part, reverse=True)


def check_batch_is_one_by_one(search) -> None:
    for seed in range(10):
        model = new_model(seed=seed).eval()
        nn.init.normal_(model.wte.weight)  # choices that differ from row to row
        together = search(model, SOURCE, 9).tolist()
        for source, row in zip(SOURCE, together, strict=True):
            alone = search(model, source[source != PAD][None], 9)[0].tolist()
            assert row[: len(alone)] == alone
            assert all(i == PAD for i in row[len(alone) :])


def test_greedy_on_a_batch_equals_one_by_one():
    check_batch_is_one_by_one(greedy_search)


# --- Training --------------------------------------------------------------------------------


def test_a_small_model_learns_to_turn_sentences_round():
    torch.manual_seed(0)
    words = ["red", "big", "hat", "cup", "old", "box"]
    texts = [" ".join(p) for p in product(words, repeat=3)]
    pairs = [(text, " ".join(reversed(text.split()))) for text in texts]
    tokenizer = Tokenizer.train(texts * 3, 20)
    ids = [(tokenizer.encode(a), tokenizer.encode(b)) for a, b in pairs]
    n, end = tokenizer.n_vocab + 1, tokenizer.end_of_text
    model = Transformer(TransformerConfig(n, end, n - 1, n_embd=48, n_head=2, n_layer=1))
    data, optimizer = SentencePairs(ids[20:], end, n - 1, 32), new_optimizer(model)
    losses = [
        float(train_step(model, optimizer, data.batch(step), noam_rate(step, 48, 100)))
        for step in range(700)
    ]
    assert losses[-1] < losses[0] / 3
    out = translate(model, tokenizer, [a for a, _ in pairs[:20]])
    right = sum(ours == b for ours, (_, b) in zip(out, pairs[:20], strict=True))
    assert right >= 16, f"{right} of 20 unseen sentences"
    _, ids_ = beam_search(model, encode_source(model, tokenizer, ["hat cup old"]), 20)[0]
    assert read_target(model, tokenizer, ids_) == "old cup hat"


def check_training(train) -> None:
    """The model ends on the mean of five states, a twentieth of the steps apart."""
    model, states = new_model(), {}
    data = SentencePairs([([1, 2], [3]), ([4], [5, 6]), ([7], [8])], END, PAD, 2)

    def keep(step: int, loss: Tensor) -> None:
        states[step] = model.wte.weight.detach().clone()

    train(model, data, n_steps=40, n_warmup=10, on_step=keep)
    assert list(states) == list(range(1, 41))
    last_five = torch.stack([states[step] for step in (32, 34, 36, 38, 40)])
    assert_close(model.wte.weight.detach(), last_five.mean(dim=0))


def test_training_ends_on_the_mean_of_late_states():
    check_training(train_translator)


def test_training_of_a_few_steps_keeps_what_there_is():
    model = new_model()
    train_translator(model, SentencePairs([([1], [2])], END, PAD, 1), n_steps=3)
    assert not model.wte.weight.isnan().any()


def check_mean(load) -> None:
    models = [new_model(seed=seed) for seed in range(3)]
    states = [model.state_dict() for model in models[1:]]
    expected = (models[1].wte.weight + models[2].wte.weight).detach() / 2
    load(models[0], states)
    assert_close(models[0].wte.weight.detach(), expected)
    assert all(p.requires_grad for p in models[0].parameters())


def test_the_mean_of_states():
    check_mean(load_mean)


# --- Wrong implementations -------------------------------------------------------------------


class SwappedKeysAndValues(CrossAttention):
    def heads(self, x, memory):
        q, k, v = super().heads(x, memory)
        return q, v, k


class QueriesFromMemory(CrossAttention):
    """Queries and keys change places: right shapes only where both texts are equally long."""

    def heads(self, x, memory):
        q, k, v = super().heads(x, memory)
        return k, q, v


class NoMaskInCross(CrossAttention):
    """Without a mask `attend` is causal, and a target token sees the start of the source alone."""

    def forward(self, x, memory, visible):
        return super().forward(x, memory, None)


class NoCausalMask(DecoderBlock):
    def forward(self, x, memory, visible):
        everything = torch.ones(1, 1, 1, x.size(1), dtype=torch.bool)
        x = self.ln_1(x + self.attn(x, visible=everything))
        x = self.ln_2(x + self.cross(x, memory, visible))
        return self.ln_3(x + self.mlp(x))


class PreNorm(DecoderBlock):
    def forward(self, x, memory, visible):
        x = x + self.attn(self.ln_1(x))
        x = x + self.cross(self.ln_2(x), memory, visible)
        return x + self.mlp(self.ln_3(x))


class CrossFirst(DecoderBlock):
    def forward(self, x, memory, visible):
        x = self.ln_2(x + self.cross(x, memory, visible))
        x = self.ln_1(x + self.attn(x))
        return self.ln_3(x + self.mlp(x))


class CrossSeesPadding(DecoderBlock):
    def forward(self, x, memory, visible):
        return super().forward(x, memory, torch.ones_like(visible))


class EncoderSeesPadding(PostNormBlock):
    def forward(self, x, past=None, visible=None):
        return super().forward(x, past, torch.ones_like(visible))


class CausalEncoder(PostNormBlock):
    def forward(self, x, past=None, visible=None):
        return super().forward(x)


class DecoderOnlyThatSeesPadding(DecoderOnly):
    def decode(self, target, memory, visible):
        return super().decode(target, memory, torch.ones_like(visible))


class DecoderOnlyWithPrefix(DecoderOnly):
    def decode(self, target, memory, visible):
        self.prefix = True
        return super().decode(target, memory, visible)


class DecoderOnlyOneColumnLate(DecoderOnly):
    """The logits are read off the rows before: a target token does not know itself."""

    def decode(self, target, memory, visible):
        return super().decode(target, memory, visible).roll(1, dims=1)


def training_without_a_mean(model, data, n_steps, n_warmup, on_step):
    def keep_last(model, states):
        model.load_state_dict(states[-1])

    with patch.object(transformer, "load_mean", keep_last):
        train_translator(model, data, n_steps, n_warmup, on_step)


def with_parts(**parts: type[nn.Module]) -> type[Transformer]:
    """Make a Transformer some of whose parts are of another class: cross, decoder or encoder."""

    class Mutant(Transformer):
        def __init__(self, config):
            super().__init__(config)
            for block in self.decoder:
                block.__class__ = parts.get("decoder", DecoderBlock)
                block.cross.__class__ = parts.get("cross", CrossAttention)
            for block in self.encoder:
                block.__class__ = parts.get("encoder", PostNormBlock)

    return Mutant


def with_embed(wrong) -> type[Transformer]:
    """Make a Transformer that embeds in another way."""

    class Mutant(Transformer):
        def forward(self, source, target):
            with patch.object(transformer, "embed", wrong):
                return super().forward(source, target)

    return Mutant


def positions_twice(idx, wte):
    return embed(idx, wte) + sinusoids(idx.size(1), C)


def no_positions(idx, wte):
    return embed(idx, wte) - sinusoids(idx.size(1), C)


def no_scale(idx, wte):
    return wte(idx) + sinusoids(idx.size(1), C)


def scaled_with_the_positions(idx, wte):
    return (wte(idx) + sinusoids(idx.size(1), C)) * math.sqrt(C)


class CopiedHead(Transformer):
    """The head has the values of the table, and takes no part in its gradient."""

    def decode(self, target, memory, visible):
        x = embed(target, self.wte)
        for block in self.decoder:
            x = block(x, memory, visible)
        return x @ self.wte.weight.detach().T


def unmasked_loss(logits, targets, pad, epsilon=0.1):
    return smoothed_loss(logits, targets, -1, epsilon)


def loss_that_smooths_over_the_others(logits, targets, pad, epsilon=0.1):
    """Give epsilon to the other tokens only, as tensor2tensor does: another definition."""
    return smoothed_loss(logits, targets, pad, epsilon * logits.size(-1) / (logits.size(-1) - 1))


def halves(n_ctx, n_embd, device=None):
    """All sines, then all cosines, as tensor2tensor lays them out."""
    table = sinusoids(n_ctx, n_embd)
    return torch.cat([table[:, ::2], table[:, 1::2]], dim=1)


def beam_without_length(model, source, n_new, width=4, alpha=0.6):
    return beam_search(model, source, n_new, width, alpha=0.0)


def beam_that_forgets_what_ended(model, source, n_new, width=4, alpha=0.6):
    found = beam_search(model, source, n_new, width, alpha)
    longest = max(len(ids) for _, ids in found)
    return [hypothesis for hypothesis in found if len(hypothesis[1]) == longest]


def beam_that_counts_the_unfinished(model, source, n_new, width=4, alpha=0.6):
    return sorted(beam_search(model, source, n_new, width, alpha), reverse=True)


def beam_of_two(model, source, n_new, width=4, alpha=0.6):
    return beam_search(model, source, n_new, width + 1, alpha)[:1]


def beam_by_mean(model, source, n_new, width=4, alpha=0.6):
    """Divide by the plain length, whatever alpha says."""
    found = beam_search(model, source, n_new, width, alpha=0.0)
    return sorted([(value / len(ids), ids) for value, ids in found], reverse=True)


def greedy_that_ignores_padding(model, source, n_new):
    memory, visible = model.encode(source)
    return greedy_search(
        SimpleNamespace(
            config=model.config,
            encode=lambda _: (memory, torch.ones_like(visible)),
            decode=model.decode,
        ),
        source,
        n_new,
    )


@pytest.mark.parametrize(
    "check, wrong",
    [
        (check_parity, with_parts(cross=SwappedKeysAndValues)),
        (check_cross_is_self, SwappedKeysAndValues),
        (check_cross_is_self, QueriesFromMemory),
        (check_parity, with_parts(cross=NoMaskInCross)),
        (check_source_is_read, with_parts(cross=NoMaskInCross, encoder=CausalEncoder)),
        (check_parity, with_parts(decoder=NoCausalMask)),
        (check_future_is_hidden, with_parts(decoder=NoCausalMask)),
        (check_parity, with_parts(decoder=PreNorm)),
        (check_parity, with_parts(decoder=CrossFirst)),
        (check_source_padding, with_parts(decoder=CrossSeesPadding)),
        (check_source_padding, with_parts(encoder=EncoderSeesPadding)),
        (check_parity, with_parts(encoder=CausalEncoder)),
        (check_parity, with_embed(positions_twice)),
        (check_parity, with_embed(no_positions)),
        (check_parity, with_embed(no_scale)),
        (check_parity, with_embed(scaled_with_the_positions)),
        (check_parity, CopiedHead),
        (check_loss, unmasked_loss),
        (check_loss, loss_that_smooths_over_the_others),
        (check_mean, lambda model, states: model.load_state_dict(states[-1])),
        (check_training, training_without_a_mean),
        (lambda wrong: check_one_stack(wrong, False), DecoderOnlyThatSeesPadding),
        (lambda wrong: check_one_stack(wrong, False), DecoderOnlyWithPrefix),
        (lambda wrong: check_one_stack(wrong, False), DecoderOnlyOneColumnLate),
        (check_source_padding, DecoderOnlyThatSeesPadding),
        (check_sinusoids, halves),
        (check_rate, lambda step, n_embd, n: noam_rate(step + 1, n_embd, n)),
        (check_length, beam_without_length),
        (check_length, beam_that_forgets_what_ended),
        (check_unfinished, beam_that_counts_the_unfinished),
        (check_exhaustive, beam_without_length),
        (check_exhaustive, beam_that_forgets_what_ended),
        (check_exhaustive, beam_by_mean),
        (check_beam_of_one, beam_of_two),
        (check_batch_is_one_by_one, greedy_that_ignores_padding),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_implementation_fails(check, wrong):
    with pytest.raises(AssertionError):
        check(wrong)

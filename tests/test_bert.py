"""BERT against the `transformers` BERT, the masking's statistics, and wrong implementations."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import relative_error
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertForMaskedLM

from course.chapters import ROOT
from course.notebooks import read_notebook
from gpt2.bert import (
    BERT,
    BERTConfig,
    Classifier,
    FeedForward,
    MaskedGPT,
    MaskedHead,
    MaskedRows,
    PostNormBlock,
    SpecialTokens,
    both_sides,
    fill,
    join_segments,
    mask_tokens,
    pseudo_logprobs,
    text_logprobs,
)
from gpt2.data import IGNORE, Batch, DocumentRows
from gpt2.decoder import GPT, Block, GPTConfig, count_parameters
from gpt2.training import TrainingConfig, new_optimizer, next_token_loss, train_step
from miniweb import SMALL as SMALL_WORLD
from miniweb.korean import CHAT_EVENTS, CHAT_LINES, CHAT_REMARKS
from miniweb.world import is_held_out

Build = Callable[[BERTConfig], nn.Module]
Mask = Callable[[Tensor, SpecialTokens, torch.Generator], Batch]
Loss = Callable[[Tensor, Tensor], Tensor]

CONFIGS = [
    BERTConfig(n_vocab=101, n_ctx=33, n_embd=36, n_head=3, n_layer=3),
    BERTConfig(n_vocab=17, n_ctx=9, n_embd=8, n_head=1, n_layer=1),
    BERTConfig(n_vocab=65, n_ctx=48, n_segment=3, n_embd=64, n_head=4, n_layer=5),
]
SMALL = CONFIGS[0]
SPECIAL = SpecialTokens(cls=90, sep=91, pad=92, mask=93)
PAD = 0  # in the parity tests
BERT_BASE = 109_514_298  # of the library's BertForMaskedLM: no pooler, head tied
TOLERANCE = 1e-5


# The reference, its weights by our names, and a batch with two segments and padding.


def reference_model(config: BERTConfig) -> BertForMaskedLM:
    return BertForMaskedLM(
        BertConfig(
            vocab_size=config.n_vocab,
            max_position_embeddings=config.n_ctx,
            type_vocab_size=config.n_segment,
            hidden_size=config.n_embd,
            num_attention_heads=config.n_head,
            num_hidden_layers=config.n_layer,
            intermediate_size=4 * config.n_embd,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=PAD,
            attn_implementation="eager",
        )
    )


@torch.no_grad()
def randomize(model: nn.Module, seed: int) -> None:
    """Draw every parameter; small embeddings let eps show."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "LayerNorm.weight" in name:
            parameter.copy_(1 + 0.3 * noise)
        elif parameter.ndim == 1:
            parameter.copy_(0.3 * noise)
        else:
            scale = 0.05 if "embeddings" in name else parameter.size(1) ** -0.5
            parameter.copy_(scale * noise)


NAMES = {
    "bert.embeddings.word_embeddings": "wte",
    "bert.embeddings.position_embeddings": "wpe",
    "bert.embeddings.token_type_embeddings": "wse",
    "bert.embeddings.LayerNorm": "ln_e",
    "cls.predictions.transform.dense": "head.c_fc",
    "cls.predictions.transform.LayerNorm": "head.ln",
    "cls.predictions": "head",
}
IN_BLOCK = {
    "attention.output.dense": "attn.c_proj",
    "attention.output.LayerNorm": "ln_1",
    "intermediate.dense": "mlp.c_fc",
    "output.dense": "mlp.c_proj",
    "output.LayerNorm": "ln_2",
}


def by_our_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the library's parameters (or gradients) and fuse its q, k and v."""
    ours = {}
    for path, value in tensors.items():
        module, kind = path.rsplit(".", 1)
        if not module.startswith("bert.encoder"):
            ours[f"{NAMES[module]}.{kind}"] = value
            continue
        layer, inner = module.removeprefix("bert.encoder.layer.").split(".", 1)
        if inner in IN_BLOCK:
            ours[f"h.{layer}.{IN_BLOCK[inner]}.{kind}"] = value
        elif inner.endswith("query"):
            parts = [path.replace("query", part) for part in ("query", "key", "value")]
            ours[f"h.{layer}.attn.c_attn.{kind}"] = torch.cat([tensors[part] for part in parts])
    return ours


def pair(build: Build, config: BERTConfig) -> tuple[nn.Module, BertForMaskedLM]:
    theirs = reference_model(config)
    randomize(theirs, seed=config.n_embd)
    ours = build(config)
    ours.load_state_dict(by_our_names(dict(theirs.named_parameters())))
    return ours, theirs


def batch(config: BERTConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, segments and targets (4, n_ctx), with padding from different places on."""
    generator = torch.Generator().manual_seed(0)
    idx = torch.randint(1, config.n_vocab, (4, config.n_ctx), generator=generator)
    place = torch.arange(config.n_ctx)
    length = torch.tensor([config.n_ctx, config.n_ctx - 1, config.n_ctx // 2, 3])[:, None]
    idx = idx.masked_fill(place >= length, PAD)
    segments = ((place >= length // 2) & (place < length)).long()
    chosen = (torch.rand(idx.shape, generator=generator) < 0.3) & (idx != PAD)
    return idx, segments, torch.where(chosen, idx, IGNORE)


# What a BERT must do. Each check takes the implementation, so that wrong ones can be tried.


def check_logits(build: Build, config: BERTConfig) -> None:
    ours, theirs = pair(build, config)
    idx, segments, _ = batch(config)
    real = idx != PAD
    with torch.no_grad():
        expected = theirs(idx, attention_mask=real.long(), token_type_ids=segments).logits
        assert relative_error(ours(idx, segments, both_sides(idx, PAD))[real], expected[real]) < (
            TOLERANCE
        )


def check_loss_and_gradients(build: Build, config: BERTConfig, loss: Loss) -> None:
    """The loss and every parameter's gradient equal the reference's."""
    ours, theirs = pair(build, config)
    idx, segments, targets = batch(config)
    loss_here = loss(ours(idx, segments, both_sides(idx, PAD)), targets)
    there = theirs(idx, attention_mask=(idx != PAD).long(), token_type_ids=segments, labels=targets)
    error = relative_error(loss_here.detach(), there.loss.detach())
    assert error < TOLERANCE, "the losses differ"
    loss_here.backward(), there.loss.backward()
    expected = by_our_names({name: p.grad for name, p in theirs.named_parameters()})
    for name, parameter in ours.named_parameters():
        error = relative_error(parameter.grad, expected[name])
        assert error < TOLERANCE, f"the gradient of {name} differs by {error:.1e}"


def check_padding(build: Build, n_pad: int, pad: int = SPECIAL.pad) -> None:
    """Padding, however long, changes no logit of a real token."""
    torch.manual_seed(0)
    model = build(BERTConfig(94, 33, 2, 36, 3, 3))
    idx = torch.randint(90, (3, 9))
    longer = F.pad(idx, (0, n_pad), value=pad)
    with torch.no_grad():
        short = model(idx, idx * 0, both_sides(idx, pad))
        long = model(longer, longer * 0, both_sides(longer, pad))[:, :9]
    assert relative_error(long, short) < TOLERANCE


def check_both_sides_are_seen(build: Callable[[], GPT]) -> None:
    """Whatever token changes, the logits of every place change, and of its own row only."""
    torch.manual_seed(0)
    model = build()
    idx = torch.randint(90, (2, 8))
    with torch.no_grad():
        before = model(idx)
        for place in range(8):
            other = idx.clone()
            other[0, place] = (idx[0, place] + 1) % 90
            moved = (model(other) - before).abs().amax(dim=-1)  # (2, 8)
            assert (moved[0] > 1e-6).all() and (moved[1] < 1e-6).all()


def check_masking(mask: Mask) -> None:
    """15 % are chosen; of these 80 % are [MASK], 10 % random, 10 % as they were."""
    idx = torch.arange(94).repeat(400, 30)  # every token equally often, special ones too
    idx[:, ::7] = SPECIAL.pad
    x, y = mask(idx, SPECIAL, torch.Generator().manual_seed(0))
    text, chosen = idx < 90, y != IGNORE
    assert not (chosen & ~text).any(), "a special token is chosen"
    assert torch.equal(x[~chosen], idx[~chosen]) and torch.equal(y[chosen], idx[chosen])
    assert abs(chosen[text].float().mean() - 0.15) < 0.003
    masked, same = x[chosen] == SPECIAL.mask, x[chosen] == idx[chosen]
    assert abs(masked.float().mean() - 0.8) < 0.006
    assert abs(same.float().mean() - (0.1 + 0.1 / 90)) < 0.005  # a random token may be the same
    random = x[chosen][~masked & ~same]
    assert (random < 90).all() and len(random.unique()) == 90
    assert abs(random.float().mean() - 44.5) < 1


def check_fresh_masks(rows: Callable[..., MaskedRows]) -> None:
    """The same rows are masked anew in each epoch, and the same way for the same seed and step."""
    source = DocumentRows(lambda _: [list(range(k, k + 9)) for k in range(20)], 90, 32, 20)
    special = SpecialTokens(90, 90, 91, 92)
    first, again, other = (rows(source, special, seed) for seed in (0, 0, 1))
    for a, b in zip(first.batch(5), again.batch(5), strict=True):
        assert torch.equal(a, b)
    assert first.n_batches == source.n_batches == 1
    chosen = [(r.batch(k)[1] != IGNORE).sum(1) for r, k in ((first, 0), (first, 1), (other, 0))]
    assert not torch.equal(chosen[0], chosen[1]) and not torch.equal(chosen[0], chosen[2])


def check_whole_rows(rows: Callable[..., MaskedRows]) -> None:
    """Undamaged, a row is the end-of-text token, the document, the same token, padding."""
    source = DocumentRows(lambda _: [[1, 2, 3], [4, 5]], 90, 32, 2)
    x, y = rows(source, SpecialTokens(90, 90, 91, 92)).batch(0)
    whole = sorted(torch.where(y == IGNORE, x, y).tolist())
    assert whole == [[90, 1, 2, 3, 90], [90, 4, 5, 90, 91]]


def check_pseudo_logprobs(score: Callable[..., Tensor]) -> None:
    """Each token is masked alone, all others are seen, special tokens are not asked for."""
    model = MaskedGPT(GPTConfig(94, 16, 36, 3, 2), SPECIAL.pad)
    nn.init.normal_(model.wte.weight)
    row = torch.tensor([90, 5, 6, 7, 91])
    scores = score(model, row, SPECIAL)
    for k, place in enumerate((1, 2, 3)):
        masked = row.clone()
        masked[place] = SPECIAL.mask
        with torch.no_grad():
            expected = model(masked[None])[0, place].log_softmax(-1)[row[place]]
        assert torch.allclose(scores[k], expected, atol=1e-5)
    assert scores.shape == (3,)


def check_text_logprobs(score: Callable[..., Tensor]) -> None:
    """The texts of up to two tokens and all the longer ones together have the probability 1."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(4, 16, 12, 3, 2))
    nn.init.normal_(model.wte.weight, std=0.3)
    texts = [[], *[[a] for a in range(3)], *[[a, b] for a in range(3) for b in range(3)]]
    together = score(model, texts, 3)
    alone = torch.cat([score(model, [text], 3) for text in texts])
    assert torch.allclose(together, alone, atol=1e-5), "padding changes a score"
    with torch.no_grad():  # p(longer than two) closes the sum
        p = model(torch.tensor([[3, a, b] for a in range(3) for b in range(3)])).softmax(-1)
    a, b = torch.tensor(texts[4:]).T
    row = torch.arange(9)
    longer = (p[row, 0, a] * p[row, 1, b] * (1 - p[row, 2, 3])).sum()
    assert math.isclose(together.exp().sum() + longer, 1, abs_tol=1e-5)


# The real ones pass.


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_logits_equal_the_reference(config: BERTConfig) -> None:
    check_logits(BERT, config)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_loss_and_gradients_equal_the_reference(config: BERTConfig) -> None:
    check_loss_and_gradients(BERT, config, next_token_loss)


def test_the_size_is_the_reference_s() -> None:
    with torch.device("meta"):
        ours, theirs = BERT(BERTConfig()), reference_model(BERTConfig())
    assert count_parameters(ours) == count_parameters(theirs) == BERT_BASE


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 24))
def test_padding_changes_no_real_logit(n_pad: int) -> None:
    check_padding(BERT, n_pad)


def masked_gpt() -> MaskedGPT:
    model = MaskedGPT(GPTConfig(94, 16, 36, 3, 2), SPECIAL.pad)
    nn.init.normal_(model.wte.weight)
    return model


def test_both_sides_are_seen() -> None:
    check_both_sides_are_seen(masked_gpt)


def test_the_mask_is_all_that_a_masked_gpt_changes() -> None:
    config = GPTConfig(94, 16, 36, 3, 2)
    causal, masked = GPT(config), MaskedGPT(config, SPECIAL.pad)
    masked.load_state_dict(causal.state_dict())
    idx = torch.randint(90, (2, 8))
    staircase = torch.ones(8, 8, dtype=torch.bool).tril()
    with torch.no_grad():
        assert relative_error(masked.hidden(idx, visible=staircase), causal.hidden(idx)) < 1e-5
    with pytest.raises(ValueError, match="keeps no past"):
        masked.hidden(idx, past=[])


def test_masking_is_15_percent_by_80_10_10() -> None:
    check_masking(mask_tokens)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 1))
def test_masking_follows_its_generator(seed: int, rate: float) -> None:
    idx = torch.arange(94).repeat(3, 1)
    again = [mask_tokens(idx, SPECIAL, torch.Generator().manual_seed(seed), rate) for _ in "ab"]
    assert all(torch.equal(a, b) for a, b in zip(*again, strict=True))


def test_no_batch_is_without_a_target() -> None:
    """By chance alone, 0.85^3 of these would have none, and a mean loss over them is 0 / 0."""
    special = SpecialTokens(4, 4, 5, 6)
    rows = MaskedRows(DocumentRows(lambda _: [[0, 1, 2]], 4, 8, 1), special)
    model, config = MaskedGPT(GPTConfig(7, 8, 8, 2, 1), pad=5), TrainingConfig(60, n_warmup=2)
    optimizer = new_optimizer(model, config)
    for step in range(60):
        loss, _, n_targets = train_step(model, optimizer, rows, step, config)
        assert n_targets >= 1 and torch.isfinite(loss)
    blank = torch.full((2, 3), special.pad)
    x, y = mask_tokens(blank, special, torch.Generator().manual_seed(0))
    assert torch.equal(x, blank) and (y == IGNORE).all()  # nothing to choose from


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 1))
def test_the_least_target_changes_no_choice_that_chance_made(seed: int, rate: float) -> None:
    idx = torch.arange(94).view(2, 47)
    draw = torch.rand(idx.shape, generator=torch.Generator().manual_seed(seed))
    chosen = (idx < 90) & (draw < rate)
    _, y = mask_tokens(idx, SPECIAL, torch.Generator().manual_seed(seed), rate)
    if chosen.any():
        assert torch.equal(y != IGNORE, chosen)
    else:
        assert (y != IGNORE).sum() == 1


def test_masks_are_fresh() -> None:
    check_fresh_masks(MaskedRows)


def test_rows_are_whole() -> None:
    check_whole_rows(MaskedRows)


def test_segments_are_as_bert_has_them() -> None:
    pair = join_segments([1, 2], [3], SPECIAL)
    assert pair == ([90, 1, 2, 91, 3, 91], [0, 0, 0, 0, 1, 1])
    assert join_segments([1, 2], [], SPECIAL) == ([90, 1, 2, 91], [0, 0, 0, 0])


def test_pseudo_logprobs_mask_one_token_at_a_time() -> None:
    check_pseudo_logprobs(pseudo_logprobs)


def test_text_logprobs_are_those_of_a_distribution_over_texts() -> None:
    check_text_logprobs(text_logprobs)


def test_fill_reads_the_gap_of_each_row() -> None:
    model = masked_gpt()
    idx = torch.tensor([[90, 5, 93, 7, 91], [90, 93, 6, 91, 92]])
    with torch.no_grad():
        logits = model(idx)
    expected = torch.stack([logits[0, 2], logits[1, 1]]).log_softmax(-1)
    assert torch.allclose(fill(model, idx, SPECIAL.mask), expected)


def test_a_row_without_a_gap_is_refused() -> None:
    idx = torch.tensor([[90, 5, 93, 7, 91], [90, 5, 6, 91, 92]])
    with pytest.raises(ValueError, match=r"no gap.*mask = 93"):
        fill(masked_gpt(), idx, SPECIAL.mask)


@pytest.mark.parametrize("model", [GPT(GPTConfig(94, 16, 36, 3, 2)), masked_gpt()], ids=type)
def test_a_classifier_reads_one_place_and_no_padding(model: GPT) -> None:
    torch.manual_seed(0)
    classifier = Classifier(model, 5, SPECIAL.pad)
    idx = torch.randint(90, (3, 8))
    with torch.no_grad():
        logits = classifier(idx)
        assert logits.shape == (3, 5)
        longer = F.pad(idx, (0, 4), value=SPECIAL.pad)
        assert relative_error(classifier(longer), logits) < TOLERANCE


def test_a_masked_model_learns_a_gap_that_only_its_right_side_decides() -> None:
    """a ? a or b ? b: the middle is what stands on the right; the left is noise."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    left, right = torch.randint(4, (2, 400, 1), generator=generator)
    documents = torch.cat([left, right, right], dim=1).tolist()
    special = SpecialTokens(4, 4, 5, 6)
    rows = MaskedRows(DocumentRows(lambda _: documents, 4, 8, 40), special)
    model, config = MaskedGPT(GPTConfig(7, 8, 32, 2, 1), pad=5), TrainingConfig(200, n_warmup=20)
    optimizer = new_optimizer(model, config)
    for step in range(config.n_steps):
        train_step(model, optimizer, rows, step, config)
    gaps = torch.tensor([[4, a, 6, b, 4] for a in range(4) for b in range(4)])
    assert torch.equal(fill(model, gaps, 6).argmax(-1), gaps[:, 3])


# Wrong ones: each changes one thing.


def mask_all_chosen(idx: Tensor, special: SpecialTokens, generator: torch.Generator) -> Batch:
    """Replaces all 15 % by [MASK]."""
    _, y = mask_tokens(idx, special, generator)
    return torch.where(y != IGNORE, special.mask, idx), y


def mask_special_too(idx: Tensor, special: SpecialTokens, generator: torch.Generator) -> Batch:
    chosen = torch.rand(idx.shape, generator=generator) < 0.15
    return torch.where(chosen, special.mask, idx), torch.where(chosen, idx, IGNORE)


def target_masked_only(idx: Tensor, special: SpecialTokens, generator: torch.Generator) -> Batch:
    """Forgets the 10 % random and the 10 % unchanged among the targets."""
    x, y = mask_tokens(idx, special, generator)
    return x, torch.where(x == special.mask, y, IGNORE)


def target_everything(idx: Tensor, special: SpecialTokens, generator: torch.Generator) -> Batch:
    """Loss over all positions, not over those that were chosen."""
    x, _ = mask_tokens(idx, special, generator)
    return x, torch.where(idx < min(special), idx, IGNORE)


def mask_of_85(idx: Tensor, special: SpecialTokens, generator: torch.Generator) -> Batch:
    """Takes the keep rate for the masking rate."""
    return mask_tokens(idx, special, generator, 0.85)


def random_may_be_special(idx: Tensor, special: SpecialTokens, g: torch.Generator) -> Batch:
    x, y = mask_tokens(idx, special, g)
    random = (y != IGNORE) & (x != special.mask) & (x != y)
    return torch.where(random, torch.randint(94, idx.shape, generator=g), x), y


@pytest.mark.parametrize(
    "mutant",
    [
        mask_all_chosen,
        mask_special_too,
        target_masked_only,
        target_everything,
        mask_of_85,
        random_may_be_special,
    ],
)
def test_the_statistics_kill_wrong_masking(mutant: Mask) -> None:
    with pytest.raises(AssertionError):
        check_masking(mutant)


class NoSegments(BERT):
    def forward(self, idx: Tensor, segments: Tensor, visible: Tensor) -> Tensor:
        return super().forward(idx, torch.zeros_like(segments), visible)


class PaddingAttendedTo(BERT):
    def forward(self, idx: Tensor, segments: Tensor, visible: Tensor) -> Tensor:
        return super().forward(idx, segments, torch.ones_like(visible))


class Causal(BERT):
    def forward(self, idx: Tensor, segments: Tensor, visible: Tensor) -> Tensor:
        T = idx.size(1)
        return super().forward(idx, segments, visible & torch.ones(T, T).tril().bool())


class PositionsTwice(BERT):
    def forward(self, idx: Tensor, segments: Tensor, visible: Tensor) -> Tensor:
        self.wte.forward = lambda i: F.embedding(i, self.wte.weight) + self.wpe.weight[: i.size(1)]
        return super().forward(idx, segments, visible)


class TanhGelu(FeedForward):
    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class UntransformedHead(MaskedHead):
    """Reads the stream by wte itself, as GPT-2 does."""

    def forward(self, x: Tensor, wte: Tensor) -> Tensor:
        return F.linear(x, wte, self.bias)


class HeadWithoutBias(MaskedHead):
    def forward(self, x: Tensor, wte: Tensor) -> Tensor:
        return super().forward(x, wte) - self.bias


class HeadWithoutGelu(MaskedHead):
    def forward(self, x: Tensor, wte: Tensor) -> Tensor:
        return F.linear(self.ln(self.c_fc(x)), wte, self.bias)


class NoNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return x


def with_modules(old: type[nn.Module], new: object, name: str = "") -> Build:
    """Make a BERT whose modules of one class (and name) behave as another class."""

    def build(config: BERTConfig) -> BERT:
        model = BERT(config)
        for path, module in list(model.named_modules()):
            if type(module) is old and path.endswith(name):
                module.__class__ = new
        return model

    return build


def gpt_s_eps(config: BERTConfig) -> BERT:
    model = BERT(config)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5
    return model


WRONG_NUMBERS = {
    "no segment embedding": NoSegments,
    "padding attended to": PaddingAttendedTo,
    "causal mask": Causal,
    "positions added twice": PositionsTwice,
    "tanh GELU": with_modules(FeedForward, TanhGelu),
    "pre-norm": lambda config: with_forward(config, Block.forward),
    "eps of GPT-2": gpt_s_eps,
    "no norm of the embeddings": with_modules(nn.LayerNorm, NoNorm, "ln_e"),
    "head without its layer": with_modules(MaskedHead, UntransformedHead),
    "head without bias": with_modules(MaskedHead, HeadWithoutBias),
    "head without GELU": with_modules(MaskedHead, HeadWithoutGelu),
}


def with_forward(config: BERTConfig, forward: Callable[..., Tensor]) -> BERT:
    model = BERT(config)
    for block in model.h:
        block.__class__ = type("Mutant", (PostNormBlock,), {"forward": forward})
    return model


@pytest.mark.parametrize("mutant", WRONG_NUMBERS)
def test_the_reference_kills(mutant: str) -> None:
    with pytest.raises(AssertionError):
        check_logits(WRONG_NUMBERS[mutant], SMALL)
    with pytest.raises(AssertionError):
        check_loss_and_gradients(WRONG_NUMBERS[mutant], SMALL, next_token_loss)


def loss_over_all_positions(logits: Tensor, targets: Tensor) -> Tensor:
    """Counts a place that was not chosen as if its target were token 0."""
    return F.cross_entropy(logits.flatten(0, 1), targets.clamp(min=0).flatten())


def loss_shifted(logits: Tensor, targets: Tensor) -> Tensor:
    """Shifts by one, as for a causal model whose targets are not shifted yet."""
    return next_token_loss(logits[:, :-1], targets[:, 1:])


def mean_over_all_positions(logits: Tensor, targets: Tensor) -> Tensor:
    """Divides by all places, not by those that were chosen."""
    return next_token_loss(logits, targets) * (targets != IGNORE).float().mean()


@pytest.mark.parametrize("loss", [loss_over_all_positions, loss_shifted, mean_over_all_positions])
def test_the_reference_kills_a_wrong_loss(loss: Loss) -> None:
    with pytest.raises(AssertionError, match="losses differ"):
        check_loss_and_gradients(BERT, SMALL, loss)


def test_gradients_kill_an_untied_head() -> None:
    class Untied(BERT):
        def forward(self, idx: Tensor, segments: Tensor, visible: Tensor) -> Tensor:
            self.head.forward = lambda x, wte: MaskedHead.forward(self.head, x, wte.detach())
            return super().forward(idx, segments, visible)

    check_logits(Untied, SMALL)  # forward alone cannot tell
    with pytest.raises(AssertionError, match="gradient of wte"):
        check_loss_and_gradients(Untied, SMALL, next_token_loss)


def test_padding_kills_a_model_that_sees_it() -> None:
    with pytest.raises(AssertionError):
        check_padding(PaddingAttendedTo, 5)


def test_both_sides_kill_a_causal_model() -> None:
    with pytest.raises(AssertionError):
        check_both_sides_are_seen(lambda: GPT(GPTConfig(94, 16, 36, 3, 2)))


class StaticRows(MaskedRows):
    """Masks once, before training."""

    def batch(self, step: int) -> Batch:
        return super().batch(step % self.n_batches)


class ShiftedRows(MaskedRows):
    """Leaves the inputs as the causal model has them, without the last token."""

    def batch(self, step: int) -> Batch:
        x, _ = self.rows.batch(step)
        return mask_tokens(x, self.special, torch.Generator().manual_seed(step))


def test_freshness_kills_static_masks() -> None:
    with pytest.raises(AssertionError):
        check_fresh_masks(StaticRows)


def test_whole_rows_kill_shifted_ones() -> None:
    with pytest.raises(AssertionError):
        check_whole_rows(ShiftedRows)


@torch.no_grad()
def pseudo_in_one_pass(model: GPT, row: Tensor, special: SpecialTokens) -> Tensor:
    """Masks nothing: each token sees itself."""
    place = (row < min(special)).nonzero()[:, 0]
    return model(row[None])[0].log_softmax(-1)[place, row[place]]


@torch.no_grad()
def pseudo_all_masked(model: GPT, row: Tensor, special: SpecialTokens) -> Tensor:
    """Masks all text at once."""
    place = (row < min(special)).nonzero()[:, 0]
    masked = row.index_fill(0, place, special.mask)
    return model(masked[None])[0].log_softmax(-1)[place, row[place]]


@pytest.mark.parametrize("mutant", [pseudo_in_one_pass, pseudo_all_masked])
def test_one_at_a_time_kills_a_wrong_pseudo_score(mutant: Callable[..., Tensor]) -> None:
    with pytest.raises(AssertionError):
        check_pseudo_logprobs(mutant)


def text_without_end(model: GPT, texts: Sequence[Sequence[int]], end_of_text: int) -> Tensor:
    """Leaves out that the text ends."""
    ended = text_logprobs(model, texts, end_of_text)
    with torch.no_grad():
        ends = [model(torch.tensor([[end_of_text, *t]]))[0, -1].log_softmax(-1) for t in texts]
    return ended - torch.stack(ends)[:, end_of_text]


def mean_logprobs(model: GPT, texts: Sequence[Sequence[int]], end_of_text: int) -> Tensor:
    """Divides by the length."""
    lengths = torch.tensor([len(text) + 1 for text in texts])
    return text_logprobs(model, texts, end_of_text) / lengths


@pytest.mark.parametrize("mutant", [text_without_end, mean_logprobs])
def test_the_sum_over_texts_kills_a_wrong_score(mutant: Callable[..., Tensor]) -> None:
    with pytest.raises(AssertionError):
        check_text_logprobs(mutant)


# What chapter 9 prints, by another way.


def chapter_9() -> tuple[str, str]:
    """Return the text of the chapter and what its cells have printed."""
    cells = read_notebook(ROOT / "chapters" / "09_bert.ipynb").cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return (
        "\n".join(cell.source for cell in cells),
        "\n".join(
            output.get("text") or output.get("data", {}).get("text/markdown", "")
            for output in outputs
        ),
    )


def chat_limits(is_held: Callable[[int, str, str], bool]) -> list[Fraction]:
    """From the left by the odds of grammar, text and test, and from both sides by the test's."""
    sums = [Fraction(0)] * 4
    for number, (opening, lines) in enumerate(CHAT_LINES.items()):
        grammar, text, test = Counter(), Counter(), Counter()
        by_remark: dict[str, Counter[str]] = defaultdict(Counter)
        for _, word, remark in lines:
            expected = any(opening.endswith(event) for event in CHAT_EVENTS[word])
            weight = Fraction(1 + expected, len(CHAT_REMARKS[word]))
            held = is_held(number, opening, remark)
            grammar[word] += weight
            (test if held else text)[word] += weight
            by_remark[remark][word] += weight * held
        for k, known in enumerate((grammar, text, test)):
            best = [word for word in known if known[word] == max(known.values())]
            sums[k] += sum(test[word] for word in best) / len(best) / test.total()
        sums[3] += sum(max(words.values()) for words in by_remark.values()) / test.total()
    return [total / len(CHAT_LINES) for total in sums]


def phrase_limits(nouns: dict[str, int]) -> list[Fraction]:
    """The same for adjectives, of which only the number of held-out nouns matters."""
    total, few = sum(nouns.values()), min(nouns.values())
    fewest = [n for n in nouns.values() if n == few]  # the likeliest in the text, tied
    by_text, by_test = Fraction(sum(fewest), total * len(fewest)), max(nouns.values())
    return [Fraction(1, len(nouns)), by_text, Fraction(by_test, total), Fraction(1)]


def test_the_limits_of_chapter_9_come_out_another_way() -> None:
    """Two ways to the same fractions: sums by opening here, a list of all lines there."""
    remarks = list(CHAT_REMARKS.values())
    adjectives = [word.english for word in SMALL_WORLD.adjectives]
    things = [word.english for word in SMALL_WORLD.things]
    expected = {
        "Korean": chat_limits(lambda n, _, last: last in [r[n % len(r)] for r in remarks]),
        "English": phrase_limits(dict.fromkeys(adjectives, 4)),
    }
    hashed = {a: sum(is_held_out("phrase", a, t) for t in things) for a in adjectives}
    by_hash = {
        "Korean": chat_limits(lambda n, *words: is_held_out("chat", *words)),
        "English": phrase_limits(hashed),
    }
    _, printed = chapter_9()
    for choice, limits_of in (("balanced", expected), ("by hash", by_hash)):
        for language, limits in limits_of.items():
            row = " | ".join(f"{float(limit):.3f}" for limit in limits)
            assert f"| {language}, {choice} | {row} |" in printed
    text, both = expected["Korean"][1], expected["Korean"][3]
    assert f"'Korean left': '{text}', 'Korean both': '{both}'" in printed
    assert len(set(expected["Korean"][:3])) == 1, "the balanced pairs set readers apart"


def test_the_interval_of_chapter_9_is_students() -> None:
    code, printed = chapter_9()
    source = re.search(r"def with_interval\(.*?\n    return [^\n]+", code, re.DOTALL)
    assert source
    names: dict[str, Any] = {"np": np}
    exec(source[0], names)
    for seed in range(20):
        values = torch.randn(5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        t = 2.7764  # 97.5 %, 4 degrees of freedom
        mean, half = map(float, names["with_interval"](values.numpy()).split(" ± "))
        assert abs(values.mean() - mean) < 1e-3 and abs(t * values.std() / 5**0.5 - half) < 2e-3
    assert len(re.findall(r"^\|.* \d+\.\d{3} ± \d", printed, re.MULTILINE)) > 20


def test_the_t_of_five_seeds_leaves_out_one_in_twenty() -> None:
    """Draw five numbers of a normal distribution, many times: the interval misses 5% of means."""
    draws = torch.randn(400_000, 5, generator=torch.Generator().manual_seed(0))
    missed = draws.mean(1).abs() > 2.776 * draws.std(1) / 5**0.5
    assert abs(missed.float().mean() - 0.05) < 0.0015  # four standard errors


@pytest.mark.parametrize(
    ("says", "no_longer"),
    [
        ("manteora", "mandeora"),  # 많더라: [만터라]
        ("*next sentence prediction* (NSP)", "trained on a second task as well"),
        ("the tanh form since 7 February 2019", "| tanh form | exact |"),
        ("그때 사람 많더라", "You do not hesitate. Places are crowded"),
    ],
)
def test_chapter_9_says_it_right(says: str, no_longer: str) -> None:
    text, _ = chapter_9()
    assert says in text and no_longer not in text

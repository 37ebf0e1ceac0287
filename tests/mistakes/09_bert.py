"""The usual mistakes of chapter 9, for `course check 9 --package`; see 04_attention.py."""

import torch
from torch.nn import functional as F

from gpt2.bert import (
    BERT,
    BERTConfig,
    Classifier,
    FeedForward,
    MaskedGPT,
    MaskedHead,
    PostNormBlock,
    SpecialTokens,
    both_sides,
    fill,
    join_segments,
    pseudo_logprobs,
    text_logprobs,
)
from gpt2.data import IGNORE
from gpt2.decoder import GPT, GPTConfig

SPECIAL = SpecialTokens(cls=90, sep=91, pad=92, mask=93)
ALL = torch.ones(1, 1, 1, 3, dtype=torch.bool)
TINY = GPTConfig(n_vocab=94, n_ctx=8, n_embd=8, n_head=2, n_layer=1)
BERT_TINY = BERTConfig(n_vocab=9, n_ctx=4, n_embd=4, n_head=2, n_layer=1)


def filled(module):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return module


def run(module, *more):
    x = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return filled(module)(x, *more)


def bert_logits(bert_class):
    idx, segments = torch.tensor([[1, 2, 3]]), torch.tensor([[0, 0, 1]])
    with torch.no_grad():
        return filled(bert_class(BERT_TINY))(idx, segments, both_sides(idx, 8))


def fates(mask_function, rate=0.5):
    """Shares, in percent, of what becomes of 20,000 tokens of text, [CLS] before each row."""
    idx = torch.randint(90, (200, 101), generator=torch.Generator().manual_seed(1))
    idx[:, 0] = SPECIAL.cls
    x, y = mask_function(idx, SPECIAL, torch.Generator().manual_seed(0), rate)
    chosen = y != IGNORE
    masked, kept = (x == SPECIAL.mask)[chosen], (x == idx)[chosen]
    shares = chosen[:, 1:], masked, kept, chosen[:, 0], (x != idx)[~chosen]
    return [round(20 * share.float().mean().item()) / 20 for share in shares]


def nothing_is_chosen(mask_function):
    idx = torch.tensor([[90, 5, 91]])
    return mask_function(idx, SPECIAL, torch.Generator().manual_seed(0), 0.0)[1].tolist()


def masked_logits(masked_class):
    with torch.no_grad():
        model = filled(masked_class(TINY, 92))
        return model(torch.tensor([[1, 2, 92]]))[0, :, :3]


def logprobs(function, *arguments):
    return function(filled(GPT(TINY)), *arguments).round(decimals=2)


def kinds(classifier):
    with torch.no_grad():
        model = filled(classifier(GPT(TINY), 2, 92))
        return model(torch.tensor([[1, 2, 92], [3, 4, 5]]))


EXAMPLES = {
    "FeedForward": ["run(f(4, F.relu))", "run(f(4, F.gelu))"],
    "PostNormBlock": [
        "run(f(4, 2, F.gelu, 1e-5))",
        "run(f(4, 2, F.gelu, 1e-5), None, ALL)",
        "f(4, 2, F.gelu, 0.5).ln_2.eps",
    ],
    "both_sides": ["f(torch.tensor([[1, 2, 0]]), 0).tolist()", "f(torch.zeros(2, 3), 0).shape"],
    "MaskedHead": ["run(f(BERT_TINY), torch.ones(9, 4))", "len(list(f(BERT_TINY).parameters()))"],
    "BERT": ["bert_logits(f)"],
    "join_segments": ["f([1, 2], [3], SPECIAL)", "f([1], [], SPECIAL)"],
    "mask_tokens": ["fates(f)", "fates(f, 0.15)", "nothing_is_chosen(f)"],
    "MaskedGPT": ["masked_logits(f)"],
    "fill": ["logprobs(f, torch.tensor([[1, 93, 2], [93, 4, 5]]), 93)[:, :4]"],
    "text_logprobs": ["logprobs(f, [[1, 2], [3]], 0)"],
    "pseudo_logprobs": ["logprobs(f, torch.tensor([90, 1, 2, 91, 92]), SPECIAL)"],
    "Classifier": ["kinds(f)"],
}


class FeedForward__tanh_gelu(FeedForward):
    """The given activation is ignored."""

    def forward(self, x):
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class PostNormBlock__pre_norm(PostNormBlock):
    """This normalizes what a layer reads, as GPT-2 does. Post-norm: add, then normalize the sum."""

    def forward(self, x, past=None, visible=None):
        x = x + self.attn(self.ln_1(x), past, visible)
        return x + self.mlp(self.ln_2(x))


class PostNormBlock__normalizes_what_is_added(PostNormBlock):
    """What is added is normalized, not the sum: ln(x + layer(x))."""

    def forward(self, x, past=None, visible=None):
        x = x + self.ln_1(self.attn(x, past, visible))
        return x + self.ln_2(self.mlp(x))


class PostNormBlock__causal(PostNormBlock):
    """`visible` does not reach the attention, so it is causal: pass it on."""

    def forward(self, x, past=None, visible=None):
        return super().forward(x, past)


def both_sides__shows_padding(idx, pad):
    """The mask is inverted, so only padding is visible: idx != pad."""
    return (idx == pad)[:, None, None, :]


def both_sides__shape(idx, pad):
    """The shape is (B, T): two dimensions are missing, for heads and queries, (B, 1, 1, T)."""
    return idx != pad


class MaskedHead__tanh_gelu(MaskedHead):
    """GELU is approximated by tanh, as GPT-2's is; BERT's is exact."""

    def forward(self, x, wte):
        x = self.ln(F.gelu(self.c_fc(x), approximate="tanh"))
        return F.linear(x, wte, self.bias)


class MaskedHead__no_bias(MaskedHead):
    """The bias of the vocabulary is not added."""

    def forward(self, x, wte):
        return F.linear(self.ln(F.gelu(self.c_fc(x))), wte)


class MaskedHead__no_norm(MaskedHead):
    """The LayerNorm of the head is missing."""

    def forward(self, x, wte):
        return F.linear(F.gelu(self.c_fc(x)), wte, self.bias)


class BERT__no_segments(BERT):
    """Segment embeddings are not added: wte + wpe + wse."""

    def forward(self, idx, segments, visible):
        x = self.ln_e(self.wte(idx) + self.wpe(torch.arange(idx.size(1))))
        for block in self.h:
            x = block(x, visible=visible)
        return self.head(x, self.wte.weight)


class BERT__no_norm_of_embeddings(BERT):
    """The sum of the embeddings is not normalized: apply ln_e."""

    def forward(self, idx, segments, visible):
        x = self.wte(idx) + self.wpe(torch.arange(idx.size(1))) + self.wse(segments)
        for block in self.h:
            x = block(x, visible=visible)
        return self.head(x, self.wte.weight)


class BERT__causal(BERT):
    """`visible` does not reach the blocks, so each token sees only those before it."""

    def forward(self, idx, segments, visible):
        x = self.ln_e(self.wte(idx) + self.wpe(torch.arange(idx.size(1))) + self.wse(segments))
        for block in self.h:
            x = block(x)
        return self.head(x, self.wte.weight)


def join_segments__one_sep(first, second, special):
    """A [SEP] is missing: one closes each segment."""
    a = [special.cls, *first, special.sep]
    return [*a, *second], [0] * len(a) + [1] * len(second)


def join_segments__empty_second(first, second, special):
    """Without a second text there is one [SEP], and one segment."""
    a, b = [special.cls, *first, special.sep], [*second, special.sep]
    return a + b, [0] * len(a) + [1] * len(b)


def join_segments__two_cls(first, second, special):
    """[CLS] opens the second segment too; it comes once, at the start of the input."""
    ids, segments = join_segments(first, second, special)
    n = segments.count(0)
    return (ids[:n] + [special.cls] * bool(second) + ids[n:], segments + [1] * bool(second))


def masked(idx, special, generator, rate, mask=0.8, text_only=True, targets_all=False, least=True):
    text = idx < min(special) if text_only else torch.ones_like(idx, dtype=torch.bool)
    draw = torch.rand(idx.shape, generator=generator).masked_fill(~text, 1.0)
    chosen = text & ((draw < rate) | (draw == draw.min()) * least)
    fate = torch.rand(idx.shape, generator=generator)
    x = torch.where(chosen & (fate < mask), special.mask, idx)
    other = torch.randint(min(special), idx.shape, generator=generator)
    x = torch.where(chosen & (fate >= max(0.9, mask)), other, x)
    return x, (idx.clone() if targets_all else torch.where(chosen, idx, IGNORE))


def mask_tokens__always_mask(idx, special, generator, rate=0.15):
    """All chosen tokens become [MASK]: 80 % do, 10 % become a random token, 10 % stay."""
    return masked(idx, special, generator, rate, mask=1.0)


def mask_tokens__special_too(idx, special, generator, rate=0.15):
    """Special tokens are chosen too: only text is, ids below the smallest of them."""
    return masked(idx, special, generator, rate, text_only=False)


def mask_tokens__all_are_targets(idx, special, generator, rate=0.15):
    """Every token is a target. What is not chosen can be copied, and teaches nothing: IGNORE."""
    return masked(idx, special, generator, rate, targets_all=True)


def mask_tokens__maybe_none(idx, special, generator, rate=0.15):
    """Sometimes no token is chosen, and a mean over nothing is nan: choose at least one."""
    return masked(idx, special, generator, rate, least=False)


class MaskedGPT__causal(MaskedGPT):
    """The model is still causal: pass both_sides(idx, pad) as `visible`."""

    def hidden(self, idx, past=None, visible=None):
        return GPT.hidden(self, idx, None, visible)


class MaskedGPT__sees_padding(MaskedGPT):
    """Padding is visible: both_sides leaves it out."""

    def hidden(self, idx, past=None, visible=None):
        return GPT.hidden(self, idx, None, torch.ones_like(idx, dtype=torch.bool)[:, None, None])


def fill__probabilities(model, idx, mask):
    """These are probabilities; return their logarithms: log_softmax."""
    return fill(model, idx, mask).exp()


def fill__logits(model, idx, mask):
    """These are logits; take log_softmax of them."""
    place = (idx == mask).int().argmax(1)
    return model(idx)[torch.arange(len(idx)), place].detach()


def fill__the_place_before(model, idx, mask):
    """The logits are those of the position before. A masked model's belong to the position
    itself."""
    place = (idx == mask).int().argmax(1) - 1
    return model(idx)[torch.arange(len(idx)), place].log_softmax(-1).detach()


def text_logprobs__without_the_end(model, texts, end_of_text):
    """The end of the text is not scored: that it ends there has a probability too."""
    return torch.stack([
        sum(model(torch.tensor([[end_of_text, *t]])).log_softmax(-1)[0, i, token].detach()
            for i, token in enumerate(t)) for t in texts])  # fmt: skip


def text_logprobs__means(model, texts, end_of_text):
    """These are means over tokens; ln p of a text is a sum."""
    n = torch.tensor([len(t) + 1 for t in texts])
    return text_logprobs(model, texts, end_of_text) / n


def text_logprobs__sign(model, texts, end_of_text):
    """The sign is wrong: ln p is below 0."""
    return -text_logprobs(model, texts, end_of_text)


def pseudo_logprobs__unmasked(model, row, special):
    """The token to guess is not masked, so the model sees it: mask one at a time."""
    place = (row < min(special)).nonzero()[:, 0]
    return model(row[None])[0, place].log_softmax(-1)[range(len(place)), row[place]].detach()


def pseudo_logprobs__all_masked_at_once(model, row, special):
    """All tokens are masked at once; guess each from all the others."""
    place = (row < min(special)).nonzero()[:, 0]
    hidden = row.clone()
    hidden[place] = special.mask
    return model(hidden[None])[0, place].log_softmax(-1)[range(len(place)), row[place]].detach()


def pseudo_logprobs__sum(model, row, special):
    """The sum is returned; return one number per token."""
    return pseudo_logprobs(model, row, special).sum()


class Classifier__always_first(Classifier):
    """A causal model is read at the first token, which has seen nothing: read it at the last."""

    def forward(self, idx):
        return self.head(self.body.hidden(idx)[:, 0])


class Classifier__always_last(Classifier):
    """The last position of a row may be padding: read a causal model at its last token, a masked
    one at the first."""

    def forward(self, idx):
        return self.head(self.body.hidden(idx)[:, -1])


class Classifier__mean(Classifier):
    """The mean of all positions is read: read [CLS] in a masked model, the last token in a causal
    one."""

    def forward(self, idx):
        return self.head(self.body.hidden(idx).mean(1))

"""Wrong answers to the exercises of chapter 5, the mistakes that people make.

Each function is named after the answer that it stands in for and what is wrong with it:
`widest__counts_the_head_twice` replaces `widest`. A name with `__right__` is right in another way.
"""

from copy import deepcopy

import torch
from torch.nn import functional as F

from gpt2.decoder import GPT, GPTConfig, count_parameters


def width_for(budget, n_vocab, n_ctx, n_layer, head=0, wpe=1, biases=1, norms=1, start=0, step=64):
    """Search as the solution does, with one part counted wrongly."""
    width = start
    while True:
        C = width + step
        layer = 12 * C * C + biases * 9 * C + norms * 4 * C
        total = (n_vocab * (1 + head) + n_ctx * wpe) * C + n_layer * layer + norms * 2 * C
        if total > budget or C > 20_000:
            return width
        width = C


def widest__counts_the_head_twice(*shape):
    return width_for(*shape, head=1)


def widest__forgets_the_positions(*shape):
    return width_for(*shape, wpe=0)


def widest__forgets_the_biases(*shape):
    return width_for(*shape, biases=0)


def widest__forgets_the_norms(*shape):
    return width_for(*shape, norms=0)


def widest__stops_one_short_of_the_budget(budget, *shape):
    return width_for(budget - 1, *shape)


def widest__steps_over_the_budget(*shape):
    return width_for(*shape) + 64


def widest__any_width(*shape):
    return width_for(*shape, step=1)


def widest__never_less_than_64(*shape):
    return max(64, width_for(*shape))


def widest__forgets_to_return(*shape):
    width_for(*shape)


def widest__right__by_building(budget, n_vocab, n_ctx, n_layer):
    with torch.device("meta"):
        fits = [
            width
            for width in range(64, 1025, 64)
            if count_parameters(GPT(GPTConfig(n_vocab, n_ctx, width, 1, n_layer))) <= budget
        ]
    return torch.tensor([0, *fits]).max().item()


def as_head(hidden, d_logits):
    return torch.einsum("btv,btc->vc", d_logits, hidden)


def tied_gradient__as_head_only(idx, d_x, hidden, d_logits):
    return as_head(hidden, d_logits)


def tied_gradient__as_embedding_only(idx, d_x, hidden, d_logits):
    total = torch.zeros(d_logits.size(-1), d_x.size(-1))
    return total.index_add_(0, idx.flatten(), d_x.flatten(0, 1))


def tied_gradient__keeps_one_of_several_places(idx, d_x, hidden, d_logits):
    total = as_head(hidden, d_logits)
    total[idx] += d_x
    return total


def tied_gradient__mean_of_both(idx, d_x, hidden, d_logits):
    total = as_head(hidden, d_logits)
    return total.index_add_(0, idx.flatten(), d_x.flatten(0, 1)) / 2


def tied_gradient__mean_over_places(idx, d_x, hidden, d_logits):
    total = as_head(hidden, d_logits)
    often = torch.bincount(idx.flatten(), minlength=len(total)).clamp(min=1)[:, None]
    return total + tied_gradient__as_embedding_only(idx, d_x, hidden, d_logits) / often


def tied_gradient__first_row_of_the_batch_only(idx, d_x, hidden, d_logits):
    total = as_head(hidden, d_logits)
    return total.index_add_(0, idx[0], d_x[0])


def tied_gradient__transposed(idx, d_x, hidden, d_logits):
    return tied_gradient__right__by_one_hot(idx, d_x, hidden, d_logits).T


def tied_gradient__only_the_tokens_that_occur(idx, d_x, hidden, d_logits):
    total = tied_gradient__right__by_one_hot(idx, d_x, hidden, d_logits)
    seen = torch.zeros(len(total), 1).index_fill_(0, idx.flatten(), 1.0)
    return total * seen


def tied_gradient__adds_into_its_argument(idx, d_x, hidden, d_logits):
    d_x += 0.0 * hidden
    d_logits /= 1.0000001
    d_x *= 2.0
    return tied_gradient__right__by_one_hot(idx, d_x / 2, hidden, d_logits)


def tied_gradient__right__by_one_hot(idx, d_x, hidden, d_logits):
    places = F.one_hot(idx, d_logits.size(-1)).to(d_x)  # (B, T, V)
    return as_head(hidden, d_logits) + torch.einsum("btv,btc->vc", places, d_x)


def tied_gradient__right__by_loops(idx, d_x, hidden, d_logits):
    total = as_head(hidden, d_logits)
    for b in range(idx.size(0)):
        for t in range(idx.size(1)):
            total[idx[b, t]] += d_x[b, t]
    return total


def inputs():
    """List inputs on which some slip or other shows."""
    x = torch.randn(8, 32, generator=torch.Generator().manual_seed(5))
    return [x, 0.01 * x, x + 4, x + 700, torch.ones(8, 32), torch.arange(8.0)[:, None] * x]


def first_bad(norm, candidates, most=1e-3):
    for x in candidates:
        off = (norm(x.clone()) - F.layer_norm(x, (x.size(-1),))).abs().max()
        if not off <= most:
            return x
    return None


def expose__ordinary_numbers_only(norm):
    return first_bad(norm, inputs()[:1])


def expose__ordinary_and_small_only(norm):
    return first_bad(norm, inputs()[:2])


def expose__a_single_position(norm):
    return first_bad(norm, [x[:1] for x in inputs()])


def expose__never_a_large_mean(norm):
    return first_bad(norm, [x for x in inputs() if x.abs().max() < 100])


def expose__never_all_equal(norm):
    return first_bad(norm, inputs()[:4])


def expose__deaf_to_nan(norm):
    for x in inputs():
        if (norm(x) - F.layer_norm(x, (32,))).abs().max() > 1e-3:
            return x
    return None


def expose__takes_rounding_for_a_slip(norm):
    return first_bad(norm, inputs(), most=0.0)


def expose__numbers_too_large(norm):
    return first_bad(norm, [1e6 + x for x in inputs()] + inputs())


def expose__finds_none(norm):
    return None


def expose__says_only_that_it_is_wrong(norm):
    return first_bad(norm, inputs()) is not None


def expose__input_on_which_all_is_well(norm):
    return None if first_bad(norm, inputs()) is None else inputs()[0]


def expose__right__against_its_own_formula(norm):
    for x in (*inputs(), 1e-3 * inputs()[0], torch.zeros(3, 16)):
        wide = x.double()
        centered = wide - wide.mean(1, keepdim=True)
        exact = centered / (centered.square().mean(1, keepdim=True) + 1e-5).sqrt()
        out = norm(x.clone()).double()
        if torch.isnan(out).any() or (out - exact).abs().max() > 1e-3:
            return x
    return None


def errors(model, slip, idx):
    """Return the deviation of the logits, and the right ones."""
    broken = deepcopy(model)
    slip(broken)
    with torch.no_grad():
        right = model(idx)
        return broken(idx) - right, right


def logit_error__breaks_the_model(model, slip, idx):
    right = model(idx).detach()
    slip(model)
    return ((model(idx) - right).abs().max() / right.abs().max()).item()


def logit_error__compares_the_broken_with_itself(model, slip, idx):
    broken = model
    slip(broken)
    return ((broken(idx) - model(idx)).abs().max() / model(idx).abs().max()).item()


def logit_error__absolute(model, slip, idx):
    return errors(model, slip, idx)[0].abs().max().item()


def logit_error__without_the_sign_of_the_deviation(model, slip, idx):
    off, right = errors(model, slip, idx)
    return (off.max() / right.max()).item()


def logit_error__largest_of_the_ratios(model, slip, idx):
    off, right = errors(model, slip, idx)
    return (off / right).abs().max().item()


def logit_error__mean(model, slip, idx):
    off, right = errors(model, slip, idx)
    return (off.abs().mean() / right.abs().mean()).item()


def logit_error__last_position_only(model, slip, idx):
    off, right = errors(model, slip, idx)
    return (off[:, -1].abs().max() / right[:, -1].abs().max()).item()


def logit_error__part_of_the_broken_logits(model, slip, idx):
    off, right = errors(model, slip, idx)
    return (off.abs().max() / (right + off).abs().max()).item()


def logit_error__whole_tensor(model, slip, idx):
    off, right = errors(model, slip, idx)
    return off.abs() / right.abs().max()


def logit_error__right__logits_kept_before(model, slip, idx):
    right, broken = model(idx), deepcopy(model)
    slip(broken)
    off = torch.linalg.vector_norm(broken(idx) - right, ord=float("inf"))
    return off / right.abs().max()


def streams(model, idx):
    """Return what each layer writes at the last position, and the top of the stream there."""
    with torch.no_grad():
        x = model.wte(idx) + model.wpe.weight[: idx.size(1)]
        parts = [x]
        for block in model.h:
            parts.append(block.attn(block.ln_1(x)))
            x = x + parts[-1]
            parts.append(block.mlp(block.ln_2(x)))
            x = x + parts[-1]
    return torch.cat(parts)[:, -1], x[0, -1]


def finish(model, parts, size, center=True, bias="last"):
    """Weigh and score each part, with the bias in the last row, in each, or nowhere."""
    with torch.no_grad():
        if center:
            parts = parts - parts.mean(-1, keepdim=True)
        parts = parts / size * model.ln_f.weight
        parts = parts + model.ln_f.bias if bias == "each" else parts
        last = model.ln_f.bias[None] if bias == "last" else 0 * model.ln_f.bias[None]
        return torch.cat([parts, last]) @ model.wte.weight.T


def size_of(x):
    return (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()


def split_logits__each_by_its_own_size(model, idx):
    parts, _ = streams(model, idx)
    return finish(model, parts, size_of(parts))


def split_logits__ln_f_on_each_part(model, idx):
    parts, _ = streams(model, idx)
    return finish(model, parts, size_of(parts), bias="each")


def split_logits__without_a_norm(model, idx):
    parts, _ = streams(model, idx)
    return finish(model, parts, 1.0)


def split_logits__without_centering(model, idx):
    parts, top = streams(model, idx)
    return finish(model, parts, size_of(top), center=False)


def split_logits__bias_in_each_row(model, idx):
    parts, top = streams(model, idx)
    return finish(model, parts, size_of(top), bias="each")


def split_logits__bias_forgotten(model, idx):
    parts, top = streams(model, idx)
    return finish(model, parts, size_of(top), bias="none")


def split_logits__without_the_weight(model, idx):
    parts, top = streams(model, idx)
    return finish(model, parts / model.ln_f.weight, size_of(top), center=False)


def split_logits__changes_what_it_kept(model, idx):
    with torch.no_grad():
        x = model.wte(idx) + model.wpe.weight[: idx.size(1)]
        parts = [x]
        for block in model.h:
            for part in (block.attn(block.ln_1(x)), None):
                parts.append(block.mlp(block.ln_2(x)) if part is None else part)
                x += parts[-1]
    return finish(model, torch.cat(parts)[:, -1], size_of(x[0, -1]))


def split_logits__streams_and_not_what_is_added(model, idx):
    parts, top = streams(model, idx)
    return finish(model, parts.cumsum(0), size_of(top))


def split_logits__attention_and_mlp_exchanged(model, idx):
    rows = split_logits__right__by_a_linear_map(model, idx)
    order = [0, *(i + 1 if i % 2 else i - 1 for i in range(1, len(rows) - 1)), len(rows) - 1]
    return rows[order]


def split_logits__attention_first_then_mlp(model, idx):
    rows = split_logits__right__by_a_linear_map(model, idx)
    return torch.cat([rows[:1], rows[1:-1:2], rows[2:-1:2], rows[-1:]])


def split_logits__the_mlp_reads_the_stream_before_attention(model, idx):
    with torch.no_grad():
        x = model.wte(idx) + model.wpe.weight[: idx.size(1)]
        parts = [x]
        for block in model.h:
            parts += [block.attn(block.ln_1(x)), block.mlp(block.ln_2(x))]
            x = x + parts[-1] + parts[-2]
    return finish(model, torch.cat(parts)[:, -1], size_of(x[0, -1]))


def split_logits__first_position(model, idx):
    return split_logits__right__by_a_linear_map(model, idx[:, :1])


def split_logits__one_row_a_block(model, idx):
    rows = split_logits__right__by_a_linear_map(model, idx)
    return torch.cat([rows[:1], rows[1:-1:2] + rows[2:-1:2], rows[-1:]])


def split_logits__right__by_a_linear_map(model, idx):
    parts, top = streams(model, idx)
    C = len(top)
    center = torch.eye(C) - 1 / C
    with torch.no_grad():
        to_logits = center @ torch.diag(model.ln_f.weight) @ model.wte.weight.T / size_of(top)
        return torch.cat([parts @ to_logits, (model.wte.weight @ model.ln_f.bias)[None]])


def split_logits__right__by_hooks(model, idx):
    written, top = [], []
    hooks = [model.ln_f.register_forward_pre_hook(lambda _, args: top.append(args[0][0, -1]))]
    for block in model.h:
        for layer in (block.attn, block.mlp):
            hooks.append(layer.register_forward_hook(lambda _, a, out: written.append(out[0, -1])))
    model.hidden(idx)
    for hook in hooks:
        hook.remove()
    embedding = (model.wte(idx) + model.wpe.weight[: idx.size(1)])[0, -1]
    return finish(model, torch.stack([embedding, *written]), size_of(top[0]))

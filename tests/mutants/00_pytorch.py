"""Answers to the exercises of chapter 0: the mistakes that people make, and other right ones.

Each function is named after the answer that it stands in for and what is wrong with it:
`divide__no_sign` replaces `divide`. See course/mutants.py.
"""

import math

import torch
from torch.nn import functional as F


def real_tokens(x, lengths):
    return torch.arange(x.size(1)) < lengths[:, None]  # (B, T)


def mean_of_texts__padding_counts(x, lengths):
    return x.mean(dim=1)


def mean_of_texts__sum_alone(x, lengths):
    return (x * real_tokens(x, lengths)[:, :, None]).sum(dim=1)


def mean_of_texts__divides_by_the_longest(x, lengths):
    return (x * real_tokens(x, lengths)[:, :, None]).mean(dim=1)


def mean_of_texts__mask_meets_channels(x, lengths):
    return (x * real_tokens(x, lengths)).sum(dim=1) / lengths[:, None]


def mean_of_texts__lengths_meet_channels(x, lengths):
    return (x * real_tokens(x, lengths)[:, :, None]).sum(dim=1) / lengths


def mean_of_texts__both_meet_channels(x, lengths):
    return (x * real_tokens(x, lengths)).sum(dim=1) / lengths


def mean_of_texts__one_token_too_many(x, lengths):
    real = torch.arange(x.size(1)) <= lengths[:, None]
    return (x * real[:, :, None]).sum(dim=1) / lengths[:, None]


def mean_of_texts__sums_over_the_texts(x, lengths):
    return (x * real_tokens(x, lengths)[:, :, None]).sum(dim=0) / lengths[:, None]


def mean_of_texts__clears_the_padding_in_place(x, lengths):
    x[~real_tokens(x, lengths)] = 0.0
    return x.sum(dim=1) / lengths[:, None]


def mean_of_texts__keeps_a_dimension(x, lengths):
    total = (x * real_tokens(x, lengths)[:, :, None]).sum(dim=1, keepdim=True)
    return total / lengths[:, None, None]


def mean_of_texts__first_text_for_all(x, lengths):
    return x[:, : int(lengths[0])].mean(dim=1)


def mean_of_texts__shortens_the_texts(x, lengths):
    lengths.fill_(1)  # what the test asks for, unless it keeps its own
    return x[:, 0]


def mean_of_texts__right__text_by_text(x, lengths):
    return torch.stack([text[: int(n)].mean(dim=0) for text, n in zip(x, lengths, strict=True)])


def mean_of_texts__right__as_a_matrix_product(x, lengths):
    real = real_tokens(x, lengths).float()
    return ((real / real.sum(dim=1, keepdim=True))[:, None] @ x)[:, 0]  # (B, 1, T) @ (B, T, C)


def divide__no_sign(a, b):
    return type(a)(a.value / b.value, ((a, 1 / b.value), (b, a.value / b.value**2)))


def divide__one_slope_for_both(a, b):
    return type(a)(a.value / b.value, ((a, 1 / b.value), (b, 1 / b.value)))


def divide__numerator_is_missing(a, b):
    return type(a)(a.value / b.value, ((a, 1 / b.value), (b, -1 / b.value**2)))


def divide__slope_of_a_sum(a, b):
    return type(a)(a.value / b.value, ((a, 1.0), (b, -a.value / b.value**2)))


def divide__slope_of_a_product(a, b):
    return type(a)(a.value / b.value, ((a, b.value), (b, -a.value / b.value**2)))


def divide__denominator_is_no_parent(a, b):
    return type(a)(a.value / b.value, ((a, 1 / b.value),))


def divide__no_parents(a, b):
    return type(a)(a.value / b.value)


def divide__a_float(a, b):
    return a.value / b.value


def divide__whole_numbers(a, b):
    return type(a)(a.value // b.value, ((a, 1 / b.value), (b, -a.value / b.value**2)))


def divide__by_logarithms(a, b):
    return (a.log() - b.log()).exp()


def divide__sets_the_grads(a, b):
    a.grad += 1 / b.value
    b.grad -= a.value / b.value**2
    return type(a)(a.value / b.value, ((a, 1 / b.value), (b, -a.value / b.value**2)))


def divide__right__times_the_inverse(a, b):
    inverse = type(a)(1 / b.value, ((b, -1 / b.value**2),))
    return a * inverse


def divide__right__by_the_quotient(a, b):
    quotient = a.value / b.value
    return type(a)(quotient, ((b, -quotient / b.value), (a, 1 / b.value)))


def tanh__not_squared(a):
    return type(a)(math.tanh(a.value), ((a, 1 - math.tanh(a.value)),))


def tanh__plus_the_square(a):
    return type(a)(math.tanh(a.value), ((a, 1 + math.tanh(a.value) ** 2),))


def tanh__square_of_the_input(a):
    return type(a)(math.tanh(a.value), ((a, 1 - a.value**2),))


def tanh__slope_of_the_sigmoid(a):
    value = math.tanh(a.value)
    return type(a)(value, ((a, value * (1 - value)),))


def tanh__is_the_sigmoid(a):
    value = 1 / (1 + math.exp(-a.value))
    return type(a)(value, ((a, value * (1 - value)),))


def tanh__no_parents(a):
    return type(a)(math.tanh(a.value))


def tanh__from_powers_of_e(a):
    up, down = math.exp(a.value), math.exp(-a.value)
    value = (up - down) / (up + down)
    return type(a)(value, ((a, 1 - value**2),))


def tanh__right__two_factors(a):
    value = math.tanh(a.value)
    return type(a)(value, ((a, (1 - value) * (1 + value)),))


def tanh__right__from_a_power_that_cannot_overflow(a):
    small = math.exp(-2 * abs(a.value))
    value = math.copysign((1 - small) / (1 + small), a.value)
    return type(a)(value, ((a, 4 * small / (1 + small) ** 2),))


def traced(model, x, leaves=True, remove=True, run=None, line=None, named=None):
    """Trace as the solution does, with one thing or another bent."""
    lines, handles = [], []

    def hook_for(name):
        def note(module, inputs, output):
            shapes = tuple(inputs[0].shape), tuple(output.shape)
            lines.append(line(name, *shapes) if line else (name, *shapes))

        return note

    for name, module in (named or model.named_modules)():
        if not leaves or not list(module.children()):
            handles.append(module.register_forward_hook(hook_for(name)))
    try:
        (run or model)(x)
    finally:
        for handle in handles if remove else []:
            handle.remove()
    return lines


def trace__leaves_its_hooks(model, x):
    return traced(model, x, remove=False)


def trace__keeps_hooks_after_an_error(model, x):
    lines, handles = [], []
    for name, module in model.named_modules():
        if not list(module.children()):
            handles.append(
                module.register_forward_hook(
                    lambda _, i, o, name=name: lines.append((name, (*i[0].shape,), (*o.shape,)))
                )
            )
    model(x)
    for handle in handles:
        handle.remove()
    return lines


def trace__every_module(model, x):
    return traced(model, x, leaves=False)


def trace__children_alone(model, x):
    return traced(model, x, leaves=False, named=model.named_children)


def trace__in_the_order_of_definition(model, x):
    lines = dict.fromkeys(name for name, _ in model.named_modules())
    found = traced(model, x)
    return [line for name in lines for line in found if line[0] == name]


def trace__each_leaf_once(model, x):
    return list({line[0]: line for line in traced(model, x)}.values())


def trace__the_last_name_for_all(model, x):
    lines, handles = [], []
    for name, module in model.named_modules():
        if not list(module.children()):

            def note(module, inputs, output):
                lines.append((name, tuple(inputs[0].shape), tuple(output.shape)))  # noqa: B023

            handles.append(module.register_forward_hook(note))
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return lines


def trace__names_of_types(model, x):
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    return traced(model, x, line=lambda name, *shapes: (kinds[name], *shapes))


def trace__out_before_in(model, x):
    return traced(model, x, line=lambda name, before, after: (name, after, before))


def trace__calls_forward(model, x):
    return traced(model, x, run=model.forward)


def trace__runs_twice(model, x):
    model(x)
    return traced(model, x)


def trace__clears_all_hooks(model, x):
    lines = traced(model, x)
    for module in model.modules():
        module._forward_hooks.clear()
    return lines


def trace__swallows_the_error(model, x):
    try:
        return traced(model, x)
    except RuntimeError:
        return []


def trace__changes_the_output(model, x):
    lines = traced(model, x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return lines


def trace__right__two_kinds_of_hooks(model, x):
    lines, handles, waiting = [], [], []
    leaves = {m: name for name, m in model.named_modules() if not any(m.children())}

    def before(module, inputs):
        waiting.append(tuple(inputs[0].shape))

    def after(module, inputs, output):
        lines.append((leaves[module], waiting.pop(), tuple(output.shape)))

    for module in leaves:
        handles += [module.register_forward_pre_hook(before)]
        handles += [module.register_forward_hook(after)]
    try:
        model(x)
    finally:
        [handle.remove() for handle in handles]
    return lines


def trace__right__without_gradients(model, x):
    with torch.no_grad():
        return [(name, torch.Size(a), torch.Size(b)) for name, a, b in traced(model, x)]


def walk(loss_of, start, rate, beta, goal, most, old=0.0, keep=1.0, first=0, within=1):
    """Count steps by hand, with one thing or another bent."""
    theta, v, grad = start.clone().requires_grad_(), torch.zeros_like(start), 0.0
    for step in range(most + within):
        loss = loss_of(theta)
        if loss.item() <= goal and step >= first:
            return step
        (new,) = torch.autograd.grad(loss, theta)
        grad = old * grad + new
        v = beta * v + keep * grad
        with torch.no_grad():
            theta -= rate * v
    return None


def steps_to__never_forgets(loss_of, start, rate, beta, goal, most):
    return walk(loss_of, start, rate, beta, goal, most, old=1.0)


def steps_to__clears_before_the_step(loss_of, start, rate, beta, goal, most):
    theta = start.clone().requires_grad_()
    optimizer = torch.optim.SGD([theta], lr=rate, momentum=beta)
    for step in range(most + 1):
        loss = loss_of(theta)
        if loss.item() <= goal:
            return step
        loss.backward()
        optimizer.zero_grad()
        optimizer.step()
    return None


def steps_to__no_momentum(loss_of, start, rate, beta, goal, most):
    return walk(loss_of, start, rate, 0.0, goal, most)


def steps_to__a_mean_for_the_sum(loss_of, start, rate, beta, goal, most):
    return walk(loss_of, start, rate, beta, goal, most, keep=1 - beta)


def steps_to__steps_before_it_looks(loss_of, start, rate, beta, goal, most):
    return walk(loss_of, start, rate, beta, goal, most, first=1)


def steps_to__counts_one_too_many(loss_of, start, rate, beta, goal, most):
    found = walk(loss_of, start, rate, beta, goal, most)
    return None if found is None else found + 1


def steps_to__one_look_too_few(loss_of, start, rate, beta, goal, most):
    return walk(loss_of, start, rate, beta, goal, most, within=0)


def steps_to__one_look_too_many(loss_of, start, rate, beta, goal, most):
    return walk(loss_of, start, rate, beta, goal, most, within=2)


def steps_to__most_for_never(loss_of, start, rate, beta, goal, most):
    found = walk(loss_of, start, rate, beta, goal, most)
    return most if found is None else found


def steps_to__walks_on_the_start_itself(loss_of, start, rate, beta, goal, most):
    theta = start.requires_grad_()
    found = walk(loss_of, theta.detach(), rate, beta, goal, most)
    with torch.no_grad():
        theta -= rate
    return found


def steps_to__forgets_no_grad(loss_of, start, rate, beta, goal, most):
    theta = start.clone().requires_grad_()
    for step in range(most + 1):
        loss = loss_of(theta)
        if loss.item() <= goal:
            return step
        loss.backward()
        theta -= rate * theta.grad
    return None


def steps_to__a_new_optimizer_each_step(loss_of, start, rate, beta, goal, most):
    theta = start.clone().requires_grad_()
    for step in range(most + 1):
        loss = loss_of(theta)
        if loss.item() <= goal:
            return step
        optimizer = torch.optim.SGD([theta], lr=rate, momentum=beta)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return None


def steps_to__right__by_hand(loss_of, start, rate, beta, goal, most):
    return walk(loss_of, start, rate, beta, goal, most)


def steps_to__right__a_while_loop(loss_of, start, rate, beta, goal, most):
    theta, n = torch.nn.Parameter(start.clone()), 0
    optimizer = torch.optim.SGD([theta], rate, momentum=beta)
    while (loss := loss_of(theta)).item() > goal:
        if n == most:
            return None
        theta.grad = None
        loss.backward()
        optimizer.step()
        n += 1
    return n


def summed_by_word(table, words, each):
    return torch.zeros_like(table).index_add_(0, words, each)


def says_minus_happened(table, words, following, dim=-1):
    return table[words].softmax(dim=dim) - F.one_hot(following, len(table))


def gradient_of_table__changes_the_words(table, words, following):
    words.zero_(), following.zero_()
    gradient = torch.zeros_like(table)
    gradient[0] = table[0].softmax(dim=0)
    gradient[0, 0] -= 1
    return gradient


def gradient_of_table__counts_a_word_once(table, words, following):
    grad = torch.zeros_like(table)
    grad[words] += says_minus_happened(table, words, following) / len(words)
    return grad


def gradient_of_table__turned_sign(table, words, following):
    return summed_by_word(table, words, -says_minus_happened(table, words, following) / len(words))


def gradient_of_table__of_the_sum(table, words, following):
    return summed_by_word(table, words, says_minus_happened(table, words, following))


def gradient_of_table__divides_by_the_vocabulary(table, words, following):
    return summed_by_word(table, words, says_minus_happened(table, words, following) / len(table))


def gradient_of_table__divides_by_each_count(table, words, following):
    grad = summed_by_word(table, words, says_minus_happened(table, words, following))
    return grad / words.bincount(minlength=len(table)).clamp(min=1)[:, None]


def gradient_of_table__nothing_happened(table, words, following):
    return summed_by_word(table, words, table[words].softmax(dim=-1) / len(words))


def gradient_of_table__says_nothing(table, words, following):
    happened = F.one_hot(following, len(table)).to(table.dtype)
    return summed_by_word(table, words, -happened / len(words))


def gradient_of_table__softmax_over_the_places(table, words, following):
    each = says_minus_happened(table, words, following, dim=0)
    return summed_by_word(table, words, each / len(words))


def gradient_of_table__row_for_column(table, words, following):
    each = says_minus_happened(table, words, following)
    return summed_by_word(table, words, each / len(words)).T


def gradient_of_table__no_softmax(table, words, following):
    each = table[words] - F.one_hot(following, len(table))
    return summed_by_word(table, words, each / len(words))


def gradient_of_table__softmax_that_overflows(table, words, following):
    powers = table[words].exp()
    each = powers / powers.sum(dim=-1, keepdim=True) - F.one_hot(following, len(table))
    return summed_by_word(table, words, each / len(words))


def gradient_of_table__row_by_row(table, words, following):
    return says_minus_happened(table, words, following) / len(words)


def gradient_of_table__asks_autograd(table, words, following):
    leaf = table.clone().requires_grad_()
    F.cross_entropy(leaf[words], following).backward()
    return leaf.grad


def gradient_of_table__in_the_table(table, words, following):
    each = says_minus_happened(table, words, following) / len(words)
    return table.zero_().index_add_(0, words, each)


def gradient_of_table__right__as_a_matrix_product(table, words, following):
    rows = F.one_hot(words, len(table)).to(table.dtype)  # (N, V)
    return rows.T @ says_minus_happened(table, words, following) / len(words)


def gradient_of_table__right__from_counts(table, words, following):
    counts = torch.zeros_like(table)
    one = torch.ones(len(words), dtype=table.dtype)
    counts.index_put_((words, following), one, accumulate=True)
    return (table.softmax(dim=-1) * counts.sum(dim=1, keepdim=True) - counts) / len(words)


def gradient_of_table__right__place_by_place(table, words, following):
    grad = torch.zeros_like(table)
    for word, came in zip(words.tolist(), following.tolist(), strict=True):
        grad[word] += table[word].softmax(dim=0) / len(words)
        grad[word, came] -= 1 / len(words)
    return grad

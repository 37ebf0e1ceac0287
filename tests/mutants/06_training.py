"""Wrong answers to the exercises of chapter 6, the mistakes that people make.

Each function is named after the answer that it stands in for and what is wrong with it:
`trapezoid__first_batch_thrown_away` replaces `trapezoid`. A name with `__right__` is right in
another way.
"""

import math

import torch
from torch.nn import functional as F

from gpt2.data import IGNORE


def trapezoid__first_batch_thrown_away(step, n_steps, n_warmup, n_decay, high, low):
    if step < n_warmup:
        return high * step / n_warmup
    return trapezoid__right__by_the_smaller(step, n_steps, 0, n_decay, high, low)


def trapezoid__never_arrives_at_low(step, n_steps, n_warmup, n_decay, high, low):
    if step < n_steps - n_decay:
        return trapezoid__right__by_the_smaller(step, n_steps, n_warmup, 0, high, low)
    return high + (low - high) * (step - n_steps + n_decay) / n_decay


def trapezoid__falls_at_once(step, n_steps, n_warmup, n_decay, high, low):
    if step < n_warmup:
        return high * (step + 1) / n_warmup
    return high + (low - high) * (step + 1 - n_warmup) / (n_steps - n_warmup)


def trapezoid__falls_to_zero(step, n_steps, n_warmup, n_decay, high, low):
    return trapezoid__right__by_the_smaller(step, n_steps, n_warmup, n_decay, high, 0.0)


def trapezoid__rises_from_low(step, n_steps, n_warmup, n_decay, high, low):
    if step < n_warmup:
        return low + (high - low) * (step + 1) / n_warmup
    return trapezoid__right__by_the_smaller(step, n_steps, 0, n_decay, high, low)


def trapezoid__fall_of_a_cosine(step, n_steps, n_warmup, n_decay, high, low):
    made = step + 1 - n_steps + n_decay
    if made <= 0:
        return trapezoid__right__by_the_smaller(step, n_steps, n_warmup, 0, high, low)
    return low + (high - low) * (1 + math.cos(math.pi * made / n_decay)) / 2


def trapezoid__warm_up_of_zero_divides(step, n_steps, n_warmup, n_decay, high, low):
    rise = high * (step + 1) / n_warmup if n_warmup else math.nan
    return min(rise, trapezoid__right__by_the_smaller(step, n_steps, 0, n_decay, high, low))


def trapezoid__forgets_the_level(step, n_steps, n_warmup, n_decay, high, low):
    if n_warmup <= step < n_steps - n_decay:
        return None
    return trapezoid__right__by_the_smaller(step, n_steps, n_warmup, n_decay, high, low)


def trapezoid__right__by_the_smaller(step, n_steps, n_warmup, n_decay, high, low):
    rise = (step + 1) / n_warmup if n_warmup else 1.0
    fall = (n_steps - step - 1) / n_decay if n_decay else 1.0
    if rise < 1:
        return torch.tensor(high * rise, dtype=torch.float64)
    return low + (high - low) * min(fall, 1.0)


def paid(report):
    return report.loss * report.n_tokens


def choose(a, b, cost):
    return "a" if cost(a) < cost(b) else "b"


def better__the_lower_loss(a, b):
    return choose(a, b, lambda r: r.loss)


def better__bits_a_byte_across_texts(a, b):
    return choose(a, b, lambda r: paid(r) / r.n_bytes)


def better__total_across_texts(a, b):
    return choose(a, b, paid)


def better__never_across_texts(a, b):
    return choose(a, b, paid) if a.text == b.text else None


def better__same_text_only_with_a_floor(a, b):
    if a.floor is None or b.floor is None:
        return None
    return choose(a, b, lambda r: (paid(r) - r.floor) / r.n_bytes)


def better__loss_a_token_on_the_same_text(a, b):
    if a.text == b.text:
        return choose(a, b, lambda r: r.loss)
    return better__same_text_only_with_a_floor(a, b)


def better__excess_of_the_whole_text(a, b):
    if a.text == b.text:
        return choose(a, b, paid)
    if a.floor is None or b.floor is None:
        return None
    return choose(a, b, lambda r: paid(r) - r.floor)


def better__excess_a_token(a, b):
    if a.text == b.text:
        return choose(a, b, paid)
    if a.floor is None or b.floor is None:
        return None
    return choose(a, b, lambda r: r.loss - r.floor / r.n_tokens)


def better__a_floor_of_0_is_none(a, b):
    if a.text == b.text:
        return choose(a, b, paid)
    if not a.floor or not b.floor:
        return None
    return choose(a, b, lambda r: (paid(r) - r.floor) / r.n_bytes)


def better__floor_taken_off_each_token(a, b):
    if a.text == b.text:
        return choose(a, b, paid)
    if a.floor is None or b.floor is None:
        return None
    return choose(a, b, lambda r: (r.loss - r.floor) * r.n_tokens / r.n_bytes)


def better__one_floor_is_enough(a, b):
    if a.text == b.text:
        return choose(a, b, paid)
    if a.floor is None and b.floor is None:
        return None
    return choose(a, b, lambda r: (paid(r) - (r.floor or 0)) / r.n_bytes)


def better__says_the_report(a, b):
    return a if better__right__in_bits(a, b) == "a" else b


def better__right__in_bits(a, b):
    same = a.text == b.text
    if not same and None in (a.floor, b.floor):
        return None
    bits = [(paid(r) - (0 if same else r.floor)) / math.log(2) / r.n_bytes for r in (a, b)]
    return ["a", "b"][bits.index(min(bits))]


def true_weights(new_run, n=10):
    run, truth = new_run(), []
    for _ in range(n):
        run.step()
        truth.append(run.weights.clone())
    return truth


def goes_on(run, start, truth):
    """Say whether a run that has made `start` steps goes on as it should."""
    for step in range(start, len(truth)):
        run.step()
        if not torch.equal(run.weights, truth[step]):
            return False
    return True


def inspect(new_run, saves=range(10), loads=2):
    """Inspect as the solution does, with one thing or another left out."""
    truth, run, kept = true_weights(new_run), new_run(), {}
    for step in range(len(truth)):
        if step in saves:
            kept[step] = run.save()
        run.step()
        if not torch.equal(run.weights, truth[step]):
            return False
    for start, checkpoint in kept.items():
        for _ in range(loads):
            resumed = new_run()
            resumed.load(checkpoint)
            if not goes_on(resumed, start, truth):
                return False
    return True


def survives__saves_at_the_end_of_an_epoch_only(new_run):
    return inspect(new_run, saves=(4, 8))


def survives__one_load_of_each(new_run):
    return inspect(new_run, loads=1)


def survives__loads_at_once(new_run):
    truth = true_weights(new_run)
    for start in range(len(truth)):
        run, resumed = new_run(), new_run()
        for _ in range(start):
            run.step()
        resumed.load(run.save())  # nobody changes the checkpoint before it is loaded
        if not goes_on(resumed, start, truth) or not goes_on(run, start, truth):
            return False
    return True


def survives__does_not_watch_the_run_that_saves(new_run):
    truth = true_weights(new_run)
    for start in range(len(truth)):
        run = new_run()
        for _ in range(start):
            run.step()
        checkpoint = run.save()
        run.step()
        for _ in range(2):
            resumed = new_run()
            resumed.load(checkpoint)
            if not goes_on(resumed, start, truth):
                return False
    return True


def survives__loads_into_the_run_that_saved(new_run):
    truth = true_weights(new_run)
    for start in range(len(truth)):
        run = new_run()
        for _ in range(start):
            run.step()
        run.load(run.save())  # what load forgets is still there
        if not goes_on(run, start, truth):
            return False
    return True


def survives__compares_the_weights_that_were_loaded(new_run):
    run = new_run()
    for _ in range(5):
        run.step()
    other = new_run()
    other.load(run.save())
    return torch.equal(other.weights, run.weights)


def survives__saves_before_the_first_step_only(new_run):
    return inspect(new_run, saves=(0,))


def survives__close_is_enough(new_run):
    first, second = new_run(), new_run()
    for _ in range(5):
        first.step()
    second.load(first.save())
    for _ in range(5):
        first.step()
        second.step()
    return torch.allclose(first.weights, second.weights, atol=0.1)


def survives__keeps_references_of_the_truth(new_run):
    run, truth = new_run(), []
    for _ in range(10):
        run.step()
        truth.append(run.weights)  # ten names of one tensor
    run = new_run()
    for step in range(10):
        run.step()
        if not torch.equal(run.weights, truth[step]):
            return False
    return True


def survives__always(new_run):
    return True


def survives__says_nothing(new_run):
    inspect(new_run)


def survives__right__by_lists(new_run):
    def steps(run, n):
        found = []
        for _ in range(n):
            run.step()
            found.append(run.weights.tolist())
        return found

    truth = steps(new_run(), 12)
    for start in range(12):
        run = new_run()
        before = steps(run, start)
        checkpoint = run.save()
        if before + steps(run, 12 - start) != truth:
            return False
        for _ in range(3):
            resumed = new_run()
            resumed.load(checkpoint)
            if before + steps(resumed, 12 - start) != truth:
                return False
    return True


def train(
    start, loss_of, new_optimizer, rates, n_steps, scale, one_model=False, clear="first", anew=False
):
    """Sweep as the solution does, with one thing or another bent."""
    losses, model = [], start()
    for rate in rates:
        model = model if one_model else start()
        optimizer = new_optimizer(model.parameters(), lr=rate)
        for _ in range(n_steps):
            optimizer = new_optimizer(model.parameters(), lr=rate) if anew else optimizer
            if clear == "first":
                optimizer.zero_grad()
            (scale * loss_of(model)).backward()
            if clear == "before the step":
                optimizer.zero_grad()
            optimizer.step()
        losses.append(loss_of(model).item())
    return losses


def finite(losses):
    return [loss if math.isfinite(loss) else math.inf for loss in losses]


def sweep__one_model_for_all_rates(start, loss_of, new_optimizer, rates, n_steps, scale=1.0):
    return finite(train(start, loss_of, new_optimizer, rates, n_steps, scale, one_model=True))


def sweep__gradients_never_cleared(start, loss_of, new_optimizer, rates, n_steps, scale=1.0):
    return finite(train(start, loss_of, new_optimizer, rates, n_steps, scale, clear="never"))


def sweep__loss_with_the_factor(start, loss_of, new_optimizer, rates, n_steps, scale=1.0):
    losses = train(start, loss_of, new_optimizer, rates, n_steps, scale)
    return finite([scale * loss for loss in losses])


def sweep__without_the_factor(start, loss_of, new_optimizer, rates, n_steps, scale=1.0):
    return finite(train(start, loss_of, new_optimizer, rates, n_steps, 1.0))


def sweep__factor_on_the_rate_too(start, loss_of, new_optimizer, rates, n_steps, scale=1.0):
    scaled = [rate * scale for rate in rates]
    return finite(train(start, loss_of, new_optimizer, scaled, n_steps, scale))


def sweep__loss_before_the_last_step(start, loss_of, new_optimizer, rates, n_steps, scale=1.0):
    return finite(train(start, loss_of, new_optimizer, rates, max(n_steps - 1, 0), scale))


def sweep__new_optimizer_at_each_step(start, loss_of, new_optimizer, rates, n_steps, scale=1.0):
    return finite(train(start, loss_of, new_optimizer, rates, n_steps, scale, anew=True))


def sweep__clears_before_the_step(start, loss_of, new_optimizer, rates, n_steps, scale=1.0):
    losses = train(start, loss_of, new_optimizer, rates, n_steps, scale, clear="before the step")
    return finite(losses)


def sweep__nan_stays_nan(start, loss_of, new_optimizer, rates, n_steps, scale=1.0):
    return train(start, loss_of, new_optimizer, rates, n_steps, scale)


def sweep__best_rate_only(start, loss_of, new_optimizer, rates, n_steps, scale=1.0):
    return min(train(start, loss_of, new_optimizer, rates, n_steps, scale))


def sweep__right__learning_rate_by_name(start, loss_of, new_optimizer, rates, n_steps, scale=1.0):
    return finite(train(start, loss_of, new_optimizer, rates, n_steps, scale))


def sweep__right__by_the_gradient(start, loss_of, new_optimizer, rates, n_steps, scale=1.0):
    losses = []
    for rate in rates:
        model = start()
        parameters = list(model.parameters())
        optimizer = new_optimizer(parameters, rate)
        for _ in range(n_steps):
            for p, g in zip(
                parameters, torch.autograd.grad(loss_of(model), parameters), strict=True
            ):
                p.grad = scale * g
            optimizer.step()
        losses.append(loss_of(model).detach().nan_to_num(math.inf))
    return losses


def in_chunks(hidden, weight, targets, chunk, **bent):
    """Compute loss and gradients as the solution does, with one thing or another bent."""
    count = len(targets) if bent.get("all_positions") else (targets != IGNORE).sum()
    loss, d_hidden, d_weight = torch.zeros(()), torch.zeros_like(hidden), torch.zeros_like(weight)
    end = len(hidden) - len(hidden) % chunk if bent.get("whole_only") else len(hidden)
    kept = [h @ weight.T for h in hidden.split(chunk)] if bent.get("listed") else []
    for start in range(0, max(end, 1), chunk):
        part = slice(start, start + chunk)
        y, scores = targets[part], kept.pop(0) if kept else hidden[part] @ weight.T
        counts, y = (y != IGNORE).float(), y.clamp(min=0)
        if bent.get("naive"):
            p = scores.exp() / scores.exp().sum(1, keepdim=True)
            log_p = p.log()
        else:
            log_p = scores.log_softmax(1)
            p = log_p.exp()
        one_hot = F.one_hot(y, len(weight)) if not bent.get("no_target") else 0
        d_logits = p - one_hot
        if not bent.get("ignored_learn"):
            d_logits = d_logits * counts[:, None]
        loss = loss - (log_p.gather(1, y[:, None])[:, 0] * counts).sum()
        d_hidden[part] = d_logits @ weight
        d_weight = (0 if bent.get("last_only") else d_weight) + d_logits.T @ hidden[part]
    share = 1 if bent.get("summed") else count
    return loss / count, d_hidden / share, d_weight / share


def loss_in_chunks__all_positions_counted(hidden, weight, targets, chunk):
    return in_chunks(hidden, weight, targets, chunk, all_positions=True)


def loss_in_chunks__last_short_chunk_forgotten(hidden, weight, targets, chunk):
    return in_chunks(hidden, weight, targets, chunk, whole_only=True)


def loss_in_chunks__exp_before_log(hidden, weight, targets, chunk):
    return in_chunks(hidden, weight, targets, chunk, naive=True)


def loss_in_chunks__target_not_taken_off(hidden, weight, targets, chunk):
    return in_chunks(hidden, weight, targets, chunk, no_target=True)


def loss_in_chunks__ignored_positions_learn(hidden, weight, targets, chunk):
    return in_chunks(hidden, weight, targets, chunk, ignored_learn=True)


def loss_in_chunks__weight_learns_from_the_last_chunk(hidden, weight, targets, chunk):
    return in_chunks(hidden, weight, targets, chunk, last_only=True)


def loss_in_chunks__gradients_of_the_sum(hidden, weight, targets, chunk):
    return in_chunks(hidden, weight, targets, chunk, summed=True)


def loss_in_chunks__wrong_sign(hidden, weight, targets, chunk):
    loss, d_hidden, d_weight = in_chunks(hidden, weight, targets, chunk)
    return loss, -d_hidden, -d_weight


def loss_in_chunks__loss_only(hidden, weight, targets, chunk):
    return in_chunks(hidden, weight, targets, chunk)[0]


def accumulate(hidden, weight, targets, chunk, share):
    """Add up the gradients of the chunks' mean losses, each times its share."""
    hidden, weight = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    total = 0.0
    for start in range(0, len(hidden), chunk):
        y = targets[start : start + chunk]
        loss = F.cross_entropy(hidden[start : start + chunk] @ weight.T, y, ignore_index=IGNORE)
        loss = loss * share(y)
        loss.backward()
        total = total + loss.detach()
    return total, hidden.grad, weight.grad


def loss_in_chunks__mean_of_means(hidden, weight, targets, chunk):
    n_chunks = math.ceil(len(targets) / chunk)
    return accumulate(hidden, weight, targets, chunk, lambda y: 1 / n_chunks)


def loss_in_chunks__nan_without_a_target(hidden, weight, targets, chunk):
    count = (targets != IGNORE).sum()
    return accumulate(hidden, weight, targets, chunk, lambda y: (y != IGNORE).sum() / count)


def loss_in_chunks__all_logits(hidden, weight, targets, chunk):
    return accumulate(hidden, weight, targets, len(hidden), lambda y: 1.0)


def loss_in_chunks__all_logits_in_a_list(hidden, weight, targets, chunk):
    return in_chunks(hidden, weight, targets, chunk, listed=True)


def loss_in_chunks__so_many_chunks(hidden, weight, targets, chunk):
    size = math.ceil(len(hidden) / chunk)
    return in_chunks(hidden, weight, targets, size)


def loss_in_chunks__gradient_of_a_tensor_that_is_no_leaf(hidden, weight, targets, chunk):
    hidden, weight = hidden.clone().requires_grad_() * 1.0, weight.clone().requires_grad_()
    losses = [
        F.cross_entropy(part @ weight.T, y, ignore_index=IGNORE, reduction="sum")
        for part, y in zip(hidden.split(chunk), targets.split(chunk), strict=True)
    ]
    loss = torch.stack(losses).sum() / (targets != IGNORE).sum()
    loss.backward()
    return loss, None, weight.grad


def loss_in_chunks__takes_ignore_for_a_token(hidden, weight, targets, chunk):
    log_p = (hidden @ weight.T).log_softmax(dim=-1)
    loss = -log_p.gather(1, targets[:, None]).mean()
    return loss, torch.zeros_like(hidden), torch.zeros_like(weight)


def loss_in_chunks__softmax_over_the_positions(hidden, weight, targets, chunk):
    log_p = (hidden @ weight.T).log_softmax(dim=0)
    loss = F.nll_loss(log_p, targets, ignore_index=IGNORE)
    return loss, torch.zeros_like(hidden), torch.zeros_like(weight)


def loss_in_chunks__works_on_its_arguments(hidden, weight, targets, chunk):
    found = in_chunks(hidden, weight, targets, chunk)
    targets[targets == IGNORE] = 0
    return found


def loss_in_chunks__right__by_one_hot(hidden, weight, targets, chunk):
    return in_chunks(hidden, weight, targets, chunk)


def loss_in_chunks__right__by_accumulation(hidden, weight, targets, chunk):
    hidden.requires_grad_()
    weight.requires_grad_()
    count, total = (targets != IGNORE).sum(), 0.0
    for part, y in zip(hidden.split(chunk), targets.split(chunk), strict=True):
        loss = F.cross_entropy(part @ weight.T, y, ignore_index=IGNORE, reduction="sum") / count
        loss.backward()
        total = total + loss
    return total, hidden.grad, weight.grad

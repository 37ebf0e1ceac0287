"""The usual mistakes of chapter 6, for `course check 6 --package`; see 04_attention.py."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from gpt2.data import IGNORE
from gpt2.decoder import GPT, GPTConfig
from gpt2.training import (
    TrainingConfig,
    evaluate,
    learning_rate,
    new_optimizer,
    next_token_loss,
    parameter_groups,
    train_step,
)

CONFIG = TrainingConfig(n_steps=20, learning_rate=1.0, min_learning_rate=0.1, n_warmup=4)
LOGITS = torch.tensor([[[2.0, 0, 1], [0, 1, 0], [1, 3, 0]]])


class Rows:
    """Two batches of rows, the second of them padded."""

    n_batches = 2

    def batch(self, step):
        x = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]])
        y = torch.tensor([[2, 3, 4, 1], [3, 2, 1, 4]])
        if step % 2:
            y = y.masked_fill(torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]]).bool(), IGNORE)
        return x, y


def tiny():
    torch.manual_seed(0)
    return GPT(GPTConfig(n_vocab=5, n_ctx=4, n_embd=8, n_head=2, n_layer=1)).requires_grad_()


def gradient(backward, first):
    """The gradient's norm for two batches, the loss, the targets, after what was there before."""
    model, rows = tiny(), Rows()
    loss, n = backward(model, [rows.batch(first), rows.batch(first + 1)], "float32")
    norm = sum(float(p.grad.square().sum()) for p in model.parameters()) ** 0.5
    return round(norm, 4), round(float(loss), 4), int(n), loss.requires_grad


def three_steps(step_function, **settings):
    config = TrainingConfig(n_steps=20, n_warmup=2, **settings)
    model = tiny()
    optimizer = new_optimizer(model, config)
    seen = [step_function(model, optimizer, Rows(), step, config) for step in range(3)]
    rates = [group["lr"] for group in optimizer.param_groups]
    return [[round(float(a), 3), round(float(b), 3), c] for a, b, c in seen], rates


def measured(evaluate_function, **settings):
    with torch.no_grad():
        model = tiny().train()
        loss = evaluate_function(model, Rows(), **settings)
    return round(float(loss), 4), model.training


def decays(groups):
    return sorted((g["weight_decay"], sorted(tuple(p.shape) for p in g["params"])) for g in groups)


def settings_of(optimizer):
    first = optimizer.param_groups[0]
    return type(optimizer).__name__, first["lr"], first["betas"], decays(optimizer.param_groups)


EXAMPLES = {
    "learning_rate": ["[round(f(step, CONFIG), 3) for step in (0, 1, 2, 3, 4, 11, 19, 30)]"],
    "next_token_loss": ["round(f(LOGITS, torch.tensor([[0, 1, 1]])).item(), 4)",
                        "round(f(LOGITS, torch.tensor([[0, IGNORE, 2]])).item(), 4)",
                        "f(LOGITS, torch.tensor([[0, 1, 1]])).shape"],
    "parameter_groups": ["decays(f(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)), 0.1))",
                         "decays(f(nn.Embedding(4, 2), 0.1))"],
    "new_optimizer": ["settings_of(f(nn.Linear(2, 3), CONFIG))"],
    "backward": ["gradient(f, 0)", "gradient(f, 1)"],
    "train_step": ["three_steps(f)", "three_steps(f, accumulate=2)", "three_steps(f, clip=0.01)"],
    "evaluate": ["measured(f)", "measured(f, n_batches=1)", "measured(f, n_batches=1, first=1)"],
}  # fmt: skip


def learning_rate__steps_from_1(step, config):
    """Warm-up begins at 0: the first step would move nothing. Step 0 has 1 / n_warmup of the
    peak."""
    return learning_rate(step - 1, config) if step else 0.0


def learning_rate__no_warmup(step, config):
    """There is no warm-up: for n_warmup steps the rate rises linearly."""
    way = min((step + 1) / config.n_steps, 1)
    low, high = config.min_learning_rate, config.learning_rate
    return low + (high - low) * (1 + math.cos(math.pi * way)) / 2


def learning_rate__falls_in_a_line(step, config):
    """After the warm-up the rate falls linearly; it should follow half a cosine."""
    if step < config.n_warmup:
        return learning_rate(step, config)
    way = (step + 1 - config.n_warmup) / (config.n_steps - config.n_warmup)
    low, high = config.min_learning_rate, config.learning_rate
    return high - (high - low) * min(way, 1.0)


def learning_rate__rises_again(step, config):
    """Beyond n_steps the cosine rises again: hold it at the minimum."""
    if step < config.n_warmup:
        return learning_rate(step, config)
    way = (step + 1 - config.n_warmup) / (config.n_steps - config.n_warmup)
    low, high = config.min_learning_rate, config.learning_rate
    return low + (high - low) * (1 + math.cos(math.pi * way)) / 2


def learning_rate__falls_to_0(step, config):
    """The rate falls to 0; it should fall to min_learning_rate."""
    if step < config.n_warmup:
        return learning_rate(step, config)
    way = (step + 1 - config.n_warmup) / (config.n_steps - config.n_warmup)
    return config.learning_rate * (1 + math.cos(math.pi * min(way, 1.0))) / 2


def next_token_loss__shifts_again(logits, targets):
    """Targets are shifted a second time: targets[:, t] follows idx[:, t] already."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten())


def next_token_loss__counts_padding(logits, targets):
    """Ignored targets are in the divisor: the mean is over the targets that count."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / len(
        targets.flatten()
    )


def next_token_loss__sum(logits, targets):
    """This is a sum: return the mean over the targets."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")


def next_token_loss__softmax_twice(logits, targets):
    """cross_entropy takes logits; given probabilities, it applies a second softmax."""
    return F.cross_entropy(logits.softmax(-1).flatten(0, 1), targets.flatten())


def next_token_loss__each(logits, targets):
    """The losses of single tokens are returned: return one number, their mean."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")


def parameter_groups__all_decay(model, weight_decay):
    """Biases and LayerNorms decay too. Only what has two dimensions does."""
    return [{"params": list(model.parameters()), "weight_decay": weight_decay}]


def parameter_groups__exchanged(model, weight_decay):
    """The groups are swapped: matrices and embeddings decay, vectors do not."""
    first, second = parameter_groups(model, weight_decay)
    return [first | {"weight_decay": 0.0}, second | {"weight_decay": weight_decay}]


def new_optimizer__adam(model, config):
    """Adam adds the decay to the gradient, where it is rescaled. AdamW subtracts it from the
    weights directly."""
    return torch.optim.Adam(
        parameter_groups(model, config.weight_decay), lr=config.learning_rate, betas=config.betas
    )


def new_optimizer__default_betas(model, config):
    """betas are PyTorch's defaults, (0.9, 0.999): use those of the configuration."""
    return torch.optim.AdamW(parameter_groups(model, config.weight_decay), lr=config.learning_rate)


def new_optimizer__one_group(model, config):
    """All parameters decay: pass the groups of parameter_groups."""
    return torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
    )


def added(model, batches, weigh):
    counts = [int((y != IGNORE).sum()) for _, y in batches]
    total = torch.zeros(())
    for (x, y), n in zip(batches, counts, strict=True):
        part = next_token_loss(model(x), y) * weigh(n, counts)
        part.backward()
        total += part.detach()
    return total, sum(counts)


def backward__mean_of_means(model, batches, precision):
    """Each batch counts the same, so a token in a padded batch counts more: weight by targets."""
    return added(model, batches, lambda n, counts: 1 / len(counts))


def backward__sum_of_means(model, batches, precision):
    """Losses of batches are added up: with more batches the gradient grows. Take their mean."""
    return added(model, batches, lambda n, counts: 1)


def backward__counts_padding(model, batches, precision):
    """Padding is counted among the targets: y != IGNORE."""
    loss, _ = added(model, batches, lambda n, counts: n / sum(counts))
    return loss, sum(y.numel() for _, y in batches)


def stepped(model, optimizer, batches, step, config, zero=True, clip=True, rate=True, order=True):
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, config) if rate else group["lr"]
    micro = [batches.batch(step * config.accumulate + i) for i in range(config.accumulate)]
    if zero:
        optimizer.zero_grad()
    loss, n = added(model, micro, lambda n, counts: n / sum(counts))
    norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip if clip else math.inf)
    optimizer.step()
    return loss, norm, n


def train_step__gradients_pile_up(*arguments):
    """The gradients of the previous step are still there: optimizer.zero_grad() first."""
    return stepped(*arguments, zero=False)


def train_step__no_clipping(*arguments):
    """The gradient is not clipped: nn.utils.clip_grad_norm_ before the optimizer's step."""
    return stepped(*arguments, clip=False)


def train_step__one_rate(*arguments):
    """The rate never changes: set group["lr"] of each group at every step."""
    return stepped(*arguments, rate=False)


def train_step__same_batches(model, optimizer, batches, step, config):
    """Every step sees the first batches again: step * accumulate is the index of its first
    batch."""
    first = type("First", (), {"batch": lambda self, i: batches.batch(i % config.accumulate)})()
    return train_step(model, optimizer, first, step, config)


def evaluate__mean_of_means(model, batches, n_batches=None, *, first=0, progress=False):
    """Each batch counts the same, but each target should: divide all nats by all targets."""
    steps = range(first, first + (n_batches or batches.n_batches))
    losses = [float(next_token_loss(model(x), y)) for x, y in map(batches.batch, steps)]
    return sum(losses) / len(losses)


def evaluate__leaves_eval_mode(model, batches, n_batches=None, *, first=0, progress=False):
    """The model is left in eval mode: restore its mode."""
    loss = evaluate(model, batches, n_batches, first=first)
    model.eval()
    return loss


def evaluate__from_0(model, batches, n_batches=None, *, first=0, progress=False):
    """`first` is ignored: measure n_batches from there on."""
    return evaluate(model, batches, n_batches)

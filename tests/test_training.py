"""Chapter 6: loss, optimizer, schedule, accumulation, checkpoints that survive a kill."""

import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2 import training
from gpt2.data import IGNORE, PackedWindows, pad_rows
from gpt2.decoder import GPT, GPTConfig
from gpt2.training import (
    CHECKPOINT,
    TrainingConfig,
    backward,
    evaluate,
    learning_rate,
    load_checkpoint,
    load_model,
    new_optimizer,
    next_token_loss,
    parameter_groups,
    read_checkpoint,
    read_metrics,
    save_checkpoint,
    train,
    train_step,
)

SHAPE = GPTConfig(n_vocab=31, n_ctx=8, n_embd=16, n_head=2, n_layer=2)
SHORT = TrainingConfig(n_steps=12, n_warmup=3, log_every=1, save_every=4)
TOKENS = np.random.default_rng(0).integers(0, 31, 400).astype(np.uint16)


@pytest.fixture(autouse=True)
def one_thread():
    """Bit-equality is promised for the same machine and number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def new_model(seed: int = 0) -> GPT:
    torch.manual_seed(seed)
    return GPT(SHAPE)


def windows() -> PackedWindows:
    return PackedWindows(TOKENS, SHAPE.n_ctx, batch_size=4, seed=0)


def gradient(model: GPT) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


# --- the loss, against transformers, which shifts the labels itself


def reference_loss(model: GPT, ids: Tensor) -> Tensor:
    """The loss of the transformers library with our weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=SHAPE.n_vocab, n_positions=ids.size(1), n_embd=SHAPE.n_embd,
        n_head=SHAPE.n_head, n_layer=SHAPE.n_layer, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
    )  # fmt: skip
    reference = GPT2LMHeadModel(config).eval()
    weights = {}
    for name, value in model.state_dict().items():
        linear = name.endswith("weight") and any(
            part in name for part in ("c_attn", "c_proj", "c_fc")
        )
        weights[f"transformer.{name}"] = value.T if linear else value
    reference.load_state_dict(weights, strict=False)
    return reference(ids, labels=ids).loss


def check_shift(backward: Callable) -> None:
    """One window of T + 1 tokens, given as (x, y): the loss that labels = ids gives."""
    model = new_model()
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)  # far from uniform, so that a wrong target is seen
    model.wpe = nn.Embedding.from_pretrained(torch.randn(9, SHAPE.n_embd))
    ids = torch.randint(SHAPE.n_vocab, (3, 9))
    loss, n_targets = backward(model, [(ids[:, :-1], ids[:, 1:])], "float32")
    assert n_targets == 24
    torch.testing.assert_close(loss, reference_loss(model, ids), rtol=1e-5, atol=1e-5)


def not_shifted(model, batches, precision):
    return backward(model, [(x, x) for x, _ in batches], precision)


def shifted_twice(model, batches, precision):
    (x, y) = batches[0]
    again = torch.cat((y[:, 1:], torch.full_like(y[:, :1], IGNORE)), dim=1)
    return backward(model, [(x, again)], precision)[0], y.numel()


def test_loss_is_that_of_transformers_with_shifted_labels():
    check_shift(backward)


@pytest.mark.parametrize("mutant", [not_shifted, shifted_twice])
def test_targets_not_shifted_or_shifted_twice_are_seen(mutant):
    with pytest.raises(AssertionError):
        check_shift(mutant)


def test_loss_is_cross_entropy_over_the_targets_that_count():
    logits, targets = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
    targets[0, 3:] = IGNORE
    by_hand = -torch.stack(
        [
            logits[b, t].log_softmax(-1)[targets[b, t]]
            for b in range(2)
            for t in range(5)
            if targets[b, t] != IGNORE
        ]
    ).mean()
    torch.testing.assert_close(next_token_loss(logits, targets), by_hand, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (6,), (2, 3), (2, 3, 4)])
def test_loss_takes_logits_of_any_number_of_dimensions(shape):
    logits, targets = torch.randn(*shape, 7), torch.randint(7, shape)
    expected = F.cross_entropy(logits.reshape(-1, 7), targets.reshape(-1))
    assert torch.equal(next_token_loss(logits, targets), expected)


@pytest.mark.parametrize(
    ("logits", "targets"),
    [((2, 3, 7), (2, 4)), ((2, 7, 3), (2, 3)), ((6, 7), (2, 3)), ((2, 3, 7), (6,)), ((7,), (7,))],
)
def test_shapes_that_do_not_fit_are_named(logits, targets):
    with pytest.raises(ValueError) as error:
        next_token_loss(torch.zeros(logits), torch.zeros(targets, dtype=torch.int64))
    says = str(error.value)
    assert f"logits {logits} need targets {logits[:-1]}, not {targets}" in says
    assert "the vocabulary is the last dimension" in says


def test_uniform_logits_cost_ln_v():
    loss = next_token_loss(torch.zeros(2, 3, 50257), torch.randint(50257, (2, 3)))
    assert float(loss) == pytest.approx(math.log(50257), abs=1e-5)


# --- AdamW


def adamw_by_hand(p, grads, lr, betas, decay, eps=1e-8):
    """Algorithm 2 of Loshchilov and Hutter (2019), in float64."""
    p, m, v = p.double().clone(), 0.0, 0.0
    for t, g in enumerate(grads, start=1):
        g = g.double()
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        p = p - lr * (m_hat / (v_hat.sqrt() + eps) + decay * p)
    return p.float()


def check_optimizer(new_optimizer: Callable) -> None:
    """Five steps equal the algorithm, and the matrix decays, the bias and the LayerNorm do not."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    config = TrainingConfig(learning_rate=0.1, min_learning_rate=0.01, weight_decay=0.5)
    begin = [p.detach().clone() for p in model.parameters()]
    grads = [[torch.randn_like(p) for p in model.parameters()] for _ in range(5)]
    optimizer = new_optimizer(model, config)
    for step in grads:
        for p, g in zip(model.parameters(), step, strict=True):
            p.grad = g
        optimizer.step()
    for i, p in enumerate(model.parameters()):
        decay = 0.5 if p.dim() == 2 else 0.0
        expected = adamw_by_hand(begin[i], [g[i] for g in grads], 0.1, config.betas, decay)
        torch.testing.assert_close(p.detach(), expected, rtol=1e-5, atol=1e-5)


def decays_everything(model, config):
    return torch.optim.AdamW(
        model.parameters(), config.learning_rate, config.betas, weight_decay=config.weight_decay
    )


def decay_in_the_gradient(model, config):
    groups = parameter_groups(model, config.weight_decay)
    return torch.optim.Adam(groups, config.learning_rate, config.betas)


def test_optimizer_is_adamw_with_decay_on_matrices_alone():
    check_optimizer(new_optimizer)


@pytest.mark.parametrize("mutant", [decays_everything, decay_in_the_gradient])
def test_decay_on_biases_or_in_the_gradient_is_seen(mutant):
    with pytest.raises(AssertionError):
        check_optimizer(mutant)


def test_every_parameter_is_in_one_group_and_names_tell_which():
    model = new_model()
    decayed, kept = (group["params"] for group in parameter_groups(model, 0.1))
    assert len(decayed) + len(kept) == len(list(model.parameters()))
    ids = {id(p) for p in decayed}
    for name, p in model.named_parameters():
        assert (id(p) in ids) == (name.endswith("weight") and "ln_" not in name), name


# --- the schedule


def check_schedule(learning_rate: Callable) -> None:
    """The schedule of transformers, whose step 0 is the start and not the first step."""
    from transformers import get_cosine_with_min_lr_schedule_with_warmup

    config = TrainingConfig(n_steps=40, n_warmup=7, learning_rate=0.5, min_learning_rate=0.1)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    reference = get_cosine_with_min_lr_schedule_with_warmup(optimizer, 7, 40, min_lr=0.1)
    for step in range(40):
        optimizer.step()
        reference.step()
        assert learning_rate(step, config) == pytest.approx(reference.get_last_lr()[0], abs=1e-12)
    assert learning_rate(6, config) == 0.5
    assert learning_rate(39, config) == pytest.approx(0.1, abs=1e-12)


def test_schedule_is_warm_up_and_cosine():
    check_schedule(learning_rate)


@pytest.mark.parametrize("shift", [-1, 1])
def test_schedule_off_by_one_is_seen(shift):
    with pytest.raises(AssertionError):
        check_schedule(lambda step, config: learning_rate(step + shift, config))


@given(st.integers(1, 300), st.integers(0, 299))
def test_rate_stays_above_zero_and_below_the_peak(n_steps, n_warmup):
    config = TrainingConfig(n_steps=n_steps, n_warmup=min(n_warmup, n_steps - 1))
    rates = [learning_rate(step, config) for step in range(n_steps)]
    assert all(0 < rate <= config.learning_rate for rate in rates)
    assert rates[-1] == pytest.approx(config.min_learning_rate)
    falling = rates[max(config.n_warmup - 1, 0) :]
    assert falling == sorted(falling, reverse=True)


@given(st.floats(1e-8, 1.0), st.integers(1, 100_000))
def test_minimum_and_warm_up_follow_from_peak_and_length(peak, n_steps):
    config = TrainingConfig(n_steps=n_steps, learning_rate=peak)
    assert config.min_learning_rate == pytest.approx(peak / 10, abs=1e-12)
    assert config.n_warmup == min(100, n_steps // 10)
    assert TrainingConfig(n_steps=n_steps, n_warmup=0).n_warmup == 0  # 0 is given
    assert TrainingConfig(learning_rate=peak, min_learning_rate=0.0).min_learning_rate == 0


def test_defaults_are_those_of_runs_before_they_were_derived():
    config = TrainingConfig()
    assert (config.min_learning_rate, config.n_warmup) == (3e-4, 100)
    assert TrainingConfig(learning_rate=1e-4).min_learning_rate == pytest.approx(1e-5, rel=1e-9)
    assert TrainingConfig(n_steps=50).n_warmup == 5


def test_rate_stays_at_the_minimum_after_the_schedule():
    rates = {learning_rate(step, SHORT) for step in range(SHORT.n_steps - 1, 50)}
    assert rates == {SHORT.min_learning_rate}


# --- gradients: accumulation, clipping, precision


def check_accumulation(backward: Callable, lengths: list[int]) -> None:
    """Rows one by one, or padded into one batch: the same loss and gradient."""
    rows = [torch.randint(31, (n,)).tolist() for n in lengths]
    model = new_model()
    whole, n_whole = backward(model, [pad_rows(rows, 30, SHAPE.n_ctx)], "float32")
    expected = gradient(model)
    model.zero_grad()
    parts, n_parts = backward(model, [pad_rows([row], 30, SHAPE.n_ctx) for row in rows], "float32")
    assert n_whole == n_parts
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient(model), expected, rtol=1e-5, atol=1e-6)


def mean_of_means(model, batches, precision):
    loss, n = torch.zeros(()), 0
    for x, y in batches:
        part = next_token_loss(model(x), y) / len(batches)
        part.backward()
        loss, n = loss + part.detach(), n + int((y != IGNORE).sum())
    return loss, n


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=4))
def test_accumulation_equals_the_large_batch(lengths):
    check_accumulation(backward, lengths)


def test_mean_of_means_with_unequal_padding_is_seen():
    check_accumulation(mean_of_means, [5, 5])  # it passes where all rows are alike
    with pytest.raises(AssertionError):
        check_accumulation(mean_of_means, [1, 7])


def test_a_step_takes_accumulate_batches_and_no_batch_twice():
    asked = []

    class Listening(PackedWindows):
        def batch(self, step):
            asked.append(step)
            return super().batch(step)

    config = TrainingConfig(n_steps=5, n_warmup=0, accumulate=3)
    model, batches = new_model(), Listening(TOKENS, 8, 2)
    optimizer = new_optimizer(model, config)
    for step in range(4):
        train_step(model, optimizer, batches, step, config)
    assert asked == list(range(12))


def check_clip(train_step: Callable) -> None:
    """With plain descent, the weights move by exactly rate times clip if the gradient is longer."""
    config = TrainingConfig(
        n_steps=10, n_warmup=0, clip=0.01, learning_rate=1.0, min_learning_rate=1.0
    )
    model = new_model()
    begin = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    _, grad_norm, _ = train_step(model, optimizer, windows(), 0, config)
    assert grad_norm > 0.1  # as it was before clipping
    moved = nn.utils.parameters_to_vector(model.parameters()).detach() - begin
    assert float(moved.norm()) == pytest.approx(0.01, rel=1e-3)


def clip_after_the_step(model, optimizer, batches, step, config):
    optimizer.zero_grad()
    loss, n = backward(model, [batches.batch(step)], config.precision)
    optimizer.step()
    return loss, nn.utils.clip_grad_norm_(model.parameters(), config.clip), n


def test_gradient_is_clipped_before_the_step():
    check_clip(train_step)


def test_clip_after_the_step_is_seen():
    with pytest.raises(AssertionError):
        check_clip(clip_after_the_step)


def test_bfloat16_rounds_products_and_leaves_weights_and_gradients_in_float32():
    model, batch = new_model(), windows().batch(0)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(batch[0]).dtype == torch.bfloat16
    low, _ = backward(model, [batch], "bfloat16")
    assert {p.dtype for p in model.parameters()} == {gradient(model).dtype} == {torch.float32}
    model.zero_grad()
    exact, _ = backward(model, [batch], "float32")
    assert 0 < abs(float(low - exact)) < 0.01


def test_evaluate_is_the_mean_over_all_targets_whatever_the_batches():
    model, tokens = new_model(), TOKENS[:50]
    losses = []
    for i in range(49):
        start = min(i // 8 * 8, 50 - 9)  # the last window reaches back, and its repeats are ignored
        ids = torch.from_numpy(tokens[start : i + 1].astype(np.int64))[None]
        logits = model(ids).detach()
        losses.append(float(F.cross_entropy(logits[0, -1], torch.tensor(int(tokens[i + 1])))))
    for batch_size in (1, 3, 64):
        found = evaluate(model, PackedWindows(tokens, 8, batch_size, seed=batch_size))
        assert found == pytest.approx(sum(losses) / 49, abs=1e-5)
    assert model.training


def test_evaluate_from_a_batch_on_and_with_a_bar(capsys):
    model, batches = new_model(), windows()
    x, y = batches.batch(20)  # of the second epoch
    assert evaluate(model, batches, 1, first=20) == pytest.approx(
        next_token_loss(model(x), y).item(), abs=1e-6
    )
    assert not capsys.readouterr().err
    shown = evaluate(model, batches, progress=True)
    assert "measuring" in (bar := capsys.readouterr().err) and f"/{batches.n_batches}" in bar
    assert shown == evaluate(model, batches)


# --- checkpoints and resume


class Interrupted(Exception):
    """What stops a run in these tests, where no real kill is needed."""


class Breaking(PackedWindows):
    """Windows that stop the run when it trains on batch number `stop`."""

    stop, looked = -1, False

    def batch(self, step):
        if step == self.stop and self.looked:
            raise Interrupted
        self.looked = True  # the run looks at a batch before it begins
        return super().batch(step)


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return read_checkpoint(folder / CHECKPOINT)[1]


def assert_same_run(a: Path, b: Path) -> None:
    """Two runs left the same bits, and the same measurements but for the time."""
    one, two = tensors_of(a), tensors_of(b)
    assert one.keys() == two.keys()
    assert not [name for name in one if not torch.equal(one[name], two[name])]
    rows = [read_metrics(folder / "metrics.csv") for folder in (a, b)]
    for row in rows[0] + rows[1]:
        row.pop("tokens_per_second")
    assert rows[0] == rows[1]


def run(folder: Path, stop: int = -1, model: Callable = new_model, **options) -> None:
    batches = Breaking(TOKENS, SHAPE.n_ctx, 4)
    batches.stop = stop
    train(model(), batches, SHORT, folder, windows(), progress=False, **options)


def check_resume(folder: Path, stop: int, model: Callable = new_model) -> None:
    """A run that breaks at step `stop` and is resumed is the run that did not."""
    run(folder / "whole", model=model)
    with pytest.raises(Interrupted):
        run(folder / "broken", stop=stop, model=model)
    torch.manual_seed(99)  # a new process would not find the old generator
    run(folder / "broken", model=model, resume=True)
    assert_same_run(folder / "whole", folder / "broken")


@pytest.mark.parametrize("stop", [0, 1, 3, 4, 5, 8, 11])
def test_resume_is_bit_equal(tmp_path, stop):
    check_resume(tmp_path, stop)


class Dropping(GPT):
    """A reader's model that draws random numbers in each step."""

    def forward(self, idx, past=None):
        return F.dropout(super().forward(idx, past), 0.5, self.training)


def dropping(seed: int = 0) -> GPT:
    torch.manual_seed(seed)
    return Dropping(SHAPE)


def test_resume_is_bit_equal_where_the_model_draws_random_numbers(tmp_path):
    check_resume(tmp_path, 6, dropping)


def test_the_bar_says_what_the_last_minutes_are_spent_on(tmp_path, capsys):
    batches = Breaking(TOKENS, SHAPE.n_ctx, 4)
    train(new_model(), batches, SHORT, tmp_path, windows())
    shown = capsys.readouterr().err
    assert re.search(r"12/12 [^\r]*measuring the validation loss", shown), shown


@pytest.mark.parametrize("stop", [None, 12, 14])
def test_training_further_goes_on_at_the_minimum(tmp_path, stop):
    """Beyond the schedule: in one go, from the end of the run, or from a kill after it."""
    run(tmp_path / "whole", until=20)
    if stop is None:
        run(tmp_path / "further")
    else:
        with pytest.raises(Interrupted):
            run(tmp_path / "further", stop=stop, until=20)
    run(tmp_path / "further", resume=True, until=20)
    one, two = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "further")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    header = read_checkpoint(tmp_path / "further" / CHECKPOINT)[0]
    assert header["step"] == 20 and header["training"]["n_steps"] == SHORT.n_steps
    rows = read_metrics(tmp_path / "further" / "metrics.csv")
    assert [row["step"] for row in rows] == list(range(1, 21))
    assert {row["learning_rate"] for row in rows[11:]} == {SHORT.min_learning_rate}
    before = (tmp_path / "further" / CHECKPOINT).read_bytes()
    run(tmp_path / "further", resume=True)  # its own end lies behind it: nothing to do
    assert (tmp_path / "further" / CHECKPOINT).read_bytes() == before


def test_until_stops_early_and_the_rest_is_the_same_run(tmp_path):
    run(tmp_path / "whole")
    run(tmp_path / "parts", until=8)
    assert read_checkpoint(tmp_path / "parts" / CHECKPOINT)[0]["step"] == 8
    run(tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_callback_sees_each_step_and_changes_nothing(tmp_path):
    seen = []
    run(tmp_path / "seen", on_step=lambda step, loss, n: seen.append((step, float(loss), n)))
    run(tmp_path / "alone")
    assert_same_run(tmp_path / "seen", tmp_path / "alone")
    losses = [(row["step"], row["loss"]) for row in read_metrics(tmp_path / "alone/metrics.csv")]
    batches = Breaking(TOKENS, SHAPE.n_ctx, 4)
    counts = [int((batches.batch(step)[1] != IGNORE).sum()) for step in range(12)]
    assert seen == [(*both, n) for both, n in zip(losses, counts, strict=True)]


def test_speed_counts_every_target_of_the_steps_between(tmp_path, monkeypatch):
    """On a clock of one second a reading, tokens a second are the tokens since the last row."""
    ticks = iter(range(1000))
    monkeypatch.setattr(training, "perf_counter", lambda: next(ticks))
    rows = [pad_rows([[1] * n], 30, SHAPE.n_ctx) for n in (1, 5, 2, 3)]

    class Uneven(PackedWindows):
        def batch(self, step):
            return rows[step % 4]

    config = TrainingConfig(n_steps=8, n_warmup=0, log_every=4, save_every=3)
    train(new_model(), Uneven(TOKENS, 8, 4), config, tmp_path, progress=False)
    counts = [int((y != IGNORE).sum()) for _, y in rows] * 2
    ends = [0, 3, 4, 6, 8]
    speeds = [row["tokens_per_second"] for row in read_metrics(tmp_path / "metrics.csv")]
    assert speeds == [sum(counts[a:b]) for a, b in pairwise(ends)]


def forgets_the_optimizer(path, model, optimizer, config):
    step = load_checkpoint(path, model, optimizer, config)
    optimizer.state.clear()
    return step


def forgets_the_weights(path, model, optimizer, config):
    fresh = new_model(1).state_dict()
    step = load_checkpoint(path, model, optimizer, config)
    model.load_state_dict(fresh)
    return step


def forgets_the_step(path, model, optimizer, config):
    load_checkpoint(path, model, optimizer, config)
    return 0


@pytest.mark.parametrize("mutant", [forgets_the_optimizer, forgets_the_weights, forgets_the_step])
def test_resume_that_forgets_is_seen(tmp_path, monkeypatch, mutant):
    monkeypatch.setattr(training, "load_checkpoint", mutant)
    with pytest.raises(AssertionError):
        check_resume(tmp_path, 6)


def test_resume_that_restarts_the_data_is_seen(tmp_path, monkeypatch):
    def restarts(path, model, optimizer, config):
        start = load_checkpoint(path, model, optimizer, config)
        honest = Breaking.batch
        monkeypatch.setattr(Breaking, "batch", lambda self, step: honest(self, step - start))
        return start

    monkeypatch.setattr(training, "load_checkpoint", restarts)
    with pytest.raises(AssertionError):
        check_resume(tmp_path, 6)


def test_resume_that_forgets_the_random_state_is_seen(tmp_path, monkeypatch):
    def forgets(path, model, optimizer, config):
        step = load_checkpoint(path, model, optimizer, config)
        torch.manual_seed(5)
        return step

    monkeypatch.setattr(training, "load_checkpoint", forgets)
    with pytest.raises(AssertionError):
        check_resume(tmp_path, 6, dropping)


KILLED = """
import os, signal, sys, resource
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
import test_training as t
from gpt2 import training

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

{how}
t.run(t.Path({folder!r}))
"""

KILL_IN_A_STEP = """
honest = t.Breaking.batch
t.Breaking.batch = lambda self, step: die() if step == 7 else honest(self, step)
"""
KILL_IN_A_SAVE = """
count, honest = [], os.replace
def replace(source, target):
    if str(target).endswith(t.CHECKPOINT):
        count.append(1)
        if len(count) == 3:  # steps 0, 4 and now 8: written, not yet in its place
            die()
    honest(source, target)
os.replace = replace
"""
FULL_DISK = """
import resource
honest = t.training.save_file
def save_file(tensors, path, header):
    if len(tensors) > {limit}:  # with AdamW's memory: more room than there is
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    honest(tensors, path, header)
t.training.save_file = save_file
"""


def run_elsewhere(folder: Path, how: str) -> subprocess.CompletedProcess[str]:
    script = KILLED.format(tests=str(Path(__file__).parent), folder=str(folder), how=how)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )


posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and limits")


@posix
@pytest.mark.parametrize("how", [KILL_IN_A_STEP, KILL_IN_A_SAVE], ids=["step", "save"])
def test_resume_after_a_real_kill_is_bit_equal(tmp_path, how):
    assert run_elsewhere(tmp_path / "killed", how).returncode == -signal.SIGKILL
    assert read_checkpoint(tmp_path / "killed" / CHECKPOINT)[0]["step"] == 4
    run(tmp_path / "killed", resume=True)
    run(tmp_path / "whole")
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


@posix
@pytest.mark.parametrize("limit", [40, 0], ids=["later", "at the start"])
def test_full_disk_is_named_and_its_cure_works(tmp_path, limit):
    result = run_elsewhere(tmp_path / "run", FULL_DISK.replace("{limit}", str(limit)))
    assert result.returncode == 1
    assert "OSError: cannot write" in result.stderr and "Free some space" in result.stderr
    assert not list((tmp_path / "run").glob("*.tmp"))
    started = limit > 0
    cure = "resume: the previous checkpoint is intact" if started else "start again: nothing"
    assert f"then {cure}" in result.stderr
    assert (tmp_path / "run" / CHECKPOINT).exists() == started
    run(tmp_path / "run", resume=started)
    run(tmp_path / "whole")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_metrics_hold_each_step_once_and_no_half_row(tmp_path):
    run(tmp_path)
    path = tmp_path / "metrics.csv"
    assert [row["step"] for row in read_metrics(path)] == list(range(1, 13))
    assert [row["step"] for row in read_metrics(path) if row["validation"]] == [4, 8, 12]
    path.write_text(path.read_text() + "13,2.5,0.")  # a kill in the middle of a row
    assert [row["step"] for row in read_metrics(path)] == list(range(1, 13))
    training._open_metrics(path, 6)
    with path.open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == list("123456")


def test_a_byte_order_mark_in_the_metrics_is_no_part_of_a_name(tmp_path):
    """A spreadsheet that has saved the table leaves one; the run goes on all the same."""
    with pytest.raises(Interrupted):
        run(tmp_path / "broken", stop=6)
    path = tmp_path / "broken" / "metrics.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [row["step"] for row in read_metrics(str(path))] == list(range(1, 7))
    run(tmp_path / "broken", resume=True)
    run(tmp_path / "whole")
    assert_same_run(tmp_path / "whole", tmp_path / "broken")
    assert path.read_bytes().startswith(b"step,loss")


def test_load_model_reads_what_was_trained(tmp_path):
    run(tmp_path)
    model = load_model(tmp_path)
    weights = tensors_of(tmp_path)
    assert model.config == SHAPE and not model.training
    assert all(torch.equal(v, weights[f"model.{k}"]) for k, v in model.state_dict().items())
    for path in (tmp_path / CHECKPOINT, str(tmp_path / CHECKPOINT), str(tmp_path)):
        assert evaluate(load_model(path), windows()) == evaluate(model, windows())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_model_comes_back_in_the_precision_it_was_saved_in(tmp_path, dtype):
    model, path = new_model().to(dtype), str(tmp_path / CHECKPOINT)
    save_checkpoint(path, model, new_optimizer(model, SHORT), 3, SHORT)
    again = load_model(path).state_dict()
    assert all(again[k].dtype == dtype for k in again)
    assert all(torch.equal(again[k], v) for k, v in model.state_dict().items())
    assert load_checkpoint(path, model, new_optimizer(model, SHORT), SHORT) == 3
    other = new_model().to(torch.float16)
    with pytest.raises(
        ValueError, match=r"wte.weight is .* in torch\.\w+ in the file and .*float16"
    ):
        load_checkpoint(path, other, new_optimizer(other, SHORT), SHORT)


def test_reading_leaves_no_hold_on_the_file(tmp_path):
    """A file that is mapped into memory cannot be replaced on Windows."""
    run(tmp_path)
    path = tmp_path / CHECKPOINT
    model = new_model()
    optimizer = new_optimizer(model, SHORT)
    load_checkpoint(path, model, optimizer, SHORT)
    held = [*read_checkpoint(path)[1].values(), *load_model(path).state_dict().values()]
    held += [value for state in optimizer.state.values() for value in state.values()]
    assert all(t.untyped_storage().nbytes() == t.nbytes for t in held)  # of the whole file, no view
    maps = Path("/proc/self/maps")
    assert not maps.exists() or path.name not in maps.read_text()


def test_training_overfits_one_batch(tmp_path):
    config = TrainingConfig(n_steps=150, n_warmup=10, learning_rate=1e-2)
    tokens = TOKENS[:33]
    train(new_model(), PackedWindows(tokens, 8, 4), config, tmp_path, progress=False)
    assert evaluate(load_model(tmp_path), PackedWindows(tokens, 8, 4)) < 0.1


# --- errors that come early and say what to do


def test_a_folder_with_a_run_is_never_written_over(tmp_path):
    run(tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes(), (tmp_path / "metrics.csv").read_bytes()
    with pytest.raises(FileExistsError, match="resume it, or use another folder"):
        run(tmp_path)
    assert before == ((tmp_path / CHECKPOINT).read_bytes(), (tmp_path / "metrics.csv").read_bytes())


def test_resume_without_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .* train first"):
        run(tmp_path / "nothing", resume=True)


def test_checkpoint_of_another_configuration(tmp_path):
    model = new_model()
    path = tmp_path / CHECKPOINT
    save_checkpoint(path, model, new_optimizer(model, SHORT), 4, SHORT)
    other = GPT(GPTConfig(n_vocab=32, n_ctx=8, n_embd=16, n_head=2, n_layer=2))
    with pytest.raises(ValueError, match=r"n_vocab = 31 \(not 32\)"):
        load_checkpoint(path, other, new_optimizer(other, SHORT), SHORT)
    longer = TrainingConfig(n_steps=13, n_warmup=3, log_every=1, save_every=4)
    with pytest.raises(ValueError, match=r"n_steps = 12 \(not 13\)"):
        load_checkpoint(path, model, new_optimizer(model, longer), longer)


def refused(path: Path) -> str:
    """What loading a file says: one line, not a long one, that names the file."""
    with pytest.raises(ValueError) as error:
        load_model(path)
    says = str(error.value)
    assert str(path) in says and "\n" not in says and len(says) - len(str(path)) < 300, says
    return says


def test_damaged_checkpoints_are_named(tmp_path):
    path = tmp_path / CHECKPOINT
    run(tmp_path / "run")
    whole = (tmp_path / "run" / CHECKPOINT).read_bytes()
    for content in (b"", b"not a checkpoint", whole[: len(whole) // 2], whole[:50]):
        path.write_bytes(content)
        assert "damaged or not a checkpoint" in refused(path)
    torch.save({"model": torch.zeros(100_000)}, path)  # a pickle by another name
    assert "damaged or not a checkpoint" in refused(path)


SETTINGS = {"step": "12", "model": "{}", "training": "{}"}


@pytest.mark.parametrize(
    "header",
    [
        {"format": "pt"},
        None,
        {"step": "12"},
        {"note": "x" * 1_000_000},
        SETTINGS | {"model": "gpt2"},
        SETTINGS | {"training": "[1, 2]"},
        SETTINGS | {"step": '"twelve"'},
    ],
)
def test_safetensors_of_other_origin_are_said_to_be_that(tmp_path, header):
    path = tmp_path / "model.safetensors"
    training.save_file({"a": torch.zeros(1)}, path, header)
    says = refused(path)
    assert "a safetensors file, but not a checkpoint of this trainer" in says
    assert "damaged" not in says and "a file that `train` has written" in says
    assert header != {"format": "pt"} or "{'format': 'pt'}" in says


@pytest.mark.parametrize(
    ("model", "weights", "message"),
    [
        ('{"n_vocab": 31, "n_colors": 3}', {}, "holds no GPT: .*n_colors"),
        ('{"n_embd": 10, "n_head": 3}', {}, "holds no GPT: .*n_head"),
        ("{}", {}, "wte.weight is missing in the file"),
        ("{}", {"model.wte.weight": torch.zeros(3, 2)}, r"wte.weight is \(3, 2\) in torch.float32"),
        ("{}", {"model.more": torch.zeros(3, dtype=torch.int8)}, "missing in the file"),
    ],
)
def test_checkpoints_of_another_kind_of_model_are_named(
    tmp_path, monkeypatch, model, weights, message
):
    monkeypatch.setattr(training, "GPTConfig", small_config)
    path = tmp_path / "model.safetensors"
    training.save_file(weights or {"a": torch.zeros(1)}, path, SETTINGS | {"model": model})
    assert re.search(message, refused(path))


def small_config(**given) -> GPTConfig:
    return replace(SHAPE, **given)


def test_a_left_over_weight_is_named(tmp_path):
    model, path = new_model(), tmp_path / CHECKPOINT
    model.extra = nn.Linear(2, 3, bias=False)
    save_checkpoint(path, model, new_optimizer(model, SHORT), 0, SHORT)
    assert "extra.weight is (3, 2) in torch.float32 in the file and missing" in refused(path)


def test_weights_alone_are_no_run_to_resume(tmp_path):
    model, path = new_model(), tmp_path / CHECKPOINT
    save_checkpoint(path, model, new_optimizer(model, SHORT), 4, SHORT)
    header = {k: json.dumps(v) for k, v in read_checkpoint(path)[0].items()}
    training.save_file(read_checkpoint(path, "model.")[1], path, header)
    assert evaluate(load_model(path), windows()) == evaluate(model, windows())
    with pytest.raises(ValueError, match="holds weights only: use them to begin a new run"):
        load_checkpoint(path, model, new_optimizer(model, SHORT), SHORT)


def test_a_checkpoint_from_before_minimum_and_warm_up_were_derived(tmp_path):
    """Its header holds the same names; it is resumed under them, or refused with the numbers."""
    given = {"n_steps": 40, "n_warmup": 20, "learning_rate": 3e-3, "min_learning_rate": 3e-4}
    model, path = new_model(), tmp_path / CHECKPOINT
    save_checkpoint(path, model, new_optimizer(model, SHORT), 4, TrainingConfig(**given))
    saved = read_checkpoint(path)[0]["training"]
    assert {name: saved[name] for name in given} == given
    assert load_checkpoint(path, model, new_optimizer(model, SHORT), TrainingConfig(**given)) == 4
    derived = TrainingConfig(n_steps=40, learning_rate=3e-3)
    with pytest.raises(ValueError, match=r"configuration, n_warmup = 20 \(not 4\): resume"):
        load_checkpoint(path, model, new_optimizer(model, SHORT), derived)
    save_checkpoint(path, model, new_optimizer(model, SHORT), 4, derived)
    saved = read_checkpoint(path)[0]["training"]
    assert (saved["min_learning_rate"], saved["n_warmup"]) == (3e-4, 4)


def test_vocabulary_mismatch_is_found_before_anything_is_made(tmp_path):
    foreign = PackedWindows(np.full(100, 31, dtype=np.uint16), 8, 4)
    with pytest.raises(ValueError, match="31 is outside the vocabulary of 31"):
        train(new_model(), foreign, SHORT, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_step_checks_no_ids(monkeypatch):
    """They are checked where they are read, and once at the start of a run."""
    monkeypatch.setattr(training, "check_ids", lambda *_: pytest.fail("ids checked in a step"))
    model = new_model()
    train_step(model, new_optimizer(model, SHORT), windows(), 0, SHORT)


def test_text_shorter_than_a_window():
    with pytest.raises(ValueError, match="too few"):
        PackedWindows(TOKENS[:8], 8, 4)


def test_a_run_that_blows_up_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    class Sick(GPT):
        n_calls = 0

        def forward(self, idx, past=None):
            self.n_calls += 1
            return super().forward(idx, past) * (float("nan") if self.n_calls > 30 else 1.0)

    config = TrainingConfig(n_steps=60, n_warmup=3, log_every=20, save_every=25)
    with pytest.raises(FloatingPointError, match="at step 40: the run has diverged"):
        train(Sick(SHAPE), windows(), config, tmp_path, progress=False)
    assert read_checkpoint(tmp_path / CHECKPOINT)[0]["step"] == 25
    assert all(t.isfinite().all() for t in tensors_of(tmp_path).values())


@pytest.mark.parametrize("rate", [1e12, 1e38])
@pytest.mark.parametrize("validation", [windows, lambda: None], ids=["validation", "none"])
@pytest.mark.parametrize("n_steps", [1, 4])
def test_a_last_step_that_ruins_the_model_is_not_saved(tmp_path, rate, validation, n_steps):
    """The loss before the step is fine; the weights after it are not. And the cure works."""
    given = {"n_steps": n_steps, "n_warmup": n_steps - 1, "save_every": 1}
    wild = TrainingConfig(learning_rate=rate, **given)
    message = "at step 1: the run has diverged. Start again in another folder, with a lower"
    with pytest.raises(FloatingPointError, match=message):
        train(new_model(), windows(), wild, tmp_path / "a", validation(), progress=False)
    assert read_checkpoint(tmp_path / "a" / CHECKPOINT)[0]["step"] == 0
    assert math.isfinite(evaluate(load_model(tmp_path / "a"), windows()))
    calm = TrainingConfig(learning_rate=1e-3, **given)
    train(new_model(), windows(), calm, tmp_path / "b", validation(), progress=False)
    assert math.isfinite(evaluate(load_model(tmp_path / "b"), windows()))


@pytest.mark.parametrize(
    ("knob", "message"),
    [
        ({"precision": "float16"}, "float32.*bfloat16"),
        ({"n_steps": 0}, "n_steps = 0"),
        ({"n_steps": 50, "n_warmup": 100}, "n_warmup = 100: take 0 to 49"),
        ({"n_warmup": -1}, "n_warmup = -1: take 0 to 1999"),
        ({"accumulate": 0}, "accumulate = 0"),
        ({"learning_rate": float("nan")}, "learning_rate = nan"),
        ({"min_learning_rate": 1.0}, "min_learning_rate = 1.0"),
        ({"learning_rate": 1e-4, "min_learning_rate": 3e-4}, "min_learning_rate = 0.0003"),
        ({"learning_rate": float("inf")}, "learning_rate = inf: take finite ones"),
    ],
)
def test_wrong_knobs_are_named(knob, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**knob)

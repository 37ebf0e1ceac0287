"""Training: the loss, AdamW, a schedule, and checkpoints that survive a kill. Chapter 6."""

import csv
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from gpt2.data import IGNORE, Batch, Batches, check_ids
from gpt2.decoder import GPT, GPTConfig
from gpt2.tokenizer import atomic_file

CHECKPOINT = "checkpoint.safetensors"
COLUMNS = (
    "step",
    "loss",
    "grad_norm",
    "learning_rate",
    "tokens_per_second",
    "validation",
)


@dataclass(frozen=True)
class TrainingConfig:
    """The knobs of a run. A checkpoint holds them and resumes under the same ones only."""

    n_steps: int = 2000
    learning_rate: float = 3e-3  # at the peak
    min_learning_rate: float = 3e-4  # at the last step
    n_warmup: int = 100  # steps
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1  # of matrices, see `parameter_groups`
    clip: float = 1.0  # largest norm of the gradient
    accumulate: int = 1  # batches a step
    precision: str = "float32"  # or "bfloat16", by autocast
    compile: bool = False
    log_every: int = 10  # steps
    save_every: int = 250  # steps
    n_validation: int = 50  # batches that are measured at each checkpoint

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(
                f"precision {self.precision!r}: take 'float32' or 'bfloat16'."
            )
        for name in (
            "n_steps",
            "accumulate",
            "log_every",
            "save_every",
            "clip",
            "learning_rate",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)}: it must be above 0.")
        if not 0 <= self.n_warmup < self.n_steps:
            raise ValueError(
                f"n_warmup = {self.n_warmup}: take 0 to {self.n_steps - 1}."
            )
        if not 0 <= self.min_learning_rate <= self.learning_rate:
            raise ValueError(
                f"min_learning_rate = {self.min_learning_rate} is not below the peak."
            )


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of -ln p(target), in nats a token: (B, T, V), (B, T) -> ().

    The targets are shifted already, `targets[:, t]` follows `idx[:, t]`; IGNORE is left out.
    """
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Rise in a line for n_warmup steps, then fall along half a cosine; steps count from 0.

    The last warm-up step has the peak, the last step of the run the minimum.
    """
    high, low = config.learning_rate, config.min_learning_rate
    if step < config.n_warmup:
        return high * ((step + 1) / config.n_warmup)
    way = (step + 1 - config.n_warmup) / (config.n_steps - config.n_warmup)  # 0 to 1
    return low + (high - low) * (1 + math.cos(math.pi * min(way, 1.0))) / 2


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Part matrices and embeddings, which decay, from biases and LayerNorms, which do not."""
    parameters = list(model.parameters())
    return [
        {
            "params": [p for p in parameters if p.dim() >= 2],
            "weight_decay": weight_decay,
        },
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def new_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """Make AdamW over both groups, in one fused kernel. Source: Loshchilov and Hutter 2019."""
    groups = parameter_groups(model, config.weight_decay)
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=config.betas, fused=True
    )


def backward(model: GPT, batches: list[Batch], precision: str) -> tuple[Tensor, int]:
    """Leave the gradient of the mean loss over all batches; return that loss and its targets.

    Each batch counts by its targets: a mean of means would favor tokens in padded batches.
    """
    device = model.wte.weight.device
    counts = [int((y != IGNORE).sum()) for _, y in batches]
    loss = torch.zeros((), device=device)
    for (x, y), count in zip(batches, counts, strict=True):
        check_ids(x.numpy(), model.config.n_vocab)
        with torch.autocast(
            device.type, torch.bfloat16, enabled=precision == "bfloat16"
        ):
            part = next_token_loss(model(x.to(device)), y.to(device)) * (
                count / sum(counts)
            )
        part.backward()  # type: ignore[no-untyped-call]  # adds to the gradients so far
        loss += part.detach()
    return loss, sum(counts)


def train_step(
    model: GPT,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    step: int,
    config: TrainingConfig,
) -> tuple[Tensor, Tensor, int]:
    """Make step number `step`: set the rate, add up gradients, clip them, move the weights.

    Returns the loss before the step, the gradient's norm before clipping, and the targets. The
    first two stay tensors, so that nothing waits for a GPU until somebody reads them.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, config)
    first = step * config.accumulate
    optimizer.zero_grad(set_to_none=True)
    loss, n_targets = backward(
        model,
        [batches.batch(first + i) for i in range(config.accumulate)],
        config.precision,
    )
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    optimizer.step()
    return loss, grad_norm, n_targets


@torch.no_grad()
def evaluate(model: GPT, batches: Batches, n_batches: int | None = None) -> float:
    """Return the mean loss over every target of an epoch, or of its first n_batches: nats a token.

    Measured in float32, whatever the precision of the training.
    """
    device, was_training = model.wte.weight.device, model.training
    model.eval()
    total, n_targets = 0.0, 0
    for step in range(min(n_batches or batches.n_batches, batches.n_batches)):
        x, y = batches.batch(step)
        count = int((y != IGNORE).sum())
        total += float(next_token_loss(model(x.to(device)), y.to(device))) * count
        n_targets += count
    model.train(was_training)
    return total / n_targets


def checkpoint_tensors(
    model: GPT, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Name all that a run changes: weights, AdamW's memory of each, the random generators."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for name, p in model.named_parameters():
        for key, value in optimizer.state[p].items():  # step, exp_avg, exp_avg_sq
            tensors[f"optimizer.{name}.{key}"] = value
    tensors["rng.cpu"] = torch.get_rng_state()
    if model.wte.weight.is_cuda:
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    return tensors


def save_checkpoint(
    path: Path,
    model: GPT,
    optimizer: torch.optim.Optimizer,
    step: int,
    config: TrainingConfig,
) -> None:
    """Replace the file at path by the run after `step` steps: all of it, or nothing.

    Raises OSError if there is no room for it; the checkpoint before is then untouched.
    """
    parts = {"step": step, "model": asdict(model.config), "training": asdict(config)}
    header = {name: json.dumps(value) for name, value in parts.items()}
    try:
        with atomic_file(path) as file:
            save_file(checkpoint_tensors(model, optimizer), file.name, header)
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"cannot write {path}: {error}. The checkpoint before it is whole: make room, "
            "then resume."
        ) from error


def read_checkpoint(
    path: Path, prefix: str = ""
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a checkpoint's header and those tensors whose names start with prefix.

    Raises FileNotFoundError, or ValueError for a file that is no checkpoint.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no checkpoint at {path}: train first, or name another folder."
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = {
                key: json.loads(value) for key, value in (file.metadata() or {}).items()
            }
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged or no checkpoint: {error}.") from error
    if not header.keys() >= {"step", "model", "training"}:
        raise ValueError(
            f"{path} is a safetensors file, but no checkpoint of this trainer."
        )
    return header, tensors


def load_checkpoint(
    path: Path, model: GPT, optimizer: torch.optim.Optimizer, config: TrainingConfig
) -> int:
    """Put a run back, in place, to the moment it was saved; return its number of steps.

    Raises ValueError if model or config are not those of the checkpoint.
    """
    header, tensors = read_checkpoint(path)
    saved = header["model"] | header["training"]
    asked = json.loads(
        json.dumps(asdict(model.config) | asdict(config))
    )  # tuples become lists
    if differ := [k for k in asked if saved.get(k) != asked[k]]:
        knobs = ", ".join(f"{k} = {saved.get(k)} (not {asked[k]})" for k in differ)
        raise ValueError(
            f"{path} is of another configuration, with {knobs}: use its own."
        )
    model.load_state_dict(
        {name: tensors[f"model.{name}"] for name in model.state_dict()}
    )
    for name, p in model.named_parameters():
        keys = [
            k
            for k in ("step", "exp_avg", "exp_avg_sq")
            if f"optimizer.{name}.{k}" in tensors
        ]
        optimizer.state[p] = {
            k: tensors[f"optimizer.{name}.{k}"].to(p.device) for k in keys
        }
    torch.set_rng_state(tensors["rng.cpu"])
    if model.wte.weight.is_cuda and "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    return int(header["step"])


def load_model(folder: str | Path) -> GPT:
    """Read the model of a run folder (or of one checkpoint file), on the CPU, to be used."""
    path = Path(folder) / CHECKPOINT if Path(folder).is_dir() else Path(folder)
    header, tensors = read_checkpoint(path, "model.")
    model = GPT(GPTConfig(**header["model"]))
    model.load_state_dict(
        {name.removeprefix("model."): t for name, t in tensors.items()}
    )
    return model.eval()


def open_run(
    model: GPT, config: TrainingConfig, folder: Path, resume: bool
) -> tuple[Any, int]:
    """Make ready to train; return the optimizer and the number of steps already made.

    Raises FileExistsError rather than write over a run. A new run is saved at once: a disk that
    is full or read-only is found now, not after an hour.
    """
    path, optimizer = folder / CHECKPOINT, new_optimizer(model.train(), config)
    if config.compile:
        model.compile()
    if resume:
        return optimizer, load_checkpoint(path, model, optimizer, config)
    if path.exists():
        raise FileExistsError(
            f"{folder} holds a run already: resume it, or use another folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, model, optimizer, 0, config)
    return optimizer, 0


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read metrics.csv: numbers, None for an empty field; a row that was cut off is left out."""
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if None not in row.values()]
    numbers = [{k: float(v) if v else None for k, v in row.items()} for row in rows]
    return [row | {"step": int(row["step"] or 0)} for row in numbers]


def open_metrics(path: Path, start: int) -> None:
    """Write the head of metrics.csv, and the rows up to step `start` if there are any.

    Rows after it belong to steps that a kill has undone: they are made, and written, again.
    """
    rows = read_metrics(path) if start and path.exists() else []
    with atomic_file(path, "w") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row in rows if row["step"] <= start)


def add_metrics(path: Path, row: dict[str, float], bar: tqdm) -> None:
    """Append a row to metrics.csv, and show the part of it that one watches."""
    with path.open("a", newline="") as file:
        csv.DictWriter(file, COLUMNS).writerow(row)
    bar.set_postfix(loss=f"{row['loss']:.3f}", tokens_per_s=row["tokens_per_second"])


def measure(
    step: int,
    config: TrainingConfig,
    loss: Tensor,
    grad_norm: Tensor,
    n_tokens: int,
    since: float,
) -> dict[str, float]:
    """Read off the numbers of a step for metrics.csv; here the CPU waits for the GPU.

    Raises FloatingPointError if the run has blown up, before it is saved over a good checkpoint.
    """
    if not math.isfinite(loss + grad_norm):
        raise FloatingPointError(
            f"loss {loss:.3g} and gradient norm {grad_norm:.3g} at step {step}: the run has "
            "diverged. Start again with a lower learning_rate or a longer warm-up."
        )
    rate, speed = learning_rate(step - 1, config), n_tokens / (perf_counter() - since)
    values = (step, float(loss), float(grad_norm), rate, round(speed))
    return dict(
        zip(COLUMNS, values, strict=False)
    )  # the last column, validation, comes later


def train(
    model: GPT,
    batches: Batches,
    config: TrainingConfig,
    folder: str | Path,
    validation: Batches | None = None,
    *,
    resume: bool = False,
    progress: bool = True,
) -> None:
    """Train to n_steps, with a checkpoint and metrics.csv in folder; with resume, go on from it.

    Raises what `open_run`, `measure` and `save_checkpoint` raise.
    """
    folder = Path(folder)
    optimizer, start = open_run(model, config, folder, resume)
    open_metrics(folder / "metrics.csv", start)
    clock, logged = perf_counter(), start
    with tqdm(
        total=config.n_steps, initial=start, unit="step", disable=not progress
    ) as bar:
        for step in range(start + 1, config.n_steps + 1):
            loss, norm, n_targets = train_step(
                model, optimizer, batches, step - 1, config
            )
            bar.update()
            saving = step % config.save_every == 0 or step == config.n_steps
            if not saving and step % config.log_every:
                continue
            row = measure(step, config, loss, norm, n_targets * (step - logged), clock)
            if saving and validation is not None:
                row["validation"] = evaluate(model, validation, config.n_validation)
            add_metrics(folder / "metrics.csv", row, bar)
            if saving:
                save_checkpoint(folder / CHECKPOINT, model, optimizer, step, config)
            clock, logged = perf_counter(), step

"""The reference that nobody here wrote: GPT-2 of the `transformers` library, and how to compare."""

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2.decoder import GPTConfig


def reference_model(config: GPTConfig, attention: str = "eager") -> GPT2LMHeadModel:
    """Build the library's GPT-2 of our configuration, without dropout."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.n_vocab,
            n_positions=config.n_ctx,
            n_embd=config.n_embd,
            n_head=config.n_head,
            n_layer=config.n_layer,
            attn_pdrop=0.0,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
            attn_implementation=attention,
        )
    )


@torch.no_grad()
def randomize(model: nn.Module, seed: int) -> None:
    """Draw every parameter, biases and LayerNorm too, so that no error can hide behind 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "wte" in name or "wpe" in name:
            parameter.copy_(0.02 * noise)  # small: LayerNorm's eps shows
        elif parameter.ndim == 2:
            parameter.copy_(noise / parameter.size(0) ** 0.5)
        else:
            parameter.copy_((1.0 if "ln_" in name and "weight" in name else 0.0) + 0.3 * noise)


def our_name(name: str) -> str:
    """Translate a parameter's name in the library to ours."""
    return name.removeprefix("transformer.")


def our_layout(name: str, value: Tensor) -> Tensor:
    """Turn Conv1D's (in, out) storage into nn.Linear's (out, in); leave all else."""
    is_conv1d = value.ndim == 2 and "wte" not in name and "wpe" not in name
    return value.t() if is_conv1d else value


@torch.no_grad()
def copy_weights(ours: nn.Module, theirs: GPT2LMHeadModel) -> None:
    """Copy every weight of the library's model into ours; raises KeyError for a missing one."""
    target = dict(ours.named_parameters())
    for name, value in theirs.named_parameters():
        target[our_name(name)].copy_(our_layout(name, value))


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Return the largest deviation as a part of the largest expected magnitude."""
    return float((actual - expected).abs().max() / expected.abs().max())

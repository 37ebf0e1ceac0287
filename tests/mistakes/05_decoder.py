"""The usual mistakes of chapter 5, for `course check 5 --package`; see 04_attention.py."""

import torch
from torch import nn
from torch.nn import functional as F

from gpt2.decoder import GPT, MLP, Block, GPTConfig


def filled(module):
    """Give every parameter a value of its own."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return module


def run(module, *shape):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return filled(module)(x)


TINY = GPTConfig(n_vocab=5, n_ctx=4, n_embd=4, n_head=2, n_layer=2)


def shapes(module):
    return {name: tuple(p.shape) for name, p in module.named_parameters()}


def logits(model_class):
    with torch.no_grad():
        return filled(model_class(TINY))(torch.tensor([[1, 4, 2]]))


def spread(model_class):
    torch.manual_seed(0)
    model = model_class(GPTConfig(n_vocab=400, n_ctx=400, n_embd=64, n_head=2, n_layer=2))
    stds = {name: round(p.std().item(), 2) for name, p in model.named_parameters() if p.ndim == 2}
    return {name: std for name, std in stds.items() if name.startswith(("wte", "wpe", "h.0"))}


def after(function, module):
    module.apply(function)
    return {name: round(p.std().item(), 2) for name, p in module.named_parameters()}


def scaled(scale):
    model = GPT(GPTConfig(n_vocab=5, n_ctx=4, n_embd=4, n_head=2, n_layer=8))
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(1)
    scale(model)
    return {name: round(p.mean().item(), 2) for name, p in model.h[0].named_parameters()}


EXAMPLES = {
    "MLP": ["shapes(f(4))", "run(f(4), 1, 2, 4)"],
    "Block": ["sorted(shapes(f(4, 2)))", "run(f(4, 2), 1, 3, 4)"],
    "positions": ["f(0, 3, 8, None).tolist()", "f(2, 5, 8, None).tolist()", "f(5, 8, 8, None)"],
    "GPT": ["shapes(f(TINY))", "logits(f)", "spread(f)"],
    "init_weights": ["after(f, nn.Linear(300, 300))", "after(f, nn.Embedding(300, 300))",
                     "after(f, nn.LayerNorm(300))"],
    "scale_residual_init": ["scaled(f)"],
    "count_parameters": ["f(GPT(TINY))", "f(nn.Linear(3, 2))"],
}  # fmt: skip


class MLP__exact_gelu(MLP):
    """GELU is the exact one. GPT-2's is the approximation by tanh: approximate="tanh"."""

    def forward(self, x):
        return self.c_proj(F.gelu(self.c_fc(x)))


class MLP__relu(MLP):
    """The nonlinearity is ReLU; GPT-2 has GELU, approximated by tanh."""

    def forward(self, x):
        return self.c_proj(F.relu(self.c_fc(x)))


class MLP__no_nonlinearity(MLP):
    """Two linear layers in a row are one linear layer: GELU goes between them."""

    def forward(self, x):
        return self.c_proj(self.c_fc(x))


class MLP__gelu_at_the_end(MLP):
    """GELU comes after the second layer too; the MLP ends with a linear layer."""

    def forward(self, x):
        x = F.gelu(self.c_fc(x), approximate="tanh")
        return F.gelu(self.c_proj(x), approximate="tanh")


class MLP__twice_as_wide(nn.Module):
    """The hidden layer is twice as wide as the stream; GPT-2's is four times as wide."""

    def __init__(self, n_embd):
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(n_embd, 2 * n_embd), nn.Linear(2 * n_embd, n_embd)

    def forward(self, x):
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block__post_norm(Block):
    """LayerNorm comes after the sum, as in 2017 (post-norm). GPT-2 normalizes what a layer reads,
    and adds its result to the stream as it is (pre-norm)."""

    def forward(self, x, past=None, visible=None):
        x = self.ln_1(x + self.attn(x, past, visible))
        return self.ln_2(x + self.mlp(x))


class Block__no_residual(Block):
    """The residual connection is missing: what a layer finds is added to x."""

    def forward(self, x, past=None, visible=None):
        x = self.attn(self.ln_1(x), past, visible)
        return self.mlp(self.ln_2(x))


class Block__adds_to_the_normalized(Block):
    """The result is added to the normalized x. Add it to x itself: only the layer reads ln(x)."""

    def forward(self, x, past=None, visible=None):
        x = self.ln_1(x)
        x = x + self.attn(x, past, visible)
        x = self.ln_2(x)
        return x + self.mlp(x)


class Block__no_norm(Block):
    """Neither layer reads a normalized x: attention reads ln_1(x), the MLP ln_2(x)."""

    def forward(self, x, past=None, visible=None):
        x = x + self.attn(x, past, visible)
        return x + self.mlp(x)


class Block__parallel(Block):
    """Attention and MLP read the same x. In GPT-2 the MLP reads x after attention has added to
    it."""

    def forward(self, x, past=None, visible=None):
        return x + self.attn(self.ln_1(x), past, visible) + self.mlp(self.ln_2(x))


class Block__one_norm_for_both(Block):
    """ln_1 is used twice: the MLP reads ln_2(x)."""

    def forward(self, x, past=None, visible=None):
        x = x + self.attn(self.ln_1(x), past, visible)
        return x + self.mlp(self.ln_1(x))


def positions__from_0(start, end, n_ctx, device):
    """Positions are numbered from 0 whatever has come before: begin at `start`."""
    return torch.arange(end - start, device=device)


def positions__one_too_many(start, end, n_ctx, device):
    """There is one position too many: `end` itself is excluded, as in range."""
    return torch.arange(start, end + 1, device=device)


class GPT__no_positions(GPT):
    """The position embeddings are not added: the first layer reads wte(idx) + wpe(place)."""

    def hidden(self, idx, past=None, visible=None):
        x = self.wte(idx)
        for block in self.h:
            x = block(x, None, visible)
        return self.ln_f(x)


class GPT__no_final_norm(GPT):
    """ln_f is missing: the top of the stream is normalized before the head reads it."""

    def hidden(self, idx, past=None, visible=None):
        x = self.wte(idx) + self.wpe(torch.arange(idx.size(1)))
        for block in self.h:
            x = block(x, None, visible)
        return x


class GPT__embedding_scaled(GPT):
    """Embeddings are multiplied by the root of the width, as in 2017; GPT-2's are not."""

    def hidden(self, idx, past=None, visible=None):
        x = self.wte(idx) * 2 + self.wpe(torch.arange(idx.size(1)))
        for block in self.h:
            x = block(x, None, visible)
        return self.ln_f(x)


class GPT__probabilities(GPT):
    """The result is probabilities. Return logits: the loss and the sampler apply the softmax."""

    def forward(self, idx, past=None):
        return super().forward(idx, past).softmax(-1)


class GPT__head_of_its_own(GPT):
    """The head has weights of its own. GPT-2's is tied: logits are hidden @ wte.weight.T."""

    def __init__(self, config):
        super().__init__(config)
        self.lm_head = nn.Linear(config.n_embd, config.n_vocab, bias=False)

    def forward(self, idx, past=None):
        return self.lm_head(self.hidden(idx, past))


class GPT__same_block_again(GPT):
    """One block is used n_layer times, so its weights are shared: make a block for each layer."""

    def __init__(self, config):
        super().__init__(config)
        self.h = nn.ModuleList([Block(config.n_embd, config.n_head)] * config.n_layer)


class GPT__torch_s_own_initialization(GPT):
    """Weights are as PyTorch draws them: apply init_weights at the end of __init__."""

    def __init__(self, config):
        super().__init__(config)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                module.reset_parameters()


class GPT__positions_at_0_02(GPT):
    """Position embeddings start with a standard deviation of 0.02; it should be 0.01."""

    def __init__(self, config):
        super().__init__(config)
        nn.init.normal_(self.wpe.weight, std=0.02)


def init_weights__variance_for_deviation(module):
    """0.02 is the standard deviation, not the variance."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02**0.5)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


def init_weights__biases_too(module):
    """Biases are drawn at random; they start at 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.bias, std=0.02)


def init_weights__linear_alone(module):
    """Embeddings are left as PyTorch draws them, from N(0, 1): draw them too."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def multiply(model, names, factor):
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(names):
                weight.mul_(factor)


def scale_residual_init__counts_blocks(model):
    """N counts two residual layers per block, the attention's and the MLP's."""
    multiply(model, "c_proj.weight", model.config.n_layer**-0.5)


def scale_residual_init__scales_what_reads(model):
    """What reads from the stream is scaled; scale what writes into it, each c_proj."""
    multiply(model, ("c_attn.weight", "c_fc.weight"), (2 * model.config.n_layer) ** -0.5)


def scale_residual_init__everything(model):
    """Every weight is scaled; scale only what writes into the stream, each c_proj.weight."""
    multiply(model, "", (2 * model.config.n_layer) ** -0.5)


def scale_residual_init__no_root(model):
    """The factor is 1/N; it is 1 over the root of N, because variances add up."""
    multiply(model, "c_proj.weight", 1 / (2 * model.config.n_layer))


def count_parameters__tensors(model):
    """This counts tensors. Count their numbers: p.numel() of each."""
    return len(list(model.parameters()))


def count_parameters__weights_without_biases(model):
    """Only matrices are counted; biases and LayerNorms are parameters too."""
    return sum(p.numel() for p in model.parameters() if p.ndim > 1)

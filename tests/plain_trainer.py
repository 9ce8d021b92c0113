"""A distillation step as public scripts do it, for comparison: LCM's and TCD's for diffusers, with PEFT's LoRA layers.

Two networks, teacher and student. The student comes first, and keeps what its backward pass needs while the teacher,
once with the text and once without, and the target are evaluated.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PeftLayer(nn.Module):
    """A layer with its LoRA as peft.tuners.lora.layer computes it."""

    def __init__(self, base_layer: nn.Linear | nn.Conv2d, rank: int):
        super().__init__()
        self.base_layer, self.lora_dropout, self.scaling = base_layer, nn.Identity(), 1.0
        if isinstance(base_layer, nn.Conv2d):
            shape = {"kernel_size": base_layer.kernel_size, "stride": base_layer.stride, "padding": base_layer.padding}
            self.lora_A: nn.Linear | nn.Conv2d = nn.Conv2d(base_layer.in_channels, rank, **shape, bias=False)
            self.lora_B: nn.Linear | nn.Conv2d = nn.Conv2d(rank, base_layer.out_channels, 1, bias=False)
        else:
            self.lora_A = nn.Linear(base_layer.in_features, rank, bias=False)
            self.lora_B = nn.Linear(rank, base_layer.out_features, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        result = self.base_layer(x)
        dtype = result.dtype
        x = x.to(self.lora_A.weight.dtype)
        result = result + self.lora_B(self.lora_A(self.lora_dropout(x))) * self.scaling
        return result.to(dtype)


def put_lora(net: nn.Module, rank: int) -> None:
    """Put a layer with LoRA in the place of every Linear and Conv2d layer."""
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear | nn.Conv2d) and not isinstance(module, PeftLayer):
                setattr(module, name, PeftLayer(child, rank))


@dataclass
class Drawn:
    """What a step draws: latents and noise [B, C, h, w], contexts [B, L, D], training steps [B], guidance [B]."""

    latents: Tensor
    noise: Tensor
    context: Tensor
    uncond: Tensor
    t: Tensor
    n: Tensor
    m: Tensor
    w: Tensor


class PlainTrainer:
    """TCF(1), DDIM, one end for each sample, l2; of a network that predicts eps.

    In bf16 the frozen weights are in it, the LoRA is in float32, and all is evaluated under autocast.
    """

    def __init__(
        self, unet: nn.Module, alphas_cumprod: Tensor, rank: int, lr: float, dtype: torch.dtype = torch.float32
    ):
        self.dtype, self.teacher = dtype, unet.requires_grad_(False)
        self.unet = copy.deepcopy(unet)
        put_lora(self.unet, rank)
        self.unet.train()
        self.alphas_cumprod = alphas_cumprod.float()
        self.trained = [parameter for parameter in self.unet.parameters() if parameter.requires_grad]
        for parameter in self.trained:
            parameter.data = parameter.data.float()
        self.optimizer = torch.optim.AdamW(self.trained, lr=lr)

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha_bar = self.alphas_cumprod[t.long()][:, None, None, None]
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def clean(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.scales(t)
        return (x - sigma * eps) / alpha

    def jump(self, x0: Tensor, eps: Tensor, to: Tensor) -> Tensor:
        alpha, sigma = self.scales(to)
        return alpha * x0 + sigma * eps

    def predict(self, net: nn.Module, x: Tensor, t: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """(x0, eps)."""
        eps = net(x, t, context=context, transformer_options={})
        return self.clean(x, eps, t), eps

    def loss(self, drawn: Drawn) -> Tensor:
        x_t = self.jump(drawn.latents, drawn.noise, drawn.t)
        found = self.jump(*self.predict(self.unet, x_t, drawn.t, drawn.context), drawn.m)
        with torch.no_grad():
            cond_x0, cond_eps = self.predict(self.teacher, x_t, drawn.t, drawn.context)
            uncond_x0, uncond_eps = self.predict(self.teacher, x_t, drawn.t, drawn.uncond)
            w = drawn.w[:, None, None, None]
            x0, eps = cond_x0 + w * (cond_x0 - uncond_x0), cond_eps + w * (cond_eps - uncond_eps)
            x_n = self.jump(x0, eps, drawn.n)
            goal = self.jump(*self.predict(self.unet, x_n, drawn.n, drawn.context), drawn.m)
        return F.mse_loss(found.float(), goal.float())

    def step(self, drawn: Drawn) -> float:
        with torch.autocast(drawn.latents.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            loss = self.loss(drawn)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()

"""The step of `cifar10_cpu` as a PyTorch user writes it well: channels last, fused Adam, frozen features. A worker.

Variants: float32; bfloat16 (autocast); compiled and compiled_bfloat16 (torch.compile).
"""

import itertools
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from benchmarks.dcgan_torch import Training, serve
from cgan_jax.networks import pretrained

LATENT_DIM, G_WIDTH, D_WIDTH = 64, 32, 64
D_RATE = 2e-3


class ClassBatchNorm(nn.Module):
    def __init__(self, features, num_classes):
        super().__init__()
        self.norm = nn.BatchNorm2d(features, eps=1e-4, affine=False)
        self.scale, self.bias = nn.Embedding(num_classes, features), nn.Embedding(num_classes, features)

    def forward(self, x, labels):
        scale, bias = (embed(labels)[:, :, None, None] for embed in (self.scale, self.bias))
        return torch.addcmul(bias, self.norm(x), 1 + scale)


class Block(nn.Module):
    def __init__(self, before, after, num_classes):
        super().__init__()
        self.norms = nn.ModuleList(ClassBatchNorm(features, num_classes) for features in (before, after))
        self.first, self.second = nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = nn.Conv2d(before, after, 1)

    def forward(self, x, labels):
        y = F.relu(self.norms[0](x, labels), inplace=True)
        y = self.first(F.interpolate(y, scale_factor=2))
        y = self.second(F.relu(self.norms[1](y, labels), inplace=True))
        return y + F.interpolate(self.shortcut(x), scale_factor=2)


class Generator(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        widths = [8 * G_WIDTH, 4 * G_WIDTH, 2 * G_WIDTH, G_WIDTH]
        self.dense = nn.Linear(LATENT_DIM, 4 * 4 * widths[0])
        self.blocks = nn.ModuleList(Block(*pair, num_classes) for pair in itertools.pairwise(widths))
        self.last = nn.Sequential(
            nn.BatchNorm2d(G_WIDTH, eps=1e-4), nn.ReLU(inplace=True), nn.Conv2d(G_WIDTH, 3, 3, padding=1), nn.Tanh()
        )

    def forward(self, latents, labels):
        x = self.dense(latents[:, :LATENT_DIM]).reshape(len(latents), -1, 4, 4)
        x = x.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x, labels)
        return self.last(x)


class Patches(nn.Module):
    def __init__(self, channels, side, num_classes):
        super().__init__()
        layers = []
        while side > 4:
            layers += [spectral_norm(nn.Conv2d(channels, D_WIDTH, 4, 2, 1)), nn.LeakyReLU(0.2, inplace=True)]
            channels, side = D_WIDTH, side // 2
        layers += [spectral_norm(nn.Conv2d(channels, D_WIDTH, 3, padding=1)), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers)
        # Within the hinge's margin the gradients of a bias, of real and of generated images, would cancel.
        self.logits = spectral_norm(nn.Conv2d(D_WIDTH, 1, 1, bias=False))
        self.direction = spectral_norm(nn.Embedding(num_classes, D_WIDTH))

    def forward(self, x, labels):
        x = self.layers(x)
        projected = torch.sum(x * self.direction(labels)[:, :, None, None], 1, keepdim=True)
        return (self.logits(x) + projected).reshape(len(x), 16)


class Discriminator(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.strides = [layer.stride for layer in pretrained.LAYERS]
        for number, (kernel, bias) in enumerate(pretrained.weights()):
            self.register_buffer(f"kernel{number}", torch.tensor(kernel).permute(3, 2, 0, 1))
            self.register_buffer(f"bias{number}", torch.tensor(bias))
        maps = [(32, 32), (64, 16), (128, 8), (192, 4), (3, 32)]
        self.patches = nn.ModuleList(Patches(channels, side, num_classes) for channels, side in maps)

    def forward(self, images, labels):
        maps, x = [], images
        for number, stride in enumerate(self.strides):
            kernel, bias = getattr(self, f"kernel{number}"), getattr(self, f"bias{number}")
            # An even image is padded after its last row alone where the stride is 2, as the features were trained.
            x = F.conv2d(x, kernel, bias, 1, 1) if stride == 1 else F.conv2d(F.pad(x, (0, 1, 0, 1)), kernel, bias, 2)
            x = F.relu(x)
            if stride == 1:
                maps.append(x)
        return torch.cat([patch(x, labels) for patch, x in zip(self.patches, [*maps, images], strict=True)], 1)


class ProjectedTraining(Training):
    """Hinge on patches; a discriminator's update judges real and generated images together."""

    networks: ClassVar = {"cifar10_cpu": (Generator, Discriminator)}
    average_decay = 0.996

    def __init__(self, recipe, variant):
        super().__init__(recipe, variant)
        for group in self.d_opt.param_groups:
            group["lr"] = D_RATE
        self.average = [parameter.detach().clone() for parameter in self.g.parameters()]

    def d_loss(self, logits, target):
        return F.relu(1 - logits.float() if target else 1 + logits.float()).mean()

    def g_loss(self, logits):
        return -logits.float().mean()

    def generator(self, images, labels):
        super().generator(images, labels)
        with torch.no_grad():
            torch._foreach_lerp_(self.average, list(self.g.parameters()), 1 - self.average_decay)


if __name__ == "__main__":
    serve(ProjectedTraining)

"""StudioGAN's residual SNGAN and BigGAN for 32 pixels, stated in PyTorch with the names that its checkpoints have.

ReLU works in place there, so that the shortcuts of the discriminator's later blocks carry what it gives.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import spectral_norm


def _layer(kind, *sizes, normed, **options):
    layer = kind(*sizes, **options)
    return spectral_norm(layer, eps=1e-6) if normed else layer


class Norm(nn.Module):
    """A scale and a bias that are linear in a vector; `older` SNGANs have them as embeddings of a class."""

    def __init__(self, inputs, features, normed, older=False):
        super().__init__()
        self.bn = nn.BatchNorm2d(features, eps=1e-4, affine=False)
        self.older = older
        if older:
            self.embed0, self.embed1 = nn.Embedding(inputs, features), nn.Embedding(inputs, features)
        else:
            self.gain, self.bias = (_layer(nn.Linear, inputs, features, normed=normed, bias=False) for _ in range(2))

    def forward(self, x, y):
        scale, bias = (self.embed0(y), self.embed1(y)) if self.older else (self.gain(y), self.bias(y))
        return self.bn(x) * (1 + scale)[:, :, None, None] + bias[:, :, None, None]


class GeneratorBlock(nn.Module):
    def __init__(self, inputs, width, normed, older):
        super().__init__()
        self.bn1, self.bn2 = (Norm(inputs, width, normed, older) for _ in range(2))
        self.conv2d0 = _layer(nn.Conv2d, width, width, 1, normed=normed)
        self.conv2d1, self.conv2d2 = (_layer(nn.Conv2d, width, width, 3, normed=normed, padding=1) for _ in range(2))

    def forward(self, x, y):
        inner = self.conv2d1(F.interpolate(F.relu(self.bn1(x, y)), scale_factor=2))
        return self.conv2d2(F.relu(self.bn2(inner, y))) + self.conv2d0(F.interpolate(x, scale_factor=2))


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        for name, inputs, features in (
            ("theta", width, width // 8),
            ("phi", width, width // 8),
            ("g", width, width // 2),
            ("attn", width // 2, width),
        ):
            layer = _layer(nn.Conv2d, inputs, features, 1, normed=True, bias=False)
            self.add_module(f"conv1x1_{name}", layer)
        self.sigma = nn.Parameter(torch.randn(1))

    def forward(self, x):
        keys, values = (F.max_pool2d(layer(x), 2).flatten(2) for layer in (self.conv1x1_phi, self.conv1x1_g))
        weights = F.softmax(self.conv1x1_theta(x).flatten(2).mT @ keys, dim=-1)
        seen = (values @ weights.mT).unflatten(2, x.shape[2:])
        return x + self.sigma * self.conv1x1_attn(seen)


def _listed(blocks):
    return nn.ModuleList([nn.ModuleList([block]) for block in blocks])


class Generator(nn.Module):
    def __init__(self, kind, latent_dim, width, classes, shared_dim=0, older=False):
        super().__init__()
        self.big, self.older, self.classes, self.width = kind == "biggan", older, classes, 4 * width
        first = latent_dim // 4 if self.big else latent_dim
        self.linear0 = _layer(nn.Linear, first, 16 * self.width, normed=self.big)
        if self.big:
            self.shared = nn.Embedding(classes, shared_dim)
        inputs = shared_dim + first if self.big else classes
        blocks = [GeneratorBlock(inputs, self.width, self.big, older) for _ in range(3)]
        self.blocks = _listed([*blocks[:2], Attention(self.width), blocks[2]] if self.big else blocks)
        self.bn4 = nn.BatchNorm2d(self.width, eps=1e-4)
        self.conv2d5 = _layer(nn.Conv2d, self.width, 3, 3, normed=self.big, padding=1)

    def forward(self, z, y):
        first, conditions = z, [y if self.older else F.one_hot(y, self.classes).float()] * 3
        if self.big:
            first, *parts = z.chunk(4, dim=1)
            conditions = [torch.cat([self.shared(y), part], dim=1) for part in parts]
        x = self.linear0(first).view(-1, self.width, 4, 4)
        for (block,) in self.blocks:
            x = block(x) if isinstance(block, Attention) else block(x, conditions.pop(0))
        return torch.tanh(self.conv2d5(F.relu(self.bn4(x))))


class DiscriminatorBlock(nn.Module):
    def __init__(self, inputs, width, halves, first):
        super().__init__()
        self.halves, self.first = halves, first
        if halves:
            self.conv2d0 = _layer(nn.Conv2d, inputs, width, 1, normed=True)
        self.conv2d1 = _layer(nn.Conv2d, inputs, width, 3, normed=True, padding=1)
        self.conv2d2 = _layer(nn.Conv2d, width, width, 3, normed=True, padding=1)

    def forward(self, x):
        inner = self.conv2d1(x if self.first else F.relu_(x))  # from here on, x is rectified
        inner = self.conv2d2(F.relu_(inner))
        return F.avg_pool2d(inner, 2) + F.avg_pool2d(self.conv2d0(x), 2) if self.halves else inner + x


class Discriminator(nn.Module):
    def __init__(self, kind, width, classes):
        super().__init__()
        width = 2 * width
        blocks = [DiscriminatorBlock(width if i else 3, width, i < 2, i == 0) for i in range(4)]
        self.blocks = _listed([blocks[0], Attention(width), *blocks[1:]] if kind == "biggan" else blocks)
        self.linear1 = _layer(nn.Linear, width, 1, normed=True)
        self.embedding = _layer(nn.Embedding, classes, width, normed=True)

    def forward(self, x, y):
        for (block,) in self.blocks:
            x = block(x)
        features = F.relu(x).sum(dim=(2, 3))
        return self.linear1(features)[:, 0] + (self.embedding(y) * features).sum(dim=1)


def trained(network, *inputs):
    """The network, ready to evaluate, with random numbers in place of what training gives.

    Spectral norm has the vectors to which its power iterations converge, as after standing statistics.
    """
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith(("weight", "weight_orig", "bias")):
                tensor.copy_(torch.randn_like(tensor) / 3)
        for layer in network.modules():
            if hasattr(layer, "weight_orig"):
                left, _, right = torch.linalg.svd(layer.weight_orig.flatten(1), full_matrices=False)
                layer.weight_u.copy_(left[:, 0])
                layer.weight_v.copy_(right[0])
        network.train()(*inputs)  # moves the statistics of batch norm
    return network.eval()

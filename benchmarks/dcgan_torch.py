"""The step as a PyTorch user writes it well: channels last, fused Adam, D frozen while G trains. A worker.

Variants: float32; bfloat16 (autocast); compiled and compiled_bfloat16 (torch.compile; on CUDA with CUDA graphs).
"""

import contextlib
import functools
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import worker


class LabelMap(nn.Module):
    def __init__(self, num_classes, side):
        super().__init__()
        self.side = side
        self.layers = nn.Sequential(nn.Embedding(num_classes, 50), nn.Linear(50, side * side))

    def forward(self, labels):
        return self.layers(labels).reshape(-1, 1, self.side, self.side)


class ClassicGenerator(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.dense = nn.Linear(worker.LATENT_DIM, 8 * 8 * 128)
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(128, 128, 4, 2, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.ConvTranspose2d(128, 128, 4, 2, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(128, 3, 8, padding="same"),
            nn.Tanh(),
        )

    def forward(self, latents, labels):
        x = F.leaky_relu(self.dense(latents), 0.2).reshape(-1, 128, 8, 8)
        return self.layers(x.contiguous(memory_format=torch.channels_last))


class ClassicDiscriminator(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 128, 3, 2, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(128, 128, 3, 2, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Flatten(),
            nn.Dropout(worker.DROPOUT),
            nn.Linear(8 * 8 * 128, 1),
        )

    def forward(self, images, labels):
        return self.layers(images)[:, 0]


class DeepGenerator(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.dense, self.label_map = nn.Linear(worker.LATENT_DIM, 4 * 4 * 256), LabelMap(num_classes, 4)
        layers = []
        for before, after in ((257, 128), (128, 64), (64, 64)):
            layers += [nn.ConvTranspose2d(before, after, 7, 2, 3, output_padding=1), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(64, 3, 7, padding=3), nn.Tanh())

    def forward(self, latents, labels):
        x = F.relu(self.dense(latents)).reshape(-1, 256, 4, 4)
        x = torch.cat([x, self.label_map(labels)], 1)
        return self.layers(x.contiguous(memory_format=torch.channels_last))


class DeepDiscriminator(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.label_map = LabelMap(num_classes, 32)
        layers = []
        for before, after in ((4, 64), (64, 128), (128, 256), (256, 512)):
            layers += [nn.Conv2d(before, after, 5, 2, 2), nn.LeakyReLU(0.01, inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(worker.DROPOUT), nn.Linear(2 * 2 * 512, 1))

    def forward(self, images, labels):
        x = torch.cat([images, self.label_map(labels)], 1)
        return self.layers(x.contiguous(memory_format=torch.channels_last))[:, 0]


class Training:
    """Two networks, their optimizers, and one method per update."""

    networks: ClassVar = {
        "cifar10_dcgan": (ClassicGenerator, ClassicDiscriminator),
        "cifar10_cgan_deep": (DeepGenerator, DeepDiscriminator),
    }

    def __init__(self, recipe, variant):
        self.plan = worker.PLANS[recipe]
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        networks = (kind(self.plan.num_classes) for kind in self.networks[recipe])
        self.g, self.d = (n.to(self.device, memory_format=torch.channels_last) for n in networks)
        adam = functools.partial(
            torch.optim.Adam,
            lr=self.plan.learning_rate,
            betas=(worker.B1, worker.B2),
            eps=worker.EPSILON,
            fused=True,
        )
        self.g_opt, self.d_opt = adam(self.g.parameters()), adam(self.d.parameters())
        images, labels = worker.made_up(self.plan)
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).to(self.device, memory_format=torch.channels_last)
        self.labels = torch.from_numpy(labels).long().to(self.device)
        is_half, is_compiled = "bfloat16" in variant, "compiled" in variant
        self.cast = lambda: torch.autocast(self.device, torch.bfloat16) if is_half else contextlib.nullcontext()
        compiled = functools.partial(torch.compile, mode="reduce-overhead", dynamic=False)
        compiler = compiled if is_compiled else lambda network: network
        self.generate, self.judge = compiler(self.g), compiler(self.d)
        # The next replay of a CUDA graph overwrites what the one before gave.
        self.kept = torch.Tensor.clone if is_compiled else lambda images: images

    def d_loss(self, logits, target):
        return F.binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits, target, dtype=torch.float32))

    def g_loss(self, logits):
        return self.d_loss(logits, 1.0)

    def fakes(self, labels):
        return self.kept(self.generate(torch.randn(len(labels), worker.LATENT_DIM, device=self.device), labels))

    def move(self, optimizer, loss):
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def real(self, images, labels):
        with self.cast():
            loss = self.d_loss(self.judge(images, labels), 1.0)
        self.move(self.d_opt, loss)

    def fake(self, images, labels):
        with self.cast():
            with torch.no_grad():
                images = self.fakes(labels)
            loss = self.d_loss(self.judge(images, labels), 0.0)
        self.move(self.d_opt, loss)

    def both(self, images, labels):
        with self.cast():
            with torch.no_grad():
                fakes = self.fakes(labels)
            on_real, on_fake = self.judge(torch.cat([images, fakes]), torch.cat([labels, labels])).chunk(2)
            loss = self.d_loss(on_real, 1.0) + self.d_loss(on_fake, 0.0)
        self.move(self.d_opt, loss)

    def generator(self, images, labels):
        labels = labels.repeat(self.plan.g_batch_size // self.plan.batch_size)
        self.d.requires_grad_(False)
        with self.cast():
            loss = self.g_loss(self.judge(self.fakes(labels), labels))
        self.move(self.g_opt, loss)
        self.d.requires_grad_(True)

    @property
    def updates(self):
        d_updates = [self.both] if self.plan.together else [self.real, self.fake]
        return [*(("d", update) for update in d_updates), ("g", self.generator)]

    def wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def step(self, times):
        for _ in range(times):
            for _, update in self.updates:
                update(self.images, self.labels)
        self.wait()

    def sample(self, times):
        with torch.inference_mode(), self.cast():
            for _ in range(0, times, worker.SAMPLING_BATCH):
                labels = self.labels[:1].repeat(worker.SAMPLING_BATCH)
                ((self.fakes(labels).float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)).cpu().numpy()

    def weights(self):
        networks: ClassVar = {"g": self.g, "d": self.d}
        return {
            name: [p.detach().cpu().clone().numpy() for p in network.parameters()] for name, network in networks.items()
        }


def serve(training):
    """Works as the worker of a class of Training."""
    flags = worker.parser(
        "float32", "bfloat16", "compiled", "compiled_bfloat16", recipes=training.networks
    ).parse_args()
    torch.set_float32_matmul_precision("high")  # TensorFloat-32 on CUDA, as in XLA
    training = training(flags.recipe, flags.variant)
    images, labels = training.images[:4], training.labels[:4]
    updates = [(name, functools.partial(update, images, labels)) for name, update in training.updates]
    worker.check_movement(updates, training.weights)
    worker.serve({"torch": torch.__version__}, {"step": training.step, "sample": training.sample})


if __name__ == "__main__":
    serve(Training)

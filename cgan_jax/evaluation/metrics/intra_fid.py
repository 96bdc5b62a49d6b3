"""Fréchet distance of each class by itself, and the mean over classes.

Miyato & Koyama (2018), section 4: "intra FID", which a generator that ignores its label cannot make small however good
its images are. The mean weighs classes equally. A class has few images, often fewer than features have dimensions, so
the numbers are far above the FID of all images and compare only at equal numbers of images per class.
"""

import numpy as np

from cgan_jax.evaluation.metrics import Sample, check
from cgan_jax.evaluation.metrics.fid import frechet_distance, moments

READS = ("features",)
MIN_IMAGES, MIN_PER_CLASS = 2, 2
BETTER = "lower"
NAMES = {"c": "intra_cfd"}


def compute(fake: Sample, real: Sample, class_names: tuple[str, ...]) -> dict[str, float]:
    """Raises UsageError if a class has fewer than two images of either kind."""
    check("intra_fid", fake, real, class_names, READS, MIN_IMAGES, MIN_PER_CLASS)
    distances = {}
    for label, name in enumerate(class_names):
        of_fake, of_real = fake.features[fake.labels == label], real.features[real.labels == label]
        distances[f"intra_fid/{name}"] = frechet_distance(moments(of_fake), moments(of_real))
    return {"intra_fid": float(np.mean(list(distances.values()))), **(distances if len(class_names) > 1 else {})}

"""Measures of generated images. One file here = one metric with this signature:

    compute(images, labels, real_images, real_labels, class_names) -> {name: number}

Images uint8 [N, H, W, C], labels int32 [N], for the generated and for the real ones, which may differ in number. An
unconditional run has a single class.
"""

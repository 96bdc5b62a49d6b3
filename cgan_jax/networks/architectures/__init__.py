"""Architectures. Each file has a pair of networks with these call signatures:

    Generator(...)(latents, labels, train) -> images
    Discriminator(...)(images, labels, train) -> Output

latents float [N, latent_dim]; labels int32 [N]; images float [N, image_size, image_size, channels] in [-1, 1]. Both
are dataclasses of plain numbers. image_size, channels and num_classes come from the dataset; num_classes is 0 if the
pair is unconditional. `Discriminator.couples_samples` says whether a sample's output depends on its batch.

Training gives a generator the random numbers "noise"; without them it draws the same image again. A generator that
truncates by itself has variables in the collection "truncation", which sampling sets to the number given.
"""

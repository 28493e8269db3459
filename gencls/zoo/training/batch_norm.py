"""Statistics of batch norm for what a network samples."""

import torch
from torch import nn

from gencls.core.streams.seeds import seeded, stream_seed
from gencls.zoo.networks.nvae.hierarchical_vae import HierarchicalVAE


def reestimate_batch_norm(network: HierarchicalVAE, *, passes: int, batch_size: int, seed: int) -> None:
    """Set the statistics of the decoder's batch norms to means over images that are sampled at the network's temperature.

    Source: GitHub SerezD/NVAE-from-scratch ``update_bn_stats.py``, with 500 passes of 100 images.

    Args:
        network: whose encoder's statistics stay as they are; its mode is restored.
        passes: batches; 0 changes nothing.
        batch_size: images of a batch.
        seed: of the draws; the global random state is left as it was.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    training = network.training
    network.train()
    seen: set[nn.BatchNorm2d] = set()
    momenta = [norm.momentum for norm in norms]
    handles = [norm.register_forward_pre_hook(lambda norm, _: _forget_once(norm, seen)) for norm in norms]
    try:
        with torch.no_grad(), seeded(stream_seed(seed, "batch norm")):
            for norm in norms:
                norm.momentum = None  # a plain mean of all passes
            for _ in range(passes):
                network.sample(batch_size)
    finally:
        for norm, momentum, handle in zip(norms, momenta, handles, strict=True):
            norm.momentum = momentum
            handle.remove()
        network.train(training)


def _forget_once(norm: nn.Module, seen: set[nn.BatchNorm2d]) -> None:
    if isinstance(norm, nn.BatchNorm2d) and norm not in seen:
        seen.add(norm)
        norm.reset_running_stats()

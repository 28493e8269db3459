"""Small NVAEs of both layouts, with and without flows, in eval mode."""

import torch

from gencls.core import seeded
from gencls.zoo.networks import NVAE, NVlabsNVAE, adaptive_groups

SETTINGS = {
    "rgb": {"image_shape": (3, 16, 16), "groups": (2, 2), "blocks": 1},
    "gray, adaptive, flows": {"image_shape": (1, 16, 8), "groups": adaptive_groups(3, 3), "blocks": 0, "flows": 2},
    "one level": {"image_shape": (2, 4, 4), "groups": (1,), "blocks": 1, "block_cells": 1},
    "NVlabs": {"image_shape": (3, 16, 16), "groups": (1, 2), "cells": (1, 2), "channels": (4, 8), "flows": 2},
    "NVlabs, absolute": {
        "image_shape": (1, 8, 8),
        "groups": (2,),
        "blocks": 0,
        "flows": 0,
        "residual": False,
        "squeeze": False,
    },
}


def build(name, **others):
    kind, both = (NVlabsNVAE, lambda number: (number, number)) if "NVlabs" in name else (NVAE, int)
    settings = {"cells": both(1), "latent_channels": 2, "channels": both(4), "mixtures": 2, "temperature": 0.6}
    with seeded(0):
        network = kind(**{**settings, **SETTINGS[name], **others})
        for part in network.modules():  # as after training, and scales of the codes that are not all near 1
            if isinstance(part, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(part.running_var, 0.5, 2.0)
                torch.nn.init.normal_(part.running_mean)
    return network.eval()

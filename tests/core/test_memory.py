import torch
from torch import nn

from gencls.core.memory import store_channels_last


def test_channels_last_also_beside_weights_of_five_dimensions():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    module.register_parameter("modulated", nn.Parameter(torch.randn(1, 4, 3, 3, 3)))
    images = torch.rand(2, 3, 8, 8)
    expected, before = module(images), {key: value.clone() for key, value in module.state_dict().items()}
    store_channels_last(module)
    assert module[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    torch.testing.assert_close(module(images), expected)

"""The network 12-6-10 for images of 1x8x8 (channels, height, width) in 10 classes.

    from model import network, normalise
    from safetensors.torch import load_file
    network.load_state_dict(load_file("weights.safetensors"))

Then `network(normalise(images))` gives the logits.
"""

from collections import OrderedDict

import torch
from torch import nn

# Of each channel, over the images the weights were trained on.
MEAN = torch.tensor([4.881344])
DEVIATION = torch.tensor([6.006892])


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Images (batch, channels, height, width) in the data set's own range, as the network takes them."""
    return (images.float() - MEAN.view(-1, 1, 1)) / DEVIATION.view(-1, 1, 1)


def block(channels: int, filters: int) -> nn.Sequential:
    """A convolution with batch norm and ReLU."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, filters, kernel_size=3, padding=1, bias=False),
            norm=nn.BatchNorm2d(filters),
            relu=nn.ReLU(),
        )
    )


network = nn.Sequential(
    OrderedDict(
        stage1=nn.Sequential(
            OrderedDict(
                block1=block(1, 12),
            )
        ),
        pool1=nn.MaxPool2d(2),
        stage2=nn.Sequential(
            OrderedDict(
                block1=block(12, 6),
            )
        ),
        pool2=nn.MaxPool2d(2),
        stage3=nn.Sequential(
            OrderedDict(
                block1=block(6, 10),
            )
        ),
        average=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        head=nn.Linear(10, 10),
    )
).eval()

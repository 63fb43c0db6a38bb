"""Network families: where a filter count becomes a `Conv2d`.

Owns the modules. Knows nothing of costs (read off by `pricing`), training or data.
"""

from collections import OrderedDict

from torch import nn

from search.errors import ConfigError
from search.networkconfig import NetworkConfig
from search.schedule import FilterSchedule


class PlainNetwork(nn.Sequential):
    """Stages of convolution blocks with pooling between them, the network of the question.

    `stage1`, `pool1`, `stage2`, ..., then global average pooling and a linear head with bias. Maps images
    `(batch, in_channels, height, width)` to logits `(batch, classes)`.

    Args:
        schedule: Filters of every block of stage i, for each i.
        in_channels: Channels of the images.
        classes: Width of the head.
        blocks_per_stage: Blocks of each stage; 2 gives a VGG (Simonyan 2014, 1409.1556).
    """

    def __init__(self, schedule: FilterSchedule, in_channels: int, classes: int, blocks_per_stage: int) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = in_channels
        for number, filters in enumerate(schedule.filters, start=1):
            if number > 1:
                layers[f"pool{number - 1}"] = nn.MaxPool2d(2)
            layers[f"stage{number}"] = _stage(channels, filters, blocks_per_stage)
            channels = filters
        layers["average"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["head"] = nn.Linear(channels, classes)
        super().__init__(layers)


def _stage(in_channels: int, filters: int, blocks: int) -> nn.Sequential:
    channels = [in_channels] + [filters] * blocks
    return nn.Sequential(OrderedDict((f"block{i + 1}", _block(channels[i], filters)) for i in range(blocks)))


def _block(in_channels: int, filters: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(in_channels, filters, kernel_size=3, padding=1, bias=False),  # batch norm shifts anyway
            norm=nn.BatchNorm2d(filters),
            relu=nn.ReLU(inplace=True),
        )
    )


def build(network: NetworkConfig, schedule: FilterSchedule, in_channels: int, classes: int) -> nn.Module:
    """The candidate's network with fresh weights, from torch's global generator."""
    match network.family:
        case "plain":
            return PlainNetwork(schedule, in_channels, classes, network.blocks_per_stage)


def check_stages(stages: int, image_shape: tuple[int, int, int]) -> None:
    """Refuse more stages than the images allow: each but the first halves the resolution, rounding down.

    Args:
        stages: How many stages the schedules have.
        image_shape: Channels, height and width.

    Raises:
        ConfigError: The last stage would see no pixel.
    """
    _, height, width = image_shape
    most = min(height, width).bit_length()
    if stages > most:
        msg = (
            f"{stages} stages on images of {height}x{width}: pooling halves the image between stages, so at most "
            f"{most} are possible; remove {stages - most} from filters.stages or use larger images"
        )
        raise ConfigError(msg)

"""Settings of every family, for tests that go through all of them."""

FAMILIES = {
    "plain": {},
    "vgg": {"blocks_per_stage": 2, "stem": "large", "stem_filters": 8},
    "residual": {"family": "residual", "blocks_per_stage": (1, 2, 1)},
    "shortcuts": {"family": "residual", "strides": (1, 1, 2), "stem_filters": 16},
    "bottleneck": {"family": "bottleneck", "stem": "large"},
    "regnet": {"family": "regnet", "group_width": 8, "strides": (1, 2, 1)},
    "regnet-se": {"family": "regnet", "group_width": 4, "stem": "large", "squeeze_excite": True},
    "inverted": {"family": "inverted", "strides": (1, 1, 2), "expansion": (1, 6, 3), "head_filters": 20},
    "inverted-se": {"family": "inverted", "kernel_size": 5, "stem_filters": 8, "squeeze_excite": True},
}
"""For three stages on images of some 16 pixels, with filters in multiples of 8."""

MEMBERS = {
    "resnet18": ({"family": "residual", "blocks_per_stage": 2}, (64, 128, 256, 512)),
    "resnet34": (
        {"family": "residual", "blocks_per_stage": (3, 4, 6, 3), "stem_filters": 64},
        (64, 128, 256, 512),
    ),
    "resnet50": ({"family": "bottleneck", "blocks_per_stage": (3, 4, 6, 3)}, (256, 512, 1024, 2048)),
    "mobilenet_v2": (
        {
            "family": "inverted",
            "blocks_per_stage": (1, 2, 3, 4, 3, 3, 1),
            "strides": (1, 2, 2, 2, 1, 2, 1),
            "expansion": (1, 6, 6, 6, 6, 6, 6),
            "stem_filters": 32,
            "head_filters": 1280,
        },
        (16, 24, 32, 64, 96, 160, 320),
    ),
    "regnet_x_400mf": (
        {"family": "regnet", "blocks_per_stage": (1, 2, 7, 12), "group_width": 16},
        (32, 64, 160, 400),
    ),
    "regnet_y_400mf": (
        {
            "family": "regnet",
            "blocks_per_stage": (1, 3, 6, 6),
            "group_width": 8,
            "stem_filters": 32,
            "squeeze_excite": True,
        },
        (48, 104, 208, 440),
    ),
}
"""Settings and filters that make torchvision's models of these names."""

import sys

import onnx
import onnxruntime
import pytest
import torch
from families import FAMILIES
from torch import nn

from search.exported import RawImageNetwork
from search.metering import price
from search.networkconfig import NetworkConfig
from search.networks import build
from search.onnxfile import OnnxError, to_onnx
from search.schedule import FilterSchedule

SCHEDULE, SHAPE, CLASSES = FilterSchedule((8, 16, 8)), (3, 16, 16), 5


def images(count):
    return torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))


def model_of(network):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2)
    return RawImageNetwork(network, [100.0, 110.0, 120.0], [60.0, 50.0, 40.0], SHAPE).eval()


def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, groups=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(196, CLASSES)
    )


@pytest.mark.integration
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_keeps_its_logits_parameters_and_macs(name, capfd, recwarn):
    network = NetworkConfig(**FAMILIES[name])
    costs = price(network, SCHEDULE, SHAPE, CLASSES, 4)
    model = model_of(build(network, SCHEDULE, 3, CLASSES))
    made = to_onnx(model, images(7), costs.params, costs.macs)
    assert (made.params, made.macs) == (costs.params, costs.macs)
    graph = onnx.load_from_string(made.content)
    onnx.checker.check_model(graph)
    norms = sum(isinstance(part, nn.BatchNorm2d) for part in model.modules())
    assert sum(node.op_type == "BatchNormalization" for node in graph.graph.node) == norms
    session = onnxruntime.InferenceSession(made.content)
    for count in (1, 5, 64):
        (logits,) = session.run(["logits"], {"images": images(count).float().numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), model(images(count)), rtol=1e-4, atol=1e-4)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_a_file_names_no_folder_of_the_machine_that_made_it():
    made = to_onnx(model_of(small()), images(2), 3 * 4 * 9 + 4 + 8 + 985, 7 * 7 * 4 * 27 + 196 * 5)
    assert made.difference <= 1e-4
    graph = onnx.load_from_string(made.content)
    assert made.opset == graph.opset_import[0].version
    assert not any(len(node.metadata_props) for node in graph.graph.node)
    assert b"site-packages" not in made.content


@pytest.mark.parametrize(("params", "macs"), [(1104, 6272), (1105, 6271)])
def test_another_count_than_the_studys_is_told(params, macs):
    with pytest.raises(OnnxError, match=r"the ONNX graph has 1,105 parameters and 6,272 MACs, the network 1,10"):
        to_onnx(model_of(small()), images(2), params, macs)


def test_other_logits_are_told(monkeypatch):
    monkeypatch.setattr("search.onnxfile.TOLERANCE", -1.0)
    with pytest.raises(OnnxError, match="onnxruntime's logits differ from PyTorch's by"):
        to_onnx(model_of(small()), images(2), 1105, 6272)


class _Choosing(nn.Module):
    """What no exporter can follow: another path for other values."""

    def __init__(self):
        super().__init__()
        self.network = small()

    def forward(self, seen):
        return self.network(seen) if seen.sum() > 0 else self.network(-seen)


def test_a_network_that_cannot_be_converted_is_told_in_one_line():
    with pytest.raises(OnnxError, match="PyTorch's exporter could not convert it") as raised:
        to_onnx(model_of(_Choosing()), images(2), 1105, 6272)
    assert "\n" not in str(raised.value)
    assert "data-dependent" in str(raised.value)
    assert "\x1b" not in str(raised.value)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_told_with_the_command_that_installs_it(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(OnnxError, match=rf"{package} is not installed; .*pip install 'filter-search\[onnx\]'"):
        to_onnx(model_of(small()), images(2), 1105, 6272)


class _Multiplying(nn.Module):
    """Matrix products of other kinds."""

    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 2, 2, stride=2)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, seen):
        return (self.head(self.up(seen)) @ torch.ones(CLASSES, CLASSES)).mean((1, 2))


def test_products_of_every_kind_are_counted():
    up, head = 3 * 16 * 16 * 2 * 4, 2 * 32 * 32 * CLASSES
    made = to_onnx(model_of(_Multiplying()), images(2), 26 + 33 * CLASSES, up + head + 2 * 32 * CLASSES * CLASSES)
    assert made.macs == 6144 + 10240 + 1600

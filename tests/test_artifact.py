import json
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import torch
from planted_exports import random_network, without_onnx
from planted_findings import make_plan
from safetensors.torch import load_file, save_file
from scipy.stats import binomtest

from search.artifact import Provenance, accuracy_interval, model_source, write_artifact
from search.config import StudyConfig
from search.evaluate import Fidelity
from search.exported import RawImageNetwork
from search.schedule import FilterSchedule
from search.scoring import parts_of
from search.sources import load
from search.splits import Splits

# Runs alone in the exported folder, where nothing can be imported but PyTorch with what it needs, and Python's own.
_READER = """
import importlib.abc, json, sys, warnings
ALLOWED = {"torch", "torchgen", "functorch", "typing_extensions", "filelock", "fsspec", "jinja2", "markupsafe",
           "mpmath", "networkx", "sympy", "model", *sys.stdlib_module_names}
class Nothing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in ALLOWED:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Nothing())
warnings.filterwarnings("ignore", "Failed to initialize NumPy")
import torch
torch.set_num_threads(1)
for folder in sys.argv[1:]:
    sys.path.insert(0, folder)
    from model import load
    network = load()
    images, labels = torch.load(f"{folder}/images.pt")
    with torch.no_grad():
        logits = network(images)
    torch.save(logits, f"{folder}/logits.pt")
    print(json.dumps([int((logits.argmax(1) == labels).sum()), len(labels), network.training]))
    del sys.modules["model"], sys.path[0]
assert "numpy" not in sys.modules
"""

NETWORKS = {
    "plain": {},
    "residual": {"family": "residual", "blocks_per_stage": 2},
    "bottleneck": {"family": "bottleneck", "stem": "large"},
    "regnet": {"family": "regnet", "group_width": 4, "squeeze_excite": True},
    "inverted": {"family": "inverted", "expansion": 2.5, "squeeze_excite": True, "head_filters": 12},
}
SCHEDULE = FilterSchedule((8, 8, 16))


def provenance_of(plan, share=1.0):
    return Provenance(plan.config, plan.data, Splits(plan.data, plan.config.data), SCHEDULE, 5, Fidelity(2, share))


def test_with_pytorch_alone_a_folder_gives_exactly_the_recorded_number_right(tmp_path):
    recorded, expected = [], {}
    for name, network in NETWORKS.items():
        plan, folder = make_plan(network=network), tmp_path / name
        own = random_network(plan, SCHEDULE, 5)
        with without_onnx():
            artifact = write_artifact(folder, provenance_of(plan), own.state_dict())
        recorded.append([artifact.values()["weights"]["right"], 120, False])
        places = [int(line) for line in (folder / "test_images.txt").read_text().splitlines()]
        images = torch.from_numpy(plan.data.images[places])
        torch.save((images, torch.from_numpy(plan.data.labels[places])), folder / "images.pt")
        mean, deviation = (torch.tensor(each).view(-1, 1, 1) for each in provenance_of(plan).moments)
        with torch.no_grad():
            expected[folder] = own((images.float() - mean) / deviation)
    command = [sys.executable, "-I", "-c", _READER, *map(str, expected)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    assert [json.loads(line) for line in ended.stdout.splitlines()] == recorded
    for folder, logits in expected.items():
        assert torch.equal(torch.load(folder / "logits.pt"), logits)


def test_the_models_own_reader_reads_what_safetensors_writes(plan, tmp_path):
    names: dict = {}
    exec(model_source(provenance_of(plan)), names)
    tensors = {
        "float": torch.randn(3, 2, 5),
        "scalar": torch.tensor(7),
        "half": torch.randn(4).half(),
        "brain": torch.randn(4).bfloat16(),
        "truth": torch.tensor([True, False, True]),
        "byte": torch.arange(5, dtype=torch.uint8),
        "double": torch.randn(2).double(),
    }
    save_file(tensors, tmp_path / "w.safetensors", metadata={"format": "pt"})
    found, expected = names["read_safetensors"](tmp_path / "w.safetensors"), load_file(tmp_path / "w.safetensors")
    assert found.keys() == expected.keys() == tensors.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_the_normalisation_in_the_model_is_that_of_the_images_the_weights_saw(plan, tmp_path):
    with without_onnx():
        write_artifact(tmp_path, provenance_of(plan, 0.1), random_network(plan, SCHEDULE, 5).state_dict())
    names: dict = {"__file__": str(tmp_path / "model.py")}
    exec((tmp_path / "model.py").read_text(), names)
    splits = Splits(plan.data, plan.config.data)
    seen, whole = (splits.train_validation(5, share).training for share in (0.1, 1))
    mean, deviation = plan.data.normalisation(seen)
    model = names["load"]()
    assert (model.image_mean.item(), model.image_deviation.item()) == (mean.item(), deviation.item())
    assert model.image_mean.item() != plan.data.normalisation(whole)[0].item()
    assert not {"image_mean", "image_deviation"} & model.state_dict().keys()


def test_test_images_are_named_by_their_place_in_the_source_dropped_classes_counted(tmp_path):
    config = StudyConfig.model_validate(
        {"name": "some", "budgets": ["params <= 1500"], "data": {"classes": [1, [3, 5]]}}
    )
    data, whole = load(config.data), load(config.data.model_copy(update={"classes": ()}))
    provenance = Provenance(config, data, Splits(data, config.data), SCHEDULE, 5, Fidelity(2))
    plan = replace(make_plan(), config=config, source=data)
    with without_onnx():
        write_artifact(tmp_path, provenance, random_network(plan, SCHEDULE, 5).state_dict())
    places = [int(line) for line in (tmp_path / "test_images.txt").read_text().splitlines()]
    assert np.array_equal(whole.images[places], data.images[provenance.splits.test])
    assert set(whole.labels[places]) == {1, 3, 5}


def test_a_test_split_the_data_came_with_is_not_listed(tmp_path):
    plan = make_plan()
    own = np.zeros(400, np.int8)
    own[300:] = 2
    plan = replace(plan, source=replace(plan.data, own_split=own))
    (tmp_path / "test_images.txt").write_text("1\n")
    with without_onnx():
        artifact = write_artifact(tmp_path, provenance_of(plan), random_network(plan, SCHEDULE, 5).state_dict())
    assert not (tmp_path / "test_images.txt").exists()
    assert artifact.values()["weights"]["images"] == 100


def test_an_onnx_file_of_a_former_export_is_taken_away_with_the_reason(plan, tmp_path):
    (tmp_path / "model.onnx").write_text("old")
    with without_onnx():
        artifact = write_artifact(tmp_path, provenance_of(plan), random_network(plan, SCHEDULE, 5).state_dict())
    assert artifact.onnx == "not asked for here"
    assert not (tmp_path / "model.onnx").exists()


LABELS = np.repeat([0, 1, 2], [200, 40, 10])


def test_plain_accuracy_has_its_wilson_interval():
    correct = np.arange(250) < 225
    interval = accuracy_interval(correct, parts_of(LABELS, "accuracy"))
    expected = binomtest(225, 250).proportion_ci(method="wilson")
    assert (interval.mean, interval.low, interval.high) == (0.9, expected.low, expected.high)


def test_balanced_accuracy_has_an_interval_that_covers_over_images():
    rng, truth = np.random.default_rng(0), np.array([0.95, 0.8, 0.6])
    parts, covered = parts_of(LABELS, "balanced_accuracy"), 0
    for _ in range(400):
        interval = accuracy_interval(rng.random(250) < truth[LABELS], parts)
        assert 0 <= interval.low <= interval.mean <= interval.high <= 1
        covered += interval.low <= truth.mean() <= interval.high
    assert 0.91 <= covered / 400 <= 0.97


def test_a_class_without_an_error_leaves_its_doubt_in_the_interval():
    interval = accuracy_interval(np.ones(250, bool), parts_of(LABELS, "balanced_accuracy"))
    assert (interval.mean, interval.high) == (1, 1)
    assert interval.low < accuracy_interval(np.ones(250, bool), parts_of(LABELS, "accuracy")).low


def test_the_order_of_the_logits_is_told_by_names_else_by_merged_classes_else_by_labels(plan):
    named = replace(provenance_of(plan), data=replace(plan.data, class_names=("a", "b", "c", 'd"""')))
    merged = plan.config.model_copy(update={"data": plan.config.data.model_copy(update={"classes": (1, (2, 3))})})
    assert provenance_of(plan).class_order == "of the labels 0 to 3"
    assert named.class_order == "of `class_names` in config.yaml"
    assert replace(provenance_of(plan), config=merged).class_order == "of `data.classes` of the study in config.yaml"
    compile(model_source(named), "model.py", "exec")


def test_the_values_told_are_those_of_the_images_that_trained_alone(plan):
    images = plan.data.images.astype(np.float32) / 16
    provenance = replace(provenance_of(plan, 0.1), data=replace(plan.data, images=images))
    others = np.setdiff1d(np.arange(len(images)), provenance.drawn.training)
    images[others] = 7
    assert provenance.input_values == {"dtype": "float32", "minimum": 0, "maximum": 1}
    assert provenance.input_in_words == "float32 with values from 0 to 1"


def test_the_check_of_the_shape_does_not_stand_in_the_way_of_an_exported_graph(plan):
    model = RawImageNetwork(random_network(plan, SCHEDULE, 5), *provenance_of(plan).moments, (1, 8, 8)).eval()
    batch = {0: torch.export.Dim("batch")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch.export.export(model, (torch.zeros(7, 1, 8, 8),), dynamic_shapes=(batch,)).module()
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(graph(images), model(images), atol=1e-5)

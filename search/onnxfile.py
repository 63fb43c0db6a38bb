"""An exported network as ONNX, checked against PyTorch and counted again.

Owns the conversion and what is asked of it. Knows nothing of studies or folders. The packages it needs come with the
extra `onnx`.
"""

import io
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from search.errors import FilterSearchError

if TYPE_CHECKING:
    import onnx

Shape = tuple[int, ...]

TOLERANCE = 1e-4
"""Largest difference of logits from PyTorch's, relative to the largest logit where that is beyond 1."""
BATCH_SIZES = (1, 7)
"""What the graph is run at: one image, and a batch no other size of a network is likely to equal."""
_COUNTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_INPUT, _OUTPUT, _BATCH = "images", "logits", "batch"


class OnnxError(FilterSearchError):
    """A network that could not be brought to ONNX, or came out as another; the message says why."""


@dataclass(frozen=True)
class OnnxFile:
    """A network as ONNX that does what PyTorch's does.

    Attributes:
        content: The file.
        opset: Version of the operators it uses.
        difference: Largest difference of a logit from PyTorch's.
        params: Numbers the graph holds that PyTorch trains.
        macs: Multiply-adds for one image, of the convolutions and matrix products the graph has.
    """

    content: bytes
    opset: int
    difference: float
    params: int
    macs: int


def to_onnx(model: nn.Module, images: Tensor, params: int, macs: int) -> OnnxFile:
    """The network as ONNX for float32 `images` of any batch, giving `logits`; batch norms are kept as they are.

    Args:
        model: In evaluation mode, on the CPU.
        images: Some that it takes, `(n_images, channels, height, width)`.
        params: What the study counted.
        macs: Likewise, for one image.

    Raises:
        OnnxError: Packages are missing, the network cannot be converted, or the graph gives other logits or has
            other parameters or MACs.
    """
    try:
        import onnx  # noqa: F401 # asked for here, so that its absence is told before the work
        import onnxruntime  # type: ignore[import-untyped] # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        msg = f"{error.name} is not installed; for model.onnx: pip install 'filter-search[onnx]', then export again"
        raise OnnxError(msg) from None
    batches = [images.float()[torch.arange(size) % len(images)] for size in BATCH_SIZES]
    try:
        with _quiet():
            graph = _convert(model, batches[-1])
    except Exception as error:  # the exporter raises what it likes, and the network may be the user's own
        cause: BaseException = error
        while cause.__cause__ is not None:  # what it raises tells of its own steps; what it was raised from, why
            cause = cause.__cause__
        first = str(cause).strip().partition("\n")[0]
        msg = f"PyTorch's exporter could not convert it ({type(cause).__name__}: {first})"
        raise OnnxError(msg) from error
    difference = _difference(model, graph, batches)
    counted = _params(model, graph), _macs(graph, batches[0])
    if counted != (params, macs):
        msg = (
            f"the ONNX graph has {counted[0]:,} parameters and {counted[1]:,} MACs, the network {params:,} and "
            f"{macs:,}; they must be the same"
        )
        raise OnnxError(msg)
    return OnnxFile(graph.SerializeToString(), graph.opset_import[0].version, difference, *counted)


def _convert(model: nn.Module, images: Tensor) -> "onnx.ModelProto":
    program = torch.onnx.export(
        model,
        (images,),
        dynamo=True,
        optimize=False,  # which folds batch norms into convolutions, so that the graph is no longer the network
        verbose=False,
        input_names=[_INPUT],
        output_names=[_OUTPUT],
        dynamic_shapes=({0: torch.export.Dim(_BATCH)},),
    )
    assert program is not None  # as always with dynamo
    graph = program.model_proto
    _strip(graph)
    return graph


def _strip(graph: "onnx.ModelProto") -> None:
    """Take out the stack traces: two thirds of a small file, and they name folders of this machine."""
    described: tuple[Any, ...] = (*graph.graph.node, *graph.graph.value_info, *graph.graph.input, *graph.graph.output)
    for part in (graph, graph.graph, *described, *graph.graph.initializer):
        part.ClearField("metadata_props")
    for node in graph.graph.node:
        node.ClearField("doc_string")


def _difference(model: nn.Module, graph: "onnx.ModelProto", batches: list[Tensor]) -> float:
    """Largest difference of a logit between PyTorch and onnxruntime over some batches.

    Raises:
        OnnxError: It is beyond `TOLERANCE`.
    """
    differences, scale = [], 1.0
    for images in batches:
        with torch.no_grad():
            expected = model(images)
        (logits,) = _run(graph, images, [_OUTPUT])
        differences.append(float((torch.from_numpy(logits) - expected).abs().max()))
        scale = max(scale, float(expected.abs().max()))
    if not max(differences) <= TOLERANCE * scale:
        msg = (
            f"onnxruntime's logits differ from PyTorch's by {max(differences):.2g}, where they are up to {scale:.2g}; "
            f"at most {TOLERANCE * scale:.2g} is allowed"
        )
        raise OnnxError(msg)
    return max(differences)


def _params(model: nn.Module, graph: "onnx.ModelProto") -> int:
    """Numbers in the graph's initial values that are no buffer of the network."""
    buffers = {name for name, _ in model.named_buffers()}
    return sum(
        math.prod(each.dims) for each in graph.graph.initializer if each.name not in buffers and each.data_type == 1
    )


def _macs(graph: "onnx.ModelProto", image: Tensor) -> int:
    """Multiply-adds of convolutions and matrix products for one image, by the shapes they have when it is run."""
    counted = [node for node in graph.graph.node if node.op_type in _COUNTED]
    names = sorted({name for node in counted for name in (*node.input[:2], node.output[0])})
    known = {each.name: tuple(each.dims) for each in graph.graph.initializer} | {_INPUT: tuple(image.shape)}
    asked = [name for name in names if name not in known]
    shapes = known | {
        name: value.shape for name, value in zip(asked, _run(graph, image, asked) if asked else [], strict=True)
    }
    return sum(_node_macs(node, *(shapes[name] for name in (*node.input[:2], node.output[0]))) for node in counted)


def _node_macs(node: "onnx.NodeProto", first: Shape, second: Shape, out: Shape) -> int:
    """Multiply-adds of a node, from the shapes of its first two inputs and its output."""
    match node.op_type:
        case "Conv":
            return math.prod(out) * math.prod(second[1:])
        case "ConvTranspose":
            return math.prod(first) * math.prod(second[1:])
        case "Gemm":
            transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
            return math.prod(out) * first[0 if transposed else 1]
        case _:  # MatMul
            return math.prod(out) * first[-1]


def _run(graph: "onnx.ModelProto", images: Tensor, outputs: list[str]) -> list[Any]:
    """The named values of the graph, run on images by onnxruntime on one thread."""
    import onnx
    import onnxruntime

    asked = onnx.ModelProto()
    asked.CopyFrom(graph)
    asked.graph.ClearField("output")
    asked.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # on networks this small a second thread costs time
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(asked.SerializeToString(), options, providers=["CPUExecutionProvider"])
        values: list[Any] = session.run(outputs, {_INPUT: images.numpy()})
    except Exception as error:  # onnxruntime has no exception of its own above these
        msg = f"onnxruntime could not run it ({type(error).__name__}: {str(error).strip().partition(chr(10))[0]})"
        raise OnnxError(msg) from error
    return values


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of its steps, and of what its own libraries will drop one day."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

"""A torch policy and its verifier -> ONNX graphs, with the inputs and outputs that prove them.

One graph each for encode, propose and verify: the boundary at which K candidates share one observation. Batch B and
candidates N are free in all of them; weights stay float32.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from vla import stacking
from vla.errors import BadConfig
from vla.modules import Batch, Memory, Verifier
from vla.policy import PolicyNet
from vla_deploy.bundle import GRAPH_OUTPUTS, Array

OPSET = 20
"""Of ONNX: the first with Gelu as one node, and one that TensorRT 10 reads."""
_FREE = {
    "memory_tokens": {0: "B", 1: "S"},
    "memory_mask": {0: "B", 1: "S"},
    "noise": {0: "B", 1: "N"},
    "actions": {0: "B", 1: "N"},
    "scores": {0: "B", 1: "N"},
    "p_success": {0: "B", 1: "N"},
}
"""Axes that are not fixed by the export; of any other name only the batch is free."""


@dataclass(frozen=True, eq=False)
class Exported:
    """What goes into a bundle."""

    graphs: dict[str, bytes]
    golden: dict[str, Array]


def trace(net: PolicyNet, verifier: Verifier | None) -> Exported:
    """Trace the graphs and record golden inputs and outputs.

    The outputs are torch's own, so that a bundle which passes its check agrees with the checkpoint.

    Raises:
        BadConfig: a part cannot be exported as an engine needs it.
    """
    given = _golden_inputs(net)
    observed = [*(f"image_{c.name}" for c in net.spec.cameras), "state", "tokens"]
    arrays: dict[str, Tensor] = {name: torch.as_tensor(value) for name, value in given.items()}
    graphs: dict[str, bytes] = {}

    def add(name: str, module: nn.Module, inputs: Sequence[str]) -> None:
        outputs, graphs[name] = _graph(name, module.eval(), {i: arrays[i] for i in inputs})
        arrays.update(outputs)

    add("encode", _Encode(net), observed)
    add("propose", _Propose(net), ["memory_tokens", "memory_mask", "noise"])
    if verifier is not None:
        add("verify", _Verify(verifier), [*observed, "memory_tokens", "memory_mask", "actions"])
    return Exported(graphs, {name: value.numpy() for name, value in arrays.items()})


class _Encode(nn.Module):
    def __init__(self, net: PolicyNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, *observed: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.net.encode(_batch(observed)))


class _Propose(nn.Module):
    def __init__(self, net: PolicyNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, tokens: Tensor, mask: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        return (self.net.propose(Memory(tokens, mask), noise),)


class _Verify(nn.Module):
    def __init__(self, verifier: Verifier) -> None:
        super().__init__()
        self.verifier = verifier

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        *observed, tokens, mask, actions = inputs
        out = self.verifier.score(_batch(observed), Memory(tokens, mask), actions)
        return (out.scores,) if out.p_success is None else (out.scores, out.p_success)


def _batch(observed: Sequence[Tensor]) -> Batch:
    *images, state, tokens = observed
    return Batch(tuple(images), state, tokens)


def _golden_inputs(net: PolicyNet) -> dict[str, Array]:
    """Two random observations and three noise draws for each: small, and no size equals another."""
    sentence = " ".join(net.tokenizer.words[: net.tokenizer.max_length])
    observations = [net.spec.fake_observation(s, seed) for seed, s in enumerate((sentence, net.tokenizer.words[-1]))]
    shape = (len(observations), 3, net.config.chunk_size, len(net.spec.action))
    noise = np.random.default_rng(0).standard_normal(shape, np.float32)
    return {**stacking.stack(net.spec, net.tokenizer, observations), "noise": noise}


@torch.no_grad()
def _graph(name: str, module: nn.Module, inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], bytes]:
    """What the module computes, and the same as an ONNX graph.

    The tracing exporter, because it is ready in a second where torch.export takes half a minute for eight unrolled
    denoising steps; the graphs compute the same.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # a fused kernel that has no ONNX counterpart
    try:
        computed = module(*inputs.values())
        outputs = dict(zip(GRAPH_OUTPUTS[name], computed, strict=False))
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a deprecation, and of sizes that are constants here on purpose
            torch.onnx.export(
                module,
                tuple(inputs.values()),
                Path(folder) / "graph.onnx",
                dynamo=False,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_axes={n: _FREE.get(n, {0: "B"}) for n in (*inputs, *outputs)},
            )
            model = onnx.load(Path(folder) / "graph.onnx")
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return outputs, _finish(name, model)


def _finish(name: str, model: onnx.ModelProto) -> bytes:
    """Drop inputs the graph does not read, and refuse what engines cannot run."""
    graph = model.graph
    read = {i for node in graph.node for i in node.input}
    kept = [i for i in graph.input if i.name in read]
    del graph.input[:]
    graph.input.extend(kept)
    for image in (i.name for i in kept if i.type.tensor_type.elem_type == onnx.TensorProto.UINT8):
        readers = {node.op_type for node in graph.node if image in node.input}
        if readers != {"Cast"}:
            raise BadConfig(
                f"{name}: the first thing done to {image} (uint8) must be a cast, not {sorted(readers)}; TensorRT "
                "takes nothing else. Write image.to(torch.float32) first in the backbone."
            )
    onnx.checker.check_model(model)
    packed: bytes = model.SerializeToString()
    return packed

"""A bundle as a policy on the spine. numpy and an engine; torch is never imported.

pipeline = vla.open_pipeline("runs/demo/bundle", verifier="privileged_advantage", n_candidates=16)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vla import stacking
from vla.errors import BadBundle, UnknownName
from vla.spec import Spec
from vla.types import Floats, Observation, Verdict
from vla_deploy import bundle as bundles
from vla_deploy.bundle import GRAPH_OUTPUTS, Array, Bundle
from vla_deploy.engines import Engine, open_engine

TOLERANCE = 1e-4
"""Largest difference from the golden outputs: actions in physical units, scores and memory in their own."""

Encoded = Mapping[str, Array]
"""The observations as arrays and the memory made of them, by the graphs' names."""


class BundlePolicy:
    """The pipeline's Policy over a bundle's graphs."""

    def __init__(self, bundle: Bundle, engine: str = "onnxruntime") -> None:
        """Open every graph, check it against the golden outputs, and warm it up.

        Raises:
            BadBundle: a graph cannot be loaded, takes other inputs than a bundle has, or computes something else.
            UnknownName, Missing: the engine.
        """
        self.bundle = bundle
        self._graphs = {name: open_engine(engine, data, f"{name}.onnx") for name, data in bundle.graphs.items()}
        _check_names(bundle, self._graphs)
        _check_golden(bundle, self._graphs)
        self._warm_up()

    @property
    def spec(self) -> Spec:
        """The contract."""
        return self.bundle.spec

    def encode(self, observations: Sequence[Observation]) -> Encoded:
        """One pass over B observations. Raises UnknownInstruction."""
        arrays = stacking.stack(self.spec, self.bundle.tokenizer, observations)
        return arrays | self._graphs["encode"].run(arrays)

    def propose(self, memory: Encoded, noise: Floats) -> tuple[Floats, None]:
        """Actions (B, N, H, A), physical units."""
        return self._graphs["propose"].run({**memory, "noise": noise})["actions"], None

    def verifier(self, name: str) -> BundleVerifier:
        """The verifier that was exported with the policy. Raises UnknownName for any other."""
        if name != self.bundle.manifest.verifier:
            raise UnknownName(
                f"bundle {self.bundle.folder} has verifier {self.bundle.manifest.verifier!r}, not {name!r}; "
                f"export it with `vla export --verifier {name}`"
            )
        return BundleVerifier(self._graphs["verify"], self.bundle.manifest.n_action_steps)

    def _warm_up(self) -> None:
        """One decision of the usual size: the first of a shape is several times slower than the rest."""
        spec, manifest = self.spec, self.bundle.manifest
        observation = spec.fake_observation(self.bundle.tokenizer.words[0])
        noise = np.zeros((1, manifest.n_candidates, spec.chunk_size or 0, len(spec.action)), np.float32)
        try:
            memory = self.encode([observation])
            actions, _ = self.propose(memory, noise)
            if manifest.verifier is not None:
                self._graphs["verify"].run({**memory, "actions": actions})
        except Exception as error:  # engines raise their own
            raise BadBundle(
                f"{self.bundle.folder}: the graphs do not run on one observation and {manifest.n_candidates} "
                f"candidates: {error}. Batch and candidates must be free axes, as `vla export` leaves them."
            ) from error


class BundleVerifier:
    """The pipeline's Verifier over verify.onnx."""

    def __init__(self, graph: Engine, n_action_steps: int) -> None:
        self._graph, self.n_action_steps = graph, n_action_steps

    def verify(self, observations: Sequence[Observation], memory: Encoded, actions: Floats) -> list[Verdict]:
        """Highest score wins; scores that are not finite refuse."""
        out = self._graph.run({**memory, "actions": actions})
        return stacking.verdicts(out["scores"], out.get("p_success"))


def load_policy(path: str) -> BundlePolicy:
    """Open a bundle folder on ONNX Runtime. Raises BadBundle."""
    return BundlePolicy(bundles.read(Path(path)))


def load_tensorrt(path: str) -> BundlePolicy:
    """Open a bundle folder on TensorRT (`tensorrt:bundles/x`). Raises BadBundle, Missing."""
    return BundlePolicy(bundles.read(Path(path)), "tensorrt")


def _check_names(bundle: Bundle, graphs: Mapping[str, Engine]) -> None:
    observed = set(bundles.input_shapes(bundle.spec, bundle.tokenizer))
    memory = set(GRAPH_OUTPUTS["encode"])
    may_read = {"encode": observed, "propose": memory | {"noise"}, "verify": observed | memory | {"actions"}}
    for name, graph in graphs.items():
        if unknown := sorted(set(graph.inputs) - may_read[name]):
            raise BadBundle(f"{bundle.folder / name}.onnx takes {', '.join(unknown)}, which no bundle's does")
        wanted = GRAPH_OUTPUTS[name]
        if graph.outputs not in (wanted, wanted[:1]) or (name == "encode" and graph.outputs != wanted):
            raise BadBundle(f"{bundle.folder / name}.onnx gives {', '.join(graph.outputs)}, not {', '.join(wanted)}")


def _check_golden(bundle: Bundle, graphs: Mapping[str, Engine]) -> None:
    """Each graph on the recorded inputs; its own predecessors' outputs are recorded too, so errors do not add up."""
    for name, graph in graphs.items():
        try:
            computed = graph.run(bundle.golden)
        except KeyError as error:
            raise BadBundle(f"{bundle.folder / 'golden.npz'} lacks {error}, which {name}.onnx takes") from error
        except Exception as error:  # engines raise their own
            raise BadBundle(f"{bundle.folder / name}.onnx does not run on golden.npz: {error}") from error
        for output, value in computed.items():
            recorded = bundle.golden.get(output)
            if recorded is None or value.shape != recorded.shape:
                raise BadBundle(f"{bundle.folder / name}.onnx: golden.npz has no {output} of shape {value.shape}")
            if not np.allclose(value.astype(np.float64), recorded.astype(np.float64), rtol=TOLERANCE, atol=TOLERANCE):
                worst = np.abs(value.astype(np.float64) - recorded.astype(np.float64)).max()
                raise BadBundle(
                    f"{bundle.folder / name}.onnx computes {output} that differ by {worst:.2g} from golden.npz "
                    f"(allowed {TOLERANCE:g}): this engine or machine does not reproduce the policy. Export it again "
                    "here, or use another engine."
                )

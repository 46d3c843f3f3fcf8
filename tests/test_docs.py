"""What README and docs show, runs: the snippet, the recipes, and every command line."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import shlex
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from vla import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code of a page in one language ("": in none)."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [code.replace("\\\n", " ") for tag, code in fenced if tag == language]


def commands(pages: list[Path]) -> list[str]:
    """Every `vla VERB ...` in a code block, an indented block, or backticks."""
    found = set()
    for page in pages:
        text = page.read_text()
        lines = [line for block in blocks(page, "") for line in block.splitlines()]
        lines += re.findall(r"^    (vla .*)$", text, re.MULTILINE)
        lines += [" ".join(code.split()) for code in re.findall(r"`(vla [^`]*)`", text)]
        found |= {line for line in lines if line.startswith("vla ")}
    return sorted(found)


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in which `runs/demo/policy` is an untrained policy with a verifier, instead of a trained one."""
    from vla import checkpoint, registry
    from vla.normalise import Statistics
    from vla.policy import PolicyConfig, fresh
    from vla.tokenizers.words import WordTokenizer

    suite = registry.suite("tabletop")()
    scales = [
        np.full(len(dims), value, np.float32) for dims in (suite.spec.state, suite.spec.action) for value in (0, 1)
    ]
    tokenizer = WordTokenizer.of(suite.instructions)
    net = fresh(PolicyConfig(), suite.spec, tokenizer, Statistics("quantile", *scales), seed=0)
    policy = tmp_path / "runs" / "demo" / "policy"
    checkpoint.save(policy, net, {})
    name = "privileged_advantage"
    checkpoint.save_verifier(policy, name, registry.build("verifiers", name, {}, net.spec, net), {}, {})
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("demo")
def test_readmes_snippet_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = blocks(ROOT / "README.md", "python")
    assert len(snippet.splitlines()) == 10
    variables: dict[str, Any] = {}
    exec(snippet, variables)
    assert variables["decision"].chunk.actions.shape == (8, 4)
    assert variables["decision"].verdict.scores.shape == (16,)
    assert variables["env"].instruction in capsys.readouterr().out


def recipes() -> dict[str, str]:
    found = blocks(ROOT / "docs" / "adding.md", "python")
    return dict(zip(("head", "verifier", "suite", "engine"), found, strict=True))


def written(tmp_path: Path, recipe: str) -> Path:
    path = tmp_path / f"{recipe}.py"
    path.write_text(recipes()[recipe])
    return path


def test_the_recipe_for_a_head_learns_and_repeats(tmp_path: Path) -> None:
    import torch

    from vla import registry
    from vla.modules import Memory

    torch.manual_seed(0)
    head = registry.build("heads", str(written(tmp_path, "head")), {"spread": 2.0}, 16, 4, 2)
    assert not head.several_modes, "or tests/contract would fail for it in vla/heads"
    memory = Memory(torch.randn(3, 5, 16), torch.ones(3, 5, dtype=torch.bool))
    target, is_pad = torch.rand(3, 4, 2) * 2 - 1, torch.zeros(3, 4, dtype=torch.bool)
    optimiser = torch.optim.Adam(head.parameters(), 0.05)
    losses = []
    for _ in range(100):
        optimiser.zero_grad()
        losses.append(head.loss(memory, target, is_pad))
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < losses[0] - 1
    noise = torch.randn(3, 6, 4, 2)
    chunks = head.sample(memory, noise)
    assert chunks.shape == (3, 6, 4, 2)
    assert torch.equal(chunks, head.sample(memory, noise))
    assert (chunks.mean(1) - target).abs().mean() < 0.2


@pytest.mark.usefixtures("demo")
def test_the_recipe_for_a_verifier_chooses(tmp_path: Path) -> None:
    import vla
    from vla import registry

    spec = registry.suite("tabletop")().spec
    pipeline = vla.open_pipeline("runs/demo/policy", str(written(tmp_path, "verifier")), n_candidates=4)
    observation = spec.fake_observation(registry.suite("tabletop")().instructions[0])
    decision = pipeline.decide(observation, np.random.default_rng(0))
    x = decision.candidates.actions / (spec.action_high - spec.action_low)
    bend = np.square(np.diff(x, 2, axis=1)).mean((1, 2))
    assert decision.verdict.best == bend.argmin()


def test_the_recipe_for_a_suite_runs_episodes(tmp_path: Path) -> None:
    """Its expert, through the pipeline, the schedule and safety, as `vla eval` would run a policy."""
    from vla import registry
    from vla.pipeline import FirstCandidate, Pipeline
    from vla_sim.rollout import run_episodes

    suite = registry._from_file(written(tmp_path, "suite")).ReachSuite()
    envs: list[Any] = []

    class Expert:
        spec = dataclasses.replace(suite.spec, chunk_size=1)

        def encode(self, observations: Any) -> Any:
            return np.stack([env.expert() for env in envs])

        def propose(self, memory: Any, noise: Any) -> Any:
            return np.broadcast_to(memory[:, None, None], noise.shape).copy(), None

    def before_decide(live: list[Any]) -> None:
        envs[:] = live

    pipeline = Pipeline(Expert(), FirstCandidate())
    rows = run_episodes(pipeline, suite, range(6), n_action_steps=1, before_decide=before_decide)
    assert [row.success for row in rows] == [True] * 6
    env = suite.make()
    env.reset(0)
    assert env.observe().images["top"].max() == 250
    assert env.render(suite.film_camera, 320, 320).shape == (320, 320, 3)
    assert suite.other_instruction("red", 0) == "go to blue"


def test_the_recipe_for_an_engine_computes_a_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx
    from onnx import TensorProto, helper

    from vla.errors import BadBundle
    from vla_deploy import engines

    written(tmp_path, "engine")
    monkeypatch.setattr(engines, "__path__", [*engines.__path__, str(tmp_path)])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", 2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    for name in ("engine", "onnxruntime"):
        opened = engines.open_engine(name, model.SerializeToString(), "double.onnx")
        assert (opened.inputs, opened.outputs) == (("x",), ("y",))
        np.testing.assert_array_equal(opened.run({"x": x, "unused": x})["y"], 2 * x)
        with pytest.raises(BadBundle, match=r"double\.onnx"):
            engines.open_engine(name, b"garbage", "double.onnx")


@pytest.mark.parametrize("line", commands(PAGES))
def test_every_command_shown_has_its_verb_and_options(line: str) -> None:
    _, verb, *rest = line.split()
    if verb in ("--help", "VERB"):
        return
    assert verb in cli.verbs()
    args = importlib.import_module(f"vla.verbs.{verb.replace('-', '_')}").Args
    if actions := {about.name: action for action, about in map(get_args, get_args(args))}:
        args = actions[rest[0]]
    options = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(args)}
    assert {word for word in rest if word.startswith("--")} <= {*options, "--help"}
    if verb == "bench" and rest[0] != "NAME":
        from vla.verbs import bench

        assert rest[0] in bench.names()


def test_the_steps_in_readme_parse() -> None:
    import tyro

    steps = [line for block in blocks(ROOT / "README.md", "") for line in block.splitlines() if line.startswith("vla ")]
    assert len(steps) > 5
    for step in steps:
        _, verb, *args = shlex.split(step)
        tyro.cli(importlib.import_module(f"vla.verbs.{verb.replace('-', '_')}").Args, args=args)


def test_json_in_the_docs_is_json() -> None:
    shown = [code for page in PAGES for code in re.findall(r"'(\{[^']*\})'", page.read_text())]
    assert shown
    assert all(isinstance(json.loads(code), dict) for code in shown)

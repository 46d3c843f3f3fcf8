"""One loop that trains any backbone with any head, on one CPU core or many GPUs (accelerate), and survives a kill.

The batch at step n depends on (seed, n) only, so a resumed run sees the frames it would have seen. The policy that is
saved is the exponential moving average of the weights.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import dataclasses
import gc
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed.nn  # imported once the group is open, its functions would keep the group and its threads
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, distributed, nn

from vla import checkpoint, policy, registry
from vla.data.cache import Cache
from vla.errors import BadCheckpoint, BadConfig
from vla.layers import average_towards
from vla.modules import Batch, Objective
from vla.normalise import measure
from vla.policy import PolicyConfig, PolicyNet
from vla.runs import alone, to_plain, write_json, write_text
from vla.spec import Method, require_match
from vla.tokenizers.words import WordTokenizer

_SAVE_EVERY_S = 20.0
"""What a kill can cost."""


@dataclass(frozen=True)
class TrainConfig:
    """How a policy is trained; saved with it."""

    policy: PolicyConfig = field(default_factory=PolicyConfig)
    steps: int = 3000
    """Optimiser steps."""
    minutes: float | None = None
    """Stop after this long at the latest; the learning rate then falls to zero by time instead of by step."""
    batch_size: int = 64
    """Frames a step, over all processes."""
    learning_rate: float = 1e-3
    """Peak of a cosine schedule with 50 warm-up steps."""
    weight_decay: float = 1e-4
    average: float = 0.998
    """Decay of the moving average that becomes the policy."""
    objective: str | None = "keypose"
    """Auxiliary objective, or None."""
    objective_weight: float = 1.0
    """Weight of the auxiliary loss."""
    normalisation: Method = "quantile"
    episodes: int | None = None
    """Use only the first n episodes of the dataset."""
    seed: int = 0
    bf16: bool = True
    """Multiply matrices in bfloat16; weights, sums and losses stay in float32."""


@dataclass(frozen=True)
class Step:
    """Where training is; given to the progress callback."""

    step: int
    fraction: float
    """Done, in [0, 1]."""
    loss: float
    objective: float
    seconds: float


class _TrainingStep(nn.Module):
    """Policy and objective as one module with one forward, as data parallelism wants it."""

    def __init__(self, net: PolicyNet, objective: Objective | None, bf16: bool) -> None:
        super().__init__()
        self.net = net
        self.bf16 = bf16
        self.objective = objective

    def forward(self, batch: Batch, actions: Tensor, is_pad: Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor]:
        with torch.autocast(actions.device.type, torch.bfloat16, enabled=self.bf16):
            memory = self.net.encode(batch)
            loss = self.net.loss(memory, actions, is_pad).float()
            if self.objective is None or targets is None:
                return loss, torch.zeros_like(loss)
            return loss, self.objective.loss(memory, targets).float()


def train(
    config: TrainConfig,
    cache: Cache,
    out: Path,
    *,
    resume: bool = False,
    initial: PolicyNet | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> PolicyNet:
    """Train a policy into a checkpoint folder.

    Args:
        config: what to train and how.
        cache: the demonstrations.
        out: the folder; `log.jsonl` there is the learning curve.
        resume: go on from the state an interrupted run left there.
        initial: start from these weights (fine-tuning); they keep their own normalisation.
        on_step: called after every step.

    Raises:
        BadConfig: settings that cannot work, or another process trains into the same folder.
        BadCheckpoint: `out` holds another run, or a state that does not fit this config.
    """
    _check(config, initial)
    cache = cache if config.episodes is None else cache.first_episodes(config.episodes)
    accelerator = _team()
    if initial is not None:
        require_match(initial.spec, cache.spec, "the policy", "the dataset")
    learner = _Learner(config, cache, initial)
    step, seconds = learner.resume(out) if resume else (0, 0.0)
    main = accelerator.is_main_process
    with alone(out) if main else contextlib.nullcontext():
        if main:
            if not resume:
                _fresh_folder(config, out)
            _drop_rows_after(out / "log.jsonl", step)
        saved = time.monotonic()
        # Only the main process writes, and the others may be here before it made the folder.
        with (out / "log.jsonl" if main else Path(os.devnull)).open("a") as log:
            for now in learner.steps(cache, accelerator, step, seconds):
                step, seconds = now.step, now.seconds
                if main and step % 20 == 0:
                    log.write(json.dumps(dataclasses.asdict(now)) + "\n")
                    log.flush()
                if main and time.monotonic() - saved > _SAVE_EVERY_S:
                    learner.save(out, step, seconds)
                    saved = time.monotonic()
                if on_step:
                    on_step(now)
        if main:
            learner.save(out, step, seconds)
            trained = {"config": dataclasses.asdict(config), "steps": step, "seconds": seconds}
            about = trained | {"frames": len(cache), "episodes": cache.n_episodes}
            checkpoint.save(out, learner.average.cpu(), about)
    accelerator.wait_for_everyone()  # what `out` holds is whole for all of them
    return learner.average.eval()


def _team() -> Accelerator:
    """The processes that train together, or this one alone."""
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    if accelerator.num_processes > 1:
        atexit.register(_leave)
    return accelerator


def _leave() -> None:
    """End the threads that serve the other processes: one that needs Python after its end would abort this process."""
    if distributed.is_initialized():
        gc.collect()  # models know the group, too
        distributed.destroy_process_group()


class _Learner:
    """The weights, their moving average and the optimiser: what steps change, and what a resumed run needs."""

    def __init__(self, config: TrainConfig, cache: Cache, initial: PolicyNet | None) -> None:
        self.config = config
        self.net = _initial(config, cache) if initial is None else copy.deepcopy(initial)
        self.net.train()
        self.targets: Tensor | None = None
        objective: Objective | None = None
        if config.objective is not None:
            with torch.random.fork_rng():
                torch.manual_seed(config.seed)
                objective = registry.build("objectives", config.objective, {}, cache.spec, self.net.backbone.width)
            self.targets = torch.as_tensor(objective.targets(cache))
        self.module = _TrainingStep(self.net, objective, config.bf16)
        self.optimiser = torch.optim.AdamW(
            self.module.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.average = copy.deepcopy(self.net).eval()

    def steps(self, cache: Cache, accelerator: Accelerator, step: int, spent: float) -> Iterator[Step]:
        """Train until steps or minutes are used up, going on after `step` and `spent` seconds; yields each step."""
        config = self.config
        module, optimiser = accelerator.prepare(self.module, self.optimiser)
        self.average.to(accelerator.device)
        data = _Frames(cache, config, self.net, self.targets, accelerator)
        torch.manual_seed(config.seed * 1_000_003 + step + accelerator.process_index)
        began, smooth = time.monotonic() - spent, _Smooth()
        accelerator.wait_for_everyone()
        while True:
            seconds = time.monotonic() - began
            if config.minutes is not None and accelerator.num_processes > 1:
                # One clock, or they would not stop at the same step.
                seconds = float(broadcast(torch.tensor(seconds, device=accelerator.device)))
            fraction = _fraction(config, step, seconds)
            if fraction >= 1:
                return
            for group in optimiser.param_groups:
                group["lr"] = _learning_rate(config, step, fraction)
            loss, extra = module(*data.batch(step))
            optimiser.zero_grad()
            accelerator.backward(loss + config.objective_weight * extra)
            accelerator.clip_grad_norm_(module.parameters(), 1.0)
            optimiser.step()
            average_towards(self.average, self.net, min(config.average, step / (step + 20)))
            step += 1
            smooth.add(float(loss.detach()), float(extra.detach()))
            if not math.isfinite(smooth.loss):
                raise BadConfig(f"the loss is not finite at step {step}; lower --learning-rate or look at the data")
            yield Step(step, fraction, smooth.loss, smooth.extra, time.monotonic() - began)

    def save(self, out: Path, step: int, seconds: float) -> None:
        """Everything a resumed run needs, as tensors: no pickle."""
        tensors = {f"module.{k}": v for k, v in self.module.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for i, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{i}.{k}": torch.as_tensor(v) for k, v in state.items()}
        tensors["step"] = torch.tensor([step, round(seconds * 1000)])
        checkpoint.save_tensors(out / "training.safetensors", {k: v.clone() for k, v in tensors.items()})

    def resume(self, out: Path) -> tuple[int, float]:
        """Load the state of an interrupted run: its steps and seconds; one killed before its first save starts over.

        Raises:
            BadCheckpoint: no run, one with other settings, or a state that does not fit.
        """
        _require_same_settings(self.config, out)
        if not (out / "training.safetensors").exists():
            return 0, 0.0
        tensors = checkpoint.load_tensors(out / "training.safetensors")
        try:
            self.module.load_state_dict({k[7:]: v for k, v in tensors.items() if k.startswith("module.")})
            self.average.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("average.")})
            state: dict[int, dict[str, Any]] = {}
            for name, value in tensors.items():
                if name.startswith("optimiser."):
                    _, index, key = name.split(".")
                    state.setdefault(int(index), {})[key] = value
            groups = self.optimiser.state_dict()["param_groups"]
            self.optimiser.load_state_dict({"state": state, "param_groups": groups})
            step, milliseconds = (int(v) for v in tensors["step"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise BadCheckpoint(f"{out}/training.safetensors does not fit this run: {error}") from error
        return step, milliseconds / 1000


def _fraction(config: TrainConfig, step: int, seconds: float) -> float:
    """How much of the training is behind: by steps, or by time where that is further."""
    by_time = 0.0 if config.minutes is None else seconds / 60 / config.minutes
    return max(step / config.steps, by_time)


def _learning_rate(config: TrainConfig, step: int, fraction: float) -> float:
    return config.learning_rate * min(1, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * fraction))


class _Smooth:
    """Running means for the progress line."""

    def __init__(self) -> None:
        self.loss = self.extra = float("nan")

    def add(self, loss: float, extra: float) -> None:
        """Follow with a memory of about 50 steps."""
        first = math.isnan(self.loss)
        self.loss = loss if first else 0.98 * self.loss + 0.02 * loss
        self.extra = extra if first else 0.98 * self.extra + 0.02 * extra


class _Frames:
    """Random batches of frames with the chunks that start at them."""

    def __init__(
        self, cache: Cache, config: TrainConfig, net: PolicyNet, targets: Tensor | None, accelerator: Accelerator
    ) -> None:
        self.cache, self.config, self.targets, self.accelerator = cache, config, targets, accelerator
        self.index, is_pad = cache.chunk_index(config.policy.chunk_size)
        self.is_pad = torch.as_tensor(is_pad)
        self.tokens = torch.as_tensor(np.stack([net.tokenizer.encode(s) for s in cache.instructions]))
        self._epoch = -1
        self._order: npt.NDArray[np.int64] = np.zeros(0, np.int64)

    def batch(self, step: int) -> tuple[Batch, Tensor, Tensor, Tensor | None]:
        """This process's share of the batch of a step: each epoch is one permutation of all frames."""
        size = min(self.config.batch_size, len(self.cache))
        epoch, position = divmod(step, len(self.cache) // size)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.config.seed, epoch]).permutation(len(self.cache))
        rows = np.sort(self._order[position * size : (position + 1) * size])
        rows = rows[self.accelerator.process_index :: self.accelerator.num_processes]
        at, cache = self.accelerator.device, self.cache
        images = tuple(torch.as_tensor(cache.images[c.name][rows]).to(at) for c in cache.spec.cameras)
        tokens = self.tokens[torch.as_tensor(cache.instruction[rows])]
        batch = Batch(images, torch.as_tensor(cache.state[rows]).to(at), tokens.to(at))
        actions = torch.as_tensor(cache.action[self.index[rows]]).to(at)
        targets = None if self.targets is None else self.targets[rows].to(at)
        return batch, actions, self.is_pad[rows].to(at), targets


def _initial(config: TrainConfig, cache: Cache) -> PolicyNet:
    statistics = measure(cache.state, cache.action, (cache.spec.state, cache.spec.action), config.normalisation)
    tokenizer = WordTokenizer.of(cache.instructions)
    return policy.fresh(config.policy, cache.spec, tokenizer, statistics, config.seed)


def _check(config: TrainConfig, initial: PolicyNet | None) -> None:
    """Refuse what cannot work before anything is written. Raises BadConfig."""
    if config.steps < 1 or config.batch_size < 1:
        raise BadConfig(f"steps and batch_size must be at least 1, got {config.steps} and {config.batch_size}")
    if not 0 < config.learning_rate < math.inf:
        raise BadConfig(f"learning_rate must be positive and finite, got {config.learning_rate}")
    if config.seed < 0:
        raise BadConfig(f"seed must not be negative, got {config.seed}")
    if config.minutes is not None and not config.minutes > 0:
        raise BadConfig(f"minutes must be more than 0, got {config.minutes}")
    if initial is not None and (changed := _changed(initial.config, config.policy.resolved())):
        raise BadConfig(f"the policy to start from has other parts: {'; '.join(changed)}; ask for the same")


def _changed(before: Any, now: Any) -> list[str]:
    """Fields of two configs, dataclasses or JSON, that differ."""
    old, new = to_plain(before), to_plain(now)
    return [f"{k} was {old.get(k)!r}, now {new[k]!r}" for k in new if old.get(k) != new[k]]


def _fresh_folder(config: TrainConfig, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if (out / "training.json").exists():
        raise BadCheckpoint(f"{out} already holds a training run; pass --resume to go on, or choose another folder")
    write_json(out / "training.json", {"config": dataclasses.asdict(config)})


def _drop_rows_after(log: Path, step: int) -> None:
    """Forget what is trained again, and the line a kill cut short: the curve has each step once."""
    kept = []
    for line in log.read_text().splitlines() if log.exists() else []:
        try:
            if json.loads(line)["step"] > step:
                break
        except (ValueError, KeyError, TypeError):
            break
        kept.append(line + "\n")
    write_text(log, "".join(kept))


def _require_same_settings(config: TrainConfig, out: Path) -> None:
    try:
        before = json.loads((out / "training.json").read_text())["config"]
        changed = _changed(before, config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadCheckpoint(f"{out} holds no training run to resume: {error}") from error
    if changed:
        raise BadCheckpoint(f"{out} was started with other settings ({'; '.join(changed)}); choose another folder")

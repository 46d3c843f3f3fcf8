"""Does choosing help? Verifiers against every free alternative, on an under-trained policy and on the demo's.

The under-trained policy sees 120 demonstrations for 1,000 steps. So few leave its candidates much alike, so what a
verifier chooses from, and learns from, is drawn with wider noise; a single sample with that noise is among the settings
without a verifier. All arms run the same 300 seeds, which nothing else uses; the gain is taken over the *best* setting
without a verifier, and three refits start from fresh rollouts.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vla.comparison import outcomes
from vla.runs import Run, to_plain
from vla.statistics import paired
from vla.verbs import _stages, demo
from vla.verbs.bench import Args, Metric, gain, share

DEMONSTRATIONS = 120
TRAIN_STEPS = 1000
EPISODES = 300
SEED = 7_000_000
ROLLOUT_EPISODES = 700
ROLLOUT_SEEDS = (3_100_000, 3_200_000, 3_300_000)
REFITS = ((0, 1), (1, 2), (2, 0))
"""Which sets of rollouts each refit sees."""
FIT_STEPS, JUDGES = 1500, 3
"""Half as many steps again as by default, and three heads: there is more to learn from."""
N_ACTION_STEPS = 4
NOISE = 1.4
"""Standard deviation of the noise of candidates that are chosen among."""
VERIFIER = demo.VERIFIER


def measure(args: Args) -> list[Metric]:
    """Train, fit, and evaluate what is not there yet; then one row a metric."""
    trained = demo.Args(out=args.out / "demo", workers=args.workers)
    demo.collect(trained)
    lab = _Lab(args.out / "verification", trained.out / "dataset", args.workers)
    lab.train()
    rows = _under_trained(lab)
    _prepare_demo(trained)
    return [*rows, *_demo_policy(lab, trained.out / "policy"), *_rivals(lab)]


def _prepare_demo(trained: demo.Args) -> None:
    """The demo's own stages, where their results are missing."""
    if not (trained.out / "policy" / "verifiers" / f"{VERIFIER}.json").exists():
        if not (trained.out / "policy" / "policy.safetensors").exists():
            demo.train(trained)
        demo.fit_verifier(trained)


def _under_trained(lab: _Lab) -> list[Metric]:
    policy = str(lab.policy)
    free = {
        f"single sample, execute {steps}": lab.arm(f"execute_{steps}", policy, n_action_steps=steps)
        for steps in (1, 2, 4)
    }
    free["single sample, execute 1, wider noise"] = lab.arm("wider", policy, n_action_steps=1, noise_scale=NOISE)
    free["zero noise"] = lab.arm("zero_noise", policy, noise_scale=0.0)
    free["agreement, K=16"] = lab.arm("agreement", policy, verifier="agreement", n_candidates=16)
    best_name = max(free, key=lambda name: free[name].mean())
    best = free[best_name]
    rows = [share(name, found) for name, found in free.items()]
    gains = []
    for i in range(len(REFITS)):
        lab.fit(i)
        found = lab.verified(f"refit_{i + 1}", lab.refit(i))
        test = paired(found, best)
        gains.append(100 * test.difference)
        name = f"{VERIFIER}, K=16, refit {i + 1}"
        rows.append(share(name, found))
        rows.append(gain(f"{name}, gain", test, ">= 0"))
        rows.append(Metric(f"{name}, p", test.p, "", EPISODES, target="<= 0.01"))
    rows.append(Metric(f"mean gain over {best_name}", float(np.mean(gains)), "points", EPISODES, target=">= 20"))
    for k in (1, 4, 64):
        rows.append(share(f"{VERIFIER}, K={k}", lab.verified(f"k{k}", lab.refit(0), n_candidates=k)))
    return rows


def _rivals(lab: _Lab) -> list[Metric]:
    """What else the same rollouts can buy, and what a perfect choice would."""
    lab.fit_vgps()
    lab.dagger()
    dagger = lab.folder / "dagger"
    return [
        share("vgps, K=16", lab.verified("vgps", lab.refit(0), verifier="vgps")),
        share("DAgger on the same states", lab.arm("dagger_single", str(dagger))),
        share(f"DAgger and {VERIFIER}, K=16", lab.verified("dagger_verified", dagger)),
        share("simulator oracle, K=16", lab.oracle(0)),
    ]


def _demo_policy(lab: _Lab, policy: Path) -> list[Metric]:
    single = lab.arm("demo_single", str(policy))
    settings = {"verifier": VERIFIER, "n_candidates": demo.K, "noise_scale": demo.NOISE}
    verified = lab.arm("demo_verified", str(policy), **settings)
    test = paired(verified, single)
    change = gain("demo policy, gain", test, ">= -1")
    return [share("demo policy, single sample", single), share(f"demo policy, {VERIFIER}, K=16", verified), change]


class _Lab:
    """The benchmark's folder: what is in it already is not made again."""

    def __init__(self, folder: Path, dataset: Path, workers: int) -> None:
        self.folder, self.dataset, self.workers = folder, dataset, workers
        self.policy = folder / "policy"
        self._rollouts: dict[int, Any] = {}

    def refit(self, i: int) -> Path:
        """A copy of the policy with the verifiers of one refit."""
        return self.folder / f"fit_{i + 1}"

    def train(self) -> None:
        """The under-trained policy."""
        from vla.training import TrainConfig

        if not (self.policy / "policy.safetensors").exists():
            config = TrainConfig(steps=TRAIN_STEPS, episodes=DEMONSTRATIONS)
            cache = _stages.open_demonstrations(self.dataset)
            _stages.train("train", config, cache, self.policy, self.workers)

    def rollouts(self, i: int) -> Any:
        """The under-trained policy's own episodes, branched: what refit `i` sees."""
        from vla.progress import bar
        from vla_sim.branch import BranchConfig, collect_rollouts, joined

        for part in REFITS[i]:
            if part not in self._rollouts:
                config = BranchConfig(
                    str(self.policy),
                    episodes=ROLLOUT_EPISODES,
                    seed=ROLLOUT_SEEDS[part],
                    n_action_steps=N_ACTION_STEPS,
                    noise_scale=NOISE,
                )
                with bar(f"rollouts {part + 1}") as show:
                    self._rollouts[part] = collect_rollouts(config, self.workers, show)
        return joined([self._rollouts[part] for part in REFITS[i]])

    def fit(self, i: int) -> None:
        """One refit of privileged_advantage, and the privileged value beside it for the oracle."""
        from vla import checkpoint
        from vla.fitting import fit_and_save
        from vla.progress import bar
        from vla.verifiers.privileged_advantage import Config, fit_value

        folder = self.refit(i)
        if (folder / "verifiers" / f"{VERIFIER}.json").exists():
            return
        shutil.copytree(self.policy, folder, dirs_exist_ok=True)
        rollouts = self.rollouts(i)
        if i == 0:
            checkpoint.save_tensors(self.folder / "value.safetensors", fit_value(rollouts, Config(), 0)[0].state_dict())
        with bar(f"{VERIFIER} {i + 1}") as show:
            fit_and_save(folder, VERIFIER, rollouts, i + 1, self.workers, show, steps=FIT_STEPS, judges=JUDGES)

    def fit_vgps(self) -> None:
        """V-GPS on the rollouts of the first refit."""
        from vla.fitting import fit_and_save
        from vla.progress import bar

        if not (self.refit(0) / "verifiers" / "vgps.json").exists():
            with bar("vgps") as show:
                fit_and_save(self.refit(0), "vgps", self.rollouts(0), 1, self.workers, show)

    def dagger(self) -> None:
        """The policy fine-tuned on the states of the first refit, with that refit's verifiers beside it."""
        from vla import checkpoint
        from vla.data.cache import open_cache
        from vla.posttrain.dagger import Config, finetune
        from vla.progress import bar
        from vla.threads import computing_on

        folder = self.folder / "dagger"
        if (folder / "verifiers").exists():
            return
        demonstrations = open_cache(self.dataset).first_episodes(DEMONSTRATIONS)
        with bar("dagger") as show, computing_on(self.workers):
            net = finetune(checkpoint.load(self.policy), demonstrations, self.rollouts(0), Config(), 1, show)
        checkpoint.save(folder, net, {"method": "dagger", "config": to_plain(Config())})
        shutil.copytree(self.refit(0) / "verifiers", folder / "verifiers")

    def arm(self, name: str, policy: str, **settings: Any) -> Any:
        """Outcomes (EPISODES,) of one arm, in the order of the seeds."""
        from vla_sim.evaluate import EvalConfig

        config = EvalConfig(policy=policy, episodes=EPISODES, seed=SEED, **settings)
        return outcomes(_stages.evaluate(name, config, self.folder / "arms" / name, self.workers))

    def verified(self, name: str, policy: Path, verifier: str = VERIFIER, n_candidates: int = 16) -> Any:
        """The same of an arm whose candidates are chosen among."""
        return self.arm(name, str(policy), verifier=verifier, n_candidates=n_candidates, noise_scale=NOISE)

    def oracle(self, i: int) -> Any:
        """Outcomes of choosing with the simulator itself."""
        run = Run.create(self.folder / "arms" / "oracle", "eval", {"oracle": "value", "seed": SEED}, resume=True)
        setup = functools.partial(_oracle_worker, str(self.refit(i)), self.folder / "value.safetensors")
        return _stages.episodes(run, range(SEED, SEED + EPISODES), setup, self.workers)


def _oracle_worker(policy: str, value_file: Path) -> Callable[[tuple[int, ...]], Any]:
    import torch

    from vla import checkpoint, registry
    from vla.pipeline import Pipeline
    from vla.verifiers.privileged_advantage import Value
    from vla_sim.oracle import SimulatorOracle
    from vla_sim.rollout import run_episodes

    suite = registry.suite("tabletop")()
    opened = registry.open_policy(policy)
    tensors = checkpoint.load_tensors(value_file)
    value = Value(tensors["members.0.0.weight"].shape[1])
    value.load_state_dict(tensors)

    @torch.inference_mode()
    def of(features: Any) -> Any:
        return value(torch.as_tensor(features)).numpy()

    oracle = SimulatorOracle(opened.spec, of, N_ACTION_STEPS)
    pipeline = Pipeline(opened, oracle, 16, NOISE)
    return lambda seeds: run_episodes(pipeline, suite, seeds, n_action_steps=N_ACTION_STEPS, before_decide=oracle.look)

"""Does choosing help on LIBERO? A policy of 20 demonstrations a task, on libero_object and two of LIBERO-PRO's changes.

"object" gives things other looks, "swap" exchanges their places; the verifier has seen neither. All pictures are drawn
with decimated meshes. Rollouts draw layouts of their own, all arms run the same official initial states, and the gain
is taken over the setting without a verifier that is the best on these very episodes. About four hours of one core.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vla.comparison import outcomes
from vla.statistics import paired
from vla.verbs import _stages
from vla.verbs.bench import Args, Metric, gain, share
from vla.verbs.demo import VERIFIER, K

SUITES = ("libero_object:decimated", "libero_object:decimated+object", "libero_object:decimated+swap")
"""The first is the one that the policy and the verifier learn in."""
DEMOS = 20
STEPS, MINUTES = 16_000, 24.0
ROLLOUT_EPISODES = 400
EPISODES = 200
SEED = 1_000_000
N_ACTION_STEPS = 4


def measure(args: Args) -> list[Metric]:
    """Collect, train, fit and evaluate what is not there yet; then the arms of each suite, and the gain."""
    folder = args.out / "libero_verification"
    _train(folder, args.workers)
    _fit(folder / "policy", args.workers)
    return [metric for suite in SUITES for metric in _compare(folder, suite, args.workers)]


def _train(folder: Path, workers: int) -> None:
    from vla.progress import bar
    from vla.training import TrainConfig
    from vla_sim.collect import CollectConfig, collect

    if (folder / "policy" / "policy.safetensors").exists():
        return
    with bar("demonstrations") as show:
        config = CollectConfig(SUITES[0], demos=DEMOS)
        collect(config, folder / "dataset", workers, lambda done, total: show(done / total, f"{done} episodes"))
    cache = _stages.open_demonstrations(folder / "dataset")
    _stages.train("train", TrainConfig(steps=STEPS, minutes=MINUTES), cache, folder / "policy", workers)


def _fit(policy: Path, workers: int) -> None:
    from vla.fitting import fit_and_save
    from vla.progress import bar
    from vla_sim.branch import BranchConfig, collect_rollouts

    if (policy / "verifiers" / f"{VERIFIER}.json").exists():
        return
    config = BranchConfig(str(policy), SUITES[0], ROLLOUT_EPISODES, n_action_steps=N_ACTION_STEPS)
    with bar("rollouts") as show:
        rollouts = collect_rollouts(config, workers, show)
    with bar(VERIFIER) as show:
        fit_and_save(policy, VERIFIER, rollouts, 0, workers, show)


def _compare(folder: Path, suite: str, workers: int) -> list[Metric]:
    def arm(name: str, **settings: Any) -> Any:
        from vla_sim.evaluate import EvalConfig

        config = EvalConfig(policy=str(folder / "policy"), suite=suite, episodes=EPISODES, seed=SEED, **settings)
        where = folder / "arms" / suite.replace(":", "_").replace("+", "_") / name
        return outcomes(_stages.evaluate(f"{suite}, {name}", config, where, workers))

    free = {
        f"single sample, execute {steps}": arm(f"execute_{steps}", n_action_steps=steps)
        for steps in (1, 2, N_ACTION_STEPS)
    }
    free["zero noise"] = arm("zero_noise", n_action_steps=N_ACTION_STEPS, noise_scale=0.0)
    free["agreement"] = arm("agreement", n_action_steps=N_ACTION_STEPS, verifier="agreement", n_candidates=K)
    verified = arm("verified", n_action_steps=N_ACTION_STEPS, verifier=VERIFIER, n_candidates=K)
    best = max(free, key=lambda name: free[name].mean())
    test = paired(verified, free[best])
    return [
        *(share(f"{suite}, {name}", found) for name, found in free.items()),
        share(f"{suite}, {VERIFIER}, K={K}", verified),
        gain(f"{suite}, gain over {best}", test),
        Metric(f"{suite}, p", test.p, "", EPISODES),
    ]

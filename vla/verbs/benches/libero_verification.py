"""Does choosing help on LIBERO? A policy of 20 demonstrations a task, on libero_object and two of LIBERO-PRO's changes.

"object" gives things other looks, "swap" exchanges their places; policy and verifier have seen neither. All pictures
are drawn with decimated meshes. The best setting without a verifier is chosen on layouts that nothing else uses; then
it, a single sample at the verified arm's rhythm and the verified arm run the same official initial states, and the gain
is over the better of the two. About three hours of one core.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vla.comparison import outcomes
from vla.statistics import paired
from vla.verbs import _stages
from vla.verbs.bench import Args, Metric, gain, share
from vla.verbs.demo import VERIFIER, K

LEARNED_IN = "libero_object:decimated"
SUITES = (LEARNED_IN, "libero_object:decimated+object", "libero_object:decimated+swap")
DEMOS = 20
STEPS, MINUTES = 16_000, 24.0
ROLLOUT_EPISODES, BRANCH_SHARE = 200, 0.25
"""A LIBERO episode has some 60 decisions: a quarter of them is states enough."""
EPISODES, SEED = 200, 1_000_000
CHOICE_EPISODES, CHOICE_SEED = 60, 5_000_000
N_ACTION_STEPS = 4
SAME_RHYTHM = "single sample, execute 4"
"""Runs every suite beside the chosen setting: what looking more often costs or gains is not the verifier's doing."""
FREE: dict[str, dict[str, Any]] = {
    SAME_RHYTHM: {},
    "single sample, execute 2": {"n_action_steps": 2},
    "single sample, execute 1": {"n_action_steps": 1},
    "zero noise": {"noise_scale": 0.0},
    "agreement": {"verifier": "agreement", "n_candidates": K},
}
"""What can be had without fitting anything."""
VERIFIED: dict[str, Any] = {"verifier": VERIFIER, "n_candidates": K}


def measure(args: Args) -> list[Metric]:
    """Collect, train, fit and evaluate what is not there yet; then the arms of each suite, and the gain."""
    folder = args.out / "libero_verification"
    _train(folder, args.workers)
    _fit(folder / "policy", args.workers)
    free = {
        name: _arm(folder / "choice", LEARNED_IN, name, settings, CHOICE_EPISODES, CHOICE_SEED, args.workers)
        for name, settings in FREE.items()
    }
    best = max(free, key=lambda name: free[name].mean())
    rows = [share(f"to choose among, {name}", found) for name, found in free.items()]
    return rows + [metric for suite in SUITES for metric in _compare(folder, suite, best, args.workers)]


def _train(folder: Path, workers: int) -> None:
    from vla.progress import bar
    from vla.training import TrainConfig
    from vla_sim.collect import CollectConfig, collect

    if (folder / "policy" / "policy.safetensors").exists():
        return
    with bar("demonstrations") as show:
        config = CollectConfig(LEARNED_IN, demos=DEMOS)
        collect(config, folder / "dataset", workers, lambda done, total: show(done / total, f"{done} episodes"))
    cache = _stages.open_demonstrations(folder / "dataset")
    _stages.train("train", TrainConfig(steps=STEPS, minutes=MINUTES), cache, folder / "policy", workers)


def _fit(policy: Path, workers: int) -> None:
    from vla.fitting import fit_and_save
    from vla.progress import bar
    from vla_sim.branch import BranchConfig, collect_rollouts

    if (policy / "verifiers" / f"{VERIFIER}.json").exists():
        return
    config = BranchConfig(
        str(policy), LEARNED_IN, ROLLOUT_EPISODES, n_action_steps=N_ACTION_STEPS, branch_share=BRANCH_SHARE
    )
    with bar("rollouts") as show:
        rollouts = collect_rollouts(config, workers, show)
    with bar(VERIFIER) as show:
        fit_and_save(policy, VERIFIER, rollouts, 0, workers, show)


def _compare(folder: Path, suite: str, best: str, workers: int) -> list[Metric]:
    names = dict.fromkeys((best, SAME_RHYTHM))
    free = {name: _arm(folder / "arms", suite, name, FREE[name], EPISODES, SEED, workers) for name in names}
    verified = _arm(folder / "arms", suite, "verified", VERIFIED, EPISODES, SEED, workers)
    test = paired(verified, max(free.values(), key=lambda outcomes: float(outcomes.mean())))
    return [
        *(share(f"{suite}, {name}", found) for name, found in free.items()),
        share(f"{suite}, {VERIFIER}, K={K}", verified),
        gain(f"{suite}, gain", test),
        Metric(f"{suite}, p", test.p, "", EPISODES),
    ]


def _arm(where: Path, suite: str, name: str, settings: dict[str, Any], episodes: int, seed: int, workers: int) -> Any:
    """Outcomes (episodes,) of one arm, in the order of the seeds; its run is kept in a folder of `where`."""
    from vla_sim.evaluate import EvalConfig

    settings = {"n_action_steps": N_ACTION_STEPS, **settings}
    policy = str(where.parent / "policy")
    config = EvalConfig(policy=policy, suite=suite, episodes=episodes, seed=seed, **settings)
    return outcomes(_stages.evaluate(f"{suite}, {name}", config, where / _as_name(suite) / _as_name(name), workers))


def _as_name(text: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in text)

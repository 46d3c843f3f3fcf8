"""Export a policy and its verifier as a bundle that runs without torch.

Prints the bundle's size, its largest difference from the checkpoint, and what a verified decision costs. Exit code 1
when the difference is above its target; the bundle is written all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Args:
    policy: str
    """Checkpoint folder, e.g. runs/demo/policy, or zoo:NAME."""
    out: Path
    """Bundle folder to write, e.g. runs/demo/bundle; an older bundle there is replaced."""
    verifier: str | None = None
    """Verifier to export with it; `vla fit-verifier` fits one."""
    n_candidates: int = 16
    """Candidates that the bundle's card recommends, and its measured cost and first decision are of."""
    n_action_steps: int | None = None
    """Actions of a chunk to execute; by default what the verifier was fitted for."""
    json: bool = False
    """Print one JSON object instead of lines."""


def main(args: Args) -> int:
    """Export, then measure what was exported."""
    from vla import zoo
    from vla.runs import to_plain
    from vla.threads import computing_on
    from vla_deploy.export import export
    from vla_deploy.latency import latency
    from vla_deploy.parity import TARGET, parity
    from vla_deploy.runtime import load_policy

    reference = export(zoo.folder(args.policy), args.out, args.verifier, args.n_candidates, args.n_action_steps)
    bundle = load_policy(str(args.out))
    words = bundle.bundle.tokenizer.words
    observations = [bundle.spec.fake_observation(words[i % len(words)], seed=i) for i in range(32)]
    with computing_on(1):
        same = parity(reference, bundle, observations, args.verifier, args.n_candidates)
    cost = latency(bundle, args.verifier, observations[0], args.n_candidates) if args.verifier else None
    size = sum(file.stat().st_size for file in args.out.iterdir())
    if args.json:
        import json

        report = {"bundle": args.out, "bytes": size, "digest": bundle.bundle.digest, "parity": same, "latency": cost}
        print(json.dumps(to_plain(report | {"latency_ratio": cost and cost.ratio}), indent=2))
    else:
        print(f"{args.out}: {size / 1e6:.1f} MB, {', '.join(f'{g}.onnx' for g in bundle.bundle.graphs)}")
        print(
            f"parity with {args.policy}: actions {same.actions_max_abs:.1e} (target {TARGET:g}), scores "
            f"{same.scores_max_abs:.1e}, same choice in {same.same_choice} of {same.decisions}"
        )
        if cost is not None:
            print(
                f"decision: {cost.single_ms:.2f} ms unverified (K=1), {cost.verified_ms:.2f} ms verified "
                f"(K={cost.n_candidates}): {cost.ratio:.2f}x"
            )
    return 0 if same.met else 1

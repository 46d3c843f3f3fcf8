"""A vision-language-action stack whose policies check their own actions.

Observation -> encode -> propose K chunks -> verify -> schedule -> safety -> Command

Importing `vla` loads neither torch nor MuJoCo; a policy is opened by name:

    import vla
    pipeline = vla.open_pipeline("runs/demo/policy", verifier="privileged_advantage", n_candidates=16)
    decision = pipeline.decide(observation, numpy.random.default_rng(0))
"""

from vla.errors import VlaError
from vla.pipeline import Pipeline, open_pipeline
from vla.spec import Spec
from vla.types import ActionChunk, Candidates, Command, Decision, Mode, Observation, Verdict

__all__ = [
    "ActionChunk",
    "Candidates",
    "Command",
    "Decision",
    "Mode",
    "Observation",
    "Pipeline",
    "Spec",
    "Verdict",
    "VlaError",
    "open_pipeline",
]

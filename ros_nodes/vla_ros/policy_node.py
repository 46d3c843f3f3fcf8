"""A policy with its verifier as a lifecycle node: images, state and instruction in, chunks out.

It decides on the first complete observation after the last chunk was executed, in a thread of its own, so that the
heartbeat the safety node listens for goes on however long a decision takes. Nothing that comes in ends the node: what
cannot be acted on becomes a diagnostic and no chunk, and no chunk means HOLD.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import Image as ImageMessage
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from vla.errors import BadConfig, BadObservation, Missing, VlaError
from vla.pipeline import Pipeline, open_pipeline
from vla.spec import Spec, differences
from vla.types import Decision, Mode, Observation
from vla_ros import interface, messages
from vla_ros.inputs import Inputs
from vla_ros.node import declared, spin


@dataclass(frozen=True)
class PolicyNodeConfig:
    """Which policy, and how it is asked."""

    policy: str = ""
    """A bundle folder (runs/demo/bundle); also a checkpoint folder, or scheme:path."""
    verifier: str = ""
    """Verifier that chooses among the candidates; "" takes the first."""
    candidates: int = 1
    """Action chunks sampled for each observation."""
    noise_scale: float = 1.0
    """Standard deviation of the sampling noise; 0 makes the policy deterministic."""
    n_action_steps: int = 4
    """Actions of a chunk that are executed before the next decision; the safety node's must be the same."""
    sync_tolerance_s: float = 0.02
    """How far apart [s] the stamps of images and state may lie to count as one moment."""
    calibration: str = ""
    """The robot's calibration file, held to the bundle's spec at each activation; "" only for a simulator."""
    seed: int = 0
    """Of the sampling noise."""
    autostart: bool = False
    """Configure and activate at the start, instead of waiting to be told."""

    def __post_init__(self) -> None:
        if not 0 <= self.sync_tolerance_s <= 10:
            raise BadConfig(f"sync_tolerance_s must be within 0 and 10, got {self.sync_tolerance_s}")
        if self.seed < 0:
            raise BadConfig(f"seed must not be negative, got {self.seed}")


class PolicyNode(LifecycleNode):  # type: ignore[misc]
    """`Pipeline.decide` behind topics."""

    def __init__(self) -> None:
        super().__init__("policy")
        self._config = declared(self, PolicyNodeConfig)
        self._pipeline: Pipeline | None = None
        self._worker: ThreadPoolExecutor | None = None
        self._deciding: Future[None] | None = None
        self._entities: list[Any] = []
        self._diagnostics = self.create_publisher(DiagnosticArray, interface.DIAGNOSTICS, interface.EVENTS)
        self._forget()
        if self._config.autostart and self.trigger_configure() is TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def close(self) -> None:
        """Let a running decision end. The heartbeat stops, and with it the safety node's trust."""
        self._active = False
        if self._worker is not None:
            self._worker.shutdown(wait=True, cancel_futures=True)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Open the policy and subscribe; FAILURE, with the reason, when it cannot be trusted."""
        config = self._config
        try:
            pipeline = open_pipeline(config.policy, config.verifier or None, config.candidates, config.noise_scale)
            pipeline.require_steps(config.n_action_steps)
        except VlaError as error:
            return self._refuse(str(error))
        except Exception as error:  # rclpy would swallow it
            return self._refuse(f"{type(error).__name__} while opening {config.policy!r}: {error}")
        self._pipeline = pipeline
        self._rng = np.random.default_rng(config.seed)
        self._worker = ThreadPoolExecutor(1, "decide")
        self._connect(pipeline.spec)
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to decide; FAILURE, with the reason, when this is not the robot that the policy was trained on."""
        if self._mismatch:
            return self._refuse(self._mismatch)
        try:
            self._check_calibration()
        except VlaError as error:
            return self._refuse(str(error))
        except Exception as error:  # rclpy would swallow it
            return self._refuse(f"{type(error).__name__} while checking {self._config.calibration!r}: {error}")
        self._active = True
        config = self._config
        chosen = f"{config.verifier} chooses among {config.candidates}" if config.verifier else "nothing verifies it"
        self.get_logger().info(f"active: {config.policy}, {chosen}, executing {config.n_action_steps} at a time")
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Finish the running decision, and be silent."""
        self._active = False
        if self._deciding is not None:
            self._deciding.result()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the policy and the topics."""
        self.close()
        for destroy, entity in self._entities:
            destroy(entity)
        self._entities.clear()
        self._pipeline = self._worker = None
        self._forget()
        return super().on_cleanup(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an exception in a transition: back to unconfigured, so that it can be tried again."""
        return self.on_cleanup(state)

    def _LifecycleNodeMixin__change_state(self, transition_id: int) -> TransitionCallbackReturn:  # noqa: N802
        """rclpy's own, through which every transition goes: for one not possible now it raises, and the node ends."""
        try:
            return super()._LifecycleNodeMixin__change_state(transition_id)
        except RuntimeError as error:  # RCLError
            return self._refuse(f"no such transition now: {error}; `ros2 lifecycle list` shows those there are")

    def _check_calibration(self) -> None:
        """Hold the robot's newest calibration to the spec. Raises BadCalibration, Missing."""
        if not self._config.calibration:
            return
        try:
            from vla_calibration.drift import require_calibrated
        except ImportError as error:
            raise Missing("checking a calibration needs `uv pip install 'vla-stack[calibration]'`") from error
        for warning in require_calibrated(Path(self._config.calibration), self._spec):
            self.get_logger().warning(warning)
            self._report(messages.WARN, warning, {})

    def _forget(self) -> None:
        self._active = False
        self._instruction = ""
        self._robot_known = False
        self._mismatch = ""
        self._newest_ns = 0
        """The robot's time: the newest state's stamp, as for the safety node. Images may be a little off."""
        self._next_ns = 0
        """States before this are left alone: a chunk is being executed."""
        self._tracked_ns = -1
        """The stamp of the newest TRACK command."""

    def _connect(self, spec: Spec) -> None:
        self._inputs = Inputs(tuple(c.name for c in spec.cameras), round(self._config.sync_tolerance_s * 1e9))
        self._chunks = self.create_lifecycle_publisher(JointTrajectory, interface.CHUNK, interface.WATCHED)
        subscriptions = [
            self.create_subscription(JointState, interface.STATE, self._on_state, interface.NEWEST),
            self.create_subscription(JointTrajectory, interface.COMMAND, self._on_command, interface.NEWEST),
            self.create_subscription(String, interface.SPEC, self._on_spec, interface.LATCHED),
            self.create_subscription(String, interface.INSTRUCTION, self._on_instruction, interface.LATCHED),
        ]
        for camera in spec.cameras:
            take = self._image_taker(camera.name)
            topic = interface.image_topic(camera.name)
            subscriptions.append(self.create_subscription(ImageMessage, topic, take, interface.IMAGES))
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        timers = [
            self.create_timer(interface.HEARTBEAT_S, self._beat, clock=steady),
            self.create_timer(0.5, self._tell, clock=steady),
        ]
        self._entities = [(self.destroy_subscription, s) for s in subscriptions]
        self._entities += [(self.destroy_timer, t) for t in timers]
        self._entities.append((self.destroy_lifecycle_publisher, self._chunks))

    def _image_taker(self, camera: str) -> Any:
        def take(message: ImageMessage) -> None:
            try:
                image = messages.image_of(message)
            except BadObservation as error:
                self._report(messages.ERROR, f"camera {camera!r}: {error}", {})
                return
            self._inputs.image(camera, image, messages.to_ns(message.header.stamp))
            self._consider()

        return take

    def _on_state(self, message: JointState) -> None:
        try:
            state = messages.state_of(message, self._spec.state)
        except BadObservation as error:
            self._report(messages.ERROR, str(error), {})
            return
        stamp = messages.to_ns(message.header.stamp)
        if stamp < self._newest_ns:
            self._next_ns = 0  # the robot was started again
            self._inputs.forget()
        self._newest_ns = stamp
        self._inputs.state(state, stamp)
        self._consider()

    def _on_command(self, message: JointTrajectory) -> None:
        if message.header.frame_id == Mode.TRACK.value:
            self._tracked_ns = messages.to_ns(message.header.stamp)

    def _on_instruction(self, message: String) -> None:
        self._instruction = message.data
        self._next_ns = 0  # no reason to finish the old chunk

    def _on_spec(self, message: String) -> None:
        try:
            found = differences(self._spec, Spec.from_text(message.data, "the robot's spec"))
        except BadConfig as error:
            found = [str(error)]
        self._robot_known, self._mismatch = True, ""
        if found:
            self._mismatch = "the policy and the robot disagree (policy | robot): " + "; ".join(found)
            self._report(messages.ERROR, self._mismatch, {})

    @property
    def _spec(self) -> Spec:
        assert self._pipeline is not None
        return self._pipeline.spec

    def _consider(self) -> None:
        """Decide, if the inputs are complete and it is time to."""
        if not self._active or self._mismatch or not self._instruction or self._newest_ns < self._next_ns:
            return
        if self._deciding is not None and not self._deciding.done():
            return
        observation = self._inputs.observation(self._instruction)
        if observation is None or self._worker is None:
            return
        self._next_ns = self._newest_ns + 1
        self._deciding = self._worker.submit(self._decide, observation, time.monotonic_ns())

    def _decide(self, observation: Observation, received_ns: int) -> None:
        assert self._pipeline is not None
        begun = time.monotonic_ns()
        try:
            decision = self._pipeline.decide(observation, self._rng)
        except BadObservation as error:
            self._report(messages.ERROR, str(error), {})
            return
        except Exception as error:  # an engine's own errors: the robot holds, the node stays
            self._report(messages.ERROR, f"{type(error).__name__} while deciding: {error}", {})
            return
        decided = time.monotonic_ns()
        if observation.instruction != self._instruction or not self._active:
            return
        if decision.chunk is not None:
            self._chunks.publish(messages.chunk_message(decision.chunk, self._spec))
        # It begins in the period that is running now, not always the observation's; or in the next, where this one
        # has its action already. The safety node goes by the same rule.
        begins = self._newest_ns + (self._spec.dt_ns if self._tracked_ns == self._newest_ns else 0)
        # Half a period early, as in `vla.schedule`: a state that comes a little early is still this period's.
        self._next_ns = begins + self._config.n_action_steps * self._spec.dt_ns - self._spec.dt_ns // 2
        self._describe(decision, received_ns, begun, decided)

    def _describe(self, decision: Decision, received_ns: int, begun_ns: int, decided_ns: int) -> None:
        verdict, observation = decision.verdict, decision.observation
        chosen = verdict.p_success_of_best
        values: dict[str, object] = {
            "observed_ns": observation.stamp_ns,
            "received_ns": received_ns,
            "decide_ns": decided_ns - begun_ns,
            "best": verdict.best,
            "scores": " ".join(f"{s:.4g}" for s in verdict.scores),
            "p_success": "" if chosen is None else f"{chosen:.4f}",
            **{f"{stage}_ns": ns for stage, ns in decision.timings_ns.items()},
        }
        level = messages.OK if decision.chunk is not None else messages.WARN
        self._report(level, verdict.reason, values)

    def _beat(self) -> None:
        if self._active:
            self._chunks.assert_liveliness()

    def _tell(self) -> None:
        """Say what the policy is waiting for, or that it is ready."""
        if not self._active:
            return
        waiting = self._inputs.missing()
        waiting += ["the robot's spec"] * (not self._robot_known)
        waiting += ["the safety node"] * (not self._chunks.get_subscription_count())
        text = self._mismatch or (f"waiting for {', '.join(waiting)}" if waiting else "ready")
        level = messages.ERROR if self._mismatch else messages.WARN if waiting else messages.OK
        self._report(level, text, {})

    def _refuse(self, reason: str) -> TransitionCallbackReturn:
        self.get_logger().error(reason)
        self._report(messages.ERROR, reason, {})
        return TransitionCallbackReturn.FAILURE

    def _report(self, level: bytes, text: str, values: Mapping[str, object]) -> None:
        self._diagnostics.publish(messages.diagnostic("policy", level, text, self._newest_ns, values))


if __name__ == "__main__":
    sys.exit(spin(PolicyNode))

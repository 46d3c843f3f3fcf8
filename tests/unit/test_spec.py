"""The contract refuses what does not match, and names the field."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vla.errors import BadConfig, BadObservation, SpecMismatch
from vla.spec import Camera, Dim, Normalisation, Spec, check_observation, differences, require_match
from vla.types import Observation

SPEC = Spec(
    robot="panda",
    state=(Dim("x", "m", "absolute", "base", -1.0, 1.0), Dim("width", "m", "absolute", "gripper", 0.0, 0.08)),
    action=(Dim("dx", "m", "delta", "base", -0.04, 0.04), Dim("width", "m", "absolute", "gripper", 0.0, 0.08, 0.2)),
    rotation="none",
    gripper="width",
    cameras=(Camera("agent", 8, 6), Camera("wrist", 4, 4, crop=(0, 0, 2, 2), flip="vertical")),
    control_rate_hz=10.0,
)
DECIDED = dataclasses.replace(SPEC, chunk_size=8, normalisation=Normalisation("quantile", "aa"))


def change_dim(spec: Spec, **changes: Any) -> Spec:
    return dataclasses.replace(spec, action=(dataclasses.replace(spec.action[0], **changes), *spec.action[1:]))


MISMATCHES = [
    ("robot", dataclasses.replace(SPEC, robot="ur5")),
    ("action[dx].unit", change_dim(SPEC, unit="rad")),
    ("action[dx].kind", change_dim(SPEC, kind="velocity")),
    ("action[dx].frame", change_dim(SPEC, frame="tool")),
    ("action[dx].high", change_dim(SPEC, high=0.05)),
    ("action[dx].max_rate", change_dim(SPEC, max_rate=1.0)),
    ("action[0].name", change_dim(SPEC, name="dy")),
    ("state", dataclasses.replace(SPEC, state=SPEC.state[:1])),
    ("rotation", dataclasses.replace(SPEC, rotation="axis_angle")),
    ("gripper", dataclasses.replace(SPEC, gripper="positive_open")),
    ("cameras[0].name", dataclasses.replace(SPEC, cameras=SPEC.cameras[::-1])),
    ("cameras[wrist].crop", dataclasses.replace(SPEC, cameras=(SPEC.cameras[0], Camera("wrist", 4, 4)))),
    ("cameras[agent].height", dataclasses.replace(SPEC, cameras=(Camera("agent", 9, 6), SPEC.cameras[1]))),
    ("control_rate_hz", dataclasses.replace(SPEC, control_rate_hz=20.0)),
]


@pytest.mark.parametrize(("field", "other"), MISMATCHES)
def test_a_mismatch_names_the_field_from_either_side(field: str, other: Spec) -> None:
    for pair in ((SPEC, other), (other, SPEC)):
        assert any(found.startswith(f"{field}: ") for found in differences(*pair))
        with pytest.raises(SpecMismatch, match="policy and robot disagree on") as caught:
            require_match(*pair, "policy", "robot")
        assert f"\n  {field}: " in str(caught.value)


def test_every_mismatch_is_reported_at_once() -> None:
    other = dataclasses.replace(SPEC, robot="ur5", control_rate_hz=20.0)
    assert [f.partition(":")[0] for f in differences(SPEC, other)] == ["control_rate_hz", "robot"]


def test_what_a_robot_has_not_decided_is_not_compared() -> None:
    require_match(SPEC, DECIDED, "robot", "policy")
    require_match(DECIDED, SPEC, "policy", "robot")


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("chunk_size", dataclasses.replace(DECIDED, chunk_size=4)),
        ("normalisation.digest", dataclasses.replace(DECIDED, normalisation=Normalisation("quantile", "bb"))),
    ],
)
def test_what_both_have_decided_is_compared(field: str, other: Spec) -> None:
    assert [f.partition(":")[0] for f in differences(DECIDED, other)] == [field]


@pytest.mark.parametrize("spec", [SPEC, DECIDED])
def test_a_spec_survives_json(tmp_path: Path, spec: Spec) -> None:
    spec.save(tmp_path / "spec.json")
    again = Spec.load(tmp_path / "spec.json")
    assert again == spec
    assert again.digest() == spec.digest()
    assert differences(again, spec) == []


def test_the_digest_tells_specs_apart() -> None:
    digests = {SPEC.digest(), DECIDED.digest(), *(other.digest() for _, other in MISMATCHES)}
    assert len(digests) == 2 + len(MISMATCHES)


@pytest.mark.parametrize(
    "data",
    [
        None,
        3,
        "spec",
        [],
        {},
        {"robot": "panda"},
        {**SPEC.to_json(), "colour": "red"},
        {**SPEC.to_json(), "state": [{"name": "x"}]},
        {**SPEC.to_json(), "state": 4},
        {**SPEC.to_json(), "cameras": [None]},
        {**SPEC.to_json(), "control_rate_hz": "fast"},
        {**SPEC.to_json(), "normalisation": {"method": "quantile"}},
    ],
)
def test_garbage_is_not_a_spec(data: Any) -> None:
    with pytest.raises(BadConfig, match=r"robot\.json"):
        Spec.from_json(data, "robot.json")


def edited(group: str, **changes: Any) -> dict[str, Any]:
    """SPEC as JSON, its first entry of a group changed by hand."""
    data = SPEC.to_json()
    return {**data, group: [{**data[group][0], **changes}, *data[group][1:]]}


POSE = {"mount": "base", "position_m": [0.0, 0.0, 1.0], "quaternion_xyzw": [0.0, 0.0, 0.0, 1.0]}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (edited("action", low=-1e300), "dx.*limits"),  # infinite as float32: it would let everything through
        (edited("action", high=10**400), "dx.*limits"),
        (edited("action", high=math.nan), "dx.*limits"),
        (edited("action", low=0.04 - 1e-12), "dx.*limits"),
        (edited("action", max_rate=-1.0), "dx.*max_rate"),
        (edited("action", max_rate=math.nan), "dx.*max_rate"),
        (edited("action", max_rate=0), "dx.*max_rate"),
        (edited("action", max_rate=10**400), "dx.*max_rate"),
        (edited("state", name=5), "must be printable text"),
        (edited("state", name="x\u202e"), "must be printable text"),
        (edited("state", frame=""), "must be printable text"),
        (edited("cameras", name="../../agent"), "letters, digits and underscores"),
        (edited("cameras", name="caméra"), "letters, digits and underscores"),
        (edited("cameras", height=10**12), "1 and 8192 pixels"),
        (edited("cameras", width=-6), "1 and 8192 pixels"),
        (edited("cameras", width=6.0), "1 and 8192 pixels"),
        (edited("cameras", crop=[0, 0, 2]), "crop"),
        (edited("cameras", flip="sideways"), "flip"),
        (edited("cameras", pose={**POSE, "quaternion_xyzw": [math.nan, 0, 0, 1]}), "unit quaternion"),
        ({**SPEC.to_json(), "control_rate_hz": 1e12}, "control_rate_hz"),
        ({**SPEC.to_json(), "control_rate_hz": -10}, "control_rate_hz"),
        ({**SPEC.to_json(), "control_rate_hz": math.nan}, "control_rate_hz"),
        ({**SPEC.to_json(), "chunk_size": 10**12}, "chunk_size"),
        ({**SPEC.to_json(), "chunk_size": 8.5}, "chunk_size"),
        ({**SPEC.to_json(), "rotation": "euler"}, "rotation"),
        ({**SPEC.to_json(), "gripper": "upside_down"}, "gripper"),
        ({**SPEC.to_json(), "drift": {"refuse_m": math.nan}}, "drift"),
        ({**SPEC.to_json(), "drift": {"refuse_rad": math.inf}}, "drift"),
    ],
)
def test_a_spec_edited_by_hand_into_something_unsafe_is_refused(data: dict[str, Any], says: str) -> None:
    with pytest.raises(BadConfig, match=says):
        Spec.from_text(json.dumps(data), "robot.json")


@pytest.mark.parametrize("text", ["[" * 100_000, " " * (1 << 21)], ids=["deep", "long"])
def test_a_file_that_would_exhaust_its_reader_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "spec.json").write_text(text)
    with pytest.raises(BadConfig, match=r"spec\.json"):
        Spec.load(tmp_path / "spec.json")


@pytest.mark.parametrize("text", ["", "{", "[1, 2", "\x00"])
def test_a_file_that_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "spec.json").write_text(text)
    with pytest.raises(BadConfig, match=r"spec\.json"):
        Spec.load(tmp_path / "spec.json")
    with pytest.raises(BadConfig, match="nowhere"):
        Spec.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state": ()}, r"spec\.state"),
        ({"action": (SPEC.action[0], SPEC.action[0])}, "unique names"),
        ({"action": (dataclasses.replace(SPEC.action[0], low=1.0),)}, "'dx': limits"),
        ({"action": (dataclasses.replace(SPEC.action[0], high=math.inf),)}, "'dx': limits"),
        ({"action": (dataclasses.replace(SPEC.action[0], kind="jerk"),)}, "'dx': kind 'jerk'"),
        ({"action": (dataclasses.replace(SPEC.action[0], unit="mm", moves="x"),)}, "'x': .* in its unit, 'mm'"),
        ({"control_rate_hz": 0.0}, "control_rate_hz"),
        ({"control_rate_hz": math.nan}, "control_rate_hz"),
        ({"chunk_size": 0}, "chunk_size"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        dataclasses.replace(SPEC, **changes)


def test_limits_and_period_come_in_the_specs_units() -> None:
    assert SPEC.dt_ns == 100_000_000
    np.testing.assert_array_equal(SPEC.action_low, np.array([-0.04, 0.0], np.float32))
    np.testing.assert_array_equal(SPEC.action_high, np.array([0.04, 0.08], np.float32))


def test_a_fake_observation_satisfies_its_spec_and_repeats() -> None:
    one, two = SPEC.fake_observation("go", seed=4), SPEC.fake_observation("go", seed=4)
    check_observation(SPEC, one)
    np.testing.assert_array_equal(one.images["agent"], two.images["agent"])
    np.testing.assert_array_equal(one.state, two.state)


GOOD = SPEC.fake_observation()


def with_image(image: Any) -> Observation:
    return dataclasses.replace(GOOD, images={**GOOD.images, "wrist": image})


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (dataclasses.replace(GOOD, images={"agent": GOOD.images["agent"]}), r"missing \['wrist'\]"),
        (dataclasses.replace(GOOD, images={}), r"missing \['agent', 'wrist'\]"),
        (dataclasses.replace(GOOD, images={**GOOD.images, "rear": GOOD.images["wrist"]}), r"unexpected \['rear'\]"),
        (with_image(np.zeros((4, 5, 3), np.uint8)), r"'wrist': want uint8 \(4, 4, 3\).*\(4, 5, 3\)"),
        (with_image(np.zeros((4, 4), np.uint8)), "'wrist'"),
        (with_image(np.zeros((4, 4, 3), np.float32)), "'wrist'.*float32"),
        (with_image([[0]]), "'wrist'.*list"),
        (dataclasses.replace(GOOD, state=np.zeros(3, np.float32)), r"state: want float32 \(2,\).*\(3,\)"),
        (dataclasses.replace(GOOD, state=np.zeros(2)), "state.*float64"),
        (dataclasses.replace(GOOD, state=[0.0, 0.0]), "state.*list"),
        (dataclasses.replace(GOOD, state=np.array([0, np.nan], np.float32)), r"state \['width'\] is NaN"),
        (dataclasses.replace(GOOD, state=np.array([-np.inf, np.nan], np.float32)), r"state \['x', 'width'\] is NaN"),
    ],
)
def test_an_observation_that_breaks_the_spec_is_refused(observation: Observation, message: str) -> None:
    with pytest.raises(BadObservation, match=message):
        check_observation(SPEC, observation)


def test_the_spec_is_plain_json() -> None:
    assert json.loads(json.dumps(DECIDED.to_json()))["cameras"][1]["crop"] == [0, 0, 2, 2]

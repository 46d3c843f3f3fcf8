"""What is written is read back, what was altered or is another robot's is refused, other programs' files survive."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from test_geometry import FISHEYE, HOME, PANDA, RADTAN

from vla import registry
from vla.cli import main
from vla.errors import BadCalibration, BadConfig
from vla.spec import Drift, Spec, differences, pose_distance
from vla_calibration import store
from vla_calibration.drift import check_spec, pose_of
from vla_calibration.exchange import (
    camera_info,
    handeye,
    patch_model,
    read_camera_info,
    read_handeye,
)
from vla_calibration.geometry import distance, looking_at, moved, transform
from vla_calibration.kinematics import load_chain
from vla_calibration.reexpress import redrawing, reexpress
from vla_calibration.store import Calibration, CameraEntry, Offset
from vla_calibration.verifier import fit_scale, plot, reliability

PLACE = looking_at(np.array([1.1, 0.1, 0.6]), np.array([0.5, 0.0, 0.1]))


def calibration() -> Calibration:
    entry = CameraEntry(RADTAN, "base", PLACE, 1e-6 * np.eye(6), 0.12, 20, np.eye(4))
    return Calibration({"agent": entry}, {"joint2": Offset(0.05, 1e-4)}, {"agent": Offset(0.02, 1e-3)}, (1.02, -0.001))


def test_versions_are_kept_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "robots" / "panda.yaml"
    assert store.add(path, "panda", calibration()) == 1
    changed = replace(calibration(), joints={"joint2": Offset(0.06, 1e-4)})
    assert store.add(path, "panda", changed) == 2
    first, second = store.history(path, "panda")
    assert (first.version, second.version, store.load(path).version) == (1, 2, 2)
    np.testing.assert_array_equal(first.cameras["agent"].mount_from_camera, PLACE)
    assert first.cameras["agent"].intrinsics == RADTAN
    assert (first.joints, first.clocks, first.gripper) == (
        calibration().joints,
        calibration().clocks,
        calibration().gripper,
    )
    assert first.date
    assert first.revision
    assert store.differences(first, second) == ["joint joint2: offset changed by +0.573 degrees"]
    assert store.differences(first, first) == []


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda d: d.update(robot="other"), "robot 'other', not of 'panda'"),
        (lambda d: d.update(format="1"), "no calibration of format 1"),
        (lambda d: d["versions"][0].update(version=3), "calls itself 3"),
        (lambda d: d["versions"][0].pop("clocks"), "'clocks'"),
        (lambda d: d["versions"][0]["cameras"]["agent"]["intrinsics"].update(fx=float("nan")), "finite numbers"),
        (lambda d: d["versions"][0]["cameras"]["agent"].update(mount="ceiling"), "neither 'base' nor 'hand'"),
        (lambda d: d["versions"][0]["cameras"]["agent"]["mount_from_camera"][0].reverse(), "no rigid transform"),
        (lambda d: d["versions"][0]["cameras"]["agent"]["covariance"][0].__setitem__(0, -1.0), "negative variances"),
        (lambda d: d["versions"][0]["joints"]["joint2"].update(offset_rad=2.0), "beyond"),
        (lambda d: d["versions"][0]["gripper"].update(scale=20), "no gripper's"),
    ],
)
def test_a_file_that_was_altered(spoil: Any, says: str, tmp_path: Path) -> None:
    path = tmp_path / "panda.yaml"
    store.add(path, "panda", calibration())
    data = yaml.safe_load(path.read_text())
    spoil(data)
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(BadCalibration, match=says):
        store.load(path, "panda")
    with pytest.raises(BadCalibration, match=says):
        store.add(path, "panda", calibration())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("!!python/object/apply:os.system ['true']", "not plain YAML"),
        ("a: &a [1]\nb: *a", "aliases"),
        ("[1, 2]", "not hold an object"),
        ("a: [", "not plain YAML"),
    ],
)
def test_yaml_that_is_none_of_ours(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(BadCalibration, match=says):
        store.load(tmp_path / "x.yaml")


def test_a_policys_spec_and_the_robots_calibration(tmp_path: Path) -> None:
    suite: Spec = registry.suite("tabletop")().spec
    spec = replace(suite, cameras=tuple(replace(c, pose=None) for c in suite.cameras), drift=None)
    entry = calibration().cameras["agent"]
    cameras = (replace(spec.cameras[0], pose=pose_of(entry)), *spec.cameras[1:])
    trained = replace(spec, cameras=cameras, drift=Drift())
    trained.save(tmp_path / "spec.json")
    back = Spec.load(tmp_path / "spec.json")
    assert back == trained
    assert differences(spec, trained) == []  # one of them does not know where its cameras are
    assert "pose" not in spec.to_json()["cameras"][0]
    moves = {"ok": 0.002, "warn": 0.012, "refuse": 0.03}
    for level, metres in moves.items():
        now = replace(entry, mount_from_camera=moved(PLACE, np.array([metres, 0, 0, 0, 0, 0])))
        result = check_spec(Calibration({"agent": now}), back)["agent"]
        assert (result.level, result.metres) == (level, pytest.approx(metres, abs=1e-9))
        live = replace(back, cameras=(replace(back.cameras[0], pose=pose_of(now)), *back.cameras[1:]))
        assert bool(differences(back, live)) is (level == "refuse")
    elsewhere = check_spec(Calibration({"agent": replace(entry, mount="hand")}), back)["agent"]
    assert elsewhere.level == "refuse"
    spoiled = trained.to_json()
    spoiled["cameras"][0]["pose"]["quaternion_xyzw"] = [0, 0, 0, 2]
    with pytest.raises(BadConfig, match="unit quaternion"):
        Spec.from_json(spoiled)


def test_the_tabletops_spec_says_where_its_cameras_are() -> None:
    from vla_sim.rendering import mujoco
    from vla_sim.suites.tabletop import ASSETS

    model = mujoco.MjModel.from_xml_path(str(ASSETS / "tabletop.xml"))
    data = mujoco.MjData(model)
    data.qpos[:7] = HOME
    mujoco.mj_kinematics(model, data)
    mujoco.mj_camlight(model, data)
    tool = transform(data.site("tool").xmat.reshape(3, 3), data.site("tool").xpos)
    for camera in registry.suite("tabletop")().spec.cameras:
        found = data.cam(camera.name)
        place = transform(found.xmat.reshape(3, 3) @ np.diag([1.0, -1, -1]), found.xpos)
        if camera.pose.mount == "hand":
            place = np.linalg.inv(tool) @ place
        entry = CameraEntry(RADTAN, camera.pose.mount, place, np.eye(6), 0.1, 20)
        assert max(pose_distance(camera.pose, pose_of(entry))) < 1e-6


@pytest.mark.parametrize("camera", [RADTAN, FISHEYE], ids=lambda c: c.model)
def test_ros_camera_info_and_easy_handeye(camera: Any, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(camera_info("agent", camera)))
    assert read_camera_info(path) == camera
    path.write_text(path.read_text().replace("distortion_model: ", "distortion_model: x"))
    with pytest.raises(BadCalibration, match="distortion model"):
        read_camera_info(path)
    entry = calibration().cameras["agent"]
    path.write_text(yaml.safe_dump(handeye("agent", entry)))
    mount, place = read_handeye(path)
    assert mount == "base"
    assert max(distance(place, PLACE)) < 1e-9
    path.write_text(path.read_text().replace("w: ", "w: 5 #"))
    with pytest.raises(BadCalibration, match="unit quaternion"):
        read_handeye(path)
    with pytest.raises(BadCalibration, match="no camera_info"):
        read_camera_info(path)


def test_what_other_programs_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs, out = tmp_path / "ours.yaml", tmp_path / "theirs.yaml", tmp_path / "out"
    store.add(ours, "panda", calibration())
    assert main(["calibrate", "export", "--store", str(ours), "--out", str(out)]) == 0
    lens, place = out / "agent.camera_info.yaml", out / "agent.handeye.yaml"
    lens.write_text(lens.read_text().replace(f"{RADTAN.distortion[-1]}", "1e-05", 1))  # as C++ writes it

    def run(*files: object) -> tuple[int, str]:
        code = main(["calibrate", "import", "--store", str(theirs), "--robot", "panda", *map(str, files)])
        said = capsys.readouterr()
        return code, said.out + said.err

    code, said = run()
    assert code == 2
    assert "import needs --camera-info, ROS's YAML, or --handeye, easy_handeye2's file, or both" in said
    code, said = run("--handeye", place)
    assert code == 2
    assert "does not know this camera yet: give --camera-info as well" in said
    code, said = run("--handeye", place, "--camera-info", lens)
    assert code == 0
    assert "imported, nothing says how sure" in said
    found = store.load(theirs, "panda").cameras["agent"]
    assert found.intrinsics == replace(RADTAN, distortion=(*RADTAN.distortion[:-1], 1e-5))
    assert (found.mount, found.covariance, found.rms_px) == ("base", None, None)
    assert max(distance(found.mount_from_camera, PLACE)) < 1e-9
    lens.write_text(yaml.safe_dump(camera_info("agent", FISHEYE)))
    assert run("--camera-info", lens)[0] == 0
    newest = store.load(theirs, "panda")
    assert (newest.version, newest.note) == (2, "camera agent from agent.camera_info.yaml")
    assert newest.cameras["agent"].intrinsics == FISHEYE
    assert max(distance(newest.cameras["agent"].mount_from_camera, PLACE)) < 1e-9


URDF = """<robot name="r"><joint name="a" type="revolute"><parent link="base"/><child link="l"/>
<origin xyz="0 0 1" rpy="0.3 0.2 0.1"/><axis xyz="0 1 0"/><limit lower="-1" upper="1"/></joint>
<joint name="b" type="continuous"><parent link="l"/><child link="m"/><origin xyz="0.4 0 0"/><axis xyz="0 0 1"/></joint>
<joint name="f" type="fixed"><parent link="m"/><child link="tool"/><origin xyz="0.2 0.1 0"/></joint>
<transmission name="t"><joint name="a"><hardwareInterface>x</hardwareInterface></joint></transmission></robot>"""
MJCF = """<mujoco><default><default class="y"><joint axis="0 1 0"/></default></default><worldbody>
<body name="l" pos="0 0 1" childclass="y"><joint name="a"/><body name="m" pos="0.4 0 0"><joint name="b" axis="1 0 0"/>
<site name="tool" pos="0.2 0.1 0"/></body></body></worldbody>
<equality><joint name="a" joint1="a"/></equality></mujoco>"""


def test_defaults_of_a_class_are_followed(tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_text(MJCF)
    chain = load_chain(tmp_path / "model.xml", "tool")
    np.testing.assert_array_equal([joint.axis for joint in chain.joints], [[0, 1, 0], [1, 0, 0]])
    hand = chain.forward(np.array([np.pi / 2, 0.0]))[0]
    np.testing.assert_allclose(hand[:3, 3], [0, 0.1, 1 - 0.6], atol=1e-12)  # y turns x into -z


@pytest.mark.parametrize("model", [URDF, MJCF, PANDA.read_text()], ids=["urdf", "mjcf", "panda"])
def test_a_patched_model_stands_where_the_offsets_say(model: str, tmp_path: Path) -> None:
    path = tmp_path / "model.xml"
    path.write_text(model)
    chain = load_chain(path, "tool")
    names, angles = (("a", "b"), np.array([0.3, -0.7])) if len(chain.joints) == 2 else (("joint2", "joint6"), HOME)
    offsets = dict(zip(names, (0.05, -0.03), strict=True))
    true = chain.forward(angles + [offsets.get(name, 0.0) for name in chain.names])[0]
    path.write_text(patch_model(path, offsets))
    assert max(distance(load_chain(path, "tool").forward(angles)[0], true)) < 1e-6
    with pytest.raises(BadCalibration, match="no joint 'c'"):
        patch_model(path, {"c": 0.1})


def test_a_recording_in_another_base(tmp_path: Path) -> None:
    spec: Spec = registry.suite("tabletop")().spec
    turn = transform(np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), np.array([1.0, 2, 3]))
    state = np.array([[0.5, 0.1, 0.2, 0.01, 0.02, 0.03, 0.04, 0.05]], np.float32)
    np.testing.assert_allclose(
        reexpress(state, spec.state, turn)[0], [0.9, 2.5, 3.2, -0.02, 0.01, 0.03, 0.04, 0.05], atol=1e-6
    )
    action = np.array([[[0.01, 0.02, 0.03, 0.08]]], np.float32)
    np.testing.assert_allclose(reexpress(action, spec.action, turn)[0, 0], [-0.02, 0.01, 0.03, 0.08], atol=1e-6)
    turned = (replace(spec.action[0], unit="rad"), *spec.action[1:])
    with pytest.raises(BadCalibration, match="rotations"):
        reexpress(action, turned, turn)


def test_an_image_from_another_place_shows_the_table_where_the_policy_knows_it() -> None:
    from vla_calibration.camera import pinhole
    from vla_sim.tabletop.faults import Faults, FaultySuite, nominal_camera

    place, fov = nominal_camera()
    now = moved(place, np.array([0.03, -0.04, 0.02, 0.02, -0.05, 0.04]))
    lens = pinhole(64, 64, fov)
    true, shifted = (FaultySuite(Faults(np.zeros(7), where)).make() for where in (None, now))
    images = []
    for env in (true, shifted):
        env.reset(3)
        images.append(env.observe().images["agent"])
    redrawn = redrawing((lens, now), (lens, place), 0.02)(images[1])
    before, after = (np.abs(image.astype(float) - images[0]).mean() for image in (images[1], redrawn))
    assert after < before / 4
    np.testing.assert_array_equal(redrawing((lens, place), (lens, place))(images[0]), images[0])


def test_what_a_moved_camera_does_not_see_is_no_bar_of_what_stood_at_its_border() -> None:
    from vla_calibration.camera import pinhole

    lens = pinhole(64, 64, 0.5)
    place = looking_at(np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.0, 0.0]))
    raised = moved(place, np.array([0, -0.15, 0, 0, 0, 0]))
    image = np.full((64, 64, 3), 120, np.uint8)
    image[56:, 30:38] = (200, 0, 0)  # cut by the lower border
    drawn = redrawing((lens, raised), (lens, place))(image)
    red = (drawn[:, :, 1] < 60).nonzero()[0]
    gap = 63 - red.max()
    assert gap > 12  # the view that was lost, less what the border goes on for
    assert 9 <= np.ptp(red) + 1 <= 8 + 64 / 16 + 1
    np.testing.assert_array_equal(drawn[-gap + 1 :], 120)


def test_scores_become_probabilities(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(3, 2, 4000)
    success = rng.random(4000) < 1 / (1 + np.exp(-(1.5 * scores - 4)))
    scale = fit_scale(scores[:2000], success[:2000])
    assert (scale.slope, scale.offset) == (pytest.approx(1.5, rel=0.15), pytest.approx(-4, rel=0.15))
    assert scale.bend is None
    result = reliability(scale.p_success(scores[2000:]), success[2000:])
    assert result.calibration_error < 0.03
    advantages = np.exp(rng.normal(0, 1.5, 2000))  # what counts is their logarithm
    came = rng.random(2000) < 1 / (1 + np.exp(-2 * np.log(advantages)))
    bent = fit_scale(advantages[:1000], came[:1000])
    assert bent.bend is not None
    assert reliability(bent.p_success(advantages[1000:]), came[1000:]).calibration_error < 0.05
    assert reliability(np.full(2000, 0.99), success[2000:]).calibration_error > 0.2
    plot(result, tmp_path / "plots" / "reliability.png")
    assert (tmp_path / "plots" / "reliability.png").stat().st_size > 5000
    with pytest.raises(BadCalibration, match="ranks backwards"):
        fit_scale(-scores, success)
    with pytest.raises(BadCalibration, match="at least 50 episodes"):
        fit_scale(scores[:30], success[:30])
    with pytest.raises(BadCalibration, match="5 of each"):
        fit_scale(scores, np.ones(4000, bool))
    with pytest.raises(BadCalibration, match="finite scores"):
        fit_scale(np.full(60, np.nan), success[:60])

"""The shape of the project, held by tests: sizes, imports, names, what may be written where."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vla import registry

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "vla": ROOT,
    "vla_sim": ROOT / "sim",
    "vla_deploy": ROOT / "deploy",
    "vla_calibration": ROOT / "calibration",
    "vla_ros": ROOT / "ros_nodes",
}
MAX_LINES = 400

VIOLATIONS = {
    "vla/types.py": "import vla_sim.env",
    "sim/vla_sim/env.py": "import vla_deploy",
    "deploy/vla_deploy/__init__.py": "import vla_ros",
    "ros_nodes/vla_ros/__init__.py": "import vla_sim.env",
    "vla/errors.py": "import vla.spec",
    "vla/registry.py": "import torch",
    "vla/runs.py": "def f():\n    import rclpy",
    "calibration/vla_calibration/__init__.py": "import mujoco",
    "vla/spec.py": "import onnxruntime",
}
"""One for each import contract: a file, and the line that breaks it."""


def tracked() -> list[Path]:
    """Files in git, and new ones that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]


def text(path: Path) -> str:
    return path.read_text(errors="replace")


def test_no_source_file_is_longer_than_400_lines() -> None:
    lengths = {str(f.relative_to(ROOT)): len(text(f).splitlines()) for f in tracked() if f.suffix in (".py", ".j2")}
    assert len(lengths) > 50
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


def test_every_module_says_what_it_is_for() -> None:
    sources = [f for f in tracked() if f.suffix == ".py" and f.stat().st_size]
    assert [str(f.relative_to(ROOT)) for f in sources if not re.match(r'(#!.*\n)?r?"""', text(f))] == []


def test_a_folder_named_launch_is_no_package() -> None:
    """`launch/__init__.py` would shadow ROS's own `launch`."""
    assert not (ROOT / "launch" / "__init__.py").exists()


@pytest.mark.parametrize("module", ["vla", "vla.cli", "vla.registry", "vla.runs", "vla.statistics"])
def test_the_base_loads_neither_torch_nor_simulator_nor_ros(module: str) -> None:
    heavy = "('torch', 'mujoco', 'rclpy', 'onnxruntime', 'scipy', 'matplotlib', 'transformers')"
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(str(root / place.relative_to(ROOT)) for place in PACKAGES.values())
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": paths, "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )


def test_every_import_contract_breaks_when_it_is_violated(tmp_path: Path) -> None:
    """The gate checks that they are kept; a contract that nothing can break would be kept as well."""
    for package, place in PACKAGES.items():
        target = tmp_path / place.relative_to(ROOT) / package
        shutil.copytree(place / package, target, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name, line in VIOLATIONS.items():
        with (tmp_path / name).open("a") as file:
            file.write(f"\n{line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    contracts = re.findall(r"^(.*) (KEPT|BROKEN)", done.stdout, re.MULTILINE)
    assert len(contracts) == len(VIOLATIONS)
    assert [name for name, state in contracts if state == "KEPT"] == []


def test_one_distribution_owns_cv2() -> None:
    """lerobot and robosuite ask for two that overwrite each other; which one wins varies."""
    import cv2

    owners = [
        distribution.version
        for distribution in importlib.metadata.distributions()
        if any(file.parts[0] == "cv2" for file in distribution.files or [])
    ]
    assert len(owners) == 1
    assert owners[0].startswith(cv2.__version__)


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("a path of someone's machine", r"(?<![\w.])/(home|Users|root|work|mnt)/\w"),
        ("a package index", r"(extra-)?index[-_]url\s*[= ]|find-links\s*[= ]|pypi\.org/simple|UV_INDEX"),
    ],
)
def test_no_file_holds(what: str, pattern: str) -> None:
    texts = [f for f in tracked() if f != Path(__file__) and f.suffix not in (".png", ".jpg", ".npz", ".stl", ".obj")]
    assert len(texts) > 50
    found = [f"{f.relative_to(ROOT)}: {m[0]}" for f in texts for m in re.finditer(pattern, text(f))]
    assert found == [], what


def test_the_lock_names_versions_and_nothing_else() -> None:
    lines = text(ROOT / "requirements.lock").splitlines()
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?==[\w.+!-]+( ; .*)?", line)] == []


METHODS = [
    (folder, file.stem)
    for folder in (*registry.KINDS, "posttrain")
    for file in sorted((ROOT / "vla" / folder).glob("*.py"))
    if not file.stem.startswith("_")
]


@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_every_method_has_a_page_and_stands_in_the_readme(kind: str, name: str) -> None:
    page = ROOT / "docs" / "methods" / f"{name}.md"
    assert page.is_file(), f"write {page.relative_to(ROOT)}; docs/adding.md says what it holds"
    assert text(page).startswith(f"# `{name}`")
    assert f"`{name}`" in text(ROOT / "README.md")


def test_readme_marks_as_running_what_there_is_and_nothing_else() -> None:
    rows = re.findall(r"^\| ([✓◇·]) \| \[?`(\w+)`", text(ROOT / "README.md"), re.MULTILINE)
    there = {name for kind, name in METHODS if kind in ("heads", "verifiers")}
    assert {name for mark, name in rows if mark != "·"} == there


def test_every_method_page_belongs_to_a_method() -> None:
    pages = {page.stem for page in (ROOT / "docs" / "methods").glob("*.md")}
    assert pages - {name for _, name in METHODS} == set()


def tree() -> list[Path]:
    """The paths in README's file tree."""
    block = re.search(r"## Files\n+```\n(.*?)```", text(ROOT / "README.md"), re.DOTALL)
    assert block is not None, "README has no file tree under `## Files`"
    found: list[Path] = []
    parents: list[str] = []
    for line in block[1].splitlines():
        depth, entry = len(line) - len(line.lstrip()), line.split()[0]
        parents[depth // 2 :] = [entry.rstrip("/")]
        found.append(Path(*parents))
    return found


def test_readmes_file_tree_is_the_one_there_is() -> None:
    listed = tree()
    assert [str(path) for path in listed if not (ROOT / path).exists()] == []
    folders = {f.relative_to(ROOT).parts[0] for f in tracked() if len(f.relative_to(ROOT).parts) > 1}
    assert {name for name in folders if not name.startswith(".")} <= {str(path) for path in listed}
    packages = {m.name for m in (ROOT / "vla").iterdir() if (m / "__init__.py").exists()}
    assert {f"vla/{name}" for name in packages} <= {str(path) for path in listed}


@pytest.mark.parametrize("page", [p for p in tracked() if p.suffix == ".md"], ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", text(page))
    assert [link for link in links if not (page.parent / link).exists()] == []

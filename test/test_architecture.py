"""The rooms of the package, and what may go in and out of them. docs/architecture.md draws them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from package_files import ROOT

PACKAGE = "litevlm_ros"

ROOMS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("types", "files", "machine", "processes", "trust"),
    ("model_directory",),
    ("packages",),
    ("precision", "config_json"),
    ("mending",),
    ("checksums",),
    ("architectures", "prompt_families"),
    ("config", "model_config"),
    ("published_models",),
    ("checkpoint",),
    ("backend",),
    ("images",),
    ("vision",),
    ("convert",),
    ("engines",),
    ("runtime",),
    ("text",),
    ("pipeline",),
    ("download", "bags", "launching"),
    ("node",),
    ("lab.world",),
    ("lab.charts",),
    ("lab.training",),
    ("lab.evaluation",),
    ("lab.benchmarking",),
    ("lab.demo",),
    ("tools",),
)
"""From the bottom to the top: a file imports from its own room and from those in the lines above its own."""

GENERATED = ("msg", "srv", "action")
ROS = ("rclpy", "launch", "launch_ros", "cv_bridge", "ament_index_python", "rosbags", "builtin_interfaces")
TALK_TO_A_NODE = ("lab.demo", "lab.benchmarking", "tools")

PRIVATE_BY_NAME_ONLY = {"_exit", "_fields_", "_replace", "_asdict", "_fields", "_make"}
"""Names with an underscore that their owners (os, ctypes, namedtuple) have documented."""


class Imports:
    """The imports of one source tree: between its files, and of other packages."""

    def __init__(self, root: Path) -> None:
        self.files = {self._name(file, root): file for file in sorted((root / PACKAGE).rglob("*.py"))}
        self.between: dict[str, set[str]] = {}
        self.others: dict[str, set[str]] = {}
        for name, file in self.files.items():
            targets = set(self._targets(ast.parse(file.read_text(encoding="utf-8"))))
            inside = {target for target in targets if f"{target}.".startswith(f"{PACKAGE}.")}
            found = {self._file_of(target.removeprefix(PACKAGE).lstrip(".")) for target in inside}
            self.between[name] = {other for other in found if other and other != name}
            self.others[name] = targets - inside

    @staticmethod
    def _name(file: Path, root: Path) -> str:
        return ".".join(file.relative_to(root / PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")

    @staticmethod
    def _targets(tree: ast.Module) -> Iterator[str]:
        """Yields what is imported anywhere in a file, `from a import b` as a.b, since b may be a module."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)

    def _file_of(self, target: str) -> str | None:
        """Returns the module that `target`, a module or something in one, lies in; None for packages and messages."""
        module = target if target in self.files else target.rpartition(".")[0]
        return module if module in self.files and self.files[module].name != "__init__.py" else None

    def at_import(self, name: str) -> set[str]:
        """Returns what a file imports as soon as it is imported itself, outside all functions."""
        tree = ast.parse(self.files[name].read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                node.body = []
        return set(self._targets(tree))

    def circle(self) -> list[str]:
        """Returns a circle of files that import one another; empty if there is none."""
        try:
            TopologicalSorter(self.between).prepare()
        except CycleError as error:
            return list(error.args[1])
        return []

    def upward(self, rooms: tuple[tuple[str, ...], ...] = ROOMS) -> list[str]:
        """Returns the imports of a room above the importing file's own, or beside it in the same line."""
        arrows = ((name, other) for name, others in self.between.items() for other in others)
        rooms_of = {name: room_of(name, rooms) for name in self.between if self.files[name].name != "__init__.py"}
        return sorted(
            f"{name} imports {other}"
            for name, other in arrows
            if rooms_of[name] != rooms_of[other] and rooms_of[name][0] <= rooms_of[other][0]
        )

    def of(self, *packages: str) -> dict[str, set[str]]:
        """Returns the files that import one of `packages`, each with what it imports of them."""
        found = {
            name: {other for other in others if other.partition(".")[0] in packages}
            for name, others in self.others.items()
        }
        return {name: others for name, others in found.items() if others}


def room_of(name: str, rooms: tuple[tuple[str, ...], ...] = ROOMS) -> tuple[int, str]:
    """Returns the line and the name of the room that a module is in. Raises LookupError for one without a room."""
    for line, names in enumerate(rooms):
        for room in names:
            if f"{name}.".startswith(f"{room}."):
                return line, room
    raise LookupError(f"{name} is in no room of test_architecture.py; add one, and to docs/architecture.md")


@cache
def imports() -> Imports:
    return Imports(ROOT)


def outside(found: Mapping[str, object], *rooms: str) -> list[str]:
    return sorted(name for name in found if not any(f"{name}.".startswith(f"{room}.") for room in rooms))


def test_every_file_has_a_room() -> None:
    modules = [name for name, file in imports().files.items() if file.name != "__init__.py"]
    assert len(modules) > 100
    for name in modules:
        room_of(name)


def test_no_files_import_each_other_in_a_circle() -> None:
    assert imports().circle() == []


def test_nothing_imports_a_room_above_it() -> None:
    assert imports().upward() == []


def test_ros_stays_in_its_rooms() -> None:
    messages = {other for others in imports().others.values() for other in others if "_msgs" in other.partition(".")[0]}
    ros = (*ROS, *{name.partition(".")[0] for name in messages})
    assert outside(imports().of(*ros), "node", "launching", "bags", "images.via_cv_bridge", *TALK_TO_A_NODE) == []


def test_the_messages_of_this_package_stay_with_ros() -> None:
    using = {
        name: None
        for name, file in imports().files.items()
        if any(f"{PACKAGE}.{kind} import" in file.read_text(encoding="utf-8") for kind in GENERATED)
    }
    assert using
    assert outside(using, "node", *TALK_TO_A_NODE) == []


def test_pytorch_stays_in_its_rooms() -> None:
    found = imports().of("torch", "transformers", "onnxscript", "onnx_ir")
    assert found
    assert outside(found, "convert", "lab") == []


def test_onnx_is_needed_to_make_graphs_and_not_to_load_engines() -> None:
    """An engine file holds its graphs, so only the build calls the one function that serializes them."""
    assert outside(imports().of("onnx"), "convert", "lab", "engines.block_graph") == []
    assert not {name for name in imports().at_import("engines.block_graph") if name.partition(".")[0] == "onnx"}
    calling = {
        name: None for name, file in imports().files.items() if ".serialized()" in file.read_text(encoding="utf-8")
    }
    assert outside(calling, "engines.build") == []


def test_only_tools_and_the_lab_itself_use_the_lab() -> None:
    using = {name: None for name, others in imports().between.items() if any(o.startswith("lab.") for o in others)}
    assert outside(using, "lab", "tools") == []


def test_charts_alone_draw() -> None:
    assert list(imports().of("matplotlib")) == ["lab.charts"]


def private_reaches(file: Path) -> list[str]:
    """Returns the uses of another object's private attributes: those that this file gives to nothing of its own."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    own = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    used = []
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            own.add(node.target.id)
        elif isinstance(node, ast.Assign):
            own |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                if isinstance(node.ctx, ast.Store):
                    own.add(node.attr)
            else:
                used.append(node)
    return [f"{file.name}:{node.lineno} {node.attr}" for node in used if node.attr not in own | PRIVATE_BY_NAME_ONLY]


def test_nothing_reaches_into_private_parts() -> None:
    assert [reach for file in imports().files.values() for reach in private_reaches(file)] == []


def test_the_page_names_every_room_and_only_files_that_there_are() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for room in (room for names in ROOMS for room in names if "." not in room):
        assert f"{room}.py" in page or f"{room}/" in page, room
    named = re.findall(r"`([a-z_/]+\.py)`", page)
    assert len(named) > 15
    assert [name for name in named if not any((root / name).is_file() for root in (ROOT, ROOT / PACKAGE))] == []


@pytest.fixture
def small(tmp_path: Path) -> Path:
    for name, text in {
        "errors": "",
        "config": "from litevlm_ros.errors import A",
        "text/prompt": "import litevlm_ros.text.tokens\nfrom litevlm_ros import config",
        "text/tokens": "def f():\n    from litevlm_ros.text import prompt",
        "errors_like": "from litevlm_ros.text.prompt import B\nx._hidden = 1\nimport rclpy.node",
    }.items():
        file = tmp_path / PACKAGE / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def test_these_tests_see_circles_arrows_upward_and_private_reaches(small: Path) -> None:
    found = Imports(small)
    assert set(found.circle()) == {"text.prompt", "text.tokens"}
    rooms = (("errors",), ("errors_like", "config"), ("text",))
    assert found.upward(rooms) == ["errors_like imports text.prompt"]
    assert found.upward((("errors", "config"), ("errors_like", "text"))) == [
        "config imports errors",
        "errors_like imports text.prompt",
    ]
    assert list(found.of("rclpy")) == ["errors_like"]
    assert found.at_import("text.tokens") == set()
    assert found.at_import("errors_like") == {"litevlm_ros.text.prompt.B", "rclpy.node"}
    assert private_reaches(found.files["errors_like"]) == ["errors_like.py:2 _hidden"]
    with pytest.raises(LookupError, match="errors_like is in no room"):
        found.upward((("errors",), ("config",), ("text",)))

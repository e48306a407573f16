"""The ground rules of the repository, as tests: imports point one way, the public address stands once, the locks lie
inside the ranges, nothing unsafe is loaded, and a wheel works without the checkout."""

import ast
import graphlib
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kancourse.lesson.bootstrap import repository
from kancourse.lesson.tables import PAGES, TableArgs, refresh

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "kancourse"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCKS = ("cpu", "colab")
INSTALLED = importlib.metadata.packages_distributions()  # importable name -> distributions that bring it
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8"), str(path)) for name, path in MODULES.items()}

# Which layers each layer may import; an idea is every other module that lies directly in the package.
MAY_IMPORT = {
    "idea": {"idea"},
    "paths": set(),
    "zoo": {"idea"},
    "lab": {"idea", "zoo", "paths", "lab"},
    "lesson": {"idea", "zoo", "paths", "lab", "lesson"},
    "root": set(),
    "main": {"idea", "zoo", "paths", "lab", "lesson"},
}


def layer(module: str) -> str:
    parts = module.split(".")
    if len(parts) == 1:
        return "root"
    special = {"__main__": "main", "zoo": "zoo", "paths": "paths", "lab": "lab", "lesson": "lesson"}
    return special.get(parts[1], "idea")


def imports(tree: ast.AST, module: str) -> Iterator[tuple[str, int]]:
    """Every module that `tree` imports, submodules named by `from … import` included, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: relative import; name the module in full"
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            known = [name for name in submodules if name in MODULES]
            yield from ((name, node.lineno) for name in known or [node.module])


def top_level(tree: ast.Module) -> ast.Module:
    """The statements that run when the module is imported: functions' bodies and `if TYPE_CHECKING` left out."""

    class Strip(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None: ...
        def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None: ...
        def visit_If(self, node: ast.If) -> ast.If | None:
            return None if "TYPE_CHECKING" in ast.dump(node.test) else node

    return Strip().visit(ast.parse(ast.unparse(tree)))


def distributions(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def pins(lock: str) -> dict[str, str]:
    lines = (ROOT / "tests" / "locks" / f"{lock}.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


# --- imports ---


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    allowed = MAY_IMPORT[layer(module)]
    for name, line in imports(TREES[module], module):
        if name.startswith("kancourse.") and layer(name) not in allowed:
            pytest.fail(f"{module}:{line} ({layer(module)}) imports {name} ({layer(name)}); allowed: {sorted(allowed)}")


@pytest.mark.parametrize("module", [name for name in MODULES if layer(name) == "idea"])
def test_an_idea_needs_only_torch(module: str) -> None:
    """At import time; inside functions also what an extra brings, so that a part can be faster with it."""
    trees = {TREES[module]: {"torch", "kancourse", "numba"}, top_level(TREES[module]): {"torch", "kancourse"}}
    for tree, allowed in trees.items():
        outside = {name.split(".")[0] for name, _ in imports(tree, module)} - sys.stdlib_module_names
        assert outside <= allowed


def test_imports_have_no_cycle() -> None:
    """Only imports that run at import time count; `from kancourse.lab import x` waits for the package's `__init__`."""
    graph = {
        module: {name for name, _ in imports(top_level(tree), module) if name in MODULES and name != module}
        for module, tree in TREES.items()
    }
    assert set(graphlib.TopologicalSorter(graph).static_order()) >= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_what_is_imported_is_declared(module: str) -> None:
    """Whole file: declared somewhere. At import time, outside `lesson`: a plain dependency, so no extra is needed."""

    def undeclared(tree: ast.AST, requirements: list[str]) -> set[str]:
        names = {name.split(".")[0] for name, _ in imports(tree, module)} - sys.stdlib_module_names - {"kancourse"}
        declared = distributions(requirements)
        return {name for name in names if not declared & {canonicalize_name(d) for d in INSTALLED.get(name, [])}}

    optional = [line for extra in ("notebooks", "fast", "export") for line in EXTRAS[extra]]
    assert not undeclared(TREES[module], PROJECT["dependencies"] + optional)
    if layer(module) != "lesson":
        assert not undeclared(top_level(TREES[module]), PROJECT["dependencies"])


# --- what the code may not do ---


@pytest.mark.parametrize("module", MODULES)
def test_nothing_unsafe_is_loaded(module: str) -> None:
    forbidden = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert not forbidden & {name.split(".")[0] for name, _ in imports(TREES[module], module)}
    classes = [node for node in ast.walk(TREES[module]) if isinstance(node, ast.ClassDef)]
    safe_loaders = {node.name for node in classes if [ast.unparse(base) for base in node.bases] == ["yaml.SafeLoader"]}
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert called not in {"torch.load", "torch.hub.load", "yaml.unsafe_load", "eval", "exec"}
            assert called != "yaml.load" or options.get("Loader") in safe_loaders
            assert options.get("allow_pickle", "False") == "False"


@pytest.mark.parametrize("module", MODULES)
def test_public_names_have_docstrings(module: str) -> None:
    tree = TREES[module]
    assert ast.get_docstring(tree), f"{module} has no docstring"
    for node in tree.body:
        stub = any("exercise(" in ast.unparse(decorator) for decorator in getattr(node, "decorator_list", []))
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and not stub:
            assert ast.get_docstring(node), f"{module}.{node.name} has no docstring"


def written_texts() -> Iterator[tuple[str, str]]:
    """(path, text) of what a reader gets; tests are left out, because they plant what is forbidden here."""
    patterns = ("*.md", "*.toml", "Makefile", ".ci/run", ".github/**/*.yml", "kancourse/**/*.py", "data/*.md")
    for pattern in (*patterns, "notebooks/*.ipynb", "notebooks/*.md", "notebooks/runs/*.yaml"):
        for path in sorted(ROOT.glob(pattern)):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def test_no_path_of_one_machine() -> None:
    machine = re.compile(r"(?<![\w.}])/(?:work|opt|root|home|Users)/\w")
    assert [(path, found.group()) for path, text in written_texts() for found in [machine.search(text)] if found] == []


def test_the_public_address_stands_once() -> None:
    """In pyproject.toml; README and notebooks carry stamped copies, which must be equal to it."""
    slug = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", slug)
    own = re.compile(r"github(?:\.com|usercontent\.com)?/([\w.-]+/kancourse)\b")
    for path, text in written_texts():
        found = own.findall(text)
        if path == "pyproject.toml":
            assert found == [slug]
        elif path == "README.md" or path.endswith(".ipynb"):
            assert set(found) <= {slug}, f"{path} names another address than pyproject.toml; stamp it anew"
        else:
            assert not found, f"{path} names the public address; only pyproject.toml does"


# --- requirements, locks, commands, links ---


def test_requirements_are_pyprojects() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    required = [line for line in lines if not line.startswith("#")]
    assert required == PROJECT["dependencies"] + EXTRAS["notebooks"] + EXTRAS["jupyter"]
    mission = {"torch", "jupyterlab", "ipywidgets", "matplotlib", "nbmake", "datasets", "papermill"}
    assert mission <= distributions(required)


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_lie_inside_the_ranges(lock: str) -> None:
    pinned = pins(lock)
    assert pinned["torch"] == "2.13.0"
    assert not [version for version in pinned.values() if "+" in version]
    not_in_colab = {"jupyterlab"} if lock == "colab" else set()
    for line in PROJECT["dependencies"] + [line for lines in EXTRAS.values() for line in lines]:
        wanted = Requirement(line)
        name = canonicalize_name(wanted.name)
        if name not in not_in_colab:
            assert pinned[name] in wanted.specifier, f"{lock}: {name}=={pinned[name]} is outside {line}"


def test_the_colab_lock_is_colabs() -> None:
    expected = {"ipywidgets": "7.7.1", "ipython": "7.34.0", "ipykernel": "6.17.1", "datasets": "4.0.0"}
    assert expected.items() <= pins("colab").items()


def test_commands_that_the_texts_name_exist() -> None:
    targets = make_targets()
    assert {"help", "lab", "test", "test-colab", "run", "bench"} <= targets
    code = re.compile(r"(?:`|^\s*|run: |command: )make ([a-z-]+)", flags=re.MULTILINE)
    for path, text in written_texts():
        if path.endswith((".md", ".yml", "run")):
            assert set(code.findall(text)) <= targets, path
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_local_links_lead_somewhere() -> None:
    for page in (ROOT / name for name in (*PAGES, "CONTRIBUTING.md")):
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name} links to {link}, which is not there"


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.stem)
def test_workflows_are_valid_and_hold_no_secret(path: Path) -> None:
    text = path.read_text()
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets." not in text
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 90


# --- the pages in step with what they tell about ---


def test_the_tables_are_fresh() -> None:
    """Notebooks, recorded results and claims, as `python -m kancourse notebooks stamp` writes them."""
    assert refresh(TableArgs(check=True), repository()) == {}


def test_the_example_of_the_readme_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert "steps=300" in code
    names: dict[str, object] = {}
    exec(code.replace("steps=300", "steps=1"), names)
    assert names["result"].steps == 1


@pytest.mark.parametrize("path", sorted((ROOT / "data").glob("*/*.json")), ids=lambda path: path.stem)
def test_what_is_recorded_names_no_folder_of_the_machine_it_ran_on(path: Path) -> None:
    assert not re.search(r'"(/|[A-Z]:\\\\)[^"\n]*/', path.read_text(encoding="utf-8"))


# --- the wheel ---


def test_a_wheel_works_without_the_checkout(tmp_path: Path) -> None:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def run(*command: str, cwd: Path, **extra: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], cwd=cwd, env=environment | extra, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "dist"), cwd=ROOT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site = tmp_path / "site"
    run("-m", "pip", "install", "--no-index", "--no-deps", "--target", str(site), str(wheel), cwd=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = "import kancourse.zoo, kancourse.lab, kancourse.paths as p; print(p.data_dir())"
    data = Path(run("-c", code, cwd=elsewhere, PYTHONPATH=str(site)).strip())
    assert data == (site / "kancourse" / "data").resolve()
    shipped = {path.relative_to(data): path.read_bytes() for path in data.rglob("*") if path.is_file()}
    assert shipped == {p.relative_to(ROOT / "data"): p.read_bytes() for p in (ROOT / "data").rglob("*") if p.is_file()}
    help_text = run("-m", "kancourse", "--help", cwd=elsewhere, PYTHONPATH=str(site))
    assert "train" in help_text

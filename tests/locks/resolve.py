"""Resolve a lock anew:  python tests/locks/resolve.py NAME [--constraint FILE]  writes tests/locks/NAME.txt.

- Only pip's resolver runs (a dry run with a report): nothing is installed.
- `cpu` is the newest set inside pyproject's ranges, at one fixed torch.
- `colab` takes Colab's own versions: pass the `pip-freeze.txt` of the repository googlecolab/backend-info as FILE.
- torch is named without its build (`2.13.0`, never `2.13.0+cpu`), and its CUDA packages are left out: each machine's
  pip configuration decides which build that is.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TORCH = "torch==2.13.0"
FOLLOWS_TORCH = re.compile(r"(nvidia|cuda)-|triton$")
HEADERS = {
    "cpu": "The newest versions inside pyproject's ranges.",
    "colab": "Colab's own versions. Apart from them: Python, torch, what those two ask for, and what Colab lacks.",
}


def constraints(freeze: Path | None) -> str:
    """Colab's plain pins (`name==version`), but for torch and setuptools, whose version follows from torch's."""
    lines = freeze.read_text().splitlines() if freeze else []
    return "\n".join(line for line in lines if re.match(r"(?!torch|setuptools)[\w.-]+==", line))


def resolve(freeze: Path | None) -> list[str]:
    """Every package that the project, its notebooks and its tests need, as sorted pins."""
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder, "constraints.txt")
        pins.write_text(f"{TORCH}\n{constraints(freeze)}\n")
        pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
        # JupyterLab is not part of Colab, and would pull in a newer notebook server than Colab has.
        wanted = [".[notebooks,fast,export,dev]", "nbmake"] if freeze else [".[notebooks,jupyter,fast,export,dev]"]
        command = [*pip, "--constraint", str(pins), *wanted]
        report = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = {item["metadata"]["name"]: item["metadata"]["version"] for item in json.loads(report)["install"]}
    kept = {name: version for name, version in found.items() if name != "kancourse" and not FOLLOWS_TORCH.match(name)}
    return [f"{name}=={version.split('+')[0]}" for name, version in sorted(kept.items(), key=lambda kv: kv[0].lower())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=HEADERS)
    parser.add_argument("--constraint", type=Path)
    arguments = parser.parse_args()
    if (arguments.name == "colab") != (arguments.constraint is not None):
        parser.error("the lock 'colab', and only it, needs --constraint FILE")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    head = f"# {HEADERS[arguments.name]}\n# Written by tests/locks/resolve.py under Python {version}; do not edit.\n"
    target = Path(__file__).with_name(f"{arguments.name}.txt")
    target.write_text(head + "\n".join(resolve(arguments.constraint)) + "\n")
    print(f"wrote {target}")


if __name__ == "__main__":
    main()

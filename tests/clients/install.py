"""What a real client needs, installed below the target folder once: its toolchain is the machine's, or `Missing` says what lacks."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
INSTALL_SECONDS_MAX = 600


def folder():
    """Where everything is installed unless the caller is told otherwise."""
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "clients"


class Missing(Exception):
    """What this machine lacks for a suite."""


def need(*programs):
    for program in programs:
        if shutil.which(program) is None:
            raise Missing(f"{program} is not installed")


def install(marker, inputs, steps):
    """Runs `steps` unless they ran before with the same `inputs`; `marker` remembers them."""
    wanted = "\n".join(path.read_text(encoding="utf-8") for path in inputs)
    if marker.exists() and marker.read_text(encoding="utf-8") == wanted:
        return
    marker.parent.mkdir(parents=True, exist_ok=True)
    for step, more in steps:
        print("installing:", " ".join(str(part) for part in step), flush=True)
        done = subprocess.run(step, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=INSTALL_SECONDS_MAX, check=False, **more)
        if done.returncode != 0:
            raise RuntimeError(f"{step[0]} ended with {done.returncode}:\n{done.stdout.decode(errors='replace')[-2000:]}")
    marker.write_text(wanted, encoding="utf-8")


def python(tools):
    need("python3")
    venv, requirements = tools / "venv", HERE / "requirements.txt"
    install(tools / "venv.done", [requirements], [
        ([sys.executable, "-m", "venv", "--clear", str(venv)], {}),
        ([str(venv / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)], {}),
    ])
    return str(venv / "bin/python")


def kafkajs(tools):
    """The environment in which node finds kafkajs."""
    need("node", "npm")
    home, package, lock = tools / "kafkajs", HERE / "kafkajs/package.json", HERE / "kafkajs/package-lock.json"
    home.mkdir(parents=True, exist_ok=True)
    for file in (package, lock):
        shutil.copy(file, home)
    install(tools / "kafkajs.done", [package, lock], [(["npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"], {"cwd": home})])
    return {"NODE_PATH": str(home / "node_modules")}


def go(tools, module, name):
    """The program of a Go module in a folder here, built from its Go files."""
    need("go")
    # The module cache is written below the target folder, and not read-only, so that removing the target folder works.
    env = {"GOMODCACHE": str(tools / "go/mod"), "GOCACHE": str(tools / "go/build"), "GOFLAGS": "-modcacherw -mod=readonly", "GOTOOLCHAIN": "local"}
    inputs = [*sorted(module.rglob("*.go")), module / "go.mod", module / "go.sum"]
    install(tools / f"{name}.done", inputs, [(["go", "build", "-o", str(tools / name), "."], {"cwd": module, "env": {**os.environ, **env}})])
    return str(tools / name)


def java(tools):
    """The class path of Kafka's Java client and its tools."""
    need("java", "javac", "mvn")
    pom, lib = HERE / "java/pom.xml", tools / "java/lib"
    install(tools / "java.done", [pom], [(["mvn", "-q", "-B", f"-Dmaven.repo.local={tools / 'java/repository'}", "-f", str(pom), "dependency:copy-dependencies",
                                           f"-DoutputDirectory={lib}", "-DincludeScope=runtime"], {})])
    return f"{lib}/*"

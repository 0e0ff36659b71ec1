"""What `import spaces` gives, and what it does without."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import spaces

ROOT = Path(spaces.__file__).parent.parent


def test_all_is_the_public_members():
    public = {n for n, value in vars(spaces).items() if not n.startswith("_") and not isinstance(value, ModuleType)}
    assert set(spaces.__all__) == public
    assert len(spaces.__all__) == len(public), "each once"
    assert all(getattr(spaces, name).__doc__ for name in public - {"BASELINES", "OPERATIONS"})


def test_every_module_of_spaces_does_without_cluster_tracker_and_the_other_rooms():
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "spaces").rglob("*.py")
    )
    assert "spaces.schedule.schedule" in modules and "spaces.operations" in modules
    modules = [m for m in modules if m not in ("spaces.engine.cpu", "spaces.engine.cpu_kernels")]  # needed by batches
    program = f"import json, sys, {', '.join(modules)}; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in json.loads(run.stdout)}
    assert "torch" in loaded
    assert not loaded & {
        "ray",
        "mlflow",
        "optuna",
        "pydantic",
        "typer",
        "matplotlib",
        "numba",
        "sklearn",
        "torchvision",
    }
    assert not loaded & {"search", "trainables", "results"}

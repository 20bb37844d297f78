"""The command: see the package."""

import importlib
import pkgutil
import sys
from pathlib import Path

import hf_fixtures
from hf_fixtures import counts, defaults, generation


def families():
    """The modules of this package that are families, by name."""
    names = [module.name for module in pkgutil.iter_modules(hf_fixtures.__path__) if module.name != "__main__"]
    modules = {name: importlib.import_module(f"hf_fixtures.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "MODELS")}


def main():
    what, root, *chosen = sys.argv[1:]
    root = Path(root)
    if what in ("defaults", "generation"):
        return {"defaults": defaults, "generation": generation}[what].write(root)
    for family, module in sorted(families().items()):
        if what == "counts" and module.PUBLISHED and (not chosen or family in chosen):
            counts.write(root / f"{family}.json", module)
        for name, build in module.MODELS.items() if what == "models" else ():
            if not chosen or name in chosen:
                build(root / name)


main()

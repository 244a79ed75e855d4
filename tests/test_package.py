"""The package as a whole: the name of a module always refers to that module."""

import subprocess
import sys

CODE = """
import importlib, pkgutil
import shaped_transformer

failed = []
for found in pkgutil.walk_packages(shaped_transformer.__path__, "shaped_transformer.", onerror=lambda name: None):
    parent, _, name = found.name.rpartition(".")
    if name == "__main__":
        continue
    package = importlib.import_module(parent)
    try:
        before = getattr(package, name, None)  # the attribute of the package before the module is imported
        module = importlib.import_module(found.name)
    except ImportError:
        continue  # its extra is not installed
    if getattr(package, name) is not module or before not in (None, module):
        failed.append(found.name)
print(*failed)
"""


def test_no_attribute_of_a_package_hides_a_module() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

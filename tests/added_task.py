"""Makes a task and its evaluator findable, as files that a test writes beside those of the packages."""

import importlib
import sys

import edge_quantize.metrics
import edge_sdk.tasks


def add(monkeypatch, folder, name, task, evaluator):
    """Write the two files of a task into a folder and let the packages find them while the test runs."""
    for package, place, text in (
        (edge_sdk.tasks, folder / "tasks", task),
        (edge_quantize.metrics, folder / "metrics", evaluator),
    ):
        place.mkdir(parents=True)
        (place / f"{name}.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(place)])
        monkeypatch.delitem(sys.modules, f"{package.__name__}.{name}", raising=False)
    monkeypatch.setattr(edge_sdk.tasks, "_LOADED", {})
    importlib.invalidate_caches()
    for package in (edge_sdk.tasks, edge_quantize.metrics):
        module = importlib.import_module(f"{package.__name__}.{name}")
        monkeypatch.delattr(package, name)  # forgotten with the test
        monkeypatch.setattr(package, name, module, raising=False)
        monkeypatch.setitem(sys.modules, f"{package.__name__}.{name}", module)

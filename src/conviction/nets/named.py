"""Networks by name: torchvision's models, and functions in a Python file of the user's own."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from conviction.core.errors import ConfigError, UnknownName, nearest
from conviction.nets.dispatch import compiler_left_out

TORCHVISION = "torchvision:"
# What weights and running statistics are made by.
_WEIGHT_FACTORIES = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn)


def build_torchvision(name: str, num_classes: int | None = None) -> tuple[nn.Module, int]:
    """A classification model of torchvision on the meta device, and the side of the pictures that it was made for.

    Raises: UnknownName.
    """
    name = as_registered(name)
    from torchvision import models

    settings = torchvision_settings(name) | ({} if num_classes is None else {"num_classes": num_classes})
    network = on_meta(lambda: models.get_model(name, weights=None, **settings))
    published = models.get_model_weights(name).DEFAULT.transforms().crop_size[0]
    return network, int(getattr(network, "image_size", published))


def as_registered(name: str) -> str:
    """The name of a classification model as torchvision lists it. Raises: UnknownName."""
    if not is_of_torchvision(name):
        raise UnknownName("torchvision model", name, _models_of_torchvision())
    return name


def is_of_torchvision(name: str) -> bool:
    """Whether torchvision has a classification model of this name."""
    return name in _models_of_torchvision()


def _models_of_torchvision() -> list[str]:
    with compiler_left_out():
        from torchvision import models

    known: list[str] = models.list_models(module=models)
    return known


def torchvision_settings(name: str) -> dict[str, Any]:
    """What a model's builder needs to be told. Two draw their weights slowly, and warn where they are not asked to."""
    return {"init_weights": False} if name in ("googlenet", "inception_v3") else {}


def build_from_file(reference: str, num_classes: int | None = None) -> nn.Module:
    """The network that `module.py:function` returns; `function` is called with `num_classes` where it takes it.

    Raises: ConfigError where there is no such file or function, or it returns something else.
    """
    place, _, name = reference.rpartition(":")
    module = _imported(place)
    if not hasattr(module, name):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UnknownName(f"function in {place}", name, public)
    function = getattr(module, name)
    if not callable(function):
        raise ConfigError(f"{reference} is no function, but {type(function).__name__}.")
    settings = {}
    if num_classes is not None and "num_classes" in _parameters(function):
        settings["num_classes"] = num_classes
    try:
        network = on_meta(lambda: function(**settings), with_compiler=True)
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        raise ConfigError(f"{reference} cannot be called: {_described(error)}.") from error
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{reference} must return a torch.nn.Module, but returned {type(network).__name__}.")
    return network


def _parameters(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def _imported(place: str) -> Any:
    path = Path(place).expanduser()
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        if not path.is_file():
            raise ConfigError(f"No file {place!r}. Write module.py:function, for example mynet.py:build.")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # A dataclass or a pickle in the file looks itself up here; its neighbours are imported as from a script.
        sys.modules[path.stem] = module
        sys.path.insert(0, str(path.parent.resolve()))
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(path.parent.resolve()))
        return module
    except ConfigError:
        raise
    except ModuleNotFoundError as error:
        if error.name == place and nearest(place, ["torchvision"]):
            raise ConfigError(f"No module {place!r}. Did you mean {TORCHVISION}NAME?") from error
        raise ConfigError(f"{place} cannot be imported: {_described(error)}.") from error
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        raise ConfigError(f"{place} cannot be imported: {_described(error)}.") from error


def _described(error: BaseException) -> str:
    """The error's kind and what it says, if anything."""
    return f"{type(error).__name__}: {error}".rstrip(" :.")


def on_meta(build: Callable[[], Any], with_compiler: bool = False) -> Any:
    """What `build` makes, with its weights on the meta device, where they take no memory.

    A constructor may compute with tensors on its way; then weights alone are made there, and as a last resort all is
    made as usual. `with_compiler` says that `build` may want torch's compiler, which takes two seconds to import.
    """
    with warnings.catch_warnings(), nullcontext() if with_compiler else compiler_left_out():
        warnings.simplefilter("ignore")
        for place in (torch.device("meta"), _WeightsOnMeta(), None):
            try:
                with _placed(place):
                    return build()
            except (NotImplementedError, RuntimeError):
                if place is None:
                    raise
    raise AssertionError("the last attempt returns or raises")


@contextmanager
def _placed(place: Any) -> Iterator[None]:
    if place is None:
        yield
        return
    with place:
        yield


class _WeightsOnMeta(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in _WEIGHT_FACTORIES and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        return function(*args, **kwargs)

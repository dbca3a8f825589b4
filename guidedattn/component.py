"""Components that remember how they were built, so that a checkpoint can build them again.

Every pluggable part of the library derives from [`Component`]. A component records the arguments of its
constructor, [`describe`] turns it into a *recipe* (`{"class_path": ..., "init_args": {...}}`, plain values
only) and [`build`] turns a recipe into an object again. Checkpoints hold recipes instead of pickles, and
therefore load with `weights_only=True`; the recipes are those that YAML configs use.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import typing
from abc import ABCMeta
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import nn

from guidedattn.errors import ConfigError

Recipe = dict[str, Any]
T = TypeVar("T")


class _RecordsArguments(ABCMeta):
    """Keeps what the constructor was called with; a metaclass leaves `__init__` and its signature alone."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        component = super().__call__(*args, **kwargs)
        signature = inspect.signature(type(component).__init__)
        arguments: dict[str, Any] = {}
        for name, value in list(signature.bind(component, *args, **kwargs).arguments.items())[1:]:
            if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                arguments.update(value)
            else:
                arguments[name] = value
        component.__dict__["_arguments"] = arguments
        return component


class Component(nn.Module, metaclass=_RecordsArguments):
    """Base of every pluggable part: an `nn.Module` that a checkpoint can rebuild from its constructor's call.

    Arguments must be describable: numbers, strings, paths, tensors, lists, dicts, functions and classes
    that can be imported, `functools.partial` of those, other components, and the layers of `torch.nn`.
    """

    def recipe_args(self) -> dict[str, Any]:
        """The constructor's arguments to rebuild this component *before its state is loaded*.

        Override where an argument names something that the checkpoint itself replaces, such as a weights
        file that may be gone by then.
        """
        return dict(self.__dict__["_arguments"])


def class_path(thing: Any) -> str:
    """Import path of a class or function.

    Raises:
        ConfigError: it cannot be imported from there (a lambda, a class inside a function, a script's own).

    >>> class_path(nn.Linear)
    'torch.nn.modules.linear.Linear'
    """
    path = f"{thing.__module__}.{thing.__qualname__}"
    if thing.__module__ == "__main__" or "<" in path:
        raise ConfigError(
            f"{path} cannot be rebuilt from a checkpoint, because no other process can import it: "
            "move it to the top level of a module (a .py file of its own)"
        )
    return path


def import_object(path: str) -> Any:
    """Import `package.module.Name`.

    Raises:
        ConfigError: there is no such module or name.
    """
    module_name, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"cannot import {path!r}: {error}") from error


def describe(value: Any) -> Any:
    """Turn an argument into plain values that `build` understands.

    Raises:
        ConfigError: the value is of a kind that cannot be described.

    >>> describe(nn.Linear(2, 3, bias=False))["init_args"]
    {'in_features': 2, 'out_features': 3, 'bias': False}
    """
    if value is None or isinstance(value, bool | int | float | str | torch.Tensor):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, Component):
        return {"class_path": class_path(type(value)), "init_args": describe(value.recipe_args())}
    if isinstance(value, nn.Module):
        return _describe_layer(value)
    factory, arguments = _factory_of(value)
    if factory is not None:
        _returns(factory)
        return {"class_path": class_path(factory), "init_args": describe(arguments)}
    raise ConfigError(
        f"{type(value).__name__} {value!r:.60} cannot be written into a checkpoint: pass plain values, a "
        "component, or a function that can be imported"
    )


def _factory_of(value: Any) -> tuple[Any, Mapping[str, Any]]:
    """The class or function behind a callable and its keyword arguments; (None, {}) if there is none."""
    if not isinstance(value, functools.partial):
        return (value, {}) if hasattr(value, "__qualname__") else (None, {})
    if not value.args:
        return value.func, value.keywords
    # What jsonargparse makes of a class path: partial(<its own call>, ..., the class, **init_args).
    factory = value.args[-1]
    return (factory, value.keywords) if isinstance(factory, type) else (None, {})


def _describe_layer(layer: nn.Module) -> Recipe:
    """Describe a layer of `torch.nn`, whose attributes are named like its constructor's arguments."""
    path = class_path(type(layer))
    recipe: Recipe = {"class_path": path, "init_args": {}}
    if isinstance(layer, nn.Sequential):
        recipe["args"] = [describe(child) for child in layer]
        return recipe
    if path.startswith("torch.nn."):
        for name in inspect.signature(type(layer)).parameters:
            if name not in {"device", "dtype", "size_average", "reduce"} and hasattr(layer, name):
                value = getattr(layer, name)
                is_bias = name == "bias" and not isinstance(value, bool)
                recipe["init_args"][name] = (value is not None) if is_bias else describe(value)
        twin = build(recipe, nn.Module)
        shapes = [{key: item.shape for key, item in net.state_dict().items()} for net in (layer, twin)]
        if repr(twin) == repr(layer) and shapes[0] == shapes[1]:
            return recipe
    raise ConfigError(
        f"a {path} does not tell how it was built, so no checkpoint could rebuild it: pass a function that "
        "builds it (functools.partial will do), or wrap it in a subclass of the component"
    )


def is_recipe(value: Any) -> bool:
    """Whether `value` is a mapping that names a `class_path`."""
    return isinstance(value, Mapping) and "class_path" in value


def _returns(factory: Any) -> type:
    """The class that calling `factory` yields: itself, or the return annotation of a function."""
    if isinstance(factory, type):
        return factory
    result = typing.get_type_hints(factory).get("return") if inspect.isfunction(factory) else None
    if not isinstance(result, type):
        raise ConfigError(f"{factory!r:.80} needs a return annotation that names the class it builds")
    return result


def _factory(recipe: Mapping[str, Any], base: type[T]) -> Callable[..., T]:
    """Import what a recipe names; refuse whatever does not build a `base`, before anything is called."""
    factory = import_object(recipe["class_path"])
    try:
        fits = issubclass(_returns(factory), base)
    except ConfigError:
        fits = False
    if not fits:
        raise ConfigError(f"class_path {recipe['class_path']!r} does not build a {base.__name__}")
    return functools.partial(
        factory, *map(_revive, recipe.get("args", ())), **_revive(recipe.get("init_args") or {})
    )


def build(value: Any, base: type[T]) -> T:
    """Build `value` if it is a recipe; check that the result is a `base`.

    Nothing is called before its class is known to be a subclass of `base` (for a function: by its return
    annotation), so that a recipe from a foreign checkpoint cannot run `os.system`.

    Raises:
        ConfigError: not a recipe of a `base`, or its arguments do not fit.

    >>> build({"class_path": "torch.nn.ELU", "init_args": {"alpha": 0.5}}, nn.Module)
    ELU(alpha=0.5)
    """
    if not is_recipe(value):
        if isinstance(value, base):
            return value
        raise ConfigError(f"expected a {base.__name__}, got {type(value).__name__} {value!r:.60}")
    factory = _factory(value, base)
    try:
        return factory()
    except TypeError as error:
        raise ConfigError(f"{value['class_path']}: {error}") from error


def build_callable(value: Any, base: type[T]) -> Callable[..., T]:
    """Turn a recipe into a factory of `base` objects (an optimiser still wants its parameters).

    Raises:
        ConfigError: the recipe does not build a `base`.
    """
    return _factory(value, base) if is_recipe(value) else cast("Callable[..., T]", value)


def _revive(value: Any) -> Any:
    """Undo `describe` inside the arguments of a recipe."""
    if is_recipe(value):
        return build(value, nn.Module)
    if isinstance(value, Mapping):
        return {key: _revive(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_revive(item) for item in value]
    return value


def default(cls: type[Any], **init_args: Any) -> Any:
    """A recipe as a default argument: each model gets an object of its own, and YAML shows it in full.

    >>> default(nn.ReLU, inplace=True)
    {'class_path': 'torch.nn.modules.activation.ReLU', 'init_args': {'inplace': True}}
    """
    return {"class_path": class_path(cls), "init_args": init_args}

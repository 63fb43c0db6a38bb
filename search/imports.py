"""Functions of the user's own, named in the configuration as `package.module:function`."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from search.errors import ConfigError


def import_function(text: str, key: str) -> Callable[..., Any]:
    """The function a configuration names; modules are also looked for in the folder the command runs in.

    Args:
        text: `package.module:function`.
        key: The configuration's key it was given under, such as `data.factory`, for messages.

    Raises:
        ConfigError: It is not written so, cannot be imported, or is no function.
    """
    module_name, _, name = text.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), name)):
        msg = f"{key} is {text!r}; write it package.module:function, such as my_code:build"
        raise ConfigError(msg)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # and left there: what is imported may import its neighbours later
        importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # importing runs the user's code, which may raise anything
        msg = (
            f"{key} {text}: importing {module_name} failed ({type(error).__name__}: {error}); mend that, or run where "
            f"{module_name} can be imported: it is looked for in {here} and among the installed packages"
        )
        raise ConfigError(msg) from error
    if not hasattr(module, name):
        msg = f"{key} {text}: {module_name} ({module.__file__}) has no {name}; name a function it defines"
        raise ConfigError(msg)
    function = getattr(module, name)
    if not callable(function):
        msg = f"{key} {text} is a {type(function).__name__}, which cannot be called; name a function"
        raise ConfigError(msg)
    return function  # type: ignore[no-any-return] # whatever the user wrote

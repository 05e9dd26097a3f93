"""Torch's optimizers without torch's compiler.

Their methods ask it, when they are first called, not to compile them, and for that import 1,800
modules: a second of every command that judges labels or trains. What is compiled here is a
learner, never a step, so these methods are called as they are.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch


def _uncompiled(kind: type[Any]) -> type[Any]:
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    # Of what stands around a step only this changes what it does.
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), methods)


SGD: type[torch.optim.SGD] = _uncompiled(torch.optim.SGD)
LBFGS: type[torch.optim.LBFGS] = _uncompiled(torch.optim.LBFGS)

"""The optimizers that leave torch's compiler alone, against torch's own."""

from __future__ import annotations

import copy

import pytest
import torch

from saln import _optimizers

OPTIONS = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
    "LBFGS": {"max_iter": 3, "line_search_fn": "strong_wolfe"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_steps_and_states_are_those_of_torch(name):
    kinds = [getattr(module, name) for module in (torch.optim, _optimizers)]
    assert issubclass(kinds[1], kinds[0])
    rows = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kept, rates = [], []
    for kind in kinds:
        weight = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
        optimizer = kind([weight], **OPTIONS[name])
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))

        def loss(weight=weight, optimizer=optimizer):
            optimizer.zero_grad(set_to_none=True)
            total = (rows @ weight).cosh().mean()
            total.backward()
            return total

        path = []
        for step in range(6):
            if step == 3:  # goes on from a copy of its state
                state = copy.deepcopy(optimizer.state_dict())
                optimizer.load_state_dict(state)
            optimizer.step(loss)
            schedule.step()
            assert torch.is_grad_enabled()
            path.append(weight.detach().clone())
        kept.append(torch.stack(path))
        rates.append(schedule.get_last_lr())
        assert weight.requires_grad
        assert weight.grad_fn is None
    assert torch.equal(*kept)
    assert rates[0] == rates[1]
    assert len(kept[0].unique(dim=0)) == 6  # every step moved it

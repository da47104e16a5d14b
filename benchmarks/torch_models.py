"""The nets of `rows.models` for torchdiffeq: the same layers and weights, gradients in the weights."""

import math
from collections.abc import Callable

import jax
import torch
import torchdiffeq
from torch.nn import functional

from benchmarks.torch_peers import Host, as_torch


def leaves_of(weights) -> list:
    """Return the weights in the order of JAX, without what is no tensor."""
    return [x for x in jax.tree.leaves(weights) if isinstance(x, torch.Tensor)]


def solved(field: Callable, start, times, tolerance: float, adjoint: bool, weights):
    """Solve by torchdiffeq, at its defaults but for the tolerance."""
    options = {"rtol": tolerance, "atol": tolerance, "method": "dopri5"}
    if adjoint:
        return torchdiffeq.odeint_adjoint(field, start, times, adjoint_params=tuple(weights), **options)
    return torchdiffeq.odeint(field, start, times, **options)


# Flows.


def hyper(z, t, weights):
    """The mean of planar units whose parameters are a network of the time."""
    *layers, last, bias = weights
    x = t.reshape(1)
    for w, b in zip(layers[::2], layers[1::2], strict=True):
        x = torch.tanh(w @ x + b)
    out = last @ x + bias
    width = out.numel() // 7
    u, w, gate = out[: 6 * width].reshape(3, width, 2)
    return torch.tanh(z @ w.T + out[6 * width :]) @ (u * torch.sigmoid(gate)) / width


def squash(z, t, weights):
    """Layers `(W x + b) * sigmoid(g t + h) + c t`."""
    s, x = t.reshape(1), z
    groups = [weights[i : i + 5] for i in range(0, len(weights), 5)]
    for i, (w, b, g, h, c) in enumerate(groups):
        x = torch.tanh(x) if i else x
        x = (x @ w.T + b) * torch.sigmoid(g @ s + h) + c @ s
    return x


def with_trace(field: Callable, weights) -> Callable:
    """Return the field of points and the trace of its Jacobian, entry by entry as in the example of torchdiffeq."""

    def both(t, state):
        z = state[0]
        with torch.enable_grad():
            z = z if z.requires_grad else z.requires_grad_(True)
            slope = field(z, t, weights)
            trace = sum(
                torch.autograd.grad(slope[:, i].sum(), z, create_graph=True)[0][:, i] for i in range(z.shape[1])
            )
        return slope, trace

    return both


def flow(field: Callable):
    """Return the likelihood of a flow."""

    def loss(points, weights, t1: float, adjoint: bool):
        start = (points, torch.zeros(len(points), dtype=points.dtype))
        times = torch.tensor([t1, 0.0], dtype=points.dtype)
        zs, integrals = solved(with_trace(field, weights), start, times, 1e-5, adjoint, weights)
        log_normal = -0.5 * (zs[-1] ** 2).sum(-1) - math.log(2 * math.pi)
        return -(log_normal + integrals[-1]).mean()

    return loss


# Series.


def gru(x, state, weights):
    """One step of the cell of equinox."""
    wx, wh, b, bn = weights
    i = functional.linear(x, wx, b).chunk(3, -1)
    h = functional.linear(state, wh).chunk(3, -1)
    reset, update = torch.sigmoid(i[0] + h[0]), torch.sigmoid(i[1] + h[1])
    new = torch.tanh(i[2] + reset * (h[2] + bn))
    return new + update * (state - new)


def latent(data, weights, t1: float, adjoint: bool):
    """Return the bound of a latent ODE; the path is solved at all times of all series together."""
    ts, ys, mask, noise = data
    there = mask.to(ys.dtype)
    cell, (out_w, out_b), field, decoder = weights[:4], weights[4:6], weights[6:10], weights[10:14]
    state, before = torch.zeros(len(ts), cell[1].shape[1], dtype=ys.dtype), None
    for i in reversed(range(ts.shape[1])):
        gap = torch.zeros_like(ts[:, i]) if before is None else before - ts[:, i]
        x = torch.cat([ys[:, i] * there[:, i], there[:, i], gap[:, None]], 1)
        state, before = gru(x, state, cell), ts[:, i]
    mean, log_std = functional.linear(torch.cat([state, ts[:, :1]], 1), out_w, out_b).chunk(2, -1)
    z0 = mean + torch.exp(log_std) * noise
    every, places = torch.unique(torch.cat([torch.zeros(1, dtype=ts.dtype), ts.flatten()]), return_inverse=True)
    slope = lambda t, z: functional.linear(torch.tanh(functional.linear(z, *field[:2])), *field[2:])  # noqa: E731
    zs = solved(slope, z0, every, 1e-4, adjoint, field)
    zs = zs[places[1:].reshape(ts.shape), torch.arange(len(ts))[:, None]]
    means = functional.linear(torch.tanh(functional.linear(zs, *decoder[:2])), *decoder[2:])
    kl = 0.5 * (mean**2 + torch.exp(2 * log_std) - 1.0 - 2 * log_std).sum(1)
    return (0.5 * ((there * (ys - means) / 0.1) ** 2).sum((1, 2)) + kl).mean()


# Images.


def block(images, weights, t1: float, adjoint: bool):
    """Return the sum of squares behind the block of an ODE-Net."""
    norms, convs = [weights[i : i + 2] for i in (0, 2, 4)], [weights[i : i + 2] for i in (6, 8)]

    def slope(t, z):
        x = z
        for norm, (w, b) in zip(norms[:-1], convs, strict=True):
            x = functional.relu(functional.group_norm(x, 32, *norm))
            time = torch.ones_like(x[:, :1]) * t
            x = functional.conv2d(torch.cat([x, time], 1), w, b.flatten(), padding=1)
        return functional.group_norm(x, 32, *norms[-1])

    times = torch.tensor([0.0, t1], dtype=images.dtype)
    return (solved(slope, images, times, 1e-3, adjoint, weights)[-1] ** 2).sum()


LOSSES = {"hyper": flow(hyper), "squash": flow(squash), "latent": latent, "block": block}


def runs(name: str, t1: float) -> dict[str, Host]:
    """Return the gradient of a loss in the weights by both kinds of gradient."""

    def maker(adjoint: bool) -> Host:
        def prepare(data, weights):
            data, weights = as_torch(data, wanted=False), leaves_of(as_torch(weights, wanted=True))

            def run():
                value = LOSSES[name](data, weights, t1, adjoint)
                return [x.numpy() for x in torch.autograd.grad(value, weights)]

            return run

        return Host(prepare)

    return {"torchdiffeq": maker(False), "torchdiffeq adjoint": maker(True)}

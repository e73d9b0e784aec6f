"""Causal attention with dropout, and its derivative, span by span."""

from __future__ import annotations

from typing import Any

import torch


class CausalAttention(torch.autograd.Function):
    """``(M * softmax(q k^T / sqrt(d) + causal)) v``, M being masks of dropout.

    Queries go through in spans, each with the keys up to its end: less than half of the other products are made. With
    ``A = M * P`` and upstream gradient G the derivative by the logits is ``A * (G v^T) - P * rowsum(G * out)``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        spans: list[tuple[int, int]],
        keep: list[torch.Tensor | None],
    ) -> torch.Tensor:
        """float32 [b, t, d] from query, key and value [b, t, d]; ``keep`` [b, end - start, end] for every span."""
        ctx.spans = spans
        ctx.scale = query.shape[2] ** -0.5
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
        weights = []
        for (start, end), mask in zip(spans, keep, strict=True):
            later = torch.full((end - start, end), -torch.inf, device=query.device).triu_(start + 1)[None]
            logits = torch.baddbmm(later, query[:, start:end], key[:, :end].transpose(1, 2), alpha=ctx.scale)
            p = torch.softmax(logits, dim=2)
            dropped = p if mask is None else mask.mul_(p)
            out[:, start:end] = torch.bmm(dropped, value[:, :end])
            weights += [p, dropped]
        ctx.save_for_backward(query, key, value, out, *weights)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The derivatives by query, key and value: float32 [b, t, d]."""
        query, key, value, out, *weights = ctx.saved_tensors
        by_query, by_key, by_value = (torch.zeros_like(out) for _ in range(3))
        along = (grad * out).sum(2, keepdim=True)
        for (start, end), p, dropped in zip(ctx.spans, weights[::2], weights[1::2], strict=True):
            upstream = grad[:, start:end]
            by_logit = torch.bmm(upstream, value[:, :end].transpose(1, 2)).mul_(dropped)
            by_logit.addcmul_(p, along[:, start:end], value=-1)
            by_value[:, :end].baddbmm_(dropped.transpose(1, 2), upstream)
            by_query[:, start:end] = torch.bmm(by_logit, key[:, :end])
            by_key[:, :end].baddbmm_(by_logit.transpose(1, 2), query[:, start:end], alpha=ctx.scale)
        return by_query.mul_(ctx.scale), by_key, by_value, None, None

"""Neural collaborative filtering: a perceptron on the concatenated embeddings of user and item."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field

from fedbench.entries.cards import ModelCard, Parameters
from fedbench.federation.batch import Batch
from fedbench.federation.losses import Loss
from fedbench.federation.model import LocalStep, PublicParams, Recommender
from fedbench.federation.rows import FullRows, ProjectedRows, Rows
from fedbench.federation.updates import DenseGradients, Tensors


class NeuralCollaborativeFiltering(Recommender):
    """``x = [u ; v]; a_1 = relu(W_1 x + b_1); ...; a_L = relu(W_L a_(L-1) + b_L); s = h . a_L + b_h`` (He et al. 2017).

    Dense parameters: ``W1 [h_1, 2d], b1 [h_1], ..., h [1, h_L], bh [1]`` (the output bias is in the published
    code, not in the papers). The first layer is linear in u and v apart, so both sides are projected once for every
    user and item, and the work for each training row is only that of the hidden layers.
    """

    card = ModelCard(name="ncf", title="Neural collaborative filtering", paper="He et al., WWW 2017")

    class Params(Parameters):
        """Hyper-parameters."""

        embedding_size: int = Field(8, ge=1, description="d [IJCAI'22 and ICDE'24: 8; WSDM'22: 64]")
        hidden: tuple[int, ...] = Field((8, 8), min_length=1, description="hidden sizes [IJCAI'22 and ICDE'24: 8, 8]")
        output_bias: bool = Field(True, description="b_h [published code: yes; papers: no]")
        init: Literal["kaiming", "normal"] = Field(
            "kaiming",
            description="weights ~ U(-b, b), b = sqrt(6 / fan_in), biases 0 [code of IJCAI'22];"
            " or all ~ N(0, init_std^2) [WSDM'22]",
        )
        init_std: float = Field(
            0.01, gt=0, description="standard deviation of the initial embeddings [codes: 0.01; WSDM'22: 1]"
        )

    params: NeuralCollaborativeFiltering.Params

    @property
    def embedding_size(self) -> int:
        return self.params.embedding_size

    def init_params(self, num_items: int, generator: torch.Generator) -> PublicParams:
        p = self.params
        sizes = [2 * p.embedding_size, *p.hidden, 1]
        names = [*self._layers(), ("h", "bh")]
        dense: dict[str, torch.Tensor] = {}
        for (weight, bias), fan_in, out in zip(names, sizes[:-1], sizes[1:], strict=True):
            if p.init == "normal":
                dense[weight] = torch.randn(out, fan_in, generator=generator) * p.init_std
                dense[bias] = torch.randn(out, generator=generator) * p.init_std
            else:
                bound = math.sqrt(6 / fan_in)
                dense[weight] = (torch.rand(out, fan_in, generator=generator) * 2 - 1) * bound
                dense[bias] = torch.zeros(out)
        if not p.output_bias:
            del dense["bh"]
        return PublicParams(torch.randn(num_items, p.embedding_size, generator=generator) * p.init_std, dense)

    def init_users(self, count: int, generator: torch.Generator) -> torch.Tensor:
        return torch.randn(count, self.embedding_size, generator=generator) * self.params.init_std

    def logits(self, dense: Mapping[str, torch.Tensor], users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        users, items = torch.broadcast_tensors(users, items)
        a = torch.cat([users, items], dim=-1)
        for weight, bias in self._layers():
            a = torch.relu(a @ dense[weight].transpose(-1, -2) + dense[bias].unsqueeze(-2))
        s = a @ dense["h"].transpose(-1, -2)
        if "bh" in dense:
            s = s + dense["bh"].unsqueeze(-2)
        return s.squeeze(-1)

    def score_all(self, params: PublicParams, users: torch.Tensor) -> torch.Tensor:
        # Activations are laid out [h, users, items], and made for a few users at a time: long rows that stay in the
        # cache are 20 times faster than [pairs, h] on a CPU.
        dense, d = params.dense, self.embedding_size
        of_users = dense["W1"][:, :d] @ users.T
        of_items = dense["W1"][:, d:] @ params.items.T + dense["b1"][:, None]
        scores = users.new_empty(len(users), len(params.items))
        few = max(1, (2**26 if users.is_cuda else 2**17) // len(params.items))
        for start in range(0, len(users), few):
            out = scores[start : start + few]
            a = (of_users[:, start : start + few, None] + of_items[:, None]).relu_().flatten(1)
            for weight, bias in self._layers()[1:]:
                a = torch.addmm(dense[bias][:, None], dense[weight], a).relu_()
            torch.mm(dense["h"], a, out=out.view(1, -1))
        return scores + dense["bh"] if "bh" in dense else scores

    def local_step(
        self,
        params: PublicParams,
        users: torch.Tensor,
        batch: Batch,
        loss: Loss,
        generator: torch.Generator | None = None,
    ) -> LocalStep:
        dense = params.dense
        d = self.embedding_size
        w_user, w_item = dense["W1"][:, :d], dense["W1"][:, d:]
        layers = self._layers()

        # Forward: activations [R, h_l] of every layer.
        first = (users @ w_user.T).index_select(0, batch.client)
        first += (params.items @ w_item.T + dense["b1"]).index_select(0, batch.item)
        activations = [first.relu_()]
        for weight, bias in layers[1:]:
            activations.append(torch.addmm(dense[bias], activations[-1], dense[weight].T).relu_())
        logits = activations[-1] @ dense["h"][0]
        if "bh" in dense:
            logits += dense["bh"]

        # Backward: deltas [R, h_l], the derivative by each layer's input.
        own, uploaded = loss.derivative(logits, batch)
        deltas = self._backward(dense, activations, own)
        summed_by_client = _segment_sum(deltas[0], batch.starts)
        users_grad = summed_by_client @ w_user
        row_delta = deltas[0] if uploaded is own else self._backward(dense, activations, uploaded)[0]
        projected = ProjectedRows(batch.client, batch.item, row_delta, w_item)
        rows: Rows = projected
        if loss.regularization:
            users_grad = users_grad + loss.regularization * users
            pull = loss.regularization * params.items.index_select(0, batch.item)
            rows = FullRows(batch.client, batch.item, projected.grad() + pull)

        def total() -> Tensors:
            # Sums of the deltas of layer 1 over each user's and each item's rows stand for the [R, 2d] inputs.
            over_items = ProjectedRows(batch.client, batch.item, deltas[0], w_item).coef_sum(len(params.items))
            sums = {
                "W1": torch.cat([summed_by_client.T @ users, over_items.T @ params.items], dim=1),
                "b1": summed_by_client.sum(0),
            }
            for (weight, bias), delta, a in zip(layers[1:], deltas[1:], activations[:-1], strict=True):
                sums |= {weight: delta.T @ a, bias: delta.sum(0)}
            sums["h"] = (own @ activations[-1])[None]
            if "bh" in dense:
                sums["bh"] = own.sum()[None]
            return sums

        def stacked() -> Tensors:
            inputs = params.items.index_select(0, batch.item)
            by_user = summed_by_client[:, :, None] * users[:, None, :]
            each = {
                "W1": torch.cat([by_user, _segment_outer(deltas[0], inputs, batch.starts)], dim=2),
                "b1": summed_by_client,
            }
            for (weight, bias), delta, a in zip(layers[1:], deltas[1:], activations[:-1], strict=True):
                each |= {weight: _segment_outer(delta, a, batch.starts), bias: _segment_sum(delta, batch.starts)}
            each["h"] = _segment_outer(own[:, None], activations[-1], batch.starts)
            if "bh" in dense:
                each["bh"] = _segment_sum(own[:, None], batch.starts)
            return each

        return LocalStep((rows,), DenseGradients(total, stacked), users_grad)

    def _layers(self) -> list[tuple[str, str]]:
        return [(f"W{i}", f"b{i}") for i in range(1, len(self.params.hidden) + 1)]

    def _backward(
        self, dense: Mapping[str, torch.Tensor], activations: list[torch.Tensor], derivative: torch.Tensor
    ) -> list[torch.Tensor]:
        """Derivatives by the input of every layer, first layer first: float32 [R, h_l] each."""
        deltas = [_relu_backward(derivative[:, None] @ dense["h"], activations[-1])]
        for (weight, _), a in zip(reversed(self._layers()[1:]), reversed(activations[:-1]), strict=True):
            deltas.insert(0, _relu_backward(deltas[0] @ dense[weight], a))
        return deltas


def _relu_backward(delta: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
    """``delta`` where ``activation > 0``, else 0; an activation of a relu is never negative, so its sign is the mask."""
    return activation.sign().mul_(delta)


def _segment_sum(values: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """float32 [n, k]: sums of the rows of ``values`` [R, k] over each segment."""
    index = torch.arange(len(values), device=values.device)
    return torch.nn.functional.embedding_bag(index, values, starts[:-1], mode="sum")


def _segment_outer(left: torch.Tensor, right: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """float32 [n, k, l]: sums of ``left[r] x right[r]`` over each segment, for left [R, k] and right [R, l].

    One weighted segment sum for each of the k (few) columns of ``left``: the [R, k, l] products are never made.
    """
    index = torch.arange(len(right), device=right.device)
    columns = [
        torch.nn.functional.embedding_bag(index, right, starts[:-1], mode="sum", per_sample_weights=column)
        for column in left.T.contiguous()
    ]
    return torch.stack(columns, dim=1)

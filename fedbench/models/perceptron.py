"""What models have in common whose logit is that of a perceptron on a user's vector beside an item's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import Field, field_validator

from fedbench.entries.cards import Parameters
from fedbench.federation.batch import Batch
from fedbench.federation.losses import Loss
from fedbench.federation.model import LARGEST_SIZE, LocalStep, PublicParams, Recommender
from fedbench.federation.rows import FullRows, ProjectedRows, Rows
from fedbench.federation.updates import DenseGradients, Tensors
from fedbench.models.buckets import in_buckets
from fedbench.models.star import Star


def sizes_that_fit(value: tuple[int, ...]) -> tuple[int, ...]:
    """``value``; raises ValueError for a hidden size that is none."""
    if not all(1 <= size <= LARGEST_SIZE for size in value):
        raise ValueError(f"every size must be from 1 to {LARGEST_SIZE}")
    return value


class PerceptronParams(Parameters):
    """Hyper-parameters."""

    embedding_size: int = Field(32, ge=1, le=LARGEST_SIZE, description="d [TOIS: 32]")
    hidden: tuple[int, ...] = Field((32, 16), min_length=1, max_length=16, description="hidden sizes [TOIS: 32, 16]")
    output_bias: bool = Field(True, description="b_h [published code: yes; papers: no]")
    init: Literal["kaiming", "normal"] = Field(
        "kaiming",
        description="weights ~ U(-b, b), b = sqrt(6 / fan_in), biases 0 [code of IJCAI'22];"
        " or all ~ N(0, init_std^2) [WSDM'22]",
    )
    init_std: float = Field(
        0.01, gt=0, description="standard deviation of the initial embeddings [codes: 0.01; WSDM'22: 1]"
    )

    _sizes_that_fit = field_validator("hidden")(sizes_that_fit)


class PerceptronRecommender(Recommender):
    """``a_1 = relu(W_1 x + b_1); ...; a_L = relu(W_L a_(L-1) + b_L); s = h . a_L + b_h`` of ``x = [u ; v]``.

    In models that read features ``x = [u ; v ; E phi]``, phi being what the item's image looks like; in those with a star
    (:class:`fedbench.models.star.Star`) u and v come out of a graph convolution on the client's own interactions.

    Dense parameters: ``W1 [h_1, 2d or 3d], b1 [h_1], ..., h [1, h_L], bh [1]``, and ``E [d, F]``. The first layer is
    linear in its parts, so all of them are projected once for every user and item, and the work for each training row is
    only that of the hidden layers. E meets a round in two products of its size, ``Z = Phi E^T`` and ``G_z^T Phi``,
    G_z [M, d] holding what the rows of each item sum up to; a gradient of E for each client is made when it is asked for.
    """

    params: PerceptronParams

    @property
    def embedding_size(self) -> int:
        return self.params.embedding_size

    def init_params(self, num_items: int, generator: torch.Generator) -> PublicParams:
        p = self.params
        sizes = [(3 if self.reads_features else 2) * p.embedding_size, *p.hidden, 1]
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

    def init_feature_params(self, num_features: int, generator: torch.Generator) -> Mapping[str, torch.Tensor]:
        """``E ~ N(0, 1/F)``: float32 [d, F]."""
        if not self.reads_features:
            return {}
        return {"E": torch.randn(self.embedding_size, num_features, generator=generator) / math.sqrt(num_features)}

    def init_users(self, count: int, generator: torch.Generator) -> torch.Tensor:
        return torch.randn(count, self.embedding_size, generator=generator) * self.params.init_std

    def logits(self, dense: Mapping[str, torch.Tensor], users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        parts = [users, self._pooled(items[..., : self.embedding_size])]
        if self.reads_features:
            parts.append(items[..., self.embedding_size :] @ dense["E"].mT)
        shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
        a = torch.cat([part.expand(*shape, -1) for part in parts], dim=-1)
        for weight, bias in self._layers():
            a = torch.relu(a @ dense[weight].transpose(-1, -2) + dense[bias].unsqueeze(-2))
        s = a @ dense["h"].transpose(-1, -2)
        if "bh" in dense:
            s = s + dense["bh"].unsqueeze(-2)
        return s.squeeze(-1)

    def score_all(self, params: PublicParams, users: torch.Tensor) -> torch.Tensor:
        dense, d = params.dense, self.embedding_size
        of_users = dense["W1"][:, :d] @ users.T
        of_items = dense["W1"][:, d:] @ self._item_inputs(params).T + dense["b1"][:, None]
        scores = hidden_layers(of_users, of_items, [(dense[w], dense[b]) for w, b in self._layers()[1:]], dense["h"])
        return scores + dense["bh"] if "bh" in dense else scores

    def local_step(
        self,
        params: PublicParams,
        users: torch.Tensor,
        batch: Batch,
        loss: Loss,
        generator: torch.Generator | None = None,
    ) -> LocalStep:
        dense, d = params.dense, self.embedding_size
        w_user, w_side = dense["W1"][:, :d], dense["W1"][:, d:]
        w_item = w_side[:, :d]
        inputs = self._item_inputs(params)
        star = self._star(users, batch)
        shown = users if star is None else star.users(self._leaves(params, inputs[:, d:]))

        # Forward: activations [R, h_l] of every layer.
        first = (shown @ w_user.T).index_select(0, batch.client)
        first += (inputs @ w_side.T + dense["b1"]).index_select(0, batch.item)
        if star is not None:
            star.give_leaves(first, w_item)
        activations = [first.relu_()]
        for weight, bias in self._layers()[1:]:
            activations.append(torch.addmm(dense[bias], activations[-1], dense[weight].T).relu_())
        logits = activations[-1] @ dense["h"][0]
        if "bh" in dense:
            logits += dense["bh"]

        # Backward: deltas [R, h_l], the derivative by each layer's input.
        own, uploaded = loss.derivative(logits, batch)
        deltas = self._backward(dense, activations, own)
        by_client = _segment_sum(deltas[0], batch.starts)
        by_users = by_client @ w_user
        row_delta = deltas[0] if uploaded is own else self._backward(dense, activations, uploaded)[0]
        projected = ProjectedRows(batch.client, batch.item, row_delta, self._pooled(w_item))
        rows: Rows = projected
        by_leaves = None
        if star is not None:
            by_leaves = star.share * by_users
            rows = star.rows(projected, by_leaves)
            by_users = star.pool * by_users + star.sum_leaves(deltas[0]) @ w_item
        if loss.regularization:
            by_users = by_users + loss.regularization * users
            pull = loss.regularization * params.items.index_select(0, batch.item)
            rows = FullRows(batch.client, batch.item, rows.grad() + pull)
        made = _Pass(params, batch, self._layers(), inputs, shown, activations, star, projected)
        wrong = _Deltas(own, deltas, by_client, by_leaves)
        gradients = DenseGradients(
            lambda: made.total(wrong),
            lambda: made.stacked(wrong),
            (lambda factor: made.total(wrong.scaled(factor, batch))) if self.reads_features else None,
        )
        return LocalStep((rows,), gradients, by_users)

    def _star(self, users: torch.Tensor, batch: Batch) -> Star | None:
        """The graphs of the clients, in models that convolve."""
        return None

    def _pooled(self, items: torch.Tensor) -> torch.Tensor:
        """What the perceptron sees of embeddings of items outside a client's graph."""
        return items

    def _looks(self, params: PublicParams) -> torch.Tensor:
        """float32 [M, d]: ``z_j = E phi_j``."""
        assert params.features is not None, "features of images are part of the parameters of this model"
        return params.features @ params.dense["E"].T

    def _item_inputs(self, params: PublicParams) -> torch.Tensor:
        """float32 [M, d], or [M, 2d]: what the perceptron sees of every item."""
        items = self._pooled(params.items)
        return torch.cat([items, self._looks(params)], dim=1) if self.reads_features else items

    def _leaves(self, params: PublicParams, looks: torch.Tensor) -> torch.Tensor:
        """float32 [M, d]: what every item gives a user whose leaf it is. ``looks``: float32 [M, d], or [M, 0]."""
        return params.items + looks if self.reads_features else params.items

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


@dataclass(frozen=True)
class _Deltas:
    """Derivatives of every client's loss.

    Attributes:
        logits: float32 [R]. layers: float32 [R, h_l], by the input of each layer. by_client: float32 [n, h_1], the first of
            these summed by client. by_leaves: float32 [n, d], what each leaf of a client gets through the star.
    """

    logits: torch.Tensor
    layers: list[torch.Tensor]
    by_client: torch.Tensor
    by_leaves: torch.Tensor | None

    def scaled(self, factor: torch.Tensor, batch: Batch) -> _Deltas:
        """Every client's times its ``factor``, float32 [n]."""
        each = factor.index_select(0, batch.client)
        return _Deltas(
            self.logits * each,
            [delta * each[:, None] for delta in self.layers],
            self.by_client * factor[:, None],
            None if self.by_leaves is None else self.by_leaves * factor[:, None],
        )


@dataclass(frozen=True)
class _Pass:
    """What went through the network: with the deltas, all that gradients of the dense parameters are made of.

    Attributes:
        params, batch, layers: what it was asked for.
        inputs: float32 [M, k], of items. shown: float32 [n, d], of users. activations: float32 [R, h_l].
        star: the clients' graphs, in models that convolve.
        rows: what the clients upload, without what reaches the user through its graph.
    """

    params: PublicParams
    batch: Batch
    layers: list[tuple[str, str]]
    inputs: torch.Tensor
    shown: torch.Tensor
    activations: list[torch.Tensor]
    star: Star | None
    rows: ProjectedRows

    def total(self, wrong: _Deltas) -> Tensors:
        """Sums over the clients."""
        # Sums of the deltas of layer 1 over each user's and each item's rows stand for the [R, k] inputs.
        over_items = self._over_items(wrong.layers[0])
        by_inputs = over_items.T @ self.inputs
        if self.star is not None:
            by_inputs[:, : self.shown.shape[1]] += self.star.sum_leaves(wrong.layers[0]).T @ self.star.own
        sums = {
            "W1": torch.cat([wrong.by_client.T @ self.shown, by_inputs], dim=1),
            "b1": wrong.by_client.sum(0),
        }
        for (weight, bias), delta, a in zip(self.layers[1:], wrong.layers[1:], self.activations[:-1], strict=True):
            sums |= {weight: delta.T @ a, bias: delta.sum(0)}
        sums["h"] = (wrong.logits @ self.activations[-1])[None]
        if "bh" in self.params.dense:
            sums["bh"] = wrong.logits.sum()[None]
        if self.params.features is not None and "E" in self.params.dense:
            by_looks = over_items @ self._w_look()
            if self.star is not None and wrong.by_leaves is not None:
                by_looks += self.star.sum_items(wrong.by_leaves, len(by_looks))
            sums["E"] = by_looks.T @ self.params.features
        return sums

    def stacked(self, wrong: _Deltas) -> Tensors:
        """Client by client."""
        starts, d = self.batch.starts, self.shown.shape[1]
        inputs = self.inputs.index_select(0, self.batch.item)
        by_user = wrong.by_client[:, :, None] * self.shown[:, None, :]
        by_inputs = _segment_outer(wrong.layers[0], inputs, starts)
        if self.star is not None:
            by_inputs[:, :, :d] += self.star.sum_leaves(wrong.layers[0])[:, :, None] * self.star.own[:, None, :]
        each = {"W1": torch.cat([by_user, by_inputs], dim=2), "b1": wrong.by_client}
        for (weight, bias), delta, a in zip(self.layers[1:], wrong.layers[1:], self.activations[:-1], strict=True):
            each |= {weight: _segment_outer(delta, a, starts), bias: _segment_sum(delta, starts)}
        each["h"] = _segment_outer(wrong.logits[:, None], self.activations[-1], starts)
        if "bh" in self.params.dense:
            each["bh"] = _segment_sum(wrong.logits[:, None], starts)
        if self.params.features is not None and "E" in self.params.dense:
            each["E"] = self._projections(wrong, self.params.features)
        return each

    def _projections(self, wrong: _Deltas, features: torch.Tensor) -> torch.Tensor:
        """float32 [n, d, F]: every client's gradient of E, ``sum_r dL/dz_r phi_r^T`` over its rows, bucket by bucket."""
        by_looks = wrong.layers[0] @ self._w_look()
        if self.star is not None and wrong.by_leaves is not None:
            by_looks.index_add_(0, self.star.row, wrong.by_leaves.index_select(0, self.star.client))
        length = self.batch.starts.diff()
        out = features.new_zeros(len(length), self.shown.shape[1], features.shape[1])
        for bucket in in_buckets(self.batch.starts[:-1], length, max(1, len(self.batch.item))):
            events = bucket.events()
            left = by_looks[events] * bucket.real()[:, :, None]
            out[bucket.client] = left.mT @ features[self.batch.item[events]]
        return out

    def _w_look(self) -> torch.Tensor:
        return self.params.dense["W1"][:, 2 * self.shown.shape[1] :]

    def _over_items(self, delta: torch.Tensor) -> torch.Tensor:
        """float32 [M, h]: for every item the sum of ``delta`` [R, h] over its rows."""
        rows = self.rows if delta is self.rows.coef else replace(self.rows, coef=delta)
        return rows.coef_sum(len(self.inputs))


def hidden_layers(
    of_users: torch.Tensor,
    of_items: torch.Tensor,
    layers: Sequence[tuple[torch.Tensor, torch.Tensor]],
    h: torch.Tensor,
) -> torch.Tensor:
    """float32 [n, M]: ``h . a_L`` of every user and item, with ``a_1 = relu(of_users + of_items)``.

    Activations are laid out [h, users, items], and made for a few users at a time: long rows that stay in the cache are 20
    times faster than [pairs, h] on a CPU.

    Args:
        of_users: float32 [h_1, n], what users give to the first layer. of_items: float32 [h_1, M], what items do, with its
            bias. layers: weight and bias of each later layer. h: float32 [1, h_L].
    """
    scores = of_users.new_empty(of_users.shape[1], of_items.shape[1])
    # Of a block two layers take half a GiB on a GPU, and a few MiB of a CPU's cache, whatever their width.
    wide = (2**26 if scores.is_cuda else 2**20) // max(len(of_users), *(len(weight) for weight, _ in layers), 1)
    few = max(1, wide // max(scores.shape[1], 1))
    for start in range(0, len(scores), few):
        out = scores[start : start + few]
        a = (of_users[:, start : start + few, None] + of_items[:, None]).relu_().flatten(1)
        for weight, bias in layers:
            a = torch.addmm(bias[:, None], weight, a).relu_()
        torch.mm(h, a, out=out.view(1, -1))
    return scores


def _relu_backward(delta: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
    """``delta`` where ``activation > 0``, else 0."""
    made: torch.Tensor = torch.ops.aten.threshold_backward(delta, activation, 0)
    return made


def _segment_sum(values: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """float32 [n, k]: sums of the rows of ``values`` [R, k] over each segment."""
    index = torch.arange(len(values), device=values.device)
    return torch.nn.functional.embedding_bag(index, values, starts[:-1], mode="sum")


def _segment_outer(left: torch.Tensor, right: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """float32 [n, k, l]: sums of ``left[r] x right[r]`` over each segment, for left [R, k] and right [R, l].

    One weighted segment sum for each of the k (few) columns of ``left``: the [R, k, l] products are only made where every
    segment is a single row.
    """
    if len(right) == len(starts) - 1 and bool((starts.diff() == 1).all()):
        return left[:, :, None] * right[:, None, :]
    index = torch.arange(len(right), device=right.device)
    columns = [
        torch.nn.functional.embedding_bag(index, right, starts[:-1], mode="sum", per_sample_weights=column)
        for column in left.T.contiguous()
    ]
    return torch.stack(columns, dim=1)

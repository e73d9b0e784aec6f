"""Neural matrix factorisation: a perceptron and a product of the same embeddings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import torch
from pydantic import Field, field_validator

from fedbench.entries.cards import ModelCard
from fedbench.federation.model import LARGEST_SIZE, PublicParams
from fedbench.models.autograd import AutogradRecommender
from fedbench.models.perceptron import hidden_layers, sizes_that_fit


class NeuralMatrixFactorization(AutogradRecommender):
    """``s_uj = h . [MLP([u ; v_j]) ; u * v_j] + b_h`` (He et al. 2017, eq. 12; one table of embeddings for both parts).

    ``MLP`` is that of :class:`fedbench.models.perceptron.PerceptronRecommender`. He et al. give the product embeddings of its
    own; here both parts share theirs, as in the FedNCF of Hao et al. (CCS 2024, code), whose sizes are the defaults.

    Dense parameters: ``W1 [h_1, 2d], b1 [h_1], ..., h [1, h_L + d], bh [1]``; all weights ~ U(-b, b), b = sqrt(6 / fan_in),
    biases 0.
    """

    card = ModelCard(name="neumf", title="Neural matrix factorisation", paper="He et al., WWW 2017")

    class Params(AutogradRecommender.Params):
        """Hyper-parameters."""

        embedding_size: int = Field(16, ge=1, le=LARGEST_SIZE, description="d [code of CCS'24: 16]")
        hidden: tuple[int, ...] = Field(
            (64, 32, 16, 8, 16),
            min_length=1,
            max_length=16,
            description="hidden sizes [code of CCS'24: 64, 32, 16, 8, d]",
        )

        _sizes_that_fit = field_validator("hidden")(sizes_that_fit)

    params: NeuralMatrixFactorization.Params

    def init_dense(self, generator: torch.Generator) -> Mapping[str, torch.Tensor]:
        p = self.params
        sizes = [2 * p.embedding_size, *p.hidden]
        dense: dict[str, torch.Tensor] = {}
        for i, (fan_in, out) in enumerate(itertools.pairwise(sizes), start=1):
            dense[f"W{i}"] = _uniform(out, fan_in, generator)
            dense[f"b{i}"] = torch.zeros(out)
        return dense | {"h": _uniform(1, p.hidden[-1] + p.embedding_size, generator), "bh": torch.zeros(1)}

    def logits(self, dense: Mapping[str, torch.Tensor], users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        a = torch.cat(torch.broadcast_tensors(users, items), dim=-1)
        for weight, bias in self._layers():
            a = torch.relu(a @ dense[weight].transpose(-1, -2) + dense[bias].unsqueeze(-2))
        both = torch.cat([a, users * items], dim=-1)
        return (both @ dense["h"].transpose(-1, -2) + dense["bh"].unsqueeze(-2)).squeeze(-1)

    def score_all(self, params: PublicParams, users: torch.Tensor) -> torch.Tensor:
        dense, items, d = params.dense, params.items, self.embedding_size
        of_users = dense["W1"][:, :d] @ users.T
        of_items = dense["W1"][:, d:] @ items.T + dense["b1"][:, None]
        deep, product = dense["h"].split([self.params.hidden[-1], d], dim=1)
        scores = hidden_layers(of_users, of_items, [(dense[w], dense[b]) for w, b in self._layers()[1:]], deep)
        return scores + (users * product) @ items.T + dense["bh"]

    def _layers(self) -> list[tuple[str, str]]:
        return [(f"W{i}", f"b{i}") for i in range(1, len(self.params.hidden) + 1)]


def _uniform(out: int, fan_in: int, generator: torch.Generator) -> torch.Tensor:
    return (torch.rand(out, fan_in, generator=generator) * 2 - 1) * math.sqrt(6 / fan_in)

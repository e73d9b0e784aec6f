"""Matrix factorisation: the logit is the inner product of user and item embedding, without bias."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from pydantic import Field

from fedbench.cards import ModelCard, Parameters
from fedbench.federation.clients import Batch
from fedbench.federation.losses import Loss
from fedbench.federation.updates import DenseGradients, FullRows, OuterRows, Rows
from fedbench.models.base import LocalStep, PublicParams, Recommender

# One notice a process about an API that does what it says here.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)


class MatrixFactorization(Recommender):
    """``s_uj = u_u . v_j`` (Koren et al. 2009; federated: Ammad-ud-din et al. 2019).

    With ``e_uj = dL_u/ds_uj``, a client's own gradient is ``sum_j e_uj v_j`` and the row that it uploads for item j is
    ``e_uj u_u``: one scalar for each row times one vector, so the [R, d] rows are not made unless a defense reads them.
    """

    card = ModelCard(name="mf", title="Matrix factorisation", paper="Koren et al., Computer 2009")

    class Params(Parameters):
        """Hyper-parameters."""

        embedding_size: int = Field(32, ge=1, description="d [ICDE'22 and ICDE'24 code: 32]")
        init_std: float = Field(
            0.01, gt=0, description="standard deviation of the initial embeddings [all three codes: 0.01]"
        )

    params: MatrixFactorization.Params

    @property
    def embedding_size(self) -> int:
        return self.params.embedding_size

    def init_params(self, num_items: int, generator: torch.Generator) -> PublicParams:
        return PublicParams(torch.randn(num_items, self.embedding_size, generator=generator) * self.params.init_std, {})

    def init_users(self, count: int, generator: torch.Generator) -> torch.Tensor:
        return torch.randn(count, self.embedding_size, generator=generator) * self.params.init_std

    def logits(self, dense: Mapping[str, torch.Tensor], users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return (users * items).sum(-1)

    def score_all(self, params: PublicParams, users: torch.Tensor) -> torch.Tensor:
        return users @ params.items.T

    def local_step(self, params: PublicParams, users: torch.Tensor, batch: Batch, loss: Loss) -> LocalStep:
        logits = aligned_products(users, params.items, batch)
        own, uploaded = loss.derivative(logits, batch)
        user_grad = torch.nn.functional.embedding_bag(
            batch.item, params.items, batch.starts[:-1], mode="sum", per_sample_weights=own
        )
        rows: Rows = OuterRows(batch.client, batch.item, uploaded, batch.client, users)
        if loss.regularization:
            user_grad = user_grad + loss.regularization * users
            pull = loss.regularization * params.items.index_select(0, batch.item)
            rows = FullRows(batch.client, batch.item, rows.grad() + pull)
        return LocalStep((rows,), DenseGradients.of({}), user_grad)


def aligned_products(users: torch.Tensor, items: torch.Tensor, batch: Batch) -> torch.Tensor:
    """``u_client . v_item`` of every row of a batch: float32 [R].

    Args:
        users: float32 [n, d]. items: float32 [M, d]. batch: rows sorted by client.
    """
    if users.is_cuda or torch.backends.mkl.is_available():
        # One pass over both factors, without the two [R, d] gathers of the plain product below (5 times faster).
        pattern = torch.sparse_csr_tensor(
            batch.starts, batch.item, torch.zeros_like(batch.weight), (len(users), len(items)), check_invariants=False
        )
        return torch.sparse.sampled_addmm(pattern, users, items.T, beta=0.0).values()
    return (users.index_select(0, batch.client) * items.index_select(0, batch.item)).sum(1)

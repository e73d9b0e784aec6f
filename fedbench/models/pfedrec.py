"""PFedRec: a score function and an item table of each client's own; what is shared is the mean of the tables."""

from __future__ import annotations

import torch
from pydantic import Field

from fedbench.entries.cards import ModelCard
from fedbench.models.mf import MatrixFactorization


class PersonalTables(MatrixFactorization):
    """``s_uj = w_u . v_uj``: a linear score function w_u and an item table V_u of the client's (Zhang et al., IJCAI 2023).

    In a round a client receives V and takes two steps (algorithm 1; code), each on its own loss L_u:

        w_u <- w_u - lr dL_u/dw_u (w_u, V);      V_u = V - lr M eta dL_u/dV (w_u, V),     w_u being the new one

    It keeps both and sends V_u; the server's new table is the plain mean of what it was sent. Clients rank by the V_u that
    they have kept since they last took part (:class:`fedbench.federation.own_tables.OwnTables`), those that never have by
    the server's: what an attacker puts into the server's table is seen after the next download.

    The house's words for it: what is uploaded is the gradient at the new w_u, V_u - V divided by ``-lr M eta``; that is the
    server's ``learning_rate``, with aggregation "mean" and plain descent, and lr is ``client_learning_rate``. Protocol
    ``ijcai23`` has both as published (lr = 0.1, eta = 80). Rows that a client has no sample of stay V's, so nobody's table is
    stored: what is kept are the rows that it touched, one number each, and the tables that were received.

    Differences from the code:

    * It takes a step for each batch of 256 samples in one pass, by the batch's mean loss; here there is one step by the
      mean over all of a client's samples. On ML-100K (seed 0) HR@10 among 99 is 68.7 % and NDCG@10 41.0 % after 100 rounds.
    * Its score function has a bias, which moves no ranking. There is none here.
    * All clients start from the same w_u, as there; injected ones share another.
    """

    card = ModelCard(
        name="pfedrec",
        title="Personalised item tables (PFedRec)",
        paper="Zhang et al., IJCAI 2023",
        notes="Every client ranks by an item table of its own. Made for means over all clients, as in protocol ijcai23.",
    )

    personal = True

    class Params(MatrixFactorization.Params):
        """Hyper-parameters."""

        init_std: float = Field(1.0, gt=0, description="standard deviation of the initial item table [code: 1]")

    params: PersonalTables.Params

    def init_users(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """float32 [count, d]: one draw for all, uniform within ``1 / sqrt(d)`` [code: torch's linear layer]."""
        d = self.embedding_size
        drawn: torch.Tensor = (2 * torch.rand(1, d, generator=generator) - 1) / d**0.5
        return drawn.repeat(count, 1)

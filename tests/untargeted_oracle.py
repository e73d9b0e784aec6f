"""Protocol aaai23 as its authors run it: one client after the other, autograd for each, torch's Adam on whole tables."""

from __future__ import annotations

import torch

from fedbench.federation.simulation import Federation


class PlainUntargeted:
    """The same start as ``federation`` (MF, BPR): its tables, its training pairs and negatives.

    Args:
        federation: before its first epoch. negatives: int64 [P, 1], those of its training pairs.
        dropout: torch's own, on looked-up vectors.
    """

    def __init__(self, federation: Federation, negatives: torch.Tensor, dropout: float = 0.0) -> None:
        task, protocol = federation.task, federation.protocol
        self.items = federation.params.items.clone().requires_grad_()
        self.users = federation.users.clone().requires_grad_()
        self.l2, self.dropout = protocol.regularization, dropout
        self.pairs = [
            torch.stack([task.train_item[mine], negatives[mine, 0]])
            for mine in (task.train_user == torch.arange(task.num_users)[:, None])
        ]
        self.optimizers = [torch.optim.Adam([table], lr=protocol.learning_rate) for table in (self.items, self.users)]

    def gradients(self, user: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A client's loss by all items, float32 [M, d], and by all users, [N, d], of which only its own row counts.

        The L2 term is over all parameters, as in the published code.
        """
        positive, negative = self.pairs[user]

        def looked_up(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.dropout(torch.nn.functional.embedding(index, table), self.dropout)

        own = looked_up(self.users, torch.full_like(positive, user))
        both = looked_up(self.items, torch.stack([positive, negative], dim=1))
        scores = torch.matmul(both, own[:, :, None]).squeeze(2)
        loss = -torch.nn.functional.logsigmoid(scores[:, 0] - scores[:, 1]).mean()
        loss = loss + self.l2 / 2 * (self.items.square().sum() + self.users.square().sum())
        by_items, by_users = torch.autograd.grad(loss, [self.items, self.users])
        mask = torch.zeros(len(by_users), 1)
        mask[user] = 1
        return by_items, by_users * mask

    def round(self, cohort: list[int]) -> None:
        """One round: the mean of the item gradients by numbers of pairs; every user's own gradient; two Adam steps."""
        uploads, of_users = [], torch.zeros_like(self.users)
        for user in cohort:
            by_items, by_user = self.gradients(user)
            uploads.append(by_items.flatten())
            of_users += by_user
        samples = torch.tensor([float(self.pairs[user].shape[1]) for user in cohort])
        self.items.grad = torch.matmul(samples / samples.sum(), torch.stack(uploads)).view_as(self.items)
        self.users.grad = of_users
        for optimizer in self.optimizers:
            optimizer.step()

"""Protocol aaai23: whole rounds against a per-client loop with autograd, and who is malicious or evaluated."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from federations import small_federation, small_task

from fedbench.attacks.base import Attack
from fedbench.cards import AttackCard, Channel, Goal, Knowledge, NoParameters
from fedbench.errors import UserError
from fedbench.federation.clients import draw_negatives
from fedbench.federation.simulation import Federation
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView
from fedbench.protocols import preset

FIELDS = preset("aaai23", "mf", "ml-1m").model_dump()
LAMBDA = 0.03


def federation(num_malicious: int = 0, attack: Attack | None = None, seed: int = 0, **fields: object) -> Federation:
    settings = FIELDS | {
        "clients_per_round": 8,
        "rounds_per_epoch": 5,
        "regularization": LAMBDA,
        "learning_rate": 0.05,
        "malicious_pool": 0.4,
    }
    return small_federation(
        attack=attack,
        task=small_task(num_malicious=num_malicious, targets=()),
        seed=seed,
        model_params={"embedding_size": 4, "init": "xavier"},
        **(settings | fields),
    )


class Loyal(Attack):
    """Uploads what an honest client would."""

    card = AttackCard(
        name="loyal",
        title="none",
        paper="none",
        goal=Goal.DEGRADE,
        channel=Channel.GRADIENT,
        knowledge=frozenset({Knowledge.OWN_DATA, Knowledge.HONEST_UPDATES}),
    )

    def craft(self, view: AttackerView) -> Updates:
        assert len(view.honest_updates.clients) > 0
        return view.honest().updates


@pytest.mark.parametrize("user_optimizer", ["adam", "lazy-adam"])
@pytest.mark.parametrize("attacked", [False, True])
def test_rounds_agree_with_a_loop_over_clients_with_autograd_and_torchs_adam(
    user_optimizer: str, attacked: bool
) -> None:
    """Also with clients that are the attacker's, but upload honestly."""
    ours = federation(
        num_malicious=6 if attacked else 0,
        attack=Loyal(NoParameters()) if attacked else None,
        user_optimizer=user_optimizer,
    )
    task = ours.task
    negatives = draw_negatives(task.train_user, task.train_item, 30, 40, 1, ours._stream("negatives", 0))
    items = ours.params.items.clone().requires_grad_()
    users = [row.clone().requires_grad_() for row in ours.users]
    table = ours.users.clone().requires_grad_()
    server, devices = torch.optim.Adam([items], lr=0.05), torch.optim.Adam([table], lr=0.05)
    lazy = {user: torch.optim.Adam([row], lr=0.05) for user, row in enumerate(users)}
    cohorts = []
    ours.epoch = 1
    for cohort in ours.cohorts():
        cohorts.append(torch.cat([cohort.honest, ours.malicious[cohort.malicious]]).tolist())
    ours.epoch = 0
    ours.train_epoch()

    for steps, cohort in enumerate(cohorts):
        count = {user: int((task.train_user == user).sum()) for user in cohort}
        total = torch.zeros_like(items)
        table.grad = torch.zeros_like(table)
        for user in cohort:
            mine = (task.train_user == user).nonzero().squeeze(1)
            v = items.detach().clone().requires_grad_()
            u = table.detach()[user].clone().requires_grad_()
            margin = v[task.train_item[mine]] @ u - v[negatives[mine, 0]] @ u
            loss = -torch.nn.functional.logsigmoid(margin).mean() + LAMBDA / 2 * (v.square().sum() + u.square().sum())
            by_item, by_user = torch.autograd.grad(loss, [v, u])
            total += count[user] / sum(count.values()) * by_item
            table.grad[user] = by_user
        items.grad = total
        server.step()
        if user_optimizer == "adam":
            devices.step()
        else:
            with torch.no_grad():
                for user in cohort:
                    users[user].grad = table.grad[user]
                    for state in [lazy[user].state[users[user]]]:
                        if state:
                            state["step"].fill_(steps)
                        else:
                            state.update(
                                step=torch.tensor(float(steps)),
                                exp_avg=torch.zeros(4),
                                exp_avg_sq=torch.zeros(4),
                            )
                    lazy[user].step()
                    table[user] = users[user]
    assert torch.allclose(ours.params.items, items.detach(), atol=1e-5)
    assert torch.allclose(ours.users, table.detach(), atol=1e-5)
    assert ours.round == 5


def test_malicious_users_come_from_a_pool_that_no_run_changes_and_nobody_of_it_is_evaluated() -> None:
    clean, one, many = federation(), federation(3, Loyal(NoParameters()), seed=1), federation(12, Loyal(NoParameters()))
    assert len(clean.evaluated_users) == 18
    assert torch.equal(clean.evaluated_users, one.evaluated_users)
    assert torch.equal(clean.evaluated_users, many.evaluated_users)
    assert len(many.malicious) == 12
    for each in (one, many):
        assert not set(each.malicious.tolist()) & set(each.evaluated_users.tolist())
    other = federation(3, Loyal(NoParameters()), seed=2)
    assert not torch.equal(one.malicious, other.malicious)
    with pytest.raises(UserError, match=r"13 malicious clients are more than the 12 users"):
        federation(13, Loyal(NoParameters()))


def test_negatives_are_no_held_out_items() -> None:
    task = small_task(targets=())
    taken = set(zip(task.train_user.tolist(), task.train_item.tolist(), strict=True))
    # Everything but two items of each user is in training or held out.
    free = {user: [item for item in range(40) if (user, item) not in taken][:2] for user in range(30)}
    held_out = [(u, i) for u in range(30) for i in range(40) if (u, i) not in taken and i not in free[u]]
    columns = torch.tensor(held_out).T
    both = replace(task, held_out=(columns[0], columns[1]))
    for exclude, only in (("all", True), ("train", False)):
        made = small_federation(task=both, **(FIELDS | {"negatives_exclude": exclude}), model_params={"init": "xavier"})
        batch = made.rows.select(torch.arange(30))
        assert batch.pair_negative is not None
        drawn = zip(batch.client[batch.pair_negative].tolist(), batch.item[batch.pair_negative].tolist(), strict=True)
        assert all(item in free[user] for user, item in drawn) is only


def test_dropout_leaves_the_draws_of_everything_else_alone() -> None:
    with_it = small_federation(
        task=small_task(targets=()),
        model_params={"embedding_size": 4, "init": "xavier", "dropout": 0.5},
        **(FIELDS | {"rounds_per_epoch": 1}),
    )
    without = small_federation(
        task=small_task(targets=()),
        model_params={"embedding_size": 4, "init": "xavier"},
        **(FIELDS | {"rounds_per_epoch": 1}),
    )
    assert torch.equal(with_it.rows.item, without.rows.item)
    assert torch.equal(with_it.params.items, without.params.items)
    with_it.train_epoch()
    without.train_epoch()
    assert not torch.equal(with_it.params.items, without.params.items)


class Curious(Loyal):
    """Looks at everything that own data give."""

    def craft(self, view: AttackerView) -> Updates:
        batch = view.own_batch
        assert torch.equal(batch.clients, view.honest().updates.clients)
        self.seen = view.trained(batch), view.honest().updates, view.own_users, view.honest().users
        self.crowd = view.colluding(4), view.colluding(100)
        return view.honest().updates


def test_own_data_give_honest_uploads_of_the_sampled_and_of_all_malicious_clients() -> None:
    attack = Curious(NoParameters())
    made = federation(7, attack, rounds_per_epoch=4)
    made.train_epoch()
    trained, honest, own, users = attack.seen
    assert torch.allclose(trained.sum_rows(40, 4), honest.sum_rows(40, 4), atol=1e-6)
    assert torch.equal(own, users)
    few, all_of_them = attack.crowd
    assert len(few.clients) == 4
    assert sorted(all_of_them.clients.tolist()) == made.malicious.tolist()
    assert few.common is not None
    assert torch.allclose(few.common.gradient, LAMBDA * made.params.items, atol=1e-2)

"""SASRec: a causal transformer over a client's sequence of items; its output stands for the client."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from pydantic import Field, ValidationInfo, field_validator

from fedbench.entries.cards import ModelCard, Parameters
from fedbench.errors import UserError
from fedbench.federation.batch import Batch
from fedbench.federation.losses import Loss
from fedbench.federation.model import LARGEST_SIZE, Histories, LocalStep, PublicParams, Recommender
from fedbench.federation.rows import FullRows, occurrences
from fedbench.federation.updates import DenseGradients, Tensors
from fedbench.models.buckets import Bucket, in_buckets
from fedbench.models.mf import xavier
from fedbench.models.recording import Layers, Record, Weights

SPAN = 64
"""Queries whose attention is computed at a time."""


KEPT_TOKENS = 2**15
"""Up to so many events of a cohort, what the gradients client by client need is kept (about 8 KiB an event).

Of larger cohorts it is computed again when they are asked for, under the same masks of dropout.
"""


class SelfAttentiveSequentialRecommender(Recommender):
    """``s_tj = F_t . v_j``, F being a causal transformer over the sequence s_1 .. s_t (Kang and McAuley, ICDM 2018).

    The input is ``h = Dropout(sqrt(d) v_s + P)``, position L - 1 belonging to the newest event. A block (``residual``
    "query", the original order) is

        q = LN(h);  h = q + MHA(q, h, h);  h = LN(h);  h = h + Dropout(W_outer Dropout(relu(W_inner h)))

    and "input" (pre-norm) ``x = LN(h); h = h + MHA(x, x, x); h = h + FFN(LN(h))``. MHA has projections of query, key,
    value and output with biases, ``softmax(q k^T / sqrt(d / heads))`` over the events up to the query's, and dropout on
    these weights. F is the last block's output under a last LN.

    A client's loss is the mean over its positions t of ``-log sigma(F_t . v_target - F_t . v_negative)`` with target
    s_(t+1) and the one fixed negative of it (AAAI'23, whose paper says BPR; the original has cross-entropy). The order
    of a client's positives in the batch is its sequence; the first has no history and yields no position, and no more
    than the last L targets count. All sequences are kept left-aligned in buckets of similar lengths: events that fill
    up come after all others, so that the causal mask alone keeps them out, and nothing is computed twice for the
    gradients client by client: the derivative by the output of each layer, times its input, gives the sum over
    clients or each one's.

    All parameters are public (``exchange="all"``): item table and transformer. Users have no private embedding (tables
    of width 0); :meth:`represent` gives F at the last event. The reading in which only the item table is exchanged and
    every client keeps a transformer of its own, trained on its own sequence alone, is left out: it takes 63 thousand
    numbers a client. Blocks, heads, positions and the loss's positions are not in AAAI'23; those of the original
    are taken (blocks and heads: its code's for ML-1M).

    Dense parameters, for block i from 1: ``Wi_query, Wi_key, Wi_value, Wi_output, Wi_inner, Wi_outer`` [d, d] with
    biases ``bi_...`` [d]; layer norms ``gi_attention, bi_attention, gi_feedforward, bi_feedforward`` [d]; then
    ``g_last, b_last`` [d] and ``P`` [L, d]. Tables and weights start Xavier-uniform, biases 0, gains 1.
    """

    card = ModelCard(
        name="sasrec",
        title="Self-attentive sequential recommendation",
        paper="Kang and McAuley, ICDM 2018",
        notes="A client's sequence is the order of its training rows: that of time in the split"
        " leave-one-out-validation, that of item ids in others. Needs the BPR loss with one negative for each positive.",
    )

    reads_sequences = True
    inner_products = True

    class Params(Parameters):
        """Hyper-parameters."""

        embedding_size: int = Field(64, ge=1, le=LARGEST_SIZE, description="d [AAAI'23: 64]")
        max_length: int = Field(200, ge=1, le=10_000, description="L, events that count [AAAI'23: 200; Gowalla: 100]")
        blocks: int = Field(2, ge=1, le=64, description="blocks of attention and feed-forward layers [ICDM'18: 2]")
        heads: int = Field(1, ge=1, description="attention heads, a divisor of d [ICDM'18: 1]")
        dropout: float = Field(
            0.2,
            ge=0,
            lt=1,
            description="share left out of inputs, attention weights and feed-forward layers [AAAI'23: 0.2]",
        )
        residual: Literal["query", "input"] = Field(
            "query",
            description="what attention is added to: its normalised query [ICDM'18 code] or its input (pre-norm)",
        )

        @field_validator("heads")
        @classmethod
        def _divides(cls, heads: int, info: ValidationInfo) -> int:
            if info.data.get("embedding_size", heads) % heads:
                raise ValueError(f"must divide embedding_size = {info.data['embedding_size']}")
            return heads

    params: SelfAttentiveSequentialRecommender.Params

    @property
    def embedding_size(self) -> int:
        return self.params.embedding_size

    def init_params(self, num_items: int, generator: torch.Generator) -> PublicParams:
        p, d = self.params, self.embedding_size
        items = xavier(num_items, d, generator)
        dense: dict[str, torch.Tensor] = {}
        for i in range(1, p.blocks + 1):
            for layer in ("query", "key", "value", "output", "inner", "outer"):
                dense[f"W{i}_{layer}"], dense[f"b{i}_{layer}"] = xavier(d, d, generator), torch.zeros(d)
            for layer in ("attention", "feedforward"):
                dense[f"g{i}_{layer}"], dense[f"b{i}_{layer}"] = torch.ones(d), torch.zeros(d)
        dense |= {"g_last": torch.ones(d), "b_last": torch.zeros(d), "P": xavier(p.max_length, d, generator)}
        return PublicParams(items, dense)

    def init_users(self, count: int, generator: torch.Generator) -> torch.Tensor:
        return torch.zeros(count, 0)

    def logits(self, dense: Mapping[str, torch.Tensor], users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """The inner product of representations F and item embeddings; the transformer that makes F has no part in it."""
        return (users * items).sum(-1)

    def score_all(self, params: PublicParams, users: torch.Tensor) -> torch.Tensor:
        """float32 [B, M]: ``F . v_j`` for the representations ``users`` [B, d] and every item."""
        return users @ params.items.T

    def represent(self, params: PublicParams, users: torch.Tensor, histories: Histories) -> torch.Tensor:
        """float32 [n, d]: F at the last event of each of n users without dropout; zeros for an empty history."""
        # Not a decorator: that would load PyTorch for whoever only reads the card.
        with torch.no_grad():
            length = histories.starts.diff()
            out = params.items.new_zeros(len(length), self.embedding_size)
            weights = Weights(params.dense)
            for bucket in in_buckets(histories.starts[1:] - length, length, self.params.max_length):
                item = histories.item.index_select(0, bucket.events().flatten())
                x = self._embed(params, item, bucket)
                last = (bucket.length - 1)[:, None]
                out[bucket.client] = self._transform(Layers(weights), x, last)[:, 0]
            return out

    def samples(self, batch: Batch) -> torch.Tensor:
        """Positions that have a target: one fewer than the sequence has events, and at most L."""
        assert batch.pair_positive is not None
        owner = batch.client.index_select(0, batch.pair_positive)
        events = occurrences(owner, len(batch.clients))
        return (events - 1).clamp(min=0, max=self.params.max_length).to(batch.size.dtype)

    def local_step(
        self,
        params: PublicParams,
        users: torch.Tensor,
        batch: Batch,
        loss: Loss,
        generator: torch.Generator | None = None,
    ) -> LocalStep:
        """The gradients of every client's own loss; the pairs of ``batch``, in their order, are the sequences.

        Raises:
            UserError: when the loss is not pairwise, or has not one negative for each positive.
        """
        if loss.kind != "bpr" or batch.pair_positive is None or batch.pair_negative is None:
            raise UserError("model 'sasrec' trains with the pairwise loss: set the protocol's loss = \"bpr\".")
        n = len(batch.clients)
        pairs = occurrences(batch.client.index_select(0, batch.pair_positive), n)
        if int(batch.positive.sum()) != len(batch.pair_positive):
            raise UserError("model 'sasrec' takes one negative for each positive: set negatives_per_positive = 1.")
        length = (pairs - 1).clamp(min=0)
        buckets = list(in_buckets(pairs.cumsum(0) - pairs, length, self.params.max_length))
        state = generator.get_state() if generator is not None and self.params.dropout else None
        rows = params.items.new_zeros(len(batch.item), self.embedding_size)
        sums = {name: torch.zeros_like(value) for name, value in params.dense.items()}
        weights = Weights(params.dense)
        keep = sum(len(bucket.client) * bucket.longest for bucket in buckets) <= KEPT_TOKENS
        kept: list[Record] = []
        for bucket in buckets:
            record = self._backward(params, weights, batch, loss, bucket, generator, rows)
            if keep:
                kept.append(record)
            else:
                record.add_total(sums)
        if loss.regularization:
            rows += loss.regularization * params.items.index_select(0, batch.item)

        def records() -> Iterable[Record]:
            if keep:
                return kept
            again = None
            if state is not None and generator is not None:
                again = torch.Generator(generator.device)
                again.set_state(state)
            return (self._backward(params, weights, batch, loss, bucket, again) for bucket in buckets)

        def stacked() -> Tensors:
            out = {name: value.new_zeros(n, *value.shape) for name, value in params.dense.items()}
            for record in records():
                for name, value in record.stacked().items():
                    out[name].index_copy_(0, record.bucket.client, value)
            return out

        def weighted(factor: torch.Tensor | None) -> Tensors:
            out = {name: torch.zeros_like(value) for name, value in params.dense.items()}
            for record in records():
                record.add_total(out, factor)
            return out

        dense = DenseGradients((lambda: weighted(None)) if keep else (lambda: sums), stacked, weighted)
        return LocalStep((FullRows(batch.client, batch.item, rows),), dense, torch.zeros_like(users))

    def _backward(
        self,
        params: PublicParams,
        weights: Weights,
        batch: Batch,
        loss: Loss,
        bucket: Bucket,
        generator: torch.Generator | None,
        rows: torch.Tensor | None = None,
    ) -> Record:
        """Forward and backward of one bucket; adds to the gradient ``rows`` [R, d] of the batch's rows, if given."""
        assert batch.pair_positive is not None
        assert batch.pair_negative is not None
        b, t, d = len(bucket.client), bucket.longest, self.embedding_size
        event = bucket.events().flatten()
        read = batch.pair_positive if batch.sequence is None else batch.sequence
        source = read.index_select(0, event)
        target = batch.pair_positive.index_select(0, event + 1)
        negative = batch.pair_negative.index_select(0, event + 1)
        layers = Layers(weights, self.params.dropout if generator is not None else 0.0, generator)
        with torch.no_grad():
            x = self._embed(params, batch.item.index_select(0, source), bucket)
            keep = layers.mask(x.shape, x.device)
            x = x if keep is None else x.mul_(keep)
            difference = params.items.index_select(0, batch.item.index_select(0, target))
            difference -= params.items.index_select(0, batch.item.index_select(0, negative))
        with torch.enable_grad():
            x.requires_grad_()
            final = self._transform(layers, x)
        outputs = [x, *(z for _, _, z in layers.linear), *(y for _, _, y in layers.norms)]
        f = final.detach().view(b * t, d)
        margin = (f * difference).sum(1)
        # What fills up belongs to a client after the last, whose share of the loss is then left out.
        real = bucket.real()
        owner = torch.where(real, torch.arange(b, device=real.device)[:, None], b).flatten()
        slope = (loss.slope(margin, owner, b + 1) * real.flatten())[:, None]
        deltas = torch.autograd.grad(final, outputs, difference.mul_(-slope).view(b, t, d))
        first = deltas[0] if keep is None else deltas[0] * keep
        if rows is not None:
            # Without the argument alpha, which takes four times as long on a CPU.
            f = f * slope
            rows.index_add_(0, negative, f)
            rows.index_add_(0, target, -f)
            rows.index_add_(0, source, first.view(b * t, d) * math.sqrt(d))
        split = 1 + len(layers.linear)
        return Record(
            bucket,
            first,
            [(names, a.detach(), z) for (names, a, _), z in zip(layers.linear, deltas[1:split], strict=True)],
            [(name, a.detach(), y) for (name, a, _), y in zip(layers.norms, deltas[split:], strict=True)],
        )

    def _embed(self, params: PublicParams, item: torch.Tensor, bucket: Bucket) -> torch.Tensor:
        """float32 [b, t, d]: ``sqrt(d) v_s + P`` for the items [b t] of a bucket."""
        position = params.dense["P"].index_select(0, bucket.positions().flatten())
        x = position.add_(params.items.index_select(0, item), alpha=math.sqrt(self.embedding_size))
        return x.view(len(bucket.client), bucket.longest, -1)

    def _transform(self, layers: Layers, h: torch.Tensor, last: torch.Tensor | None = None) -> torch.Tensor:
        """F: float32 [b, t, d] from the embedded events; at the events ``last`` [b, 1] only, when given: [b, 1, d]."""
        for i in range(1, self.params.blocks + 1):
            h = self._block(layers, i, h, last if i == self.params.blocks else None)
        return layers.norm("_last", h)

    def _block(self, layers: Layers, i: int, h: torch.Tensor, last: torch.Tensor | None) -> torch.Tensor:
        """One block of h [b, t, d]: float32 [b, t, d], or of the events ``last`` only, when given: [b, 1, d]."""
        queried = h if last is None else h.gather(1, last[:, :, None].expand(-1, 1, h.shape[2]))
        x = layers.norm(f"{i}_attention", queried)
        original = self.params.residual == "query"
        if original:
            query = layers.project((f"{i}_query",), x)
            key, value = layers.project((f"{i}_key", f"{i}_value"), h).chunk(2, dim=2)
        elif queried is h:
            query, key, value = layers.project((f"{i}_query", f"{i}_key", f"{i}_value"), x).chunk(3, dim=2)
        else:
            query = layers.project((f"{i}_query",), x)
            everything = layers.norm(f"{i}_attention", h)
            key, value = layers.project((f"{i}_key", f"{i}_value"), everything).chunk(2, dim=2)
        attended = layers.project((f"{i}_output",), self._attend(layers, query, key, value, last))
        h = (x if original else queried) + attended
        x = layers.norm(f"{i}_feedforward", h)
        inner = layers.drop(layers.project((f"{i}_inner",), x).relu())
        return (x if original else h) + layers.drop(layers.project((f"{i}_outer",), inner))

    def _attend(
        self,
        layers: Layers,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        last: torch.Tensor | None,
    ) -> torch.Tensor:
        """``Dropout(softmax(q k^T / sqrt(d / heads))) v`` of every head, side by side: float32 [b, s, d]."""
        heads = self.params.heads
        b, s, d = query.shape
        query, key, value = (_heads(x, heads) for x in (query, key, value))
        if last is not None:
            later = torch.arange(key.shape[1], device=last.device) > last
            hidden = later.repeat_interleave(heads, dim=0)[:, None]
            logits = torch.bmm(query, key.transpose(1, 2)).mul_(math.sqrt(heads / d))
            out = torch.bmm(torch.softmax(logits.masked_fill_(hidden, -torch.inf), dim=2), value)
        else:
            spans = [(start, min(start + SPAN, s)) for start in range(0, s, SPAN)]
            shapes = [torch.Size((b * heads, end - start, end)) for start, end in spans]
            keep = [layers.mask(shape, query.device) for shape in shapes]
            # Imported here: its base class loads PyTorch, which whoever only reads the card shall not wait for.
            from fedbench.models.attention import CausalAttention

            out = CausalAttention.apply(query, key, value, spans, keep)  # type: ignore[no-untyped-call]
        return out.view(b, heads, s, d // heads).transpose(1, 2).reshape(b, s, d)


def _heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """float32 [b heads, t, d / heads] from [b, t, d]."""
    b, t, d = x.shape
    return x if heads == 1 else x.view(b, t, heads, d // heads).transpose(1, 2).reshape(b * heads, t, d // heads)

"""RoBERTa (https://arxiv.org/abs/1907.11692), XLM-RoBERTa (https://arxiv.org/abs/1911.02116) and CamemBERT."""

from __future__ import annotations

from octavo import nn
from octavo.models.bert import Bert


class Roberta(Bert):
    base_prefix = "roberta"

    @property
    def first_position(self) -> int:
        padding: int = self.config.get("pad_token_id", 1)
        return padding + 1  # fairseq numbers positions like this

    def classify(self, pooled: nn.Value) -> nn.Value:
        pooled = nn.tanh(nn.Linear("classifier.dense", bias=True)(pooled))
        return nn.Linear("classifier.out_proj", bias=True)(pooled)

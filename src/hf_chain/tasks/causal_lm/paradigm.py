"""Language models as a recipe knows them: any text, rows of tokens, nats a token on held-out text."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from hf_chain.cost.macs import decoder_macs
from hf_chain.data.text_settings import STORIES, TextSettings
from hf_chain.errors import HfChainError
from hf_chain.evaluation.settings import SplitSettings
from hf_chain.families import FAMILIES
from hf_chain.tasks.paradigm import DataSize
from hf_chain.tasks.stock import StockParadigm

if TYPE_CHECKING:
    from hf_chain.evaluation import Evaluation

TOKENIZER_SAMPLES = 20_000
"""Documents that a tokenizer is trained on."""


class LanguageEvaluationSettings(SplitSettings):
    """The `evaluation` section of a recipe for language models."""

    batch_size: int = Field(16, ge=1, description="Rows in one forward.")


class CausalLMParadigm(StockParadigm):
    """The next token is predicted from those before it."""

    data_settings = TextSettings
    evaluation_settings = LanguageEvaluationSettings
    primary_metrics = ("nats_per_token",)
    hub_task = "text-generation"
    card = "language_card.md.jinja"
    auto_class = "AutoModelForCausalLM"

    @classmethod
    def families(cls) -> frozenset[str]:
        """All decoders."""
        return frozenset(name for name, family in FAMILIES.items() if family.kind == "language")

    # Data

    def planned_size(self) -> DataSize:
        """Texts are read and cut into rows, unless the recipe says how many an epoch has."""
        data = self.recipe.data
        if data.samples_per_epoch is not None:
            return DataSize(data.samples_per_epoch, self.recipe.tokenizer.vocab_size)
        if data.streaming:
            raise HfChainError("data.streaming is true without data.samples_per_epoch: say how many rows an epoch has")
        splits = self.splits()
        tokenizer = self.new_processor(splits["train"])
        rows = len(self.train_set(splits["train"], tokenizer))
        evaluated = {name: splits[name] for name in self.recipe.evaluated_splits}
        return DataSize(rows, len(tokenizer), splits=self._evaluated(evaluated, tokenizer))

    def size(self, data: Any) -> DataSize:
        """Rows of every split."""
        splits = self._evaluated(data.evaluation, data.processor)
        return DataSize(data.samples_per_epoch, len(data.processor), splits=splits)

    def _evaluated(self, splits: Mapping[str, Any], tokenizer: Any) -> dict[str, tuple[int, int]]:
        most = self.recipe.evaluation.max_samples
        sizes = {name: len(self._rows(rows, tokenizer)) for name, rows in splits.items()}
        return {name: (min(size, most or size), 0) for name, size in sizes.items()}

    def splits(self, only: list[str] | None = None) -> dict[str, Any]:
        """Documents as `load_splits` gives them."""
        from hf_chain.data import load_splits

        return load_splits(self.recipe.data, self.recipe.seed, only=only)

    def fingerprint(self, rows: Any, split: str) -> Mapping[str, Any]:
        """Of all documents."""
        from hf_chain.data.fingerprint import fingerprint_texts

        return fingerprint_texts(rows, self.recipe.data, split)

    def usable(self, rows: Any, name: str, report_file: Path | None = None) -> Any:
        """All documents; of a stream that is evaluated they are read into memory."""
        from datasets import Dataset

        column = self.recipe.data.text_column
        return rows if isinstance(rows, Dataset) else Dataset.from_list([{column: row[column]} for row in rows])

    def usable_again(self, rows: Any, report_file: Path) -> Any:
        """The same."""
        return self.usable(rows, report_file.stem)

    def train_set(self, rows: Any, processor: Any, report_file: Path | None = None) -> Any:
        """`PackedTextDataset`, or `PackedTextStream`."""
        from hf_chain.data import PackedTextStream

        if self.recipe.data.streaming:
            return PackedTextStream(rows, self.recipe.data, processor)
        return self._rows(rows, processor, training=True)

    def _rows(self, rows: Any, tokenizer: Any, training: bool = False) -> Any:
        from hf_chain.data import PackedTextDataset

        return PackedTextDataset(rows, self.recipe.data, tokenizer, training)

    def collator(self, processor: Any) -> Any:
        """Stacks rows."""
        from hf_chain.data import collate_rows

        return collate_rows

    def new_processor(self, rows: Any) -> Any:
        """The tokenizer that the recipe names, or one that is trained on the documents."""
        from hf_chain.data import load_text_tokenizer

        named = self.recipe.tokenizer.name_or_path or self.recipe.published
        if named is not None:
            return load_text_tokenizer(named)
        return _trained(rows, self.recipe.data.text_column, self.recipe.tokenizer.vocab_size)

    def load_processor(self, folder: str | Path) -> Any:
        """A tokenizer."""
        from hf_chain.data import load_text_tokenizer

        return load_text_tokenizer(folder)

    def evaluation_options(self, evaluation: Mapping[str, Any]) -> dict[str, Any]:
        """Rows in a forward, and how many."""
        wanted = self.recipe.evaluation
        return {"batch_size": wanted.batch_size, "max_samples": wanted.max_samples}

    # Models and cost

    def decided(self, size: DataSize, data: Any = None) -> dict[str, Any]:
        """The vocabulary and its marks; a published predecessor's may be larger than its tokenizer."""
        words = size.vocab_size
        if self.recipe.published is not None:
            words = max(words, self.published_config(self.recipe.published).vocab_size)
        tokenizer = getattr(data, "processor", None)
        end, begin = getattr(tokenizer, "eos_token_id", 0), getattr(tokenizer, "bos_token_id", None)
        marks = {"eos_token_id": end, "bos_token_id": end if begin is None else begin}
        # Rows have no padding, and the embedding of a token that pads would learn nothing.
        return {"vocab_size": words, "pad_token_id": None, **marks}

    def forward_macs(self, config: Any) -> int:
        """Of a row of tokens."""
        return decoder_macs(config, self.recipe.data.row_tokens)

    def handing_macs(self, config: Any) -> int:
        """The head: a cache keeps what it reads."""
        return decoder_macs(config, self.recipe.data.row_tokens, layers=())

    def example(self, config: Any) -> dict[str, Any]:
        """One row, whose tokens are its labels."""
        import torch

        tokens = self.recipe.data.row_tokens
        row = torch.zeros(1, tokens, dtype=torch.long, device="meta")
        # Without a mask of its own a model looks into the tokens for one.
        mask = torch.zeros(1, 1, tokens, tokens, device="meta")
        return {"input_ids": row, "labels": row, "attention_mask": mask, "use_cache": False}

    # Evaluation and words

    def evaluate(self, model: Any, processor: Any, rows: Any, trained: bool = True, **options: Any) -> Evaluation:
        """Nats a token and bits a byte."""
        from hf_chain.evaluation import evaluate_language

        return evaluate_language(model, processor, self._rows(rows, processor), **options)

    @classmethod
    def card_values(cls, config: Any, data: Mapping[str, Any]) -> dict[str, Any]:
        """The length of its rows, and how texts begin."""
        rows = data.get("row_tokens", TextSettings.model_fields["row_tokens"].default)
        return {"row_tokens": rows, "rendered": data.get("source") == STORIES, "beginning": "Once upon a time"}


def _trained(rows: Any, column: str, vocab_size: int) -> Any:
    from hf_chain.data import train_text_tokenizer

    texts = islice(rows.select_columns([column]), TOKENIZER_SAMPLES)
    return train_text_tokenizer((row[column] for row in texts), vocab_size)

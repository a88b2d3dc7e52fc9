"""The conversations of a graft: loaded, checked, and cut into what trains, calibrates and evaluates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

from datasets import Dataset, IterableDataset, concatenate_datasets
from transformers.utils import logging

from hf_chain.data.chat.collator import ChatCollator, PackedRows
from hf_chain.data.chat.encoder import ChatEncoder
from hf_chain.data.chat.quality import check_chat
from hf_chain.data.chat.rows import FEATURES, plain_messages, without_images
from hf_chain.data.chat.settings import ChatDataSettings, ResponseReweighting
from hf_chain.data.chat.sources import ChatStream, fingerprint_chat, load_chat
from hf_chain.data.fingerprint import Fingerprint
from hf_chain.data.text import Row, TokenBatches, read_rows, token_batches
from hf_chain.errors import HfChainError
from hf_chain.methods.graft.lengths import shared_rows
from hf_chain.methods.graft.recipe import GraftRecipe, GraftStageSettings

logger = logging.get_logger(__name__)

Rows: TypeAlias = Dataset | IterableDataset


@dataclass
class Conversations:
    """All data of a grafting recipe, loaded when it is first asked for.

    Args:
        recipe (`GraftRecipe`): the recipe.
        main_process (`bool`): whether this process leaves reports of bad rows in `<run>/data`.
    """

    recipe: GraftRecipe
    main_process: bool = True

    @cached_property
    def _loaded(self) -> dict[str, dict[str, Rows]]:
        return {}

    def splits(self, name: str) -> dict[str, Rows]:
        """The splits of the data called `name`."""
        if name not in self._loaded:
            self._loaded[name] = load_chat(self.recipe.data[name], self.recipe.seed)
        return self._loaded[name]

    def collator(self, processor: Any, stage: GraftStageSettings | None = None) -> ChatCollator:
        """Makes the batches of a stage."""
        recipe, order = self.recipe, self.recipe.reweighting_order
        return ChatCollator(
            processor,
            max_length=recipe.max_length,
            special_tokens_in_loss=stage is None or stage.special_tokens_in_loss,
            image_prompts=recipe.image_prompts,
            reweighting=ResponseReweighting(order=order) if order is not None else None,
            packing=recipe.pack_tokens is not None,
            seed=recipe.seed,
        )

    def training_rows(
        self, names: Sequence[str], collator: ChatCollator, share: float = 1.0, skip: int = 0
    ) -> Dataset | PackedRows | ChatStream:
        """The checked training rows of all named data together, in packs where the collator packs, or a stream.

        Args:
            names (`Sequence[str]`): Names of the data.
            collator (`ChatCollator`): Makes batches of them.
            share (`float`): Keep a random subset of this share, which depends on the recipe's seed alone.
            skip (`int`): Leave out so many rows at the start of a stream.

        Raises:
            HfChainError: when too many rows are bad.
        """
        if self.stream_length(names) is not None:
            return ChatStream(
                self.splits(names[0])["train"].skip(skip),
                collator.encoder,
                max_bad_share=self.recipe.data[names[0]].max_bad_share,
                max_image_pixels=self.recipe.data[names[0]].max_image_pixels,
                report_file=self._report(names[0]),
            )
        rows = concatenate_datasets([self._checked(name, self.recipe.data[name], collator) for name in names])
        if share < 1:
            rows = rows.shuffle(seed=self.recipe.seed).select(range(shared_rows(len(rows), share)))
        most = self.recipe.pack_tokens
        return PackedRows(rows, most) if collator.packing and most is not None else rows

    def stream_length(self, names: Sequence[str]) -> int | None:
        """Rows of an epoch where the data are a stream, which does not know them; `None` where they are not."""
        settings = self.recipe.data[names[0]]
        return settings.max_train_samples if settings.streaming else None

    def sample(self, names: Sequence[str], count: int) -> Iterator[Any]:
        """The first `count` training rows of each of the named data, unchecked."""
        for name in names:
            yield from self.splits(name)["train"].select_columns(["messages"]).take(count)

    def prompts(self, names: Sequence[str], count: int, collator: ChatCollator) -> Dataset:
        """`count` training rows of each of the named data, images included, without bad ones: spread evenly over the
        data, as neighbours may be about one image, or the first ones of a stream.

        Raises:
            HfChainError: when too many rows are bad.
        """
        found = []
        for name in names:
            rows, settings = self.splits(name)["train"], self.recipe.data[name]
            if isinstance(rows, IterableDataset):
                rows = Dataset.from_list(list(rows.take(count)), features=FEATURES)
            rows = rows.select(range(0, len(rows), max(1, len(rows) // count))[:count])
            found.append(
                check_chat(
                    rows,
                    collator.encoder,
                    name=name,
                    max_bad_share=settings.max_bad_share,
                    max_image_pixels=settings.max_image_pixels,
                )
            )
        return concatenate_datasets(found)

    def evaluation_rows(self) -> dict[str, Dataset]:
        """Name, such as `validation` or `photos/test`, to rows that judged stages are asked.

        Raises:
            HfChainError: when a split is not there, or is a stream of which nobody says how much is asked.
        """
        wanted = self.recipe.evaluation
        rows: dict[str, Dataset] = {}
        for name, split in self._asked():
            splits = self.splits(name)
            if split not in splits:
                raise HfChainError(f"evaluation.splits has {split!r}; data.{name} has {', '.join(splits)}")
            found = splits[split]
            if isinstance(found, IterableDataset):
                if wanted.max_samples is None:
                    raise HfChainError(
                        f"data.{name} is a stream: say in evaluation.max_samples how much of it is asked"
                    )
                found = Dataset.from_list(list(found.take(wanted.max_samples)), features=FEATURES)
            rows[split if len(wanted.data) == 1 else f"{name}/{split}"] = found
        return rows

    def questions(self, processor: Any) -> dict[str, Dataset]:
        """The rows that judged stages are asked, without bad ones.

        Raises:
            HfChainError: when too many rows are bad.
        """
        encoder = ChatEncoder(processor, max_length=self.recipe.max_length)
        return {
            place: _up_to_responses(
                check_chat(
                    rows,
                    encoder,
                    name=f"{name} {split}",
                    max_bad_share=self.recipe.data[name].max_bad_share,
                    max_image_pixels=self.recipe.data[name].max_image_pixels,
                    report_file=self._report(f"{name}-{split}"),
                )
            )
            for (name, split), (place, rows) in zip(self._asked(), self.evaluation_rows().items(), strict=True)
        }

    def described(self, name: str, collator: ChatCollator) -> Dataset:
        """The validation rows that a new target is asked, without bad ones.

        Raises:
            HfChainError: when too many rows are bad.
        """
        return check_chat(
            self.splits(name)["validation"],
            collator.encoder,
            name=f"{name} validation",
            max_bad_share=self.recipe.data[name].max_bad_share,
            max_image_pixels=self.recipe.data[name].max_image_pixels,
            report_file=self._report(f"{name}-validation"),
        )

    def fingerprints(self) -> dict[str, Fingerprint]:
        """Name, such as `photos/train`, to what the data hold that train or judge a stage, bad rows included.

        Raises:
            HfChainError: when a split cannot be read.
        """
        recipe = self.recipe
        described = recipe.target.new.data[:1] if recipe.target.new is not None else []
        used = {*self._asked(), *((name, "validation") for name in described)}
        return {
            f"{name}/{split}": fingerprint_chat(rows, recipe.data[name], split)
            for name in recipe.data
            for split, rows in self.splits(name).items()
            if split == "train" or (name, split) in used
        }

    def _asked(self) -> list[tuple[str, str]]:
        wanted = self.recipe.evaluation
        return [(name, split) for name in wanted.data for split in wanted.splits]

    def calibration(self, tokenizer: Any, samples: int, *, skip: int = 0) -> TokenBatches:
        """Batches of conversations, without their images, for the trajectory and the translator.

        Args:
            tokenizer (`PreTrainedTokenizerBase`): the target's.
            samples (`int`): conversations.
            skip (`int`): conversations to leave out at the start.
        """
        settings = self.recipe.surrogate.calibration
        name = settings.data or next(iter(self.recipe.data))
        rows = self.splits(name)["train"].select_columns(["messages"])
        found = token_batches(
            TextAlone(rows.skip(skip), f"data.{name}"),
            tokenizer,
            batch_size=settings.batch_size,
            max_tokens=self.recipe.max_length or 2048,
            max_samples=samples,
            responses_only=settings.responses_only,
        )
        return replace(found, name=f"data.{name}")

    def _checked(self, name: str, settings: ChatDataSettings, collator: ChatCollator) -> Dataset:
        return check_chat(
            self.splits(name)["train"],
            collator.encoder,
            name=name,
            max_bad_share=settings.max_bad_share,
            max_image_pixels=settings.max_image_pixels,
            report_file=self._report(name),
        )

    def _report(self, name: str) -> Any:
        return self.recipe.run_dir / "data" / f"{name}-bad-rows.json" if self.main_process else None


def _up_to_responses(rows: Dataset) -> Dataset:
    """The conversations without questions that nobody answered, as training has them too."""
    ends = [max(n for n, one in enumerate(talk) if one["role"] == "assistant") + 1 for talk in rows["messages"]]
    if all(end == len(talk) for end, talk in zip(ends, rows["messages"], strict=True)):
        return rows
    return rows.map(lambda row, number: {"messages": row["messages"][: ends[number]]}, with_indices=True)


CONVERSATIONS = ("messages", "conversations")
"""Columns that hold one."""


@dataclass(frozen=True)
class TextAlone:
    """Rows as `token_batches` takes them, with image placeholders left out of conversations.

    What is said about an image is text like any other, and enough of it to see how a language model predicts.

    Args:
        rows (`Iterable`): texts, or mappings with a column `text`, `messages` or LLaVA's `conversations`. Can be gone
            through again where they can.
        name (`str`): what they are called in an error.
    """

    rows: Iterable[Row]
    name: str

    def __iter__(self) -> Iterator[Row]:
        return map(_text_alone, read_rows(self.rows, self.name))


def _text_alone(row: Row) -> Row:
    if isinstance(row, str):
        return row
    column = next((name for name in CONVERSATIONS if name in row), None)
    return row if column is None else {"messages": without_images(plain_messages(row[column]))}

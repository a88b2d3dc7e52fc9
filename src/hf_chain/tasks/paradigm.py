"""What the recipe of a chain asks of its task: data, models, cost, evaluation and words.

Importing a paradigm starts no torch, so that plans are quick: what needs it is imported where it is called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hf_chain.cost import MemberCost, MemoryEstimate
from hf_chain.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from hf_chain.evaluation import Evaluation


EVALUATIONS = 2
"""A member is evaluated as it enters training and as it leaves it."""


@dataclass(frozen=True)
class DataSize:
    """What the data of a family are to its cost.

    Args:
        samples_per_epoch (`int`): training samples an epoch: images, or rows of tokens.
        vocab_size (`int`): size of the tokenizer, where there is one.
        classes (`int`): number of classes, where samples have one.
        splits (`Mapping[str, tuple[int, int]]`): split that a member is evaluated on to its samples, and to captions
            and class prompts beside them.
        distinct_captions (`int`, *optional*): different captions of the training images, where they are counted.
    """

    samples_per_epoch: int
    vocab_size: int = 0
    classes: int = 0
    splits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    distinct_captions: int | None = None

    @property
    def evaluated(self) -> int:
        """Samples that a member is evaluated on."""
        return sum(samples for samples, _ in self.splits.values())

    @property
    def evaluated_texts(self) -> int:
        """Captions and class prompts that it is, beside them."""
        return sum(texts for _, texts in self.splits.values())

    def only(self, split: str, most: int | None = None) -> DataSize:
        """With one split alone, of which at most so many samples are taken; all texts count."""
        samples, texts = self.splits.get(split, (0, 0))
        return replace(self, splits={split: (min(samples, most or samples), texts)})


class Paradigm(ABC):
    """A pre-training paradigm as a recipe knows it; its `Task` is what a trainer knows.

    Args:
        recipe (`ChainRecipe`): the recipe of a chain.
    """

    data_settings: ClassVar[type[Settings]]
    """The `data` section of its recipes."""
    evaluation_settings: ClassVar[type[Settings]]
    """Their `evaluation` section."""
    primary_metrics: ClassVar[tuple[str, ...]]
    """What a member is summed up by: the first of these that was measured."""
    hub_task: ClassVar[str]
    """The Hub's name of the task, for the cards of members."""
    mask_is_drawn: ClassVar[bool] = False
    """Whether the teacher sees something else of a sample at every step, so that its features cannot be cached."""
    card: ClassVar[str]
    """Template of those cards, in `methods/chain/templates`."""

    @classmethod
    @abstractmethod
    def families(cls) -> frozenset[str]:
        """The `model_type` of every architecture that it trains."""

    @classmethod
    def of(cls, family: str) -> type[Paradigm]:
        """The paradigm of one of them, where that has its own."""
        return cls

    def __init__(self, recipe: Any) -> None:
        self.recipe = recipe

    # Data

    @abstractmethod
    def planned_size(self) -> DataSize:
        """What settings and splits say of the data, before they are read whole.

        Raises:
            HfChainError: when nobody can know, as of a stream.
        """

    @abstractmethod
    def size(self, data: Any) -> DataSize:
        """What the data of a run are: everything that members see is counted.

        Args:
            data (`FamilyData`): the data.
        """

    @abstractmethod
    def splits(self, only: list[str] | None = None) -> dict[str, Any]:
        """Name to rows of `train`, `validation` and the test splits, as they are stored.

        Raises:
            HfChainError: when one cannot be loaded.
        """

    @abstractmethod
    def fingerprint(self, rows: Any, split: str) -> Mapping[str, Any]:
        """What a split holds, so that a run goes on with the data it began with."""

    def usable(self, rows: Any, name: str, report_file: Path | None = None) -> Any:
        """The rows that can be used, after a look at all of them; the others are reported in a file.

        Raises:
            HfChainError: when too many cannot.
        """
        return rows

    def usable_again(self, rows: Any, report_file: Path) -> Any:
        """The same, as another process has left them in that file."""
        return rows

    @abstractmethod
    def train_set(self, rows: Any, processor: Any, report_file: Path | None = None) -> Any:
        """The training data: a data set or a stream with `set_epoch`; bad rows met later are reported."""

    @abstractmethod
    def collator(self, processor: Any) -> Any:
        """What makes batches."""

    @abstractmethod
    def new_processor(self, rows: Any) -> Any:
        """Tokenizer, image processor or both, as saved with every member; one may be trained on `rows`.

        Raises:
            HfChainError: when it cannot be loaded or trained.
        """

    def load_processor(self, folder: str | Path) -> Any:
        """The processor in a folder."""
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(folder)

    def check_processor(self) -> None:
        """Checks what the recipe says of the processor, before data are read.

        Raises:
            HfChainError: when its tokenizer cannot be loaded, or does not suit the predecessor.
        """
        return

    def look_at(self, train: Any, processor: Any) -> None:
        """Warns of data that will teach little, before a training begins."""
        return

    @abstractmethod
    def evaluation_options(self, evaluation: Mapping[str, Any]) -> dict[str, Any]:
        """What `evaluate` needs beside model and rows, such as columns and names of classes."""

    # Models

    @abstractmethod
    def planned_config(self, member: Any, size: DataSize) -> Any:
        """The configuration of a member as far as cost and growth read it, before there is a processor."""

    @abstractmethod
    def checked_config(self, member: Any) -> PreTrainedConfig:
        """The same, of the class that a model is built from."""

    @abstractmethod
    def config(self, member: Any, data: Any) -> PreTrainedConfig:
        """The configuration of a member, for the data of the run (`FamilyData`)."""

    @abstractmethod
    def published_config(self, name: str) -> PreTrainedConfig:
        """The configuration of a published model, from which the first member grows.

        Raises:
            HfChainError: when there is none, or it is no model of this family.
        """

    def check_predecessor(self, name: str, published: PreTrainedConfig, config: PreTrainedConfig) -> None:
        """Refuses a published model that cannot hand on what the recipe asks of it.

        Args:
            name (`str`): the model.
            published (`PreTrainedConfig`): its configuration.
            config (`PreTrainedConfig`): that of the first member.
        """
        return

    @abstractmethod
    def new(self, config: PreTrainedConfig) -> PreTrainedModel:
        """A model with random weights."""

    @abstractmethod
    def load(self, name: str, config: PreTrainedConfig) -> PreTrainedModel:
        """A model in float32, with all its weights; special tokens have to be those of `config`.

        Raises:
            HfChainError: when it cannot be loaded, or its weights are not those of its configuration or not finite.
        """

    @abstractmethod
    def load_with_processor(self, name: str) -> tuple[PreTrainedModel, Any]:
        """A model, and the processor that stands beside it.

        Raises:
            HfChainError: when one of them cannot be loaded.
        """

    def wrap(self, model: PreTrainedModel, teacher: PreTrainedModel | None) -> PreTrainedModel:
        """What is trained, made before an engine starts: the model, with what maps its features to the teacher's."""
        return model

    def leftovers(self) -> Iterator[str]:
        """Files of a training beside the stock model's, which a finished member does not keep."""
        yield "training_args.bin"

    # Cost

    @abstractmethod
    def counts(self, config: Any) -> tuple[int, int]:
        """Parameters of a model, and forward MACs of a training sample with all its tokens."""

    @abstractmethod
    def member_cost(
        self, member: Any, config: Any, teacher: Any, size: DataSize, training: Mapping[str, Any], batch_size: int
    ) -> MemberCost:
        """What a member costs in the chain.

        Args:
            member (`MemberSettings`): the member.
            config: its configuration, as `planned_config` gives it.
            teacher (*optional*): that of its teacher.
            size (`DataSize`): the data.
            training (`Mapping`): fields of `ChainConfig`.
            batch_size (`int`): samples of the global batch.
        """

    @abstractmethod
    def evaluation_macs(self, config: Any, size: DataSize) -> int:
        """MACs of one evaluation.

        Args:
            config: of the member, as `planned_config` gives it.
            size (`DataSize`): what it is evaluated on.
        """

    @abstractmethod
    def memory(self, config: Any, teacher: Any, training: Mapping[str, Any]) -> MemoryEstimate:
        """What one device needs to train a member.

        Args:
            config: its configuration, as `planned_config` gives it.
            teacher (*optional*): that of its live teacher.
            training (`Mapping`): fields of `ChainConfig`.
        """

    def check_batch(self, where: str, batch: int) -> None:
        """Refuses a global batch that the loss says nothing about."""
        return

    # Evaluation and words

    @abstractmethod
    def evaluate(self, model: PreTrainedModel, processor: Any, rows: Any, **options: Any) -> Evaluation:
        """Evaluates a model on one split.

        Args:
            model (`PreTrainedModel`): the model.
            processor: saved with it.
            rows: the split.
            options: `evaluation_options`, `bf16`, and whether the model is `trained`.
        """

    @abstractmethod
    def shape(self, member: Any, config: Any) -> dict[str, str]:
        """Name of each tower of a member to its width × layers."""

    @classmethod
    @abstractmethod
    def card_values(cls, config: PreTrainedConfig, data: Mapping[str, Any]) -> dict[str, Any]:
        """What the card's template needs beside what all cards need.

        Args:
            config (`PreTrainedConfig`): of the member.
            data (`Mapping`): the recipe's `data` section.
        """

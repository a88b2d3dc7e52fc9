"""What is called from Python: the trainers, growth, and the parts of a model, given what does not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cases import BASE, Case

WORDS = ["a red circle", "two blue squares", "a green star", "three grey lines"]


def cases() -> Iterator[Case]:
    """All of this table."""
    for name, expects, words, work in CALLS:
        yield Case("Python", name, expects, words, ("python",), lambda folder, work=work: lambda: work(folder))


def _clip(folder: Path, name: str = "clip") -> tuple[Any, Any]:
    from transformers import AutoProcessor, CLIPModel

    place = folder / BASE / name
    return CLIPModel.from_pretrained(place), AutoProcessor.from_pretrained(place)


def _trainer(folder: Path, rows: int = 8, teacher: Any = None, model: Any = None, **options: Any) -> Any:
    from datasets import Dataset
    from PIL import Image

    from hf_chain import ChainCLIPModel, ChainConfig, ChainTrainer
    from hf_chain.data import DataSettings, ImageTextCollator, ImageTextDataset

    own, processor = _clip(folder)
    pictures = [Image.new("RGB", (20, 16), (30 * number, 90, 30)) for number in range(rows)]
    table = Dataset.from_dict({"image": pictures, "text": [WORDS[number % 4] for number in range(rows)]})
    dataset = ImageTextDataset(table, DataSettings(source="x", caption_column="text"), seed=0)
    given = {"output_dir": str(folder / "out"), "per_device_train_batch_size": 8, "use_cpu": True, "report_to": "none"}
    extra = {name: options.pop(name) for name in ("model_init", "eval_dataset") if name in options}
    if extra.get("eval_dataset") == "own":
        extra["eval_dataset"] = dataset
    if "model_init" not in extra:
        model = ChainCLIPModel.from_clip(model or own, teacher.config.projection_dim if teacher is not None else None)
    args = ChainConfig(**{"num_train_epochs": 1, "disable_tqdm": True, **given, **options})
    return ChainTrainer(
        model, args, teacher, train_dataset=dataset, data_collator=ImageTextCollator(processor), **extra
    )


def _fewer_rows_than_a_batch(folder: Path) -> None:
    _trainer(folder, rows=5).train()


def _a_batch_of_one(folder: Path) -> None:
    _trainer(folder, per_device_train_batch_size=1).train()


def _model_init(folder: Path) -> None:
    _trainer(folder, model_init=lambda: None)


def _smaller_vocabulary(folder: Path) -> None:
    import copy

    from transformers import CLIPModel

    config = copy.deepcopy(_clip(folder)[0].config)
    config.text_config.vocab_size //= 2
    _trainer(folder, teacher=CLIPModel(config)).train()


def _teacher_of_nan(folder: Path) -> None:
    import torch

    teacher = _clip(folder)[0]
    with torch.no_grad():
        teacher.text_projection.weight[0, 0] = torch.nan
    _trainer(folder, teacher=teacher).train()


def _student_of_nan(folder: Path) -> None:
    import torch

    model = _clip(folder)[0]
    with torch.no_grad():
        model.visual_projection.weight[0, 0] = torch.nan
    trainer = _trainer(folder, model=model)
    trainer.train()
    trainer.save_model(str(folder / "saved"))


def _half_precision(folder: Path) -> None:
    import torch

    model = _clip(folder)[0].half()
    trainer = _trainer(folder, model=model)
    trainer.train()
    kinds = {weight.dtype for weight in trainer.model.parameters()}
    assert kinds == {torch.float32}, kinds


def _last_batch_of_evaluation(folder: Path) -> None:
    trainer = _trainer(folder, rows=11, eval_dataset="own", per_device_eval_batch_size=4)
    assert sum(len(batch["pixel_values"]) for batch in trainer.get_eval_dataloader()) == 11
    assert trainer.evaluate()["eval_loss"] > 0


def _grow(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def work(folder: Path) -> None:
        import copy

        from hf_chain import grow

        model = _clip(folder)[0]
        config = copy.deepcopy(model.config)
        config.vision_config.num_hidden_layers += 1
        grow(model, change(config) or config) if change is not _spoil else grow(_spoil(model), config)

    return work


def _spoil(model: Any) -> Any:
    import torch

    with torch.no_grad():
        next(model.parameters()).fill_(torch.inf)
    return model


def _range_of_layers(folder: Path) -> None:
    from hf_chain import build_surrogate

    surrogate = build_surrogate(str(folder / BASE / "target"), replaced=range(2, 5))
    named = build_surrogate(str(folder / BASE / "target"), replaced="2-4")
    assert surrogate.config.num_hidden_layers == named.config.num_hidden_layers


def _backward_range(folder: Path) -> None:
    from hf_chain import build_surrogate

    build_surrogate(str(folder / BASE / "target"), replaced=range(5, 2))


def _range_with_steps(folder: Path) -> None:
    from hf_chain import build_surrogate

    build_surrogate(str(folder / BASE / "target"), replaced=range(1, 6, 2))


def _from_parts(change: Callable[[Any, Any], Any]) -> Callable[[Path], None]:
    def work(folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from hf_chain.models.grafted_vlm import from_parts
        from support.grafted_parts import image_processor, tiny_tower

        target = AutoModelForCausalLM.from_pretrained(folder / BASE / "target")
        tokenizer = AutoTokenizer.from_pretrained(folder / BASE / "target")
        target = change(target, tokenizer) or target
        from_parts(tiny_tower(), target, tokenizer, image_processor())

    return work


def _many_tokens(target: Any, tokenizer: Any) -> None:
    tokenizer.add_tokens([f"new{number}" for number in range(300)])


def _with_lora(target: Any, tokenizer: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    return get_peft_model(target, LoraConfig(r=2, target_modules=["q_proj"]))


def _with_injected_lora(target: Any, tokenizer: Any) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(LoraConfig(r=2, target_modules=["q_proj"]), target)


def _with_nan(target: Any, tokenizer: Any) -> None:
    _spoil(target)


def _questions(folder: Path, count: int) -> list[list[dict[str, Any]]]:
    from PIL import Image

    asked = ("what is it?", "is there a large red circle to the left of two small blue squares, or is there none?")
    return [
        [
            {
                "role": "user",
                "content": [
                    {"type": "image", "image": Image.new("RGB", (20, 16), "red")},
                    {"type": "text", "text": text},
                ],
            }
        ]
        for text in asked[:count]
    ]


def _a_batch_answers_as_one_by_one(folder: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

    import hf_chain  # noqa: F401

    model = AutoModelForImageTextToText.from_pretrained(folder / BASE / "grafted")
    processor = AutoProcessor.from_pretrained(folder / BASE / "grafted")
    assert processor.tokenizer.padding_side == "left", processor.tokenizer.padding_side
    ask = pipeline("image-text-to-text", model=model, processor=processor)
    options = {"max_new_tokens": 8, "do_sample": False, "return_full_text": False}
    options |= {"processor_kwargs": {"add_special_tokens": False}}
    questions = _questions(folder, 2)
    alone = [ask(text=question, **options)[0]["generated_text"] for question in questions]
    together = [answer[0]["generated_text"] for answer in ask(text=questions, batch_size=2, **options)]
    assert together == alone, (together, alone)


CALLS: list[tuple[str, str, str, Callable[[Path], Any]]] = [
    ("ChainTrainer, fewer rows than a batch", "refused", "5|batch", _fewer_rows_than_a_batch),
    ("ChainTrainer, a batch of one", "refused", "batch", _a_batch_of_one),
    ("ChainTrainer, model_init", "refused", "model_init", _model_init),
    ("ChainTrainer, a teacher of half the vocabulary", "refused", "vocab", _smaller_vocabulary),
    ("ChainTrainer, a teacher with NaN", "refused", "nan|finite", _teacher_of_nan),
    ("ChainTrainer, a model with NaN", "refused", "nan|finite", _student_of_nan),
    ("ChainTrainer, half precision", "right", "", _half_precision),
    ("ChainTrainer, the last batch of an evaluation", "right", "", _last_batch_of_evaluation),
    ("grow, infinite weights", "refused", "inf|finite", _grow(_spoil)),
    ("grow, a smaller width", "refused", "16|smaller", _grow(lambda c: setattr(c.text_config, "hidden_size", 16))),
    ("grow, a smaller vocabulary", "refused", "vocab", _grow(lambda c: setattr(c.text_config, "vocab_size", 9))),
    ("build_surrogate, a range", "right", "", _range_of_layers),
    ("build_surrogate, a range backwards", "refused", "layers?|range", _backward_range),
    ("build_surrogate, a range with steps", "refused/right", "layers?|range|step", _range_with_steps),
    ("from_parts, tokens without an embedding", "refused", "token|embedding|vocab", _from_parts(_many_tokens)),
    ("from_parts, a target in PEFT", "refused", "peft|lora|adapter", _from_parts(_with_lora)),
    ("from_parts, a target with LoRA in it", "refused", "lora|adapter", _from_parts(_with_injected_lora)),
    ("from_parts, a target of infinite weights", "refused", "inf|finite", _from_parts(_with_nan)),
    ("pipeline, two questions together", "right", "", _a_batch_answers_as_one_by_one),
]

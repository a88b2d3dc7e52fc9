"""Recipes: wrong types at every place, values that nothing can be made of, and files that are no recipe."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from cases import Case, chain_recipe, graft_recipe
from support.changes import GONE

_WRONG: list[tuple[type, list[Any]]] = [
    (bool, ["perhaps", 7]),
    (int, ["many", True, 1.5]),
    (float, ["much", True]),
    (str, [[1], 5]),
    (list, [{"a": 1}, 3]),
    (dict, ["text", [1]]),
]
"""Values of other types than that of the field."""


def cases() -> Iterator[Case]:
    """All of this table."""
    yield from _wrong_types()
    for name, changes, words in CHAIN:
        yield Case("recipes", name, "refused", words, write=chain_recipe(changes))
    for name, changes, words in GRAFT:
        yield Case("recipes", f"graft, {name}", "refused", words, write=graft_recipe(changes))
    long = {"hub": {"push": True, "prefix": "tester/" + "x" * 93}}
    yield Case("recipes", "a repository name too long", "refused", "prefix|96", write=chain_recipe(long), faults=())
    for name, content, words in FILES:
        yield Case("recipes", f"file, {name}", "refused", words, ("plan", "recipe.yaml"), _writes(content))
    for name, content in READ:
        yield Case("recipes", f"file, {name}", "right", "", ("plan", "recipe.yaml"), _rewrites(content))


def _wrong_types() -> Iterator[Case]:
    """One wrong value for each field of both recipes, by what the schema says of it."""
    from hf_chain.methods.chain.recipe import Recipe
    from hf_chain.methods.graft.recipe import GraftRecipe

    lists = {"members": "members.0", "stages": "stages.0", "baseline": "stages.0"}
    for recipe, write, kind in ((Recipe, chain_recipe, ""), (GraftRecipe, graft_recipe, "graft, ")):
        for number, (place, annotation) in enumerate(_places(recipe, lists)):
            value = _wrong_value(annotation, number)
            field = place.rpartition(".")[2]
            if value is not GONE:
                name = f"{kind}{place} is {value!r}"
                yield Case("recipes", name, "refused", field, ("plan", "recipe.yaml"), write({place: value}))


def _places(schema: Any, lists: dict[str, str], prefix: str = "", seen: tuple[Any, ...] = ()) -> Iterator[Any]:
    from hf_chain.settings import Settings

    for name, field in schema.model_fields.items():
        inner = [kind for kind in _kinds(field.annotation) if isinstance(kind, type) and issubclass(kind, Settings)]
        if not inner:
            yield f"{prefix}{name}", field.annotation
        elif (
            inner[0] not in seen
            and f"{prefix}{name}" != "data.images.images"
            and not (prefix == "" and name == "baseline")
        ):
            place = "data.images" if prefix == "" and get_origin(field.annotation) is dict else lists.get(name, name)
            yield from _places(inner[0], {}, f"{prefix}{place}.", (*seen, inner[0]))


def _kinds(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated, list, dict):
        return [kind for part in get_args(annotation) for kind in _kinds(part)]
    return [annotation]


def _wrong_value(annotation: Any, number: int) -> Any:
    parts = get_args(annotation) if get_origin(annotation) in (typing.Union, types.UnionType) else (annotation,)
    origins = [get_origin(part) or part for part in parts]
    if any(origin in (typing.Literal, Any) for origin in origins):
        return "nothing known" if typing.Literal in origins and len(parts) == 1 else GONE
    for kind, wrong in _WRONG:
        if origins[0] is kind:
            fits = {str if other is str else other for other in origins[1:]}
            left = [value for value in wrong if type(value) not in fits]
            return left[number % len(left)] if left else GONE
    return GONE


CHAIN: list[tuple[str, dict[str, Any], str]] = [
    ("a seed that numpy does not take", {"seed": 2**32}, "seed"),
    ("a seed of many digits", {"seed": 10**30}, "seed"),
    ("true for a seed", {"seed": True}, "seed"),
    ("a run name longer than a file name", {"name": "x" * 300}, "name"),
    ("a member name longer than a file name", {"members.0.name": "y" * 300}, "name"),
    ("a member name that climbs", {"members.0.name": "..", "name": "ok"}, "name"),
    ("a NUL in the output folder", {"output_dir": "runs\0x"}, "output_dir|NUL"),
    ("a file as output folder", {"output_dir": "recipe.yaml"}, "recipe.yaml"),
    (
        "images of a hundred thousand pixels",
        {"model.image_size": 100_000, "model.patch_size": 50_000},
        "image_size|disk|memory",
    ),
    ("images of no pixels", {"model.image_size": 0}, "image_size"),
    ("negative patches", {"model.patch_size": -16}, "patch_size"),
    ("a tower without layers", {"members.0.vision.num_hidden_layers": 0}, "num_hidden_layers"),
    ("a text tower without width", {"members.1.text.hidden_size": 0}, "hidden_size"),
    ("a width of ten million", {"members.1.vision.hidden_size": 10_000_000}, "hidden_size|memory|disk|needs"),
    ("a tokenizer of two entries", {"tokenizer.vocab_size": 2}, "vocab_size"),
    ("an embedding of nothing", {"model.projection_dim": 0}, "projection_dim"),
    ("a share above one", {"data.max_bad_share": 2}, "max_bad_share"),
    ("a negative share", {"data.max_bad_share": -0.1}, "max_bad_share"),
    ("no caption of an image", {"data.captions_per_image": 0}, "captions_per_image"),
    ("no sample to evaluate", {"evaluation.max_samples": 0}, "max_samples"),
    ("an evaluation batch of none", {"evaluation.batch_size": -1}, "batch_size"),
    ("a split twice with another name", {"evaluation.splits": ["validation", "exam"]}, "exam"),
    ("scenes of a pixel", {"data.scenes.image_size": 1}, "image_size"),
    ("no scenes", {"data.scenes.train": 0}, "train"),
    ("more scenes than a disk holds", {"data.scenes.train": 10**12}, "train|scenes|memory|disk"),
    ("a crop of nothing", {"data.augmentation": {"crop_scale": [0, 0]}}, "crop_scale"),
    ("a crop with three ends", {"data.augmentation": {"crop_scale": [0.1, 0.2, 0.3]}}, "crop_scale"),
    ("a template with two places", {"data.prompt_templates": ["a {} of {}"]}, "template"),
    ("a template with a name in it", {"data.prompt_templates": ["a {thing}"]}, "template"),
    ("a template without end", {"data.prompt_templates": ["a {"]}, "template"),
    ("no templates", {"data.prompt_templates": []}, "template"),
    ("epochs that are no number", {"members.1.epochs": float("nan")}, "epochs"),
    ("a global batch of one", {"training.per_device_train_batch_size": 1}, "per_device_train_batch_size|batch"),
    ("a batch larger than the data", {"training.per_device_train_batch_size": 64}, "batch.* 64 .* 16"),
    ("a batch too large for the last member", {"members.1.training": {"per_device_train_batch_size": 64}}, "small"),
    ("no time to push", {"hub": {"push": True, "prefix": "tester/x", "timeout": 0}}, "timeout"),
    ("a prefix without user", {"hub": {"push": True, "prefix": "scenes"}}, "prefix"),
    ("a prefix of two slashes", {"hub": {"push": True, "prefix": "a/b/c"}}, "prefix"),
    ("a licence that is a sentence", {"hub": {"license": "do what you want"}}, "license"),
    ("a data set name with spaces", {"hub": {"dataset": "my data"}}, "dataset"),
    ("tags that are a number", {"hub": {"tags": 5}}, "tags"),
    ("a predecessor that is not there", {"predecessor": "./nowhere"}, "nowhere"),
    ("a tokenizer that is not there", {"tokenizer.name_or_path": "./nowhere"}, "nowhere"),
    ("an operator of another case", {"operator": "Exact"}, "operator"),
    ("an attention kernel nobody has", {"model.attn_implementation": "flash_attention_9"}, "attn_implementation"),
    ("an activation that is a number", {"model.hidden_act": 3}, "hidden_act"),
    ("members as a mapping", {"members": {"tiny": {}}}, "members"),
    ("a member that is a text", {"members.0": "tiny"}, "members"),
    ("data as a text", {"data": "scenes"}, "data"),
    ("a stage of a graft in a chain", {"members.0.parts": {"adapter": 1e-3}}, "parts"),
    ("no data", {"data": GONE}, "data"),
    ("no name", {"name": GONE}, "name"),
]

GRAFT: list[tuple[str, dict[str, Any], str]] = [
    ("a part twice the model", {"stages.0.parts": {"adaptor": 1e-3}}, "adaptor"),
    ("a part with a negative rate", {"stages.0.parts": {"adapter": -1}}, "adapter"),
    ("a part with a rate of NaN", {"stages.0.parts": {"adapter": float("nan")}}, "adapter"),
    ("a part with a rate of true", {"stages.0.parts": {"adapter": True}}, "adapter"),
    ("the last zero layers", {"stages.0.parts": {"encoder.last:0": 1e-3}}, "encoder.last:0"),
    ("more layers than there are", {"stages.0.parts": {"decoder.last:99": 1e-3}}, "decoder.last:99"),
    ("LoRA of rank zero", {"stages.0.parts": {"lora": 1e-3}, "training.lora": {"r": 0}}, "lora|r "),
    (
        "LoRA on layers nobody has",
        {"stages.0.parts": {"lora": 1e-3}, "training.lora": {"target_modules": ["qq"]}},
        "qq",
    ),
    ("a field LoRA does not have", {"stages.0.parts": {"lora": 1e-3}, "training.lora": {"rank": 4}}, "rank"),
    ("LoRA that no stage trains", {"training.lora": {"r": 4}}, "lora"),
    ("a stage named target", {"stages.0.name": "target"}, "target"),
    ("a stage named twice", {"baseline": [{"name": "join", "decoder": "target", "parts": {"adapter": 1e-3}}]}, "join"),
    ("a share of nothing", {"stages.0.share": 0}, "share"),
    ("a share of two", {"stages.0.share": 2}, "share"),
    ("no stages", {"stages": []}, "stages"),
    ("data of another name", {"stages.0.data": ["pictures"]}, "pictures"),
    ("a decoder nobody knows", {"stages.0.decoder": "both"}, "decoder"),
    ("a target and a new target", {"target.new": {"hidden_size": 32}}, "target"),
    ("no target", {"target": {}}, "target"),
    ("an encoder and a chain", {"encoder.chain": "chain.yaml"}, "encoder"),
    ("a chain that is not there", {"encoder": {"chain": "nowhere.yaml"}}, "nowhere.yaml"),
    ("a chain that is this recipe", {"encoder": {"chain": "recipe.yaml"}}, "recipe.yaml"),
    ("a target that is not there", {"target.name_or_path": "./nowhere"}, "nowhere"),
    ("an encoder that is not there", {"encoder.name_or_path": "./nowhere"}, "nowhere"),
    ("layers beyond the last", {"stages.0.decoder": "surrogate", "surrogate.replaced": "2-99"}, "99"),
    ("layers backwards", {"stages.0.decoder": "surrogate", "surrogate.replaced": "4-2"}, "4-2"),
    ("every layer", {"stages.0.decoder": "surrogate", "surrogate.replaced": "0-5"}, "0-5|layers?"),
    ("a translator nobody knows", {"surrogate.translator": ["magic"]}, "magic"),
    ("a budget in euros", {"surrogate.budget": "euros=5"}, "budget|euros"),
    ("calibration on no sample", {"surrogate.calibration": {"samples": 0}}, "samples"),
    ("a length of no token", {"max_length": 0}, "max_length"),
    ("packs without a length", {"pack_tokens": 128}, "max_length|pack"),
    ("no new token", {"evaluation.max_new_tokens": 0}, "max_new_tokens"),
    ("a batch of true", {"training.per_device_train_batch_size": True}, "per_device_train_batch_size"),
    ("conversations without a file", {"data.images": {"source": "talks.json"}}, "talks.json"),
    ("scenes with captions beside them", {"data.images.images": {"caption_column": "text"}}, "images"),
    ("classes without labels", {"data.images": {"source": "labelled-images"}}, "label_column|images"),
]

_DEEP = "a: " + "[" * 3000 + "]" * 3000
_LAUGHS = "\n".join(
    ["a: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"b{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
)
FILES: list[tuple[str, bytes, str]] = [
    ("nothing in it", b"", "recipe.yaml"),
    ("a comment alone", b"# to do\n", "recipe.yaml"),
    ("a list", b"- name: x\n", "recipe.yaml"),
    ("a number", b"3\n", "recipe.yaml"),
    ("a tab", b"name: x\n\tseed: 1\n", "recipe.yaml"),
    ("a key twice", b"name: x\nseed: 1\nseed: 2\n", "seed"),
    ("brackets that stay open", b"members: [\n", "recipe.yaml"),
    ("code in it", b"name: !!python/object/apply:os.system ['touch owned']\n", "recipe.yaml"),
    ("bytes of a picture", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "recipe.yaml"),
    ("text in Latin-1", "name: caf\xe9\n".encode("latin-1"), "recipe.yaml"),
    ("NUL bytes", b"name: x\0y\n", "recipe.yaml"),
    ("three thousand brackets", _DEEP.encode(), "recipe.yaml"),
    ("a billion laughs", _LAUGHS.encode(), "recipe.yaml"),
    ("an alias of nothing", b"name: *other\n", "recipe.yaml"),
    ("an alias of itself", b"name: x\ndata: &d\n  scenes: *d\n", "recipe.yaml|data"),
    ("two documents", b"name: x\n---\nname: y\n", "recipe.yaml"),
    ("keys that are numbers", b"1: x\n2: y\n", "recipe.yaml"),
    ("JSON cut short", b'{"name": "x", "data": {', "recipe.yaml"),
]
READ: list[tuple[str, typing.Callable[[bytes], bytes]]] = [
    ("with a byte order mark", lambda text: b"\xef\xbb\xbf" + text),
    ("with the ends of lines of Windows", lambda text: text.replace(b"\n", b"\r\n")),
    ("with rates such as 1e-3", lambda text: text.replace(b"0.001", b"1e-3")),
]


def _writes(content: bytes) -> typing.Callable[[Path], None]:
    return lambda folder: typing.cast(None, (folder / "recipe.yaml").write_bytes(content))


def _rewrites(change: typing.Callable[[bytes], bytes]) -> typing.Callable[[Path], None]:
    def write(folder: Path) -> None:
        chain_recipe({})(folder)
        path = folder / "recipe.yaml"
        path.write_bytes(change(path.read_bytes()))

    return write

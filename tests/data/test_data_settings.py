"""Wrong data settings fail with the field, the value and what is allowed."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from hf_chain.data import DataSettings


def test_scenes_bring_their_columns_and_let_them_be_changed():
    settings = DataSettings()
    assert (settings.caption_column, settings.label_column, settings.prompt_templates) == (
        "captions",
        "label",
        "scenes",
    )
    assert settings.test_splits == ["test", "compositional"]
    assert DataSettings(caption_column=None).caption_column is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": " "}, "source is empty"),
        ({"source": "folder"}, "one of them must give captions"),
        ({"crop": 1}, "crop"),
        ({"captions_per_image": 0}, "captions_per_image"),
        ({"max_bad_share": 1.5}, "max_bad_share"),
        ({"prompt_templates": "open_ai"}, "'open_ai'; it must be one of clip, simple, scenes"),
        ({"prompt_templates": ["a photo"]}, "'a photo'; a template needs exactly one {}"),
        ({"prompt_templates": ["a {} or {name}"]}, "exactly one {}"),
        ({"prompt_templates": []}, "empty list"),
        ({"augmentation": {"crop_scale": (0.9, 0.2)}}, r"\[0.9, 0.2\]; it must be"),
        ({"image_views": 4}, "image_views is 4 without augmentation"),
        ({"class_names": ["dog"], "label_column": None}, "class_names is given without label_column"),
        ({"class_names": ["dog", ""]}, "no name for class 1"),
        ({"streaming": True}, "streaming is true for source 'scenes'"),
        ({"scenes": {"image_size": 4}}, "image_size"),
    ],
)
def test_a_wrong_value_is_named(options, message):
    with pytest.raises(ValidationError, match=message):
        DataSettings(**options)


def test_reading_a_recipe_does_not_start_torch():
    code = "import sys, hf_chain.data.settings; sys.exit('torch' in sys.modules or 'datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

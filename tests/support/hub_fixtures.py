"""The fixture `hub`: a local Hub that this process and the ones it starts talk to.

A room uses it with `from support.hub_fixtures import hub  # noqa: F401` in its `conftest.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import transformers.utils.hub
from huggingface_hub import close_session, constants

from support.hub_server import HubServer


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A fresh, empty Hub on which `tester` is logged in, with an empty download cache."""
    with HubServer() as server:
        cache = str(tmp_path / "hub-cache")
        for name, value in (server.environment() | {"HF_HUB_CACHE": cache}).items():
            monkeypatch.setenv(name, value)
        # huggingface_hub has read the variables already in this process, so its constants are set as well.
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", cache)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        # transformers keeps a client for good, which would ask an earlier test's server and wait for it.
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", None, raising=False)
        close_session()
        yield server
        close_session()

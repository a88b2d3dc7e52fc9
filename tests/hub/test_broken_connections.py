"""A Hub that hangs up while a model is looked for."""

from __future__ import annotations

import pytest

from hf_chain.adapters import check_model_files
from hf_chain.errors import HfChainError
from hf_chain.models.chain_clip.published import load_clip_config
from support.hub_server import HubServer


def test_a_model_behind_a_broken_connection_is_named_by_whoever_loads_it(hub: HubServer) -> None:
    hub.fail("tester/clip", "hang_up", times=1000)
    check_model_files("tester/clip")
    with pytest.raises(HfChainError, match="tester/clip cannot be loaded"):
        load_clip_config("tester/clip")

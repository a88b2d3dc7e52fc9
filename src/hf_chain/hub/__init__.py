"""The Hub: a repository and a model card for every member, pushed without ever stopping the training.

Names are imported when they are used: a recipe needs `HubSettings` alone, which must not start the Hub's client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_chain.lazy import lazy_names

if TYPE_CHECKING:
    from hf_chain.hub.card import member_card, write_member_card
    from hf_chain.hub.catch_up import PushReport, pending, push_pending
    from hf_chain.hub.graft_card import write_graft_card
    from hf_chain.hub.lineage import Ancestor, ancestors, predecessor_revision
    from hf_chain.hub.push import PushResult, check_login, push_member
    from hf_chain.hub.queue import PushQueue
    from hf_chain.hub.retry import PushError, RetryPolicy
    from hf_chain.hub.settings import HubSettings

_MODULES = {
    "Ancestor": "lineage",
    "HubSettings": "settings",
    "PushError": "retry",
    "PushQueue": "queue",
    "PushReport": "catch_up",
    "PushResult": "push",
    "RetryPolicy": "retry",
    "ancestors": "lineage",
    "check_login": "push",
    "member_card": "card",
    "pending": "catch_up",
    "predecessor_revision": "lineage",
    "push_member": "push",
    "push_pending": "catch_up",
    "write_graft_card": "graft_card",
    "write_member_card": "card",
}

__all__ = [
    "Ancestor",
    "HubSettings",
    "PushError",
    "PushQueue",
    "PushReport",
    "PushResult",
    "RetryPolicy",
    "ancestors",
    "check_login",
    "member_card",
    "pending",
    "predecessor_revision",
    "push_member",
    "push_pending",
    "write_graft_card",
    "write_member_card",
]

__getattr__ = lazy_names(__name__, _MODULES)

"""The Hub: a repository for every member or stage, pushed without ever stopping the training.

Names are imported when they are used: a recipe needs `HubSettings` alone, which must not start the Hub's client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_chain.lazy import lazy_names

if TYPE_CHECKING:
    from hf_chain.hub.card import Ancestor, ancestors, predecessor_revision
    from hf_chain.hub.catch_up import CardWriter, PushReport, check_pushed, mend_card, pending, push_what_is_left
    from hf_chain.hub.push import PushQueue, PushResult, check_login, check_private, push_member
    from hf_chain.hub.retry import PushError, RetryPolicy
    from hf_chain.hub.settings import HubSettings

_MODULES = {
    "Ancestor": "card",
    "CardWriter": "catch_up",
    "HubSettings": "settings",
    "PushError": "retry",
    "PushQueue": "push",
    "PushReport": "catch_up",
    "PushResult": "push",
    "RetryPolicy": "retry",
    "ancestors": "card",
    "check_login": "push",
    "check_private": "push",
    "check_pushed": "catch_up",
    "mend_card": "catch_up",
    "pending": "catch_up",
    "predecessor_revision": "card",
    "push_member": "push",
    "push_what_is_left": "catch_up",
}

__all__ = [
    "Ancestor",
    "CardWriter",
    "HubSettings",
    "PushError",
    "PushQueue",
    "PushReport",
    "PushResult",
    "RetryPolicy",
    "ancestors",
    "check_login",
    "check_private",
    "check_pushed",
    "mend_card",
    "pending",
    "predecessor_revision",
    "push_member",
    "push_what_is_left",
]

_MOVED = {
    "member_card": "hf_chain.methods.chain.card.member_card",
    "push_pending": "hf_chain.commands.push.push_pending",
    "write_graft_card": "hf_chain.methods.graft.card.stage_card.write_graft_card",
    "write_member_card": "hf_chain.methods.chain.card.write_member_card",
}

__getattr__ = lazy_names(__name__, _MODULES, _MOVED)

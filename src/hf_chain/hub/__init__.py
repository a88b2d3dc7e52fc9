"""The Hub: a repository and a model card for every member, pushed without ever stopping the training."""

from __future__ import annotations

from hf_chain.hub.card import member_card, write_member_card
from hf_chain.hub.lineage import Ancestor, ancestors, predecessor_revision
from hf_chain.hub.pending import PushReport, pending, push_pending
from hf_chain.hub.push import PushResult, check_login, push_member
from hf_chain.hub.queue import PushQueue
from hf_chain.hub.retry import PushError, RetryPolicy
from hf_chain.hub.settings import HubSettings

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
    "write_member_card",
]

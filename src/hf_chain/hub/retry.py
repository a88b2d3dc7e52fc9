"""Which failures of the Hub pass by themselves, how long to wait for that, and how to say so in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TypeVar

from huggingface_hub import get_session
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import parse_ratelimit_headers
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential,
    wait_random,
)
from transformers.utils import logging

from hf_chain.errors import HfChainError, reason

logger = logging.get_logger(__name__)

T = TypeVar("T")

_TRANSIENT_STATUS = (408, 409, 412, 425, 429)
"""Besides 5xx: timeouts, a commit that crossed another one, and rate limits."""

_LONGEST_LINE = 300


@dataclass(frozen=True)
class RetryPolicy:
    """How patiently a call to the Hub is repeated.

    huggingface_hub repeats some requests by itself (up to five times within 23 s: asking for upload modes, the LFS
    batch, each file's upload), but neither the creation of a repository, nor the check of the card, nor the commit,
    and it waits without limit for an answer. The policy closes these gaps and outlasts a longer outage.

    Args:
        attempts (`int`): Most calls, the first one included.
        first_wait (`float`): Seconds before the second call; doubled from call to call, with jitter.
        longest_wait (`float`): Most seconds between two calls, unless the Hub asks for more (`Retry-After`).
        total (`float`): No new call starts after that many seconds.
        silence (`float`): Seconds without a byte from the Hub after which a request counts as failed.
    """

    attempts: int = 8
    first_wait: float = 1.0
    longest_wait: float = 60.0
    total: float = 600.0
    silence: float = 120.0


class PushError(HfChainError):
    """A push, or another call to the Hub, that was given up after `attempts` calls."""

    def __init__(self, message: str, attempts: int) -> None:
        super().__init__(message)
        self.attempts = attempts


def call_hub(call: Callable[[], T], subject: str, policy: RetryPolicy) -> tuple[T, int]:
    """Runs `call`, repeating it while its failures may pass by themselves.

    Args:
        call (`Callable`): A call that may be repeated without harm.
        subject (`str`): What the call is about, for the error: a repository, usually.
        policy (`RetryPolicy`): How often and for how long.

    Returns:
        `tuple`: What `call` returned, and the number of attempts it took.

    Raises:
        PushError: one line, when the failure is permanent or the policy is exhausted.
    """
    backoff = wait_exponential(policy.first_wait, policy.longest_wait) + wait_random(0, policy.first_wait)
    retrying = Retrying(
        retry=retry_if_exception(is_transient),
        wait=lambda state: max(backoff(state), asked_wait(_error(state))),
        stop=stop_after_attempt(policy.attempts) | stop_before_delay(policy.total),
        before_sleep=lambda state: logger.warning(f"{explain(_error(state), subject)}; trying again"),
        reraise=True,
    )

    def attempt() -> T:
        _limit_silence(policy.silence)
        return call()

    try:
        result = retrying(attempt)
    except Exception as error:
        raise PushError(explain(error, subject), retrying.statistics["attempt_number"]) from error
    return result, retrying.statistics["attempt_number"]


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed later: rate limits, 5xx and a broken connection, but not a refusal."""
    error = _root(error)
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500 or error.response.status_code in _TRANSIENT_STATUS
    if isinstance(error, OfflineModeIsEnabled):
        return False
    # JSONDecodeError: a gateway's HTML page where huggingface_hub expects JSON. RuntimeError: what hf_xet raises for
    # a broken upload, and httpx for a session that another thread closed.
    return isinstance(error, (HTTPError, ConnectionError, TimeoutError, json.JSONDecodeError, RuntimeError))


def asked_wait(error: BaseException) -> float:
    """Seconds the Hub asks to wait before the next call (`RateLimit` or `Retry-After`), 0 when it does not."""
    error = _root(error)
    if not isinstance(error, HfHubHTTPError):
        return 0.0
    headers = error.response.headers
    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    value = headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(timezone.utc)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def explain(error: BaseException, subject: str) -> str:
    """One line on why a call about `subject` failed and what to do."""
    error = _root(error)
    if isinstance(error, HfChainError):
        return str(error)
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status == 401:
        return f"The Hub refused the token (401) for {subject}: run `hf auth login` with a token that may write"
    if status == 403:
        return f"The token may not write to {subject} (403): use one that may, or another hub.prefix"
    if status == 404:
        return f"The Hub finds no {subject} (404): check the name and that the token may see it"
    if status == 429:
        return f"The Hub limits the rate of requests (429) for {subject}: push again later"
    if isinstance(error, json.JSONDecodeError):
        return (
            f"What answers for the Hub about {subject} is a page, such as a proxy's: check HF_ENDPOINT and the network"
        )
    return f"The Hub call for {subject} failed: {reason(error, _LONGEST_LINE)}"[:_LONGEST_LINE]


def _root(error: BaseException) -> BaseException:
    """The failure itself, where huggingface_hub wraps it into "Error while uploading …"."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _error(state: RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome is not None else None
    assert error is not None, "tenacity waits after a failure only"
    return error


def _limit_silence(seconds: float) -> None:
    # Set before each attempt, as huggingface_hub opens a new session after a failed connection.
    session = get_session()
    if session.timeout.read is None:
        session.timeout = seconds

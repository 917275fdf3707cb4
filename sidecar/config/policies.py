"""Settings -> the policy of an endpoint for a room: the first matching pattern, or the endpoint's own policy."""

from __future__ import annotations

import json
from typing import TypeVar

from sidecar.config.models import (
    ConfigEndpoint,
    ConfigOverride,
    DecisionEndpoint,
    DecisionOverride,
    LifetimesOverride,
    Section,
    Settings,
)
from sidecar.config.room_patterns import RoomPatterns
from sidecar.core.model import Endpoint, Lifetimes
from sidecar.core.policy import OnUnavailable, Policy, PolicyFor

S = TypeVar("S", bound=Section)


def policies_from(settings: Settings) -> PolicyFor:
    """A function from endpoint and room name to the policy that applies."""
    default_body = None
    if settings.default_room_config is not None:
        default_body = json.dumps(settings.default_room_config, separators=(",", ":")).encode()
    endpoints = settings.endpoints
    own = {
        Endpoint.ROOM_CREATED: _config_policy(endpoints.room_created, default_body, None),
        Endpoint.VALIDATE_ACCESS: _decision_policy(endpoints.validate_access, None),
    }
    patterns = RoomPatterns([rule.match for rule in settings.rooms])
    of_rule = [
        {
            Endpoint.ROOM_CREATED: _config_policy(
                _with(endpoints.room_created, rule.room_created), default_body, rule.match
            ),
            Endpoint.VALIDATE_ACCESS: _decision_policy(
                _decision_with(endpoints.validate_access, rule.validate_access), rule.match
            ),
        }
        for rule in settings.rooms
    ]

    def policy_for(endpoint: Endpoint, room: str) -> Policy:
        index = patterns.first_fit(room)
        return (own if index is None else of_rule[index])[endpoint]

    return policy_for


def _with(base: S, override: LifetimesOverride | ConfigOverride) -> S:
    return base.model_copy(update=override.model_dump(exclude_none=True))


def _decision_with(base: DecisionEndpoint, override: DecisionOverride) -> DecisionEndpoint:
    plain = override.model_dump(exclude_none=True, exclude={"allow", "deny"})
    plain["allow"] = _with(base.allow, override.allow)
    plain["deny"] = _with(base.deny, override.deny)
    return base.model_copy(update=plain)


def _config_policy(endpoint: ConfigEndpoint, default_body: bytes | None, matched: str | None) -> Policy:
    lifetimes = Lifetimes(endpoint.fresh, endpoint.stale_while_revalidate, endpoint.stale_if_error)
    on_unavailable = OnUnavailable(endpoint.on_unavailable)
    return Policy(
        endpoint.deadline, endpoint.answer_within, lifetimes, lifetimes, on_unavailable, default_body, matched
    )


def _decision_policy(endpoint: DecisionEndpoint, matched: str | None) -> Policy:
    allow, deny = (
        Lifetimes(each.fresh, each.stale_while_revalidate, each.stale_if_error)
        for each in (endpoint.allow, endpoint.deny)
    )
    on_unavailable = OnUnavailable.ALLOW if endpoint.on_unavailable == "allow" else OnUnavailable.REFUSE
    return Policy(endpoint.deadline, endpoint.answer_within, allow, deny, on_unavailable, None, matched)

"""Rows that can be produced wherever a sidecar runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import yaml

from tests.failures.table import Place, Rows
from tests.rig.answers import allow, reply, with_secret
from tests.rig.faults import Fault
from tests.rig.sidecar import merged

COMMON = Rows()

# -- the meeting service

OVER_TLS: dict[str, Any] = {"tls": True, "settings": {"backend": {"ca_file": "CA"}}}
ITSELF = "repair the meeting service; the sidecar notices by itself"


def goes_wrong(name: str, fault: Fault, says: str, cure: str = ITSELF, **more: Any) -> None:
    """A failure of the meeting service that ends when it is repaired."""

    async def run(place: Place) -> AsyncGenerator[None]:
        await place.backend.goes(fault)
        yield
        await place.backend.goes(Fault.NONE)
        yield

    COMMON.add(name, "status", says, cure, **more)(run)


goes_wrong("The meeting service does not run", Fault.REFUSED, "no connection", always=True)
goes_wrong("The meeting service hangs", Fault.HANG, "no complete answer within")
goes_wrong("The meeting service answers 500", Fault.ERROR_500, "500")
goes_wrong("A proxy answers 503 with a page", Fault.ERROR_503, "503")
goes_wrong("The meeting service is overloaded (429)", Fault.TOO_MANY, "429")
goes_wrong("The path in `backend.url` is wrong (404)", Fault.HTML_404, "404", "correct `backend.url`, reload")
goes_wrong(
    "The meeting service redirects (302)", Fault.REDIRECT, "302", "write the new address in `backend.url`, reload"
)
goes_wrong("The connection breaks in the middle", Fault.RESET, "connection")
goes_wrong("The answer is cut off", Fault.HALF_BODY, "cut off")
goes_wrong("The answer is a page of a proxy or of a login", Fault.HTML_200, "HTML")
goes_wrong("The answer is no JSON", Fault.GARBLED, "JSON")
goes_wrong("`allowed` is not true or false", Fault.WRONG_TYPE, "allowed")
goes_wrong("The answer is too long", Fault.HUGE, "over 1048576 bytes")
goes_wrong("The port of the meeting service does not speak TLS", Fault.TLS_GARBLED, "no TLS", "write `http://` in "
           "`backend.url`, or the right port; reload", **OVER_TLS)  # fmt: skip
goes_wrong(
    "The certificate is not trusted", Fault.TLS_UNTRUSTED, "certificate is not trusted",
    "`check --online` says why; renew it, or set `backend.ca_file` and reload", **OVER_TLS,
)  # fmt: skip


@COMMON.add(
    "The secret in `backend.secret_file` is wrong", "status", "secret, then reload", "correct the file, reload",
    settings={"backend": {"secret_file": "SECRET"}},
)  # fmt: skip
async def wrong_secret(place: Place) -> AsyncGenerator[None]:
    place.backend.on("validate-access", with_secret("right", allow()))
    yield
    place.write_secret("right")
    await place.reload()
    yield


@COMMON.add(
    "The secret that systemd passes is wrong",
    "status",
    "systemctl restart",
    "correct the file, **restart**",
    always=True,
)
async def wrong_credential(place: Place) -> AsyncGenerator[None]:
    place.backend.on("validate-access", with_secret("right", allow()))
    await place.pass_secret("wrong")
    yield
    await place.pass_secret("right")
    yield


@COMMON.add("The name in `backend.url` has no address", "status", "no connection", "correct `backend.url`, reload")
async def no_address(place: Place) -> AsyncGenerator[None]:
    good = place.config()
    place.write_config(good.replace(f"127.0.0.1:{place.backend.port}", "backend.invalid:1"))
    await place.reload()
    yield
    place.write_config(good)
    await place.reload()
    yield


@COMMON.add(
    "`Cache-Control` forbids keeping the answers", "status", "must not be kept",
    "`backend.cache_control: ignore`, reload", noted_only=True,
)  # fmt: skip
async def no_store(place: Place) -> AsyncGenerator[None]:
    place.backend.headers["Cache-Control"] = "no-store"
    yield
    settings = merged(yaml.safe_load(place.config()), {"backend": {"cache_control": "ignore"}})
    place.write_config(yaml.safe_dump(settings))
    await place.reload()
    yield


# -- the config


def reload_refused(name: str, says: str, add: str, **more: Any) -> None:
    """A mistake in the file that a reload finds."""

    async def run(place: Place) -> AsyncGenerator[None]:
        good = place.config()
        place.write_config(good + add)
        await place.reload()
        yield
        place.write_config(good)
        await place.reload()
        yield

    COMMON.add(name, "status", says, "correct the line that is named, reload", noted_only=True, **more)(run)


reload_refused("Reload: the file is not YAML", "the last reload was refused", '\nrooms: ["\n', always=True)
reload_refused("Reload: a setting has a wrong name", "there is no such setting", "\nbakend: 1\n")
reload_refused("Reload: a value is wrong", "expected", "\nlog: {level: loud}\n")
reload_refused(
    "Reload: a file that is named is not there", "cannot be read", "\ncontrol: {token_file: /nowhere/token}\n"
)


# -- events


@COMMON.add(
    "The meeting service refuses an event (400)", "outbox list", "400", "repair it, `outbox retry --all`",
    noted_only=True, always=True,
)  # fmt: skip
async def event_refused(place: Place) -> AsyncGenerator[None]:
    place.backend.on("user-joined", reply({"error": "no"}, status=400))
    yield
    place.backend.reset_answers()
    code, said = await place.command("outbox", "retry", "--all")
    assert code == 0, said
    yield


@COMMON.add("The meeting service takes no events (503)", "log", "the backend answered 503", ITSELF, noted_only=True)
async def events_wait(place: Place) -> AsyncGenerator[None]:
    place.backend.on("user-joined", reply({}, status=503))
    yield
    place.backend.reset_answers()
    yield


@COMMON.add(
    "The outbox is full", "status", "outbox: ", "repair the meeting service, or `outbox drop --all --waiting`",
    settings={"outbox": {"max_events": 3}}, noted_only=True,
)  # fmt: skip
async def outbox_full(place: Place) -> AsyncGenerator[None]:
    place.backend.on("user-joined", reply({}, status=503))
    yield
    code, said = await place.command("outbox", "drop", "--all", "--waiting")
    assert code == 0, said
    place.backend.reset_answers()
    yield

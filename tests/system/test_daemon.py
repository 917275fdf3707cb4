"""The daemon as a whole: how it starts, stops and reloads, what it takes from strangers, what it never gives away."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rig.answers import by_name, raw, settings_of, with_secret
from tests.rig.backend import BY_NAME, PREFIX, Backend
from tests.rig.faults import Fault
from tests.rig.link import HELLO, Link
from tests.rig.ports import free_port
from tests.rig.sidecar import DEADLINE, Sidecar, run_to_the_end

SECRET = "canary-of-the-webhook-secret"
TOKEN = "canary-of-a-bearer-token"


# --- starting and stopping ---------------------------------------------------------------------------------------


async def test_a_stop_answers_what_is_under_way_and_ends_well(backend: Backend) -> None:
    backend.latency = 1.0
    async with Sidecar.start(backend.url) as sidecar:
        waiting = [asyncio.ensure_future(sidecar.decides(f"room-{n}", "alice@example.com")) for n in range(20)]
        await backend.received(count=20)
        begun = time.monotonic()
        sidecar.signal(signal.SIGTERM)
        replies = await asyncio.gather(*waiting)
        assert all(reply.allowed for reply in replies)
        assert sidecar.process is not None
        assert await sidecar.process.wait() == 0
        assert time.monotonic() - begun < DEADLINE + 2


async def test_a_stop_while_the_backend_hangs_takes_no_longer_than_the_deadlines(backend: Backend) -> None:
    async with Sidecar.start(backend.url) as sidecar:
        await backend.goes(Fault.HANG)
        waiting = [asyncio.ensure_future(sidecar.decides(f"room-{n}", "alice@example.com")) for n in range(5)]
        await backend.received(count=5)
        begun = time.monotonic()
        sidecar.signal(signal.SIGTERM)
        replies = await asyncio.gather(*waiting)
        assert [reply.allowed for reply in replies] == [False] * 5
        assert sidecar.process is not None
        assert await sidecar.process.wait() == 0
        assert time.monotonic() - begun < DEADLINE + 3
        await backend.goes(Fault.NONE)


async def test_connections_that_are_kept_open_do_not_delay_a_stop(backend: Backend) -> None:
    async with Sidecar.start(backend.url) as sidecar:
        _, idle = await asyncio.open_connection("127.0.0.1", sidecar.config["listen"]["port"])
        begun = time.monotonic()
        await sidecar.end()
        assert time.monotonic() - begun < 3
        idle.close()


def a_config(folder: Path, **changes: Any) -> str:
    settings: dict[str, Any] = {
        "listen": {"port": free_port()},
        "admin": {"port": free_port()},
        "state_dir": None,
        "backend": {"url": "http://127.0.0.1:1/"},
    }
    file = folder / "sidecar.yaml"
    file.write_text(yaml.safe_dump({**settings, **changes}))
    return str(file)


async def ends_in_one_line(file: str, *says: str, environ: dict[str, str] | None = None) -> None:
    ended = await run_to_the_end("run", "--config", file, environ=environ)
    assert ended.code == 1
    (line,) = ended.err.splitlines()
    for each in says:
        assert each in line
    assert "Traceback" not in ended.out + ended.err


@pytest.mark.parametrize("section", ["listen", "admin"])
async def test_a_port_in_use_is_one_line(tmp_path: Path, section: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        await ends_in_one_line(a_config(tmp_path, **{section: {"port": port}}), section, str(port), "in use")


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "a..b"])
async def test_an_address_that_is_not_ours_is_one_line(tmp_path: Path, host: str) -> None:
    await ends_in_one_line(a_config(tmp_path, listen={"host": host, "port": free_port()}), "listen", host)


async def test_a_secret_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    missing = tmp_path / "none"
    backend = {"url": "http://127.0.0.1:1/", "secret_file": str(missing)}
    await ends_in_one_line(a_config(tmp_path, backend=backend), str(missing))
    empty = tmp_path / "empty"
    empty.write_text("\n")
    backend["secret_file"] = str(empty)
    await ends_in_one_line(a_config(tmp_path, backend=backend), str(empty), "empty")
    backend = {"url": "http://127.0.0.1:1/", "secret_env": "NOT_THERE"}
    await ends_in_one_line(a_config(tmp_path, backend=backend), "NOT_THERE")


async def test_a_config_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    await ends_in_one_line(str(tmp_path / "none.yaml"), "no such file")


async def test_a_bad_config_is_a_line_for_each_problem(tmp_path: Path) -> None:
    file = a_config(tmp_path, breaker={"window": "long"}, lisen={})
    ended = await run_to_the_end("run", "--config", file)
    assert ended.code == 1
    assert len(ended.err.splitlines()) == 2
    assert all(line.startswith(f"{file}:") for line in ended.err.splitlines())
    assert ended.out == ""


# --- a log that cannot be written --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full disk", "reader gone", "reader stuck", "ascii"])
async def test_a_log_that_cannot_be_written_turns_nobody_away(backend: Backend, tmp_path: Path, kind: str) -> None:
    listen, admin = free_port(), free_port()
    file = a_config(tmp_path, listen={"port": listen}, admin={"port": admin}, backend={"url": backend.url})
    reading, writing = os.pipe()
    target = os.open("/dev/full", os.O_WRONLY) if kind == "full disk" else writing
    environ = {**os.environ, "PYTHONIOENCODING": "ascii" if kind == "ascii" else "utf-8"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecar", "run", "--config", file,
        stdout=target, stderr=asyncio.subprocess.DEVNULL, env=environ,
    )  # fmt: skip
    try:
        os.close(writing)
        if kind == "reader gone":
            os.close(reading)
        reply = await _ask_until_it_listens(listen, "会議")
        if kind == "reader stuck":  # a pipe holds 64 KiB
            for number in range(400):
                got = await send(listen, request(b"{}", "Connection: close", path="/" + "x" * 400), seconds=5)
                assert b" 404 " in got.split(b"\r\n")[0], f"no answer to request {number}"
            reply = await _ask_until_it_listens(listen, "会議")
        assert b"200 OK" in reply
        assert b'{"allowed":true' in reply
    finally:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 15)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if kind != "reader gone":
            os.close(reading)
        if kind == "full disk":
            os.close(target)


async def _ask_until_it_listens(port: int, room: str) -> bytes:
    give_up_at = time.monotonic() + 20
    body = json.dumps({"roomName": room, "userJid": "alice@example.com"}, ensure_ascii=False).encode()
    while True:
        try:
            return await send(port, request(body, "Connection: close"))
        except ConnectionRefusedError:
            assert time.monotonic() < give_up_at, "it does not start"
            await asyncio.sleep(0.05)


# --- reloading ---------------------------------------------------------------------------------------------------


async def test_a_reload_takes_over_a_good_file(backend: Backend, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("old")
    settings = {"backend": {"secret_file": str(secret)}}
    async with Backend(BY_NAME) as second, Sidecar.start(backend.url, settings) as sidecar:
        await sidecar.decides("standup", "alice@example.com")
        assert backend.requests[-1].headers["X-Webhook-Secret"] == "old"
        secret.write_text("new")
        sidecar.write({"backend": {"url": second.url}, "endpoints": {"validate-access": {"on_unavailable": "allow"}}})
        sidecar.signal(signal.SIGHUP)
        await sidecar.until_logged("reloaded")
        assert (await sidecar.decides("standup", "bob@example.com")).allowed is True
        assert second.requests[-1].headers["X-Webhook-Secret"] == "new"
        await second.goes(Fault.ERROR_500)
        assert (await sidecar.decides("standup", "carol@example.com")).allowed is True


async def test_a_reload_of_a_bad_file_changes_nothing_and_says_why(backend: Backend, tmp_path: Path) -> None:
    async with Sidecar.start(backend.url) as sidecar:
        good = sidecar.file.read_text()
        sidecar.file.write_text(good + "\nbakend: {}\n")
        sidecar.signal(signal.SIGHUP)
        line = await sidecar.until_logged("reload refused")
        assert "bakend" in json.dumps(line["problems"])
        assert (await sidecar.decides("standup", "alice@example.com")).allowed is True
        assert "config" in json.dumps((await sidecar.get("/readyz")).document["reasons"])
        sidecar.file.write_text(good)
        sidecar.signal(signal.SIGHUP)
        await sidecar.until_logged("reloaded")
        assert (await sidecar.get("/readyz")).document["reasons"] == []


async def test_a_reload_names_a_module_that_no_longer_waits_long_enough(backend: Backend) -> None:
    async with (
        Sidecar.start(backend.url, {"listen": {"module_timeout": 9}}) as sidecar,
        Link.open(sidecar.webhooks, {**HELLO, "timeout": 5}),
    ):
        await sidecar.until_logged("link")
        assert (await sidecar.get("/readyz")).document["notes"] == []
        sidecar.write({"endpoints": {"room-created": {"deadline": 6}}})
        sidecar.signal(signal.SIGHUP)
        line = await sidecar.until_logged("prosody: the module on conference.example.com waits 5 s")
        assert (await sidecar.get("/readyz")).document["notes"] == [line["event"]]


async def test_a_date_without_quotes_is_refused_by_check_start_and_reload(backend: Backend) -> None:
    async with Backend(BY_NAME) as second, Sidecar.start(backend.url) as sidecar:
        sidecar.write({"backend": {"url": second.url}})
        sidecar.file.write_text(f"{sidecar.file.read_text()}default_room_config: {{meetingTitle: 2026-12-01}}\n")
        place = rf"{sidecar.file}:\d+:23: default_room_config.meetingTitle: YAML reads 2026-12-01 as a date"
        code, said = await sidecar.command("check")
        assert code == 1
        assert re.search(place, said)
        sidecar.signal(signal.SIGHUP)
        line = await sidecar.until_logged("reload refused")
        assert re.match(place, line["problems"][0])
        assert (await sidecar.decides("standup", "alice@example.com")).allowed is True
        assert second.requests == []
        assert await sidecar.metric("reloads_total", result="refused") == 1
        assert "config: the last reload was refused" in (await sidecar.command("status"))[1]
        ended = await run_to_the_end("run", "--config", str(sidecar.file))
        assert ended.code == 1
        assert re.match(place, ended.err)
        assert "Traceback" not in ended.out + ended.err


async def test_a_pattern_that_fits_no_room_is_said_at_the_start_with_its_place(backend: Backend) -> None:
    rooms = [{"match": "Board-*", "validate-access": {"on_unavailable": "allow"}}]
    async with Sidecar.start(backend.url, {"rooms": rooms}) as sidecar:
        line = await sidecar.until_logged(f"config: {sidecar.file}:")
        lines = "\n".join(each["event"] for each in sidecar.log() if each["level"] == "warning")
        assert line["level"] == "warning"
        assert re.search(r':\d+:3: warning: rooms\[0\]\.match: no room of Jitsi has such a name: .*"board-\*"', lines)


async def test_a_name_that_resembles_a_pattern_keeps_nobody_waiting(backend: Backend) -> None:
    rooms = [{"match": "*-*-*-vip", "validate-access": {"on_unavailable": "allow"}}]
    async with Sidecar.start(backend.url, {"rooms": rooms}) as sidecar:
        await sidecar.decides("standup", "alice@example.com")
        long = asyncio.ensure_future(sidecar.decides("-" * 1023, "mallory@example.com"))
        await asyncio.sleep(0.01)
        assert (await sidecar.decides("standup", "alice@example.com")).seconds < 0.5
        assert (await long).seconds < 0.5


async def test_what_needs_a_restart_says_so_and_stays(backend: Backend) -> None:
    async with Sidecar.start(backend.url) as sidecar:
        kept = dict(sidecar.config)
        sidecar.write({"listen": {"port": free_port(), "prefix": "/other"}})
        sidecar.signal(signal.SIGHUP)
        line = await sidecar.until_logged("reloaded")
        assert line["needs_restart"] == ["listen.port", "listen.prefix"]
        sidecar.config = kept
        assert (await sidecar.decides("standup", "alice@example.com")).allowed is True


async def test_a_new_secret_lets_a_distrusted_sidecar_ask_at_once(backend: Backend, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("wrong")

    settings = {"backend": {"secret_file": str(secret)}, "breaker": {"open_for": 60}}
    backend.on("validate-access", with_secret("right", by_name))
    async with Sidecar.start(backend.url, settings) as sidecar:
        for number in range(12):
            assert (await sidecar.decides(f"room-{number}", f"user{number}@example.com")).allowed is False
        assert sidecar.log("breaker")[-1]["state"] == "open"
        assert "secret" in json.dumps((await sidecar.get("/readyz")).document["reasons"])
        secret.write_text("right")
        sidecar.signal(signal.SIGHUP)
        await sidecar.until_logged("reloaded")
        assert (await sidecar.decides("room-0", "user0@example.com")).allowed is True
        assert (await sidecar.get("/readyz")).document["reasons"] == []


# --- what strangers send -----------------------------------------------------------------------------------------


def request(body: bytes, *headers: str, path: str = f"{PREFIX}/validate-access", method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


async def send(port: int, *parts: bytes, seconds: float = 10.0) -> bytes:
    """Send these bytes, and all that comes back until the other side closes or says nothing for a while."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = b""
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(seconds):
            while chunk := await reader.read(65536):
                got += chunk
                if b"\r\n\r\n" in got and _is_whole(got):
                    break
    except (ConnectionResetError, BrokenPipeError, TimeoutError):
        pass
    finally:
        writer.close()
    return got


def _is_whole(got: bytes) -> bool:
    head, _, body = got.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return length is not None and len(body) >= int(length[1])


GOOD = {"roomName": "standup", "userJid": "alice@example.com/r"}
WRONG_VALUES: list[Any] = [None, True, False, 0, -1, 1.5, [], ["x"], {}, {"a": 1}, "", "x" * 1024, "é" * 512]


def malformed_bodies() -> list[tuple[str, bytes, str | None]]:
    """(endpoint, body, the field at fault) of a thousand bodies and more, none of them a question."""
    made: list[tuple[str, bytes, str | None]] = []
    endpoints = ["room-created", "validate-access", "user-joined", "user-left", "room-destroyed", "recording"]
    for endpoint in endpoints:
        for value in WRONG_VALUES:
            made += [(endpoint, json.dumps({**GOOD, "roomName": value}).encode(), "roomName")]
        made.append((endpoint, b'{"userJid":"a@b"}', "roomName"))
        made.append((endpoint, b'{"roomName":"\\ud800","userJid":"a@b"}', "roomName"))
        made += [(endpoint, text, None) for text in NOT_OBJECTS]
        made.append((endpoint, b'{"roomName":"a","userJid":"b","roomName":"c"}', None))
        whole = json.dumps({**GOOD, "meetingId": [1, {"x": "é\u2028"}]}).encode()
        made += [(endpoint, whole[:cut], None) for cut in range(1, len(whole))]
    for value in WRONG_VALUES:
        made.append(("validate-access", json.dumps({**GOOD, "userJid": value}).encode(), "userJid"))
    made.append(("validate-access", b'{"roomName":"a"}', "userJid"))
    for byte in range(0x80, 0x100):
        made.append(("validate-access", b'{"roomName":"a","userJid":"' + bytes([byte]) + b'"}', None))
    for byte in range(0x20):
        made.append(("validate-access", b'{"roomName":"a' + bytes([byte]) + b'","userJid":"b"}', None))
    return made


NOT_OBJECTS = [
    b"", b" ", b"null", b"true", b"7", b'"text"', b"[]", b'[{"roomName":"a"}]', b"NaN", b"Infinity", b"{]", b"{'a':1}",
    b"\xef\xbb\xbf{}", b"\xff\xfe{\x00}\x00", b"\x00", b"{" * 60_000, b"[" * 60_000, b'{"a":' * 10_000, b"roomName=a",
    b"<xml/>", b'{"roomName":"a","userJid":"b"}{}', b'{"roomName":"a","userJid":"b",}',
    b'{"roomName":"a","userJid":NaN}',
    b"1" * 60_000, b"-", b'"', b'{"roomName"', b"{,}", b"\x1f\x8b\x08\x00",
    b'{"roomName":1e999999,"userJid":NaN}',
]  # fmt: skip


async def test_every_malformed_body_gets_its_4xx_with_field_and_reason_and_the_process_lives(backend: Backend) -> None:
    bodies = malformed_bodies()
    assert len(bodies) >= 1000
    async with Sidecar.start(backend.url, {"log": {"level": "debug"}}) as sidecar:
        places = asyncio.Semaphore(16)

        async def one(endpoint: str, body: bytes, field: str | None) -> str | None:
            async with places:
                reply = await sidecar.post(endpoint, body)
            document = reply.document
            good = reply.status == 400 and reply.headers["Content-Type"].startswith("application/problem+json")
            good = good and document["status"] == 400 and len(document["detail"]) < 400 and document["detail"] != ""
            good = good and document.get("field") == field
            good = good and reply.cache_status.startswith("prosody-sidecar")
            return None if good else f"{endpoint} {body[:80]!r}: {reply.status} {document}"

        wrong = [each for each in await asyncio.gather(*(one(*body) for body in bodies)) if each is not None]
        assert wrong == []
        assert backend.requests == []
        assert await sidecar.metric("requests_total", source="problem") == len(bodies)
        assert await sidecar.metric("defects_total") == 0
        assert (await sidecar.decides("standup", "alice@example.com")).allowed is True


CHUNKED = b"POST /webhooks/jitsi/validate-access HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BROKEN_HTTP = [
    b"GARBAGE\r\n\r\n",
    b"\r\n\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40,
    b"POST /x HTTP/9.9\r\nHost: x\r\n\r\n",
    b"POST\r\n\r\n",
    b"GET " + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(5000)) + b"\r\n",
    b"POST http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
    CHUNKED + b"Content-Length: abc\r\n\r\n",
    CHUNKED + b"Content-Length: -1\r\n\r\n{}",
    CHUNKED + b"Content-Length: 99999999999999999999\r\n\r\n{}",
    CHUNKED + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    CHUNKED + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    CHUNKED + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nxx",
    CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nxx\r\n0\r\n\r\n",
    CHUNKED + b"Transfer-Encoding: gzip\r\n\r\nxx",
    CHUNKED + b"Bad Header : x\r\n\r\n",
    CHUNKED + b"X: a\x00b\r\n\r\n",
]


async def test_what_is_not_http_gets_a_400_and_no_traceback_on_either_listener(backend: Backend) -> None:
    async with Sidecar.start(backend.url, {"log": {"level": "debug"}}) as sidecar:
        for listener in ("listen", "admin"):
            for text in BROKEN_HTTP:
                got = await send(sidecar.config[listener]["port"], text, seconds=1.0)
                assert got == b"" or b" 400 " in got.split(b"\r\n")[0], (text[:90], got[:200])
                if listener == "listen" and got:
                    assert b"application/problem+json" in got
                    assert b"aaaa" not in got
        assert await sidecar.metric("defects_total") == 0
        assert (await sidecar.decides("standup", "alice@example.com")).allowed is True


WRONG_KIND: list[tuple[bytes, int, str]] = [
    (request(b"{}", path="/"), 404, "room-created"),
    (request(b"{}", path="/webhooks/jitsi/nothing"), 404, "validate-access"),
    (request(b"{}", path="/webhooks/jitsi/validate-access/"), 404, "validate-access"),
    (request(b"{}", path="/webhooks/jitsi/../admin"), 404, ""),
    (request(b"", method="GET"), 405, "use POST"),
    (request(b"{}", method="PUT"), 405, "use POST"),
    (request(b"", method="DELETE"), 405, "use POST"),
    (request(b"{}", "Content-Encoding: gzip"), 415, "Content-Encoding"),
    (request(b"{}").replace(b"application/json", b"text/plain"), 415, "application/json"),
    (request(b"{}").replace(b"application/json", b"application/json; charset=latin-1"), 415, "UTF-8"),
    (request(b"{}").replace(b"Content-Type: application/json\r\n", b""), 415, "Content-Type"),
    (request(b"x" * 70_000), 413, "65536 bytes"),
    (CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n" + b"8000\r\n%b\r\n" % (b"x" * 0x8000) * 3, 413, "65536"),
]


async def test_the_answer_to_a_request_of_the_wrong_kind_says_what_is_wrong(backend: Backend) -> None:
    async with Sidecar.start(backend.url) as sidecar:
        for text, status, says in WRONG_KIND:
            got = await send(sidecar.config["listen"]["port"], text)
            head, _, body = got.partition(b"\r\n\r\n")
            assert head.split(b" ")[1] == str(status).encode(), text[:100]
            assert b"application/problem+json" in head
            assert says in json.loads(body)["detail"]
            if status == 405:
                assert b"Allow: POST" in head
        assert backend.requests == []


async def test_a_body_that_breaks_off_or_never_comes_leaves_the_others_alone(backend: Backend) -> None:
    async with Sidecar.start(backend.url) as sidecar:
        port = sidecar.config["listen"]["port"]
        stuck = [asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
        writers = [writer for _, writer in await asyncio.gather(*stuck)]
        for writer in writers:
            writer.write(CHUNKED + b"Content-Length: 500\r\n\r\n{")
        assert (await sidecar.decides("standup", "alice@example.com")).allowed is True
        for writer in writers[:25]:
            writer.close()
        late = await send(port, CHUNKED + b"Content-Length: 500\r\n\r\n{")
        assert b" 408 " in late.split(b"\r\n")[0]
        for writer in writers[25:]:
            writer.close()
        assert await sidecar.metric("defects_total") == 0


# --- what is passed on, and what never is ------------------------------------------------------------------------


async def test_bodies_go_both_ways_byte_for_byte(backend: Backend) -> None:
    odd_config = b'{ "chatEnabled" : false,\n\t"maxParticipants":5.0, "meetingTitle":"\\u00e9\xc3\xa9", "x":null }\n'
    backend.on("room-created", raw(odd_config))
    async with Sidecar.start(backend.url) as sidecar:
        sent = b'{ "roomName" : "st\\u00e9", "timestamp":1.50,\t"new field": [1,2 ,3] }\r\n'
        assert (await sidecar.post("room-created", sent)).body == odd_config
        assert (await sidecar.post("room-created", sent)).body == odd_config
        assert [each.content for each in backend.requests] == [sent]
        question = b'{"roomName":"a" ,"userJid":"b@c/d", "userName":"\xf0\x9f\x98\x80"}'
        await sidecar.post("validate-access", question)
        assert backend.requests[-1].content == question


async def test_the_backend_gets_the_headers_of_the_contract_and_no_others_of_prosodys(backend: Backend) -> None:
    async with Sidecar.start(backend.url, {"backend": {"secret_env": "HOOK"}}, {"HOOK": SECRET}) as sidecar:
        trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
        inbound = {"X-Webhook-Secret": "of-prosody", "Cookie": "a=b", "Authorization": "Bearer x", "X-Other": "y"}
        body = json.dumps(GOOD).encode()
        await sidecar.post("validate-access", body, {**inbound, "traceparent": trace})
        headers = backend.requests[-1].headers
        assert headers["X-Webhook-Secret"] == SECRET
        assert headers["Content-Type"] == "application/json"
        assert re.fullmatch(r"prosody-sidecar/\S+", headers["User-Agent"])
        assert headers["traceparent"] == trace
        assert not any("of-prosody" in value for value in headers.values())
        assert not any(name in headers for name in ("Cookie", "Authorization", "X-Other"))
        await sidecar.post("room-created", body, {"traceparent": "not one"})
        begun = backend.requests[-1].headers["traceparent"]
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", begun)


async def test_without_a_secret_none_is_sent_not_even_the_callers(backend: Backend) -> None:
    async with Sidecar.start(backend.url) as sidecar:
        await sidecar.post("validate-access", json.dumps(GOOD).encode(), {"X-Webhook-Secret": "of-prosody"})
        assert "X-Webhook-Secret" not in backend.requests[-1].headers


async def test_cookies_are_not_kept_and_redirects_not_followed(backend: Backend) -> None:
    backend.headers = {"Set-Cookie": "session=1; Path=/"}
    async with Sidecar.start(backend.url) as sidecar:
        await sidecar.decides("a", "alice@example.com")
        await sidecar.decides("b", "alice@example.com")
        assert all("Cookie" not in each.headers for each in backend.requests)
        await backend.goes(Fault.REDIRECT)
        backend.forget()
        assert (await sidecar.decides("c", "alice@example.com")).allowed is False
        assert len(backend.requests) == 1


async def test_a_systemd_credential_goes_before_the_file(backend: Backend, tmp_path: Path) -> None:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "webhook-secret").write_text("of-the-credential\n")
    (tmp_path / "secret").write_text("of-the-file")
    settings = {"backend": {"secret_file": str(tmp_path / "secret")}}
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    async with Sidecar.start(backend.url, settings, environ) as sidecar:
        await sidecar.decides("standup", "alice@example.com")
        assert backend.requests[-1].headers["X-Webhook-Secret"] == "of-the-credential"


async def test_secret_and_token_show_nowhere_at_any_level(backend: Backend, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    state = tmp_path / "state"
    settings = {
        "log": {"level": "debug", "identities": True},
        "backend": {"secret_file": str(secret)},
        "state_dir": str(state),
    }
    person = "canary-person@example.com"
    async with Sidecar.start(backend.url, settings) as sidecar:
        seen: list[str] = []
        for fault in (Fault.NONE, Fault.ERROR_500, Fault.RESET, Fault.GARBLED, Fault.UNAUTHORIZED, Fault.REFUSED):
            await backend.goes(fault)
            for number in range(4):
                reply = await sidecar.decides(f"room-{number}", person, bearerToken=TOKEN, extra=f"x {TOKEN}")
                seen += [reply.body.decode(), json.dumps(dict(reply.headers))]
                reply = await sidecar.configures(f"room-{number}", extra=TOKEN)
                seen += [reply.body.decode(), json.dumps(dict(reply.headers))]
            for body in (f'{{"roomName":"{TOKEN}'.encode(), json.dumps({"bearerToken": TOKEN}).encode()):
                seen.append((await sidecar.post("validate-access", body)).body.decode())
            broken = await send(sidecar.config["listen"]["port"], f"POST / HTTP/1.1\r\nBad {TOKEN}\r\n\r\n".encode())
            seen.append(broken.decode(errors="replace"))
            if fault is Fault.NONE:
                assert any(TOKEN.encode() in each.content for each in backend.requests)
                assert all(each.headers["X-Webhook-Secret"] == SECRET for each in backend.requests)
        await backend.goes(Fault.NONE)
        seen += [(await sidecar.get(path)).body.decode() for path in ("/metrics", "/status", "/readyz", "/livez")]
        for arguments in (("status",), ("explain", "room-1", person), ("explain", "room-1"), ("outbox", "list")):
            code, printed = await sidecar.command(*arguments)
            assert code in (0, 1)
            seen.append(printed)
        seen.append(sidecar.output())
        seen += [file.read_bytes().decode("latin-1") for file in state.rglob("*") if file.is_file()]
        assert person in "".join(seen)  # what is looked for would be found
        for text in seen:
            assert SECRET not in text
            assert TOKEN not in text


async def test_people_show_in_the_log_as_digests_only(backend: Backend) -> None:
    async with Sidecar.start(backend.url, {"log": {"level": "debug"}}) as sidecar:
        await sidecar.decides(
            "standup", "canary-person@example.com", userEmail="canary-mail@example.com", userId="canary"
        )
        await sidecar.decides("standup", "canary-person@example.com")
        lines = await sidecar.logged("request")
        assert len({line["user"] for line in lines}) == 1
        assert "canary" not in sidecar.output()
        assert "Somebody" not in sidecar.output()


# --- the commands ------------------------------------------------------------------------------------------------


async def test_a_command_without_a_daemon_ends_with_3_and_says_what_to_try(tmp_path: Path) -> None:
    file = a_config(tmp_path)
    for arguments in (["status"], ["explain", "standup"], ["purge", "--all"], ["outbox", "list"]):
        ended = await run_to_the_end(*arguments, "--config", file)
        assert ended.code == 3
        assert "check whether it runs" in ended.err
        assert len(ended.err.splitlines()) == 1


async def test_wrong_usage_ends_with_2(tmp_path: Path) -> None:
    file = a_config(tmp_path)
    for arguments in (["purge"], ["explain"], ["nonsense"], ["outbox", "drop"], ["status", "--nonsense"]):
        ended = await run_to_the_end(*arguments, *([] if arguments == ["nonsense"] else ["--config", file]))
        assert ended.code == 2, arguments
        assert "Traceback" not in ended.err


async def test_commands_answer_with_0_and_json_where_it_is_asked_for(backend: Backend) -> None:
    async with Sidecar.start(backend.url) as sidecar:
        await sidecar.decides("standup", "alice@example.com")
        await sidecar.configures("standup")
        code, printed = await sidecar.command("status", "--json")
        assert (code, json.loads(printed)["serving"]) == (0, True)
        code, printed = await sidecar.command("explain", "standup", "alice@example.com")
        assert code == 0
        assert "fresh" in printed
        code, printed = await sidecar.command("purge", "--room", "standup", "--json")
        assert (code, json.loads(printed)["purged"]) == (0, 2)
        await backend.goes(Fault.ERROR_500)
        assert (await sidecar.decides("standup", "alice@example.com")).allowed is False


async def test_events_are_taken_with_202_and_reach_the_backend_as_they_were(backend: Backend, tmp_path: Path) -> None:
    async with Sidecar.start(backend.url, {"state_dir": str(tmp_path / "state")}) as sidecar:
        sent = b'{"roomName":"standup" ,"timestamp":1.50}'
        reply = await sidecar.post("user-joined", sent, {"X-Webhook-Secret": "of-prosody"})
        assert reply.status == 202
        received = (await backend.received("user-joined", within=10))[0]
        assert received.content == sent
        assert received.key
        assert "X-Webhook-Secret" not in received.headers


async def test_settings_come_through_whole(backend: Backend) -> None:
    async with Sidecar.start(backend.url) as sidecar:
        assert (await sidecar.configures("standup")).body == settings_of("standup")
        assert len(backend.asked("room-created")) == 1

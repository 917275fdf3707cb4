"use strict";

const assert = require("assert");
const test = require("node:test");
const { TEXTS, allowedAddress, clockTime } = require("../../frontend/room-config.js");
const { Page, Conference } = require("./page.js");

const REFUSED = { type: "JOIN_REFUSED", reason: "Meeting has been cancelled" };

test("a refusal is shown in the words of the meeting service", () => {
    const page = new Page();
    page.say(REFUSED);
    page.say({ ...REFUSED, title: "Sales & more" });
    assert.deepStrictEqual(page.dialogs, [
        { title: TEXTS.refused, paragraphs: ["Meeting has been cancelled"], link: null },
        { title: "Sales & more", paragraphs: [TEXTS.refused, "Meeting has been cancelled"], link: null },
    ]);
});

test("a refusal with an address that is allowed offers to go there", () => {
    const page = new Page();
    page.say({ ...REFUSED, redirectUrl: "https://login.example.com/a?b=1" });
    assert.deepStrictEqual(page.dialogs[0].link, {
        address: "https://login.example.com/a?b=1",
        label: TEXTS.continue,
    });
});

test("a refusal that needs a login says so", () => {
    const page = new Page();
    page.say({ ...REFUSED, requireAuth: true, redirectUrl: "/login" });
    assert.deepStrictEqual(page.dialogs[0].paragraphs, ["Meeting has been cancelled", TEXTS.loginNeeded]);
    assert.deepStrictEqual(page.dialogs[0].link, { address: "https://meet.example.com/login", label: TEXTS.logIn });
});

test("a refusal without words still says that the user cannot join", () => {
    const page = new Page();
    page.say({ type: "JOIN_REFUSED", reason: 7, redirectUrl: {} });
    assert.deepStrictEqual(page.dialogs, [{ title: TEXTS.refused, paragraphs: [], link: null }]);
});

test("a refusal disappears when the next try succeeds", () => {
    const page = new Page();
    page.say(REFUSED);
    page.join();
    assert.ok(page.done.map(([what]) => what).includes("dialog.close"));
});

for (const [url, is] of [
    ["https://login.example.com/x", "https://login.example.com/x"],
    ["/again", "https://meet.example.com/again"],
    ["https://meet.example.com/y", "https://meet.example.com/y"],
    ["https://evil.example/", null],
    ["https://login.example.com.evil.example/", null],
    ["https://login.example.com@evil.example/", null],
    ["http://login.example.com/", null],
    ["//evil.example/", null],
    ["\\\\evil.example\\x", null],
    ["/\\evil.example", null],
    ["/\t/evil.example", null],
    ["java\nscript:alert(1)", null],
    ["javascript:alert(1)", null],
    ["data:text/html,x", null],
    ["blob:https://login.example.com/1", null],
    ["https://", null],
    ["", null],
    [undefined, null],
    [{}, null],
]) {
    test(`the address ${JSON.stringify(url)} ${is ? "is allowed" : "is not allowed"}`, () => {
        assert.strictEqual(allowedAddress(url, "https://meet.example.com/standup", ["https://login.example.com"]), is);
    });
}

test("the end of a meeting is counted down, through breakout rooms", () => {
    const page = new Page();
    page.join();
    page.done.length = 0;
    page.say({ type: "MEETING_ENDING", minutesLeft: 5, reason: "max-duration" });
    page.conference.emit("CONFERENCE_LEFT");
    page.enter(new Conference());
    page.join();
    const ofNotice = page.done.filter(([what]) => what.startsWith("notice"));
    assert.deepStrictEqual(ofNotice, [["notice.countDown", 5], ["notice.pause"], ["notice.goOn"]]);
});

test("the time that is left is not counted down in another meeting", () => {
    const page = new Page();
    page.join();
    page.say({ type: "MEETING_ENDING", minutesLeft: 5 });
    page.conference.emit("CONFERENCE_LEFT");
    page.done.length = 0;
    page.meeting({ room: "review", conference: undefined });
    page.enter(new Conference());
    assert.deepStrictEqual(page.done, [["notice.end"]]);
});

test("the end of a meeting is explained, and not as a removal", () => {
    const page = new Page();
    page.join();
    page.say({ type: "MEETING_ENDED", reason: "max-duration" });
    page.conference.emit("KICKED", undefined, "The meeting has reached its limit of 5 minutes", false);
    assert.deepStrictEqual(page.dialogs, [{ title: TEXTS.ended, paragraphs: [TEXTS.maxDuration] }]);
    page.say({ type: "MEETING_ENDED", reason: "Cleaning" });
    assert.deepStrictEqual(page.dialogs[1].paragraphs, ["Cleaning"]);
});

test("who is put out by the server is shown why, and by a moderator not twice", () => {
    const page = new Page();
    page.join();
    page.conference.emit("KICKED", { getId: () => "mod" }, "Bye", false);
    assert.deepStrictEqual(page.dialogs, []);
    page.conference.emit("KICKED", null, "Your booking was cancelled", false);
    assert.deepStrictEqual(page.dialogs, [{ title: TEXTS.removed, paragraphs: ["Your booking was cancelled"] }]);
});

test("nothing is shown in the page of a recorder, and its settings are applied", () => {
    const page = new Page({ config: { iAmRecorder: true } });
    page.settings({ chatEnabled: false, meetingDescription: "Bring figures" });
    page.join();
    for (const type of ["JOIN_REFUSED", "MEETING_ENDING", "MEETING_ENDED"]) page.say({ type, minutesLeft: 5 });
    page.conference.emit("KICKED", null, "Over", false);
    const shown = page.store.actions.filter(({ type }) => type === "SHOW_NOTIFICATION");
    const countdowns = page.done.filter(([what]) => what === "notice.countDown");
    assert.deepStrictEqual([page.dialogs, countdowns, shown], [[], [], []]);
    assert.strictEqual(page.config.disableChat, true);
});

test("a message that is no object, or of another type, does nothing", () => {
    const page = new Page();
    for (const message of [null, "x", [], 7, {}, { type: "ROOM_CONFIG" }, { type: "ROOM_CONFIG", config: [] }]) {
        page.say(message);
    }
    page.say({ type: "START_RECORDING", auto: true });
    assert.deepStrictEqual([page.dialogs, page.warnings, page.config], [[], [], {}]);
});

test("a time is shown in minutes and seconds", () => {
    assert.deepStrictEqual([0, 999, 65000, 5400000, -5].map(clockTime), ["0:00", "0:01", "1:05", "90:00", "0:00"]);
});

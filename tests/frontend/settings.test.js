"use strict";

const assert = require("assert");
const test = require("node:test");
const { WHEN_FALSE, BUTTONS } = require("../../frontend/room-config.js");
const { Page, Conference } = require("./page.js");

const valueAt = (config, path) => path.split(".").reduce((value, key) => (value || {})[key], config);

// The settings that are off, as the page's config has them.
function assertIsOff(page, name) {
    const { config = {}, buttons = [] } = WHEN_FALSE[name];
    for (const [path, value] of Object.entries(config)) assert.deepStrictEqual(valueAt(page.config, path), value, path);
    for (const button of buttons) assert.ok(!page.config.toolbarButtons.includes(button), button);
    assert.deepStrictEqual(page.warnings, []);
}

for (const name of Object.keys(WHEN_FALSE)) {
    for (const way of ["metadata", "settings"]) {
        test(`${name} by ${way} is applied, and changed back`, () => {
            const config = {
                toolbarButtons: [...BUTTONS, "reactions"],
                dropbox: { appKey: "k" },
                remoteVideoMenu: { disableGrantModerator: true },
                transcription: { enabled: true },
                whiteboard: { enabled: true },
            };
            const page = new Page({ config: JSON.parse(JSON.stringify(config)) });
            page[way]({ [name]: false });
            assertIsOff(page, name);
            assert.strictEqual(page.config.remoteVideoMenu.disableGrantModerator, true);
            page[way]({ [name]: true });
            // A member that was not there leaves its parent behind, empty.
            const left = Object.entries(page.config).filter(([, value]) => value && Object.keys(value).length);
            assert.deepStrictEqual(Object.fromEntries(left), config);
        });
    }
}

test("what the page itself has switched off stays off", () => {
    const page = new Page({ config: { disableChat: true, toolbarButtons: ["microphone"] } });
    page.settings({ chatEnabled: true, reactionsEnabled: false });
    assert.strictEqual(page.config.disableChat, true);
    assert.deepStrictEqual(page.config.toolbarButtons, ["microphone"]);
    page.settings({});
    assert.strictEqual(page.config.disableChat, true);
});

test("a setting that is not a boolean, and one that is not known, do nothing", () => {
    const page = new Page();
    page.settings({ chatEnabled: "false", pollsEnabled: 0, raiseHandEnabled: null, toolbarButtons: "chat", x: false });
    assert.deepStrictEqual(page.config, {});
});

test("a page without a list of buttons keeps those that this script does not know, and gets no others", () => {
    const page = new Page();
    page.settings({ raiseHandEnabled: false });
    const expected = [...BUTTONS, "brand-new"].filter((button) => button !== "raisehand");
    assert.deepStrictEqual(page.config.toolbarButtons, expected);
    assert.ok(!expected.includes("reactions")); // by default, Jitsi has reactions in the menu of the raised hand
    page.settings({});
    assert.strictEqual(page.config.toolbarButtons, undefined);
});

test("toolbarButtons takes away all others, and adds none", () => {
    const page = new Page({ config: { toolbarButtons: ["microphone", "chat", "hangup"] } });
    page.settings({ toolbarButtons: ["hangup", "chat", "desktop"], chatEnabled: false });
    assert.deepStrictEqual(page.config.toolbarButtons, ["hangup"]);
});

test("without recording, the button without which Jitsi offers no live stream stays", () => {
    const page = new Page();
    page.settings({ recordingEnabled: false, raiseHandEnabled: false });
    assert.ok(page.config.toolbarButtons.includes("recording"));
});

test("only the room itself is believed, and no participant", () => {
    const page = new Page();
    page.settings({ chatEnabled: false });
    page.settings({}, "1a2b3c4d");
    page.settings({}, "");
    page.say({ type: "JOIN_REFUSED", reason: "Log in at evil.example" }, "1a2b3c4d");
    assert.strictEqual(page.config.disableChat, true);
    assert.deepStrictEqual(page.dialogs, []);
});

test("the config that the page loads later has the settings again", () => {
    const page = new Page();
    page.settings({ participantNameEditingEnabled: false, kickParticipantsEnabled: false });
    page.store.dispatch({ type: "SET_CONFIG", config: { remoteVideoMenu: { disabled: true } } });
    assert.deepStrictEqual(page.config, { readOnlyName: true, remoteVideoMenu: { disabled: true, disableKick: true } });
    page.settings({});
    assert.deepStrictEqual(page.config, { readOnlyName: undefined, remoteVideoMenu: { disabled: true } });
});

test("what another script writes beside a setting is still there afterwards", () => {
    const page = new Page({ config: { liveStreaming: { enabled: true } } });
    page.settings({ liveStreamingEnabled: false });
    const config = { liveStreaming: { ...page.config.liveStreaming, helpLink: "x" } };
    page.store.dispatch({ type: "OVERWRITE_CONFIG", config });
    page.settings({});
    assert.deepStrictEqual(page.config.liveStreaming, { enabled: true, helpLink: "x" });
});

test("a script that changes a setting back again and again wins in the end, with one line", () => {
    const page = new Page();
    page.settings({ chatEnabled: false });
    const interfere = () => page.store.dispatch({ type: "OVERWRITE_CONFIG", config: { disableChat: false } });
    interfere();
    assert.strictEqual(page.config.disableChat, true);
    for (let times = 0; times < 300; times += 1) interfere();
    assert.strictEqual(page.config.disableChat, false);
    assert.deepStrictEqual(page.warnings, ["room-config: disableChat: another script changes it back again and again"]);
});

test("a setting that cannot be applied leaves the others, and a line in the console", () => {
    const page = new Page();
    const dispatch = page.store.dispatch.bind(page.store);
    page.store.dispatch = (action) => {
        if (action.type === "OVERWRITE_CONFIG" && action.config.disablePolls) throw new Error("no such thing");
        dispatch(action);
    };
    for (let times = 0; times < 3; times += 1) page.settings({ chatEnabled: false, pollsEnabled: false });
    assert.strictEqual(page.config.disableChat, true);
    assert.deepStrictEqual(page.warnings, ["room-config: disablePolls: no such thing"]);
});

test("what is thrown may be anything", () => {
    const page = new Page();
    const dispatch = page.store.dispatch.bind(page.store);
    page.store.dispatch = (action) => {
        if (action.type === "OVERWRITE_CONFIG" && action.config.disablePolls) throw Object.create(null);
        dispatch(action);
    };
    page.settings({ pollsEnabled: false });
    page.settings({ chatEnabled: false });
    assert.strictEqual(page.config.disableChat, true);
    assert.deepStrictEqual(page.warnings, ["room-config: disablePolls: object"]);
});

test("a page that had joined before this script came gets the settings", () => {
    const conference = new Conference({ roomConfig: { chatEnabled: false, muteOnJoin: true } });
    const page = new Page({ conference, isLate: true });
    assert.strictEqual(page.config.disableChat, true);
    assert.deepStrictEqual(page.muted, ["audio"]);
});

test("settings stay through breakout rooms, and the earlier conference has no say", () => {
    const page = new Page();
    page.settings({ chatEnabled: false });
    page.join();
    const main = page.conference;
    main.emit("CONFERENCE_LEFT");
    page.enter(new Conference());
    page.join();
    assert.strictEqual(page.config.disableChat, true);
    main.emit("NON_PARTICIPANT_MESSAGE_RECEIVED", null, { type: "ROOM_CONFIG", config: {} });
    assert.strictEqual(page.config.disableChat, true);
    page.metadata({});
    assert.strictEqual(page.config.disableChat, undefined);
});

test("another meeting in the same page begins with the page's own config", () => {
    const page = new Page();
    page.settings({ chatEnabled: false, meetingTitle: "Standup" });
    page.conference.emit("CONFERENCE_LEFT");
    page.meeting({ room: "review" });
    page.enter(new Conference());
    assert.strictEqual(page.config.disableChat, undefined);
    assert.strictEqual(page.title, undefined);
});

test("a meeting that begins before the earlier one says that it is left begins like the first", () => {
    const page = new Page();
    page.settings({ chatEnabled: false });
    page.join();
    const earlier = page.conference;
    page.meeting({ room: "review", conference: undefined });
    page.enter(new Conference({ roomConfig: { muteOnJoin: true, meetingDescription: "Bring cake" } }));
    earlier.emit("CONFERENCE_LEFT");
    const shown = () => page.store.actions.filter(({ type }) => type === "SHOW_NOTIFICATION").length;
    assert.deepStrictEqual([page.muted, shown()], [[], 0]);
    page.join();
    assert.deepStrictEqual([page.muted, shown()], [["audio"], 1]);
});

test("a Jitsi whose toolbar keeps its buttons in another way gets the settings", () => {
    const page = new Page();
    page.store.state["features/toolbox"] = { toolbarButtons: { chat: true } };
    page.settings({ chatEnabled: false, pollsEnabled: false });
    assertIsOff(page, "chatEnabled");
    assertIsOff(page, "pollsEnabled");
});

test("a name that each object of JavaScript has is no setting", () => {
    const page = new Page();
    page.settings(JSON.parse('{"__proto__": {"chatEnabled": false}, "constructor": false, "toString": false}'));
    assert.deepStrictEqual([page.config, page.warnings], [{}, []]);
});

test("newcomers are muted once in a meeting, also if the settings come after the join", () => {
    const page = new Page();
    page.join();
    assert.deepStrictEqual(page.muted, []);
    page.settings({ muteOnJoin: true, videoOffOnJoin: true });
    page.settings({ muteOnJoin: true, videoOffOnJoin: true });
    page.conference.emit("CONFERENCE_LEFT");
    page.enter(new Conference({ roomConfig: { muteOnJoin: true } }));
    page.join();
    assert.deepStrictEqual(page.muted, ["audio", "video"]);
});

test("who is in is not muted by a later change", () => {
    const page = new Page();
    page.join();
    page.settings({});
    page.settings({ muteOnJoin: true });
    assert.deepStrictEqual(page.muted, []);
});

test("encryption is off for the library too, before it looks", () => {
    const page = new Page({ config: { e2ee: { labels: {} } } });
    page.metadata({ e2eeEnabled: false });
    assert.deepStrictEqual(page.conference.options.config.e2ee, { labels: {}, disabled: true });
    page.metadata({});
    assert.deepStrictEqual(page.conference.options.config.e2ee, { labels: {} });
});

test("the title is shown, and a subject that somebody gives the room has priority", () => {
    const page = new Page();
    page.settings({ meetingTitle: " Sales <b>&quot;Q3&quot;</b> \u{1f600} " });
    assert.strictEqual(page.title, "Sales <b>&quot;Q3&quot;</b> \u{1f600}");
    page.meeting({ subject: "Lunch" });
    assert.strictEqual(page.title, undefined);
    page.meeting({ subject: "" });
    assert.strictEqual(page.title, "Sales <b>&quot;Q3&quot;</b> \u{1f600}");
    page.settings({ meetingTitle: "" });
    assert.strictEqual(page.title, undefined);
});

test("the description is shown to who is in, once, and again when it is another", () => {
    const page = new Page();
    const shown = () => page.store.actions.filter(({ type }) => type === "SHOW_NOTIFICATION").map(({ props }) => props);
    page.settings({ meetingTitle: "Standup", meetingDescription: "Bring <i>figures</i>" });
    assert.deepStrictEqual(shown(), []);
    page.join();
    page.settings({ meetingTitle: "Standup", meetingDescription: "Bring <i>figures</i>" });
    assert.deepStrictEqual(shown(), [{ title: "Standup", description: "Bring <i>figures</i>" }]);
    page.settings({ meetingDescription: "Bring cake" });
    assert.deepStrictEqual(shown()[1], { title: undefined, description: "Bring cake" });
});

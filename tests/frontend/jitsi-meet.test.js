// The names of the options and buttons are those of jitsi-meet: its own functions say what its page offers.
"use strict";

const assert = require("assert");
const test = require("node:test");
const { WHEN_FALSE } = require("../../frontend/room-config.js");
const { JitsiStore, WHY_MISSING, read } = require("./jitsi-meet.js");
const { Conference, Page } = require("./page.js");

const CONFIG = {
    liveStreaming: { enabled: true },
    recordingService: { enabled: true },
    transcription: { enabled: true },
    whiteboard: { enabled: true },
};

const configOf = (state) => state["features/base/config"];
const call = (file, name, ...args) => Boolean(read(file)[name](...args));
const has = (button) => (state) => call("toolbox/functions.any.ts", "isButtonEnabled", button, state);
const says = (file, name, ...args) => (state) => call(file, name, ...args, state);
const not = (condition) => (state) => !condition(state);
const member = (part, name) => (state) => Boolean((configOf(state)[part] || {})[name]);

// Where the function is one of jitsi-meet's components, its condition is here.
const OFFERED = {
    breakoutRoomsEnabled: not(member("breakoutRooms", "hideAddRoomButton")),
    chatEnabled: not((state) => configOf(state).disableChat),
    closedCaptionsEnabled: says("subtitles/functions.any.ts", "areClosedCaptionsEnabled"),
    e2eeEnabled: not(member("e2ee", "disabled")),
    filmstripEnabled: not(says("filmstrip/functions.web.ts", "isFilmstripDisabled")),
    kickParticipantsEnabled: not(member("remoteVideoMenu", "disableKick")),
    liveStreamingEnabled: has("livestreaming"),
    muteAllEnabled: says("participants-pane/functions.ts", "isMuteAllVisible"),
    noiseSuppressionEnabled: has("noisesuppression"),
    participantNameEditingEnabled: not(says("base/config/functions.any.ts", "isNameReadOnly")),
    pollsEnabled: not((state) => call("conference/functions.any.ts", "arePollsDisabled", state)),
    privateMessagesEnabled: says("base/participants/functions.ts", "isPrivateChatEnabled", { id: "other" }),
    raiseHandEnabled: has("raisehand"),
    reactionsEnabled: says("reactions/functions.any.ts", "isReactionsEnabled"),
    recordingEnabled: (state) => Boolean(read("recording/functions.ts").getRecordButtonProps(state).visible),
    screenShareEnabled: has("desktop"),
    securityEnabled: has("security"),
    sharedDocumentEnabled: has("etherpad"),
    speakerStatsEnabled: not(says("speaker-stats/functions.ts", "isSpeakerStatsDisabled")),
    tileViewEnabled: has("tileview"),
    virtualBackgroundsEnabled: not(member("virtualBackground", "disabled")),
    whiteboardEnabled: member("whiteboard", "enabled"),
};

// Recordings are judged where no transcription keeps the button.
function join(setting) {
    const config = { ...CONFIG, transcription: { enabled: setting !== "recordingEnabled" } };
    const conference = Object.assign(new Conference(), {
        getBreakoutRooms: () => ({ isSupported: () => true }),
        getPolls: () => ({ isSupported: () => true }),
        isE2EESupported: () => true,
    });
    const page = new Page({ store: new JitsiStore(config), conference });
    page.store.dispatch({ type: "CONFERENCE_JOINED", conference });
    conference.emit("CONFERENCE_JOINED");
    return page;
}

for (const setting of Object.keys(WHEN_FALSE)) {
    test(`jitsi-meet follows ${setting}`, { skip: WHY_MISSING }, () => {
        const page = join(setting);
        const seen = [true, false, true].map((value) => {
            page.settings({ [setting]: value });
            return OFFERED[setting](page.store.getState());
        });
        assert.deepStrictEqual(seen, [true, false, true]);
        assert.deepStrictEqual(page.warnings, []);
    });
}

test("jitsi-meet shows the title and the description as they were typed", { skip: WHY_MISSING }, () => {
    const page = join("");
    page.settings({ meetingTitle: "Q3 &amp; <b>", meetingDescription: "Bring <i>figures</i>" });
    const { "features/base/conference": { localSubject }, "features/notifications": { notifications } } =
        page.store.getState();
    assert.strictEqual(localSubject, "Q3 &amp; <b>");
    assert.deepStrictEqual(notifications.map(({ props }) => props.description), ["Bring <i>figures</i>"]);
});
